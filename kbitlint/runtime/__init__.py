"""Guards of the running process: which files, modules, processes and resources it may use."""
