"""Groups of real processes on the CPU that train together through gloo."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environment(rank, world, where, **further):
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(where),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join((str(ROOT / "tests" / "support"), str(ROOT))),
        **further,
    }


def start(arguments, world, folder=None, **further):
    """Start one process for each rank in a folder, with the environment that torchrun sets, and return the processes."""
    where = port()
    return [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", *map(str, arguments)],
            env=environment(rank, world, where, **further),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


def finish(processes, timeout=180):
    """Wait for the processes, and return (exit code, output, errors) of each. Kill those that are late."""
    deadline = time.monotonic() + timeout
    try:
        outputs = [process.communicate(timeout=max(1, deadline - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def run(function, world=2, *arguments):
    """Run a function of the module ``rank_cases`` on each rank, and return the results in the order of ranks."""
    with tempfile.TemporaryDirectory() as folder:
        done = finish(start(["-m", "rank_cases", function, folder, *arguments], world, folder))
        assert [code for code, _, _ in done] == [0] * world, done
        return [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(world)]  # noqa: S301  # our own processes wrote it
