"""Guards of the running process: what it may open, import, start and use."""
