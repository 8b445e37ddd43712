"""Saves of a script that miss what its run learns: before the training, without one, or none at all."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.nodes import last_name, walk
from kbitlint.source.text.bindings import is_constant, keyword, last
from kbitlint.source.text.placed_calls import assigned

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kbitlint.source.text.bindings import Bindings

#: parts of the names of functions that may save, or hand on, what was trained
_KEEPS = ("save", "push_to_hub", "merge", "upload", "torch.save")
#: calls that save a model or its adapters
_SAVES = (".save_model(", ".save_pretrained(", ".push_to_hub(")
#: attributes of a Trainer by which it may train, or hand its model to a loop
_TRAINS = frozenset(("train", "evaluate", "predict", "hyperparameter_search", "accelerator", "training_step", "optimizer"))


def run_saves(
    names: Bindings, trainer: ast.Call, args: ast.Call | None, methods: Sequence[ast.Call], text: str
) -> Iterator[DataUse]:
    """Yield the saves before the only training of a Trainer that writes no checkpoints, or that training if nothing saves.

    Args:
        names: The bindings of the file.
        trainer: The call that makes the Trainer.
        args: The call that makes its arguments; None if it is not certain.
        methods: The calls of the Trainer's methods.
        text: The file's text.
    """
    trains = [one for one in methods if last(one) == "train"]
    if args is None or len(trains) != 1 or not is_constant(keyword(args, "save_strategy"), "no"):
        return
    if "callbacks" not in text and "get_peft_model" in text:
        yield from _saved_first(names, trainer, trains[0], methods)
    if "allback" not in text:
        yield from _never_saved(trainer, trains[0], text)


def _saved_first(names: Bindings, trainer: ast.Call, train: ast.Call, methods: Sequence[ast.Call]) -> Iterator[DataUse]:
    """Yield a save of adapters before the only training of a script that saves nothing after it."""
    model = keyword(trainer, "model") or (trainer.args[0] if trainer.args else None)
    if any(one.lineno > train.lineno and any(part in ast.unparse(one.func) for part in _KEEPS) for one in names.calls):
        return
    for call in names.calls:
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        same = isinstance(owner, ast.Name) and isinstance(model, ast.Name) and owner.id == model.id
        own = (last(call) == "save_pretrained" and same) or (last(call) == "save_model" and call in methods)
        if own and call.lineno < train.lineno and id(call) not in names.uncertain:
            yield DataUse("saved before training", call.lineno, ast.unparse(call.func))


def _never_saved(trainer: ast.Call, train: ast.Call, text: str) -> Iterator[DataUse]:
    """Yield the last call of a script that trains, saves no checkpoint, and uses or stores nothing of it."""
    line, owner = train.lineno, train.func.value if isinstance(train.func, ast.Attribute) else None
    held = [one.id for one in (owner, keyword(trainer, "model")) if isinstance(one, ast.Name)]
    after = "\n".join(text.split("\n")[line:])
    alone = train.col_offset == 0 and not any(name in after for name in held)
    kept = any(part in text for part in (".save", "push_to_hub", "import_module", "%run"))
    if alone and len(held) == 2 and not kept:  # both known
        yield DataUse("nothing saved", line)


def untrained(module: ast.Module, text: str) -> Iterator[DataUse]:
    """Yield each Trainer of a script that saves its model, and in which nothing trains."""
    if "train(" in text or ".backward(" in text or "train_loop" in text or not any(one in text for one in _SAVES):
        return
    for name, found in assigned(module).items():
        if len(found) != 1 or not isinstance(found[0], ast.Call) or not name.isidentifier():
            continue
        if not last_name(found[0].func).endswith("Trainer") or ".train" in text.replace(f"{name}.train_dataset", ""):
            continue
        uses = [node for node in walk(module) if isinstance(node, ast.Name) and node.id == name]
        owned = [node.attr for node in walk(module) if isinstance(node, ast.Attribute) and node.value in uses]
        if len(uses) == len(owned) + 1 and not _TRAINS & set(owned):  # one use is the assignment
            yield DataUse("never trained", found[0].lineno, name)
