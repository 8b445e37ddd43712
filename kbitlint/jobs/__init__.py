"""Many targets at once, each in a process of its own."""
