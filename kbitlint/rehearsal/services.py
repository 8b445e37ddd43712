"""Services and programs that a rehearsal does not reach: trackers, the Hub, installers. They are switched off."""

from __future__ import annotations

import builtins
import functools
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from kbitlint.rehearsal.imports import after_import, replace

if TYPE_CHECKING:
    from kbitlint.rehearsal.record import Record

#: programs that a library asks about the machine
_ASKED = ("ldconfig", "/sbin/ldconfig", "uname", "lscpu", "gcc", "cc", "ld", "objdump")
_UPLOADS = ("push_to_hub",)


def install(record: Record) -> None:
    """Switch services off, until the process ends."""
    after_import("huggingface_hub", lambda module: _hub(record, module))
    after_import("transformers.utils.hub", lambda module: _uploads(record, module.PushToHubMixin))
    after_import("datasets", lambda module: _uploads(record, module.Dataset, module.DatasetDict))
    replace(builtins, "input", lambda _: lambda *_: _answer(record))
    replace(os, "system", lambda _: lambda command: _run_nothing(record, command))
    for name in ("run", "call", "check_call", "check_output"):
        replace(subprocess, name, functools.partial(_program, record, name))


def _answer(record: Record) -> str:
    """Return the answer to ``input``: an empty line."""
    record.guessed = True
    record.stand_in("what a user types (an empty line)")
    return ""


def may_start(program: str) -> bool:
    """Return whether a program may be started: those that libraries ask about the machine."""
    return program in _ASKED


def _run_nothing(record: Record, command: Any) -> int:
    words = command.split() if isinstance(command, str) else [str(one) for one in command]
    record.switch_off(f"the program {words[0] if words else ''}")
    return 0


def _program(record: Record, name: str, original: Any) -> Any:
    def function(command: Any = (), *arguments: Any, **options: Any) -> Any:
        words = command.split() if isinstance(command, str) else [os.fspath(one) for one in command]
        if record.paused or not words or may_start(os.path.basename(str(words[0]))):  # noqa: PTH119  # a string suffices
            return original(command, *arguments, **options)
        if not record.is_users(sys._getframe(1).f_code.co_filename):  # noqa: SLF001  # a library asks about the machine
            raise FileNotFoundError(2, "No such file or directory", str(words[0]))
        _run_nothing(record, command)
        as_text = any(options.get(key) for key in ("text", "universal_newlines", "encoding"))
        if name == "check_output":
            return "" if as_text else b""
        made = subprocess.CompletedProcess(command, 0, "" if as_text else b"", "" if as_text else b"")
        return made if name == "run" else 0

    return function


def _hub(record: Record, hub: Any) -> None:
    def quiet(name: str) -> Any:
        def function(*_: Any, **__: Any) -> Any:
            record.switch_off(f"huggingface_hub.{name}")
            return SimpleNamespace(repo_id="rehearsal", url="", commit_url="", oid="")

        return function

    for name in (
        "login",
        "notebook_login",
        "interpreter_login",
        "create_repo",
        "upload_folder",
        "upload_file",
        "create_commit",
    ):
        if hasattr(hub, name):
            setattr(hub, name, quiet(name))
    api = hub.HfApi
    for name in ("create_repo", "upload_folder", "upload_file", "create_commit", "create_branch"):
        setattr(api, name, quiet(name))
    api.whoami = lambda *_, **__: {"name": "rehearsal", "orgs": []}
    hub.whoami = api.whoami


def _uploads(record: Record, *owners: Any) -> None:
    def push_to_hub(_self: Any, repo_id: Any = "", *_: Any, **__: Any) -> Any:
        record.switch_off("push_to_hub")
        return SimpleNamespace(oid="", commit_url="", repo_url=str(repo_id))

    for owner in owners:
        for name in _UPLOADS:
            setattr(owner, name, push_to_hub)
