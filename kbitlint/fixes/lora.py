"""The LoRA that a measurement attaches where a model has no adapters: its text form, and its attachment.

Imports of torch, PEFT and ``kbitlint.model`` are inside functions: audits of scripts and files need none of them.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import field
from typing import TYPE_CHECKING, Any

from kbitlint.errors import KbitlintError, did_you_mean, one_line
from kbitlint.extras import load_peft
from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEYS = ("r", "targets", "alpha", "dropout", "dora", "rslora", "exclude", "ranks", "save", "layers")
_FORMS = "r=RANK, targets=all-linear, targets=q_proj+v_proj, alpha=N, dropout=P, dora, rslora, exclude=NAME+NAME, "
_FORMS += "ranks=PATTERN:RANK+PATTERN:RANK, save=NAME+NAME, layers=FIRST-LAST"
_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA in the terms of PEFT's ``LoraConfig``."""

    rank: int
    targets: str | tuple[str, ...]
    """``all-linear``, names of modules, or a regular expression over whole paths."""
    alpha: int | None = None
    """None for twice the rank. It takes no memory."""
    dropout: float = 0.0
    dora: bool = False
    rslora: bool = False
    exclude: tuple[str, ...] = ()
    ranks: Mapping[str, int] = field(default_factory=dict)
    """``rank_pattern``: pattern -> rank."""
    save: tuple[str, ...] = ()
    """``modules_to_save``: modules that are trained whole, on a copy."""
    layers: tuple[int, ...] = ()
    """``layers_to_transform``; empty for all layers."""

    @property
    def words(self) -> str:
        """Return the LoRA in words: ``LoRA r=16 on all-linear, dropout 0.05, DoRA``."""
        targets = self.targets if isinstance(self.targets, str) else ", ".join(self.targets)
        further = [f"dropout {self.dropout:g}"] * bool(self.dropout) + ["DoRA"] * self.dora + ["rsLoRA"] * self.rslora
        further += [f"without {', '.join(self.exclude)}"] * bool(self.exclude)
        further += [f"r={rank} on {pattern}" for pattern, rank in self.ranks.items()]
        further += [f"{', '.join(self.save)} trained whole"] * bool(self.save)
        further += [f"layers {self.layers[0]} to {self.layers[-1]}"] if self.layers else []
        return ", ".join([f"LoRA r={self.rank} on {targets}", *further])

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of ``LoraConfig``."""
        optional = {
            "exclude_modules": list(self.exclude),
            "rank_pattern": dict(self.ranks),
            "modules_to_save": list(self.save),
            "layers_to_transform": list(self.layers),
        }
        return {
            "r": self.rank,
            "lora_alpha": 2 * self.rank if self.alpha is None else self.alpha,
            "lora_dropout": self.dropout,
            "use_dora": self.dora,
            "use_rslora": self.rslora,
            "target_modules": self.targets if isinstance(self.targets, str) else list(self.targets),
            **{name: value for name, value in optional.items() if value},
        }


def parse_lora(text: str) -> Lora:
    """Return the LoRA of a text like ``r=16,dropout=0.05,targets=q_proj+v_proj``.

    Raises:
        KbitlintError: A key or its value is wrong; the message names it.
    """
    given: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, separator, value = part.partition("=")
        flag = key in ("dora", "rslora") and not separator
        if key not in _KEYS or not (value or flag):
            raise KbitlintError(f"--lora {text}: {part!r} is none of {_FORMS}{did_you_mean(key, _KEYS)}")
        given[key] = value or "yes"
    targets = given.get("targets", "all-linear")
    whole = targets == "all-linear" or not all(_NAME.fullmatch(name) for name in targets.split("+"))
    alpha = given.get("alpha")
    return Lora(
        rank=_positive(text, "r", given.get("r", "16")),
        targets=_pattern(text, "targets", targets) if whole else tuple(targets.split("+")),
        alpha=None if alpha is None else _positive(text, "alpha", alpha),
        dropout=_share(text, given.get("dropout", "0")),
        dora=_switch(text, "dora", given),
        rslora=_switch(text, "rslora", given),
        exclude=_names(given, "exclude"),
        ranks=_ranks(text, _names(given, "ranks")),
        save=_names(given, "save"),
        layers=_range(text, given["layers"]) if "layers" in given else (),
    )


def _names(given: Mapping[str, str], key: str) -> tuple[str, ...]:
    return tuple(filter(None, given.get(key, "").split("+")))


def _positive(text: str, key: str, value: str) -> int:
    if not value.isdecimal() or not int(value):
        raise KbitlintError(f"--lora {text}: {key} must be a positive number, not {value!r}")
    return int(value)


def _share(text: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise KbitlintError(f"--lora {text}: dropout must be from 0 to below 1, not {value!r}")
    return share


def _switch(text: str, key: str, given: Mapping[str, str]) -> bool:
    value = given.get(key, "no").lower()
    if value not in ("yes", "no", "true", "false"):
        raise KbitlintError(f"--lora {text}: {key} is yes or no, not {given[key]!r}")
    return value in ("yes", "true")


def _pattern(text: str, key: str, value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise KbitlintError(f"--lora {text}: {key} is no regular expression: {error}") from error
    return value


def _ranks(text: str, parts: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for part in parts:
        pattern, _, rank = part.rpartition(":")
        found[_pattern(text, "ranks", pattern)] = _positive(text, f"the rank of {pattern or part!r}", rank)
    return found


def _range(text: str, value: str) -> tuple[int, ...]:
    found = re.fullmatch(r"(\d+)-(\d+)", value)
    if not found or int(found[1]) > int(found[2]):
        raise KbitlintError(f"--lora {text}: layers must be like 0-15, not {value!r}")
    return tuple(range(int(found[1]), int(found[2]) + 1))


def attached(twin: Any, lora: Lora) -> Any:
    """Attach a LoRA to a twin, without weights, and return the PEFT model.

    Raises:
        KbitlintError: PEFT refuses.
    """
    peft = load_peft("--lora")
    import torch  # audits of scripts import this module

    from kbitlint.model.build.packed_weights import unpackable

    try:
        with torch.device("meta"), unpackable(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # PEFT warns of patterns that it made itself
            return peft.get_peft_model(twin, peft.LoraConfig(**lora.arguments()))
    except Exception as error:
        why = "no layer is linear but the head" if "No `target_modules` passed" in str(error) else one_line(error).rstrip(".")
        instead = "name layers with --lora targets=NAME+NAME, or attach none with --lora none"
        raise KbitlintError(f"--lora: PEFT cannot attach it: {why}; {instead}") from error
