"""What kbitlint says of CUDA, against a real GPU: kernels, autocast, traced steps, the fix and its probe, memory.

No other test needs a GPU. Without one these are skipped, and ``docs/evidence.md`` says when they last ran.
"""

from __future__ import annotations

import json
import shutil

import pytest
import tiny
import torch
import transformers
from kernel_cases import CALLS, HALF, MIXED, NORMS, PROMOTING, WIDE, Emulated, outcome
from trace_cases import NO_AUTOCAST, bare_norms

import kbitlint
from kbitlint.context import TrainingContext
from kbitlint.model.batch import loss_of, training_batch
from kbitlint.model.probe import probe
from kbitlint.model.trace import kernel_dtypes
from kbitlint.model.trace.trace import trace

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("name", [*MIXED, *PROMOTING, *NORMS])
@pytest.mark.parametrize(
    ("first", "second"), [(HALF, WIDE), (WIDE, HALF), (torch.float16, HALF), (HALF, HALF), (WIDE, WIDE), (torch.float16, WIDE)]
)
def test_the_table_refuses_what_the_kernel_refuses(name, first, second):
    real, said = outcome({**MIXED, **PROMOTING, **NORMS}[name], first, second, "cuda", on="cuda")

    assert said is real


@pytest.mark.parametrize("call", [torch.fft.fft, torch.fft.rfft, torch.fft.ifft2], ids=lambda call: call.__name__)
@pytest.mark.parametrize("dtype", [HALF, torch.float16, WIDE])
def test_fourier_transforms(call, dtype):
    values = torch.ones(2, 4, 8, dtype=dtype, device="cuda")
    try:
        call(values)
        real = False
    except RuntimeError:
        real = True

    assert bool(kernel_dtypes.refused_function(call.__name__, (values,), "cuda")) is real


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [HALF, torch.float16, WIDE])
def test_autocast_gives_the_dtypes_that_the_table_says(name, dtype):
    with torch.device("cuda"):
        value = torch.ones(4, 4, dtype=dtype)
        with torch.autocast("cuda", HALF):
            real = CALLS[name](value).dtype
        with Emulated("cuda"):
            emulated = CALLS[name](value).dtype

    assert emulated is real


def prepared(family, how):
    """Return a model on the GPU, frozen, with adapters, in a state that people train in."""
    model = tiny.load(family, device="cuda")
    if how == "peft":
        from peft import prepare_model_for_kbit_training

        prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
    elif how == "fixed":
        kbitlint.fix(model)
    elif how == "bare norms":
        return bare_norms(family, device="cuda")
    return tiny.with_lora(model)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("how", ["as loaded", "bare norms", "peft", "fixed"])
@pytest.mark.parametrize("autocast", ["float32", "bfloat16"])
def test_the_traced_step_is_the_real_one(family, how, autocast):
    model = prepared(family, how)
    traced = trace(model, TrainingContext(autocast_dtype=autocast))
    model.train()
    error = None
    try:
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast == "bfloat16"):
            loss = loss_of(model(**training_batch(model, "cuda")))
        loss.backward()
    except RuntimeError as raised:
        error = str(raised)

    said = bool(traced.refusals or traced.failure)
    assert said is (error is not None), (error, traced.refusals[:3], traced.failure)
    if error is None:
        real = {name.removeprefix("base_model.model.") for name, one in model.named_parameters() if one.grad is not None}
        assert {one.path for one in traced.gradients if one.arrives} == real


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_fixed_model_passes_its_probe_and_is_restored(family):
    model = prepared(family, "fixed")
    values = {name: one.detach().clone() for name, one in model.named_parameters()}
    random = torch.cuda.get_rng_state()

    result = probe(model)

    reached = [one for one in trace(model, NO_AUTOCAST).gradients if one.arrives]  # a text alone does not reach Llava's tower
    assert result.failure is None
    assert (result.device, result.gradients, result.stepped) == ("cuda:0", len(reached), True)
    assert result.peak_bytes > 0
    assert torch.equal(torch.cuda.get_rng_state(), random)
    assert all(torch.equal(one, values[name]) for name, one in model.named_parameters())


def test_fix_of_a_folder_uses_cuda_by_default(run, tmp_path):
    folder = shutil.copytree(tiny.checkpoint("llama"), tmp_path / "model")

    result = run("check", "--fix", folder, "--quantize", "nf4", "--format", "json")

    (target,) = json.loads(result.stdout)["targets"]
    assert result.exit_code == 0, result.output
    assert target["violations"] == []
    assert (target["fixed"]["probe"]["device"], target["fixed"]["probe"]["failure"]) == ("cuda:0", None)
    assert kbitlint.load_prepared(folder).device.type == "cuda"


def test_a_model_that_does_not_fit_is_one_line_and_writes_nothing(run, tmp_path):
    config = transformers.LlamaConfig(
        hidden_size=512, intermediate_size=512, num_hidden_layers=1, num_attention_heads=4, vocab_size=100_000
    )
    folder = tmp_path / "model"
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    before = sorted(folder.iterdir())
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (1 << 20)) / torch.cuda.mem_get_info()[1])
    try:
        result = run("check", "--fix", folder, "--quantize", "nf4")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith(f"kbitlint: {folder}: does not fit on cuda: ")
    assert result.stderr.count("\n") == 1
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("family", ["llama", "gpt_neox (fused QKV, LayerNorm)", "gemma3 (1 + weight)"])
def test_a_prepared_model_has_nothing_left(family):
    model = tiny.load(family, device="cuda")
    kbitlint.fix(model, unsafe=True)

    report = kbitlint.check(tiny.with_lora(model), context=NO_AUTOCAST)

    assert report.violations == ()


def test_undo_gives_back_every_byte():
    model = tiny.load("llama", device="cuda")
    before = {name: (one.dtype, one.detach().clone()) for name, one in model.named_parameters()}
    kbitlint.fix(model, unsafe=True)

    kbitlint.undo(model)

    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[name].dtype is dtype and torch.equal(after[name], value) for name, (dtype, value) in before.items())
