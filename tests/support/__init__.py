"""Helpers of the tests: builders of inputs, models and tables, and scripted workers."""
