"""The settings of a measured step: loss, optimizer, accumulation, length and LoRA, beside what torch and a card say."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from pathlib import Path

import pytest
import tiny
import torch
import transformers
from allocations import peak_of

import kbitlint
from kbitlint.context.launch import Launch
from kbitlint.context.strategy import Strategy
from kbitlint.fixes.lora import Lora, parse_lora
from kbitlint.fixes.measured_target import launch_of
from kbitlint.memory_result import OFF, ON
from kbitlint.model.batch import loss_of, training_batch
from kbitlint.model.inspect.walk import collect
from kbitlint.model.memory import losses, step_memory
from kbitlint.model.memory.live_bytes import LiveBytes
from kbitlint.model.trace.cost import run_twin
from kbitlint.model.trace.twin import twin_of
from kbitlint.step_plan import StepPlan
from kbitlint.upstream import optimizers

CONTEXT = kbitlint.TrainingContext(autocast_dtype="float32", batch_size=4, seq_len=64)
RECORDED = Path(__file__).parents[2] / "benchmarks" / "cost" / "data" / "h200.json"


def first_state(**options):
    return kbitlint.memory(tiny.load(), context=CONTEXT, **options).states[0]


def test_the_state_of_torchs_optimizers_is_that_of_real_ones():
    from transformers.optimization import Adafactor

    shapes = [(64, 32), (48,)]
    real = {
        "adamw_torch": torch.optim.AdamW,
        "sgd": torch.optim.SGD,
        "rmsprop": torch.optim.RMSprop,
        "adagrad": torch.optim.Adagrad,
        "adafactor": Adafactor,
    }
    told, held = {}, {}
    for name, cls in real.items():
        trained = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
        optimizer = cls(trained)
        for parameter in trained:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        tensors = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
        held[name] = sum(tensor.nbytes for tensor in tensors if tensor.dim())
        told[name] = sum(sum(optimizers.find(name).state(shape, 4)) for shape in shapes)

    assert told == held


def lora_shapes():
    """Return the shapes of LoRA r=16 on all linear layers of Llama-3-8B."""
    sizes = {(4096, 4096): 2, (4096, 1024): 2, (4096, 14336): 2, (14336, 4096): 1}
    layer = [shape for (fan_in, fan_out), count in sizes.items() for shape in [(16, fan_in), (fan_out, 16)] * count]
    return layer * 32


@pytest.mark.parametrize(
    ("setup", "name"),
    [("usual", "adamw"), ("optimizer=adamw_8bit", "adamw_8bit"), ("optimizer=paged_adamw_8bit", "paged_adamw_8bit")],
)
def test_the_state_on_the_device_is_what_a_card_held(setup, name):
    step = next(step for step in json.loads(RECORDED.read_text())["steps"] if step["setup"] == setup)
    adapters = 4 * step["trained"]
    base = 6129050624 if name == "adamw" else step["base"]  # the first step allocates the workspace of autograd's thread
    device, host = map(sum, zip(*(optimizers.find(name).state(shape, 4) for shape in lora_shapes()), strict=True))

    assert device == pytest.approx(step["before"] - base - adapters, rel=0.003)
    assert (host > 0) == ("paged" in name)


def test_an_unknown_optimizer_names_the_nearest():
    with pytest.raises(kbitlint.KbitlintError, match=r"optimizer 'adamw_9bit' is none of adamw, .*; did you mean 'adamw_8bit'"):
        kbitlint.memory(tiny.load(), optimizer="adamw_9bit")


def test_outputs_that_a_loop_keeps_hold_the_logits():
    """On the CPU, whose allocations the profiler records."""
    model = tiny.with_lora(tiny.prepared())
    tiny.adapters_base(model).gradient_checkpointing_disable()
    model.train()
    batch = training_batch(model, "cpu", 4, 64)

    def step():
        outputs = model(**batch)
        loss_of(outputs).backward()
        return outputs

    step()
    model.zero_grad(set_to_none=True)
    real = peak_of(model, step)
    live = LiveBytes()
    run_twin(twin_of(model), CONTEXT, facts=collect(model), live=live, device="cpu", keeps_outputs=True)

    assert live.peak == pytest.approx(real, rel=0.05)


def test_a_loss_in_tiles_holds_no_logits():
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=2**18
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    full, tiled = (kbitlint.memory(model, context=CONTEXT, loss=loss).states[0] for loss in ("full", "fused"))
    tokens = 4 * 64

    assert tiled.steps[OFF].logits < full.steps[OFF].logits - tokens * 2**18 * 2
    assert tiled.steps[OFF].activations == full.steps[OFF].activations
    assert tiled.steps[OFF].peak < full.steps[OFF].peak


def test_a_tile_is_as_wide_as_trls_for_a_small_vocabulary_too():
    kernel = pytest.importorskip("trl.kernels.chunked_logprob", reason="TRL before 1.16 has no loss in tiles")
    from trl.trainer import utils

    hidden, targets = torch.randn(300, 64, requires_grad=True), torch.zeros(300, dtype=torch.long)
    weight = torch.randn(256, 64)

    def step():
        kernel.ChunkedLogProbFunction.apply(hidden, weight, None, targets, 1.0, losses.COLUMNS)[0].sum().backward()

    step()
    assert (losses.ROWS, losses.COLUMNS) == (kernel.TOKEN_CHUNK_SIZE, utils._CHUNKED_LOGPROB_CHUNK_SIZE)
    assert peak_of(None, step) == pytest.approx(sum(one.nbytes for one in losses._tile(hidden, weight, torch.float32)), rel=0.1)


def test_a_step_is_the_same_before_and_after_a_checkpointed_one():
    """transformers hooks the embeddings of a model with adapters where it enables checkpointing."""
    meter = step_memory.StepMeter(twin_of(tiny.with_lora(tiny.load())))
    longer = dataclasses.replace(CONTEXT, seq_len=128)
    before = meter.measure("", longer, StepPlan(), modes=(OFF,))
    checkpointed = meter.measure("", CONTEXT, StepPlan(), modes=(ON,))
    after = meter.measure("", CONTEXT, StepPlan(), modes=(OFF,))
    alone = step_memory.measure("", meter.twin, CONTEXT, StepPlan(), modes=(OFF,))

    assert after == alone
    assert checkpointed.steps[ON].peak < after.steps[OFF].peak < before.steps[OFF].peak


def test_a_model_without_such_a_head_is_named():
    with pytest.raises(kbitlint.KbitlintError, match="--loss fused: T5ForConditionalGeneration has no language model's head"):
        kbitlint.memory(tiny.load("t5 (encoder-decoder)"), loss="fused", seq_len=32)


def test_accumulation_holds_the_gradients_of_an_earlier_batch():
    once, often = (first_state(accumulation=count) for count in (1, 4))

    assert once.gradients / 2 < often.steps[OFF].peak - once.steps[OFF].peak <= once.gradients


def test_rotary_positions_have_no_limit_and_a_table_has_one():
    short, long = (kbitlint.memory(tiny.load(), seq_len=length).states[0].steps[ON] for length in (128, 512))
    usual = kbitlint.memory(tiny.load("gpt2 (Conv1D)"), context=kbitlint.TrainingContext())

    assert long.activations == pytest.approx(4 * short.activations, rel=0.01)
    assert usual.batch == (1, 128)
    with pytest.raises(kbitlint.KbitlintError, match="--seq-len 512: GPT2LMHeadModel has a table of 128 positions"):
        kbitlint.memory(tiny.load("gpt2 (Conv1D)"), seq_len=512)


@pytest.mark.parametrize(
    ("text", "lora"),
    [
        ("r=8", Lora(8, "all-linear")),
        ("targets=q_proj+v_proj,dropout=0.05,alpha=16", Lora(16, ("q_proj", "v_proj"), alpha=16, dropout=0.05)),
        ("dora,rslora=yes", Lora(16, "all-linear", dora=True, rslora=True)),
        (r"targets=.*\.(q|v)_proj", Lora(16, r".*\.(q|v)_proj")),
        (
            "ranks=down_proj:64+q_proj:4,exclude=lm_head",
            Lora(16, "all-linear", exclude=("lm_head",), ranks={"down_proj": 64, "q_proj": 4}),
        ),
        ("save=embed_tokens,layers=0-1", Lora(16, "all-linear", save=("embed_tokens",), layers=(0, 1))),
    ],
)
def test_loras_are_read(text, lora):
    assert parse_lora(text) == lora


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("dropout=1", "dropout must be from 0 to below 1, not '1'"),
        ("alpha=x", "alpha must be a positive number, not 'x'"),
        ("dora=maybe", "dora is yes or no, not 'maybe'"),
        ("layers=3-1", "layers must be like 0-15, not '3-1'"),
        ("ranks=q_proj", "the rank of 'q_proj' must be a positive number, not 'q_proj'"),
        ("targets=(", "targets is no regular expression"),
        ("drop=0.1", "'drop=0.1' is none of r=RANK, .*; did you mean 'dropout'"),
    ],
)
def test_bad_loras_are_one_line(text, line):
    with pytest.raises(kbitlint.KbitlintError, match=line):
        parse_lora(text)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"batch": 0}, "batch must be 1 or more, not 0"),
        ({"batch": True}, "batch must be a whole number, not True"),
        ({"batch": "2"}, "batch must be a whole number, not '2'"),
        ({"seq_len": math.nan}, "seq_len must be a whole number, not nan"),
        ({"seq_len": 1}, "seq_len must be 2 or more, not 1"),
        ({"gpus": 2.0}, "gpus must be a whole number, not 2.0"),
        ({"lora": 7}, "lora must be a string, not 7"),
        ({"strategy": 5}, "strategy must be a string, not 5"),
        ({"batch": 2**20, "seq_len": 128}, "--batch 1048576: no more than 699050 sequences of 128 tokens are measured"),
        (
            {"context": kbitlint.TrainingContext(strategy=Strategy.ZERO3)},
            "the training is spread over cards (zero3), and nothing says over how many: pass --gpus N",
        ),
    ],
)
@pytest.mark.parametrize("command", [kbitlint.memory, functools.partial(kbitlint.fit, gpu="24GB")], ids=["memory", "fit"])
def test_arguments_that_nothing_can_be_measured_with_are_one_line(command, given, line):
    with pytest.raises(kbitlint.KbitlintError, match=f"^{re.escape(line)}$"):
        command(tiny.load(), **given)


def test_a_launch_file_says_whether_weights_lie_on_the_host():
    shared = kbitlint.TrainingContext(strategy=Strategy.FSDP2, offload=True, world_size=2)

    assert launch_of(None, None, shared, offload=False) == Launch("fsdp2", 2, offload=True)
    assert launch_of("ddp", 2, shared, offload=False) == Launch("ddp", 2)
    assert launch_of(None, 1, shared, offload=False) == Launch()


def test_patterns_and_dora_reach_peft():
    plain, wide, dora = (first_state(lora=spec, seq_len=16) for spec in ("r=4", "r=4,ranks=q_proj:8", "r=4,dora"))

    assert wide.resident["adapters"] - plain.resident["adapters"] == 2 * 4 * 4 * (64 + 64)
    assert dora.failure is None
    assert dora.resident["adapters"] > plain.resident["adapters"]


def test_double_quantization_on_load(run):
    plain, double = (
        json.loads(run("memory", tiny.checkpoint(), "--quantize", kind, "--seq-len", "16", "--format", "json").stdout)
        for kind in ("nf4", "nf4-double")
    )
    sizes = [told["states"][0]["resident"]["quantization state"] for told in (plain, double)]

    assert sizes[0] != sizes[1]
    assert plain["states"][0]["resident"]["quantized weights"] == double["states"][0]["resident"]["quantized weights"]
