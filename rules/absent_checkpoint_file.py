"""Rule KB651: absent-checkpoint-file."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.training import Loop
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts

#: files of a whole model, which save_pretrained of a PeftModel does not write
_OF_MODELS = frozenset(
    ("pytorch_model.bin", "model.safetensors", "pytorch_model.bin.index.json", "model.safetensors.index.json", "config.json")
)
#: the first version whose Trainer saves a PeftModel by its save_pretrained (trainer.py, _save)
_SINCE = "4.30"


class AbsentCheckpointFile(Rule):
    """A callback needs a file that Trainer does not write for a PeftModel.

    ## What it does

    Reports a call in a callback of the script that deletes, moves, copies or reads `pytorch_model.bin`, `model.safetensors`
    or `config.json` of a checkpoint, without a look whether the file exists, while every Trainer of the script trains
    adapters.

    ## Why is this bad?

    Since transformers 4.30, Trainer saves a PeftModel by its own `save_pretrained`: `adapter_model.safetensors` and
    `adapter_config.json`. The call raises FileNotFoundError at the first save, hours after the start. The callback comes from
    scripts of 2023, for which Trainer wrote the whole model.

    ## Example

    `os.remove(os.path.join(folder, "pytorch_model.bin"))` in `on_save`.

    ## Fix

    Remove the callback: checkpoints hold the adapters alone. Or ask `os.path.exists` first.

    ## Fix safety

    Display only: the callback may do more.

    ## References

    - https://github.com/artidoro/qlora/issues/28
    - https://github.com/huggingface/peft/issues/353
    """

    meta: ClassVar[Meta] = Meta(
        code="KB651",
        slug="absent-checkpoint-file",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such call."""
        if not source.file_uses or number(source.versions.get("transformers", "")) < number(_SINCE):
            return
        trainings = [training for path in source.paths for training in path.trainings if training.loop is Loop.TRAINER]
        models = [training.model for training in trainings]
        if not models or any(one.adapters is None or not one.adapters.kept or not one.certain for one in models):
            return
        for use in source.file_uses:
            if use.file in _OF_MODELS and source.times(use.callback) > 1:
                yield self.violation(
                    f"{use.function} needs {use.file}, which Trainer does not write for a PeftModel: a FileNotFoundError",
                    source.at_line(use.line, use.function),
                    surface=Surface.SOURCE,
                    evidence={"file": use.file, "callback": use.callback},
                    fix=Fix("leave it out: checkpoints of a PeftModel hold the adapters alone", Safety.DISPLAY),
                )
