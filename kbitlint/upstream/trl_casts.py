"""From which TRL on a trainer casts the adapters of every quantized model, and calls that this TRL refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.upstream.signatures.lookup import refusal
from kbitlint.upstream.trl_versions import BEHAVIORS, behavior
from kbitlint.upstream.versions import declared, number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.values import Call


def cast_since(versions: Mapping[str, str], trainer: Call) -> str:
    """Return the first TRL by which a trainer casts adapters whatever its arguments say, in brackets after a blank.

    Empty if the trainer does not, or if the script declares its TRL.
    """
    if not trainer.callee.startswith("trl.") or "trl" in declared(versions):
        return ""
    if behavior(versions, trainer.callee).casts != "always":
        return ""
    return f" (since trl {min((row.since for row in BEHAVIORS if row.casts == 'always'), key=number)})"


def refused_before(versions: Mapping[str, str], trainer: Call, model: ModelState, arguments: Call | None) -> bool:
    """Return whether the trainer refuses the call itself: a keyword that went, or a ``PeftModel`` beside ``peft_config``."""
    calls = (trainer, arguments) if arguments is not None else (trainer,)
    refused = (refusal(call.callee, one.name, versions) for call in calls for one in call.arguments if not one.name.isdigit())
    went = any(one is not None and one.library == "trl" for one in refused)
    adapters = model.adapters
    second = adapters is not None and adapters.by.span != trainer.span and trainer.value("peft_config") is not None
    return went or (second and behavior(versions, trainer.callee).second == "refused")
