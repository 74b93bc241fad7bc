"""Evaluation: predictions or features in, named numbers out."""
