"""HTML pages: the live page and the self-contained file."""
