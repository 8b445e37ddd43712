"""The group of all commands, and the meaning of its first words."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbitlint.cli.exits import CommandLine
from kbitlint.errors import did_you_mean
from kbitlint.runtime.optimized_python import keep_docstrings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Command(click.Command):
    """A command of which no option takes another option as its value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Return the words that are left.

        Raises:
            BadOptionUsage: An option that takes a value is followed by an option. One with a value of its own may be.
        """
        for option, name, value in self._values(ctx, args):
            if value.startswith("--") and not isinstance(option.flag_value, str):
                raise click.BadOptionUsage(name, f"Option {name!r} requires a value, and {value!r} is none.", ctx)
        return super().parse_args(ctx, args)

    def _values(self, ctx: click.Context, args: Sequence[str]) -> Iterator[tuple[click.Option, str, str]]:
        """Yield (option, its name, the next word) for each option of a command line that takes the next word as its value."""
        found = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        options = {name: option for option in found for name in option.opts if not (option.is_flag or option.count)}
        taken = False
        for word, following in pairwise([*args, ""]):
            if taken:
                taken = False
            elif word == "--" or not (word.startswith("-") or ctx.allow_interspersed_args):
                return
            elif word in options and following:
                yield options[word], word, following
                taken = not following.startswith("--")


class Commands(CommandLine):
    """A group in which ``kbitlint --fix TARGET`` means ``kbitlint check --fix TARGET``."""

    command_class = Command

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
