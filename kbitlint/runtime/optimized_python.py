"""Restart of the command line under ``python -OO``, which strips docstrings."""

from __future__ import annotations

import os
import re
import sys

#: options of one letter, which can be joined: ``-sOO``
_FLAGS = re.compile(r"-[bBdEiIOPqsSuvx]+")


def keep_docstrings() -> None:
    """Restart this command line with docstrings if ``python -OO`` or ``PYTHONOPTIMIZE=2`` strips them.

    transformers 5 reads docstrings when it imports a model, and raises if there are none (``auto_docstring``).
    """
    if sys.flags.optimize < 2:
        return
    os.environ.pop("PYTHONOPTIMIZE", None)
    command = [sys.executable, *_without_stripping(sys.orig_argv[1:])]
    sys.stdout.flush()
    if os.name == "posix":
        os.execv(sys.executable, command)  # noqa: S606  # the running interpreter with its own arguments
    import subprocess  # Windows has no exec; its emulation starts a process and returns

    sys.exit(subprocess.call(command))  # noqa: S603  # the running interpreter with its own arguments


def _without_stripping(arguments: list[str]) -> list[str]:
    """Return the arguments without ``-O`` among the interpreter's options. The program's own arguments stay."""
    kept: list[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] not in ("-", "-c", "-m", "--"):
        option = rest.pop(0)
        if _FLAGS.fullmatch(option):
            option = option.replace("O", "")
        if option != "-":
            kept.append(option)
        if option in ("-W", "-X") and rest:  # their value is the next argument
            kept.append(rest.pop(0))
    return [*kept, *rest]
