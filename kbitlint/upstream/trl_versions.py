"""Behaviour of TRL's trainers by version, one row for each change from 0.4 on. Read from the released packages.

``tests/source/test_trl_versions.py`` compares the newest row with the installed TRL.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass
from kbitlint.upstream.versions import NEWEST, number

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class TrainerBehavior:
    """The effects of ``SFTTrainer(model, args, peft_config=...)`` and its relatives on a quantized model."""

    since: str
    """The first version with this behaviour."""
    prepares: str = ""
    """``always``: it prepares the model for k-bit training and enables checkpointing. ``asked``: it enables checkpointing if
    the arguments ask for it. Empty: it does not prepare the model."""
    passes_kwargs: bool = False
    """Whether the preparation receives ``gradient_checkpointing_kwargs`` of the arguments, or ``{}`` without any."""
    casts: str = ""
    """``bf16``: it casts the adapters of a 4-bit model to bfloat16 if the arguments set bf16. ``always``: it does so for every
    quantized model. Empty: it does not cast them."""
    second: str = "kept"
    """The treatment of a ``PeftModel`` beside ``peft_config``: ``kept``, ``merged`` before new adapters, or ``refused``."""
    checkpointing: bool = False
    """The default of ``gradient_checkpointing`` in TRL's own arguments."""
    bf16: bool = False
    """Whether ``bf16`` of TRL's own arguments is True by default without fp16."""
    loads: bool = False
    """Whether the trainers take ``quantization_config`` for a model that they load by its name."""


#: trl/trainer/sft_trainer.py of each version; ``prepare_peft_model`` of trl/models/utils.py in 0.22 to 0.25
BEHAVIORS: tuple[TrainerBehavior, ...] = (
    TrainerBehavior(
        "1.9", "", passes_kwargs=False, casts="always", second="refused", checkpointing=True, bf16=True, loads=True
    ),
    TrainerBehavior("0.27", "", passes_kwargs=False, casts="always", second="refused", checkpointing=True, bf16=True),
    TrainerBehavior("0.26", "", passes_kwargs=False, casts="always", second="merged", checkpointing=True, bf16=True),
    TrainerBehavior("0.22", "asked", passes_kwargs=True, casts="bf16", second="merged", checkpointing=True, bf16=True),
    TrainerBehavior("0.19", "asked", passes_kwargs=True, casts="bf16", second="kept", checkpointing=False, bf16=True),
    TrainerBehavior("0.7.5", "asked", passes_kwargs=True, casts="bf16"),
    TrainerBehavior("0.7.4", "asked", passes_kwargs=True),
    TrainerBehavior("0.7.2", "asked"),
    TrainerBehavior("0", "always"),
)


#: trainers that still prepare a quantized model, and cast adapters for bf16 only: trl/experimental/orpo and cpo of TRL 1.16
_AS_BEFORE = ("trl.ORPOTrainer", "trl.CPOTrainer")


def behavior(versions: Mapping[str, str], trainer: str = "") -> TrainerBehavior:
    """Return the row that holds for these versions, and for a trainer if its full name is given."""
    have = number(versions.get("trl", NEWEST["trl"]))
    row = next((row for row in BEHAVIORS if have >= number(row.since)), BEHAVIORS[-1])
    if trainer in _AS_BEFORE and not row.prepares:
        return dataclasses.replace(row, prepares="asked", passes_kwargs=True, casts="bf16")
    return row
