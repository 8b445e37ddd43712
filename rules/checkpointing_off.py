"""Rule KB402: checkpointing-off."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.upstream.families import facts_of
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.model import ModelFacts
    from kbitlint.facts.model_state import ModelState
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Argument, Call

_UNSUPPORTED = "does not support checkpointing"


class CheckpointingOff(Rule):
    """No layer of the model checkpoints its activations.

    ## What it does

    Reports a quantized model in which checkpointing is off in every layer. It is an info if the class does not support
    checkpointing, or declares it while no code of its layers calls it. It is an error if the class does not support it
    and the training loop enables it, because that raises.

    In a script, FSDP runs and prefix-tuning adapters are not reported. It is an info there if the training arguments write
    `gradient_checkpointing=False` or the preparation `use_gradient_checkpointing=False`, or if the checkpoint's name tells at
    most 3.5 billion parameters or a hidden size of at most 1600: such activations fit on common cards.

    ## Why is this bad?

    The packed weights are small, so activations fill the memory. Without checkpointing every layer keeps its
    activations until the backward pass. Training is still correct, and faster.

    ## Example

    A model straight from `from_pretrained(..., quantization_config=...)`, trained in a loop that does not enable
    checkpointing. If the training arguments enable it, the rule reports nothing.

    ## Fix

    Enable non-reentrant checkpointing through the public method of the installed transformers. It needs no hook on the
    embeddings. In a script, add `gradient_checkpointing=True` to the training arguments.

    ## Fix safety

    Safe: the values are the same, and a step takes about a third longer. Display only in a script whose training
    arguments are missing, not fully known, or set the argument already.

    ## References

    - Dettmers et al., QLoRA, https://arxiv.org/abs/2305.14314
    - https://huggingface.co/docs/peft/developer_guides/quantization
    """

    meta: ClassVar[Meta] = Meta(
        code="KB402",
        slug="checkpointing-off",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_MEMORY,
        since="0.1.0",
    )

    def check_model(self, model: ModelFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield at most one violation, on the model as a whole."""
        if not model.quantized:
            raise Unchecked("no layer is quantized")
        loop = context.gradient_checkpointing
        evidence = {"layers_that_can": sum(facts.is_layer for facts in model.checkpoints)}
        if loop is not None and loop.enabled and not model.supports_checkpointing:
            yield self.violation(
                f"the training loop switches checkpointing on, which {model.class_name} refuses",
                Location(),
                severity=Severity.ERROR,
                consequence=Consequence.FAILS,
                evidence=evidence,
                fix=Fix("train without it", Safety.DISPLAY),
            )
            return
        if model.checkpointing or (loop is not None and loop.enabled):
            return
        if any(adapter.through_cache for adapter in model.adapters):
            raise Unchecked("an adapter works through the cache, which checkpointing drops")
        if any(adapter.by_task for adapter in model.adapters):
            raise Unchecked("an adapter gets its tasks through hooks, which a recomputation lacks")
        if not (model.supports_checkpointing and model.checkpoints):
            why = "supports checkpointing, and none of its layers calls it" if model.supports_checkpointing else _UNSUPPORTED
            yield self.violation(
                f"{model.class_name} {why}: every layer keeps its activations",
                Location(),
                severity=Severity.INFO,
                evidence=evidence,
            )
            return
        yield self.violation(
            "checkpointing is off: every layer keeps its activations",
            Location(),
            evidence=evidence,
            fix=Fix("enable it without reentry", Safety.SAFE, (Edit("enable-checkpointing", "", {"use_reentrant": False}),)),
        )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training of a quantized model with checkpointing off on every path."""
        for trained in source.trained(quantized=True):
            off = all(model.checkpointing.enabled is False for model in trained.models)
            sharded = any(training.fsdp is not False for training in trained.paths)
            through_cache = any("Prefix" in getattr(m.adapters and m.adapters.config, "callee", "") for m in trained.models)
            if not (off and trained.kbit and trained.certain and trained.optimized) or sharded or through_cache:
                continue
            arguments = trained.paths[0].arguments
            edits: tuple[Edit, ...] = ()
            if arguments is not None and arguments.complete and not arguments.gives("gradient_checkpointing"):
                edits = source.set_value(arguments, "gradient_checkpointing", value=True)
            title = "enable it: gradient_checkpointing=True"
            small = all(map(_is_small, trained.models)) or _declines(source)
            chosen = _chosen(arguments) if arguments is not None else None
            yield self.violation(
                f"checkpointing is off{trained.where}: every layer keeps its activations",
                source.at(trained.call) if chosen is None else source.at_line(chosen.whole.line, chosen.name),
                surface=Surface.SOURCE,
                severity=Severity.INFO if small or chosen is not None else None,
                fix=Fix(title, Safety.SAFE, edits) if edits else Fix(title, Safety.DISPLAY),
            )


def _chosen(arguments: Call) -> Argument | None:
    """Return the argument by which the script itself chooses to train without checkpointing; None if it leaves it out."""
    given = arguments.argument("gradient_checkpointing")
    return given if given is not None and given.value is False else None


def _declines(source: SourceFacts) -> bool:
    """Return whether the script prepares the model without checkpointing on purpose."""
    return any(call.value("use_gradient_checkpointing") is False for call, _ in source.steps_at(Action.PREPARE))


def _is_small(model: ModelState) -> bool:
    return model.load is not None and facts_of(model.load.value("pretrained_model_name_or_path")).is_small
