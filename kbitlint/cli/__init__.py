"""The command line."""

import gc

from kbitlint.cli import interrupts

gc.set_threshold(10_000)  # a collection walks all that is imported: a twentieth of a script's audit, an eighth of a folder's
with interrupts.while_importing():
    from kbitlint.cli.commands import main

__all__ = ["main"]
