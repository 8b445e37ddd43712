"""Rule KB723: zero3-without-reentry."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.upstream.versions import NEWEST, number
from kbitlint.violation import Consequence, Edit, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


#: the oldest version known to train (run with two gloo processes and nf4)
TRAINS = (0, 19, 8)


class Zero3WithoutReentry(Rule):
    """Checkpointing without reentry under DeepSpeed ZeRO-3 with a frozen base.

    ## What it does

    Reports a PeftModel that is trained under ZeRO-3 with non-reentrant checkpointing on every path. This is the default
    of transformers 5. The rule applies to DeepSpeed older than 0.19.8, installed beside kbitlint or required by the
    project. TRL's trainers force reentry themselves and are not reported.

    ## Why is this bad?

    ZeRO-3 partitions frozen weights again during the recomputation. The non-reentrant variant then finds a tensor of
    shape [0] where it saved another: `CheckpointError: Recomputed values have different metadata`. Pull request 8148 of
    DeepSpeed fixed it: 0.19.2 fails, 0.19.8 trains.

    ## Example

    `TrainingArguments(deepspeed='zero3.json', gradient_checkpointing=True)` with a PeftModel and `deepspeed==0.17.4`.

    ## Fix

    Use a newer DeepSpeed, or `{'use_reentrant': True}`.

    ## Fix safety

    Unsafe: with a newer DeepSpeed it is not needed. Display only if checkpointing kwargs are already passed.

    ## References

    - https://github.com/huggingface/trl/issues/2514
    - https://github.com/huggingface/transformers/issues/47254
    - https://github.com/deepspeedai/DeepSpeed/pull/8148
    """

    meta: ClassVar[Meta] = Meta(
        code="KB723",
        slug="zero3-without-reentry",
        severity=Severity.WARNING,
        consequence=Consequence.FRAGILE,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training of adapters under ZeRO-3 without reentry on every path."""
        if number(source.versions.get("deepspeed", NEWEST["deepspeed"])) >= TRAINS:
            return
        for trained in source.trained():
            hit = all(
                training.zero_stage == 3
                and training.model.adapters is not None
                and training.model.checkpointing.enabled
                and training.model.checkpointing.reentry.value == "False"
                for training in trained.paths
            )
            if hit and not trained.call.callee.startswith("trl."):
                how = trained.models[0].checkpointing
                edits: tuple[Edit, ...] = ()
                if how.by is not None and how.kwargs and how.by.value(how.kwargs) is None:
                    edits = source.set_value(how.by, how.kwargs, {"use_reentrant": True})
                title = "checkpoint reentrantly under ZeRO-3"
                yield self.violation(
                    "checkpointing without reentry finds the frozen weights taken apart by ZeRO-3",
                    source.at(how.by or trained.call),
                    surface=Surface.SOURCE,
                    evidence={"zero_stage": 3, "deepspeed": source.versions.get("deepspeed")},
                    fix=Fix(title, Safety.UNSAFE, edits) if edits else Fix(title, Safety.DISPLAY),
                )
