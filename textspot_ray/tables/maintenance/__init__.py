"""What is done to finished tables: compact, merge, forget, retry, vacuum, verify."""
