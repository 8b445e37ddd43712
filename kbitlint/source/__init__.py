"""Training scripts, notebooks and training configurations, as facts. Standard library only; no torch."""
