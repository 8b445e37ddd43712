"""Rule KB546: adapter-as-state-dict."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint import lazy_patterns as re
from kbitlint.facts.source import Action
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts

#: a name that holds the tensors of an adapter file
_READ = re.compile(
    r"^[ \t]*(\w+)[ \t]*=[ \t]*[\w.]{0,60}load(?:_file)?\([^\n]{0,200}adapter_model\.(?:safetensors|bin)", re.MULTILINE
)
_LOADED = re.compile(
    r"(?<!\w)(\w{1,80})\.load_state_dict\([ \t]{0,9}(\w{1,80})[ \t]{0,9},[ \t]{0,9}strict[ \t]{0,9}=[ \t]{0,9}False"
)


class AdapterAsStateDict(Rule):
    """An adapter file is loaded with `load_state_dict`, which matches none of its names.

    ## What it does

    Reports `load_state_dict(tensors, strict=False)` on a model with adapters, where the tensors were read from
    `adapter_model.safetensors` or `adapter_model.bin`.

    ## Why is this bad?

    The file names its tensors without the adapter: `q_proj.lora_A.weight`. The model has `q_proj.lora_A.default.weight`. With
    `strict=False` every tensor is dropped in silence, and the adapter keeps its initial weights.

    ## Example

    `model.load_state_dict(load_file('out/adapter_model.safetensors'), strict=False)`.

    ## Fix

    `set_peft_model_state_dict(model, tensors)`, or `PeftModel.from_pretrained(base, 'out')`.

    ## Fix safety

    Unsafe: the model's answers change.

    ## References

    - https://github.com/huggingface/peft/issues/286
    - https://huggingface.co/docs/peft/developer_guides/checkpoint
    """

    meta: ClassVar[Meta] = Meta(
        code="KB546",
        slug="adapter-as-state-dict",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such call, in a file that attaches adapters."""
        if "load_state_dict" not in source.own_text or not any(True for _ in source.steps_at(Action.ATTACH)):
            return
        read = {found[1]: found.start() for found in _READ.finditer(source.own_text)}
        for found in _LOADED.finditer(source.own_text):
            if read.get(found[2], found.end()) < found.start():
                line = source.own_text.count("\n", 0, found.start()) + 1
                yield self.violation(
                    "no tensor of the adapter file has a name that load_state_dict finds, and all are dropped",
                    source.at_line(line, "load_state_dict"),
                    surface=Surface.SOURCE,
                    fix=Fix(f"set_peft_model_state_dict({found[1]}, {found[2]})", Safety.DISPLAY),
                )
