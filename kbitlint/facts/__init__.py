"""The data that rules read. Nothing here imports torch, ``ast`` or a collector."""
