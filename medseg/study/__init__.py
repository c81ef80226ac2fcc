"""Experiments over many runs: benchmark, demo."""
