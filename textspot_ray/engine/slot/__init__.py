"""A slot: one runner with a detector and a recogniser, and what happens when one of them fails."""
