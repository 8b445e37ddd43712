"""Time and memory: the cost of audits, of preparations and of training steps."""
