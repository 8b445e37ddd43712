"""Rule KB335: adapter-in-subfolder."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import ExecutionPath, SourceFacts, Step
    from kbitlint.facts.values import Call

#: names of the parameter that holds the folder: of PeftModel, of ``load_adapter`` of PEFT and transformers, of AutoPeftModel
_PLACES = ("model_id", "peft_model_id", "pretrained_model_name_or_path", "0")


class AdapterInSubfolder(Rule):
    """Adapters with a name of their own are loaded from the folder above the one that holds them.

    ## What it does

    Reports a load of adapters from a folder to which the script saved adapters under another name than `default`, if the
    load names no `subfolder`. It must happen on every path.

    ## Why is this bad?

    PEFT saves an adapter in a folder of its name, below the folder that `save_pretrained` is given. Only the adapter named
    `default` has its files in that folder itself. The load raises `Can't find 'adapter_config.json'`.

    ## Example

    `get_peft_model(model, config, adapter_name="mine")`, then `model.save_pretrained("out")` and
    `PeftModel.from_pretrained(base, "out")`.

    ## Fix

    Load from `out/mine`, or leave out `adapter_name`.

    ## Fix safety

    Display only: either may be meant.

    ## References

    - https://huggingface.co/docs/peft/developer_guides/checkpoint
    - https://github.com/huggingface/peft/blob/main/src/peft/peft_model.py (`save_pretrained`)
    """

    meta: ClassVar[Meta] = Meta(
        code="KB335",
        slug="adapter-in-subfolder",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each load that misses the adapters' own folder on every path."""
        found: dict[Call, list[tuple[str, str]]] = {}
        for path in source.paths:
            for step, missed in _loads(path):
                found.setdefault(step.call, []).append(missed)
        for call, all_missed in found.items():
            if not all(name for _, name in all_missed):
                continue
            folder, name = all_missed[0]
            yield self.violation(
                f"the adapters are saved in {folder}/{name}, as they are named {name}: {folder} holds no adapter_config.json",
                source.at(call),
                surface=Surface.SOURCE,
                evidence={"folder": folder, "adapter_name": name},
                fix=Fix(f"load from {folder}/{name}", Safety.DISPLAY),
            )


def _loads(path: ExecutionPath) -> Iterator[tuple[Step, tuple[str, str]]]:
    """Yield each load of adapters, with its folder and the name of the adapters below it; empty if they are in it."""
    saved: dict[str, str] = {}
    several: set[int] = set()
    for step in path.steps:
        adapters = step.before.adapters
        if step.action is Action.ADD:
            several.add(step.model_id)
        elif step.action is Action.SAVE and isinstance(step.detail, str):
            name = adapters.by.value("adapter_name", "default") if adapters is not None and adapters.kept else "default"
            alone = adapters is not None and adapters.by.callee == "peft.get_peft_model" and step.model_id not in several
            known = alone and isinstance(name, str) and step.before.certain
            saved[step.detail] = name if known and isinstance(name, str) and name != "default" else ""
        elif step.action is Action.LOAD_ADAPTERS:
            call = step.call
            folder = next((call.value(one) for one in _PLACES if call.gives(one)), None)
            named = isinstance(folder, str) and call.complete and not call.gives("subfolder")
            yield step, (str(folder), saved.get(str(folder), "") if named else "")
