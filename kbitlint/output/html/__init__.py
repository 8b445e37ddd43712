"""The HTML format: one page with the reports, the modules of the model and the memory of a training step."""
