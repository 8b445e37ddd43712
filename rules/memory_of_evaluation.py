"""Rule KB731: memory-of-evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.own_loops import Oversight
from kbitlint.rule import Meta, Rule
from kbitlint.upstream import families
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.training import Trained

#: the smallest vocabulary whose logits are worth a finding: 128 KB in float32 for each token
_VOCABULARY = 32_000
_TRAINERS = ("transformers.Trainer", "trl.SFTTrainer")
#: arguments that drop the logits of a batch, or the whole of them
_DROPS = ("batch_eval_metrics", "prediction_loss_only", "use_liger_kernel", "use_legacy_prediction_loop")


class MemoryOfEvaluation(Rule):
    """An evaluation keeps the logits or the graph of every batch until it ends.

    ## What it does

    Reports a Trainer of a causal language model that evaluates with `compute_metrics` and without
    `preprocess_logits_for_metrics`, if the vocabulary is known and has 32,000 tokens or more. In a loop of the script,
    reports an evaluation with gradients that adds up, or collects, its losses with their graphs.

    ## Why is this bad?

    `Trainer.evaluation_loop` (transformers 5.23, trainer.py) collects the logits of all rows for `compute_metrics`: a
    number for each token of the vocabulary, at each position. A sum of losses with `grad_fn` keeps the activations of
    each batch, and eval mode switches checkpointing off. Both usually run out of memory.

    ## Example

    `model.eval()`, then `for batch in loader: total += model(**batch).loss`, without `torch.no_grad()`.

    ## Fix

    Pass `preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1)`. In a loop, evaluate in
    `torch.no_grad()` and add `loss.item()`.

    ## Fix safety

    Display only: the metrics may need more of the logits.

    ## References

    - https://github.com/huggingface/transformers/issues/12878
    - https://github.com/google/brax/pull/152
    """

    meta: ClassVar[Meta] = Meta(
        code="KB731",
        slug="memory-of-evaluation",
        severity=Severity.WARNING,
        consequence=Consequence.COSTS_MEMORY,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each sum with a graph, and for each Trainer that keeps all logits."""
        for fault in source.loop_faults:
            if fault.kind is Oversight.KEPT_GRAPHS:
                yield self.violation(
                    f"{fault.name} keeps the graph of every loss: the evaluation runs with gradients",
                    source.at_line(fault.line, fault.name),
                    surface=Surface.SOURCE,
                    evidence={"kept": "graphs"},
                    fix=Fix("evaluate in torch.no_grad() and add loss.item()", Safety.DISPLAY),
                )
        for trained in source.trained():
            rows = min(_vocabulary(source, trained, path) for path in range(len(trained.paths)))
            metrics = trained.call.argument("compute_metrics")
            if rows >= _VOCABULARY and metrics is not None:
                yield self.violation(
                    f"the evaluation keeps all logits for compute_metrics: {rows:,} numbers for each token",
                    source.at_line(metrics.whole.line, "compute_metrics"),
                    surface=Surface.SOURCE,
                    evidence={"kept": "logits", "vocabulary": rows},
                    fix=Fix("pass preprocess_logits_for_metrics, which keeps what the metrics need", Safety.DISPLAY),
                )


def _vocabulary(source: SourceFacts, trained: Trained, path: int) -> int:
    """Return the size of the vocabulary whose logits a path's evaluation keeps; 0 if it keeps none, or if it is not known."""
    training = trained.paths[path]
    call, arguments, load = training.call, training.arguments, training.model.load
    if call.callee not in _TRAINERS or not source.names_class(call) or arguments is None or load is None:
        return 0
    if not call.complete or not call.value("compute_metrics") or call.value("preprocess_logits_for_metrics") is not None:
        return 0
    if not call.value("eval_dataset") or any(arguments.gives(name) for name in _DROPS):
        return 0
    when = (arguments.value(name) for name in ("eval_strategy", "evaluation_strategy"))
    evaluates = any(value in ("steps", "epoch") for value in when) or ".evaluate(" in source.text
    if not evaluates or "AutoModelForCausalLM" not in load.callee:
        return 0
    return families.facts_of(load.value("pretrained_model_name_or_path"), training.model.named).vocabulary
