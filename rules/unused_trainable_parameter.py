"""Rule KB203: unused-trainable-parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Location, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.trace import GradientFacts, TraceFacts


class UnusedTrainableParameter(Rule):
    """Trainable parameters of modules that do not take part in the forward pass.

    ## What it does

    Runs a training step without weights on text. Reports trainable parameters, adapters included, whose module is not
    called, or is called and does not use them. Examples: a vision tower without an image; a pooler that no loss reads;
    cross-attention without an encoder; a bypassed copy in `modules_to_save`.

    ## Why is this bad?

    These parameters do not change. On one GPU that costs only their memory and optimizer state. Batches with an image
    or audio do train the towers, so the severity is info. Under DDP with `find_unused_parameters=False` the next step
    raises `Expected to have finished reduction`: an error.

    It is a warning if code computes with `.weight` of an adapted layer and never calls it. Such an adapter cannot learn
    on any batch: LoRA on `out_proj` of `nn.MultiheadAttention`, or on `lm_head` under a fused cross-entropy (Liger, CCE).

    So it is if code calls the base layer in the adapter (`self.q_proj.base_layer(x)`), and an error if no adapter learns.
    It is an error too if nothing else learns and the module is an input embedding: no batch of tokens reads it. BART's `shared`
    is one, because each half of the model looks its tokens up by itself.

    ## Example

    `target_modules="all-linear"` on a vision-language model that is trained on text only.

    ## Fix

    Leave the modules out: `LoraConfig(exclude_modules=...)`, or a regular expression for `target_modules`.

    ## Fix safety

    Display only: the user decides which modules learn.

    ## References

    - https://github.com/huggingface/peft/issues/951
    - https://github.com/huggingface/peft/issues/393
    - https://github.com/hiyouga/LLaMA-Factory/issues/5680
    """

    meta: ClassVar[Meta] = Meta(
        code="KB203",
        slug="unused-trainable-parameter",
        severity=Severity.INFO,
        consequence=Consequence.TRAINS_NOTHING,
        since="0.1.0",
    )

    def check_trace(self, trace: TraceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each module that holds unused trainable parameters."""
        if not trace.gradients:
            raise Unchecked("the step stops before a gradient could arrive")
        waits = context.waits_for_every_gradient
        readers = {layer.path: layer.reader for layer in trace.model.adapted if layer.reader}
        idle: dict[tuple[str, str], list[GradientFacts]] = {}
        for facts in trace.gradients:
            if facts.cut is not None and not facts.runs and not facts.virtual:
                idle.setdefault((facts.at, facts.cut.value), []).append(facts)
        nothing = not any(facts.arrives for facts in trace.gradients)
        idle_adapters = not any(facts.arrives and facts.adapter for facts in trace.gradients)
        lookups = {embedding.path for embedding in trace.model.embeddings} if nothing else set()
        for (module, state), found in idle.items():
            reader = readers.get(module, "")
            past = not reader and module not in trace.called and f"{module}.base_layer" in trace.called
            reads = "code calls its base layer" if past else f"{reader} computes with its weight instead of calling it"
            bypassed = f"{reads}: the adapter takes no part"
            what = bypassed if reader or past else f"the module {state} on text, and holds trainable parameters"
            certain = waits or module in lookups or (past and idle_adapters)
            yield self.violation(
                what + (": DDP waits for their gradients" if waits else ""),
                Location(module),
                surface=Surface.TRACE,
                severity=Severity.ERROR if certain else Severity.WARNING if reader or past else Severity.INFO,
                consequence=Consequence.FAILS if waits else Consequence.TRAINS_NOTHING,
                evidence={"parameters": len(found), "adapter": all(facts.adapter for facts in found)},
            )
