"""Metrics: pure functions, NumPy in, numbers out."""
