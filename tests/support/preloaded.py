"""Interpreters that are forked from one that has imported torch and its libraries, in place of new ones.

These imports cost six seconds of CPU time in each new interpreter. ``Popen`` stands in for ``subprocess.Popen``: a command
of this Python is forked, and everything else is started. A forked interpreter imports kbitlint itself. It has the
arguments, the path, the environment, the streams and the parent of a new one. Not for tests whose subject is the start of
an interpreter, its memory or the order of its imports.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import inspect
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
import warnings
from pathlib import Path
from typing import ClassVar

#: prctl(2): processes below this one that lose their parent become its children
_PR_SET_CHILD_SUBREAPER = 36
#: variables that Python or a library reads when it starts: a process with other values is started
_READ_AT_START = ("ACCELERATE_", "BNB_", "CUDA_", "HF_", "PYTHON", "TORCH", "TRANSFORMERS_")
_READ_LATER = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "TORCHINDUCTOR_CACHE_DIR")
_LIBRARIES = (
    *("accelerate", "datasets", "torch.distributed.run", "trl", "trl.trainer.sft_trainer", "trl.trainer.dpo_trainer"),
    *("transformers.trainer", "transformers.models.llama.modeling_llama", "transformers.quantizers.auto"),
)
#: above every file descriptor of a request
_HIGH = 500
_start = subprocess.Popen
_SIGNATURE = inspect.signature(subprocess.Popen._execute_child)


def _settings(environment):
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_START) and name not in _READ_LATER}


def _command(arguments):
    """Return (-W options, whether -I, the rest) of a command of this Python that can be forked, or None."""
    if not isinstance(arguments, (list, tuple)):
        return None
    words = [os.fsdecode(word) for word in arguments]
    if Path(words[0]).parent == Path(sys.executable).parent and _is_script(words[0]):
        words.insert(0, sys.executable)
    if words.pop(0) != sys.executable:
        return None
    ignored, isolated = [], False
    while words and words[0] in ("-I", "-W"):
        if words.pop(0) == "-I":
            isolated = True
        else:
            ignored.append(words.pop(0))
    known = words and (words[0] in ("-c", "-m") or not words[0].startswith("-"))
    return (ignored, isolated, words) if known and {*ignored} <= {"ignore"} else None


def _is_script(file):
    with contextlib.suppress(OSError, UnicodeDecodeError), Path(file).open(encoding="utf-8") as opened:
        return opened.read(len(sys.executable) + 2) == f"#!{sys.executable}"
    return False


class Popen(subprocess.Popen):
    """A process that is forked if it is an interpreter as this one, and started otherwise."""

    environment: ClassVar = dict(os.environ)
    """The environment of the interpreter that is forked, before a test changes it."""
    _server = None

    def _execute_child(self, *arguments):
        given = _SIGNATURE.bind(self, *arguments).arguments
        environment = dict(os.environ if given["env"] is None else given["env"])
        command = _command(given["args"])
        if command is None or given["preexec_fn"] or given["executable"] or not _served(environment):
            super()._execute_child(*arguments)
            return
        streams = [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        files = {number: number if file == -1 else file for number, file in enumerate(streams)}
        files |= {number: number for number in given["pass_fds"]}
        folder = str(Path.cwd() if given["cwd"] is None else Path(given["cwd"]).absolute())
        request = (command, list(files), folder, environment, given["start_new_session"])
        self.pid = Popen._server.fork(request, list(files.values()))
        self._child_created = True
        self._close_pipe_fds(*(given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")))


def _served(environment):
    """Return whether the server, which is started for the first process, can fork one with this environment."""
    if sys.platform != "linux" or _settings(environment) != _settings(Popen.environment):
        return False
    if Popen._server is None:
        Popen._server = _Server()
    return True


class _Server:
    """The process that has imported the libraries, seen from outside. It ends with this process."""

    def __init__(self):
        self._lock = threading.Lock()
        self._pipe, theirs = socket.socketpair()
        environment = {name: value for name, value in Popen.environment.items() if name not in _READ_LATER}
        self._process = _start(
            [sys.executable, __file__, str(theirs.fileno())],
            env=environment | {"OMP_NUM_THREADS": "1"},
            pass_fds=(theirs.fileno(),),
            stderr=subprocess.DEVNULL,  # of the imports
        )
        theirs.close()

    def fork(self, request, files):
        """Return the number of a new process. It is a child of this one."""
        prctl = ctypes.CDLL(None).prctl
        data = pickle.dumps(request)
        with self._lock:
            prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            socket.send_fds(self._pipe, [len(data).to_bytes(8, "big")], files)
            self._pipe.sendall(data)
            answer = self._pipe.recv(8)
            prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        assert answer, "the preloaded interpreter has ended"
        return int.from_bytes(answer, "big")


# ------------------------------------------------------------------------------------------- in the preloaded interpreter


def _preload():
    """Import the libraries, and forget kbitlint, which a forked interpreter imports itself."""
    from kbitlint.extras import load_peft

    load_peft("the tests")
    for name in _LIBRARIES:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "kbitlint"]:
        del sys.modules[name]


def _serve(pipe):
    """Fork a process for each request. Return the request in the forked process, and end at the end of the pipe."""
    while True:
        length, files, _, _ = socket.recv_fds(pipe, 8, 64)
        if not length:
            os._exit(0)
        data = b""
        while len(data) < int.from_bytes(length, "big"):
            data += pipe.recv(1 << 20)
        reading, writing = os.pipe()
        between = os.fork()
        if between == 0:
            parent = os.getpid()
            forked = os.fork()
            if forked:
                os.write(writing, forked.to_bytes(8, "big"))
                os._exit(0)
            while os.getppid() == parent:
                time.sleep(0.001)
            return pickle.loads(data), files  # noqa: S301  # written by the tests
        os.close(writing)
        answer = os.read(reading, 8)
        os.waitpid(between, 0)
        for number in (reading, *files):
            os.close(number)
        pipe.sendall(answer)


def _become(request, files):
    """Give this process what a new interpreter has, and return the words of its command."""
    (ignored, isolated, words), numbers, folder, environment, session = request
    high = range(_HIGH, _HIGH + len(files))
    for file, number in zip(files, high, strict=True):
        os.dup2(file, number)
    os.closerange(3, _HIGH)
    for file, number in zip(high, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)
    if session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        new = open(number, old.mode, encoding=old.encoding, errors=old.errors, closefd=False)  # noqa: SIM115  # Python's own
        new.reconfigure(line_buffering=name == "stderr" or os.isatty(number))
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    if ignored:
        sys.warnoptions[:] = ignored
        warnings.simplefilter("ignore")
    first = {"-c": "", "-m": folder}.get(words[0], str(Path(folder, words[0]).parent))
    further = [str(Path(folder, entry)) for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = sys.path if isolated else [first, *further, *sys.path]
    sys.orig_argv[1:] = words
    sys.argv[:] = words if words[0] not in ("-c", "-m") else [words[0], *words[2:]]
    importlib.invalidate_caches()
    return words


def _run(words):
    """Run the command as ``__main__``."""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__builtins__ = __builtins__
    if words[0] == "-m":
        runpy._run_module_as_main(words[1])
        return
    if words[0] != "-c":
        main.__file__ = words[0]
    code = words[1] if words[0] == "-c" else Path(words[0]).read_bytes()
    exec(compile(code, "<string>" if words[0] == "-c" else words[0], "exec"), vars(main))  # noqa: S102  # a command of the tests


def _exit_code(words):
    """Run the command, and return its exit code. An exception is printed, as Python does."""
    try:
        _run(words)
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        sys.stderr.write(f"{left.code}\n")
        return 1
    except BaseException as error:  # noqa: BLE001  # every error of the command
        sys.excepthook(type(error), error, error.__traceback__)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _leave(code):
    """End this process as Python does, less the destruction of every module, which takes a third of a second here."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code & 0xFF)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    del sys.path[0]
    _preload()
    gc.collect()
    gc.freeze()  # the pages stay shared
    _leave(_exit_code(_become(*_serve(socket.socket(fileno=int(sys.argv[1]))))))
