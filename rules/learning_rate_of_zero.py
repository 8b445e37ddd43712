"""Rule KB719: learning-rate-of-zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.upstream.calls import TRAINING_ARGUMENTS
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.ranks import RanksFacts
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Argument, Call

_NO_STEP = "the learning rate is 0: no step changes a parameter"
_NO_LOSS = "beta is 0: the loss multiplies what the model says with it, and no gradient is left"
_RATE = Fix("set a rate, such as 2e-4", Safety.DISPLAY)
_BETA = Fix("set beta, such as 0.1", Safety.DISPLAY)


class LearningRateOfZero(Rule):
    """An optimizer with a learning rate of zero.

    ## What it does

    Reports `lr=0.0` of the optimizers of torch, a live optimizer whose groups all have that rate, and `learning_rate=0.0` of
    training arguments. Reports a schedule whose factor is always 0, and `clip_grad_norm_(parameters, 0.0)`. Reports
    `beta=0.0` of TRL's `DPOConfig` and `KTOConfig`, which is such a factor in their losses.

    ## Why is this bad?

    Every step multiplies the update with the rate. Nothing fails, and no adapter changes.

    ## Example

    `torch.optim.AdamW(model.parameters(), lr=0.0)`.

    ## Fix

    Set a rate: LoRA is usually trained with 1e-4 to 2e-4.

    ## Fix safety

    Display only: the rate is the user's choice.

    ## References

    - https://github.com/lm-sys/FastChat/issues/2558
    - https://github.com/EricFillion/happy-transformer/issues/129
    """

    meta: ClassVar[Meta] = Meta(
        code="KB719",
        slug="learning-rate-of-zero",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the model as a whole."""
        if context.learning_rate == 0:
            yield self.violation(_NO_STEP, Location(), fix=_RATE)
        if context.beta == 0:
            yield self.violation(_NO_LOSS, Location(), fix=_BETA)

    def check_ranks(self, ranks: RanksFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, if every group of the optimizer has a rate of zero."""
        if ranks.optimizer is not None and ranks.optimizer.rate == 0 and context.learning_rate != 0:
            yield self.violation(_NO_STEP, Location(), surface=Surface.RANKS, fix=_RATE)

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such call that every path makes alike."""
        for call in source.calls:
            rate = _rate(call)
            if rate is not None and not isinstance(rate.value, bool) and rate.value == 0:
                yield self.violation(
                    _NO_STEP,
                    source.at_line(rate.whole.line, rate.name),
                    surface=Surface.SOURCE,
                    fix=_RATE,
                )
            factor = _factor(call)
            if factor is not None and not isinstance(factor[0].value, bool) and factor[0].value == 0:
                yield self.violation(
                    factor[1],
                    source.at_line(factor[0].whole.line, call.callee.rpartition(".")[2]),
                    surface=Surface.SOURCE,
                    fix=Fix("use a factor above 0, or leave the call out", Safety.DISPLAY),
                )
            beta = call.argument("beta") if call.callee in _PREFERENCES else None
            if beta is not None and not isinstance(beta.value, bool) and beta.value == 0 and _is_scaled(call):
                yield self.violation(
                    _NO_LOSS,
                    source.at_line(beta.whole.line, beta.name),
                    surface=Surface.SOURCE,
                    fix=_BETA,
                )


def _rate(call: Call) -> Argument | None:
    if call.callee in TRAINING_ARGUMENTS:
        return call.argument("learning_rate")
    return call.argument("lr") if call.callee.startswith("torch.") else None


#: calls with a factor of every update -> (names of the factor, what zero does)
_FACTORS = {
    "torch.LambdaLR": (("lr_lambda",), "the schedule multiplies the learning rate with 0: no step changes a parameter"),
    "torch.ConstantLR": (("factor", "1"), "the schedule multiplies the learning rate with 0: no step changes a parameter"),
    "torch.clip_grad_norm_": (("max_norm", "1"), "every gradient is clipped to 0: no step changes a parameter"),
    "torch.clip_grad_value_": (("clip_value", "1"), "every gradient is clipped to 0: no step changes a parameter"),
}


def _factor(call: Call) -> tuple[Argument, str] | None:
    """Return the factor of every update that a call sets, and what zero does; None if the call sets none."""
    names, what = _FACTORS.get(call.callee, ((), ""))
    given = next((one for name in names if (one := call.argument(name)) is not None), None)
    return None if given is None else (given, what)


#: configs of TRL whose loss is a function of ``beta`` times a difference of log-probabilities
_PREFERENCES = ("trl.DPOConfig", "trl.KTOConfig")


def _is_scaled(call: Call) -> bool:
    """Return whether the kind of the loss is known to be such a function. IPO divides by ``beta``."""
    return call.value("loss_type", "sigmoid") in ("sigmoid", "hinge", "robust", "kto")
