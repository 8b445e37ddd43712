"""The HTML page: one file with the report, the model's modules and the memory of a training step."""
