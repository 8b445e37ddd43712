"""The cache of a folder's audit: the result of each file, with the files that it depends on.

A result is taken if every question that its audit asked about the file system has the same answer: the bytes of the file, of
the modules that it imports and of the configurations that it names, and which of those exist. The key covers the rest: the
code of kbitlint and of the rule packs, the settings, the versions of the libraries, the working folder.

One file holds the results of one folder under one key. It is replaced atomically; of two runs at once, the later one
remains. A file that cannot be read or parsed is ignored.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import stat
import sys
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.audit.packed import packed, unpacked
from kbitlint.files import atomic
from kbitlint.lazy_dataclass import dataclass
from kbitlint.limits import current
from kbitlint.runtime import content
from kbitlint.runtime.observations import Asked, Observations, Question, answer_now, digest
from kbitlint.upstream.versions import installed
from kbitlint.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kbitlint.audit.script_audit import ScriptAudit
    from kbitlint.context import TrainingContext
    from kbitlint.rule import Rule

#: Raise it when the form of the file changes.
_FORM = 2
_VERSION = re.compile(r"\d+(\.\d+)+[\w.+-]*")
_FILE = re.compile(r"[0-9a-f]{32}\.json")
#: Files of this version that are kept: one for each folder and key.
_KEPT = 16
_MOST = 256 * 2**20
_IGNORED = "# written by kbitlint\n*\n"
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# the cache of kbitlint; it may be deleted at any time\n"
Result = tuple["ScriptAudit | None", Observations]
"""(audit of a file, its questions). The audit is None if the file concerns no training."""


@dataclass(slots=True)
class Cache:
    """The kept results of one folder under one key."""

    file: Path
    results: dict[str, tuple[Any, tuple[tuple[Asked, str], ...]]] = field(default_factory=dict)
    """The packed audit of each file, by name, with each question and the digest of its answer."""
    _now: dict[Asked, str] = field(default_factory=dict)
    """The answers of this run."""
    _fresh: bool = False
    """Whether a result is new or gone."""

    def found(self, names: Iterable[str]) -> Iterator[tuple[str, ScriptAudit | None]]:
        """Yield the files whose kept result holds, with it."""
        for name in names:
            kept = self.results.get(name)
            if kept is None:
                continue
            if all(self._answer(asked) == answer for asked, answer in kept[1]):
                with contextlib.suppress(ValueError, TypeError, LookupError, RecursionError):
                    yield name, unpacked(kept[0])

    def _answer(self, asked: Asked) -> str:
        if asked not in self._now:
            question, path, argument = asked
            self._now[asked] = answer_now(Path(path), argument, content.ASKED[question])
        return self._now[asked]

    def keep(self, name: str, result: Result) -> None:
        """Keep the result of a file, unless it holds what cannot be restored exactly."""
        audit, seen = result
        self._fresh = True
        with contextlib.suppress(TypeError):
            made = packed(audit)
            if unpacked(made) == audit:
                self.results[name] = (made, tuple(seen.items()))

    def write(self, names: Iterable[str]) -> None:
        """Write the results of these files if one is new; a folder that cannot be written keeps none."""
        kept = {name: self.results[name] for name in names if name in self.results}
        if not self._fresh and len(kept) == len(self.results):
            return
        with contextlib.suppress(OSError, ValueError):  # a name that is no UTF-8 cannot be written either
            _make(self.file.parent)
            atomic.replace(self.file, _text(kept), follow=False)
            _sweep(self.file.parent)


def opened(folder: Path, root: Path, rules: tuple[Rule, ...], context: TrainingContext) -> Cache:
    """Return the cache for the audit of the folder ``root``; it is empty if none can be read in ``folder``."""
    key = digest(json.dumps([_FORM, str(root.resolve()), *_settings(rules, context)]).encode())
    cache = Cache(folder / VERSION / f"{key}.json")
    try:
        if not _is_own(folder) or not _is_own(folder / VERSION):
            return cache
        with content.opened(cache.file, follow=False) as file:
            cache.results = _results(json.loads(file.read(_MOST)))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, MemoryError):
        cache.results = {}
    return cache


def _results(read: dict[str, Any]) -> dict[str, tuple[Any, tuple[tuple[Asked, str], ...]]]:
    asked = [((Question(kind), str(path), argument), str(answer)) for kind, path, argument, answer in read["asked"]]
    return {str(name): (made, tuple(asked[number] for number in numbers)) for name, (made, numbers) in read["files"].items()}


def _text(results: dict[str, tuple[Any, tuple[tuple[Asked, str], ...]]]) -> bytes:
    """Return results as JSON; a question that several of them depend on is written once."""
    numbers: dict[tuple[Asked, str], int] = {}
    files = {name: (made, [numbers.setdefault(one, len(numbers)) for one in asked]) for name, (made, asked) in results.items()}
    written = [(question.value, path, argument, answer) for (question, path, argument), answer in numbers]
    return json.dumps({"asked": written, "files": files}, separators=(",", ":")).encode()


def _settings(rules: tuple[Rule, ...], context: TrainingContext) -> Iterator[str]:
    """Yield everything but files that decides a result."""
    yield f"{VERSION} {sys.version} {Path.cwd()} {[os.environ.get(name) for name in ('HF_HOME', 'HF_HUB_CACHE', 'HOME')]}"
    yield repr(sorted(installed().items()))
    yield repr(current())
    yield repr(dataclasses.astuple(context))
    given = [(type(rule).__module__, type(rule).__qualname__, rule.meta.code, rule.given()) for rule in rules]
    yield repr(given)
    yield from sorted(set(_code(rules)))


def _code(rules: tuple[Rule, ...]) -> Iterator[str]:
    """Yield each file of kbitlint and of the rule packs with its size and time: an edit of a rule changes the key."""
    modules = {type(rule).__module__ for rule in rules} | {"kbitlint"}
    files = (getattr(sys.modules.get(name), "__file__", None) for name in modules)
    for folder in {os.path.dirname(file) for file in files if file}:  # noqa: PTH120  # thousands of Path objects take long
        for place, _, names in os.walk(folder):
            for name in names:
                if name.endswith((".py", ".tsv", ".json")):
                    found = os.stat(os.path.join(place, name))  # noqa: PTH116, PTH118  # as above
                    yield f"{place}/{name} {found.st_size} {found.st_mtime_ns}"


def _is_own(folder: Path) -> bool:
    """Return whether a path is a folder itself: a link in a repository may lead anywhere."""
    return stat.S_ISDIR(folder.lstat().st_mode)


def _make(folder: Path) -> None:
    """Make the folder of this version, and the one above it, which git and backups leave out.

    Raises:
        OSError: One of them cannot be made, or is a link.
    """
    above = folder.parent
    for place in (above, folder):
        place.mkdir(parents=True, exist_ok=True)
        if not _is_own(place):
            raise NotADirectoryError(place)
    for name, text in ((".gitignore", _IGNORED), ("CACHEDIR.TAG", _TAG)):
        if not os.path.lexists(above / name):
            atomic.replace(above / name, text.encode(), follow=False)


def _sweep(folder: Path) -> None:
    """Remove the results of other versions, and of this one all but the newest files."""
    for other in folder.parent.iterdir():
        if other != folder and _VERSION.fullmatch(other.name) and _is_own(other):
            for file in other.iterdir():
                if _FILE.fullmatch(file.name):
                    file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another file of the user's keeps it
                other.rmdir()
    own = sorted((file for file in folder.iterdir() if _FILE.fullmatch(file.name)), key=lambda file: -file.lstat().st_mtime)
    for file in own[_KEPT:]:
        file.unlink(missing_ok=True)
