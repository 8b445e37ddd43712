"""What a script does by hand and leaves incomplete: latents, replaced layers, flags of a command line, marks of a template."""

from __future__ import annotations

import ast
import dataclasses
from typing import TYPE_CHECKING

from kbitlint.facts.object_faults import ObjectFault
from kbitlint.source.nodes import last_name, line_offset, walk
from kbitlint.upstream.special_tokens import template_of_marks, template_of_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kbitlint.source.launches import Launch

    _Found = tuple[str, str, int, str]
    """The kind of fault, the name, the line and a detail."""

_SCALES = ("scaling_factor", "0.18215", "0.13025", "scale_factor", "shift_factor", "latents_mean", "normalize_latents")
_COPIES = (".weight", "Params4bit", "Int8Params", "load_state_dict", "copy_(", "_parameters")
_LAYERS = ("Linear4bit", "Linear8bitLt", "LinearNF4", "LinearFP4")
_NO = ("false", "no", "0", "off", "f", "n")
_MARKED = ("train_on_responses_only", "DataCollatorForCompletionOnlyLM")


def by_hand(module: ast.Module, text: str, launch: Launch | None) -> Iterator[ObjectFault]:
    """Yield what a script leaves incomplete.

    Args:
        module: Its syntax tree.
        text: Its text.
        launch: The command that launches it; None if no command is known.
    """
    flags = launch.flags if launch is not None else {}
    calls = [node for node in walk(module) if isinstance(node, ast.Call)]
    for kind, name, line, detail in (
        *_latents(calls, text),
        *_replaced(module, text),
        *_flags(calls, text, flags),
        *_unfound(calls),
        *_unwritten(module, calls),
        *(_unasked(calls, text, launch) if launch is not None else ()),
        *(_copies(module, calls) if "modules_to_save=" in text else ()),
    ):
        yield _at_launch(ObjectFault(kind, "", name, line, line_offset(text, line), detail=detail), launch)


def _latents(calls: list[ast.Call], text: str) -> Iterator[_Found]:
    """Yield each encoding of an autoencoder in a training of a denoiser that names no scale."""
    if "latent_dist" in text and "add_noise(" in text and "mse_loss" in text and not any(one in text for one in _SCALES):
        for call in calls:
            if "latent_dist" in ast.unparse(call.func) and last_name(call.func) in ("sample", "mode"):
                yield "latents", "vae.encode", call.lineno, ""


def _replaced(module: ast.Module, text: str) -> Iterator[_Found]:
    """Yield the first new layer that takes the place of another one without its weights."""
    if "setattr(" in text and any(one in text for one in _LAYERS):
        for node in walk(module):
            if isinstance(node, (ast.FunctionDef, ast.For)) and (made := _random_layer(node)) is not None:
                yield "replaced", last_name(made.func), made.lineno, ""
                return


def _flags(calls: list[ast.Call], text: str, flags: Mapping[str, object]) -> Iterator[_Found]:
    """Yield each option that takes any text for true, and is passed one that means no."""
    if not flags or "type=bool" not in text:
        return
    for call in calls:
        names = [_text(one).lstrip("-") for one in call.args if _text(one)]
        typed = any(one.arg == "type" and ast.unparse(one.value) == "bool" for one in call.keywords)
        passed = str(getattr(flags.get(names[0]), "value", "")) if names else ""
        if last_name(call.func) == "add_argument" and typed and passed.lower() in _NO:
            yield "flag", f"--{names[0]}", call.lineno, passed


def _random_layer(node: ast.FunctionDef | ast.For) -> ast.Call | None:
    """Return the call that makes the layer which takes the place of another one without its weights; None if none does."""
    code = ast.unparse(node)
    if "setattr(" not in code or any(one in code for one in _COPIES):
        return None
    made = (one for one in walk(node) if isinstance(one, ast.Call) and last_name(one.func) in _LAYERS)
    return next(made, None)


def _unfound(calls: list[ast.Call]) -> Iterator[_Found]:
    """Yield each call whose marks before turns the template of the texts does not have."""
    if not any(last_name(one.func) in _MARKED for one in calls):
        return
    loads = [one for one in calls if last_name(one.func) == "from_pretrained"]
    names = [_text(one.args[0] if one.args else _keyword(one, "model_name")) for one in loads]
    chosen = [_text(_keyword(one, "chat_template")) for one in calls if last_name(one.func) == "get_chat_template"]
    loaded = {template_of_name(name) for name in names if name}
    own = template_of_name(chosen[0]) if len(chosen) == 1 else loaded.pop() if len(loaded) == 1 and not chosen else ""
    for call in calls:
        if last_name(call.func) not in _MARKED or not own:
            continue
        marks = [_text(one) for one in (*call.args, *(word.value for word in call.keywords))]
        kinds = {kind for mark in marks if mark and (kind := template_of_marks(mark))}
        if len(kinds) == 1 and own not in kinds:
            yield "marks", own, call.lineno, kinds.pop()


def _unwritten(module: ast.Module, calls: list[ast.Call]) -> Iterator[_Found]:
    """Yield each mark of answers that no text of a script holds, whose texts a function of the script makes."""
    makers = [_keyword(one, "formatting_func") for one in calls]
    functions = [one.id for one in makers if isinstance(one, ast.Name)]
    made = [one for one in walk(module) if isinstance(one, ast.FunctionDef) and one.name in functions]
    texts = [one.value for one in walk(module) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    for call in calls if len(made) == 1 and len(functions) == 1 else ():
        if last_name(call.func) != "DataCollatorForCompletionOnlyLM":
            continue
        given = _keyword(call, "response_template") or (call.args[0] if call.args else None)
        mark = _text(given) or _bound(module, given)
        others = [one for one in texts if one != mark] + [mark] * (texts.count(mark) - 1)
        written = any(isinstance(one, (ast.JoinedStr, ast.Constant)) for one in walk(made[0]))
        if mark.strip() and written and not any(mark.strip() in one for one in others):
            yield "absent mark", "", call.lineno, mark.strip()


def _bound(module: ast.Module, node: ast.expr | None) -> str:
    """Return the text that a name holds, if the module binds it once; else an empty one."""
    if not isinstance(node, ast.Name):
        return ""
    values = [
        one.value
        for one in walk(module)
        if isinstance(one, ast.Assign) and any(isinstance(to, ast.Name) and to.id == node.id for to in one.targets)
    ]
    return _text(values[0]) if len(values) == 1 else ""


def _unasked(calls: list[ast.Call], text: str, launch: Launch) -> Iterator[_Found]:
    """Yield the adapters that TRL makes of the command line, where the command asks for a packed base alone."""
    bits = next((one for one in ("load_in_4bit", "load_in_8bit") if getattr(launch.flags.get(one), "value", None) is True), "")
    if not bits or launch.cut or "use_peft" in launch.named or "get_peft_model" in text or "use_peft" in text:
        return
    if "get_quantization_config(" in text:
        for call in calls:
            if last_name(call.func) == "get_peft_config":
                yield "unasked", "get_peft_config", call.lineno, f"--{bits}"


def _at_launch(fault: ObjectFault, launch: Launch | None) -> ObjectFault:
    """Return a fault of an option at the place where the launch passes it, if a file beside the script does."""
    if fault.kind != "unasked" or launch is None:
        return fault
    file, line = launch.written().get(fault.detail.lstrip("-"), ("", fault.line))
    return dataclasses.replace(fault, file=file, line=line)


def _copies(module: ast.Module, calls: list[ast.Call]) -> Iterator[_Found]:
    """Yield each module to save whose path a script builds around its name: ``f"layers.{i}.mlp.gate_proj"``."""
    for call in calls:
        given = _keyword(call, "modules_to_save")
        if given is None or isinstance(given, ast.Constant) or not last_name(call.func).endswith("Config"):
            continue
        made = _held(module, given)
        parts = made.elts if isinstance(made, ast.List) else [made.elt] if isinstance(made, ast.ListComp) else []
        for one in parts:
            end = _text(one.values[-1]) if isinstance(one, ast.JoinedStr) else ""
            if "." in end:
                yield "copied", end.rpartition(".")[2], call.lineno, ""


def _held(module: ast.Module, node: ast.expr) -> ast.expr:
    """Return the value of a name that a module binds once, or of the one ``return`` of a function of it that is called."""
    if isinstance(node, ast.Name):
        bound = [one.value for one in walk(module) if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == node.id]
        return bound[0] if len(bound) == 1 else node
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return node
    functions = [one for one in walk(module) if isinstance(one, ast.FunctionDef) and one.name == node.func.id]
    results = [one.value for function in functions for one in walk(function) if isinstance(one, ast.Return)]
    return results[0] if len(functions) == 1 and len(results) == 1 and results[0] is not None else node


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((one.value for one in call.keywords if one.arg == name), None)


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
