"""An interpreter that follows a training script along its execution paths without running it."""
