"""Rule KB826: state-of-other-parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.rule import Meta, Rule, Unchecked
from kbitlint.violation import Consequence, Fix, Location, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.checkpoint import CheckpointFacts


class StateOfOtherParameters(Rule):
    """A folder to resume from whose optimizer state belongs to other parameters than its adapter.

    ## What it does

    Counts the parameters in the groups of optimizer.pt and the tensors of a LoRA in adapter_model.safetensors. It reports
    fewer parameters than tensors of LoRA, unless they are those of `lora_B` alone, and more parameters than tensors, unless
    the folder has further weights.

    ## Why is this bad?

    The files are of two runs, or one of them was replaced. `torch.optim.Optimizer.load_state_dict` compares lengths and
    raises. If the lengths happen to agree, moments of one parameter would be applied to another. More parameters than
    tensors means that something was trained that the folder does not hold. A resumed run starts it anew.

    ## Example

    The adapter of a run with `target_modules=['q_proj']`, copied into `checkpoint-500` of a run with `all-linear`.

    ## Fix

    Resume from a folder that one save has written. To start from an adapter alone, load it with
    `PeftModel.from_pretrained(base, folder, is_trainable=True)`, without `resume_from_checkpoint`.

    ## Fix safety

    Display only: which of the files is the right one is not known.

    ## References

    - https://github.com/huggingface/peft/issues/859
    - https://github.com/huggingface/peft/issues/1313
    - https://github.com/unslothai/unsloth/issues/3108
    """

    meta: ClassVar[Meta] = Meta(
        code="KB826",
        slug="state-of-other-parameters",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_files(self, checkpoint: CheckpointFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation if the counts disagree."""
        resume = checkpoint.resume
        held = resume.optimizer_parameters if resume is not None else None
        if resume is None or held is None or not checkpoint.adapter_tensors:
            raise Unchecked("no folder with an adapter and the state of its optimizer")
        if str((checkpoint.adapter or {}).get("peft_type")) != "LORA":
            raise Unchecked("the tensors of other adapters than LoRA are not all trained")
        names = checkpoint.adapter_tensors
        lora, half = (sum(part in name for name in names) for part in (".lora_", ".lora_B"))
        if lora > held != half:
            what = f"the optimizer's state is of {held} parameters, and the adapter has {lora} tensors of LoRA"
        elif held > len(names) and not resume.further_weights:
            what = f"the optimizer's state is of {held} parameters, and the folder holds {len(names)} of them"
        else:
            return
        yield self.violation(
            what,
            Location("", "optimizer.pt"),
            surface=Surface.FILES,
            severity=Severity.ERROR if lora > held else Severity.WARNING,
            consequence=Consequence.FAILS if lora > held else Consequence.TRAINS_WRONG,
            evidence={"optimizer": held, "tensors": len(names)},
            fix=Fix("resume from a folder whose files are of one save", Safety.DISPLAY),
        )
