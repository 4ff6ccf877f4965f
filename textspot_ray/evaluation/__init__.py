"""How right a table is: ICDAR ground truth, matching, intervals, comparison of two tables."""
