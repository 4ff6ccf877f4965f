"""Real photographs and words: loading, labelling, leak checks."""
