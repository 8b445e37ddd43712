"""Rule KB630: adapter-contradicts-config."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


class AdapterContradictsConfig(Rule):
    """A saved LoRA adapter whose tensors do not fit its own configuration.

    ## What it does

    Compares the names and shapes in adapter_model.safetensors with adapter_config.json, and with the headers of the base if
    it is a folder on this machine. Reports ranks that differ from `r` and `rank_pattern`, and factors of another size.
    Reports modules that `target_modules` do not match, requested modules and copies (`modules_to_save`) without a tensor, and
    one factor without the other. Reports names that PEFT does not look for: a doubled prefix, the name of an adapter or of a
    wrapper.

    ## Why is this bad?

    The configuration decides which layers PEFT makes. Another rank raises a size mismatch, and a missing copy a KeyError.
    Names that match nothing are dropped, and layers without a tensor keep their initial values: the adapter loads, and what
    it learned is lost.

    ## Example

    An adapter_config.json that was written by hand, or `save_file(model.state_dict(), ...)` instead of `save_pretrained`.

    ## Fix

    Save with `model.save_pretrained(folder)`. If the tensors are right, correct the configuration or rename the tensors.

    ## Fix safety

    Display only: either side may be the right one.

    ## References

    - https://github.com/huggingface/peft/issues/3110
    - https://github.com/huggingface/peft/issues/2566
    - https://github.com/huggingface/peft/issues/1932
    """

    meta: ClassVar[Meta] = Meta(
        code="KB630",
        slug="adapter-contradicts-config",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each kind of difference, at its first place."""
        if not checkpoint.adapter_tensors:
            raise Unchecked("no adapter_model.safetensors here")
        kinds: dict[str, list[str]] = {}
        for found in checkpoint.contradictions:
            kinds.setdefault(found.problem, []).append(found.name)
        fails = {found.problem for found in checkpoint.contradictions if found.fails}
        for problem, names in kinds.items():
            lost = _is_setting(names[0]) and problem not in fails
            yield self.violation(
                f"{problem}{f' (and {len(names) - 1} more)' if len(names) > 1 else ''}",
                Location(names[0], "adapter_config.json" if _is_setting(names[0]) else "adapter_model.safetensors"),
                surface=Surface.FILES,
                severity=Severity.WARNING if lost else Severity.ERROR,
                consequence=Consequence.FAILS if problem in fails else Consequence.TRAINS_WRONG,
                evidence={"places": len(names)},
                fix=Fix("save it with save_pretrained, or correct its configuration", Safety.DISPLAY),
            )


def _is_setting(name: str) -> bool:
    return name.startswith(("target_modules.", "modules_to_save."))
