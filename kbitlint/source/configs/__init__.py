"""Training configurations as the facts of scripts."""
