"""Rule KB403: checkpointing-inactive."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.upstream.data_contracts import CONTRACTS
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts


class CheckpointingInactive(Rule):
    """Checkpointing is enabled, but the layers are in eval mode, where they do not checkpoint.

    ## What it does

    Reports checkpointed layers with `training == False`. Only the mode of the layers counts: a PeftModel's own
    `training` is True although `from_pretrained` left its base model in eval mode.

    It is an info if the whole base is in eval mode, as `from_pretrained` leaves it: the training loop can still call
    `model.train()`. It is a warning if the adapters are in eval mode too, or if only some layers are: code called
    `.eval()` and did not undo it. The rule is skipped if a Trainer runs the loop, because Trainer calls `model.train()`
    itself.

    In a script, reports a loop whose model is in eval mode, from the first or the second round on. Lightning keeps the
    mode of each module since 2.2 (its CHANGELOG), so a `LightningModule` is reported if no hook calls `train()`.

    ## Why is this bad?

    Layers checkpoint only in training mode (`if self.training`). In eval mode every activation is kept, and dropout is
    off.

    ## Example

    A hand-written loop that samples with `model.eval()` and never calls `model.train()` again.

    ## Fix

    Put the model into training mode: `model.train()`.

    ## Fix safety

    Safe: a training step is meant to run in this mode, and no weight changes. Display only if the loop of a script
    itself sets eval mode, or if its model has no name there.

    ## References

    - https://github.com/huggingface/peft/issues/120
    - https://github.com/huggingface/transformers/issues/24463
    - https://github.com/Lightning-AI/pytorch-lightning/issues/20105
    """

    meta: ClassVar[Meta] = Meta(
        code="KB403",
        slug="checkpointing-inactive",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_MEMORY,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each checkpointed layer in eval mode."""
        if context.sets_training_mode:
            raise Unchecked("the training loop sets the mode itself")
        asleep = [layer for layer in model.checkpointing if not layer.training]
        partly = len(asleep) < len(model.checkpointing) or model.training
        deliberate = partly or model.adapter_training is False
        for layer in asleep:
            yield self.violation(
                "checkpointing is enabled but inactive: the layer is in eval mode"
                + ("" if deliberate else ", as loading leaves it, until model.train() is called"),
                Location(layer.path),
                severity=Severity.WARNING if deliberate else Severity.INFO,
                evidence={"class": layer.class_name, "model_training": model.training},
                fix=Fix("put the model into training mode", Safety.SAFE, (Edit("train"),)),
            )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each loop whose model is in eval mode on every path, from the start or later."""
        found = list(self._on_paths(source))
        yield from found
        for use in source.data_uses if not found else ():
            row = CONTRACTS[use.kind]
            if row.code == self.meta.code:
                place, fix = source.at_line(use.line), Fix(row.fix, Safety.DISPLAY)
                yield self.violation(row.message, place, surface=Surface.SOURCE, fix=fix)

    def _on_paths(self, source: SourceFacts) -> Iterator[Violation]:
        for trained in source.trained():
            first = trained.paths[0]
            asleep = all(model.training_mode is False and model.checkpointing.enabled for model in trained.models)
            lightning = first.call.callee == "training_step" and _leaves_mode(source)
            if not asleep or not trained.certain or (first.loop_span is None and not lightning):
                continue
            place = first.loop_span
            edits = source.insert_before(place, f"{first.name}.train()") if first.name and place is not None else ()
            title = "put the model into training mode"
            yield self.violation(
                "checkpointing is enabled but inactive: nothing calls model.train() before the "
                + ("fit, and Lightning keeps the mode" if lightning else "loop"),
                source.at(trained.call),
                surface=Surface.SOURCE,
                fix=Fix(title, Safety.SAFE, edits) if edits else Fix(title, Safety.DISPLAY),
            )
        for trained in source.trained():
            call = trained.paths[0].sleeps
            checkpoints = all(training.sleeps and training.model.checkpointing.enabled for training in trained.paths)
            if call is not None and checkpoints and trained.certain:
                yield self.violation(
                    "checkpointing is inactive from the second round on: nothing calls model.train() after this",
                    source.at(call),
                    surface=Surface.SOURCE,
                    fix=Fix("call model.train() at the start of each round", Safety.DISPLAY),
                )


def _leaves_mode(source: SourceFacts) -> bool:
    """Return whether Lightning keeps the mode of each module, since 2.2, and no hook of the file may set it."""
    return number(source.versions.get("lightning", "2.2")) >= (2, 2) and ".train(" not in source.text
