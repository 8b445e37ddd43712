"""Data files that a script reads and that are not here: made up in the mirror, with the columns that the code names."""

from __future__ import annotations

import ast
import csv
import functools
import io
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint.rehearsal.inside.user_code import nodes_of
from kbitlint.rehearsal.stand_ins.rows import ROWS, sentence, value_of
from kbitlint.upstream.checkpoints import checkpoint_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from kbitlint.rehearsal.inside.record import Record

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt")
#: files of models and of programs, which are no data
_NO_DATA = re.compile(
    r"(^|[._-])(config|configs|tokenizer|vocab|merges|index|state|requirements|settings|secrets?|args|metrics|results?|logs?|package|map|deepspeed|ds|fsdp)"
    r"(?![a-z])"
)
_COLUMN = re.compile(r"[a-z][A-Za-z0-9_]*")
#: keys of batches, options and environments, which no data file has
_NO_COLUMNS = frozenset(
    ("input_ids", "attention_mask", "labels", "train", "test", "validation", "model", "data", "training", "lora")
)
#: modules that open and look for files on behalf of the code that calls them
_ON_BEHALF = frozenset(
    ("genericpath", "posixpath", "pathlib", "os", "contextlib", "io", "codecs", "csv", "pandas", "functools")
)
#: the most columns of a made-up file
_MOST = 40
HOOKS = frozenset(f"kbitlint.rehearsal.{name}" for name in ("stand_ins.made_up_files", "inside.writing", "stage"))
#: the columns where the code names none
_USUAL = ("instruction", "input", "output", "text")


def fill(record: Record, place: str) -> None:
    """Write made-up rows to a path of the mirror at which the script expects data, if there is no file."""
    if record.paused or not is_data(place) or not _asks_itself(record):
        return
    real = record.mirror.real(os.path.abspath(place))  # noqa: PTH100  # a string, as the caller has it
    record.missing.discard(real)
    mirrored = record.mirror.for_new_file(real)
    Path(mirrored).write_text(_content(place, _columns(record)), "utf-8")
    record.synthetic_data = True
    record.stand_in(f"the data of {record.name_of(mirrored)} ({ROWS} made-up rows)")


def ask(record: Record, place: str) -> None:
    """Remember a path that the user's code looks for and that is not there, if it can be made up."""
    if not record.paused and _asks_itself(record):
        real = record.mirror.real(os.path.abspath(place))  # noqa: PTH100  # see above
        if is_data(real) or _is_model(real):
            record.missing.add(real)


def assume(record: Record, place: str) -> None:
    """Make up a path before the script starts: a data file, or the folder of a well-known checkpoint without its weights."""
    if is_data(place):
        columns = _named_in(str(Path(record.request.working_folder, record.request.command.script))) or _USUAL
        Path(record.mirror.for_new_file(place)).write_text(_content(place, columns), "utf-8")
        record.synthetic_data = True
        record.stand_in(f"the data of {record.name_of(place)} ({ROWS} made-up rows)")
        return
    known = checkpoint_of(place)
    if known is not None:
        config = record.mirror.for_new_file(os.path.join(place, "config.json"))  # noqa: PTH118  # see above
        Path(config).write_text(json.dumps(dict(known.config)), "utf-8")
        record.stand_in(f"the folder {record.name_of(place)} (the config of a checkpoint of that name)")


def _is_model(place: str) -> bool:
    return not os.path.splitext(place)[1].lower().strip(".").isalpha() and checkpoint_of(place) is not None  # noqa: PTH122  # see above


def _asks_itself(record: Record) -> bool:
    """Return whether the user's code asks, not a library: the innermost frame outside of Python's own modules is the user's."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # the stack says who asks
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name not in HOOKS and name.partition(".")[0] not in _ON_BEHALF:
            return record.is_users(frame.f_code.co_filename)
        frame = frame.f_back
    return False


def is_data(place: str) -> bool:
    """Return whether the name of a file is that of data of the user's."""
    name = os.path.basename(place).lower()  # noqa: PTH119  # asked for every file that opens
    return name.endswith(SUFFIXES) and not _NO_DATA.search(name)


def _content(place: str, columns: tuple[str, ...]) -> str:
    if place.endswith(".txt"):
        return "\n".join(sentence(number) for number in range(16 * ROWS))
    rows = [{column: value_of(column, number) for column in columns} for number in range(ROWS)]
    if place.endswith(".json"):
        return json.dumps(rows)
    if place.endswith((".jsonl", ".ndjson")):
        return "".join(json.dumps(row) + "\n" for row in rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), delimiter="\t" if place.endswith(".tsv") else ",")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _columns(record: Record) -> tuple[str, ...]:
    """Return the columns that the code asks its rows for, in the files on the stack, from the innermost one on."""
    named = dict.fromkeys(key for file in _files(record) for key in _named_in(file))
    return tuple(named)[:_MOST] or _USUAL


def _files(record: Record) -> Iterator[str]:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # the stack has the code that reads the file
    seen = set[str]()
    while frame is not None:
        file = frame.f_code.co_filename
        if file not in seen and record.is_users(file):
            seen.add(file)
            yield file
        frame = frame.f_back


@functools.cache
def _named_in(file: str) -> tuple[str, ...]:
    """Return the constant keys by which a file's code reads values, in their order."""
    keys = [key for node in nodes_of(file) if (key := _key(node)) and _COLUMN.fullmatch(key) and key not in _NO_COLUMNS]
    return tuple(dict.fromkeys(keys))[:_MOST]


def _key(node: ast.AST) -> str:
    """Return the key of ``row["key"]`` or ``row.get("key")``; empty for other nodes."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        index = node.slice
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
        index = node.args[0]
    else:
        return ""
    return index.value if isinstance(index, ast.Constant) and isinstance(index.value, str) else ""
