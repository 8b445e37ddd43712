"""The statements of a file that can matter for a model.

The interpreter follows both branches of an unknown condition only if one of them matters.
"""

from __future__ import annotations

import ast
import functools
import warnings
from collections import deque
from typing import TYPE_CHECKING

from kbitlint.source.nodes import children, walk
from kbitlint.upstream.calls import FUNCTIONS, METHODS, TRAINERS, TRAINING_ARGUMENTS, WRAPPERS
from kbitlint.upstream.inert import INERT
from kbitlint.upstream.quantization import QUANTIZATION_CONFIGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Last parts of the names of functions and attributes that change a model.
SEEDS = frozenset(
    {api.name.rpartition(".")[2] for api in (*FUNCTIONS, *METHODS)}
    | {name.rpartition(".")[2] for name in (*TRAINERS, *TRAINING_ARGUMENTS, *WRAPPERS)}
    | set(QUANTIZATION_CONFIGS)
    | {"from_pretrained", "requires_grad", "requires_grad_", "backward", "LoraConfig", "AdaLoraConfig", "PeftConfig"}
    | {"Accelerator", "half", "float", "bfloat16", "eval", "from_config", "_set_gradient_checkpointing", "GradScaler"}
) - {"checkpoint", "compile"}

#: Every file that makes, prepares or trains a k-bit model contains at least one of these strings.
MARKS = tuple(
    mark.encode()
    for mark in (
        "BitsAndBytesConfig",
        "kbit_training",
        "int8_training",
        "checkpointing_enable",
        "get_peft_model",
        "PeftModel",
        "LoraConfig",
        "load_in_4bit",
        "load_in_8bit",
        "peft_config",
        "quantization_config",
        "kbitlint:",
        "BitsandbytesPrecision",
        *QUANTIZATION_CONFIGS,
    )
)
#: Strings of direct calls of torch's checkpoint functions, which need no path to be found.
DIRECT = (b"utils.checkpoint", b"torch.utils import checkpoint")


def worth_parsing(content: bytes) -> bool:
    """Return whether a file can contain a construct that a rule checks."""
    return any(mark in content for mark in (*DIRECT, *MARKS))


def worth_following(content: bytes) -> bool:
    """Return whether a file can make, prepare or train a k-bit model."""
    return any(mark in content for mark in MARKS)


#: Methods that fill a dict, and those that fill a list. What a list holds after a loop is not known.
_FILLS = frozenset({"update", "setdefault"})
_GROWS = frozenset({"append", "extend", "insert"})
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
#: Syntax nodes that can matter themselves. Other nodes matter only through their parts.
_WEIGHED = (ast.Call, ast.Return, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Import, ast.ImportFrom)


class _Names:
    """The names from which each name of a file is computed, and the functions that call each function."""

    def __init__(self) -> None:
        self._functions: dict[str, int] = {}
        """The id of the last function or class with each name."""
        self._callers: dict[str | int, list[int]] = {}
        """Ids of functions. A name has the functions that call it; the id of a function or class has the function around it."""
        self._relevant: list[int] = []
        """The ids of the functions that call a seed."""
        self._flows: dict[str, list[list[str]]] = {}
        """The names that each name is computed from, one list for each assignment."""
        self._names: set[str] = set()
        """The names inside calls of seeds."""

    def add(self, node: ast.AST, function: int, *, inside: bool, looped: bool) -> None:
        """Add a node of the file.

        Args:
            node: The node.
            function: The id of the function or class around it.
            inside: Whether it is part of a seed's call.
            looped: Whether a loop is around it.
        """
        if isinstance(node, ast.Name):
            if inside:
                self._names.add(node.id)
        elif isinstance(node, _DEFINITIONS):
            self._functions[node.name] = id(node)
            self._callers.setdefault(id(node), []).append(function)
        elif isinstance(node, ast.Call):
            if filled := _filled(node, looped=looped):
                self._flows.setdefault(filled, []).append([name for given in _given(node) for name in _loads(given)])
            if _called(node) in SEEDS:
                self._relevant.append(function)
            else:
                self._callers.setdefault(_called(node), []).append(function)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)) and node.value is not None:
            loads = list(_loads(node.value))
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for name in _roots(target):
                    self._flows.setdefault(name, []).append(loads)

    def close(self) -> set[str]:
        """Return the names from which models, and arguments of calls that change them, are computed."""
        names, todo = set(self._names), list(self._names)
        while todo:
            for loads in self._flows.pop(todo.pop(), ()):  # each assignment of a name is read once
                todo += [name for name in loads if name not in names]
                names.update(loads)
        return names

    def calling(self) -> set[str]:
        """Return the names of the functions that call a seed, directly or through other functions."""
        names = {function: name for name, function in self._functions.items()}
        found, todo = set(self._relevant), list(set(self._relevant))
        while todo:
            function = todo.pop()
            for key in (function, names.get(function)):
                callers = self._callers.pop(key, ()) if key is not None else ()
                fresh = {caller for caller in callers if caller not in found}
                found |= fresh
                todo += fresh
        return {name for name, function in self._functions.items() if function in found}


def _climb(statement: int, parents: Mapping[int, int], found: set[int]) -> None:
    """Add a statement and the statements around it, up to the first that is already in the set."""
    while statement and statement not in found:
        found.add(statement)
        statement = parents[statement]


class Relevance:
    """The statements of a file that matter for a model, found once, in time linear in the nodes of the file."""

    def __init__(self, module: ast.Module) -> None:
        names = _Names()
        parents: dict[int, int] = {}
        weighed: list[tuple[ast.AST, int, bool]] = []
        todo: deque[tuple[ast.AST, int, int, bool, bool]] = deque([(module, 0, 0, False, False)])
        while todo:
            node, statement, function, inside, looped = todo.popleft()
            inside = inside or (isinstance(node, ast.Call) and _called(node) in SEEDS)
            names.add(node, function, inside=inside, looped=looped)
            if isinstance(node, ast.stmt):
                parents[id(node)] = statement
                statement = id(node)
                function = statement if isinstance(node, _DEFINITIONS) else function
            if isinstance(node, _WEIGHED):
                weighed.append((node, statement, looped))
            looped = looped or isinstance(node, _LOOPS)
            todo += [(child, statement, function, inside, looped) for child in children(node)]
        self._names = names.close()
        self._calling = names.calling()
        self._mattering: set[int] = set()
        """The ids of the statements that contain a relevant node."""
        self._with_calls: set[int] = set()
        """The ids of the statements that contain a relevant call."""
        self._mark(weighed, parents)

    def _mark(self, weighed: Iterable[tuple[ast.AST, int, bool]], parents: Mapping[int, int]) -> None:
        for node, statement, looped in weighed:
            if self._node_matters(node):
                _climb(statement, parents, self._mattering)
                if isinstance(node, ast.Call):
                    _climb(statement, parents, self._with_calls)
            elif isinstance(node, ast.Call) and _filled(node, looped=looped) in self._names:
                _climb(statement, parents, self._mattering)

    def matters(self, statements: list[ast.stmt]) -> bool:
        """Return whether a model's state can depend on following these statements."""
        return any(id(statement) in self._mattering for statement in statements)

    def calls(self, statements: list[ast.stmt]) -> bool:
        """Return whether a call in these statements can change a model."""
        return any(id(statement) in self._with_calls for statement in statements)

    def _node_matters(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Call):
            return _called(node) in SEEDS or _called(node) in self._calling
        if isinstance(node, ast.Return):
            return node.value is not None and not _loads(node.value).isdisjoint(self._names)
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Attribute) and target.attr in SEEDS for target in targets):
                return True
            return bool({name for target in targets if not _is_inert(target) for name in _roots(target)} & self._names)
        return isinstance(node, (ast.Import, ast.ImportFrom)) and any(
            name in self._names or name in SEEDS
            for name in ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        )


class Tree:
    """The syntax tree of a text, and the statements in it that matter. No caller changes either.

    Raises:
        SyntaxError: The text is no Python.
        ValueError, RecursionError, MemoryError: Python cannot parse it.
    """

    def __init__(self, text: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences in the script's strings
            self.module = ast.parse(text)

    @functools.cached_property
    def relevance(self) -> Relevance:
        """Return the statements that matter for a model."""
        return Relevance(self.module)


#: Number of trees that are kept for the next script of a folder, which often imports the same files.
_KEPT = 32
#: Characters of the longest text whose tree is kept.
_LONGEST = 200_000
_kept_tree = functools.lru_cache(_KEPT)(Tree)


def tree_of(text: str) -> Tree:
    """Return the tree of a text; see ``Tree``."""
    return _kept_tree(text) if len(text) <= _LONGEST else Tree(text)


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _filled(node: ast.Call, *, looped: bool = False) -> str:
    """Return the name of the dict or list that a call of its method changes; empty if it changes none."""
    func = node.func
    if not isinstance(func, ast.Attribute) or (func.attr not in _FILLS and (looped or func.attr not in _GROWS)):
        return ""
    return next(iter(_roots(func.value)), "")


def _given(node: ast.Call) -> list[ast.expr]:
    return [*node.args, *(keyword.value for keyword in node.keywords)]


def _loads(node: ast.AST) -> set[str]:
    return {inner.id for inner in walk(node) if isinstance(inner, ast.Name)}


def _is_inert(target: ast.expr) -> bool:
    """Return whether a target is an attribute or an item that no rule asks about: ``args.run_name``, ``kwargs["top_p"]``."""
    if isinstance(target, ast.Subscript):
        return isinstance(target.slice, ast.Constant) and target.slice.value in INERT
    return isinstance(target, ast.Attribute) and target.attr in INERT


def _roots(target: ast.AST) -> set[str]:
    """Return the names that an assignment changes: ``a`` for ``a.b[c]``, and both for ``a, b``."""
    while isinstance(target, (ast.Attribute, ast.Subscript, ast.Starred)):
        target = target.value
    if isinstance(target, (ast.Tuple, ast.List)):
        return {name for item in target.elts for name in _roots(item)}
    return {target.id} if isinstance(target, ast.Name) else set()
