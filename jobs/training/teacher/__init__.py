"""A teacher with free terms: what it reads becomes labels for words that have none."""
