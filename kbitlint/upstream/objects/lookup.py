"""Members that an object of a library lacks, and arguments that a function or method does not take, by version.

A row is a text of names. ``name>4.36<5.0`` exists above the first version and below the second one. In between, versions that
were not read count as having it. ``!`` marks a parameter without a default, ``**`` and ``*`` any further ones.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass
from kbitlint.upstream.objects.returns import MODEL, PEFT_MODEL, RANKED, TOKENIZER, TRAINER
from kbitlint.upstream.versions import NEWEST, number

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIBRARIES = ("transformers", "peft", "trl", "datasets", "accelerate", "torch")
#: class -> the classes whose members its objects have as well
_BASES: Mapping[str, tuple[str, ...]] = {
    **{f"trl.{name}Trainer": (TRAINER,) for name in ("SFT", "DPO", "GRPO", "Reward")},
    PEFT_MODEL: ("peft.LoraModel", MODEL, "torch.nn.Module"),
    MODEL: ("torch.nn.Module",),
    **dict.fromkeys(RANKED, ("torch.nn.Module",)),
}
#: classes whose objects have further attributes: modules of the architecture, what a tokenizer's own class adds
_OPEN = frozenset((MODEL, PEFT_MODEL, TOKENIZER, "torch.nn.Module"))
#: names by which other objects, or models of unsloth, are saved, trained and merged, and which no model of transformers has
_OF_OTHERS = (
    "save_pretrained_merged push_to_hub_merged save_pretrained_gguf push_to_hub_gguf print_trainable_parameters "
    "merge_adapter unmerge_adapter get_base_model save_model fit evaluate predict save_state "
    "get_nb_trainable_parameters create_or_update_model_card for_inference for_training"
)
_ELSEWHERE = frozenset(_OF_OTHERS.split())
_PYTHON = {"dict": dict, "list": list, "str": str, "int": int, "float": float, "tuple": tuple, "None": type(None)}
_CLOSE = 0.86


@dataclass(frozen=True, slots=True)
class Lack:
    """What an object lacks, or a function does not take."""

    name: str
    library: str = ""
    until: str = ""
    """The first version without it; empty if no version has it."""
    since: str = ""
    """The last version without it, if a later one has it."""
    meant: str = ""
    """The name that a similar one means; empty if there is none."""


@functools.cache
def _table(library: str, kind: str) -> Mapping[str, str]:
    if library not in _LIBRARIES:
        return {}
    table: Mapping[str, str] = getattr(importlib.import_module(f"kbitlint.upstream.objects.{library}"), kind)
    return table


@functools.cache
def _names(owner: str, kind: str) -> Mapping[str, tuple[str, str, bool]]:
    """Return (last version without, first version without again, whether it is required) of each name of a row."""
    found: dict[str, tuple[str, str, bool]] = {}
    for text in _table(owner.partition(".")[0], kind).get(owner, "").split():
        rest, _, until = text.rstrip("!").partition("<")
        name, _, since = rest.partition(">")
        found[name] = since, until, text.endswith("!")
    return found


@functools.cache
def members(owner: str) -> Mapping[str, tuple[str, str, bool]]:
    """Return the marks of all members of a class, those of its bases included; empty if the class is not known."""
    if owner in _PYTHON:
        return dict.fromkeys(dir(_PYTHON[owner]), ("", "", False))
    own = _names(owner, "MEMBERS")
    if not own:
        return own
    return {**{name: marks for base in _BASES.get(owner, ()) for name, marks in members(base).items()}, **own}


def _missing(name: str, library: str, marks: tuple[str, str, bool] | None, versions: Mapping[str, str]) -> Lack | None:
    if marks is None:
        return Lack(name, library)
    since, until, _ = marks
    have = number(versions.get(library, NEWEST.get(library, ""))) or (10**6,)  # the newest, as far as it is read
    if until and have >= number(until):
        return Lack(name, library, until=until)
    if since and have <= number(since):
        return Lack(name, library, since=since)
    return None


def absent_member(owner: str, name: str, versions: Mapping[str, str], *, called: bool) -> Lack | None:
    """Return what an object of a class lacks; None if it has the attribute, or may have it.

    Args:
        owner: The class, or a kind of Python's own.
        name: The attribute.
        versions: The versions of the libraries.
        called: Whether the attribute is called.
    """
    known = members(owner)
    if not known or name.startswith("_"):
        return None
    lack = _missing(name, owner.partition(".")[0], known.get(name), versions)
    if lack is None or name in known:  # a script for an older version may rely on code around it
        return lack if lack is not None and lack.until and owner not in _OPEN else None
    if owner in _PYTHON:
        return lack
    meant = f"module.{name}" if owner in RANKED else _meant(name, known)
    if owner in _OPEN and not (called and (meant or (owner != TOKENIZER and name in _ELSEWHERE))):
        return None
    return Lack(name, lack.library, meant=meant)


def _meant(name: str, known: Mapping[str, object]) -> str:
    return _closest(name, known, _CLOSE) if len(name) > 5 else ""  # `fit`, `get`


def _closest(name: str, known: Mapping[str, object], cutoff: float) -> str:
    import difflib  # only a name that is not known needs it

    return next(iter(difflib.get_close_matches(name, [*known], 1, cutoff)), "")


def refused_argument(callee: str, name: str, versions: Mapping[str, str]) -> Lack | None:
    """Return the keyword that a function or method does not take; None if it does, or if its parameters are not known."""
    row, library = _names(callee, "CALLS"), callee.partition(".")[0]
    lack = _missing(name, library, row.get(name), versions) if row else None
    if lack is None or ("**" in row and _missing("**", library, row["**"], versions) is None):
        return None
    return lack if lack.until or lack.since else Lack(name, library, meant=_meant(name, row))


def lineage(owner: str) -> tuple[str, ...]:
    """Return the classes whose members an object of a class has as well, the nearest first."""
    return _BASES.get(owner, ())


def meant_option(owner: str, name: str) -> str:
    """Return the option that a similar name means, of a call that drops or refuses others; empty if there is none."""
    known = {**_names(owner, "CALLS"), **_names(owner, "MEMBERS")}
    if name in known or len(name) < 6:  # `inputs` is no misspelt option
        return ""
    return _closest(name, known, 0.8)


def required(callee: str) -> tuple[str, ...]:
    """Return the parameters without a default, in their order."""
    return tuple(name for name, (_, _, needed) in _names(callee, "CALLS").items() if needed)


def parameters(callee: str) -> tuple[str, ...]:
    """Return the parameters of a function or method in their order; empty if they are not known."""
    return tuple(name for name in _names(callee, "CALLS") if not name.startswith("*"))
