"""The model that unsloth loads, and what its ``get_peft_model`` does, as states.

Source: unsloth 2026.10, ``models/loader.py`` and ``models/llama.py``. Its checkpointing and kernels are its own code.
"""

from __future__ import annotations

import dataclasses

from kbitlint.facts.model_state import Adapters, CheckpointingState, ModelState
from kbitlint.facts.values import UNKNOWN, Call, Value
from kbitlint.upstream.families import family_of
from kbitlint.upstream.hub_names import stored_quantized

#: the positional parameters of ``FastLanguageModel.from_pretrained``
PARAMETERS = ("model_name", "max_seq_length", "dtype", "load_in_4bit", "load_in_8bit")


def is_unsloth(state: ModelState) -> bool:
    """Return whether unsloth loaded a model."""
    return state.load is not None and state.load.callee.startswith("unsloth.")


def loaded(call: Call) -> ModelState:
    """Return the state of the model that ``from_pretrained`` of unsloth returns; it loads in 4 bits by default.

    A folder of adapters, which it loads with their base and trains further, is told by its files alone. So what is known of a
    model is certain only under the name of a known family.
    """
    method, bits = _quantization(call)
    name = call.value("model_name", UNKNOWN)
    dtype = call.dtype("dtype", UNKNOWN)
    return ModelState(
        call,
        method,
        bits,
        dtype=UNKNOWN if dtype is None else dtype,
        checkpointing=CheckpointingState(None),
        training_mode=None,
        certain=isinstance(name, str) and family_of(name) is not None,
    )


def _quantization(call: Call) -> tuple[Value, Value]:
    """Return the (method, bits) of the model."""
    four, eight = call.value("load_in_4bit", True), call.value("load_in_8bit", False)  # noqa: FBT003  # the defaults
    full = call.value("full_finetuning", False)  # noqa: FBT003  # the default
    if UNKNOWN in (four, eight, full):
        return UNKNOWN, UNKNOWN
    if full is True:
        return None, None  # it switches the bits off
    if four is True or eight is True:
        return "bitsandbytes", 8 if eight is True else 4
    name = call.value("model_name", UNKNOWN)
    return (None, None) if isinstance(name, str) and not stored_quantized(name) else (UNKNOWN, UNKNOWN)


def attached(call: Call, state: ModelState) -> ModelState:
    """Return the state after ``FastLanguageModel.get_peft_model``: adapted, prepared, and checkpointing with own code."""
    config = Call("peft.LoraConfig", call.span, tuple(one for one in call.arguments if one.name != "model"), complete=False)
    asked = call.value("use_gradient_checkpointing", "unsloth")
    checkpointing = CheckpointingState(False if asked is False else None)
    return dataclasses.replace(
        state,
        adapters=Adapters(call, config, dtype=UNKNOWN),
        base_frozen=True,
        prepared=call,
        hooks=(*state.hooks, call),
        checkpointing=checkpointing,
    )
