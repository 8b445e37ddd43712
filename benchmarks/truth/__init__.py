"""Verdicts against real training."""
