"""What training takes in bytes: counted against real tensors, simulated against real allocations."""

from __future__ import annotations

import json

import peft
import pytest
import tiny
import torch
from allocations import peak_of
from trace_cases import wrap_layer

import kbitlint
from kbitlint.memory_result import OFF, ON
from kbitlint.model.batch import training_batch
from kbitlint.model.inspect.walk import collect
from kbitlint.model.memory.live_bytes import LiveBytes
from kbitlint.model.memory.step_memory import measure
from kbitlint.model.trace.cost import run_twin
from kbitlint.model.trace.dispatch_mode import MetaKernels
from kbitlint.model.trace.function_mode import PretendCPU
from kbitlint.model.trace.ledger import Ledger
from kbitlint.model.trace.trace import trace
from kbitlint.model.trace.twin import twin_of
from kbitlint.step_plan import StepPlan

SMALL = kbitlint.TrainingContext(autocast_dtype="float32", batch_size=2, seq_len=64)


def state_of(model, **arguments):
    return measure("as it is", model, SMALL, StepPlan(**({"every": 2} | arguments)))


def test_resident_bytes_are_those_of_the_tensors():
    model = tiny.with_lora(tiny.prepared())
    resident = state_of(model).resident
    base = tiny.adapters_base(model)
    packed = [module.base_layer.weight for module in model.modules() if hasattr(module, "base_layer")]
    norms = [parameter for name, parameter in model.named_parameters() if "norm" in name]

    assert resident == {
        "quantized weights": sum(weight.nbytes for weight in packed),
        "quantization state": sum(weight.quant_state.absmax.nbytes + weight.quant_state.code.nbytes for weight in packed),
        "norms": sum(norm.nbytes for norm in norms),
        "embeddings and head": base.model.embed_tokens.weight.nbytes + base.lm_head.weight.nbytes,
        "other weights": 0,
        "adapters": sum(parameter.nbytes for name, parameter in model.named_parameters() if "lora_" in name),
        "buffers": sum(buffer.nbytes for buffer in model.buffers()),
        "other models": 0,
    }
    everything = {parameter.data_ptr(): parameter.nbytes for parameter in model.parameters()}
    assert sum(resident.values()) == sum(everything.values()) + resident["quantization state"] + resident["buffers"]


def test_the_state_of_double_quantization_is_smaller():
    plain, nested = (state_of(tiny.with_lora(tiny.load(bnb_4bit_use_double_quant=nested))) for nested in (False, True))
    model = tiny.load(bnb_4bit_use_double_quant=True)
    states = [module.weight.quant_state for module in model.modules() if hasattr(module, "compute_dtype")]
    tensors = [t for s in states for t in (s.absmax, s.code, s.offset, s.state2.absmax, s.state2.code)]

    assert nested.resident["quantization state"] == sum(tensor.nbytes for tensor in tensors)
    assert plain.resident["quantized weights"] == nested.resident["quantized weights"]


def test_int8_keeps_a_number_for_each_row():
    model = tiny.with_lora(tiny.load(kind="int8"))
    rows = sum(module.base_layer.out_features for module in model.modules() if hasattr(module, "base_layer"))

    assert state_of(model).resident["quantization state"] == 4 * rows


def test_gradients_and_optimizer_state_follow_the_trainable_parameters():
    model = tiny.with_lora(tiny.prepared(), r=64)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    tiny.step(model)
    optimizer.step()
    real = sum(value.nbytes for state in optimizer.state.values() for value in state.values() if value.dim())
    states = {name: state_of(model, optimizer=name).optimizer for name in ("adamw", "adamw8bit", "paged_adamw_8bit", "sgd")}

    assert state_of(model).gradients == sum(parameter.grad.nbytes for parameter in trained)
    assert states == {
        "adamw": real,
        "adamw8bit": sum(round((2 + 8 / 256) * p.numel()) if p.numel() >= 4096 else 8 * p.numel() for p in trained),
        "paged_adamw_8bit": sum(round((2 + 8 / 256) * p.numel()) if p.numel() >= 4096 else 8 * p.numel() for p in trained),
        "sgd": 0,
    }


@pytest.mark.parametrize(
    "family", ["llama", "gpt_neox (fused QKV, LayerNorm)", "t5 (encoder-decoder)", "qwen3_moe (MoE, q and k norms)"]
)
def test_modes_of_checkpointing_are_ordered(family):
    steps = state_of(tiny.with_lora(tiny.prepared(family))).steps

    assert list(steps) == [OFF, ON, "every 2nd layer"]
    off, on, between = steps.values()
    assert on.activations < between.activations < off.activations
    assert on.peak < between.peak < off.peak
    assert on.logits == off.logits > 0


def test_a_class_that_cannot_checkpoint_is_measured_without():
    model = tiny.with_lora(tiny.prepared())
    type(tiny.adapters_base(model)).supports_gradient_checkpointing, before = False, True
    try:
        assert list(state_of(model).steps) == [OFF]
    finally:
        type(tiny.adapters_base(model)).supports_gradient_checkpointing = before


@pytest.mark.parametrize("family", ["llama", "gpt2 (Conv1D)", "gemma3 (1 + weight)"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_simulated_peak_is_that_of_a_real_step(family, checkpointed):
    """On the CPU, whose allocations the profiler records; weights and optimizer state aside."""
    from kbitlint.model.batch import loss_of, training_batch

    model = tiny.with_lora(tiny.prepared(family))
    if not checkpointed:
        tiny.adapters_base(model).gradient_checkpointing_disable()
    model.train()
    batch = training_batch(model, "cpu", 4, 64)
    loss_of(model(**batch)).backward()
    model.zero_grad(set_to_none=True)
    real = peak_of(model, lambda: loss_of(model(**batch)).backward())
    live = LiveBytes()
    context = kbitlint.TrainingContext(autocast_dtype="float32", batch_size=4, seq_len=64)
    run_twin(twin_of(model), context, facts=collect(model), live=live, device="cpu")

    assert live.peak == pytest.approx(real, rel=0.05)


def test_views_of_the_models_own_tensors_do_not_count():
    live = LiveBytes()
    weight = torch.empty(100, dtype=torch.uint8)
    live.own(weight)
    live.see(weight[3:])

    assert live.peak == 0


def test_freed_tensors_do_not_count():
    live = LiveBytes()
    first = torch.empty(100, dtype=torch.uint8)
    live.see(first)
    live.see(first[10:])
    del first
    second = torch.empty(60, dtype=torch.uint8)
    live.see(second)

    assert (live.peak, live.now) == (100, 60)


# ------------------------------------------------------------------------------------------- for people


def test_three_states_stand_side_by_side():
    report = kbitlint.memory(tiny.load(), batch=2, seq_len=64, lora="r=4,targets=all-linear")
    as_it_is, peft, ours = report.states

    assert [state.name for state in report.states] == ["as it is", "PEFT's prepare", "kbitlint's fix"]
    assert peft.resident["embeddings and head"] == 2 * ours.resident["embeddings and head"]
    assert ours.resident["norms"] == peft.resident["norms"] == 2 * as_it_is.resident["norms"]
    assert as_it_is.steps[ON].activations == ours.steps[ON].activations < peft.steps[ON].activations
    assert (report.batch, report.plan.optimizer, report.autocast) == ((2, 64), "adamw", None)


def test_the_model_is_untouched():
    model = tiny.with_lora(tiny.load())
    before = tiny.state(model)

    kbitlint.memory(model, seq_len=16)

    assert tiny.state(model) == before


def test_adapters_that_are_there_are_measured_as_they_are():
    model = tiny.with_lora(tiny.load(), r=2)
    report = kbitlint.memory(model, seq_len=16)

    assert {state.resident["adapters"] for state in report.states} == {
        sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    }
    assert report.notes == ()


def test_the_table_fits_80_columns(run):
    result = run("memory", tiny.checkpoint(), "--quantize", "nf4", "--seq-len", "32", "--lora", "r=4,targets=q_proj+v_proj")
    lines = result.stdout.splitlines()

    assert (result.exit_code, result.stderr) == (0, "")
    assert max(map(len, lines)) <= 80
    assert [
        line.split("  ")[0] for line in lines if line.startswith(("quantized", "norms", "adapters", "gradients", "logits"))
    ] == [
        "quantized weights",
        "norms",
        "adapters",
        "gradients",
        "logits and loss",
    ]
    assert (
        "with LoRA r=4 on q_proj, v_proj" in " ".join(lines).replace("  ", "").replace("\n", " ") or "LoRA r=4" in result.stdout
    )
    chart = lines.index("the step as it is, checkpointed, layer by layer")
    assert sum("█" in line for line in lines[:chart]) == 3
    assert lines[chart + 9].split() == ["forward", "backward", "update"]


def test_json_holds_bytes(run):
    result = run("memory", tiny.checkpoint(), "--quantize", "nf4", "--seq-len", "32", "--format", "json", "--optimizer", "sgd")
    told = json.loads(result.stdout)

    assert (told["version"], told["batch_size"], told["seq_len"], told["optimizer"]) == (1, 1, 32, "sgd")
    assert [state["name"] for state in told["states"]] == ["as it is", "PEFT's prepare", "kbitlint's fix"]
    assert set(told["states"][0]["steps"][ON]) == {"activations", "logits", "peak", "peak_at", "on_card", "timeline"}
    timeline = told["states"][0]["steps"][ON]["timeline"]
    assert max(moment["total"] for moment in timeline) == told["states"][0]["steps"][ON]["peak"]
    assert timeline[-1]["name"] == "the optimizer's step"
    assert told["states"][0]["optimizer"] == 0


#: what PEFT raises where no target is found: a class of its own, or before that ValueError
NO_MATCH = "NoMatchingPeftModuleError" if hasattr(peft.utils, "NoMatchingPeftModuleError") else "ValueError"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--lora", "r=0"), "--lora r=0: r must be a positive number, not '0'"),
        (("--lora", "rank=4"), "--lora rank=4: 'rank=4' is none of r=RANK, targets=all-linear, targets=q_proj+v_proj"),
        (
            ("--lora", "r=4,targets=nowhere"),
            f"--lora: PEFT cannot attach it: {NO_MATCH}: Target modules {{'nowhere'}} not found",
        ),
    ],
)
def test_bad_arguments_are_one_line(run, arguments, line):
    result = run("memory", tiny.checkpoint(), "--quantize", "nf4", *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"kbitlint: {line}")
    assert result.stderr.count("\n") == 1


def test_bad_arguments_in_python_are_one_line_too():
    with pytest.raises(kbitlint.KbitlintError, match=r"optimizer 'adam' is none of adamw, .*; did you mean 'adamw'"):
        kbitlint.memory(tiny.load(), optimizer="adam")
    with pytest.raises(kbitlint.KbitlintError, match="every must be 2 or more, not 1"):
        kbitlint.memory(tiny.load(), every=1)


def test_a_state_that_cannot_be_measured_says_why(monkeypatch):
    import peft

    def refuses(*args, **kwargs):
        raise ValueError("planted")

    monkeypatch.setattr(peft, "prepare_model_for_kbit_training", refuses)
    report = kbitlint.memory(tiny.load(), seq_len=16)

    assert [state.failure for state in report.states] == [None, "ValueError: planted", None]
    assert "PEFT's prepare: not measured: ValueError: planted" in str(report)


class Attention(torch.nn.Module):
    """Attention alone: three projections, of as many heads and sequences as it is given."""

    def __init__(self, heads, sequences, **options):
        super().__init__()
        self.projections = torch.nn.ModuleList(torch.nn.Linear(8, 8 * number) for number in heads)
        self.heads, self.sequences, self.options = heads, sequences, options

    def forward(self, hidden):
        projected = [projection(hidden) for projection in self.projections]
        parts = [
            part[:several].unflatten(-1, (number, 8)).transpose(1, 2)
            for part, number, several in zip(projected, self.heads, self.sequences, strict=True)
        ]
        return torch.nn.functional.scaled_dot_product_attention(*parts, **self.options).mean()


@pytest.mark.parametrize(
    ("heads", "sequences", "options"),
    [
        ((4, 4, 4), (2, 2, 2), {}),
        ((4, 1, 1), (2, 2, 2), {}),
        ((4, 2, 2), (2, 2, 2), {"enable_gqa": True}),
        ((4, 4, 4), (2, 1, 1), {}),
        ((4, 4, 4), (2, 2, 2), {"attn_mask": torch.ones(16, 16, dtype=torch.bool)}),
        ((4, 4, 4), (2, 2, 2), {"attn_mask": torch.ones(4, 16, 16, dtype=torch.bool)}),
    ],
    ids=["alike", "one-key-head", "grouped", "one-key-sequence", "mask", "mask-of-heads"],
)
def test_attention_keeps_its_scores_where_no_fused_kernel_takes_it(heads, sequences, options):
    def kept(model, hidden):
        found = {}

        def pack(tensor):
            found[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(hidden)
        return sorted(found.values())

    torch.manual_seed(0)
    model = Attention(heads, sequences, **options)
    real = kept(model, torch.zeros(2, 16, 8))
    ledger = Ledger("cpu")
    with MetaKernels(ledger), PretendCPU(ledger):
        traced = kept(twin_of(model), torch.empty(2, 16, 8, device="meta"))

    assert traced == real


def test_what_is_kept_where_something_else_lay_before_is_counted():
    """A storage that is freed leaves its address to the next one."""

    def forgetful(layer, hidden, *args, **kwargs):
        for _ in range(20):
            hidden.sin().cos()  # kept for a backward pass that never comes
        return layer(hidden, *args, **kwargs)

    model = tiny.with_lora(tiny.prepared())
    wrap_layer(model, 1, forgetful)  # what enters it requires grad
    kept = {}

    def pack(tensor):
        kept.setdefault(tensor.untyped_storage()._cdata, tensor.untyped_storage())
        return tensor

    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(**training_batch(model, "cpu", 2, 16)).loss  # noqa: B018  # forward is what keeps

    traced = trace(model, kbitlint.TrainingContext(autocast_dtype="float32"), device="cpu").saved_bytes
    assert traced == sum(storage.nbytes() for address, storage in kept.items() if address not in own)
