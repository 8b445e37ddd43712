"""Facts of a folder that a run resumes from.

optimizer.pt and scheduler.pt are pickles in a zip archive. Their instructions are listed, and none is executed.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from typing import TYPE_CHECKING, Any

from kbitlint.errors import TargetError
from kbitlint.facts.resume import ResumeFacts
from kbitlint.files.json_object import read_json
from kbitlint.runtime import content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAMED = re.compile(r"checkpoint-(\d{1,9})")
#: bytes of one pickle that are read; that of an optimizer with 10,000 parameters has 2 MB
_MOST = 16 * 1024 * 1024
#: files of ``trainer.py`` (transformers 5.23) and of FSDP and DeepSpeed that stand for optimizer.pt
_OPTIMIZERS = ("optimizer.pt", "optimizer.bin")
_OPTIMIZER_FOLDERS = re.compile(r"optimizer_\d+|global_step\d+")
_FURTHER = ("*/adapter_model.*", "pytorch_model*.bin", "model*.safetensors", "v_head*", "pytorch_model_fsdp*")
_INTEGERS = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "INT"})


def resume_facts(folder: Path) -> ResumeFacts | None:
    """Return the facts of a folder; None if no run resumes from it."""
    named = _NAMED.fullmatch(folder.resolve().name)
    state, optimizer, scheduler = (folder / name for name in ("trainer_state.json", "optimizer.pt", "scheduler.pt"))
    if named is None or not (state.is_file() or optimizer.is_file() or scheduler.is_file()):
        return None
    steps = list(_numbers_after("last_epoch", scheduler))
    groups = list(_lists_after("params", optimizer))
    return ResumeFacts(
        named_step=int(named[1]),
        state_step=_global_step(state),
        schedule_step=steps[0] if len(steps) == 1 else None,
        optimizer=any((folder / name).is_file() for name in _OPTIMIZERS) or any(map(_holds_optimizer, folder.iterdir())),
        scheduler=scheduler.is_file(),
        optimizer_parameters=sum(groups) if groups else None,
        further_weights=any(True for pattern in _FURTHER for _ in folder.glob(pattern)),
    )


def _holds_optimizer(entry: Path) -> bool:
    return _OPTIMIZER_FOLDERS.fullmatch(entry.name) is not None and entry.is_dir()


def _global_step(file: Path) -> int | None:
    try:
        step = read_json(file).get("global_step") if file.is_file() else None
    except TargetError:
        return None
    return step if isinstance(step, int) and not isinstance(step, bool) else None


def _instructions(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield (name of the instruction, argument) of the pickle in a file of ``torch.save``; nothing if it cannot be read.

    A text that the pickle repeats is read back from its memo, so that it is yielded again.
    """
    memo: dict[object, str] = {}
    last: str | None = None
    try:
        with content.opened(file) as opened, zipfile.ZipFile(opened) as archive:
            entry = next(one for one in archive.infolist() if one.filename.endswith("/data.pkl"))
            if entry.file_size > _MOST or entry.compress_type != zipfile.ZIP_STORED:
                return
            for code, argument, _ in pickletools.genops(archive.read(entry)):
                if code.name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
                    if last is not None:
                        memo[len(memo) if code.name == "MEMOIZE" else argument] = last
                    continue
                known = memo.get(argument) if code.name in ("BINGET", "LONG_BINGET") else None
                last = argument if code.name.endswith("UNICODE") else None
                yield ("TEXT", argument if last is not None else known) if last or known else (code.name, argument)
    except Exception:  # noqa: BLE001  # a damaged archive raises errors of many kinds, and is then not known
        return


def _numbers_after(key: str, file: Path) -> Iterator[int]:
    """Yield the integers that follow a key."""
    wanted = False
    for name, argument in _instructions(file):
        if wanted and name in _INTEGERS:
            yield int(argument)
        wanted = name == "TEXT" and argument == key


def _lists_after(key: str, file: Path) -> Iterator[int]:
    """Yield the lengths of the lists of integers that follow a key."""
    count: int | None = None
    for name, argument in _instructions(file):
        if count is not None and name in _INTEGERS:
            count += 1
        elif count is not None and name not in ("EMPTY_LIST", "MARK"):
            yield count
            count = None
        if name == "TEXT" and argument == key:
            count = 0
