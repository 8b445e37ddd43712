"""Robustness against bad files, hostile code, failing disks and interruptions."""
