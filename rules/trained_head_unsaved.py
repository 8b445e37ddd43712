"""Rule KB652: trained-head-unsaved."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.own_modules import Head
    from kbitlint.facts.source import SourceFacts


class TrainedHeadUnsaved(Rule):
    """A head beside the model is trained, and only the model inside is saved.

    ## What it does

    Reports `save_pretrained` on the model inside a class of the script that has a head of its own, if the script writes no
    other weights: no `torch.save`, `save_file` or `state_dict`, and no checkpoints of Trainer.

    ## Why is this bad?

    `save_pretrained` of the PeftModel writes the adapters of that model. A head outside of it is in no file. At reload the
    class makes a new head with random weights, and answers without an error.

    ## Example

    `self.classifier = nn.Linear(hidden, labels)` beside `self.encoder`, and `model.encoder.save_pretrained(out)`.

    ## Fix

    Save the head too: `torch.save(model.classifier.state_dict(), path)`, and load it again. Or use
    `AutoModelForSequenceClassification` with `modules_to_save=["score"]`.

    ## Fix safety

    Display only: the code that loads the head must change too.

    ## References

    - https://github.com/huggingface/peft/issues/577
    - https://github.com/huggingface/peft/issues/876
    """

    meta: ClassVar[Meta] = Meta(
        code="KB652",
        slug="trained-head-unsaved",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each save of the model beside a head that no call writes."""
        if (
            not source.heads
            or _writes_it(source.text)
            or not any(model.kbit for path in source.paths for model in path.models.values())
        ):
            return
        for head in source.heads:
            line = _saved_alone(source, head)
            if line:
                yield self.violation(
                    f"only {head.body} is saved, and the trained {head.name} beside it is in no file",
                    source.at_line(line, "save_pretrained"),
                    surface=Surface.SOURCE,
                    evidence={"head": head.name, "made_at": head.line},
                    fix=Fix(f"save {head.name}.state_dict() too, and load it again", Safety.DISPLAY),
                )


def _writes_it(text: str) -> bool:
    """Return whether a script trains nothing, or may write the weights beside the model in another way."""
    if not re.search(r"\bTrainer\(|\.backward\(", text):
        return True
    if re.search(r"state_dict|torch\.save|save_file|save_model|save_state|save_checkpoint|pickle|joblib|np\.save", text):
        return True
    # Trainer's own checkpoints hold the whole module
    return "Trainer(" in text and not re.search(r"save_strategy ?= ?(?:\"no\"|'no'|\w{0,40}\.NO\b)", text)


def _saved_alone(source: SourceFacts, head: Head) -> int:
    """Return the line that saves the model beside a head; 0 if none does."""
    found = [source.text.find(f".{head.body}.{method}(") for method in ("save_pretrained", "push_to_hub")]
    first = min((place for place in found if place >= 0), default=-1)
    return source.text.count("\n", 0, first) + 1 if first >= 0 else 0
