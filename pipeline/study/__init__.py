"""Comparison of many runs: their table, and which differences are statistically significant."""
