"""The second look at each word: a rectangle laid upright, its corners moved."""
