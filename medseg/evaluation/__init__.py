"""Predictions and references to scores."""
