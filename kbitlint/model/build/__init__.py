"""Construction of models: from a config on the meta device, from a user's factory, or from stored weights."""
