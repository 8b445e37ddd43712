"""Benchmarks: ``python -m benchmarks.run`` runs all of them."""
