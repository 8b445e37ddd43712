"""Shell completion: the script of a shell, and where that shell looks for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from click.shell_completion import get_completion_class

from kbitlint.cli.exits import COMPLETE
from kbitlint.errors import KbitlintError
from kbitlint.files import atomic

if TYPE_CHECKING:
    import click

PROGRAM = "kbitlint"


def script(command: click.Command, shell: str) -> str:
    """Return the completion script of a shell.

    Args:
        command: The command line.
        shell: ``bash``, ``zsh`` or ``fish``.
    """
    found = get_completion_class(shell)
    if found is None:
        raise KbitlintError(f"completion: {shell} is not supported")
    made = found(command, {}, PROGRAM, COMPLETE)
    return f"{(made.source_template % made.source_vars()).strip()}\n"


def install(command: click.Command, shell: str) -> str:
    """Write the completion script where the shell loads it from, and return a line that says where.

    Raises:
        KbitlintError: The file cannot be written.
    """
    path, further = _place(shell)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.replace(path, script(command, shell).encode())
    except OSError as error:
        raise KbitlintError(f"{path}: cannot be written: {error.strerror or error}") from error
    return f"written: {path}{further}\nopen a new shell to use it"


def _place(shell: str) -> tuple[Path, str]:
    """Return the file that a shell loads at its first completion of the program, and what else it needs."""
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    if shell == "bash":
        return data / "bash-completion" / "completions" / PROGRAM, " (the package bash-completion loads it)"
    if shell == "fish":
        return settings / "fish" / "completions" / f"{PROGRAM}.fish", ""
    return home / ".zfunc" / f"_{PROGRAM}", "; .zshrc needs, once: fpath=(~/.zfunc $fpath); autoload -Uz compinit; compinit"
