"""Find and read every word in very large archives of images, and leave tables to query."""

__version__ = "0.1.0"
