"""What the objects of the libraries have, take and return, by version."""
