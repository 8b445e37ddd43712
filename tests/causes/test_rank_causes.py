"""Root causes that several ranks bring about, or what launches them, each with the exact violation that names it.

A test is named after the id of its cause, as in ``test_model_causes.py``. What FSDP and DDP make of a state is held against
real gloo processes, here or, for the matrices of KB701 to KB704, in ``test_ranks.py``.
"""

from __future__ import annotations

from types import SimpleNamespace
from unittest import mock

import gloo
import pytest
import rank_cases
import tiny
import torch
import transformers
from accelerate import Accelerator, dispatch_model
from peft import prepare_model_for_kbit_training
from script_cases import ADAPTED, LOADED, NEWEST
from script_cases import findings as said_of_script

import kbitlint
from kbitlint.context import Checkpointing, Strategy, TrainingContext

pytestmark = pytest.mark.usefixtures("preloaded")
LAYERS = ["model.layers.0", "model.layers.1"]
LINEARS = [
    f"model.layers.{layer}.{name}"
    for layer in (0, 1)
    for name in (
        *(f"self_attn.{side}_proj.base_layer" for side in "qkvo"),
        *(f"mlp.{side}_proj.base_layer" for side in ("gate", "up", "down")),
    )
]


def said(model, *codes, **context):
    """Every violation of these rules, as (code, path, severity)."""
    found = kbitlint.check(model, select=codes, trace=False, context=TrainingContext(**context)).violations
    return [(v.code, v.at.path, v.severity.value) for v in found]


def each(code, paths, severity):
    return sorted((code, path, severity) for path in paths)


# -------------------------------------------------------------------------------------------------------------- DDP


def test_ddp_reentrant_find_unused():
    model = tiny.with_lora(prepare_model_for_kbit_training(tiny.load(), gradient_checkpointing_kwargs={"use_reentrant": True}))
    ddp = {"strategy": Strategy.DDP, "sets_training_mode": True}

    assert said(model, "KB701", find_unused_parameters=True, **ddp) == each("KB701", LAYERS, "error")
    assert said(model, "KB701", find_unused_parameters=False, **ddp) == []
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    assert said(model, "KB701", find_unused_parameters=True, **ddp) == []


def test_device_map_auto_under_ddp():
    model = tiny.load()
    model.hf_device_map = {"model": 0, "lm_head": 1}

    assert said(model, "KB702", strategy=Strategy.DDP, world_size=2) == [("KB702", "", "error")]
    assert said(model, "KB702", strategy=Strategy.SINGLE) == []


@pytest.mark.parametrize("place", [0, 1, "cuda:0", "cuda:1", "cuda", "cpu"])
@pytest.mark.parametrize("device", ["cuda:0", "cuda:1", "cuda"])
def test_kbit_model_on_wrong_device(place, device):
    """accelerate's own check, told that this rank's device is another one, refuses exactly what is reported."""
    model = tiny.load()
    model.hf_device_map = {"": place}
    accelerator = Accelerator(cpu=True)
    with mock.patch.object(Accelerator, "device", torch.device(device)):
        try:
            accelerator.prepare_model(model)
            refused = False
        except ValueError as error:
            assert "on a different device than the one you're training on" in str(error)  # noqa: PT017  # what else may raise
            refused = True

    assert said(model, "KB708", device=device) == ([("KB708", "", "error")] if refused else [])
    assert said(tiny.load(kind="none"), "KB708", device=device) == []


def offloaded(tmp_path, place, kind="nf4"):
    """A model of which accelerate brings one part from the disk for each call."""
    names = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head")
    model = tiny.load(kind=kind)
    dispatch_model(model, {**dict.fromkeys(names, "cpu"), place: "disk"}, main_device="cpu", offload_dir=tmp_path)
    return tiny.with_lora(model, target_modules=["model.layers.1.self_attn.q_proj"])


def test_cpu_or_disk_offload_while_training(tmp_path):
    """A loop of one's own brings what is not packed; a packed weight comes without its state; accelerate refuses both."""
    packed = [path.replace(".base_layer", ".weight") for path in LINEARS if path.startswith("model.layers.0.")]
    layer, head = (offloaded(tmp_path / place, place) for place in ("model.layers.0", "lm_head"))

    assert said(layer, "KB707", "KB710") == [("KB707", "", "warning"), *each("KB710", packed, "error")]
    assert "no data" in str(raised(layer))
    assert said(head, "KB707", "KB710") == [("KB707", "", "warning")]
    assert tiny.step(head).trains
    for model in (layer, head):
        assert said(model, "KB707", sets_training_mode=True) == [("KB707", "", "error")]
        with pytest.raises(ValueError, match="with CPU or disk offload"):
            Accelerator(cpu=True).prepare_model(model.get_base_model())

    plain = offloaded(tmp_path / "plain", "model.layers.0", kind="none")
    assert said(plain, "KB707", "KB710", sets_training_mode=True) == []
    assert tiny.step(plain).trains


def raised(model):
    try:
        return tiny.step(model).error
    except NotImplementedError as error:
        return error


# ------------------------------------------------------------------------------------------------------------- FSDP


def test_fsdp_quant_storage_mismatch():
    fsdp1 = {"strategy": Strategy.FSDP1, "sets_training_mode": True}

    assert said(rank_cases.FSDP["uint8 storage"](), "KB703", "KB704", **fsdp1) == each("KB704", LINEARS, "error")
    assert said(rank_cases._uniform(torch.float32), "KB703", "KB704", **fsdp1) == each("KB703", LAYERS, "error")
    assert said(rank_cases._uniform(), "KB703", "KB704", **fsdp1) == []


def test_fsdp1_mixed_float_dtypes():
    prepared = rank_cases.FSDP["prepared, bfloat16 storage"]()

    assert said(prepared, "KB703", strategy=Strategy.FSDP1) == each("KB703", LAYERS, "error")
    assert said(rank_cases.FSDP["one dtype"](), "KB703", strategy=Strategy.FSDP1) == []


def test_fsdp2_uint8_params4bit_replicated():
    """accelerate's own preparation for FSDP2 leaves each rank the whole of the one, and half of the other."""
    for found in gloo.run("shard_sizes"):
        assert found == {
            "torch.uint8": (36864, 36864, [("KB704", "warning")]),
            "torch.bfloat16": (36864, 36864 // 2, []),
        }


@pytest.mark.parametrize("strategy", [Strategy.FSDP1, Strategy.FSDP2])
def test_fsdp_8bit_and_ptq_weights(strategy):
    assert said(rank_cases.FSDP["int8"](), "KB704", strategy=strategy) == each("KB704", LINEARS, "error")
    assert said(rank_cases.FSDP["int8"](), "KB704", strategy=Strategy.DDP) == []


class _Sharding(Accelerator):
    """An accelerator that says it has FSDP's plugin: without a GPU accelerate makes none."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.state.fsdp_plugin = SimpleNamespace(activation_checkpointing=self.checkpoints, limit_all_gathers=True)


@pytest.mark.parametrize(("own", "fsdp"), [(True, True), (True, False), (False, True)])
def test_fsdp_activation_checkpointing_twice(own, fsdp, tmp_path):
    """Trainer's own check refuses exactly what is reported as an error."""
    args = transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to=[], gradient_checkpointing=own)
    model = rank_cases._uniform()
    context = TrainingContext.from_training_arguments(args).updated(
        TrainingContext(strategy=Strategy.FSDP2, fsdp_checkpointing=fsdp)
    )
    report = kbitlint.check(model, select="KB724", trace=False, context=context)
    _Sharding.checkpoints = fsdp
    with mock.patch("transformers.trainer.Accelerator", _Sharding):
        try:
            transformers.Trainer(model=model, args=args)
            refused = False
        except ValueError as error:
            assert "activation" in str(error)  # noqa: PT017  # what else may raise
            refused = True

    assert [(v.at.path, v.severity.value) for v in report.violations] == ([("", "error")] if refused else [])
    assert refused == (own and fsdp)


def test_layers_that_checkpoint_under_fsdp_s_own_checkpoints_are_a_warning_in_a_loop_of_ones_own():
    model = rank_cases._uniform()
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    fsdp = {"strategy": Strategy.FSDP1, "fsdp_checkpointing": True}

    assert said(model, "KB724", **fsdp) == [("KB724", "", "warning")]
    assert said(model, "KB724", **fsdp, gradient_checkpointing=Checkpointing(enabled=True)) == [("KB724", "", "warning")]
    assert said(model, "KB724", **{**fsdp, "strategy": Strategy.DDP}) == []


def test_optimizer_8bit_incompatible_with_sharding():
    """Every optimizer of bitsandbytes fails on FSDP2's DTensors, the 32-bit ones too; FSDP1 hands out plain tensors."""
    for found in gloo.run("sharded_optimizers"):
        assert {case: verdict for case, (_, verdict) in found.items()} == {
            case: [("KB709", "error")] if outcome else [] for case, (outcome, _) in found.items()
        }
        assert sorted(name for (_, name), (outcome, _) in found.items() if outcome) == sorted(rank_cases.OPTIMIZERS[1:])


# ------------------------------------------------------------------------------------------------------------- ZeRO


def zero(stage):
    arguments = f"'out', gradient_checkpointing=True, deepspeed={{'zero_optimization': {{'stage': {stage}}}}}"
    return f"Trainer(model=model, args=TrainingArguments({arguments}), train_dataset=d).train()\n"


def test_zero3_nonreentrant_frozen_params():
    """A warning on source only: DeepSpeed 0.19.8 trains it (decision 15), 0.19.2 does not."""
    before = {**NEWEST, "deepspeed": "0.19.2"}
    found = said_of_script("KB723", LOADED + ADAPTED + zero(3), versions=before)

    assert [(severity, message) for severity, _, message in found] == [
        ("warning", "checkpointing without reentry finds the frozen weights taken apart by ZeRO-3")
    ]
    assert said_of_script("KB723", LOADED + ADAPTED + zero(2), versions=before) == []
    assert said_of_script("KB723", LOADED + zero(3), versions=before) == []
    assert said_of_script("KB723", LOADED + ADAPTED + zero(3)) == []


def test_zero3_with_device_map_or_ptq():
    """transformers itself refuses a device map where a configuration for ZeRO-3 is alive."""
    from transformers import modeling_utils
    from transformers.integrations import accelerate, deepspeed

    args = "args = TrainingArguments('out', deepspeed={'zero_optimization': {'stage': 3}})\n"
    load = LOADED.replace("dtype=torch", "device_map={'': 0}, dtype=torch")
    train = "Trainer(model=model, args=args, train_dataset=d).train()\n"

    found = said_of_script("KB721", args + load + train)
    assert [severity for severity, _, _ in found] == ["error"]
    assert said_of_script("KB721", args + LOADED + train) == []
    folder = tiny.checkpoint()
    asks = accelerate if tiny.TRANSFORMERS_5 else modeling_utils
    refused = pytest.raises(ValueError, match="Zero-3 is not compatible with passing a `device_map`")
    with mock.patch.object(asks, "is_deepspeed_zero3_enabled", return_value=True), refused:
        transformers.AutoModelForCausalLM.from_pretrained(folder, device_map={"": 0})
    assert not deepspeed.is_deepspeed_zero3_enabled()


# ------------------------------------------------------------------------------------------------- two passes differ


class _Remembers(transformers.models.llama.modeling_llama.LlamaMLP):
    """Computes something else each second time, as a layer does that reads a state which its first pass changed."""

    def forward(self, x):
        self.passes = getattr(self, "passes", 0) + 1
        hidden = super().forward(x)
        return hidden + super().forward(x) if self.passes % 2 else hidden


def test_nonreentrant_recompute_metadata_mismatch():
    model = tiny.with_lora(tiny.prepared())
    assert tiny.step(model).trains
    assert [v.code for v in kbitlint.check(model, select="KB304").violations] == []

    model.get_base_model().model.layers[1].mlp.__class__ = _Remembers

    (found,) = kbitlint.check(model, select="KB304").violations
    assert found.severity.value == "error"
    assert "different number of tensors" in found.message
    assert "different number of tensors" in tiny.step(model).error
