"""The group of all commands, and the meaning of its first words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.cli.exits import CommandLine
from kbitlint.errors import did_you_mean
from kbitlint.runtime.optimized_python import keep_docstrings

if TYPE_CHECKING:
    import click


class Commands(CommandLine):
    """A group in which ``kbitlint --fix TARGET`` means ``kbitlint check --fix TARGET``."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the commands. Rules keep their documents, also under ``python -OO``."""
        keep_docstrings()
        return super().main(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Return the words of a command line; before an option, ``check`` may be left out."""
        own = {"--help", "-h", "--version"}
        if args[:1] == ["help"] and not Path("help").exists():  # as git and pip have it
            args = [*args[1:], "--help"]
        if args and args[0].startswith("-") and not own & set(args):
            rest = list(args)
            if "check" in rest and not Path("check").exists():  # kbitlint --verbose check TARGET
                rest.remove("check")
            args = ["check", *rest]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of the first word.

        Raises:
            UsageError: There is none; the message has the likely command.
        """
        if args and self.get_command(ctx, args[0]) is None:
            hint = did_you_mean(args[0], self.commands)
            target = f"; to audit a target: kbitlint check {args[0]}"
            ctx.fail(f"there is no command {args[0]!r}{hint or target}")
        return super().resolve_command(ctx, args)
