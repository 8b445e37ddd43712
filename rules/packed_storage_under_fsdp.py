"""Rule KB722: packed-storage-under-fsdp."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Call


def _version(arguments: Call | None) -> object:
    """Return the FSDP version that training arguments set; None if they set none."""
    config = arguments.within("fsdp_config") if arguments is not None else None
    return config.value("version", config.value("fsdp_version")) if config is not None else None


class PackedStorageUnderFsdp(Rule):
    """Weights of 4 bits that are stored as integers, under FSDP.

    ## What it does

    Reports a 4-bit `BitsAndBytesConfig` without `bnb_4bit_quant_storage`, or with an integer one, whose model is
    trained with FSDP on every path. It is an error with FSDP 1, and a warning with FSDP 2 or an unknown version.
    axolotl and LLaMA-Factory set a floating point storage themselves.

    ## Why is this bad?

    FSDP 1 flattens all parameters of a layer into one tensor, which needs one floating point dtype. It raises a
    ValueError for uint8. FSDP 2 leaves integer weights out of the sharding, so every rank holds the whole base.

    ## Example

    `TrainingArguments(fsdp='full_shard auto_wrap')` with `BitsAndBytesConfig(load_in_4bit=True)`.

    ## Fix

    Store the packed weights in bfloat16: `bnb_4bit_quant_storage=torch.bfloat16`.

    ## Fix safety

    Safe: the bytes stay the same. Only the dtype under which they are stored changes.

    ## References

    - https://github.com/huggingface/peft/issues/1432
    - https://github.com/huggingface/accelerate/issues/3983
    - https://github.com/axolotl-ai-cloud/axolotl/issues/1482
    """

    meta: ClassVar[Meta] = Meta(
        code="KB722",
        slug="packed-storage-under-fsdp",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each 4-bit config whose model is trained with FSDP on every path."""
        for trained in source.trained():
            config = trained.models[0].quantization
            sharded = all(training.fsdp is True for training in trained.paths)
            if config is None or not sharded or config.value("load_in_4bit") is not True:
                continue
            if config.dtype("bnb_4bit_quant_storage") not in (None, "uint8", "int8"):
                continue
            given = config.argument("bnb_4bit_quant_storage")
            first = _version(trained.paths[0].arguments) == 1 or trained.paths[0].flattened
            if source.dialect == "python":
                name, imported = source.importing("torch", config.span)
                edits = source.set_argument(config, "bnb_4bit_quant_storage", f"{name}.bfloat16") + imported
            else:
                edits = source.set_value(config, "bnb_4bit_quant_storage", "bfloat16")
            yield self.violation(
                "4-bit weights are stored as integers, which FSDP cannot shard",
                source.at(config) if given is None else source.at_line(given.whole.line, "bnb_4bit_quant_storage"),
                surface=Surface.SOURCE,
                severity=Severity.ERROR if first else Severity.WARNING,
                consequence=None if first else Consequence.COSTS_MEMORY,
                evidence={"quant_storage": config.dtype("bnb_4bit_quant_storage") or "uint8"},
                fix=Fix("store them as bfloat16", Safety.SAFE, edits),
            )
