"""Fixes of models and files: the plan, the edits in place, and the training step that proves them."""
