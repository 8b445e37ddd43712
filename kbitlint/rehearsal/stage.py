"""The process of a rehearsal: it puts the guards and stand-ins in place, runs the script, and sends what happens."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import socket
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.errors import one_line
from kbitlint.rehearsal.inside import peers, script, shared_memory
from kbitlint.rehearsal.inside.folders import Mirror
from kbitlint.rehearsal.inside.imports import after_import
from kbitlint.rehearsal.inside.record import Record
from kbitlint.rehearsal.inside.writing import real_path, redirect
from kbitlint.rehearsal.messages import Done, Missing
from kbitlint.rehearsal.stand_ins import made_up_files
from kbitlint.runtime import processes
from kbitlint.runtime.enclosure import enclose
from kbitlint.runtime.task_limit import limit_tasks

if TYPE_CHECKING:
    from kbitlint.rehearsal.messages import Request


#: the most bytes of a file that the script writes, its output included
_LARGEST_FILE = 4 * 2**30
#: processes and threads that the script may have beside those of its user: a loader for each core, each with its threads
_MORE_TASKS = 4096


def perform(request_file: str, pipe: int, parent: int, watcher: int) -> None:
    """Rehearse the script of a request, and end the process.

    Args:
        request_file: The pickled request.
        pipe: The descriptor for messages.
        parent: The process that started this one. This one ends with it.
        watcher: The descriptor of a socket that leads to the parent's ``CallWatch``.
    """
    processes.die_with_parent(parent)
    if sys.platform != "win32":
        os.register_at_fork(after_in_child=lambda: processes.die_with_parent(os.getppid()))  # workers of data loaders
    os.set_inheritable(pipe, False)  # noqa: FBT003  # a positional argument of Python's
    request: Request = pickle.loads(Path(request_file).read_bytes())  # noqa: S301  # written by this program
    record = Record(request, Mirror(request.folder), pipe)
    try:
        prepare(record)
        enter(record, watcher=socket.socket(fileno=watcher))
    except BaseException:  # noqa: BLE001  # kbitlint's own fault, which the parent reports
        last = traceback.format_exc().strip().splitlines()
        record.send(f"the rehearsal could not start: {last[-1]} ({' '.join(last[-3:-1])})")
        _leave()
    play(record)


def play(record: Record) -> None:
    """Run the script on each rank, send how it ends, and end the process."""
    others, failed = peers.fork(record), False
    try:
        script.run(record.request, record.mirror, record.cells)
    except BaseException as error:  # noqa: BLE001  # every end of the script is a result
        failed = _send_ending(error, record)
    else:
        if not record.trainings:
            _send_missing(record)
    others.wait(failed=failed)
    record.send(Done(whole=not failed))
    _leave(int(failed))


def _leave(status: int = 0) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    os._exit(status)  # the script's threads and exit handlers have nothing left to do


def _send_ending(error: BaseException, record: Record) -> bool:
    """Send how the script ended, and return whether it failed. Its traceback goes to its output, as a real run prints it."""
    from kbitlint.rehearsal.inside.artefacts import demands_path  # see above
    from kbitlint.rehearsal.inside.outcome import ending  # see above
    from kbitlint.rehearsal.trainings.loops import LoopLeft  # imports torch

    with contextlib.suppress(Exception):  # its text may be none that can be printed
        traceback.print_exception(type(error), error, error.__traceback__)
    if isinstance(error, LoopLeft):
        return False
    try:
        if demands_path(error, record):
            _send_missing(record)
        found = ending(error, record)
    except Exception as own:  # noqa: BLE001  # kbitlint's own fault
        record.send(f"the end of the script could not be judged: {one_line(own)}")
        return True
    if found is not None:
        record.send(found)
    return found is not None


def _send_missing(record: Record) -> None:
    for path in sorted(record.missing):
        record.send(Missing(path))


def prepare(record: Record) -> None:
    """Import what a rehearsal needs, and put the stand-ins in place. They ask the record what is rehearsed."""
    gc.set_threshold(10_000)  # a collection walks all modules of torch and transformers
    for name in ("tmp", "caches"):
        Path(record.request.folder, name).mkdir(exist_ok=True)
    os.chdir(record.request.folder)
    from kbitlint.extras import load_bitsandbytes  # its import is for this process
    from kbitlint.rehearsal.inside import absent  # see above
    from kbitlint.rehearsal.stand_ins import services, unsloth  # see above

    if _is_installed("bitsandbytes"):
        load_bitsandbytes("a rehearsal")
    _stand_ins(record)
    services.install(record)
    absent.install(record)
    unsloth.install(record)


def enter(record: Record, writable: str | None = None, watcher: socket.socket | None = None) -> None:
    """Enter the mirror of the working folder, and enclose this process.

    Args:
        record: The record of the rehearsal.
        writable: The only folder that may be written; None for that of the request.
        watcher: Leads to the watcher of native code; None if there is none.
    """
    request, mirror = record.request, record.mirror
    from kbitlint.rehearsal.stand_ins import devices, services  # ``prepare`` has imported them

    if sys.platform != "win32":
        import resource  # Windows has none

        resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
        limit_tasks(_MORE_TASKS)
    os.chdir(mirror.open_up(request.working_folder))
    count = request.command.ranks or 1
    record.note(f"as on {count if count > 1 else 'one'} {devices.DEVICES[request.device_like].name}")
    shared_memory.install(request.folder)
    for place in request.assumed:
        made_up_files.assume(record, place)
    redirect(mirror, lambda place: made_up_files.fill(record, place), lambda place: made_up_files.ask(record, place))
    enclose(
        writable or request.folder,
        lambda act: record.skip(f"a rehearsal may not {act}"),
        services.may_start,
        real_path,
        network=request.network,
        ranks=peers.count_of(record),
        watcher=watcher,
    )


def _is_installed(package: str) -> bool:
    from importlib.util import find_spec  # see above

    return find_spec(package) is not None


def _stand_ins(record: Record) -> None:
    import torch  # after the folder and the environment are set

    from kbitlint.rehearsal.stand_ins import devices, weight_files  # these import torch

    weight_files.install(record)
    devices.install(record)
    import transformers  # after the functions that it imports by name are replaced

    from kbitlint.rehearsal.stand_ins import adapters, data, evaluation, generation, models, ranks, saving, words  # see above
    from kbitlint.rehearsal.trainings import loops, trainers  # see above

    models.install(record, transformers)
    words.install(record, transformers)
    loops.install(record)
    ranks.install(record)
    saving.install(record)
    generation.install(record)
    evaluation.install(record)
    after_import("transformers.training_args", lambda module: trainers.install_arguments(record, module))
    after_import("transformers.trainer", lambda module: trainers.install(record, module))
    after_import("datasets", lambda module: data.install(record, module))
    after_import("peft", lambda module: adapters.install(record, module))
    torch.compile = _uncompiled


def _uncompiled(model: Any = None, **_: Any) -> Any:
    """Return what ``torch.compile`` gets, uncompiled: a compiled model computes the same."""
    return (lambda function: function) if model is None else model
