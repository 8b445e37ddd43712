"""The checkpointing and mixed precision that training arguments ask for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kbitlint.facts.model_state import CheckpointingState
from kbitlint.facts.reentry import Reentry
from kbitlint.facts.values import UNKNOWN
from kbitlint.upstream.calls import Checkpoints
from kbitlint.upstream.trl_versions import behavior

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.values import Call, Value
    from kbitlint.upstream.calls import Arguments

    Enable = Callable[[Call, Checkpoints, ModelState], ModelState]


def with_arguments(
    versions: Mapping[str, str], enable: Enable, state: ModelState, given: Call | None, defaults: Arguments, prepared: str = ""
) -> tuple[ModelState, Value, Value]:
    """Return the state with the arguments' checkpointing, and their fp16 and bf16.

    Args:
        versions: The versions of the libraries whose behaviour is modelled.
        enable: The function that returns the state after a call that sets how layers checkpoint.
        state: The state of the model when the training starts.
        given: The arguments; None if they are not known.
        defaults: The defaults of the arguments.
        prepared: How the Trainer's constructor has prepared the model, as in ``TrainerBehavior``.
    """
    if given is None:
        return dataclasses.replace(state, checkpointing=CheckpointingState(None)), UNKNOWN, UNKNOWN
    prefix = "activation" if given.argument("activation_checkpointing") is not None else "gradient"
    on = given.value(f"{prefix}_checkpointing", defaults.checkpointing)
    five = versions["transformers"].partition(".")[0] not in ("3", "4")
    missing = Reentry.NO if five or given.callee.startswith("trl.") else Reentry.YES
    if on is UNKNOWN:
        state = dataclasses.replace(state, checkpointing=CheckpointingState(None))
    elif on is not False and on is not None and on is not True:
        state = dataclasses.replace(state, checkpointing=CheckpointingState(None))  # "unsloth", "offload": other code
    elif on is True:
        kwargs = f"{prefix}_checkpointing_kwargs"
        if prefix == "gradient" and given.argument("activation_checkpointing_kwargs") is not None:
            kwargs = "activation_checkpointing_kwargs"
        how = Checkpoints(kwargs, missing, missing, hooks=1 if five else 0)
        if prepared:  # peft.prepare_model_for_kbit_training, which leaves the choice to torch
            kwargs = kwargs if behavior(versions).passes_kwargs else ""
            how = Checkpoints(kwargs, Reentry.UNSET, Reentry.UNSET, hooks=1, reentrant_hooks=1)
        state = enable(given, how, state) if prepared != "always" else state
    fp16 = given.value("fp16", False)  # noqa: FBT003  # the default of the argument
    return state, fp16, given.value("bf16", defaults.bf16 and fp16 is False)
