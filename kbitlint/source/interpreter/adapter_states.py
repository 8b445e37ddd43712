"""States of models whose adapters are new, or come from a folder."""

from __future__ import annotations

import dataclasses

from kbitlint.facts.model_state import Adapters, ModelState
from kbitlint.facts.values import UNKNOWN, Call, Value

#: Calls that attach adapters without ``cast_adapter_dtype``: those of a float16 model are float16 (PEFT 0.21, mapping.py).
_UNCAST = ("add_adapter", "peft.inject_adapter_in_model")


def with_new_adapters(call: Call, state: ModelState, config: Value) -> ModelState:
    """Return the state of a model after ``get_peft_model``, ``add_adapter`` or ``inject_adapter_in_model``.

    Args:
        call: The call.
        state: The state before it.
        config: The config of the adapters.
    """
    inference: Value = UNKNOWN if config is UNKNOWN else False
    if isinstance(config, Call):
        # add_adapter of transformers trains them in spite of the argument
        inference = call.callee != "add_adapter" and config.value("inference_mode", False)  # noqa: FBT003  # the default
    trainable = None if inference is UNKNOWN else inference is not True
    cast = call.value("autocast_adapter_dtype", True)  # noqa: FBT003  # the default of the argument
    dtype: Value = "float32" if cast is True else state.dtype if cast is False else UNKNOWN
    if state.method is None and call.callee in _UNCAST:
        dtype = state.dtype
    adapters = Adapters(call, config, trainable, dtype, kept=not call.callee.endswith("inject_adapter_in_model"))
    return dataclasses.replace(state, adapters=adapters, base_frozen=True)


def with_loaded_adapters(call: Call, state: ModelState, *, thaws: bool) -> ModelState:
    """Return the state of a model after ``PeftModel.from_pretrained`` or ``load_adapter``.

    The adapters are frozen unless ``is_trainable`` is True.

    Args:
        call: The call.
        state: The state before it.
        thaws: Whether PEFT may leave the adapters trainable in spite of that; see ``saved_models.may_thaw``.
    """
    said = call.value("is_trainable") or False
    trainable = None if said is UNKNOWN or call.gives("config") or (said is False and thaws) else said is True
    earlier = state.adapters
    # under another name, the adapters that are there stay as they are
    if earlier is not None and trainable is not True and (call.callee == "load_adapter" or call.gives("adapter_name")):
        trainable = earlier.trainable or None
    return dataclasses.replace(state, adapters=Adapters(call, UNKNOWN, trainable), base_frozen=True)
