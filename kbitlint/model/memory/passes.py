"""The memory of passes without gradients: evaluation, and generation between the steps of TRL's online trainers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

from kbitlint.memory_result import Phase
from kbitlint.model.batch import loss_of, training_batch
from kbitlint.model.inspect.walk import collect
from kbitlint.model.memory.live_bytes import CUDA_BLOCK, LiveBytes
from kbitlint.model.memory.losses import tiled_loss
from kbitlint.model.trace.forward import ForwardPasses
from kbitlint.model.trace.step import UntraceableError, without_contents
from kbitlint.model.trace.twin import twin_of
from kbitlint.step_plan import Loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from kbitlint.context import TrainingContext
    from kbitlint.model.memory.ranks import Rank
    from kbitlint.step_plan import Evaluation, Generation, Passes, StepPlan

#: float32 tensors of one row of logits that a sampled token takes at once: the copy of the logits, processed scores, and
#: probabilities (``GenerationMixin._sample``, transformers 5.23)
_SAMPLED = 3


class PassMeter:
    """Measures passes of one model.

    Args:
        model: A model, live or on meta. It is only read.
        context: Autocast and length.
        plan: The loss of the run.
        held: Bytes that live between two steps.
        rank: The rank whose memory is asked for; None for a run on one card.
        device: The device whose kernels are simulated.
    """

    def __init__(  # each is one decision of the caller
        self, model: nn.Module, context: TrainingContext, plan: StepPlan, held: int, rank: Rank | None, device: str
    ) -> None:
        self.model, self.context, self.plan = model, context, plan
        self.held, self.rank, self.device = held, rank, device

    def measured(self, passes: Passes) -> Iterator[Phase]:
        """Yield the memory of each pass of a run. One that cannot run without weights names its reason."""
        seq_len = self.context.seq_len or 2048
        if passes.evaluation is not None:
            batch = passes.evaluation.batch
            words = ", ".join(filter(None, (f"{batch} x {seq_len} tokens", passes.evaluation.words)))
            yield self._guarded("evaluation", words, lambda: self._evaluation(passes.evaluation, seq_len))  # type: ignore[arg-type]  # not None
        if passes.generation is not None:
            wanted = passes.generation
            prompt = wanted.prompt or max(seq_len - wanted.completion, 1)
            words = f"{wanted.batch} x {prompt} + {wanted.completion} tokens"
            yield self._guarded("generation", words, lambda: self._generation(wanted, prompt))

    def _guarded(self, name: str, words: str, measure: Any) -> Phase:
        try:
            return Phase(name, words, *measure())
        except UntraceableError as error:
            return Phase(name, words, None, failure=str(error))

    def _passes(self, *, tiled: bool = False) -> ForwardPasses:
        twin = twin_of(self.model)
        if tiled:
            tiled_loss(twin)
        return ForwardPasses(twin, collect(self.model), self.device, self.context.autocast_dtype)

    def _live(self) -> LiveBytes:
        return LiveBytes(CUDA_BLOCK if self.device == "cuda" else 1)

    def _peak(self, live: LiveBytes) -> tuple[int, str]:
        """Return the most bytes of a rank, and the moment."""
        moments = {
            name: self.held + alive.total + (0 if self.rank is None else self.rank.beside(name, alive))
            for name, alive in live.moments.items()
        }
        at = max(moments, key=lambda name: moments[name])
        return moments[at], at

    def _evaluation(self, how: Evaluation, seq_len: int) -> tuple[int, str, int]:
        """Return the peak of an evaluation, the moment, and the bytes on the host, which gets logits in float32.

        The logits of earlier batches are held while a batch runs. Each new batch is joined to them, which holds both copies.
        """
        passes, live = self._passes(tiled=self.plan.loss is Loss.FUSED), self._live()

        def run(twin: Any) -> list[Tensor]:
            inputs = without_contents(training_batch(twin, "cpu", how.batch, seq_len))
            output = twin(**inputs)
            loss_of(output)
            found = [value for name, value in output.items() if name not in ("loss", "past_key_values")]
            return [tensor for tensor in tree_leaves(found) if isinstance(tensor, torch.Tensor)]

        outputs = passes.run(run, live)
        peak, at = self._peak(live)
        if not how.kept:
            return peak, at, 0
        each, host = sum(map(self._kept_bytes, outputs)), how.batches * sum(4 * tensor.numel() for tensor in outputs)
        joined = self.held + each * how.kept * (2 if how.joins and how.kept > 1 else 1)
        running = peak + each * (how.kept - 1)
        return (joined, "the join of kept logits", host) if joined > running else (running, at, host)

    def _kept_bytes(self, tensor: Tensor) -> int:
        """Return the bytes of an output as it is kept. accelerate makes outputs float32 under mixed precision."""
        wide = tensor.is_floating_point() and self.context.autocast_dtype in ("bfloat16", "float16")
        return tensor.numel() * (4 if wide else tensor.element_size())

    def _generation(self, how: Generation, prompt: int) -> tuple[int, str]:
        """Return the peak of a generation, and the moment: the prompt's pass, or that of the last token with a full cache."""
        passes = self._passes()

        def prefill(twin: Any, tokens: int, cache: Any = None) -> Any:
            ids = torch.ones(how.batch, tokens, dtype=torch.long)
            output = twin(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            logits = output.logits[:, -1]
            held = [logits.new_empty(logits.shape, dtype=torch.float32) for _ in range(_SAMPLED)]
            del held
            return output.past_key_values

        first, last = self._live(), self._live()
        passes.run(lambda twin: prefill(twin, prompt) and None, first)
        cache = passes.run(lambda twin: prefill(twin, prompt + how.completion - 2)) if how.completion > 1 else None
        ends = [(*self._peak(first), "the prompt")]
        if cache is not None:
            for tensor in _tensors(cache):
                last.see(tensor)
            passes.run(lambda twin: prefill(twin, 1, cache) and None, last)
            ends.append((*self._peak(last), "the last token"))
        peak, at, which = max(ends)
        return peak, f"{at}, {which}"


def _tensors(cache: Any, depth: int = 3) -> Iterator[Tensor]:
    """Yield the tensors of a cache: of its layers, lists and dictionaries."""
    if isinstance(cache, torch.Tensor):
        yield cache
        return
    inner = cache.values() if isinstance(cache, dict) else cache if isinstance(cache, (list, tuple)) else None
    if inner is None:
        inner = vars(cache).values() if hasattr(cache, "__dict__") else ()
    for value in inner if depth else ():
        if not isinstance(value, (str, int, float, torch.dtype, torch.device, type)):
            yield from _tensors(value, depth - 1)
