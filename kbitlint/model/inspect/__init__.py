"""What one walk over a model sees."""
