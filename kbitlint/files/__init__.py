"""The files surface: checkpoint and adapter folders. No module here imports torch."""
