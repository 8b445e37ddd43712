"""A rule pack of one rule: what an author of another pack writes."""
