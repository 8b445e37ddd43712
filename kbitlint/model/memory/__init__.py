"""The memory of a training step, measured on a step without weights."""
