"""Imports, and the files of the same repository that they name: a path follows these files too."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from kbitlint.facts.values import Symbol
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.control_flow import LoopLeft, PathEnd, Returned
from kbitlint.source.interpreter.objects import Scope

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator

    from kbitlint.source.interpreter.imported_files import ImportedFile
    from kbitlint.source.interpreter.objects import Object

#: Number of names that take as long to bind as one step.
_CHEAP = 16


class Imports(Interpreter):
    """The part of the interpreter that follows imports."""

    def _do_import(self, node: ast.Import) -> None:
        self.effort.spend(len(node.names) // _CHEAP)
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            self.scope.names[name] = Symbol(alias.name if alias.asname else name)
            self._imported(alias.name, 0)

    def _do_importfrom(self, node: ast.ImportFrom) -> None:
        self.effort.spend(len(node.names) // _CHEAP)
        module = node.module or ""
        scope = self._imported(module, node.level)
        for alias in node.names:
            bound = alias.asname or alias.name
            found = scope.names.get(alias.name) if scope is not None else None
            if alias.name == "*":
                self.scope.names.update(scope.names if scope is not None else {})
            elif found is not None:
                self.scope.names[bound] = found
            elif node.level or not module:
                self.scope.names[bound] = Symbol(f".{module}.{alias.name}")
                self._imported(f"{module}.{alias.name}".strip("."), node.level, bound=f".{module}.{alias.name}")
            else:
                self.scope.names[bound] = Symbol(f"{module}.{alias.name}")
                self._imported(f"{module}.{alias.name}", 0)

    def member_of(self, module: str, name: str) -> Object | None:
        """Return the value of a name of a file that the script imports as a module; None if it imports none so."""
        scope = self.modules.get(module)
        return None if scope is None else scope.names.get(name)

    def _imported(self, name: str, level: int, bound: str = "") -> Scope | None:
        """Return the names of a file of the repository after following it, once on each path; None if there is no file."""
        here = self.module.home
        found = self.files.find(name, level, here) if self.files is not None else None
        if found is None:
            return None
        key = str(found.path)
        if key not in self.modules:
            self.modules[key] = Scope(home=found)
            self._follow(found, self.modules[key])
        self.modules[bound or name] = self.modules[key]
        return self.modules[key]

    def _follow(self, found: ImportedFile, scope: Scope) -> None:
        with self.inside(scope):
            outer, self.scope = self.scope, scope
            try:
                self.block(found.module.body)
            except (PathEnd, Returned, LoopLeft):
                pass
            finally:
                self.scope = outer

    @contextmanager
    def inside(self, scope: Scope) -> Iterator[None]:
        """Read the text and the relevant statements of the file whose names a scope holds."""
        top = scope
        while top.outer is not None:
            top = top.outer
        before = self.text, self.relevance, self.module
        if top.home is not self.module.home:
            self.module = top
            home = top.home
            self.text, self.relevance = (self.main_text, self.main_relevance) if home is None else (home.text, home.relevance)
        try:
            yield
        finally:
            self.text, self.relevance, self.module = before
