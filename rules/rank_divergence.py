"""Rule KB705: rank-divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Location, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.ranks import RanksFacts

#: aspects in which ranks train different parameters; the others change memory, speed or stability
_WRONG = frozenset(["trainable parameters", "order", "quantization", "adapters"])
_COSTS = {
    "checkpointing": Consequence.COSTS_MEMORY,
    "input-grad hooks": Consequence.FRAGILE,
    "frozen dtypes": Consequence.UNSTABLE,
}


class RankDivergence(Rule):
    """Ranks of one run whose models differ.

    ## What it does

    Compares the models of all ranks: trainable parameters with their dtypes and order, packing, adapter settings,
    checkpointing, hooks, and the dtypes of frozen parameters. Reports each path at which ranks differ, and names the
    ranks.

    It is an error if trainable parameters, their order, packing or adapter settings differ, and a warning otherwise.

    ## Why is this bad?

    DDP pairs parameters by their position in the list. Lists of different length or shapes are refused or hang. Lists
    that fit by chance are averaged with each other, so a rank trains `q_proj` with the gradients of `o_proj`. Rank 0's
    packed bytes are copied to all ranks, even if a rank quantized its weights differently.

    ## Example

    `target_modules` taken from an unordered set, or from an environment variable that one node lacks.

    ## Fix

    Build the model from the same settings on every rank.

    ## Fix safety

    No fix is offered: only the author knows which rank is right.

    ## References

    - https://github.com/huggingface/accelerate/issues/2017
    - https://github.com/hiyouga/LlamaFactory/issues/5616
    """

    meta: ClassVar[Meta] = Meta(
        code="KB705",
        slug="rank-divergence",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_ranks(self, ranks: RanksFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each aspect and path at which ranks differ."""
        other_sets = any(divergence.aspect == "trainable parameters" for divergence in ranks.divergences)
        for divergence in ranks.divergences:
            if divergence.aspect == "order" and other_sets:
                continue  # if the sets differ, so do all positions after the first difference
            wrong = divergence.aspect in _WRONG
            evidence = {"aspect": divergence.aspect, "values": [[value, list(which)] for value, which in divergence.values]}
            yield self.violation(
                f"{divergence.aspect} differ between ranks: {divergence}",
                Location("" if divergence.aspect == "adapters" else divergence.path),
                surface=Surface.RANKS,
                severity=Severity.ERROR if wrong else Severity.WARNING,
                consequence=Consequence.TRAINS_WRONG if wrong else _COSTS[divergence.aspect],
                evidence=evidence | ({"setting": divergence.path} if divergence.aspect == "adapters" else {}),
            )
