"""Edits of live models and their rollback. Rules decide which edits a model needs."""
