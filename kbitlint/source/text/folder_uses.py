"""Adapters by their names, and folders by what a script has saved in them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.text.bindings import is_open, keyword, last

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings

_MAKERS = frozenset(("peft.get_peft_model", "peft.PeftModel.from_pretrained", "peft.AutoPeftModelForCausalLM.from_pretrained"))
#: method -> the place of an adapter's name among its arguments
_ADDS = {"load_adapter": 1, "add_adapter": 0, "add_weighted_adapter": 2}
_ASKS = frozenset(("set_adapter", "delete_adapter"))
#: ways to combine adapters that need one rank; ``peft/tuners/lora/model.py``, ``_check_add_weighted_adapter``
_ONE_RANK = frozenset(("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune"))
#: calls that leave a folder as it is
_LEAVE = frozenset(("from_pretrained", "print", "makedirs", "mkdir", "join", "info", "exists", "isdir", "format"))
_ADAPTER_LOADS = ("PeftModel", "AutoPeftModelForCausalLM", "PeftConfig", "PeftModelForCausalLM", "AutoPeftModel")
#: words of code that may write a folder in other ways
_OTHERS = ("shutil", "subprocess", "os.system", "snapshot_download", "unsloth", "copytree", "setattr(")


def folder_uses(names: Bindings, text: str) -> Iterator[DataUse]:
    """Yield adapters that are asked for and not there, and folders that hold something else than is loaded."""
    if "peft" in text:
        yield from _named(names)
        yield from _ranks(names)
    if any(one in text for one in _OTHERS):
        return
    if "from_pretrained" in text and "save_pretrained" in text:
        yield from _reloaded(names)
    if "torch.save" in text and "weights_only" not in text and "add_safe_globals" not in text:
        yield from _pickled(names)
    if "load_state" in text and "Accelerator" in text:
        yield from _early(names)


def _given(names: Bindings, call: ast.Call, place: int, name: str) -> ast.AST | None:
    """Return what an argument holds, by its place or name; a constant None if the call does not pass it."""
    given = keyword(call, name) or (call.args[place] if len(call.args) > place else None)
    return ast.Constant(value=None) if given is None else names.value(given)[0]


def _adapters(names: Bindings) -> dict[str, ast.Call] | None:
    """Return the calls that give the file's models adapters, by their names; None if one is not certain."""
    found: dict[str, ast.Call] = {}
    for call in names.calls:
        maker, method = names.full(call.func) in _MAKERS, last(call)
        if not maker and (method not in _ADDS or not isinstance(call.func, ast.Attribute)):
            if method in ("rename_adapter", "inject_adapter_in_model", "from_pretrained") and "Peft" in ast.unparse(call.func):
                return None
            continue
        value = _given(names, call, 2 if maker else _ADDS[method], "adapter_name")
        if is_open(call) or not isinstance(value, ast.Constant):
            return None
        found[str(value.value or "default")] = call
    return found


def _named(names: Bindings) -> Iterator[DataUse]:
    """Yield each call that asks for an adapter by a name that none has."""
    have = _adapters(names)
    for call in names.calls if have else ():
        made, _ = names.value(call.func.value) if isinstance(call.func, ast.Attribute) and last(call) in _ASKS else (None, 0)
        if not isinstance(made, ast.Call) or names.full(made.func) not in _MAKERS:
            continue
        asked = _given(names, call, 0, "adapter_name")
        if isinstance(asked, ast.Constant) and isinstance(asked.value, str) and have and asked.value not in have:
            yield DataUse("adapter unknown", call.lineno, asked.value)


def _ranks(names: Bindings) -> Iterator[DataUse]:
    """Yield each combination of adapters of different ranks that needs one rank."""
    for call in names.calls:
        if last(call) != "add_weighted_adapter":
            continue
        way, listed, have = _given(names, call, 3, "combination_type"), _given(names, call, 0, "adapters"), _adapters(names)
        if not isinstance(way, ast.Constant) or way.value not in _ONE_RANK or not isinstance(listed, ast.List) or have is None:
            continue
        ranks = set()
        for one in listed.elts:
            made = have.get(str(one.value)) if isinstance(one, ast.Constant) else None
            config = names.value(made.args[1])[0] if made is not None and len(made.args) > 1 else None
            rank = (
                names.value(keyword(config, "r"))[0]
                if isinstance(config, ast.Call) and keyword(config, "r") is not None
                else None
            )
            ranks.add(rank.value if isinstance(rank, ast.Constant) else None)
        if len(ranks) > 1 and None not in ranks:
            yield DataUse("ranks that differ", call.lineno)


def _place(names: Bindings, node: ast.expr | None) -> str:
    """Return the folder that an expression names, as text."""
    value, _ = names.value(node)
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value.removeprefix("./").rstrip("/")
    return ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""


def _reloaded(names: Bindings) -> Iterator[DataUse]:
    """Yield each load from a folder that holds something else."""
    for call in names.calls:
        if last(call) != "from_pretrained" or not isinstance(call.func, ast.Attribute) or id(call) in names.uncertain:
            continue
        kind = ast.unparse(call.func.value).rpartition(".")[2]
        adapters = kind in _ADAPTER_LOADS
        if not adapters and not kind.startswith(("AutoTokenizer", "AutoProcessor")):
            continue
        at = 1 if kind in ("PeftModel", "PeftModelForCausalLM") else 0
        given = call.args[at] if len(call.args) > at else keyword(call, "model_id")
        folder = _place(names, given)
        saves = _saves(names, folder, call) if folder and keyword(call, "subfolder") is None and not is_open(call) else None
        if not saves:
            continue
        if not adapters:
            yield DataUse("tokenizer not saved", call.lineno, folder)
        elif all(_is_merged(names, one) for one in saves):
            yield DataUse("adapter of a merged model", call.lineno, folder)


def _saves(names: Bindings, folder: str, load: ast.Call) -> list[ast.Call] | None:
    """Return the calls by which models are saved in a folder before a load; None if something else may write there."""
    found: list[ast.Call] = []
    for call in names.calls:
        given = [*call.args, *(one.value for one in call.keywords)]
        if call is load or not any(
            _place(names, one) == folder for one in given if isinstance(one, (ast.Constant, ast.Name, ast.Attribute))
        ):
            continue
        if last(call) == "save_pretrained" and isinstance(call.func, ast.Attribute) and call.lineno < load.lineno:
            owner, _ = names.value(call.func.value)
            if not isinstance(owner, ast.Call) or not _is_model(owner):
                return None
            found.append(call)
        elif last(call) not in _LEAVE:
            return None
    return found


def _is_model(made: ast.Call) -> bool:
    """Return whether a call certainly makes a model."""
    if last(made) in ("merge_and_unload", "get_peft_model", "unload"):
        return True
    owner = made.func.value if isinstance(made.func, ast.Attribute) else None
    return last(made) == "from_pretrained" and owner is not None and "Model" in ast.unparse(owner)


def _is_merged(names: Bindings, save: ast.Call) -> bool:
    made, _ = names.value(save.func.value) if isinstance(save.func, ast.Attribute) else (None, 0)
    return isinstance(made, ast.Call) and last(made) == "merge_and_unload"


def _pickled(names: Bindings) -> Iterator[DataUse]:
    """Yield each ``torch.load`` of a file in which the script has saved a whole model."""
    whole = {
        _place(names, call.args[1])
        for call in names.calls
        if names.full(call.func) == "torch.save" and len(call.args) > 1 and isinstance(call.args[0], ast.Name)
        and isinstance(made := names.value(call.args[0])[0], ast.Call) and _is_model(made)
    }  # fmt: skip
    for call in names.calls:
        path = _place(names, call.args[0]) if names.full(call.func) == "torch.load" and call.args else ""
        if path and path in whole:
            yield DataUse("model pickled", call.lineno, path)


def _early(names: Bindings) -> Iterator[DataUse]:
    """Yield each ``load_state`` of an Accelerator that comes before everything is prepared."""
    prepared = [call.lineno for call in names.calls if last(call) in ("prepare", "prepare_model")]
    for call in names.calls:
        made, _ = (
            names.value(call.func.value) if isinstance(call.func, ast.Attribute) and last(call) == "load_state" else (None, 0)
        )
        if isinstance(made, ast.Call) and last(made) == "Accelerator" and prepared and call.lineno < min(prepared):
            yield DataUse("state loaded before prepare", call.lineno)
