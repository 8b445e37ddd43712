"""KB402."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts


class CheckpointingOff(Rule):
    """No layer of the model checkpoints its activations.

    ## What it does

    Reports a quantized model in which checkpointing is off in every layer. Where the class cannot checkpoint at all,
    this is worth knowing but nothing can be done, so the severity drops to info; where the training loop is known to
    switch it on all the same, that raises, and it is an error.

    ## Why is this bad?

    The packed weights are small, so activations are what fills the memory: without checkpointing every layer keeps
    all of its own until the backward pass. Training itself is correct, and faster, without it.

    ## Example

    A model straight from `from_pretrained(..., quantization_config=...)`, trained in a loop that does not enable
    checkpointing. Where the training arguments enable it, nothing is reported.

    ## Fix

    Enable it, non-reentrant, through the public method of the installed transformers and without a hook on the
    embeddings, which non-reentrant checkpointing does not need.

    ## Fix safety

    Safe: the values are the same; a step takes about a third longer.

    ## References

    - Dettmers et al., QLoRA, https://arxiv.org/abs/2305.14314
    - https://huggingface.co/docs/peft/developer_guides/quantization
    """

    meta: ClassVar[Meta] = Meta(
        code="KB402",
        slug="checkpointing-off",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_MEMORY,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """At most one violation, on the model as a whole."""
        if not model.quantized:
            raise Unchecked("no layer is quantized")
        loop = context.gradient_checkpointing
        evidence = {"layers_that_can": sum(facts.is_layer for facts in model.checkpoints)}
        if loop is not None and loop.enabled and not model.supports_checkpointing:
            yield self.violation(
                f"the training loop switches checkpointing on, which {model.class_name} refuses",
                Location(),
                severity=Severity.ERROR,
                consequence=Consequence.FAILS,
                evidence=evidence,
                fix=Fix("train without it", Safety.DISPLAY),
            )
            return
        if model.checkpointing or (loop is not None and loop.enabled):
            return
        if any(adapter.through_cache for adapter in model.adapters):
            raise Unchecked("an adapter works through the cache, which checkpointing drops")
        if not model.supports_checkpointing:
            yield self.violation(
                f"{model.class_name} does not support checkpointing: every layer keeps its activations",
                Location(),
                severity=Severity.INFO,
                evidence=evidence,
            )
            return
        yield self.violation(
            "checkpointing is off: every layer keeps its activations",
            Location(),
            evidence=evidence,
            fix=Fix("enable it without reentry", Safety.SAFE, (Edit("enable-checkpointing", "", {"use_reentrant": False}),)),
        )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """One violation for each place that trains a quantized model with checkpointing off on every path."""
        for trained in source.trained():
            off = all(model.checkpointing.enabled is False for model in trained.models)
            sharded = any(training.fsdp is not False for training in trained.paths)
            through_cache = any("Prefix" in getattr(m.adapters and m.adapters.config, "callee", "") for m in trained.models)
            if not (off and trained.kbit and trained.certain and trained.optimized) or sharded or through_cache:
                continue
            arguments = trained.paths[0].arguments
            edits: tuple[Edit, ...] = ()
            if arguments is not None and arguments.complete and not arguments.gives("gradient_checkpointing"):
                edits = source.set_value(arguments, "gradient_checkpointing", value=True)
            title = "enable it: gradient_checkpointing=True"
            yield self.violation(
                "checkpointing is off: every layer keeps its activations",
                source.at(trained.call),
                surface=Surface.SOURCE,
                fix=Fix(title, Safety.SAFE, edits) if edits else Fix(title, Safety.DISPLAY),
            )
