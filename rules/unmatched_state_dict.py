"""Rule KB562: unmatched-state-dict."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts


class UnmatchedStateDict(Rule):
    """A state dict is loaded by a function that looks for other names than those it was saved with.

    ## What it does

    Follows what a script writes with `torch.save` or `save_file` to where it loads the file again. Reports a load none of
    whose names of adapters match:

    - `get_peft_model_state_dict` leaves the name of the adapter out (`lora_A.weight`), and `load_state_dict` looks for it.
    - The state dict of a model that `torch.compile` returned has the prefix `_orig_mod.`, that of a
      `DistributedDataParallel` has `module.`, and the model that loads it is not wrapped so.

    A path of the command line counts as such a file if the script saves nothing else.

    ## Why is this bad?

    With `strict=False`, and always in `set_peft_model_state_dict`, every tensor of the adapter is dropped in silence. The
    training goes on from a new adapter. With `strict=True` the load raises a RuntimeError.

    ## Example

    `torch.save(get_peft_model_state_dict(model), 'a.pt')`, then `model.load_state_dict(torch.load('a.pt'), strict=False)`.

    ## Fix

    Use `get_peft_model_state_dict` and `set_peft_model_state_dict` together, on the model that is not wrapped.

    ## Fix safety

    Display only: the files that were saved before have the old names.

    ## References

    - https://github.com/huggingface/peft/issues/1323
    - `peft/utils/save_and_load.py`, `_insert_adapter_name_into_state_dict`
    - `torch/_dynamo/eval_frame.py`, `OptimizedModule`
    """

    meta: ClassVar[Meta] = Meta(
        code="KB562",
        slug="unmatched-state-dict",
        severity=Severity.ERROR,
        consequence=Consequence.TRAINS_WRONG,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each such load."""
        for use in source.state_uses:
            effect = "a RuntimeError" if use.raises else "they are dropped in silence"
            yield self.violation(
                f"the names in the file are like {use.names}, and {use.function} looks for others: {effect}",
                source.at_line(use.line, use.function),
                surface=Surface.SOURCE,
                consequence=Consequence.FAILS if use.raises else None,
                evidence={"function": use.function, "names": use.names},
                fix=Fix("save with get_peft_model_state_dict, load with set_peft_model_state_dict", Safety.DISPLAY),
            )
