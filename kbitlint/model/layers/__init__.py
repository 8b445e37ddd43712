"""What a layer is: one file for each concept."""
