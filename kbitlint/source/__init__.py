"""Scripts, notebooks and training configurations, collected as facts.

Nothing in this folder imports torch or another training library.
"""
