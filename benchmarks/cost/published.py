"""The memory table against peaks that others published, as far as they state geometry and settings.

    python -m benchmarks.cost.published [--json FILE]

Needs no GPU. A row is the longest context that fits a card, or a peak. The first kind is compared with the usable bytes of the
card, the second with the peak on the card. transformers before version 5 returned float32 logits, and Trainers held them: rows
of that time count them. The exit code is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import kbitlint
from benchmarks.goals import Goal, leave
from kbitlint.audit.open import open_target, target_of
from kbitlint.audit.options import options_of
from kbitlint.audit.run import model_of
from kbitlint.fixes.budget import AS_IT_IS, PREPARATIONS, prepared_twin
from kbitlint.fixes.lora import Lora
from kbitlint.memory_result import ON
from kbitlint.model.memory.step_memory import measure
from kbitlint.step_plan import StepPlan
from kbitlint.upstream import cards

#: name -> (hidden, intermediate, layers, heads, key heads, vocabulary)
GEOMETRIES = {
    "Llama-3.1-8B": (4096, 14336, 32, 32, 8, 128256),
    "Llama-3.3-70B": (8192, 28672, 80, 64, 8, 128256),
    "Llama-65B": (8192, 22016, 80, 64, 64, 32000),
    "Llama-2-7B": (4096, 11008, 32, 32, 32, 32000),
}


@dataclass(frozen=True)
class Published:
    """One published figure."""

    source: str
    geometry: str
    tokens: int
    rank: int
    measured: int
    """Bytes on the card."""
    quantize: str = "nf4"
    optimizer: str = "adamw_8bit"
    bound: bool = False
    """Whether the source gives no more than an upper bound."""
    held_logits: bool = True
    """Whether the program of that time held float32 logits."""


_UNSLOTH = "unsloth's documentation, longest context with Hugging Face and flash attention"
_FACTORY = "LLaMA-Factory's wiki, A100"
ROWS = (
    Published(_UNSLOTH, "Llama-3.1-8B", 932, 32, cards.find("12GB").total),
    Published(_UNSLOTH, "Llama-3.1-8B", 28454, 32, cards.find("80GB").total),
    Published(_UNSLOTH, "Llama-3.3-70B", 6916, 32, cards.find("80GB").total),
    Published(_FACTORY, "Llama-2-7B", 1024, 8, 6 * 10**9, optimizer="adamw"),
    Published(_FACTORY, "Llama-2-7B", 32768, 8, 32 * 10**9, optimizer="adamw"),
    Published(
        "QLoRA, table 6: one GPU of 48 GB", "Llama-65B", 512, 64, 48 * 10**9, "nf4-double", "paged_adamw_32bit", bound=True
    ),
)
#: the largest allowed median deviation, and the largest one without a named reason, as shares
GOALS = {"median": 0.10, "farthest": 0.25}


def told(row, place):
    """Return the bytes on the card that kbitlint gives for a row."""
    hidden, intermediate, layers, heads, keys, vocabulary = GEOMETRIES[row.geometry]
    folder = Path(place) / row.geometry
    folder.mkdir(exist_ok=True)
    sizes = {"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers, "vocab_size": vocabulary}
    kind = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "tie_word_embeddings": False}
    config = {**kind, **sizes, "num_attention_heads": heads, "num_key_value_heads": keys}
    (folder / "config.json").write_text(json.dumps(config))
    model = model_of(open_target(target_of(str(folder)), options_of({"quantize": row.quantize})).live)
    context = kbitlint.TrainingContext(autocast_dtype="bfloat16", batch_size=1, seq_len=row.tokens)
    twin = prepared_twin(model, PREPARATIONS[AS_IT_IS], context, Lora(row.rank, "all-linear"))
    peak = measure(AS_IT_IS, twin, context, StepPlan(row.optimizer), modes=(ON,), owned=True).steps[ON].peak
    return cards.on_card(peak + (4 * row.tokens * vocabulary if row.held_logits else 0), 1.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as place:
        for row in ROWS:
            here = told(row, place)
            sign = "<=" if row.bound else "  "
            print(
                f"{row.geometry:<14}{row.tokens:>7} tokens  {here / 1e9:6.1f} GB told  {sign}{row.measured / 1e9:5.1f} GB  ",
                end="",
            )
            print(f"{here / row.measured - 1:+7.1%}  {row.source}", flush=True)
            found.append((row, here / row.measured))
    return leave(goals(found), options.json, ratios={f"{row.geometry}, {row.tokens}": ratio for row, ratio in found})


def goals(found):
    """Yield the goals for the deviations, and for the bounds that the table keeps."""
    away = [abs(ratio - 1) for row, ratio in found if not row.bound]
    kept = [ratio <= 1 for row, ratio in found if row.bound]
    yield Goal(f"peak on the card against {len(away)} published ones: median", statistics.median(away), GOALS["median"], "%")
    yield Goal(f"peak on the card against {len(away)} published ones: farthest", max(away), GOALS["farthest"], "%")
    yield Goal("published upper bounds that the table keeps", sum(kept), len(kept), "", at_least=True, of=len(kept))


if __name__ == "__main__":
    sys.exit(main())
