"""The files of a repository that a script imports: found beside it or above it, read and parsed once.

Their texts are appended to the script's own, so every span lies in one text. A bound holds for their number and length.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint.limits import current
from kbitlint.runtime import content
from kbitlint.source.interpreter.relevance import Relevance, worth_following
from kbitlint.source.line_ends import unified
from kbitlint.source.offsets import Text, has_more_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Number of files that one script brings along.
MAX_FILES = 12
#: Number of folders above the script in which a module is searched.
_MAX_UP = 3
#: packages that are not searched for beside a script
_LIBRARIES = frozenset(
    (
        *("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "datasets", "deepspeed", "numpy", "pandas"),
        *("tqdm", "wandb", "evaluate", "huggingface_hub", "sklearn", "safetensors", "einops", "tokenizers", "unsloth", "fire"),
    )
)
#: further strings of files that are worth following: what they hold reaches a model through the importing script
_MARKS = (b"resize_token_embeddings", b"from_pretrained", b"TrainingArguments", b"add_argument", b"@dataclass", b"Trainer")


#: Number of parsed files that are kept for the next script of a folder, which often imports the same ones.
_KEPT = 32


@functools.lru_cache(_KEPT)
def _parsed(raw: str) -> tuple[ast.Module, Relevance]:
    """Return the syntax tree of a file, and the statements in it that matter for a model. No caller changes either."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escape sequences in the script's strings
        module = ast.parse(raw)
    return module, Relevance(module)


#: what a script that trains contains, and its imports
_TRAINS = (b"Trainer", b".backward(")
_IMPORT = re.compile(rb"^[ \t]*(?:from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]+(\w*)|import[ \t]+([\w.]+))", re.MULTILINE)


def brings_models(beside: Path, data: bytes) -> bool:
    """Return whether a script trains, and a file of the repository that it imports makes or prepares k-bit models."""
    if not any(mark in data for mark in _TRAINS):
        return False
    for dots, relative, member, absolute in _IMPORT.findall(data):
        name, level = (relative or absolute).decode("utf-8", "replace"), len(dots)
        if is_searched(name, level):
            for place in places(beside, level):
                base = place.joinpath(*filter(None, name.split(".")))
                inner = base / f"{member.decode('utf-8', 'replace') or '__init__'}.py"
                if any(map(_makes_models, (base.with_name(f"{base.name}.py"), base / "__init__.py", inner))):
                    return True
    return False


def _makes_models(path: Path) -> bool:
    try:
        return path.is_file() and worth_following(content.read(path, current().max_file_size))
    except (OSError, ValueError):
        return False


def is_searched(name: str, level: int) -> bool:
    """Return whether a module may be a file of the repository: it is no known library."""
    first = name.partition(".")[0]
    return bool(level) or (bool(first) and first not in _LIBRARIES and first not in sys.stdlib_module_names)


def places(folder: Path, level: int) -> Iterator[Path]:
    """Yield the folders in which a module that a file of a folder imports is searched."""
    if level:
        yield folder.parents[level - 2] if level > 1 and len(folder.parents) >= level else folder
        return
    for place in (folder, *folder.parents[:_MAX_UP]):
        yield place
        if (place / ".git").exists():
            return


@dataclass(eq=False, slots=True)
class ImportedFile:
    """A file that a script imports, with its place in the joined text."""

    path: Path
    name: str
    """The file's name, as reports print it."""
    text: Text
    module: ast.Module
    relevance: Relevance


@dataclass(slots=True)
class ImportedFiles:
    """The imported files of one script, in order of discovery."""

    beside: Path
    """The folder of the script."""
    shown: str
    """The script's name, as reports print it."""
    length: int
    """The number of characters of the joined text so far."""
    lines: int
    """The number of lines of the joined text so far."""
    files: list[ImportedFile] = field(default_factory=list)
    _known: dict[Path, ImportedFile | None] = field(default_factory=dict)
    _found: dict[tuple[str, int, Path], ImportedFile | None] = field(default_factory=dict)

    def find(self, name: str, level: int, here: ImportedFile | None) -> ImportedFile | None:
        """Return the file of a module; None if the repository has none that concerns models.

        Args:
            name: The module's dotted name, without leading dots.
            level: The number of leading dots.
            here: The file with the import; None for the script itself.
        """
        folder = self.beside if here is None else here.path.parent
        key = (name, level, folder)
        if key not in self._found:  # every path of a script meets its imports again
            self._found[key] = self._searched(name, level, folder) if is_searched(name, level) else None
        return self._found[key]

    def _searched(self, name: str, level: int, folder: Path) -> ImportedFile | None:
        for place in places(folder, level):
            base = place.joinpath(*filter(None, name.split(".")))
            for path in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
                if path not in self._known:
                    self._known[path] = self._read(path) if path.is_file() else None
                if self._known[path] is not None:
                    return self._known[path]
        return None

    def _read(self, path: Path) -> ImportedFile | None:
        limits = current()
        if len(self.files) >= MAX_FILES:
            return None
        try:
            data = content.read(path, limits.max_file_size)
            raw = unified(data.decode("utf-8")) if worth_following(data) or any(mark in data for mark in _MARKS) else ""
            if not raw or has_more_tokens(raw, limits.max_tokens // MAX_FILES):
                return None
            module, relevance = _parsed(raw)
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):  # the file's own audit reports these
            return None
        name = os.path.normpath(Path(self.shown).parent / os.path.relpath(path, self.beside))
        found = ImportedFile(path, Path(name).as_posix(), Text(raw, self.length + 1, self.lines), module, relevance)
        self.files.append(found)
        self.length += len(raw) + 1
        self.lines += raw.count("\n") + 1
        return found
