"""Rule KB564: unwritten-folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint import lazy_patterns as re
from kbitlint.facts.guards import is_guarded
from kbitlint.facts.source import Action
from kbitlint.facts.training import Loop
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import ExecutionPath, SourceFacts
    from kbitlint.facts.values import Call

_LOADS = (Action.LOAD, Action.LOAD_ADAPTERS)
_NAMES = ("pretrained_model_name_or_path", "model_id", "0")
#: signs of calls that may write a model into the folder; saves of a tokenizer and of the logs of a Trainer do not
_WRITES = re.compile(
    r"\b(?!save_(?:state|metrics|strategy|steps|total_limit)\b)(?<!tok\.)(?<!tokenizer\.)(?<!processor\.)save\w{0,40}\("
    r"|push_to_hub|shutil|copytree|subprocess|os\.(?:system|rename|replace|symlink|path\.exists|path\.isfile)|\.rename\(|symlink|unsloth"
    r"|snapshot_download|Trainer\):|Callback\):"
)
_NAME = re.compile(r"(\w{1,60})[ \t]*=[ \t]*$")


class UnwrittenFolder(Rule):
    """A model or adapter is loaded from the `output_dir` of a Trainer, into which nothing saved it.

    ## What it does

    Reports a load from the folder that is the `output_dir` of a Trainer that the script has trained before, where nothing in
    the script saves the model there, copies files or pushes to the Hub.

    ## Why is this bad?

    Trainer writes its checkpoints into `output_dir/checkpoint-500` and so on. The folder itself gets the model by
    `trainer.save_model()` alone. So the load raises after the training: no `adapter_config.json`, or no `config.json`.

    ## Example

    `trainer.train()`, then `AutoPeftModelForCausalLM.from_pretrained(args.output_dir)`.

    ## Fix

    Call `trainer.save_model()` after `trainer.train()`.

    ## Fix safety

    Display only.

    ## References

    - https://github.com/tloen/alpaca-lora/issues/469
    - `transformers/trainer.py`, `_save_checkpoint` and `save_model`; `peft/config.py`, `from_pretrained`
    """

    meta: ClassVar[Meta] = Meta(
        code="KB564",
        slug="unwritten-folder",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each load from a folder that holds checkpoints alone."""
        if source.dialect != "python" or ".train(" not in source.own_text:
            return
        for call, steps in source.steps_at(*_LOADS):
            folder = _folder(call)
            reached = [path for path in source.paths if any(step.call.span == call.span for step in path.steps)]
            if (
                not steps
                or not folder
                or source.is_imported(call)
                or not all(_trains(source, p, call, folder) for p in reached)
            ):
                continue
            errors = ("ValueError", "OSError", "EnvironmentError", "Exception")
            if (
                "except:" in source.text
                or _WRITES.search(source.text, 0, call.span.start)
                or is_guarded(source.text, call.span.start, errors)
            ):
                continue
            yield self.violation(
                f"the Trainer has saved checkpoints alone, and no model into {folder}: the load raises",
                source.at(call),
                surface=Surface.SOURCE,
                evidence={"folder": folder},
                fix=Fix("call trainer.save_model() after trainer.train()", Safety.DISPLAY),
            )


def _folder(call: Call) -> str:
    """Return the folder that a call loads from; empty if it is not known."""
    found = next((value for name in _NAMES if isinstance(value := call.value(name), str)), "")
    return _plain(found)


def _plain(folder: str) -> str:
    return folder.removeprefix("./").rstrip("/")


def _trains(source: SourceFacts, path: ExecutionPath, load: Call, folder: str) -> bool:
    """Return whether a path trains into the folder, above the load in the text."""
    for training in path.trainings:
        known = training.loop is Loop.TRAINER and training.arguments is not None
        given = (
            training.arguments.value("output_dir", training.arguments.value("0")) if training.arguments is not None else None
        )
        if known and isinstance(given, str) and _plain(given) == folder and training.call.span.end < load.span.start:
            return _follows(source.text[: load.span.start], training.call.span.start)
    return False


def _follows(text: str, made: int) -> bool:
    """Return whether the end of a text follows a call of ``train()`` in the block of that call, or deeper.

    Args:
        text: The text up to the load.
        made: The offset of the call that makes the Trainer.
    """
    name = _NAME.search(text[max(0, made - 100) : made])
    called = text.find(f"\n{_indent(text, made)}{name[1]}.train(", made) if name is not None else -1
    between = text[called + 1 :].split("\n") if called >= 0 else []
    return bool(between) and all(line.startswith(_indent(text, made)) for line in between if line.strip())


def _indent(text: str, offset: int) -> str:
    """Return the indentation of the line at an offset."""
    line = text[text.rfind("\n", 0, offset) + 1 :]
    return line[: len(line) - len(line.lstrip(" \t"))]
