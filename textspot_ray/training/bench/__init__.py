"""Measures speed as ratios within one run; `jobs/bench.py` is its front."""
