"""Rule KB607: adapter-rank-mismatch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.module_paths import matches_pattern
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


class AdapterRankMismatch(Rule):
    """A saved adapter whose config gives another rank than its tensors have.

    ## What it does

    Compares `r` and `rank_pattern` of adapter_config.json with the shapes of the `lora_A` tensors beside it. A pattern is
    matched as PEFT matches it.

    ## Why is this bad?

    PEFT builds the layers from the config and loads the tensors into them. The shapes differ, and loading raises a
    RuntimeError (`size mismatch`). The usual cause is a config that was edited, or copied from another run.

    ## Example

    `"r": 16` beside tensors of shape (8, 4096).

    ## Fix

    Set `r` to the rank of the tensors.

    ## Fix safety

    Display only: the config may belong to another adapter, and `lora_alpha` has to fit too.

    ## References

    - https://github.com/zetavg/LLaMA-LoRA-Tuner/issues/33
    """

    meta: ClassVar[Meta] = Meta(
        code="KB607",
        slug="adapter-rank-mismatch",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each rank that the config gives and the tensors do not have."""
        config = checkpoint.adapter or {}
        rank = config.get("r")
        if config.get("peft_type") != "LORA" or not isinstance(rank, int) or not checkpoint.adapter_tensors:
            raise Unchecked("no LoRA adapter with its tensors here")
        found: dict[tuple[int, int], list[str]] = {}
        for name, tensor in checkpoint.adapter_tensors.items():
            module, part, _ = name.partition(".lora_A")
            if part and len(tensor.shape) == 2:
                said = _rank_of(module.removeprefix("base_model.model."), config, rank)
                if said is not None and tensor.shape[0] != said:
                    found.setdefault((said, tensor.shape[0]), []).append(module)
        for (said, real), modules in found.items():
            yield self.violation(
                f"the config gives rank {said}, and the tensors have rank {real}",
                Location(modules[0] if len(modules) == 1 else "r", "adapter_config.json"),
                surface=Surface.FILES,
                evidence={"config": said, "tensors": real, "modules": len(modules)},
                fix=Fix(f"set the rank to {real}", Safety.DISPLAY),
            )


def _rank_of(module: str, config: Mapping[str, Any], rank: int) -> int | None:
    """Return the rank that the config gives a module; None if its pattern gives no number."""
    patterns = config.get("rank_pattern")
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        if matches_pattern(pattern, module):
            return value if isinstance(value, int) else None
    return rank
