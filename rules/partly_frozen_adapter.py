"""Rule KB632: partly-frozen-adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class PartlyFrozenAdapter(Rule):
    """Layers of an active adapter that are frozen as a whole, while others of the same adapter train.

    ## What it does

    Reports each module whose adapter parameters are all frozen, if the adapter is active and trains in other modules.
    A method that freezes one factor of each layer, such as LoRA-FA, is not reported.

    ## Why is this bad?

    The layer computes with its adapter and never learns. The usual cause is a loop that unfreezes by name:
    `"lora_A" in name` does not match `lora_embedding_A`, so an adapter on the embeddings stays as it began.

    ## Example

    `LoraConfig(target_modules=["q_proj", "embed_tokens"])`, then a loop that sets `requires_grad = "lora_A" in name or
    "lora_B" in name`.

    ## Fix

    Unfreeze through `model.set_adapter(name)`, or match `"lora_"`.

    ## Fix safety

    Display only: layers may be frozen on purpose.

    ## References

    - https://github.com/unslothai/unsloth/issues/9331
    - https://github.com/unslothai/unsloth/issues/11014
    """

    meta: ClassVar[Meta] = Meta(
        code="KB632",
        slug="partly-frozen-adapter",
        severity=Severity.WARNING,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each module whose adapter is frozen while the adapter trains elsewhere."""
        if not model.has_adapters:
            raise Unchecked("no adapters are attached yet")
        active = {adapter.name for adapter in model.adapters if adapter.active}
        trains: dict[tuple[str, str], bool] = {}
        for parameter in model.parameters:
            if parameter.adapter_name in active and parameter.floating and not parameter.outside:
                key = parameter.adapter_name, _layer(parameter.path, parameter.adapter_name)
                trains[key] = trains.get(key, False) or parameter.requires_grad
        training = {name for (name, _), any_trains in trains.items() if any_trains}
        for (name, layer), any_trains in trains.items():
            if name in training and not any_trains:
                yield self.violation(
                    f"adapter {name!r} is frozen here, and trains in other layers",
                    Location(layer),
                    evidence={"adapter": name},
                    fix=Fix(f"set_adapter({name!r}), or leave the module out of the adapter", Safety.DISPLAY),
                )


def _layer(path: str, adapter: str) -> str:
    """Return the module that an adapter parameter changes: ``x.q_proj`` for ``x.q_proj.lora_A.default.weight``."""
    return path.rpartition(f".{adapter}")[0].rpartition(".")[0]
