"""Rule KB569: deepspeed-contradicts-arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.upstream.deepspeed import mismatches
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class DeepspeedContradictsArguments(Rule):
    """A DeepSpeed configuration fixes a value, and the training arguments have another one.

    ## What it does

    Compares the DeepSpeed file or dict that the training arguments name with these arguments, as transformers does: the
    batch sizes, `gradient_accumulation_steps`, `gradient_clipping`, the optimizer's `lr`, `betas`, `eps` and
    `weight_decay`, `scheduler.params.warmup_max_lr`, and `enabled` of `fp16` and `bf16`. An argument that is not passed
    counts with its default. The batch of all ranks is reported where no number of ranks gives it.

    ## Why is this bad?

    `HfTrainerDeepSpeedConfig` (transformers/integrations/deepspeed.py) collects the differences. It raises a ValueError
    when DeepSpeed is set up: after the model is loaded and the data is tokenized.

    ## Example

    `"gradient_accumulation_steps": 4` in the file, and `TrainingArguments(gradient_accumulation_steps=8)`.

    ## Fix

    Write `"auto"` in the DeepSpeed configuration: transformers puts the argument's value there.

    ## Fix safety

    Display only: either side may be the one that is meant.

    ## References

    - https://github.com/hiyouga/LlamaFactory/issues/201
    """

    meta: ClassVar[Meta] = Meta(
        code="KB569",
        slug="deepspeed-contradicts-arguments",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each key that differs on every path through the training."""
        for trained in source.trained():
            first, *others = (tuple(mismatches(training)) for training in trained.paths)
            arguments = trained.paths[0].arguments
            for found in first:
                if arguments is None or any(found not in other for other in others):
                    continue
                argument = arguments.argument(found.argument) or arguments.argument("deepspeed")
                line = arguments.span.line if argument is None else argument.whole.line
                name = found.argument if argument is None else argument.name
                against = "ranks times" if found.key == "train_batch_size" else found.argument
                yield self.violation(
                    f"the DeepSpeed configuration fixes {found.key} at {found.fixed}, and the arguments have "
                    f"{against} {found.value}: transformers raises a ValueError",
                    source.at_line(line, name),
                    surface=Surface.SOURCE,
                    evidence={"key": found.key, "deepspeed": str(found.fixed), "arguments": str(found.value)},
                    fix=Fix('write "auto" in the DeepSpeed configuration', Safety.DISPLAY),
                )
