"""Rule KB823: skip-list-contradicts-weights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


#: module names that always denote an nn.Linear
LINEAR = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})
_PLAIN = re.compile(r"[\w.]+")


def _names(module: str, name: str) -> bool:
    """Return whether a plain name leaves a module unquantized, by the rule of transformers' should_convert_module."""
    return module == name or module.startswith(f"{name}.") or module.endswith(name)


def _may_name(module: str, name: str) -> bool:
    """Return whether a name could match the module. A pattern always could: running it may never end."""
    return _PLAIN.fullmatch(name) is None or f".{name}." in f".{module}." or module.endswith(name)


class SkipListContradictsWeights(Rule):
    """The list of unquantized modules in the config contradicts the stored weights.

    ## What it does

    Reports modules that `llm_int8_skip_modules` names and that are packed in the safetensors headers. Reports modules
    that are stored as floats and not named, if other linear layers are packed.

    ## Why is this bad?

    transformers builds layers by the list and fills them from the file. A packed weight does not fit an ordinary layer,
    and loading stops. A float weight in a 4-bit layer has no quantization state, and the first forward pass raises an
    AssertionError.

    ## Example

    A checkpoint saved with `llm_int8_skip_modules=['lm_head', 'up_proj']` whose config.json was edited to
    `['lm_head']`.

    ## Fix

    Restore the list with which the checkpoint was saved.

    ## Fix safety

    Display only: the names in the list may match more modules than the file contains.

    ## References

    - https://github.com/huggingface/transformers/issues/45674
    - https://github.com/unslothai/unsloth/issues/4209
    """

    meta: ClassVar[Meta] = Meta(
        code="KB823",
        slug="skip-list-contradicts-weights",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each module that the list and the headers disagree about."""
        quantization = checkpoint.quantization or {}
        listed = quantization.get("llm_int8_skip_modules")
        names = [str(name) for name in listed] if isinstance(listed, list) else []
        if not checkpoint.tensors:
            raise Unchecked("no safetensors headers here")
        if quantization.get("quant_method") != "bitsandbytes":
            return
        packing = checkpoint.packing
        fix = Fix("restore the list that the checkpoint was saved with", Safety.DISPLAY)
        for item in packing.packed:
            if any(_PLAIN.fullmatch(name) and _names(item.module, name) for name in names):
                message = "the skip list names the module, and its weight is packed"
                yield self.violation(message, Location(item.module, "config.json"), surface=Surface.FILES, fix=fix)
        kinds = {item.module.rpartition(".")[2] for item in packing.packed} | (LINEAR if packing.packed else frozenset())
        for module in packing.floating:
            if module.rpartition(".")[2] in kinds and not any(_may_name(module, name) for name in names):
                message = "the weight is stored as floats, and the skip list does not name the module"
                yield self.violation(message, Location(module, "config.json"), surface=Surface.FILES, fix=fix)
