"""Packages that a script imports and that are not installed here: modules that take everything and do nothing.

A script needs its trackers only to report, so a tracker counts as switched off. Any other package is a skip with its line,
and an exception that may come from its stand-in is not reported as one of the script.
"""

from __future__ import annotations

import ast
import functools
import importlib.abc
import importlib.machinery
import itertools
import sys
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from kbitlint.rehearsal.inside.user_code import nodes_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

    from kbitlint.rehearsal.inside.record import Record

#: trackers that a script may import without having them; they only receive what training reports
TRACKERS = ("wandb", "mlflow", "comet_ml", "neptune", "clearml", "swanlab", "trackio", "aim", "dvclive", "codecarbon")
#: handlers that expect a package to be missing
_EXPECTING = frozenset(("ImportError", "ModuleNotFoundError"))
_CATCHING_ALL = frozenset(("Exception", "BaseException"))


def install(record: Record) -> None:
    """Let imports of the script find a stand-in for a package that is not installed, until the process ends."""
    sys.meta_path.append(_Absent(record))


class Anything:
    """An object that takes everything and does nothing. As a base class it is left out, as a decorator it changes nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take any arguments."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Return the function or class that this decorates, or itself."""
        if len(arguments) == 1 and not options and isinstance(arguments[0], (FunctionType, type)):
            return arguments[0]
        return self

    def __mro_entries__(self, _: Any) -> tuple[type, ...]:
        """Return no base class."""
        return ()

    def __getattr__(self, name: str) -> Any:
        """Return itself for any name that is not special.

        Raises:
            AttributeError: The name is special, and libraries ask for it to learn what an object can do.
        """
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, _: Any) -> Any:
        return self

    def __setitem__(self, _: Any, __: Any) -> None:
        """Take any value."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return False

    def __contains__(self, _: Any) -> bool:
        return False


class _Silent(ModuleType):
    """A module in which every name is an ``Anything``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A finder of packages that are not installed. It comes last, so that installed ones are found first."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:  # noqa: ARG002  # importlib passes them
        top, _, inner = name.partition(".")
        if inner and not isinstance(sys.modules.get(top), _Silent):
            return None  # an installed package without such a module
        importing = None if inner else _importing()
        if not inner and (importing is None or not self._record.line() or _is_expected(importing)):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        top = spec.name.partition(".")[0]
        if top in TRACKERS:
            self._record.switch_off(spec.name)
        elif top not in self._record.absent:
            self._record.absent.add(top)
            self._record.skip(f"the package {top} is not installed here: an empty module takes its place")
        return _Silent(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__path__ = []


def _importing() -> FrameType | None:
    """Return the frame that imports, if it is no library's: a library asks what is installed."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001  # the importing frame
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        if frame.f_globals.get("__name__") == "importlib.util":
            return None  # a question whether the package is there
        frame = frame.f_back
    if frame is None or any(part in frame.f_code.co_filename for part in ("site-packages", "dist-packages", "importlib")):
        return None
    return None if str(frame.f_globals.get("__name__", "")).partition(".")[0] in sys.stdlib_module_names else frame


def _is_expected(frame: FrameType) -> bool:
    """Return whether the script says what happens if the package is missing: its import stands in a ``try`` for it."""
    return any(first <= frame.f_lineno <= last for first, last in _guarded(frame.f_code.co_filename))


@functools.cache
def _guarded(file: str) -> tuple[tuple[int, int], ...]:
    """Return the first and last line of each ``try`` that expects a failed import."""
    return tuple(
        (one.body[0].lineno, one.body[-1].end_lineno or one.body[-1].lineno)
        for one in nodes_of(file)
        if isinstance(one, ast.Try) and _expects(one)
    )


def _expects(one: ast.Try) -> bool:
    only_imports = all(isinstance(line, (ast.Import, ast.ImportFrom, ast.Assign, ast.Pass)) for line in one.body)
    for handler in one.handlers:
        if any(isinstance(node, ast.Raise) or _leaves(node) for line in handler.body for node in ast.walk(line)):
            continue  # the script demands the package
        kinds = (
            {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)} if handler.type else set(_CATCHING_ALL)
        )
        if kinds & _EXPECTING or (only_imports and kinds & _CATCHING_ALL):
            return True
    return False


def _leaves(node: ast.AST) -> bool:
    """Return whether a node calls ``sys.exit`` or ``exit``."""
    called = node.func if isinstance(node, ast.Call) else None
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    return name in ("exit", "quit", "_exit")


def is_left_out_base(value: Any) -> bool:
    """Return whether an ``Anything`` is among the bases that the class of a value was written with."""
    kind = value if isinstance(value, type) else type(value)
    return any(isinstance(base, Anything) for cls in kind.__mro__ for base in vars(cls).get("__orig_bases__", ()))


def is_touched(traceback: TracebackType | None) -> bool:
    """Return whether an ``Anything`` is among the values of a frame, except those of modules, that an exception passed."""
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_name != "<module>" and any(_holds(value) for value in list(frame.f_locals.values())):
            return True
        traceback = traceback.tb_next
    return False


def _holds(value: Any, depth: int = 2) -> bool:
    if isinstance(value, (Anything, _Silent)):
        return True
    if not depth or not isinstance(value, (dict, list, tuple)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return any(_holds(one, depth - 1) for one in itertools.islice(inner, 50))
