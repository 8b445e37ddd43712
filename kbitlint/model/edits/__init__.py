"""Edits of live models and their rollback. Which edits a model needs is decided by rules."""
