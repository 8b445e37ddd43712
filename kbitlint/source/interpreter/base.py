"""The base class of the interpreter's parts: the state of one pass over a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.source.interpreter.interface import Interface
from kbitlint.source.interpreter.objects import Record, Scope

if TYPE_CHECKING:
    import ast
    from collections.abc import Mapping

    from kbitlint.facts.values import Span
    from kbitlint.source.interpreter.imported_files import ImportedFiles
    from kbitlint.source.interpreter.objects import Object
    from kbitlint.source.interpreter.path_state import PathState
    from kbitlint.source.interpreter.relevance import Relevance
    from kbitlint.source.interpreter.uncalled_functions import UncalledFunction
    from kbitlint.source.offsets import Text


class Interpreter(Interface):
    """The state of one pass over a file.

    Every part derives from this class and from no other part. ``paths.ScriptInterpreter`` combines them.
    """

    _parameter_names: frozenset[str] = frozenset()
    whole_loop: bool = False
    """Whether the loop around the current statement goes through all parameters of a model."""
    filters: tuple[tuple[ast.expr, bool], ...] = ()
    """The conditions on parameters around the current statement, each with the answer that leads to it."""

    def __init__(
        self,
        text: Text,
        trail: PathState,
        relevance: Relevance,
        decisions: Mapping[str, bool],
        files: ImportedFiles | None = None,
    ) -> None:
        self.text = self.main_text = text
        self.main_relevance = relevance
        self.files = files
        """The files of the repository that the script imports; None if they are not followed."""
        self.modules: dict[str, Scope] = {}
        """The names of each imported file that the path has followed, by path and by module name."""
        self.trail = trail
        self.effort = trail.effort
        self.relevance = relevance
        self.given = decisions
        """The answers with which the path started."""
        self.decisions = dict(decisions)
        """The answers of this path, by question; True for a question without a starting answer."""
        self.asked: dict[str, int] = {}
        """The questions that the path has answered, in their order, with the stage of the file that asks each first."""
        self.stage = 0
        """The number of the stage that the path follows."""
        self.instance: Record | None = None
        """The instance whose methods the path follows one by one; None outside such a class."""
        self.equal: dict[str, Object] = {}
        """The values that unknown expressions have on this path, by key of the expression."""
        self.moved: dict[str, Object] = {}
        """The values of options of the command line that differ from their defaults on this path, by option."""
        self.module = Scope()
        self.scope = self.module
        self.loops: list[Span] = []
        """The loops around the current statement, the outermost first."""
        self.callers: list[Scope] = []
        """The scopes of the calls around the current function, the outermost first."""
        self.depth = 0
        """The number of calls of the file's own functions around the current statement."""
        self.untracked = 0
        """The number of ``no_grad`` or ``inference_mode`` contexts and decorators around the current statement."""
        self.preset: dict[int, Record] = {}
        """The arguments that a ``functools.partial`` adds to a call, by the id of the call's node."""
        self.used: set[int] = set()
        """The ids of the syntax nodes of functions and classes that the path has followed."""
        self.units: list[UncalledFunction] = []
