"""Rule KB560: refused-library-call."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class RefusedLibraryCall(Rule):
    """A function of the script has parameters that do not take the call which the library makes.

    ## What it does

    Compares the parameters of methods that a subclass of Trainer or TrainerCallback overrides, and of functions that a
    Trainer is given (`data_collator`, `compute_loss_func`, `compute_metrics`, `preprocess_logits_for_metrics`,
    `formatting_func`, `reward_funcs`), with the call that the modelled version makes.

    ## Why is this bad?

    Python raises a TypeError at that call: at the first step, at the first log, or hours later at the first evaluation
    or checkpoint. transformers 4.46 to 4.48 added arguments to `compute_loss`, `training_step` and `log`, 4.52 to
    `_get_train_sampler`, and TRL passes `completion_ids` and more to each reward function.

    ## Example

    `def compute_loss(self, model, inputs, return_outputs=False)` in a subclass of Trainer, since transformers 4.48.

    ## Fix

    Take what is passed: add the parameter, or `**kwargs`.

    ## Fix safety

    Display only: the function may have to use the new argument.

    ## References

    - https://github.com/huggingface/transformers/issues/36331
    - https://github.com/huggingface/trl/issues/2771
    """

    meta: ClassVar[Meta] = Meta(
        code="KB560",
        slug="refused-library-call",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each function that the modelled version cannot call."""
        for call in source.refused_calls:
            version = source.versions.get(call.library, "")
            if number(version) < number(call.since):
                continue
            yield self.violation(
                f"{call.library} {version} cannot call {call.function}: it {call.refused}, a TypeError at {call.moment}",
                source.at_line(call.line, call.function),
                surface=Surface.SOURCE,
                evidence={"function": call.function, "through": call.owner, "refused": call.refused, "moment": call.moment},
                fix=Fix("let the function take what the library passes, or **kwargs", Safety.DISPLAY),
            )
