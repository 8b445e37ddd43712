"""Labels that a script makes, read from the text: padding among them, and shifts that the model makes too or does not make."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.data_flow import DataUse
from kbitlint.source.text.bindings import is_constant, items, keyword, last
from kbitlint.upstream.data_contracts import PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.source.text.bindings import Bindings, Def

#: words of code that shifts labels, or whose model does not predict the next token
_SHIFTS = ("shift", "[1:]", ", 1:", ":-1", "roll(", "Masked", "Seq2SeqLM", "SequenceClassification", "TokenClassification")


def label_uses(names: Bindings, text: str) -> Iterator[DataUse]:
    """Yield labels that padding takes part in, and labels that are shifted before the model shifts them."""
    trainers = [call for call in names.calls if names.full(call.func) in PLAIN]
    masks = "-100" in text or "ignore_index" in text or not trainers or not all(keeps_labels(names, one) for one in trainers)
    gives = bool(trainers) or any(keyword(call, "labels") is not None for call in names.calls)
    own = "cross_entropy" in text.lower() or "crossentropy" in text.lower() or "def forward" in text
    shifts = gives and not own and "ForCausalLM" in text
    for function in names.functions if shifts or not masks else ():
        for node in ast.walk(function) if shifts else ():
            given = items(node)
            if "input_ids" in given and "labels" in given:
                ids, labels = _sliced(given["input_ids"]), _sliced(given["labels"])
                if ids[1:] == ("end",) and labels[1:] == ("start",) and ids[0] == labels[0]:
                    yield DataUse("labels shifted", given["labels"].lineno)
        if not masks:
            yield from _padded(names, function)
    if "-100" in text and "DataCollatorForLanguageModeling" in text and trainers:
        yield from _overwritten(names, trainers)
    if "ForCausalLM" in text and not any(one in text for one in _SHIFTS):
        yield from _unshifted(names)


def keeps_labels(names: Bindings, trainer: ast.Call) -> bool:
    """Return whether the collator of a Trainer leaves the labels of the data as they are."""
    given = keyword(trainer, "data_collator")
    made = names.value(given)[0] if isinstance(given, ast.Name) else None
    one = made if isinstance(made, ast.Call) else given
    name = names.full(one.func if isinstance(one, ast.Call) else one) if one is not None else ""
    return name.rpartition(".")[2] in ("", "default_data_collator", "DataCollatorWithPadding", "DataCollatorForSeq2Seq")


def _sliced(node: ast.expr) -> tuple[str, ...]:
    """Return (sequence, end that an expression leaves out): ``x[:-1]`` leaves out the end, ``x[..., 1:]`` the start."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        node = node.func.value  # .clone(), .to(device), .contiguous()
    if not isinstance(node, ast.Subscript):
        return ("",)
    last = node.slice.elts[-1] if isinstance(node.slice, ast.Tuple) else node.slice
    if not isinstance(last, ast.Slice) or last.step is not None:
        return ("",)
    if last.lower is None and isinstance(last.upper, ast.UnaryOp) and is_constant(last.upper.operand, 1):
        return ast.unparse(node.value), "end"
    return (ast.unparse(node.value), "start") if last.upper is None and is_constant(last.lower, 1) else ("",)


def _padded(names: Bindings, function: Def) -> Iterator[DataUse]:
    """Yield the labels of a function that are the tokens of a text padded to a fixed length."""
    for node in ast.walk(function):
        value = label_value(node)
        while isinstance(value, ast.Call) and last(value) in ("copy", "clone", "list", "deepcopy"):
            value = value.args[0] if value.args else value.func.value if isinstance(value.func, ast.Attribute) else None
        if not isinstance(value, (ast.Subscript, ast.Attribute)):
            continue
        tokens = is_constant(value.slice, "input_ids") if isinstance(value, ast.Subscript) else value.attr == "input_ids"
        made, _ = names.value(value.value)
        if tokens and isinstance(made, ast.Call) and is_constant(keyword(made, "padding"), "max_length"):
            yield DataUse("labels of padding", value.lineno)
            return


def label_value(node: ast.AST) -> ast.expr | None:
    """Return the value that a dict, or an assignment to an item, gives to ``labels``; None for other nodes."""
    if isinstance(node, ast.Dict):
        return items(node).get("labels")
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    given = isinstance(target, ast.Subscript) and is_constant(target.slice, "labels")
    return node.value if given and isinstance(node, ast.Assign) else None


def _overwritten(names: Bindings, trainers: list[ast.Call]) -> Iterator[DataUse]:
    """Yield the collator that makes labels of all tokens, where the data has labels of some of them."""
    collators = [names.value(keyword(one, "data_collator"))[0] for one in trainers]
    given = [one for one in collators if isinstance(one, ast.Call) and last(one) == "DataCollatorForLanguageModeling"]
    if len(given) != len(trainers) or not all(is_constant(keyword(one, "mlm"), value=False) for one in given):
        return
    for call in names.calls:
        function = names.function(call.args[0]) if last(call) == "map" and call.args else None
        nodes = [node for one in _reached(names, function) for node in ast.walk(one)]
        masks = any(isinstance(one, ast.UnaryOp) and is_constant(one.operand, 100) for one in nodes)
        if masks and any(label_value(one) is not None for one in nodes):
            yield DataUse("labels overwritten", given[0].lineno)
            return


def _reached(names: Bindings, function: Def | None) -> list[Def]:
    """Return a function and the functions of the file that it calls, directly or through others; empty without one."""
    found = [function] if function is not None else []
    for one in found:  # grows
        called = (names.function(node.func) for node in ast.walk(one) if isinstance(node, ast.Call))
        found += [inner for inner in called if inner is not None and inner not in found]
    return found


def _unshifted(names: Bindings) -> Iterator[DataUse]:
    """Yield each own loss of a decoder that compares the logits of a token with the label of the same token."""
    for function in names.functions:
        logits, labels = _held(function, "logits"), _held(function, "labels")
        for node in ast.walk(function):
            if not isinstance(node, ast.Call) or len(node.args) < 2:  # logits and labels
                continue
            made, _ = names.value(node.func)
            crosses = last(node) == "cross_entropy" or (isinstance(made, ast.Call) and last(made) == "CrossEntropyLoss")
            crosses = crosses or (isinstance(node.func, ast.Call) and last(node.func) == "CrossEntropyLoss")
            if crosses and ast.unparse(_whole(node.args[0])) in logits and ast.unparse(_whole(node.args[1])) in labels:
                yield DataUse("labels unshifted", node.lineno)


def _whole(node: ast.expr) -> ast.expr:
    """Return a tensor without the calls that change its form or dtype: ``logits.view(-1, n).float()``."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr not in (
            "view",
            "reshape",
            "float",
            "flatten",
            "to",
            "contiguous",
            "transpose",
            "permute",
            "long",
            "cuda",
        ):
            break
        node = node.func.value
    return node


def _held(function: Def, what: str) -> set[str]:
    """Return the expressions of a function that are the logits of a model, or the labels of a batch."""
    found = {f"{owner}.{what}" for owner in ("outputs", "output", "out")}
    found |= {f"{owner}['{what}']" for owner in ("inputs", "batch", "outputs", "output", "out")} | {f"batch.{what}"}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            value = _whole(node.value)
            popped = isinstance(value, ast.Call) and last(value) in ("pop", "get") and bool(value.args)
            if (
                ast.unparse(value) in found
                or (isinstance(value, ast.Attribute) and value.attr == what == "logits")
                or (popped and isinstance(value, ast.Call) and is_constant(value.args[0], what))
            ):
                found.add(node.targets[0].id)
    return found
