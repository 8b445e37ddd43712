"""What stands in for weights, data, GPUs, services and packages that are not here: a module for each."""
