"""Accuracy of a table: ICDAR ground truth, matching, intervals, comparison of two tables."""
