"""Rehearsals of many scripts by one process, which has imported the libraries and forks for each script.

    python -m benchmarks.truth.rehearsal_server FOLDER PIPE

``kbitlint rehearse`` starts an interpreter for each script, which costs seconds. The forked process does the same
afterwards: the guards and stand-ins are those of ``kbitlint.rehearsal.stage``. The server reads a pickled request and its
environment in hexadecimal from each line of its input. It writes the messages of the rehearsal into the pipe, then END.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kbitlint.rehearsal.messages import Received, Request
    from kbitlint.runtime.processes import Limits

END = "end of a rehearsal"
#: seconds after which a script is given up
TIMEOUT = 60


class Server:
    """The process that rehearses, seen from outside.

    Args:
        folder: The folder in which all rehearsals write.
    """

    def __init__(self, folder: Path) -> None:
        from kbitlint.audit.options import options_of
        from kbitlint.rehearsal.command import Command
        from kbitlint.rehearsal.messages import Request
        from kbitlint.rehearsal.process import environment

        self.folder, self.options = folder, options_of({"outline": True})
        first = Request(Command("train.py"), str(folder), str(folder), "a100", self.options, 64)
        self._count = 0
        reading, writing = os.pipe()
        self._pipe = os.fdopen(reading, "rb")
        arguments = [sys.executable, "-m", "benchmarks.truth.rehearsal_server", str(folder), str(writing)]
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(first, folder) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=(writing,),
        )
        os.close(writing)
        self._ask(first, None, None)

    def _ask(self, request: Request, environment: dict[str, str] | None, seconds: float | None) -> None:
        stream: Any = self._process.stdin
        stream.write(pickle.dumps((request, environment, seconds)).hex().encode() + b"\n")
        stream.flush()

    def run(self, request: Request, limits: Limits) -> Received:
        """Rehearse a request as ``kbitlint.rehearsal.process.run`` does, and return what its process sent.

        The process may use the network as the server does, which was started without; and it has no limit on its memory.

        Raises:
            RuntimeError: The server has ended.
        """
        from kbitlint.rehearsal import inbox, process
        from kbitlint.rehearsal.messages import Received

        self._count += 1
        folder = self.folder / str(self._count)
        folder.mkdir()
        own = dataclasses.replace(request, folder=str(folder))
        self._ask(own, process.environment(own, folder), limits.seconds)
        received = Received()
        while True:
            length = self._pipe.read(8)
            if not length:
                raise RuntimeError("the server of rehearsals has ended")
            data = self._pipe.read(int.from_bytes(length, "big"))
            if pickle.loads(data) == END:  # noqa: S301  # written by the server
                break
            inbox.take(length + data, received)
        process.complete(received, own)
        if not received.done and not received.unfinished:
            received.unfinished = "its process ended"
        return received

    def reports(self, folder: str, words: Sequence[str] = ("train.py",)) -> Any:
        """Return the reports of the rehearsal of a command in a folder."""
        from kbitlint import registry
        from kbitlint.rehearsal import merge
        from kbitlint.rehearsal.command import read_command
        from kbitlint.rehearsal.messages import Request
        from kbitlint.runtime.processes import Limits

        command = read_command(words)
        received = self.run(Request(command, "", folder, "a100", self.options, 64), Limits(TIMEOUT))
        return merge.reports_of(received, command, registry.select((), (), {}), self.options)

    def close(self) -> None:
        """End the server."""
        stream: Any = self._process.stdin
        stream.close()
        self._process.wait()
        self._pipe.close()


def _serve(folder: str, pipe: int) -> None:
    """Put the stand-ins in place, load the libraries, and rehearse each script that the input names."""
    from kbitlint.rehearsal import stage
    from kbitlint.rehearsal.inside.folders import Mirror
    from kbitlint.rehearsal.inside.record import Record

    requests = sys.stdin
    first, _, _ = pickle.loads(bytes.fromhex(requests.readline()))  # noqa: S301  # written by the server's user
    record = Record(first, Mirror(folder), pipe)
    stage.prepare(record)
    import accelerate  # noqa: F401  # loaded before the processes fork
    import datasets  # noqa: F401  # see above
    import peft  # noqa: F401  # see above
    import torch
    import trl  # noqa: F401  # see above
    from transformers import Trainer  # noqa: F401  # see above
    from trl.trainer import dpo_trainer, sft_trainer  # noqa: F401  # see above

    import kbitlint.api  # noqa: F401  # see above
    from kbitlint import registry

    registry.select((), (), {})
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    for line in requests:
        request, environment, seconds = pickle.loads(bytes.fromhex(line))  # noqa: S301  # see above
        process = os.fork()
        if process == 0:
            _rehearse(record, request, environment, folder)
        _wait(process, seconds or TIMEOUT)
        record.send(END)


def _rehearse(record: Any, request: Request, environment: dict[str, str], folder: str) -> None:
    from kbitlint.rehearsal import stage
    from kbitlint.rehearsal.inside.folders import Mirror

    os.setsid()
    record.request, record.mirror = request, Mirror(folder, request.folder)  # the caches of the server are its own
    output = os.open(Path(request.folder, "output"), os.O_WRONLY | os.O_CREAT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in ((0, nothing), (1, output), (2, output)):
        os.dup2(descriptor, number)
    os.environ.clear()
    os.environ.update(environment)
    Path(request.folder, "tmp").mkdir()
    tempfile.tempdir = None
    try:
        stage.enter(record, folder)
        stage.play(record)
    finally:
        os._exit(1)


def _wait(process: int, seconds: float) -> None:
    """Wait until a process ends, and end all that it started. It is killed after its time."""
    last = time.monotonic() + seconds
    status = 0
    while time.monotonic() < last and not status:
        status = os.waitpid(process, os.WNOHANG)[0]
        time.sleep(0.02)
    with contextlib.suppress(OSError):
        os.killpg(process, signal.SIGKILL)
    if not status:
        os.waitpid(process, 0)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
