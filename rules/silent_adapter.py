"""Rule KB655: silent-adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.histories import trains_only_adapters
from kbitlint.facts.training import Loop
from kbitlint.facts.values import Call
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.contracts.defaults import DEFAULTS
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model_state import Adapters
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.training import Training

#: initial weights of LoRA for which one half is zero (PEFT 0.21, tuners/lora/layer.py)
_ZERO_HALF = (True, "gaussian")
#: trainers of TRL that leave the halves as they are; the others add an adapter for reference, and the active one trains again
_KEEP_FROZEN = ("trl.SFTTrainer", "trl.RewardTrainer")
_BOTH = frozenset("AB")


class SilentAdapter(Rule):
    """LoRA adapters that require gradients and get only zeros.

    ## What it does

    Follows what a script does to the two halves of LoRA. Reports adapters whose output is zero whatever they learn
    (`lora_dropout=1.0`, `lora_alpha=0`, `set_scale(name, 0)`, both halves filled with zeros), and adapters of which only the
    half trains whose gradient is the other half: `lora_A`, while `lora_B` is frozen at the zeros that PEFT gives it.

    ## Why is this bad?

    The gradient of each half is a product with the other half, the scale and the input. Where one of them is zero, the
    gradient is zero: the loss stays as it is, and no message tells.

    ## Example

    `parameter.requires_grad = "lora_A" in name` for every parameter of a model with new adapters.

    ## Fix

    Train both halves, or `lora_B` alone. Use a dropout below 1 and a scale above 0.

    ## Fix safety

    Display only.

    ## References

    - https://arxiv.org/abs/2106.09685
    - https://github.com/huggingface/peft/issues/1742
    """

    meta: ClassVar[Meta] = Meta(
        code="KB655",
        slug="silent-adapter",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training whose adapters stay as they are on every path."""
        for trained in source.trained():
            found = [_silence(training) for training in trained.paths]
            if not trained.certain or None in found:
                continue
            alone = all(trains_only_adapters(model) for model in trained.models)
            why, fix = next(one for one in found if one is not None)
            adapters = trained.models[0].adapters
            yield self.violation(
                why,
                source.at(adapters.by if adapters is not None else trained.call),
                surface=Surface.SOURCE,
                severity=Severity.ERROR if alone else Severity.WARNING,
                fix=Fix(fix, Safety.DISPLAY),
            )


def _silence(training: Training) -> tuple[str, str] | None:
    """Return why adapters get no gradient, and what to do; None if they may get one."""
    adapters = training.model.adapters
    config = adapters.config if adapters is not None else None
    if adapters is None or adapters.trainable is False or not isinstance(config, Call) or config.callee != "peft.LoraConfig":
        return None
    # a Trainer puts the model into train mode, in which dropout drops
    awake = training.loop is Loop.TRAINER or training.model.training_mode is not False
    if config.value("lora_dropout") == 1 and awake and _drops(training):
        return "lora_dropout drops every input of the adapters, so no gradient reaches them", "use a dropout such as 0.05"
    if adapters.muted is not None or (config.value("lora_alpha") == 0 and config.value("lora_alpha") is not False):
        return "the scale of the adapters is 0, so no gradient reaches them", "use a scale above 0: lora_alpha=16"
    if training.call.callee.startswith("trl.") and training.call.callee not in _KEEP_FROZEN:
        return None
    zero = _zero_halves(adapters, config)
    learns = any(half not in adapters.still and zero.isdisjoint(_BOTH - {half}) for half in _BOTH)
    if learns:
        return None
    if zero == _BOTH:
        return "both halves of the adapters are zero, so the gradient of each is zero", "leave lora_A as it is initialized"
    half = next(iter(zero))
    other = next(iter(_BOTH - zero))
    return f"only lora_{other} trains, and its gradient is zero while lora_{half} is", f"train lora_{half} too"


def _drops(training: Training) -> bool:
    """Return whether dropout certainly drops in a training. Several trainers of TRL set it to zero (``disable_dropout``)."""
    callee = training.call.callee
    if not callee.startswith("trl."):
        return True
    defaults = DEFAULTS.get(callee.replace("Trainer", "Config"))
    if defaults is None:
        return False
    arguments, usual = training.arguments, defaults.get("disable_dropout")
    return not (usual if arguments is None else arguments.value("disable_dropout", usual))


def _zero_halves(adapters: Adapters, config: Call) -> frozenset[str]:
    """Return the halves that are zero when the training starts."""
    first = config.value("init_lora_weights", True)  # noqa: FBT003  # the default of the argument
    return adapters.zeroed | ({"B"} if any(first is one or first == one for one in _ZERO_HALF) else frozenset())
