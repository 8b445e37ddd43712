"""Target -> facts -> rules -> report."""
