"""One traced training step: forward and backward on a copy of the model without weights."""
