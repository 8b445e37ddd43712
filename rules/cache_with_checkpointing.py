"""Rule KB404: cache-with-checkpointing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts


class CacheWithCheckpointing(Rule):
    """The key-value cache is enabled in a config while layers checkpoint.

    ## What it does

    Reports `use_cache=True` in the config, or in a sub-config, of a model whose checkpointing is enabled. It is an info
    if all layers that checkpoint are transformers' `GradientCheckpointingLayer`, which drop the cache themselves and
    warn once. It is a warning if the model's own code checkpoints, because that code is not known to drop the cache.

    An adapter that works through the cache (prefix tuning) is an error if the layers drop the cache: the step fails
    with a size mismatch. This is reported for every value of `use_cache`.

    ## Why is this bad?

    The forward pass fills the cache, and the recomputation of a layer fills it a second time. Keys and values then
    differ from those of the first pass. The cache also holds memory that training never reads.

    ## Example

    Remote code that checkpoints its blocks, and builds a cache because `config.use_cache` keeps its default.

    ## Fix

    Set `use_cache` to False in the config for training. For prefix tuning, call `gradient_checkpointing_disable()`.

    ## Fix safety

    Safe: the logits of a forward pass do not depend on the cache. Set it back to True for generation. Display only for
    prefix tuning.

    ## References

    - https://github.com/huggingface/transformers/issues/28056 (the cache breaks the backward pass)
    - https://github.com/huggingface/transformers/pull/30320
    - https://github.com/huggingface/trl/pull/3891 (the warning that remains)
    """

    meta: ClassVar[Meta] = Meta(
        code="KB404",
        slug="cache-with-checkpointing",
        severity=Severity.WARNING,
        consequence=Consequence.UNSTABLE,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each config with the cache on."""
        if not model.checkpointing:
            return
        dropped = all(facts.is_layer for facts in model.checkpointing)
        through = [adapter.name for adapter in model.adapters if adapter.active and adapter.through_cache]
        if through and dropped:
            yield self.violation(
                "an adapter hands its keys and values to the layers through the cache, which they drop when they checkpoint",
                Location(),
                severity=Severity.ERROR,
                consequence=Consequence.FAILS,
                evidence={"adapters": through},
                fix=Fix("switch checkpointing off: gradient_checkpointing_disable()", Safety.DISPLAY),
            )
            return
        for config in model.use_cache:
            yield self.violation(
                "use_cache is on while layers checkpoint" + (", which drop the cache and warn" if dropped else ""),
                Location(config),
                severity=Severity.INFO if dropped else Severity.WARNING,
                consequence=Consequence.HARMLESS if dropped else Consequence.UNSTABLE,
                evidence={"layers_drop_the_cache": dropped},
                fix=Fix("switch the cache off", Safety.SAFE, (Edit("set-config", config, {"use_cache": False}),)),
            )
