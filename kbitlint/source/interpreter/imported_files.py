"""The files of a repository that a script imports: found beside it or above it, read and parsed once.

Their texts are appended to the script's own, so every span lies in one text. A bound holds for their number and length.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass
from kbitlint.limits import current
from kbitlint.runtime import content
from kbitlint.source.interpreter.relevance import tree_of, worth_following
from kbitlint.source.line_ends import unified
from kbitlint.source.offsets import Text, has_more_tokens

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator

    from kbitlint.source.interpreter.relevance import Relevance, Tree

#: Number of files that one script brings along.
MAX_FILES = 12
#: Number of files that are kept for the next script of a folder.
_KEPT = 32
#: Number of folders above the script in which a module is searched.
_MAX_UP = 3
#: The folder of a project that is installed from a "src layout" (packaging.python.org); examples and tests import from it.
_SOURCES = "src"
#: packages that are not searched for beside a script
_LIBRARIES = frozenset(
    (
        *("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "datasets", "deepspeed", "numpy", "pandas"),
        *("tqdm", "wandb", "evaluate", "huggingface_hub", "sklearn", "safetensors", "einops", "tokenizers", "unsloth", "fire"),
    )
)
#: further strings of files that are worth following: what they hold reaches a model through the importing script
_MARKS = (
    b"resize_token_embeddings",
    b"from_pretrained",
    b"TrainingArguments",
    b"add_argument",
    b"@dataclass",
    b"Trainer",
    b"bnb.nn.",
)


#: what a script that trains contains, and its imports
_TRAINS = (b"Trainer", b".backward(")
_IMPORT = re.compile(rb"^[ \t]*(?:from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]+(\w*)|import[ \t]+([\w.]+))", re.MULTILINE)


def brings_models(beside: Path, data: bytes) -> bool:
    """Return whether a script trains, and a file of the repository that it imports makes or prepares k-bit models."""
    if not any(mark in data for mark in _TRAINS):
        return False
    searched: dict[int, list[Path]] = {}
    for dots, relative, member, absolute in _IMPORT.findall(data):
        name, level = (relative or absolute).decode("utf-8", "replace"), len(dots)
        if is_searched(name, level):
            for place in searched.get(level) or searched.setdefault(level, list(places(beside, level))):
                base = place.joinpath(*filter(None, name.split(".")))
                inner = base / f"{member.decode('utf-8', 'replace') or '__init__'}.py"
                if any(map(_makes_models, (base.with_name(f"{base.name}.py"), base / "__init__.py", inner))):
                    return True
    return False


_is_worth_following = functools.lru_cache(_KEPT)(worth_following)


def _makes_models(path: Path) -> bool:
    try:
        return content.is_file(path) and _is_worth_following(content.read(path, current().max_file_size))
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
        if content.exists(place / _SOURCES):
            yield place / _SOURCES
        if content.exists(place / ".git"):
            return


@functools.lru_cache(_KEPT)
def _concerning(data: bytes, most: int) -> tuple[Text, Tree] | None:
    """Return the text of a file and its tree; None if nothing in it concerns models, or if it has more tokens.

    Raises:
        ValueError, SyntaxError, RecursionError, MemoryError: The file is no Python.
    """
    if not (_is_worth_following(data) or any(mark in data for mark in _MARKS)):
        return None
    raw = unified(data.decode("utf-8"))
    return None if has_more_tokens(raw, most) else (Text(raw), tree_of(raw))


@dataclass(eq=False, slots=True)
class ImportedFile:
    """A file that a script imports, with its place in the joined text."""

    path: Path
    name: str
    """The file's name, as reports print it."""
    text: Text
    module: ast.Module
    relevance: Relevance
    folder: str
    """The folder of the file, absolute or relative as ``path`` is."""


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
    _found: dict[tuple[str, int, str], ImportedFile | None] = field(default_factory=dict)
    _places: dict[tuple[Path, int], list[Path]] = field(default_factory=dict)

    def find(self, name: str, level: int, here: ImportedFile | None) -> ImportedFile | None:
        """Return the file of a module; None if the repository has none that concerns models.

        Args:
            name: The module's dotted name, without leading dots.
            level: The number of leading dots.
            here: The file with the import; None for the script itself.
        """
        key = (name, level, "" if here is None else here.folder)
        if key not in self._found:  # every path of a script meets its imports again
            folder = self.beside if here is None else here.path.parent
            self._found[key] = self._searched(name, level, folder) if is_searched(name, level) else None
        return self._found[key]

    def _searched(self, name: str, level: int, folder: Path) -> ImportedFile | None:
        searched = self._places.get((folder, level)) or self._places.setdefault((folder, level), list(places(folder, level)))
        for place in searched:
            base = place.joinpath(*filter(None, name.split(".")))
            for path in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
                if path not in self._known:
                    self._known[path] = self._read(path) if content.is_file(path) else None
                if self._known[path] is not None:
                    return self._known[path]
        return None

    def _read(self, path: Path) -> ImportedFile | None:
        limits = current()
        if len(self.files) >= MAX_FILES:
            return None
        try:
            known = _concerning(content.read(path, limits.max_file_size), limits.max_tokens // MAX_FILES)
            if known is None:
                return None
            text, tree = known
            module, relevance = tree.module, tree.relevance
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):  # the file's own audit reports these
            return None
        name = os.path.normpath(Path(self.shown).parent / os.path.relpath(path, self.beside))
        found = ImportedFile(
            path, Path(name).as_posix(), text.at(self.length + 1, self.lines), module, relevance, str(path.parent)
        )
        self.files.append(found)
        self.length += len(text.text) + 1
        self.lines += text.text.count("\n") + 1
        return found
