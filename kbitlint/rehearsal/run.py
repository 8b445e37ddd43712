"""A rehearsal from outside: its command, its folder, its process, its reports. It imports no torch."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint import registry
from kbitlint.audit.options import options_of
from kbitlint.context import TrainingContext
from kbitlint.errors import KbitlintError, did_you_mean
from kbitlint.extras import require_model_extra
from kbitlint.lazy_dataclass import dataclass
from kbitlint.limits import held_to
from kbitlint.rehearsal import merge, own_folder, process
from kbitlint.rehearsal.command import read_command, words_of
from kbitlint.rehearsal.inside import peers
from kbitlint.rehearsal.messages import Received, Request
from kbitlint.report import Report
from kbitlint.result import Skip
from kbitlint.runtime import process_memory
from kbitlint.runtime.processes import Limits
from kbitlint.sizes import size_of
from kbitlint.violation import Surface

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kbitlint.audit.options import Options
    from kbitlint.rehearsal.command import Command

#: the machines that ``--device-like`` names; ``devices.py`` has their data
MACHINES = ("h100", "a100", "4090", "t4")


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How scripts are rehearsed."""

    device_like: str = "a100"
    """The GPU that ``torch.cuda`` answers as."""
    timeout: float = 600.0
    """The most seconds of a rehearsal."""
    memory: int = 8_000_000_000
    """The most bytes of memory of its processes."""
    rows: int = 64
    """The most rows of a data set that are read."""
    allow_network: bool = False
    """Whether the script may open connections. Configs and tokenizers then come from the Hub; weights never do."""
    show: Callable[[str], None] | None = None
    """Receives the end of what the script printed; None shows nothing."""

    def __post_init__(self) -> None:
        if self.device_like not in MACHINES:
            raise KbitlintError(
                f"device_like: {self.device_like!r} is none of {', '.join(MACHINES)}{did_you_mean(self.device_like, MACHINES)}"
            )
        for name in ("timeout", "memory", "rows"):
            if getattr(self, name) <= 0:
                raise KbitlintError(f"{name}: {getattr(self, name)} is not more than 0")


def rehearse(
    path: str | Path,
    argv: Sequence[str] = (),
    *,
    device_like: str = "a100",
    timeout: float = 600.0,
    memory: int | str = 8_000_000_000,
    rows: int = 64,
    allow_network: bool = False,
    **options: Any,
) -> tuple[Report, ...]:
    """Run a training script up to its first training step and behind it, without weights, GPU or data, and report.

    The script is code of the user's own, and runs with the user's rights in a process of its own. The process writes into a
    temporary folder only, opens no connection without leave, and ends at its limits.

    Args:
        path: The script or notebook; or a whole command, such as ``accelerate launch train.py --flag``.
        argv: The arguments of the script.
        device_like: The GPU that ``torch.cuda`` answers as: ``h100``, ``a100``, ``4090`` or ``t4``.
        timeout: The most seconds that the script may take.
        memory: The most bytes of memory, as a number or a size such as ``8GB``.
        rows: The most rows of a data set that are read.
        allow_network: Whether the script may open connections. Configs and tokenizers then come from the Hub.
        **options: As for ``kbitlint.check``. ``run=False`` refuses to run the script.

    Returns:
        One report for each training that the script reached, at least one. The first one holds what concerns the whole script.

    Raises:
        KbitlintError: There is no such script, an argument is wrong, or the process cannot be started.
    """
    words = words_of(path, argv) or (str(path), *argv)
    try:
        nbytes = size_of(memory) if isinstance(memory, str) else int(memory)
    except ValueError as error:
        raise KbitlintError(f"memory: {error}") from error
    return run(words, Rehearsal(device_like, timeout, nbytes, rows, allow_network), options)


def run(words: Sequence[str], how: Rehearsal, options: dict[str, Any]) -> tuple[Report, ...]:
    """Rehearse the command that the words hold, and return its reports."""
    chosen = options_of(options)
    rules = registry.select(chosen.select, chosen.ignore, chosen.rule_options)
    command = _with_ranks(read_command(words))
    if not chosen.run:
        return (Report(command.text, "not run", skips=(Skip("", Surface.REHEARSAL, "scripts are not run (--no-run)"),)),)
    with held_to(chosen.limits):
        return merge.reports_of(perform(command, how, chosen), command, rules, chosen)


def perform(command: Command, how: Rehearsal, options: Options, **further: Any) -> Received:
    """Rehearse a command, and return what its process sent. ``further`` are fields of the request."""
    if sys.platform == "win32":
        raise KbitlintError("rehearsals need Linux or macOS: on Windows, rehearse in WSL")
    require_model_extra(f"rehearsing {command.script}")
    limits = Limits(how.timeout, how.memory if process_memory.can_be_counted() else None)
    folder = str(Path.cwd())
    given = {"network": how.allow_network, "patience": peers.PATIENCE, **further}
    request = Request(command, "", folder, how.device_like, options, how.rows, **given)
    received = _performed(request, limits)
    with contextlib.suppress(OSError):
        if how.show is not None:
            how.show(received.output)
    return received


def _with_ranks(command: Command) -> Command:
    """Return a command with the number of ranks of its launcher's file, where its arguments give none.

    Raises:
        KbitlintError: The file cannot be read.
    """
    if command.ranks is not None or command.launch_file is None:
        return command
    return dataclasses.replace(command, ranks=TrainingContext.from_launcher_file(Path(command.launch_file)).world_size)


def _performed(request: Request, limits: Limits) -> Received:
    """Rehearse a request. A script that ends because a path is missing is rehearsed again with the path made up."""
    received = _once(request, limits)
    if received.trainings or received.measured or not received.missing:
        return received
    again = _once(dataclasses.replace(request, assumed=tuple(received.missing)), limits)
    return again if again.trainings or again.measured or len(again.missing) < len(received.missing) else received


def _once(request: Request, limits: Limits) -> Received:
    with own_folder.made() as folder:
        return process.run(dataclasses.replace(request, folder=folder), limits)
