"""Training configurations, collected as the same facts as those of scripts."""
