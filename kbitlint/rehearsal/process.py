"""The process of a rehearsal: its start, its environment, its limits and its end. It imports no torch."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from kbitlint.errors import KbitlintError
from kbitlint.rehearsal.bounds import MOST_SENT, bounds
from kbitlint.rehearsal.inbox import ForeignMessageError, take
from kbitlint.rehearsal.inside import peers
from kbitlint.rehearsal.messages import Received, Request
from kbitlint.runtime import content, orphans, process_memory, processes
from kbitlint.runtime.call_watch import CallWatch
from kbitlint.runtime.enclosure import DEVICES, SHARED

if TYPE_CHECKING:
    from kbitlint.rehearsal.bounds import Bounds
    from kbitlint.runtime.processes import Limits

#: Seconds between two looks at the memory of the process.
_LOOK = 0.2
_END_OF_OUTPUT = 4000
#: The code that the process runs first. Python has put the working folder on the path; the script's folder follows later.
_CHILD = """\
import sys
del sys.path[0]
package, request, *numbers = sys.argv[1:]
import importlib.util
spec = importlib.util.spec_from_file_location("kbitlint", package + "/__init__.py", submodule_search_locations=[package])
sys.modules["kbitlint"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["kbitlint"])
from kbitlint.rehearsal.stage import perform
perform(request, *map(int, numbers))
"""


def run(request: Request, limits: Limits) -> Received:
    """Run a rehearsal in a process of its own, and return everything that it sent.

    The process and every process that it started have ended when this function returns.

    Raises:
        KbitlintError: The process cannot be started, or kbitlint itself failed in it.
    """
    if not hasattr(os, "fork"):
        raise KbitlintError("rehearse needs a system with POSIX processes: Linux or macOS")
    folder = Path(request.folder)
    file = folder / "request"
    file.write_bytes(pickle.dumps(request))
    package = str(Path(__file__).parents[1])
    reading, writing = os.pipe()
    command = [sys.executable, *subprocess._args_from_interpreter_flags()]  # type: ignore[attr-defined]  # noqa: SLF001  # multiprocessing passes these flags on, too
    with (
        contextlib.ExitStack() as stack,
        (folder / "output").open("wb") as output,
        os.fdopen(reading, "rb", buffering=0) as pipe,
    ):
        adoption = stack.enter_context(orphans.adopted())
        watch = stack.enter_context(
            contextlib.closing(CallWatch(request.folder, DEVICES, SHARED, local=(request.command.ranks or 1) > 1))
        )
        numbers = (writing, os.getpid(), watch.theirs.fileno())
        try:
            child = subprocess.Popen(  # noqa: S603  # this interpreter
                [*command, "-c", _CHILD, package, str(file), *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(request, folder),
                pass_fds=(writing, watch.theirs.fileno()),
                start_new_session=True,
            )
        except OSError as error:
            raise KbitlintError(f"the rehearsal cannot be started: {sys.executable}: {error.strerror or error}") from error
        finally:
            os.close(writing)
            watch.theirs.close()
        received = Received()
        try:
            received.unfinished = _receive(pipe, child, bounds(limits, child.pid, request.folder, adoption), received, watch)
        finally:
            _end(child, request.folder)
    complete(received, request)
    if not received.done and not received.unfinished and received.raised is None and received.exit is None:
        received.unfinished = f"its process {processes.ending(child.returncode)}"
    return received


def environment(request: Request, folder: Path) -> dict[str, str]:
    """Return the environment of the script: the user's, without services, with caches in the folder."""
    home = os.environ.get("HF_HOME") or os.path.join(  # noqa: PTH118  # a string for the environment
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),  # noqa: PTH111  # a string for the environment
        "huggingface",
    )
    caches = ("HF_DATASETS_CACHE", "HF_MODULES_CACHE", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR")
    made = {name: str(folder / "caches" / name.lower()) for name in (*caches, "NUMBA_CACHE_DIR", "TORCH_EXTENSIONS_DIR")}
    offline = () if request.network else ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    off = dict.fromkeys((*offline, "HF_HUB_DISABLE_TELEMETRY"), "1")
    services = {"WANDB_MODE": "disabled", "WANDB_SILENT": "true", "COMET_MODE": "disabled", "CLEARML_OFFLINE_MODE": "1"}
    count = request.command.ranks or 1
    several = count > 1 or request.command.launcher in ("torchrun", "deepspeed")
    launched = _rank_zero(count) if several else {}
    return {
        **os.environ,
        "HF_HOME": home,
        **made,
        **off,
        **services,
        **launched,
        **request.command.environment,
        "TMPDIR": str(folder / "tmp"),
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _rank_zero(count: int) -> dict[str, str]:
    """Return what a launcher tells the first of several ranks."""
    rank = {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return {**rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def complete(received: Received, request: Request) -> None:
    """Add what the processes of a rehearsal left in its folder: the end of what they printed, and what further ranks sent."""
    received.output = _tail(Path(request.folder, "output"))
    for rank in range(1, request.command.ranks or 1):
        received.ranks[rank] = _sent(peers.messages(request.folder, rank))


def _sent(file: Path) -> Received:
    """Return what a file of messages holds; nothing if there is none. A rank that was killed may leave half a message."""
    received = Received()
    with contextlib.suppress(OSError, ForeignMessageError):
        take(content.read(file, MOST_SENT), received)
    return received


def _receive(pipe: BinaryIO, child: subprocess.Popen[bytes], bound: Bounds, received: Received, watch: CallWatch) -> str:
    """Collect the messages until the process ends or reaches a bound. Return which bound, or nothing."""
    waiting, looked = b"", 0.0
    while True:
        sources: list[Any] = [pipe, watch] if watch.fileno() >= 0 else [pipe]
        ready, _, _ = select.select(sources, [], [], _LOOK)
        if watch in ready:
            watch.answer()
        if pipe in ready:
            part = os.read(pipe.fileno(), 1 << 16)
            bound.sent += len(part)
            try:
                waiting = take(waiting + part, received)
            except ForeignMessageError as error:
                return f"the script wrote into kbitlint's own pipe ({error})"
            if not part:  # the process has ended, or closed its end
                return ""
        elif child.poll() is not None:  # a process that it forked may hold the pipe open
            return ""
        if ready and time.monotonic() - looked < _LOOK / 4:
            continue
        looked = time.monotonic()
        exceeded = bound.exceeded()
        if exceeded is not None:
            return exceeded


def _end(child: subprocess.Popen[bytes], folder: str) -> None:
    """End the process and all that it started. Those that left its session have its environment, which names the folder."""

    def kill() -> bool:
        alive = child.poll() is None
        if alive:
            child.kill()
        return alive

    processes.end_family(child.pid, kill)
    child.wait()
    for process in process_memory.started_with(folder):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)


def _tail(file: Path) -> str:
    """Return the end of a file. The script may have put a pipe or a device into its place: that has none."""
    with contextlib.suppress(OSError), content.opened(file, follow=False) as output:
        output.seek(max(0, os.fstat(output.fileno()).st_size - _END_OF_OUTPUT))
        return output.read(_END_OF_OUTPUT).decode("utf-8", "replace")
    return ""
