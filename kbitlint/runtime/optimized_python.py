"""The interpreter that runs the command line, and its options."""

from __future__ import annotations

import os
import re
import sys

#: options of one letter, which may be joined: ``-sOO``
_FLAGS = re.compile(r"-[bBdEiIOPqsSuvx]+")


def keep_docstrings() -> None:
    """Start this command line again with docstrings where ``python -OO`` or ``PYTHONOPTIMIZE=2`` strips them.

    transformers 5 reads them when its models are imported, and raises where there are none (``auto_docstring``).
    """
    if sys.flags.optimize < 2:
        return
    os.environ.pop("PYTHONOPTIMIZE", None)
    command = [sys.executable, *_without_stripping(sys.orig_argv[1:])]
    sys.stdout.flush()
    if os.name == "posix":
        os.execv(sys.executable, command)  # noqa: S606  # the interpreter that runs now, with the arguments it was given
    import subprocess  # Windows has no exec: it would start a process and leave this one

    sys.exit(subprocess.call(command))  # noqa: S603  # see above


def _without_stripping(arguments: list[str]) -> list[str]:
    """Return the arguments of an interpreter without ``-O`` among its own options; those of the program stay."""
    kept: list[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] not in ("-", "-c", "-m", "--"):
        option = rest.pop(0)
        if _FLAGS.fullmatch(option):
            option = option.replace("O", "")
        if option != "-":
            kept.append(option)
        if option in ("-W", "-X") and rest:  # their value is an argument of its own
            kept.append(rest.pop(0))
    return [*kept, *rest]
