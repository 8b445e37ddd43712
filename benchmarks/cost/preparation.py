"""The cost of preparing a model, and of a step afterwards: unprepared, PEFT's prepare, kbitlint's fix.

    python -m benchmarks.cost.preparation [--meta | --real | --cuda] [--rounds N] [--json FILE]

``--meta``: four published geometries are built in nf4 on the meta device, prepared in turns, and take one step without
weights. ``--real``: models with random weights are quantized on the CPU, which needs up to 8 GB of memory, most of it
for PEFT. Each preparation runs in a process of its own, whose peak resident memory is read while it prepares and while
it trains. Then all of them are timed in turns in one warm process. ``--cuda`` does the same with Llama-3-8B's geometry on
a GPU and reads ``torch.cuda.max_memory_allocated``; it first writes 16 GB to the temporary folder.

In every state, layers checkpoint without reentry and LoRA of rank 16 is on all linear layers. Steps run under autocast
only with ``--amp bf16``. The exit code is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import re
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.simplefilter("ignore")

import torch
import transformers
from peft import LoraConfig, get_peft_model

import kbitlint
from benchmarks.goals import Goal, leave
from benchmarks.truth.preparations import PREPARATIONS, quantization
from kbitlint.context import TrainingContext
from kbitlint.memory_result import ON
from kbitlint.model.batch import loss_of, training_batch
from kbitlint.model.build.meta import instantiate
from kbitlint.model.inspect.walk import collect
from kbitlint.model.layers import checkpointing
from kbitlint.model.memory.step_memory import measure
from kbitlint.step_plan import StepPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOTHING, PEFT, KBITLINT, UNTRACED, UNSAFE = "nothing", "PEFT", "kbitlint", "kbitlint, no trace", "kbitlint, unsafe"
#: name -> the function that prepares a freshly loaded model
PREPARE: dict[str, Callable[[Any], Any]] = {
    NOTHING: lambda _: None,
    PEFT: PREPARATIONS["peft"].prepare,
    KBITLINT: kbitlint.fix,
    UNTRACED: lambda model: kbitlint.fix(model, trace=False),
    UNSAFE: lambda model: kbitlint.fix(model, unsafe=True),
}
#: the largest allowed ratios to PEFT: of extra weight bytes, of bytes kept for backward, of time
EXTRA_GOAL, SAVED_GOAL, TIME_GOAL = 0.01, 0.65, 1.0
#: the number of timed steps, of which the fastest counts
STEPS = 2


@dataclass(frozen=True)
class Geometry:
    """The class and the sizes of a model."""

    name: str
    family: str
    sizes: dict[str, Any]

    def cls(self) -> Any:
        return getattr(transformers, f"{self.family}ForCausalLM")

    def config(self) -> Any:
        name = "Gemma3TextConfig" if self.family == "Gemma3" else f"{self.family}Config"
        made = getattr(transformers, name)(**self.sizes, pad_token_id=0)
        made.architectures = [f"{self.family}ForCausalLM"]
        return made


def sizes(hidden: int, intermediate: int, layers: int, heads: tuple[int, int], vocab: int, **further: Any) -> dict[str, Any]:
    named = {"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers, "vocab_size": vocab}
    return {**named, "num_attention_heads": heads[0], "num_key_value_heads": heads[1], "tie_word_embeddings": False, **further}


_QWEN3 = {"head_dim": 128, "moe_intermediate_size": 768, "num_experts_per_tok": 8}
LLAMA_8B = Geometry("Llama-3-8B", "Llama", sizes(4096, 14336, 32, (32, 8), 128256))
META = (
    LLAMA_8B,
    Geometry("Mixtral-8x7B", "Mixtral", sizes(4096, 14336, 32, (32, 8), 32000, num_local_experts=8, num_experts_per_tok=2)),
    Geometry("Qwen3-30B-A3B", "Qwen3Moe", sizes(2048, 6144, 48, (32, 4), 151936, num_experts=128, **_QWEN3)),
    Geometry("Gemma-3-12B", "Gemma3", sizes(3840, 15360, 48, (16, 8), 262208, head_dim=256, tie_word_embeddings=True)),
)
REAL = (
    Geometry("Llama-3.2-1B", "Llama", sizes(2048, 8192, 16, (32, 8), 128256, tie_word_embeddings=True)),
    Geometry(
        "Mixtral, a quarter as wide, 8 layers",
        "Mixtral",
        sizes(1024, 3584, 8, (8, 2), 32000, num_local_experts=8, num_experts_per_tok=2),
    ),
    Geometry(
        "Qwen3-30B-A3B, 4 layers of 16 experts", "Qwen3Moe", sizes(2048, 6144, 4, (32, 4), 151936, num_experts=16, **_QWEN3)
    ),
    Geometry("Gemma-3-1B", "Gemma3", sizes(1152, 6912, 26, (4, 1), 262144, head_dim=256, tie_word_embeddings=True)),
)


@dataclass(frozen=True)
class State:
    """The cost of a model after one preparation, in bytes and seconds."""

    weights: int
    """Bytes of the base weights that are not quantized."""
    activations: int
    """Bytes that the layers keep for backward, with checkpointing. Logits and loss are left out if they can be separated."""
    saved: int
    """Bytes kept for backward, including the logits and the loss."""
    prepared: int = 0
    """Peak memory while preparing. 0 on meta."""
    peak: int = 0
    """Peak memory of a step. On meta it is computed, not measured."""
    step: float = 0.0
    """Seconds of a step. 0 on meta."""


def build(geometry: Geometry) -> Any:
    """Return the model on meta as ``from_pretrained`` would load it."""
    return instantiate(geometry.cls(), geometry.config(), quantization(), torch.bfloat16)


def with_lora(model: Any) -> Any:
    return get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))


def unquantized_bytes(model: Any) -> int:
    """Return the bytes of the base weights in floating point."""
    parameters = collect(model).parameters
    return sum(one.nbytes for one in parameters if one.floating and not one.packed and not one.adapter)


def state_on_meta(geometry: Geometry, name: str, context: TrainingContext) -> State:
    """Prepare a model on meta, and return the cost of a step without weights.

    Raises:
        SystemExit: If the step cannot be traced.
    """
    model = build(geometry)
    PREPARE[name](model)
    weights = unquantized_bytes(model)
    with torch.device("meta"):
        adapted = with_lora(model)
    found = measure(name, adapted, context, StepPlan(), modes=(ON,))
    if found.failure:
        raise SystemExit(f"{geometry.name}, {name}: {found.failure}")
    step = found.steps[ON]
    return State(weights, step.activations, step.activations + step.logits, peak=step.peak)


def save(geometry: Geometry, folder: str, device: str) -> None:
    """Write a quantized checkpoint with random weights to a folder, through ``from_pretrained``."""
    _quietly()
    with tempfile.TemporaryDirectory() as whole:
        transformers.set_seed(0)
        with torch.device(device):
            made = geometry.cls()._from_config(geometry.config(), dtype=torch.bfloat16)  # noqa: SLF001  # the way to a dtype
        made.save_pretrained(whole)
        del made
        load(geometry, whole, device, quantization_config=quantization()).save_pretrained(folder)


def _quietly() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def load(geometry: Geometry, folder: str, device: str, **arguments: Any) -> Any:
    _quietly()
    return geometry.cls().from_pretrained(folder, device_map={"": device}, dtype=torch.bfloat16, **arguments)


@dataclass(frozen=True)
class Meter:
    """A meter of the peak memory and the elapsed time of a device."""

    device: str

    def reset(self) -> None:
        if self.device == "cpu":
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak of resident memory (proc(5), clear_refs)
        else:
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        if self.device != "cpu":
            return int(torch.cuda.max_memory_allocated())
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) * 1024 if found else 0

    def seconds(self, function: Callable[[], Any]) -> float:
        self._wait()
        start = time.perf_counter()
        function()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def state_for_real(geometry: Geometry, folder: str, device: str, name: str, context: TrainingContext) -> State:
    """Load a model, prepare it, train it for one step, and measure the steps after it."""
    meter, model = Meter(device), load(geometry, folder, device)
    meter.reset()
    PREPARE[name](model)
    prepared, weights = meter.peak(), unquantized_bytes(model)
    if name == NOTHING:
        checkpointing.enable(model, use_reentrant=False)
    transformers.set_seed(0)
    model = with_lora(model).train()
    batch = training_batch(model, device, context.batch_size or 1, context.seq_len or 2048)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])

    def step() -> None:
        with _autocast(device, context):
            loss = loss_of(model(**batch))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    meter.reset()
    seconds = min(meter.seconds(step) for _ in range(STEPS))
    peak = meter.peak()
    return State(weights, *_kept(model, batch, device, context), prepared, peak, seconds)


def _kept(model: Any, batch: dict[str, Any], device: str, context: TrainingContext) -> tuple[int, int]:
    """Return the bytes that a forward pass keeps for backward: without and with the logits and the loss.

    Each storage counts once. Those of the model itself do not count.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}
    layers: set[int] = set()
    ended = False

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault(storage.data_ptr(), storage)
        if not ended:
            layers.add(storage.data_ptr())
        return tensor

    def end(*_: Any) -> None:
        nonlocal ended
        ended = True

    handle = model.get_base_model().get_output_embeddings().register_forward_pre_hook(end)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), _autocast(device, context):
        loss_of(model(**batch))
    handle.remove()
    sizes = {address: storage.nbytes() for address, storage in kept.items() if address not in own}
    return sum(size for address, size in sizes.items() if address in layers), sum(sizes.values())


def _autocast(device: str, context: TrainingContext) -> contextlib.AbstractContextManager[Any]:
    if context.autocast_dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.split(":", maxsplit=1)[0], getattr(torch, str(context.autocast_dtype)))


def times(make: Callable[[], Any], names: list[str], rounds: int, device: str) -> dict[str, float]:
    """Return the seconds of each preparation: the least of several rounds in turns, after a warm-up round."""
    meter = Meter(device)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names:
            model = make()
            seconds = meter.seconds(lambda name=name, model=model: PREPARE[name](model))
            if number:
                found[name].append(seconds)
            kbitlint.undo(model)  # the journal of a fix would keep the model alive
            del model
    return {name: min(seconds) for name, seconds in found.items()}


def times_for_real(geometry: Geometry, folder: str, device: str, names: list[str], rounds: int) -> dict[str, float]:
    return times(lambda: load(geometry, folder, device), names, rounds, device)


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a new process, so that its memory is measured alone, and return its result."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def goals(where: str, states: dict[str, State], seconds: dict[str, float]) -> Iterator[Goal]:
    """Yield the goals: kbitlint's extra bytes, activations and time, as ratios to PEFT's."""
    extra = {name: state.weights - states[NOTHING].weights for name, state in states.items()}
    yield Goal(f"{where}: extra weight bytes / PEFT's", extra[KBITLINT] / extra[PEFT], EXTRA_GOAL)
    if UNSAFE in states:
        yield Goal(f"{where}: the same, unsafe", extra[UNSAFE] / extra[PEFT], EXTRA_GOAL)
    for name in (KBITLINT, UNSAFE):
        if name in states:
            ratio = states[name].activations / states[PEFT].activations
            yield Goal(f"{where}: saved activations / PEFT's{', unsafe' * (name == UNSAFE)}", ratio, SAVED_GOAL)
    for name in (KBITLINT, UNTRACED) if states[PEFT].step else ():  # on meta a cast costs nothing
        what = "fix time" if name == KBITLINT else "fix time without trace"
        yield Goal(f"{where}: {what} / PEFT's", seconds[name] / seconds[PEFT], TIME_GOAL)


def table(where: str, states: dict[str, State], seconds: dict[str, float]) -> Iterator[str]:
    """Yield the lines of a table with the figures of each state."""
    names = [name for name in PREPARE if name in states or name in seconds]
    yield f"\n{where:<38}" + "".join(f"{name:>20}" for name in names)
    for what, field in (
        ("unquantized weights", "weights"),
        ("saved activations", "activations"),
        ("the same with logits and loss", "saved"),
        ("peak while preparing", "prepared"),
        ("peak of a step", "peak"),
    ):
        values = [getattr(states[name], field) if name in states else None for name in names]
        if any(values):
            yield f"{what:<38}" + "".join(f"{'' if value is None else _bytes(value):>20}" for value in values)
    if any(state.step for state in states.values()):
        cells = (f"{states[name].step:.2f} s" if name in states else "" for name in names)
        yield f"{'a step':<38}" + "".join(f"{cell:>20}" for cell in cells)
    cells = (f"{seconds[name] * 1000:,.0f} ms" if name in seconds else "" for name in names)
    yield f"{'preparing, warm':<38}" + "".join(f"{cell:>20}" for cell in cells)


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def names_for(geometry: Geometry) -> list[str]:
    """Return the states that are measured. Unsafe fixes are left out for models without experts."""
    return [name for name in PREPARE if name != UNSAFE or "num_experts_per_tok" in geometry.sizes]


def on_meta(geometries: tuple[Geometry, ...], context: TrainingContext, rounds: int) -> Iterator[tuple[str, Any, Any]]:
    """Yield (geometry, states, seconds) of each geometry on meta."""
    for geometry in geometries:
        names = names_for(geometry)
        seconds = times(lambda geometry=geometry: build(geometry), names[1:], rounds, "cpu")
        states = {name: state_on_meta(geometry, name, context) for name in names if name != UNTRACED}
        yield f"{geometry.name}, on meta", states, seconds


def for_real(
    geometries: tuple[Geometry, ...], context: TrainingContext, rounds: int, device: str
) -> Iterator[tuple[str, Any, Any]]:
    """Yield (geometry, states, seconds) of each geometry with random weights on a device."""
    for geometry in geometries:
        names = names_for(geometry)
        with tempfile.TemporaryDirectory() as folder:
            in_own_process(save, geometry, folder, device)
            states = {
                name: in_own_process(state_for_real, geometry, folder, device, name, context)
                for name in names
                if name != UNTRACED
            }
            seconds = in_own_process(times_for_real, geometry, folder, device, names[1:], rounds)
        yield f"{geometry.name}, {device}", states, seconds


def measured(options: argparse.Namespace) -> Iterator[tuple[str, Any, Any]]:
    """Yield (geometry, states, seconds) of the parts that the options select."""

    def context(tokens: int) -> TrainingContext:
        autocast = {"no": "float32", "bf16": "bfloat16"}[options.amp]
        return TrainingContext(autocast_dtype=autocast, batch_size=1, seq_len=options.tokens or tokens)

    def chosen(*geometries: Geometry) -> tuple[Geometry, ...]:
        return tuple(one for one in geometries if not options.only or one.name.startswith(tuple(options.only)))

    if options.cuda:
        yield from for_real(chosen(LLAMA_8B), context(2048), options.rounds, "cuda:0")
        return
    if not options.real:
        yield from on_meta(chosen(*META), context(2048), options.rounds)
    if not options.meta:
        yield from for_real(chosen(*REAL), context(32), options.rounds, "cpu")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--meta", action="store_true", help="only what needs no weights")
    part.add_argument("--real", action="store_true", help="only what has weights, on the CPU")
    part.add_argument("--cuda", action="store_true", help="Llama-3-8B's geometry on a GPU instead")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this geometry only; repeatable")
    parser.add_argument("--amp", choices=("no", "bf16"), default="no", help="the autocast region of the step")
    parser.add_argument("--tokens", type=int, help="tokens of the one sequence; 2048, and 32 on the CPU")
    parser.add_argument("--rounds", type=int, default=3, help="times that each preparation is timed")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    if options.cuda and not torch.cuda.is_available():
        parser.error("--cuda: there is no CUDA here")
    found: list[Goal] = []
    told: dict[str, Any] = {}
    for where, states, seconds in measured(options):
        print("\n".join(table(where, states, seconds)), flush=True)
        found += goals(where, states, seconds)
        told[where] = {"states": {name: vars(state) for name, state in states.items()}, "seconds": seconds}
    print()
    return leave(found, options.json, measured=told)


if __name__ == "__main__":
    sys.exit(main())
