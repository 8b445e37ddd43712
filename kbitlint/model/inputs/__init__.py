"""Inputs and labels for a training step, derived from what a model's class documents."""
