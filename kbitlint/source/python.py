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
from kbitlint.source.offsets import Text, has_more_tokens, import_place
from kbitlint.source.text.launch_signs import launch_signs
from kbitlint.source.text.own_loops import own_loops
from kbitlint.source.text.scoped_names import unless_deep
from kbitlint.upstream.calls import UNJUDGED
from kbitlint.upstream.versions import installed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path as FilePath

    from kbitlint.facts.data_flow import DataUse
    from kbitlint.facts.object_faults import ObjectFault
    from kbitlint.facts.own_loops import LoopFault, OwnLoop
    from kbitlint.facts.own_modules import FileUse, Head, RefusedCall, StateUse
    from kbitlint.facts.values import Call
    from kbitlint.source.interpreter.relevance import Tree
    from kbitlint.source.launches import Launch

_BITS = re.compile(r"[48][-_ ]?bits?\b|quantiz|qlora|\bnf4\b|\bint[48]\b", re.IGNORECASE)
#: what a script contains that makes data for a training, or folders of one
_DATA = ("dataset", ".map(", '"labels"', "labels=", "save_pretrained(", "set_adapter(", "load_state(", "torch.save(")
#: signs of a class or function that a Trainer calls
_CALLED_BACK = ("Trainer)", "Callback)", "collator=", "compute_loss_func=", "metrics=", "formatting_func=", "reward_funcs=")
#: signs of a class that extends a trainer, its arguments or its config
_EXTENDED = ("Trainer)", "Arguments)", "Config)")
#: signs of a script that does by hand what ``by_hand`` reads
_BY_HAND = (
    "latent_dist",
    "setattr(",
    "type=bool",
    "train_on_responses_only",
    "CompletionOnlyLM",
    "get_peft_config(",
    "modules_to_save=",
)
#: signs of a script whose objects are followed
_USES = ("Trainer(", "backward(", "from_pretrained(")


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
        tuple(sorted(launch_signs(text, module), key=lambda mention: mention.line)) + _launcher(launch),
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
        base_calls=_base_calls(module, source, imports),
        own_loops=tuple(_rounds(module, text, imports)),
        loop_faults=_loop_faults(text, module, launch),
        object_faults=_object_faults(text, module, versions, launch),
        processes=launch.processes if launch is not None else None,
    )


def _object_faults(
    text: str, module: ast.Module, versions: Mapping[str, str], launch: Launch | None
) -> tuple[ObjectFault, ...]:
    """Return the uses of objects of the libraries that these do not allow, in a script that trains or loads a model."""
    if not any(one in text for one in _USES):
        return ()
    from kbitlint.source.kinds.flow import Flow  # data and configurations have no such objects
    from kbitlint.source.text.slips import slips  # data and configurations make none

    ranked = launch is not None and (launch.processes or 1) > 1 and not launch.fsdp and launch.zero is None
    flow = Flow(versions, text, ranked=ranked and "deepspeed" not in text)
    found = (*unless_deep(flow.follow(module)), *unless_deep(slips(module, text)))
    if "Trainer(" in text or "collate" in text:
        from kbitlint.source.text.gpu_batches import gpu_batches  # modules of loads have none

        found = (*found, *gpu_batches(module, text))
    if launch is not None and launch.named and "Parser(" in text:
        from kbitlint.source.text.launch_options import refused_options  # few scripts have a launch with options

        found = (*found, *unless_deep(refused_options(module, text, launch, versions)))
    if not any(one in text for one in _BY_HAND):
        return found
    from kbitlint.source.text.by_hand import by_hand  # few scripts do such things themselves

    return (*found, *unless_deep(by_hand(module, text, launch)))


def _rounds(module: ast.Module, text: str, imports: Sequence[tuple[str, str]]) -> Iterator[OwnLoop]:
    """Yield the loops of a file, and the faulty rounds of its own Trainers."""
    if "zero_grad" in text or ".backward(" in text:
        yield from own_loops(module)
    if ("Trainer)" in text or "LightningModule)" in text) and ("def compute_loss" in text or "def training_step" in text):
        from kbitlint.source.text.own_trainers import trainer_rounds  # few scripts have a Trainer of their own

        yield from trainer_rounds(module, imports)


def _loop_faults(text: str, module: ast.Module, launch: Launch | None) -> tuple[LoopFault, ...]:
    """Return what the file's own loops leave out."""
    found: set[LoopFault] = set()
    if "configure_optimizers" in text:
        from kbitlint.source.text.schedule_paces import lightning_paces  # few scripts leave the loop to Lightning

        found |= {*lightning_paces(module)}
    if ".backward(" in text:
        from kbitlint.source.text.loop_faults import loop_faults  # most scripts leave the loop to a Trainer
        from kbitlint.source.text.loop_paces import loop_paces  # as above
        from kbitlint.source.text.sleeping_loops import sleeping_loops  # as above

        paces = loop_paces(module, text, counted=launch is not None and launch.counts)
        found |= {*loop_faults(module, text), *paces, *sleeping_loops(module, text)}
    return tuple(sorted(found, key=lambda fault: fault.line))


def _data_uses(text: str, module: ast.Module) -> tuple[DataUse, ...]:
    """Return the places where data does not fit the code that takes it, in a script that makes the data of a k-bit training."""
    if not any(one in text for one in _DATA) or ("peft" not in text and _BITS.search(text) is None):
        return ()
    from kbitlint.source.text.data_flow import data_uses  # configurations and modules make no data

    return tuple(sorted(set(data_uses(module, text)), key=lambda use: (use.line, use.kind)))


def _own_classes(text: str, module: ast.Module) -> tuple[tuple[Head, ...], tuple[FileUse, ...]]:
    """Return the heads and the uses of files in the classes of a file."""
    beside, touches = "Module)" in text and "self." in text, "Callback)" in text and "pytorch_model" in text
    touches = touches or ("Callback)" in text and "model.safetensors" in text)
    if not beside and not touches:
        return (), ()
    from kbitlint.source.text.own_modules import file_uses, heads  # few scripts have such classes

    return tuple(heads(module)) if beside else (), tuple(file_uses(module)) if touches else ()


def _own_callbacks(text: str, module: ast.Module, imports: tuple[tuple[str, str], ...]) -> tuple[RefusedCall, ...]:
    """Return the functions of a file that a library calls, and whose parameters refuse that call."""
    if "Trainer" not in text or not any(word in text for word in _CALLED_BACK):
        return ()
    from kbitlint.source.text.own_callbacks import refused_calls  # few scripts have such functions

    return tuple(refused_calls(module, imports))


def _state_uses(text: str, module: ast.Module) -> tuple[StateUse, ...]:
    """Return the loads of state dicts that a file saves under other names."""
    if "peft" not in text or not any(name in text for name in ("load_state_dict", "set_peft_model_state_dict")):
        return ()
    from kbitlint.source.text.saved_states import state_uses  # few scripts load state dicts

    return unless_deep(state_uses(module))


def _base_calls(module: ast.Module, source: Text, imports: tuple[tuple[str, str], ...]) -> tuple[Call, ...]:
    """Return the calls of constructors of transformers and TRL through classes of the file."""
    if "class " not in source.text or not any(mark in source.text for mark in _EXTENDED):
        return ()
    from kbitlint.source.text.own_constructors import base_calls  # few scripts have such classes

    return tuple(base_calls(module, source, imports))


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
