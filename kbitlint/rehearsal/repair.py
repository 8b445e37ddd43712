"""A rehearsal that repairs its script first: the edits of the rules on scripts, then the run of what they made."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from kbitlint import api
from kbitlint.errors import TargetError
from kbitlint.rehearsal.command import read_command
from kbitlint.rehearsal.run import Rehearsal, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kbitlint.report import Report


def repair(words: Sequence[str], how: Rehearsal, options: dict[str, Any], *, unsafe: bool = False) -> tuple[Report, ...]:
    """Fix the script of a command where its text shows the cause, rehearse it, and return the reports.

    The first report also names the edits.

    Args:
        words: The command, as for ``run``.
        how: How the script is rehearsed.
        options: As for ``kbitlint.fix``.
        unsafe: Also apply fixes that may change the computation or the trained parameters.

    Raises:
        KbitlintError: As for ``run``; or the command names a module, whose file is not the user's to change.
    """
    command = read_command(words)
    if command.is_module:
        raise TargetError(command.script, "is a module: name its file to fix it")
    fixed = api.fix(command.script, unsafe=unsafe, **options)
    first, *further = run(words, how, options)
    return (dataclasses.replace(first, applied=fixed.applied), *further)
