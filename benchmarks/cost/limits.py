"""Answers of ``kbitlint fit`` beside real steps on the CPU, which raise above an artificial limit of bytes.

    python -m benchmarks.cost.limits [--json FILE]

For each tiny quantized set-up, kbitlint gives the largest batch and the longest sequence that fit a limit. Real steps then run
under a limit that counts what each operator returns. The largest must run within 1.1 times the limit, and the next one must
not run within 0.9 times. A stopped run goes on from ``benchmarks/limits.jsonl``. The exit code is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.simplefilter("ignore")

from benchmarks.goals import Goal, Kept, leave
from kbitlint.context import TrainingContext
from kbitlint.context.launch import Launch
from kbitlint.fixes.fit import STRIDE, Asked, fit_of
from kbitlint.model.layers.adapters import base_of
from kbitlint.model.layers.checkpointing import enable
from kbitlint.step_plan import StepPlan
from kbitlint.upstream import cards
from tests.support import allocations, tiny

RECORD = Path(__file__).parents[1] / "limits.jsonl"
FAMILIES = (
    *("llama", "phi3 (fused QKV)", "gpt_neox (fused QKV, LayerNorm)", "gpt2 (Conv1D)", "gemma3 (1 + weight)"),
    *("t5 (encoder-decoder)", "qwen3_moe (MoE, q and k norms)"),
)
#: the batch whose peak is the limit, and its tokens
BATCH, SEQ_LEN = 5, 32
#: largest difference between a real step and the answer, as a share of the limit
SLACK = 0.10


def adapted(family, *, checkpointed):
    """Return a quantized model with LoRA."""
    model = tiny.with_lora(tiny.load(family).requires_grad_(requires_grad=False))
    if checkpointed:
        enable(base_of(model), use_reentrant=False)
    return model


def fitted(model, total, batch, *, checkpointed):
    """Return the answer of fit for a run on the CPU whose allocator may give out so many bytes."""
    asked = Asked(cards.host(total), Launch(), StepPlan(), "all" if checkpointed else "none", None)
    context = TrainingContext(autocast_dtype="float32", batch_size=batch, seq_len=SEQ_LEN)
    return fit_of(model, context, asked, ("", ()))


def answers(family, *, checkpointed):
    """Yield (what, whether the largest runs, whether the next does, the same with slack) for one set-up."""
    model = adapted(family, checkpointed=checkpointed)
    total = fitted(model, 10**12, BATCH, checkpointed=checkpointed).memory.peak + 1000
    largest = fitted(model, total, 1, checkpointed=checkpointed).largest
    (batch, tokens), *longer = largest
    shapes = [("batch", (batch, tokens), (batch + 1, tokens))]
    shapes += [("length", (one, most), (one, most + STRIDE)) for one, most in longer]
    for what, inside, beyond in shapes:
        exact, slack = (
            (
                allocations.runs_within(round(total * (1 + share)), model, *inside),
                allocations.runs_within(round(total * (1 - share)), model, *beyond),
            )
            for share in (0, SLACK)
        )
        yield f"{what} {inside[0]} x {inside[1]}", exact, slack


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    found = {}
    for how, what, exact, slack in records():
        found[f"{how}, {what}"] = (exact, slack)
        ran, beyond = exact
        print(f"{how:<56}{what:<16}{'runs' if ran else 'RAISES'}, the next {'RUNS' if beyond else 'raises'}", flush=True)
    return leave(goals(found), options.json, answers=found)


def records():
    """Yield (set-up, what, whether each runs, the same with slack); those of an earlier run are read from the file."""
    kept = Kept(RECORD)
    for family in FAMILIES:
        for checkpointed in (False, True):
            how = f"{family}, {'checkpointed' if checkpointed else 'no checkpointing'}"
            for what, exact, slack in kept.get(how, lambda: list(answers(family, checkpointed=checkpointed))):  # noqa: B023  # called here
                yield how, what, exact, slack


def goals(found):
    """Yield the goals: the largest run that fits does run, and the next does not; with slack and exactly."""
    kept = sum(ran and not beyond for _, (ran, beyond) in found.values())
    exact = sum(ran and not beyond for (ran, beyond), _ in found.values())
    yield Goal(
        f"largest that fits runs and the next does not, within {SLACK:.0%}", kept, len(found), "", at_least=True, of=len(found)
    )
    yield Goal(
        "largest that fits runs and the next does not, exactly", exact, 0.8 * len(found), "", at_least=True, of=len(found)
    )


if __name__ == "__main__":
    sys.exit(main())
