"""The trainings that a rehearsed script reaches: where they stop, what is audited, and how the script goes on."""
