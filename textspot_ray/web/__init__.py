"""Pages to look at: the live page and the self-contained file."""
