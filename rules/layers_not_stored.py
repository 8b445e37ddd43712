"""Rule KB332: layers-not-stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint import lazy_patterns as re
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


_LAYER = re.compile(r"(?P<stack>(?:[a-z_]\w*\.)*?(?:layers|layer|h))\.(?P<number>\d+)\.")


class LayersNotStored(Rule):
    """A checkpoint that stores fewer layers than its config.json counts.

    ## What it does

    Counts the numbered `layers`, `layer` or `h` among the tensors of a model folder whose safetensors headers are all there.
    Reports a `num_hidden_layers` above that number.

    ## Why is this bad?

    `from_pretrained` makes the layers that the config counts, and fills those without tensors with random numbers. It warns
    about "newly initialized" weights. Behind the trained layers lies noise, which adapters of the other layers cannot mend.

    ## Example

    A model that was cut to fewer layers, or saved in part, beside the config of the whole model.

    ## Fix

    Save the model again with `save_pretrained`, which writes both. If the layers were cut on purpose, correct the config.

    ## Fix safety

    Display only: the tensors or the config may be right.

    ## References

    - https://github.com/huggingface/accelerate/issues/1054
    """

    meta: ClassVar[Meta] = Meta(
        code="KB332",
        slug="layers-not-stored",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the key of config.json."""
        if not checkpoint.tensors or checkpoint.damages or checkpoint.unread:
            raise Unchecked("not all safetensors headers are here")
        counted, stored = (checkpoint.config or {}).get("num_hidden_layers"), _layers(checkpoint)
        if isinstance(counted, int) and 0 < stored < counted:
            yield self.violation(
                f"config.json counts {counted} layers, and tensors of {stored} are stored",
                Location("num_hidden_layers", "config.json"),
                surface=Surface.FILES,
                evidence={"counted": counted, "stored": stored},
                fix=Fix("save the model again with save_pretrained, or correct the config", Safety.DISPLAY),
            )


def _layers(checkpoint: CheckpointFacts) -> int:
    """Return the number of layers in the only stack among the tensors. It is 0 if there are several stacks, or gaps."""
    found = [match for name in checkpoint.tensors if (match := _LAYER.match(name))]
    numbers = {int(match["number"]) for match in found}
    alone = len({match["stack"] for match in found}) == 1 and numbers == set(range(len(numbers)))
    return len(numbers) if alone and len(numbers) > 1 else 0  # one stored layer may run several times, as in ALBERT
