"""How a run works: planning, sizing, dispatch; the slot and its workers; Ray or in-process."""
