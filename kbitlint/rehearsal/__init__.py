"""Rehearsal: the user's script runs as ``__main__`` in a process of its own, without weights, GPU or data.

``command.py`` reads the command line, ``process.py`` starts and bounds the process, ``merge.py`` makes the reports.
``stage.py`` is what the process runs. It puts the stand-ins in place, one file a kind, and runs the script.
"""
