"""The server of ``--jobs``: audits of many targets, each in its own process.

A crash or a hang costs one target only. The server has imported the modules that every audit needs
(``kbitlint.jobs.preload``), so a further target costs only its audit. Forking it is safe: it does not initialise CUDA and
runs no thread of torch.

The server is an isolated interpreter (``python -I``): the working folder and PYTHONPATH are never on its path. It ends
when its client process ends, and ends all targets with it. ``runtime/processes.py`` runs the processes.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import site
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from kbitlint.errors import KbitlintError, one_line
from kbitlint.lazy_dataclass import dataclass
from kbitlint.result import Failure
from kbitlint.runtime import import_paths, process_memory, processes
from kbitlint.runtime.processes import Limits, Pool, Unfinished, ending

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kbitlint.report import Report

#: Seconds that the server has to end its processes.
_PATIENCE = 10.0
#: The code that the server runs first. It copies ``sys.path`` of its client, less the folders of targets, and imports
#: kbitlint from the same place. Modules imported before that are those of the installation.
_SERVER = """\
import site, sys
parent, user, package, *entries = sys.argv[1:]
sys.path[:] = entries + [entry for entry in sys.path if entry not in entries]
if user:
    site.addsitedir(user)
import importlib.util
spec = importlib.util.spec_from_file_location("kbitlint", package + "/__init__.py", submodule_search_locations=[package])
sys.modules["kbitlint"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["kbitlint"])
from kbitlint.jobs.server import serve
serve(int(parent))
"""


@dataclass(frozen=True, slots=True)
class _Request:
    """The request of the client to the server."""

    targets: tuple[str, ...]
    options: Mapping[str, Any]
    jobs: int
    limits: Limits
    folders: tuple[str, ...]
    forks: bool


def audit_many(
    targets: Sequence[str],
    options: Mapping[str, Any],
    *,
    jobs: int = 1,
    timeout: float | None = None,
    memory: int | None = None,
) -> list[Report | Failure]:
    """Return the report of each target, or the reason why there is none, in the order of the targets.

    Args:
        targets: Target strings.
        options: As for ``kbitlint.check``.
        jobs: The number of processes that run at once.
        timeout: The most seconds for one target; None for no limit.
        memory: The most bytes of the machine's memory (not a GPU's) that one target may hold with the processes that it
            starts; None for no limit.

    Raises:
        KbitlintError: The server cannot be started, or ``memory`` is set on a system that does not report memory.
    """
    if memory is not None and not process_memory.can_be_counted():
        raise KbitlintError("--target-memory needs Linux, or psutil elsewhere: pip install 'kbitlint[processes]'")
    folders = import_paths.reached_by(targets)
    request = _Request(tuple(targets), dict(options), jobs, Limits(timeout, memory), folders, processes.can_fork())
    found: dict[int, Report | Failure] = {}
    # a server that does not answer has ended; its earlier answers count
    with _server(folders) as server, contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
        _tell(_pipe(server.stdin), request)
        while len(found) < len(targets):
            number, result = pickle.load(_pipe(server.stdout))  # noqa: S301  # written by this program
            if number is None:
                raise KbitlintError(result)
            found[number] = result
    lost = f"the server of --jobs {ending(server.returncode)}"
    return [found.get(number) or Failure(target, f"{target}: {lost}") for number, target in enumerate(targets)]


def _pipe(stream: Any) -> BinaryIO:
    assert stream is not None  # noqa: S101  # opened by _server
    return stream  # type: ignore[no-any-return]  # Popen opens binary pipes


def _tell(stream: BinaryIO, message: Any) -> None:
    pickle.dump(message, stream)
    stream.flush()


@contextmanager
def _server(folders: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the server; on exit, end it and all its processes.

    The server leads its own session, so Ctrl-C reaches only this process, which then closes the pipe.
    """
    package = str(Path(__file__).parents[1].resolve())
    user = site.getusersitepackages() if site.ENABLE_USER_SITE else ""
    flags = [flag for flag in subprocess._args_from_interpreter_flags() if flag not in ("-I", "-E", "-s", "-P")]  # type: ignore[attr-defined]  # noqa: SLF001  # multiprocessing passes these flags on, too
    given = (str(os.getpid()), user, package, *import_paths.without(sys.path, folders))
    command = [sys.executable, *flags, "-I", "-c", _SERVER, *given]
    try:
        server = subprocess.Popen(  # noqa: S603  # this interpreter
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise KbitlintError(f"the server of --jobs cannot be started: {sys.executable}: {error.strerror or error}") from error
    try:
        yield server
    finally:
        with contextlib.suppress(OSError):
            _pipe(server.stdin).close()
        try:
            server.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        _pipe(server.stdout).close()


def serve(parent: int) -> None:
    """Answer one request of the process ``parent``: (number, result) of each target, in order of completion."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with contextlib.suppress(OSError):  # the output of targets goes to the error stream, and their input is empty
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
    try:
        processes.die_with_parent(parent)  # while it imports, it waits for no pipe
        import kbitlint.jobs.preload  # noqa: F401  # for its side effect: forks share what it imports

        processes.die_with_parent(0)
        request: _Request = pickle.load(requests)  # noqa: S301  # written by this program
        for answer in _answers(request, requests, answers):
            _tell(answers, answer)
    except EOFError:  # the client ended before its request
        pass
    except BrokenPipeError:  # the client ended before the answer
        pass
    except BaseException as error:  # noqa: BLE001  # the client reports every error
        with contextlib.suppress(OSError):
            _tell(answers, (None, f"the server of --jobs raised {one_line(error)}"))
    os._exit(0)


def _answers(request: _Request, requests: BinaryIO, answers: BinaryIO) -> Iterator[tuple[int, Report | Failure]]:
    threads = max(1, (os.cpu_count() or 1) // request.jobs)
    private = (requests.fileno(), answers.fileno())
    pool = Pool(_audit, request.jobs, request.limits, request.folders, request.forks, private)
    jobs = [(target, dict(request.options), threads) for target in request.targets]
    stop = requests.fileno() if request.forks else None  # without fork (Windows), a pipe cannot be waited for
    for number, result in processes.run(pool, jobs, stop=stop):
        target = request.targets[number]
        yield number, Failure(target, f"{target}: {result.reason}") if isinstance(result, Unfinished) else result


def _audit(job: tuple[str, dict[str, Any], int]) -> Report | Failure:
    """Audit one target in its own process."""
    from kbitlint import api  # the client of the server needs no audit

    target, options, threads = job
    try:
        _share_cores(threads)
        return api.check(target, **options)
    except KbitlintError as error:
        return Failure(target, " ".join(str(error).split()))
    except BaseException as error:  # noqa: BLE001  # every error is one of this target
        return Failure(target, f"{target}: the audit raised {one_line(error)}")


def _share_cores(threads: int) -> None:
    """Limit the threads of torch's kernels: processes that each use all cores slow each other down."""
    import torch  # each target is audited in a process that has it

    torch.set_num_threads(threads)
