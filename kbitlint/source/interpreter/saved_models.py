"""Models that a script saves whole and loads again: the folder holds them as they were, quantized if they were."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kbitlint.facts.model_state import CheckpointConfig, ModelState
from kbitlint.facts.source import Action, Step
from kbitlint.facts.values import UNKNOWN, Call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kbitlint.source.interpreter.effort import Effort

#: Number of steps that take as long to look at as one to follow.
_CHEAP = 64


#: configs of adapters whose parameters belong to layers, which keep whether they train, or to the model
_CAST_IN_PLACE = frozenset(
    (
        *("LoraConfig", "OFTConfig", "LNTuningConfig", "TinyLoraConfig", "PsoftConfig", "OSFConfig", "PromptTuningConfig"),
        *("PrefixTuningConfig", "PromptEncoderConfig", "AdaptionPromptConfig", "CPTConfig", "MultitaskPromptTuningConfig"),
    )
)


def loaded_again(call: Call, state: ModelState, steps: Sequence[Step], effort: Effort) -> ModelState:
    """Return the state of a model that ``from_pretrained`` loads from a folder to which the path saved one without adapters.

    Args:
        call: The call that loads.
        state: The state that the call alone tells.
        steps: What the path has done.
        effort: The budget of the path.
    """
    folder = call.value("pretrained_model_name_or_path")
    if not isinstance(folder, str) or state.named is not None or call.value("quantization_config") is not None:
        return state
    effort.spend(len(steps) // _CHEAP)
    saved = [step.before for step in steps if step.action is Action.SAVE and step.detail == folder]
    if not saved or not saved[-1].certain or saved[-1].adapters is not None or saved[-1].load is None:
        return state
    kept = saved[-1]
    return dataclasses.replace(
        state,
        method=kept.method,
        bits=kept.bits,
        quantization=kept.quantization,
        dtype=kept.dtype if state.dtype is UNKNOWN else state.dtype,
        named=kept.named or _config_of(kept),
        unconverted=kept.unconverted,
        rows=kept.rows,
    )


def may_thaw(steps: Sequence[Step], effort: Effort) -> bool:
    """Return whether adapters that are loaded to infer may train: those that the script saved hold parameters of their own.

    PEFT casts these to float32 as new parameters, which require grad (PEFT 0.21, ``cast_adapter_dtype``).
    """
    effort.spend(len(steps) // _CHEAP)
    configs = [step.call.within("peft_config") for step in steps if step.action is Action.ATTACH]
    return any(config is not None and config.callee.rpartition(".")[2] not in _CAST_IN_PLACE for config in configs)


def _config_of(state: ModelState) -> CheckpointConfig | None:
    """Return the config of a model, as far as the name of its checkpoint tells it; None if it does not."""
    from kbitlint.upstream.families import facts_of  # the table of families, for few scripts

    known = facts_of(state.load.value("pretrained_model_name_or_path") if state.load is not None else None)
    if not known.model_type:
        return None
    return CheckpointConfig(known.model_type, known.tied, dtype=known.dtype, vocabulary=known.vocabulary, hidden=known.hidden)
