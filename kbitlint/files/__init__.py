"""The files surface: checkpoint and adapter folders, read without torch."""
