"""Errors of predictions, pure and one value a sample."""
