"""Rule KB201: trainable-base-parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.chosen import is_as_loaded
from kbitlint.facts.source import Action
from kbitlint.facts.training import Loop
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.source import SourceFacts


class TrainableBaseParameter(Rule):
    """Parameters of a quantized base model that still require gradients.

    ## What it does

    Reports each parameter of the base model that requires grad while other layers of the model are quantized.
    Parameters of adapters, `modules_to_save` copies and trainable tokens do not belong to the base.

    In a script, reports code that makes all parameters of a quantized model require grad, which fails on packed ones.
    Also reports loops that train a quantized model without adapters and without freezing it, unless the script chooses the
    parameters that learn.

    ## Why is this bad?

    Loading with a quantization config freezes only the packed weights. Norms, embeddings, heads and biases stay
    trainable. An optimizer built on `model.parameters()` trains them too. A saved adapter does not contain them, so a
    reload loses what they learned. Their gradients and optimizer state take memory (12 bytes per parameter for AdamW).

    ## Example

    `AutoModelForCausalLM.from_pretrained(name, quantization_config=...)` followed by adapters that do not come from
    PEFT, or by no preparation at all.

    ## Fix

    Freeze them.

    ## Fix safety

    Safe if the whole base is trainable, as loading leaves it, and no adapters are attached: `get_peft_model` freezes it
    anyway. Unsafe if only some parameters are trainable, or if adapters are attached. The user may have chosen these (a
    head to probe, norms to tune), or not: a linter cannot know. Display only in a script.

    ## References

    - https://github.com/huggingface/peft/issues/1342
    - https://github.com/huggingface/peft/issues/282
    - https://github.com/huggingface/transformers/issues/30526
    """

    meta: ClassVar[Meta] = Meta(
        code="KB201",
        slug="trainable-base-parameter",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each trainable parameter of the base."""
        if not model.quantized:
            raise Unchecked("no layer is quantized, so full fine-tuning is possible")
        safety = Safety.SAFE if not model.has_adapters and is_as_loaded(model) else Safety.UNSAFE
        for parameter in model.trainable:
            if not parameter.adapter:
                yield self.violation(
                    "base parameter requires grad",
                    Location(parameter.path),
                    evidence={"dtype": parameter.dtype, "shape": list(parameter.shape), "bytes": parameter.nbytes},
                    fix=Fix("freeze it", safety, (Edit("freeze", parameter.path),)),
                )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each call that unfreezes packed weights, and for each loop that trains a bare base."""
        for call, steps in source.steps_at(Action.UNFREEZE, Action.UNFREEZE_PACKED):
            if all(step.before.integer for step in steps):
                yield self.violation(
                    "packed weights are made to require grad, which only floating point tensors can",
                    source.at(call),
                    surface=Surface.SOURCE,
                    severity=Severity.ERROR,
                    consequence=Consequence.FAILS,
                    fix=Fix("leave the base frozen and train adapters", Safety.DISPLAY),
                )
        for trained in source.trained():
            bare = all(m.adapters is None and m.base_frozen is None and m.load is not None for m in trained.models)
            bare = bare and not any(model.chosen for model in trained.models)
            own = trained.optimized and trained.paths[0].loop is Loop.OWN
            if bare and trained.kbit and trained.certain and own:
                yield self.violation(
                    "a quantized model is trained without adapters: only its norms, embeddings and head learn",
                    source.at(trained.call),
                    surface=Surface.SOURCE,
                    fix=Fix("attach adapters: get_peft_model(model, LoraConfig(...))", Safety.DISPLAY),
                )
