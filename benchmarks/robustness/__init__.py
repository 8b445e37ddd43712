"""Bad inputs, bad code, bad disks and bad moments."""
