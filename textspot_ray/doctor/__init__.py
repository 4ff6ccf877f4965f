"""What a run depends on, checked before it starts."""
