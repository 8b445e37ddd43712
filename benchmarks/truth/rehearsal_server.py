"""Rehearsals of many scripts by one process, which has imported the libraries and forks for each script.

    python -m benchmarks.truth.rehearsal_server FOLDER PIPE

``kbitlint rehearse`` starts an interpreter for each script, which costs seconds. The forked process does the same
afterwards: the guards and stand-ins are those of ``kbitlint.rehearsal.stage``. It reads a pickled request in hexadecimal
from each line of its input, and writes the messages of the rehearsal into the pipe, then END.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

END = "end of a rehearsal"
#: seconds after which a script is given up
TIMEOUT = 60


class Server:
    """The process that rehearses, seen from the benchmark.

    Args:
        folder: The folder in which all rehearsals write.
    """

    def __init__(self, folder: Path) -> None:
        from kbitlint.audit.options import options_of
        from kbitlint.rehearsal.messages import Request
        from kbitlint.rehearsal.process import environment

        self.folder, self.options = folder, options_of({"outline": True})
        first = Request(self._command("train.py"), str(folder), str(folder), "a100", self.options, 64)
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
        self._ask(first)

    def _command(self, script: str) -> Any:
        from kbitlint.rehearsal.command import Command

        return Command(script)

    def _ask(self, request: Any) -> None:
        stream: Any = self._process.stdin
        stream.write(pickle.dumps(request).hex().encode() + b"\n")
        stream.flush()

    def reports(self, folder: str) -> Any:
        """Return the reports of the rehearsal of ``train.py`` in a folder."""
        from kbitlint import registry
        from kbitlint.rehearsal import merge
        from kbitlint.rehearsal.messages import Received, Request
        from kbitlint.rehearsal.process import _keep

        command, received = self._command("train.py"), Received()
        self._ask(Request(command, str(self.folder), folder, "a100", self.options, 64))
        while True:
            length = int.from_bytes(self._pipe.read(8), "big")
            message = pickle.loads(self._pipe.read(length))  # noqa: S301  # written by the server
            if message == END:
                break
            _keep(message, received)
        if not received.done:
            received.unfinished = "its process ended"
        return merge.reports_of(received, command, registry.select((), (), {}), self.options)


def _serve(folder: str, pipe: int) -> None:
    """Put the stand-ins in place, load the libraries, and rehearse each script that the input names."""
    from kbitlint.rehearsal import stage
    from kbitlint.rehearsal.folders import Mirror
    from kbitlint.rehearsal.record import Record

    mirror = Mirror(folder)
    record = Record(pickle.loads(bytes.fromhex(sys.stdin.readline())), mirror, pipe)  # noqa: S301  # written by the benchmark
    stage._set_up(record)  # noqa: SLF001  # the same steps as in a rehearsal
    import accelerate  # noqa: F401  # loaded before the processes fork
    import datasets  # noqa: F401  # see above
    import peft  # noqa: F401  # see above
    import torch
    import trl  # noqa: F401  # see above
    from transformers import Trainer  # noqa: F401  # see above

    import kbitlint.api  # noqa: F401  # see above
    from kbitlint import registry

    registry.select((), (), {})
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        record.request = pickle.loads(bytes.fromhex(line))  # noqa: S301  # see above
        process = os.fork()
        if process == 0:
            _rehearse(record, mirror)
        _wait(process)
        record.send(END)


def _rehearse(record: Any, mirror: Any) -> None:
    from kbitlint.rehearsal import script, stage
    from kbitlint.rehearsal.messages import Done

    os.chdir(mirror.open_up(record.request.working_folder))
    try:
        script.run(record.request, mirror, record.cells)
    except BaseException as error:  # noqa: BLE001  # every end of the script is a result
        stage._send_ending(error, record)  # noqa: SLF001  # see above
    record.send(Done())
    os._exit(0)


def _wait(process: int) -> None:
    """Wait until a process ends. It is killed after the timeout."""
    last = time.monotonic() + TIMEOUT
    while time.monotonic() < last:
        if os.waitpid(process, os.WNOHANG)[0]:
            return
        time.sleep(0.02)
    with contextlib.suppress(OSError):
        os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
