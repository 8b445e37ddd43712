"""All that rules read, as data: no torch, no syntax tree, and nothing of what collects it."""
