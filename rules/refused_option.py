"""Rule KB670: refused-option."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts

#: parser -> how it refuses an option; ``transformers/hf_argparser.py``, ``trl/scripts/utils.py``, ``argparse``
_REFUSES = {
    "HfArgumentParser": "raises a ValueError: some specified arguments are not used",
    "TrlParser": "raises a ValueError: some specified arguments are not used",
    "ArgumentParser": "ends the script: unrecognized arguments",
}


class RefusedOption(Rule):
    """A command beside a script passes an option that the script's parser does not have.

    ## What it does

    Compares each option of the commands that launch a script, in the shell scripts and READMEs beside it, with the options of
    its parser: the fields of the dataclasses that `HfArgumentParser` or `TrlParser` reads, those of `TrainingArguments` in
    the version of transformers among them, or what `add_argument` adds. A parser of which not all options are known is not
    judged, nor is one that leaves unknown options alone.

    ## Why is this bad?

    The script ends before it loads the model. A field that a version of transformers has removed leaves all older commands
    as they are.

    ## Example

    `python train.py --warmup_ratio 0.03` for `HfArgumentParser((ScriptArguments, TrainingArguments))` with transformers 5.16.

    ## Fix

    Leave the option out, or pass the one that replaces it.

    ## Fix safety

    Display only: the command is in a file of its own.

    ## References

    - https://github.com/vllm-project/semantic-router/issues/3925
    """

    meta: ClassVar[Meta] = Meta(
        code="KB670",
        slug="refused-option",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each file with a command that the script refuses; a warning if a version decides."""
        for fault in source.object_faults:
            if fault.kind != "option":
                continue
            sure = not fault.version and not fault.file.rpartition("/")[2].startswith("README")
            yield self.violation(
                f"the script has no option {fault.name}: {fault.owner} {_REFUSES[fault.owner]}",
                source.at_fault(fault, fault.detail),
                surface=Surface.SOURCE,
                severity=Severity.ERROR if sure else Severity.WARNING,
                consequence=None if sure else Consequence.OUTDATED,
                evidence={"options": fault.name},
                fix=Fix(f"pass --{fault.meant}" if fault.meant else "leave it out, or add it to the script", Safety.DISPLAY),
            )
