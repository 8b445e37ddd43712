"""System calls that a confined process may not make: a filter of Linux (seccomp), which its native code and children keep.

Landlock knows no right to change modes, owners and times of files, or to connect by other ways than TCP. Calls whose arguments
are paths and addresses go to a watcher, which reads them and answers (``call_watch.py``). The numbers are those of the kernel's
``arch/x86/entry/syscalls/syscall_64.tbl`` and ``include/uapi/asm-generic/unistd.h``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import queue
import socket
import struct
import sys
import threading
from typing import NamedTuple

#: name, number on x86_64, number on aarch64; a dash where there is none
_NUMBERS = """
ioctl 16 29; socket 41 198; clone 56 220; clone3 435 435; unshare 272 97; setns 308 268
open 2 -; openat 257 56; openat2 437 437; creat 85 -; link 86 -; linkat 265 37; rename 82 -; renameat 264 38; renameat2 316 276
connect 42 203; sendto 44 206; sendmsg 46 211; sendmmsg 307 269
chmod 90 -; fchmod 91 52; fchmodat 268 53; fchmodat2 452 452
chown 92 -; fchown 93 55; lchown 94 -; fchownat 260 54
utime 132 -; utimes 235 -; futimesat 261 -; utimensat 280 88
setxattr 188 5; lsetxattr 189 6; fsetxattr 190 7; removexattr 197 14; lremovexattr 198 15; fremovexattr 199 16
setxattrat 463 463; removexattrat 466 466; file_setattr 469 469
setpriority 141 140; ioprio_set 251 30; prlimit64 302 261; move_pages 279 239
sched_setaffinity 203 122; sched_setparam 142 118; sched_setscheduler 144 119; sched_setattr 314 274
io_uring_setup 425 425; io_uring_enter 426 426; io_uring_register 427 427
ptrace 101 117; process_vm_readv 310 270; process_vm_writev 311 271; pidfd_getfd 438 438; process_madvise 440 440
process_mrelease 448 448; migrate_pages 256 238; kcmp 312 272
mount 165 40; umount2 166 39; pivot_root 155 41; chroot 161 51; open_tree 428 428; move_mount 429 429; fsopen 430 430
fsconfig 431 431; fsmount 432 432; fspick 433 433; mount_setattr 442 442; open_by_handle_at 304 265
shmget 29 194; semget 64 190; msgget 68 186; mq_open 240 180; add_key 248 217; request_key 249 218; keyctl 250 219
bpf 321 280; perf_event_open 298 241; userfaultfd 323 282; fanotify_init 300 262; syslog 103 116; acct 163 89
quotactl 179 60; quotactl_fd 443 443; swapon 167 224; swapoff 168 225; reboot 169 142; vhangup 153 58
sethostname 170 161; setdomainname 171 162; settimeofday 164 170; clock_settime 227 112; clock_adjtime 305 266
adjtimex 159 171; iopl 172 -; ioperm 173 -; init_module 175 105; finit_module 313 273; delete_module 176 106
kexec_load 246 104; kexec_file_load 320 294
"""
#: calls that a watcher judges by the path that they change, those that may make a file, and those that it judges by an address
FILE_CALLS = (
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime", "utimes", "futimesat"),
    *("utimensat", "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr", "setxattrat"),
    *("removexattrat", "file_setattr"),
)
MAKING_CALLS = ("open", "openat", "openat2", "creat", "link", "linkat", "rename", "renameat", "renameat2")
ADDRESS_CALLS = ("connect", "sendto", "sendmsg")
#: calls on a process, or on all of a user's: the positions of the arguments that have to be 0
_ON_ITSELF = {
    **dict.fromkeys(("sched_setaffinity", "sched_setparam", "sched_setscheduler", "sched_setattr", "move_pages"), (0,)),
    "prlimit64": (0,),
    "setpriority": (1, 0),
    "ioprio_set": (1,),
}
#: requests of ``ioctl`` that change the flags of a file which is open for reading: ``include/uapi/linux/fs.h``
_FLAGS_OF_FILES = (0x40086602, 0x401C5820)
_NEW_NAMESPACES = 0x7E020000
_AUDIT_ARCHITECTURES = {"x86_64": (0xC000003E, 0, 317), "aarch64": (0xC00000B7, 1, 277)}
_OTHER_ABI = 0x40000000  # x32 on x86_64
_ALLOW, _ERROR, _NOTIFY = 0x7FFF0000, 0x00050000, 0x7FC00000
_SET_FILTER, _NEW_LISTENER, _NO_NEW_PRIVILEGES = 1, 8, 38
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


class Instruction(NamedTuple):
    """An instruction of the kernel's packet filters: ``include/uapi/linux/filter.h``."""

    code: int
    if_true: int
    if_false: int
    value: int


def names() -> dict[int, str]:
    """Return the calls of this machine's architecture by number; none on others than x86_64 and aarch64."""
    known = _AUDIT_ARCHITECTURES.get(os.uname().machine)
    if known is None:
        return {}
    rows = [row.split() for line in _NUMBERS.split("\n") for row in line.split(";") if row]
    return {int(row[1 + known[1]]): row[0] for row in rows if row[1 + known[1]] != "-"}


def refuse(*, network: bool, local: bool, watcher: socket.socket | None) -> bool:
    """Refuse system calls in this thread, and all that it starts, from now on.

    Args:
        network: Whether connections are allowed.
        local: Whether processes of this kind meet on this machine.
        watcher: Gets the descriptor on which a watcher answers; None if there is no watcher.

    Returns:
        Whether the filter is in place: False where the kernel has none, or on another architecture.
    """
    if sys.platform != "linux" or not names():
        return False
    if watcher is not None and _watched(watcher, network=network, local=local):
        return True
    return _install(program(network=network, local=local, watched=False), 0) >= 0


def _watched(watcher: socket.socket, *, network: bool, local: bool) -> bool:
    """Install the filter whose calls a watcher judges, and return whether it is in place.

    A thread that has no filter sends the watcher the descriptor: sending is one of the calls that wait for an answer.
    """
    made: queue.SimpleQueue[int] = queue.SimpleQueue()

    def send() -> None:
        listener = made.get()
        if listener >= 0:
            socket.send_fds(watcher, [b"x"], [listener])
            os.close(listener)

    thread = threading.Thread(target=send)
    thread.start()
    listener = _install(program(network=network, local=local, watched=True), _NEW_LISTENER)
    made.put(listener)
    thread.join()
    return listener >= 0


def program(*, network: bool, local: bool, watched: bool) -> list[Instruction]:
    """Return the filter."""
    numbers = {name: number for number, name in names().items()}
    architecture = _AUDIT_ARCHITECTURES[os.uname().machine][0]
    made = [
        Instruction(_LOAD, 0, 0, 4),  # the architecture of the call
        Instruction(_EQUAL, 1, 0, architecture),
        _error(errno.ENOSYS),
        Instruction(_LOAD, 0, 0, 0),  # its number
        Instruction(_AT_LEAST, 0, 1, _OTHER_ABI),
        _error(errno.ENOSYS),
    ]
    for name, number in numbers.items():
        block = _block(name, network=network, local=local, watched=watched)
        if block:
            made += [Instruction(_EQUAL, 0, len(block), number), *block]
    return [*made, Instruction(_RETURN, 0, 0, _ALLOW)]


def _block(name: str, *, network: bool, local: bool, watched: bool) -> list[Instruction]:
    """Return the instructions for a call, each way through which returns; none if it is allowed."""
    if name in (*FILE_CALLS, *MAKING_CALLS):
        return _MAKING.get(name, [_JUDGE]) if watched else []
    if name in (*ADDRESS_CALLS, "sendmmsg", "socket") and network:
        return []
    if name in ADDRESS_CALLS:
        return [] if not watched else _unless_null(4, _PERMIT, _JUDGE) if name == "sendto" else [_JUDGE]
    if name == "socket":
        return _sockets(local=local, watched=watched)
    if name in _ON_ITSELF:
        tests = [one for place in _ON_ITSELF[name] for one in (_low(place), Instruction(_EQUAL, 1, 0, 0), _FORBID)]
        return [*tests, _PERMIT]
    return _BLOCKS.get(name, [_FORBID])


def _sockets(*, local: bool, watched: bool) -> list[Instruction]:
    """Return the instructions for ``socket``: those of the file system, and those of addresses that something judges."""
    refuse = _error(errno.EACCES)
    kinds = (1, 2) if watched else (1,)  # streams are Landlock's too, datagrams are not
    of_kind = [one for kind in kinds for one in (Instruction(_EQUAL, 0, 1, kind), _PERMIT)]
    named = [Instruction(_LOAD, 0, 0, 24), Instruction(0x54, 0, 0, 0xF), *of_kind, refuse]  # the type, without its flags
    of_links = [Instruction(_EQUAL, 0, 1, 16), _PERMIT] if local else []  # gloo asks the kernel for the interfaces
    return [
        _low(0),
        Instruction(_EQUAL, 0, 1, 1),
        _PERMIT,
        *of_links,
        Instruction(_EQUAL, 2, 0, 2),
        Instruction(_EQUAL, 1, 0, 10),
        refuse,
        *named,
    ]


def _unless_null(place: int, null: Instruction, other: Instruction) -> list[Instruction]:
    """Return the instructions that end in one of two ways, by whether an argument is no address."""
    high = Instruction(_LOAD, 0, 0, 20 + 8 * place)
    return [_low(place), Instruction(_EQUAL, 0, 3, 0), high, Instruction(_EQUAL, 0, 1, 0), null, other]


def _low(place: int) -> Instruction:
    """Return the instruction that loads the lower half of an argument."""
    return Instruction(_LOAD, 0, 0, 16 + 8 * place)


def _error(number: int) -> Instruction:
    return Instruction(_RETURN, 0, 0, _ERROR | number)


def _install(instructions: list[Instruction], flags: int) -> int:
    """Return what the kernel answers to a filter: a descriptor for a watcher, 0 without one, or -1."""
    code = b"".join(struct.pack("=HBBI", *one) for one in instructions)
    held = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("@HP", len(instructions), ctypes.addressof(held))
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)  # what the kernel asks of a process without privileges
    return int(
        library.syscall(ctypes.c_long(_AUDIT_ARCHITECTURES[os.uname().machine][2]), _SET_FILTER, ctypes.c_ulong(flags), head)
    )


_PERMIT, _FORBID, _JUDGE = Instruction(_RETURN, 0, 0, _ALLOW), _error(errno.EPERM), Instruction(_RETURN, 0, 0, _NOTIFY)
#: the instructions for calls that open a file: only those that may make one go to the watcher (O_CREAT)
_MAKING = {
    name: [_low(place), Instruction(_ANY_BIT, 0, 1, 0x40), _JUDGE, _PERMIT] for name, place in (("open", 1), ("openat", 2))
}
#: the instructions for calls that depend on their arguments; those of ``clone3`` are in memory: C libraries then call ``clone``
_BLOCKS = {
    "clone": [_low(0), Instruction(_ANY_BIT, 0, 1, _NEW_NAMESPACES), _FORBID, _PERMIT],
    "clone3": [_error(errno.ENOSYS)],
    "ioctl": [
        _low(1),
        Instruction(_EQUAL, 1, 0, _FLAGS_OF_FILES[0]),
        Instruction(_EQUAL, 0, 1, _FLAGS_OF_FILES[1]),
        _FORBID,
        _PERMIT,
    ],
}
