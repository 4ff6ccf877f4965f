"""Rendered pictures of words and the words' exact places."""
