"""The command line."""

from kbitlint.cli import interrupts

with interrupts.while_importing():
    from kbitlint.cli.commands import main

__all__ = ["main"]
