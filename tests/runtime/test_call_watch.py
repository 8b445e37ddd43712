"""Native code in a confined process: what it may not do, what stays as it is, and what the watcher lets it do in its folder."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

from kbitlint.runtime import landlock, system_calls
from kbitlint.runtime.call_watch import CallWatch, resolved

pytestmark = pytest.mark.skipif(sys.platform != "linux" or not system_calls.names(), reason="the filter is Linux's")

CALLS = """
import ctypes, errno, os, socket, struct, subprocess, sys, threading
from kbitlint.runtime import landlock, system_calls

own, outside, local, descriptor, udp, service = sys.argv[1], sys.argv[2], sys.argv[3] == "local", *sys.argv[4:]
os.chdir(own)
libc = ctypes.CDLL(None, use_errno=True)
victim, mine = os.path.join(outside, "file"), os.path.join(own, "file")
open(mine, "w").close()
os.symlink(victim, "leads out")
held = os.open(victim, os.O_RDONLY)
os.symlink(f"/proc/self/fd/{held}", "leads to a descriptor")
landlock.confine((own,), ("/dev/shm",), network=local)
assert system_calls.refuse(network=False, local=local, watcher=socket.socket(fileno=int(descriptor)))

def code(result):
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]

def internet(port, family=2, host=(127, 0, 0, 1)):
    head = struct.pack("=H", family) + struct.pack(">H", port)
    address = bytes(10) + b"\\xff\\xff" + bytes(host) if family == 10 else bytes(host)
    return head + (bytes(4) + address + bytes(4) if family == 10 else address + bytes(8))

def to(address, kind=2, family=2, flags=0, protocol=0):
    one = libc.socket(family, kind, protocol)
    return code(libc.sendto(one, b"x", 1, flags, address, len(address))) if one >= 0 else code(one)

def joined(address, family, kind, protocol=0):
    one = libc.socket(family, kind, protocol)
    return code(libc.connect(one, address, len(address))) if one >= 0 else code(one)

def number(name):
    return ctypes.c_long({name: number for number, name in system_calls.names().items()}[name])

path = struct.pack("=H", 1) + service.encode() + b"\\0"
server = socket.socket(socket.AF_UNIX)
server.bind("own")
server.listen()
left, right = socket.socketpair()
for text, result in (
    ("mode", code(libc.chmod(victim.encode(), 0o777))),
    ("mode by a descriptor", code(libc.fchmod(held, 0o777))),
    ("mode through a link", code(libc.chmod(b"leads out", 0o777))),
    ("mode through a descriptor's link", code(libc.chmod(b"leads to a descriptor", 0o777))),
    ("mode from above", code(libc.chmod(os.path.join("..", os.path.basename(outside), "file").encode(), 0o777))),
    ("owner", code(libc.chown(victim.encode(), 12345, 12345))),
    ("times", code(libc.utimes(victim.encode(), None))),
    ("times by a descriptor", code(libc.futimens(held, None))),
    ("attributes", code(libc.setxattr(victim.encode(), b"user.x", b"1", 1, 0))),
    ("flags", code(libc.ioctl(held, ctypes.c_ulong(0x40086602), ctypes.byref(ctypes.c_int(0))))),
    ("own mode", code(libc.chmod(mine.encode(), 0o700))),
    ("own mode, relative", code(libc.chmod(b"file", 0o600))),
    ("own times", code(libc.utimes(b"file", None))),
    ("datagram", to(internet(int(udp)))),
    ("datagram, version 6", to(internet(int(udp), 10), family=10)),
    ("datagram far away", to(internet(9, host=(192, 0, 2, 1)))),
    ("fast open", to(internet(9), 1, flags=0x20000000)),
    ("several paths", joined(internet(9), 2, 1, 262)),
    ("raw", to(internet(9), 3, protocol=1)),
    ("service", joined(path, 1, 1)),
    ("own service", joined(struct.pack("=H", 1) + b"own\\0", 1, 1)),
    ("abstract name", joined(struct.pack("=H", 1) + b"\\0x", 1, 1)),
    ("pair", code(left.sendmsg([b"x"]))),
    ("another's priority", code(libc.setpriority(0, os.getppid(), 19))),
    ("own priority", code(libc.setpriority(0, 0, 19))),
    ("ring", code(libc.syscall(number("io_uring_setup"), 4, ctypes.create_string_buffer(120)))),
    ("segment", code(libc.syscall(number("shmget"), 0x4B425954, 4096, 0o1600))),
    ("tracing", code(libc.syscall(number("ptrace"), 16, os.getppid(), 0, 0))),
    ("namespace", code(libc.unshare(0x10000000))),
    ("shared memory", code(libc.shm_open(b"/kbitlint-watched", 0o102, 0o600))),
    ("folder in shared memory", code(libc.mkdir(b"/dev/shm/kbitlint-watched-folder", 0o700))),
):
    print(text, result, sep=": ")
thread = threading.Thread(target=print, args=("thread: done",))
thread.start()
thread.join()
print("program:", subprocess.run(["/bin/echo", "done"], capture_output=True, text=True).stdout.strip(), flush=True)
"""
REFUSED = """\
mode: EPERM
mode by a descriptor: EPERM
mode through a link: EPERM
mode through a descriptor's link: EPERM
mode from above: EPERM
owner: EPERM
times: EPERM
times by a descriptor: EPERM
attributes: EPERM
flags: EPERM
own mode: done
own mode, relative: done
own times: done
datagram: EACCES
datagram, version 6: EACCES
datagram far away: EACCES
fast open: EACCES
several paths: EACCES
raw: EACCES
service: EACCES
own service: done
abstract name: EACCES
pair: done
another's priority: EPERM
own priority: done
ring: EPERM
segment: EPERM
tracing: EPERM
namespace: EPERM
shared memory: done
folder in shared memory: EACCES
thread: done
program: done
"""


@pytest.mark.skipif(landlock.version() < 6, reason="Landlock of this kernel leaves more to the filter")
@pytest.mark.parametrize("local", [False, True], ids=["alone", "with ranks"])
def test_native_code_is_held(tmp_path, local):
    """Only datagrams to this machine are sent where ranks meet on it."""
    import socket

    folder, outside = tmp_path / "own", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "file").write_text("as it was")
    before = (outside / "file").stat()
    watch = CallWatch(str(folder), (), "/dev/shm", local=local)  # noqa: S108  # the watcher removes what is made there
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket(socket.AF_UNIX) as service:
        udp.bind(("127.0.0.1", 0))
        service.bind(os.path.relpath(outside / "service"))
        service.listen()
        kind, port = "local" if local else "alone", str(udp.getsockname()[1])
        numbers = (kind, str(watch.theirs.fileno()), port, str(outside / "service"))
        child = subprocess.Popen(
            [sys.executable, "-c", CALLS, str(folder), str(outside), *numbers],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=(watch.theirs.fileno(),),
        )
        watch.theirs.close()
        while watch.fileno() >= 0 and select.select([watch], [], [], 30)[0]:
            watch.answer()
        output = child.communicate()[0]
    assert os.path.exists("/dev/shm/kbitlint-watched")  # noqa: PTH110, S108  # see above
    watch.close()

    expected = REFUSED
    if local:
        for name in ("datagram", "datagram, version 6"):
            expected = expected.replace(f"{name}: EACCES", f"{name}: done")
        expected = expected.replace("fast open: EACCES", "fast open: ECONNREFUSED")
        expected = expected.replace("several paths: EACCES", "several paths: ECONNREFUSED")
    assert output == expected
    after = (outside / "file").stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)
    assert not os.path.exists("/dev/shm/kbitlint-watched")  # noqa: PTH110, S108  # see above


def test_links_are_those_of_the_process(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "one").symlink_to("../two")
    (tmp_path / "two").symlink_to(tmp_path / "three")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "elsewhere").symlink_to(f"/proc/{os.getppid()}/cwd")

    assert resolved(os.getpid(), f"{tmp_path}/folder/./one") == f"{tmp_path}/three"
    assert resolved(os.getpid(), f"{tmp_path}/folder/one", follows=False) == f"{tmp_path}/folder/one"
    assert resolved(os.getpid(), "/proc/self/cwd/x") == f"{os.getcwd()}/x"  # noqa: PTH109  # compared as strings
    for name in ("round", "elsewhere"):
        with pytest.raises(OSError, match="Too many"):
            resolved(os.getpid(), f"{tmp_path}/{name}")
