"""Measures speed as ratios within one run; `python -m jobs.bench` is its front."""
