"""Known properties of values: truth, equality, membership, and attributes of models."""

from __future__ import annotations

from kbitlint.facts.values import TEXT, UNKNOWN, Symbol
from kbitlint.source.interpreter.objects import (
    Class,
    Constant,
    Function,
    Object,
    Output,
    Parameters,
    Record,
    Sequence,
    Submodule,
    TrackedModel,
    Trainer,
)

#: Attributes that every model of transformers has.
_ALWAYS = (
    "config",
    "parameters",
    "enable_input_require_grads",
    "gradient_checkpointing_enable",
    "get_input_embeddings",
    "save_pretrained",
    "generate",
)
#: characters of the longest text that is followed
_LONGEST = 4096
#: parts of a text that are joined, and characters of the longest word that replaces another one
_MOST_PARTS = 160
#: Attributes of a model that are not its modules.
_NO_PART = ("config", "generation_config", "device", "dtype", "hf_device_map", "name_or_path", "training", "peft_type")


def attribute_of(net: TrackedModel, name: str) -> Object:
    """Return an attribute of a model: a value that loading sets, a module of the model, or UNKNOWN."""
    state = net.state
    known = state.load is not None and (state.method is None or state.kbit)
    if name in ("is_loaded_in_4bit", "is_loaded_in_8bit"):
        if state.unpacked is not None:
            return Constant(state.unpacked == int(name[-4])) if isinstance(state.unpacked, int) else UNKNOWN
        exact = known and (state.method != "bitsandbytes" or isinstance(state.bits, int))
        return Constant(state.method == "bitsandbytes" and state.bits == int(name[-4])) if exact else UNKNOWN
    if name == "is_quantized":
        return Constant(state.kbit) if known else UNKNOWN
    return UNKNOWN if name in _NO_PART or name.startswith(("is_", "_", "quantization")) else Submodule(net)


def has_attribute(net: TrackedModel, name: str) -> bool | None:
    """Return whether a model has an attribute; None if the file does not decide it."""
    if name in ("peft_config", "print_trainable_parameters", "merge_and_unload"):
        if net.state.adapters is not None:
            return None if net.state.adapters.by.callee == "add_adapter" else True
        return False if net.state.load is not None and net.state.certain else None
    if name in ("is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized"):
        value = attribute_of(net, name)
        return value.value is True if isinstance(value, Constant) else None
    return True if name in _ALWAYS else None


def truth_value(value: Object) -> bool | None:
    """Return whether a value is truthy; None if the file does not decide it."""
    if isinstance(value, Constant):
        return bool(value.value)
    if isinstance(value, Record):
        return bool(value.items) if value.callee == "dict" and (value.items or value.complete) else True
    if isinstance(value, Sequence):
        return bool(value.values)
    return True if isinstance(value, (TrackedModel, Trainer, Function, Class, Output, Parameters)) else None


def equal(left: Object, right: Object) -> bool | None:
    """Return whether two values are equal; None if the file does not decide it."""
    if isinstance(left, Constant) and isinstance(right, Constant):
        return (type(left.value) is type(right.value) and left.value == right.value) or (
            left.value == right.value and isinstance(left.value, (int, float)) and isinstance(right.value, (int, float))
        )
    if isinstance(left, Symbol) and isinstance(right, Symbol):
        return True if left == right != TEXT else None
    none = Constant(None)
    for one, other in ((left, right), (right, left)):
        if one == none and isinstance(other, (Record, TrackedModel, Sequence, Trainer, Function, Class, Output, Parameters)):
            return False
    return None


def contains(left: Object, right: Object) -> bool | None:
    """Return whether the right value contains the left one; None if the file does not decide it."""
    if isinstance(left, Constant) and isinstance(right, Record) and isinstance(left.value, str):
        return True if left.value in right.items else False if right.complete else None
    if isinstance(left, Constant) and isinstance(right, Sequence) and all(isinstance(item, Constant) for item in right.values):
        return left in right.values
    if (
        isinstance(left, Constant)
        and isinstance(right, Constant)
        and isinstance(left.value, str)
        and isinstance(right.value, str)
    ):
        return left.value in right.value
    return None


def text_method(owner: Constant, name: str, given: Object) -> Object:
    """Return what a method of a text returns: ``startswith``, ``endswith`` or ``lower``."""
    text = str(owner.value)
    if name == "lower":
        return Constant(text.lower(), owner.flag)
    ends = given.values if isinstance(given, Sequence) else [given]
    known = [end.value for end in ends if isinstance(end, Constant) and isinstance(end.value, str)]
    if len(known) < len(ends):
        return UNKNOWN
    return Constant(text.startswith(tuple(known)) if name == "startswith" else text.endswith(tuple(known)), owner.flag)


def held_by(owner: Record) -> list[TrackedModel]:
    """Return the models that an object holds directly or through other objects."""
    found: list[TrackedModel] = []
    todo, seen = [owner], {id(owner)}
    while todo:
        for given in todo.pop().items.values():
            if isinstance(given.value, TrackedModel) and given.value not in found:
                found.append(given.value)
            elif isinstance(given.value, Record) and id(given.value) not in seen:
                seen.add(id(given.value))
                todo.append(given.value)
    return found


def text_value(owner: Constant, name: str, arguments: Record) -> Object | None:
    """Return what a method of a text returns; None if the method is not known, or its arguments are not."""
    given = [one.value for one in arguments.items.values()]
    values = [one.value for one in given if isinstance(one, Constant)]
    text = str(owner.value)
    if name == "join" and len(given) == 1 and isinstance(given[0], Sequence) and len(given[0].values) <= _MOST_PARTS:
        parts = [part for part in given[0].values if isinstance(part, Constant) and isinstance(part.value, str)]
        marked = next((part for part in parts if part.flag), owner)
        return _text(text.join(str(part.value) for part in parts), marked) if len(parts) == len(given[0].values) else None
    words = [value for value in values if isinstance(value, str) and len(value) <= _MOST_PARTS]
    if len(words) != len(given) or len(text) > _LONGEST:
        return None
    if name in ("upper", "strip", "lstrip", "rstrip", "title", "capitalize") and len(words) <= 1:
        return _text(getattr(text, name)(*(words if name.endswith("strip") else ())), owner)
    if name == "replace" and len(words) == 2:
        return _text(text.replace(words[0], words[1]), owner)
    if name == "split" and len(words) <= 1 and "" not in words and len(text) <= _LONGEST // 4:
        return Sequence([Constant(part, owner.flag) for part in text.split(words[0] if words else None)])
    return None


def _text(text: str, owner: Constant) -> Object | None:
    return Constant(text, owner.flag) if len(text) <= _LONGEST else None
