"""Rule KB120: adapters-unfit-for-grad-scaler."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.guards import recasts
from kbitlint.facts.source import Action
from kbitlint.facts.training import Loop
from kbitlint.facts.values import Call
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.trl_casts import cast_since, refused_before
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.training import Training


class AdaptersUnfitForGradScaler(Rule):
    """Adapters in 16 bits under float16 mixed precision, whose gradient scaler needs float32.

    ## What it does

    Reports float16 mixed precision (`fp16=True`, or a `GradScaler`) for a quantized model whose adapters are not
    float32. Three causes make adapters 16-bit: `half()`, `autocast_adapter_dtype=False`, and TRL trainers, which cast
    the adapters of every quantized model to bfloat16. A fourth concerns models that are not quantized as well:
    `modules_to_save` copies the modules of a model in float16 as they are. Where a callback of the file casts parameters to
    float32, what TRL casts is not reported.

    Float16 adapters are an error: torch refuses to unscale their gradients on every device. Bfloat16 adapters are a
    warning: CUDA had no kernel to unscale them in the versions that were checked.

    ## Why is this bad?

    The first optimizer step raises `Attempting to unscale FP16 gradients`, or
    `_amp_foreach_non_finite_check_and_unscale_cuda not implemented for 'BFloat16'`.

    ## Example

    `SFTTrainer(model, args=SFTConfig(fp16=True), peft_config=LoraConfig(...))` on a 4-bit model.

    ## Fix

    Train in bfloat16: replace `fp16=True` by `bf16=True`.

    ## Fix safety

    Unsafe: the forward pass runs in another dtype, which older GPUs emulate. Display only if the training arguments do
    not contain `fp16`, or set `bf16` as well.

    ## References

    - https://github.com/huggingface/peft/issues/341
    - https://github.com/huggingface/peft/issues/1249
    - https://github.com/huggingface/trl/issues/4901
    - https://github.com/pytorch/pytorch/issues/127176
    """

    meta: ClassVar[Meta] = Meta(
        code="KB120",
        slug="adapters-unfit-for-grad-scaler",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.1.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each training of 16-bit adapters with a gradient scaler on every path."""
        by_hand = any(True for _ in source.steps_at(Action.PREPARED_BY_HAND))  # casts parameters that a filter chooses
        for trained in source.trained(quantized=True):
            dtypes = {getattr(model.adapters, "dtype", None) for model in trained.models}
            narrow = len(dtypes) == 1 and dtypes <= {"float16", "bfloat16"}
            scaled = all(training.fp16 is True for training in trained.paths)
            copies = not by_hand and all(map(_narrow_copies, trained.paths))
            if not (scaled and trained.certain and (narrow or copies)):
                continue
            dtype = dtypes.pop() if narrow else "float16"
            since = cast_since(source.versions, trained.call) if dtype == "bfloat16" else ""
            arguments = trained.paths[0].arguments
            if since and refused_before(source.versions, trained.call, trained.models[0], arguments):
                continue  # only a TRL that casts nothing takes the call
            if since and recasts(source.text):
                continue
            what = "the adapters are" if narrow else "what modules_to_save copies is"
            given = arguments.argument("fp16") if arguments is not None and not arguments.gives("bf16") else None
            edits = source.rename_argument(given, "bf16") if given is not None else ()
            title = "train in bfloat16: bf16=True"
            yield self.violation(
                f"{what} {dtype}{since}{trained.where}, and the gradient scaler of float16 training unscales float32 only",
                source.at(arguments or trained.call),
                surface=Surface.SOURCE,
                severity=Severity.ERROR if dtype == "float16" else Severity.WARNING,
                consequence=None if dtype == "float16" else Consequence.FRAGILE,
                evidence={"adapter_dtype": dtype},
                fix=Fix(title, Safety.UNSAFE, edits) if edits else Fix(title, Safety.DISPLAY),
            )


def _narrow_copies(training: Training) -> bool:
    """Return whether a Trainer of transformers gets copies of float16 modules, which PEFT leaves in their dtype.

    ``autocast_adapter_dtype`` casts adapters only (``cast_adapter_dtype`` of PEFT 0.21). TRL casts all that trains.
    """
    model = training.model
    config = model.adapters.config if model.adapters is not None else None
    saved = config.value("modules_to_save") if isinstance(config, Call) else None
    return (
        model.dtype == "float16"
        and isinstance(saved, tuple)
        and bool(saved)
        and training.loop is Loop.TRAINER
        and training.call.callee.startswith("transformers.")
    )
