"""Changes of modules, made as soon as the script imports them. Libraries that it never imports cost nothing."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType


class _Loader(importlib.abc.Loader):
    """A loader that calls functions after the module ran."""

    def __init__(self, loader: Any, after: Sequence[Callable[[Any], None]]) -> None:
        self._loader, self._after = loader, after

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)  # type: ignore[no-any-return]  # a loader of any kind

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        for function in self._after:
            function(sys.modules.get(module.__name__, module))


class _Finder(importlib.abc.MetaPathFinder):
    """A finder that wraps the loaders of some modules."""

    def __init__(self) -> None:
        self.after: dict[str, list[Callable[[Any], None]]] = {}

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        after = self.after.get(name)
        if after is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader, after)
                return spec
        return None


_FINDER = _Finder()


def after_import(name: str, change: Callable[[Any], None]) -> None:
    """Call a function with a module, now if it is imported, else once its import has ended."""
    if name in sys.modules:
        change(sys.modules[name])
        return
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    _FINDER.after.setdefault(name, []).append(change)


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace a public function of a module or class by the one that ``make`` returns for the original.

    Raises:
        AttributeError: The library has no such function any more.
    """
    held = vars(owner).get(name, getattr(owner, name)) if isinstance(owner, type) else getattr(owner, name)
    original = held.__func__ if isinstance(held, (classmethod, staticmethod)) else held
    made = make(original)
    kind = type(held) if isinstance(held, (classmethod, staticmethod)) else None
    setattr(owner, name, kind(made) if kind else made)
