"""The interface of a model's forward: its arguments, with the shapes and dtypes that the class documents.

transformers documents every argument of a forward in one form: ``labels (`torch.LongTensor` of shape `(batch_size,)`)``.
Signature, annotations and this text together describe a batch for classes that were never seen.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import re
from typing import TYPE_CHECKING, Any

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

#: The start of an argument's documentation.
_ENTRY = re.compile(r"^[ \t]*(\w+) \((.*)\):?[ \t]*$", re.MULTILINE)
#: The end of the arguments.
_RESULT = re.compile(r"^(?:Returns?|Examples?)\b", re.MULTILINE)
_SHAPE = re.compile(r"(?:of|with)(?: the following)? shape[ '\"]*`?([^`\n]*)")
#: A bound that a dimension has in the text, and the further shapes that an argument may have.
_ASIDE = re.compile(r"\([<>=][^)]*\)| or .*")
_LONG = re.compile(r"Long|Int\b|IntTensor|integer", re.IGNORECASE)
_INTEGER_NAMES = re.compile(
    r"_ids?$|_id$|mask|labels?$|positions?$|_thw$|_index$|lengths?$|sizes?$|^langs$|bbox$|freq$|timesteps"
)
#: The annotation of a dictionary of tensors.
_FEATURES = re.compile(
    r"(<class ')?(typing\.)?(dict(\[ *str, *((torch\.)?Tensor|(typing\.)?Any)\b.*)?|.*BatchEncoding|.*BatchFeature)('>)?$",
    re.IGNORECASE,
)
#: Arguments that a training step leaves out: caches, flags of the output, and second forms of another argument.
_LEFT_OUT = frozenset(
    [
        "self",
        "args",
        "kwargs",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "use_cache",
        "past_key_values",
        "cache_position",
        "inputs_embeds",
        "decoder_inputs_embeds",
        "encoder_outputs",
        "head_mask",
        "decoder_head_mask",
        "cross_attn_head_mask",
        "logits_to_keep",
        "return_overflowing_tokens",
        "past_buckets_states",
        "cache",
        "cache_params",
        "mems",
        "state",
        "image_hidden_states",
        "deprecated_arguments",
    ]
)


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a forward."""

    name: str
    required: bool
    kind: str
    """``long``, ``bool`` or ``float`` for a tensor, ``targets`` for a list of dictionaries, ``long list`` or ``float list``
    for a list of tensors, ``features`` for a dictionary of tensors, ``flag`` for a bool, ``other`` for the rest."""
    shape: tuple[str, ...] | None
    """The documented dimensions, such as ``batch_size``. None if the class documents none."""
    text: str
    """The documentation of the argument, with its type."""


def signature_of(base: Any, method: str = "forward") -> inspect.Signature:
    """Return the signature of a model's method. A function in its place that passes on anything has that of the class."""
    found = inspect.signature(getattr(base, method))
    kinds = [one.kind for one in found.parameters.values()]
    if method in vars(base) and kinds == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]:
        return inspect.signature(getattr(type(base), method).__get__(base))
    return found


def interface_of(base: Any, given: Collection[str] = (), method: str = "forward") -> dict[str, Argument]:
    """Return the arguments of a model's forward that a training step may pass, by name.

    Args:
        base: The model, without wrappers.
        given: Arguments that a plan passes. Those that no signature names are entries of another one, or of ``**kwargs``.
        method: The method that a training step calls.
    """
    found = signature_of(base, method).parameters.values()
    texts = _documented(getattr(type(base), method))
    named = {
        parameter.name: _argument(parameter, texts.get(parameter.name, ""))
        for parameter in found
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and (parameter.name not in _LEFT_OUT or parameter.default is parameter.empty)
    }
    further = [name for name in sorted(given) if name not in named and ("." in name or takes_any(base))]
    return named | {name: Argument(name, True, _kind(name.rpartition(".")[2], ""), None, "") for name in further}  # noqa: FBT003  # a row of a table


def several_of(base: Any) -> str | None:
    """Return the name behind ``*`` in the signature of a model's forward, or None if it takes no further positions."""
    return next((one.name for one in signature_of(base).parameters.values() if one.kind is one.VAR_POSITIONAL), None)


def takes_any(base: Any) -> bool:
    """Return whether a model's forward takes any keyword."""
    return any(one.kind is one.VAR_KEYWORD for one in signature_of(base).parameters.values())


@functools.lru_cache(maxsize=256)
def _documented(forward: Callable[..., Any]) -> dict[str, str]:
    """Return the documentation of each argument of a forward: its type in the first line, and its text."""
    text = _RESULT.split(inspect.getdoc(forward) or "")[0]
    found: dict[str, str] = {}
    entries = list(_ENTRY.finditer(text))
    for entry, following in itertools.zip_longest(entries, entries[1:]):
        end = len(text) if following is None else following.start()
        found.setdefault(entry.group(1), f"{entry.group(2)}\n{text[entry.end() : end]}")
    return found


def _argument(parameter: inspect.Parameter, text: str) -> Argument:
    declared = text.partition("\n")[0]
    written = f"{declared} {'' if parameter.annotation is parameter.empty else parameter.annotation}"
    return Argument(
        parameter.name,
        parameter.default is parameter.empty,
        _kind(parameter.name, written),
        _shape(declared) or _shape(text),
        text,
    )


def _kind(name: str, written: str) -> str:
    """Return the kind of an argument from its name, and from its documented type and its annotation."""
    if re.search(r"list\[ *dict", written, re.IGNORECASE):
        return "targets"
    if _FEATURES.match(written.strip()):
        return "features"
    named = _INTEGER_NAMES.search(name) and "Float" not in written and not _of_features(name, written)
    number = "long" if _LONG.search(written) or named else "float"
    if re.search(r"list\[ *(torch\.)?\w*Tensor|Sequence\[", written, re.IGNORECASE):
        return f"{number} list"
    if "BoolTensor" in written:
        return "bool"
    if "tensor" in written.lower() or not written.strip(" -"):
        return number
    return "flag" if "bool" in written else "other"


def is_integer_name(name: str) -> bool:
    """Return whether an argument of this name holds integers in common code."""
    return bool(_INTEGER_NAMES.search(name))


def _of_features(name: str, written: str) -> bool:
    """Return whether labels are numbers: a plain tensor with a dimension behind that of the sequence."""
    return name.endswith("labels") and "LongTensor" not in written and len(_shape(written) or ()) > 2


def _shape(declared: str) -> tuple[str, ...] | None:
    """Return the dimensions in a documented type, or None if it names none."""
    found = _SHAPE.search(declared)
    if found is None:
        return None
    text = _ASIDE.sub("", found.group(1))
    dimensions = [part.strip(" ()[]'\"{}`") for part in text.split(",")]
    return tuple(part for part in dimensions if part and not part.startswith("*optional")) or None
