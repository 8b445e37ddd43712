"""Services and programs that a rehearsal does not reach: trackers, the Hub, installers. They are switched off."""

from __future__ import annotations

import builtins
import functools
import os
import subprocess
import sys
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from kbitlint.rehearsal.inside.imports import after_import, replace

if TYPE_CHECKING:
    from kbitlint.rehearsal.inside.record import Record

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
    def quiet(name: str, *, of_class: bool) -> Any:
        def function(*arguments: Any, **options: Any) -> Any:
            record.switch_off(f"huggingface_hub.{name}")
            given = arguments[1:] if of_class else arguments
            first = given[0] if given and name in ("create_repo", "create_commit") else "rehearsal/rehearsal"
            repository = str(options.get("repo_id", first))
            if name == "create_repo":
                return hub.RepoUrl(_address(repository))
            return _answered(None if "login" in name else _commit(repository), options)

        return function

    made = ("create_repo", "upload_folder", "upload_file", "create_commit")
    for name in ("login", "notebook_login", "interpreter_login", *made):
        if hasattr(hub, name):
            setattr(hub, name, quiet(name, of_class=False))
    api = hub.HfApi
    for name in (*made, "create_branch"):
        setattr(api, name, quiet(name, of_class=True))
    api.whoami = lambda *_, **__: {"name": "rehearsal", "orgs": []}
    hub.whoami = api.whoami


def _address(repository: str) -> str:
    """Return the address of a repository. A name without an owner belongs to the user."""
    return f"https://huggingface.co/{repository if '/' in repository else f'rehearsal/{repository}'}"


def _commit(repository: str) -> Any:
    """Return what the Hub answers to an upload."""
    from huggingface_hub import CommitInfo  # whoever uploads has it

    place = f"{_address(repository)}/commit/{'0' * 40}"
    return CommitInfo(commit_url=place, commit_message="", commit_description="", oid="0" * 40)


def _answered(result: Any, options: dict[str, Any]) -> Any:
    """Return a result, as a future that is done if the caller wants one."""
    if not options.get("run_as_future"):
        return result
    done: Future[Any] = Future()
    done.set_result(result)
    return done


def _uploads(record: Record, *owners: Any) -> None:
    def push_to_hub(_self: Any, repo_id: Any = "", *_: Any, **options: Any) -> Any:
        record.switch_off("push_to_hub")
        return _commit(str(options.get("repo_id", repo_id)))

    for owner in owners:
        for name in _UPLOADS:
            setattr(owner, name, push_to_hub)
