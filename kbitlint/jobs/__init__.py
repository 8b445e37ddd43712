"""Audits of many targets at once, each in its own process."""
