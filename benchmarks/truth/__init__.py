"""Verdicts of kbitlint, compared with real training."""
