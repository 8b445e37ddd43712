"""State dicts that a script saves and loads again, read from the text: where the names of the tensors differ."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.facts.own_modules import StateUse
from kbitlint.lazy_dataclass import dataclass
from kbitlint.source.text.bindings import last
from kbitlint.source.text.scoped_names import Names, name_of, scopes

if TYPE_CHECKING:
    from collections.abc import Iterator

_WRAPPERS = {"compile": "_orig_mod.", "DistributedDataParallel": "module.", "DDP": "module.", "DataParallel": "module."}
_SAVED = ("save", "save_file")
_LOADED = ("load", "load_file")
#: other ways to save a model, after which a path of the command line may name another file
_OTHER_SAVES = ("save_pretrained", "save_model", "save_checkpoint", "save_state", "Trainer")
_RESUMES = ("resume", "checkpoint", "ckpt", "adapter")
_ADAPTER = "adapter"


@dataclass(frozen=True, slots=True)
class _File:
    """The place of a state dict: the path of the file as text, and the key in it."""

    path: str
    key: str = ""
    open: bool = False
    """Whether the path is no constant, such as an option of the command line."""


class _States(Names):
    """The names of one scope, with the models and state dicts that they stand for."""

    outer: _States | None

    def prefix(self, model: ast.expr, line: int) -> str | None:
        """Return what a wrapper puts before the names of a model's tensors; None if it is not known."""
        if isinstance(model, ast.Attribute) and model.attr in ("module", "_orig_mod"):
            return "" if isinstance(model.value, ast.Name) else None
        if isinstance(model, ast.Call):
            return _WRAPPERS.get(last(model), "") if last(model) in (*_WRAPPERS, "get_peft_model", "unwrap_model") else None
        bound = self.bound.get(name_of(model))
        if bound is None:
            return None if self.outer is None else self.outer.prefix(model, 10**9)
        before = [one for one in bound if one[0] < line]
        if not before or any(branch or value is None for _, value, branch in before):
            return None
        found = before[-1][1]
        own = {"get_peft_model", "prepare_model_for_kbit_training", "from_pretrained"}
        if not isinstance(found, ast.Call) or last(found) not in own | _WRAPPERS.keys():
            return None
        if last(found) == "from_pretrained" or not found.args or len(before) == 1:
            return _WRAPPERS.get(last(found), "")
        inner = self.prefix(found.args[0], before[-1][0])
        return None if inner is None else _WRAPPERS.get(last(found), "") + inner

    def made(self, state: ast.expr, line: int) -> str | None:
        """Return how the names of a state dict are made: ``adapter`` or the prefix of a model; None if it is not known."""
        state = self.value(state)
        if isinstance(state, ast.Call) and last(state) == "get_peft_model_state_dict":
            return _ADAPTER if len(state.args) == 1 and not state.keywords else None
        if isinstance(state, ast.Call) and isinstance(state.func, ast.Attribute) and state.func.attr == "state_dict":
            return None if state.args or state.keywords else self.prefix(state.func.value, line)
        if isinstance(state, ast.DictComp) and len(state.generators) == 1:
            one = state.generators[0]
            names, items = one.target, one.iter
            same = isinstance(names, ast.Tuple) and name_of(names.elts[0]) == name_of(state.key) != ""
            if same and isinstance(items, ast.Call) and isinstance(items.func, ast.Attribute) and items.func.attr == "items":
                return self.made(items.func.value, line)
        return None

    def file(self, path: ast.expr, key: str = "") -> _File:
        """Return the place of a state dict in a file that an expression names."""
        value = self.value(path)
        if isinstance(value, ast.Constant):
            return _File(str(value.value), key)
        return _File(ast.unparse(path), key, open=True)

    def loaded(self, state: ast.expr) -> _File | None:
        """Return the place from which a state dict is loaded unchanged; None if it is not known."""
        state, key = self.value(state), ""
        if isinstance(state, ast.Subscript) and isinstance(state.slice, ast.Constant):
            key, state = str(state.slice.value), self.value(state.value)
        if isinstance(state, ast.Call) and last(state) in _LOADED and state.args:
            return self.file(state.args[0], key)
        return None


def state_uses(module: ast.Module) -> Iterator[StateUse]:
    """Yield each load of a state dict whose names are not those of the model."""
    every = scopes(module, _States)
    saved: dict[_File, set[str | None]] = {}
    alone, wrapped = True, 0
    for names in every:
        for call in names.calls:
            wrapped += last(call) in _WRAPPERS
            alone = alone and not last(call).endswith(_OTHER_SAVES)
            if last(call) in _SAVED and len(call.args) > 1:
                for key, state in _parts(call.args[0], names):
                    saved.setdefault(names.file(call.args[1], key), set()).add(names.made(state, call.lineno))
    if not saved:
        return
    kinds = set().union(*saved.values())
    for names in every:
        for call in names.calls:
            place = _state_of(call, names)
            if place is None:
                continue
            resumed = place.open and alone and kinds == {_ADAPTER} and any(word in place.path for word in _RESUMES)
            kind = saved.get(place, {_ADAPTER} if resumed else set())
            made = next(iter(kind)) if len(kind) == 1 else None
            if made is not None and (use := _use(call, names, made, wrapped)):
                yield use


def _parts(state: ast.expr, names: _States) -> list[tuple[str, ast.expr]]:
    """Return the state dicts of what is saved, with their keys."""
    made = names.value(state)
    if isinstance(made, ast.Dict):
        pairs = zip(made.keys, made.values, strict=True)
        return [(str(key.value), value) for key, value in pairs if isinstance(key, ast.Constant)]
    return [("", state)]


def _state_of(call: ast.Call, names: _States) -> _File | None:
    """Return the place of the state dict that a call loads into a model; None if it loads none."""
    if last(call) == "load_state_dict" and isinstance(call.func, ast.Attribute) and call.args:
        return names.loaded(call.args[0])
    if last(call) == "set_peft_model_state_dict" and len(call.args) > 1:
        return names.loaded(call.args[1])
    return None


def _use(call: ast.Call, names: _States, made: str, wrapped: int) -> StateUse | None:
    """Return the load if no name matches; None if one does. ``wrapped`` counts the wrappers of the script."""
    function = last(call)
    if function == "set_peft_model_state_dict":
        own = names.prefix(call.args[0], call.lineno)
        if made in (_ADAPTER, "", own) or (own is None and wrapped > 1):
            return None
        return StateUse(function, call.lineno, made + "base_model", raises=False)
    given = [one.value for one in call.keywords if one.arg == "strict"] or call.args[1:2] or [ast.Constant(value=True)]
    strict = given[0].value if isinstance(given[0], ast.Constant) else None
    model = call.func.value if isinstance(call.func, ast.Attribute) else call.func
    own = names.prefix(model, call.lineno)
    if not isinstance(strict, bool) or (made != _ADAPTER and own in (None, made)):
        return None
    if made == _ADAPTER:
        return StateUse(function, call.lineno, "lora_A.weight", raises=strict)
    return StateUse(function, call.lineno, made + "base_model", raises=strict)
