"""How the embedded bundle was made (extra: train)."""
