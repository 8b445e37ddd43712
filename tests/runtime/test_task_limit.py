"""The limit on processes that the kernel holds, tried by a process that forks until it may not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FORKS = """
import os, resource, signal  # before the change of user, who may not read the libraries
from kbitlint.runtime.task_limit import limit_tasks
if os.getuid() == 0:
    try:
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
    except OSError:  # a container that maps no other user
        print("superuser")
        raise SystemExit
limit_tasks(8)
children = []
try:
    for _ in range(40):
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except BlockingIOError:
    pass
for child in children:
    os.kill(child, signal.SIGKILL)
print(len(children))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of Linux")
def test_a_process_that_forks_without_an_end_is_stopped_by_the_kernel():
    alone = str(61_000 + os.getpid() % 3_000)  # a user without other processes, where the tests run as the superuser
    done = subprocess.run(
        [sys.executable, "-c", FORKS.replace("USER", alone)], capture_output=True, text=True, check=True, timeout=60
    )
    if done.stdout == "superuser\n":
        pytest.skip("the superuser here can become no other user, and the kernel limits all others")
    if os.getuid() == 0:
        assert done.stdout == "8\n"
    else:  # other processes of the user may end or begin meanwhile
        assert 0 < int(done.stdout) < 40
