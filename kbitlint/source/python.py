"""The facts of a Python text: a script, or the joined cells of a notebook.

This file parses the text and collects its imports and launch signs. ``interpreter/`` follows its execution paths.
"""

from __future__ import annotations

import ast
import itertools
import re
from typing import TYPE_CHECKING

from kbitlint.facts.source import LaunchSign, SourceFacts
from kbitlint.limits import current
from kbitlint.source.comments import ignores
from kbitlint.source.interpreter.checkpoint_calls import checkpoint_calls
from kbitlint.source.interpreter.imported_files import ImportedFiles, brings_models
from kbitlint.source.interpreter.paths import ExecutionPaths, agreed, variants
from kbitlint.source.interpreter.relevance import tree_of, worth_following
from kbitlint.source.nodes import walk
from kbitlint.source.offsets import Text, has_more_tokens, import_place
from kbitlint.source.own_loops import rounds
from kbitlint.source.scoped_names import unless_deep
from kbitlint.upstream.calls import UNJUDGED
from kbitlint.upstream.versions import installed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path as FilePath

    from kbitlint.facts.data_flow import DataUse
    from kbitlint.facts.own_loops import LoopFault
    from kbitlint.facts.own_modules import AttributeUse, FileUse, Head, RefusedCall, StateUse
    from kbitlint.source.interpreter.relevance import Tree
    from kbitlint.source.launches import Launch

_DISTRIBUTED = re.compile(
    r"\b(LOCAL_RANK|init_process_group|torchrun|accelerate launch|DistributedDataParallel|ddp_find_unused_parameters"
    r"|local_rank|ddp_backend|PartialState|deepspeed)\b"
)
_BITS = re.compile(r"[48][-_ ]?bits?\b|quantiz|qlora|\bnf4\b|\bint[48]\b", re.IGNORECASE)
#: what a script that makes data for a training contains
_DATA = ("dataset", ".map(", '"labels"', "labels=")
#: signs of a class or function that a Trainer calls
_CALLED_BACK = ("Trainer)", "Callback)", "collator=", "compute_loss_func=", "metrics=", "formatting_func=", "reward_funcs=")
_RANKS = ("LOCAL_RANK", "WORLD_SIZE", "RANK")
_ARGUMENTS = ("ddp_find_unused_parameters", "ddp_backend", "ddp_timeout")


class SourceError(ValueError):
    """A Python text that is invalid or too large; ``line`` is the line of the error, None if there is none."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


def collect(file: str, text: str, versions: Mapping[str, str] | None = None, beside: FilePath | None = None) -> SourceFacts:
    """Return the facts of a Python text.

    Args:
        file: The file's name, as reports print it.
        text: The source text, with line feeds as line ends.
        versions: The versions of the libraries whose behaviour is modelled; None means the installed ones.
        beside: The folder of the file, in which configuration files that it names are searched.

    Raises:
        SourceError: The text is no Python, has too many tokens, or is nested too deeply.
    """
    limits, launch = current(), None
    if has_more_tokens(text, limits.max_tokens):
        raise SourceError(
            f"holds more than {limits.max_tokens:,} words and signs, and is skipped"
            " (max-tokens of [tool.kbitlint] sets how many)"
        )
    tree = _tree(text)
    module = tree.module
    versions = installed() if versions is None else versions
    source = Text(text)
    ways = ExecutionPaths()
    files = ImportedFiles(beside, file, len(text), text.count("\n") + 1) if beside is not None else None
    try:
        data = text.encode("utf-8", "replace")
        if worth_following(data) or (beside is not None and brings_models(beside, data)):
            launch = _launch(beside, file, text, module)
            ways.follow(source, tree, versions, beside, files, launch)
        calls = ways.calls
        calls.append({call.span: call for call in checkpoint_calls(source, module)})
    except RecursionError as error:
        raise SourceError("is nested too deeply to be followed") from error
    imported = files.files if files is not None else []
    starts = list(itertools.accumulate((one.text.text.count("\n") + 1 for one in imported), initial=text.count("\n") + 2))
    imports = tuple(_imports(module))
    own_heads, own_uses = _own_classes(text, module)
    return SourceFacts(
        file,
        "\n".join([text, *(one.text.text for one in imported)]),
        imports,
        import_place(source, module.body),
        agreed(calls),
        variants(calls),
        tuple(ways.paths),
        tuple(sorted(_mentions(text, module), key=lambda mention: mention.line)) + _launcher(launch),
        versions,
        ignores=ignores(text, module),
        unfollowed=ways.unfollowed or _unjudged(imports, text),
        length=len(text),
        modules=tuple((start, one.name) for start, one in zip(starts, imported, strict=False)),
        module_ignores={one.name: ignores(one.text.text, one.module) for one in imported},
        heads=own_heads,
        file_uses=own_uses,
        data_uses=_data_uses(text, module),
        refused_calls=_own_callbacks(text, module, imports),
        state_uses=_state_uses(text, module),
        attribute_uses=_attribute_uses(text, module, imports),
        own_loops=tuple(rounds(module, text, imports)),
        loop_faults=_loop_faults(text, module),
    )


def _loop_faults(text: str, module: ast.Module) -> tuple[LoopFault, ...]:
    """Return what the file's own loops leave out."""
    if ".backward(" not in text:
        return ()
    from kbitlint.source.loop_faults import loop_faults  # most scripts leave the loop to a Trainer

    return tuple(sorted(set(loop_faults(module, text)), key=lambda fault: fault.line))


def _data_uses(text: str, module: ast.Module) -> tuple[DataUse, ...]:
    """Return the places where data does not fit the code that takes it, in a script that makes the data of a k-bit training."""
    if (_BITS.search(text) is None and "peft" not in text) or not any(one in text for one in _DATA):
        return ()
    from kbitlint.source.data_flow import data_uses  # configurations and modules make no data

    return tuple(sorted(set(data_uses(module, text)), key=lambda use: (use.line, use.kind)))


def _own_classes(text: str, module: ast.Module) -> tuple[tuple[Head, ...], tuple[FileUse, ...]]:
    """Return the heads and the uses of files in the classes of a file."""
    beside, touches = "Module)" in text and "self." in text, "Callback)" in text and "pytorch_model" in text
    touches = touches or ("Callback)" in text and "model.safetensors" in text)
    if not beside and not touches:
        return (), ()
    from kbitlint.source.own_modules import file_uses, heads  # few scripts have such classes

    return tuple(heads(module)) if beside else (), tuple(file_uses(module)) if touches else ()


def _own_callbacks(text: str, module: ast.Module, imports: tuple[tuple[str, str], ...]) -> tuple[RefusedCall, ...]:
    """Return the functions of a file that a library calls, and whose parameters refuse that call."""
    if "Trainer" not in text or not any(word in text for word in _CALLED_BACK):
        return ()
    from kbitlint.source.own_callbacks import refused_calls  # few scripts have such functions

    return tuple(refused_calls(module, imports))


def _state_uses(text: str, module: ast.Module) -> tuple[StateUse, ...]:
    """Return the loads of state dicts that a file saves under other names."""
    if "peft" not in text or not any(name in text for name in ("load_state_dict", "set_peft_model_state_dict")):
        return ()
    from kbitlint.source.saved_states import state_uses  # few scripts load state dicts

    return unless_deep(state_uses(module))


def _attribute_uses(text: str, module: ast.Module, imports: tuple[tuple[str, str], ...]) -> tuple[AttributeUse, ...]:
    """Return the attributes that a file reads of objects of transformers and TRL, in a script that trains."""
    if "Trainer(" not in text and "backward(" not in text:
        return ()
    from kbitlint.source.removed_attributes import attribute_uses  # data and configurations have no such objects

    return unless_deep(attribute_uses(module, text, imports))


def _launch(beside: FilePath | None, file: str, text: str, module: ast.Module) -> Launch | None:
    """Return how the files beside a script that trains, or its comments, launch it; None if they do not."""
    if beside is None or not file.endswith(".py") or ("Trainer" not in text and "backward(" not in text):
        return None
    from kbitlint.source.launches import launch_of  # many audits need no launch

    name, notes = file.replace("\\", "/").rpartition("/")[2], ""
    if name in text:
        comments = (line.lstrip("#! ") for line in text.split("\n") if line.startswith("#"))
        notes = "\n".join([*comments, ast.get_docstring(module) or ""])
    return launch_of(beside / name, notes)


def _launcher(launch: Launch | None) -> tuple[LaunchSign, ...]:
    return (LaunchSign(launch.ranks, 1, launcher=True),) if launch is not None and launch.ranks else ()


def _unjudged(imports: Iterable[tuple[str, str]], text: str) -> str:
    """Return which packages take part in the training without being judged; empty if there are none, or no bits."""
    found = dict.fromkeys(package for name, _ in imports if (package := name.partition(".")[0]) in UNJUDGED)
    if not found or _BITS.search(text) is None:
        return ""
    return f"uses {' and '.join(found)}, which loads or trains models in its own way: that part is not judged"


def parsed(text: str) -> ast.Module:
    """Return the syntax tree of a text.

    Raises:
        SourceError: The text is no valid Python.
    """
    return _tree(text).module


def _tree(text: str) -> Tree:
    try:
        return tree_of(text)
    except SyntaxError as error:
        raise SourceError(f"is not valid Python: {error.msg}", error.lineno) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise SourceError(f"is not usable Python: {type(error).__name__}") from error


def _imports(module: ast.Module) -> Iterable[tuple[str, str]]:
    for statement in module.body:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield (alias.name, alias.asname or alias.name)
        elif isinstance(statement, ast.ImportFrom) and not statement.level:
            for alias in statement.names:
                yield (f"{statement.module}.{alias.name}", alias.asname or alias.name)


def _mentions(text: str, module: ast.Module) -> Iterable[LaunchSign]:
    """Yield the signs of a distributed launch in the code.

    Comments and docstrings are not searched: they may describe other scripts.
    """
    if _DISTRIBUTED.search(text) is None:
        return
    for statement in module.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            continue
        if _refuses_ranks(statement):
            return  # the script ends under a launcher, so no sign in it tells of several processes
        apart = isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        within = (statement.lineno, statement.end_lineno or statement.lineno) if apart else None
        for node in walk(statement):
            what = _sign(node)
            if what:
                yield LaunchSign(what, getattr(node, "lineno", statement.lineno), within)


def _refuses_ranks(statement: ast.stmt) -> bool:
    """Return whether a statement ends the script if a launcher has started it, as its environment shows."""
    if isinstance(statement, ast.Assert):
        return _tells_ranks(statement.test) is False
    if isinstance(statement, ast.If) and statement.body and _ends(statement.body[-1]):
        return _tells_ranks(statement.test) is True
    return False


def _ends(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    name = call.func if isinstance(call, ast.Call) else None
    last = name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else ""
    return isinstance(statement, ast.Raise) or last in ("exit", "quit", "_exit")


def _tells_ranks(test: ast.expr) -> bool | None:
    """Return whether a condition holds for several processes, False if it holds for one, None if it is about something else."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        held = _tells_ranks(test.operand)
        return None if held is None else not held
    if not any(isinstance(node, ast.Constant) and node.value in _RANKS for node in ast.walk(test)):
        return None
    if not isinstance(test, ast.Compare):
        return True if isinstance(test, ast.Call) else None  # os.environ.get("LOCAL_RANK")
    other = test.comparators[0]
    value = other.value if isinstance(other, ast.Constant) else ...
    match test.ops[0]:
        case ast.In():
            return True
        case ast.NotIn():
            return False
        case ast.Is() | ast.Eq() if value in (None, 1, "1"):
            return False
        case ast.IsNot() | ast.NotEq() | ast.Gt() if value in (None, 1, "1"):
            return True
        case _:
            return None


def _sign(node: ast.AST) -> str:
    """Return the name of a sign of a distributed launch; empty if the node is none."""
    if isinstance(node, ast.Constant):
        return node.value if node.value in _RANKS and isinstance(node.value, str) else ""
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    if name in ("init_process_group", "DistributedDataParallel", "DDP"):
        return name
    return node.arg or "" if isinstance(node, ast.keyword) and node.arg in _ARGUMENTS else ""
