"""Root causes that users reported, each built on a tiny model, with the exact violation that names it.

A test is named after the id of its cause. What scripts and files show is in ``test_file_causes.py``, what only several
ranks show in ``test_rank_causes.py``, the second list in ``test_gradient_causes.py``,
``test_layer_causes.py`` and ``test_folder_causes.py``, what nothing shows in ``causes.md``.
"""

from __future__ import annotations

import re
from pathlib import Path

import plants
import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training

import kbitlint
from kbitlint.context import Checkpointing, Strategy, TrainingContext

HERE = Path(__file__).parent
LISTED = (HERE / "causes.md").read_text(encoding="utf-8")
IDS = [
    "missing-input-require-grads-reentrant",
    "kbit-prepare-implicit-reentrant",
    "stacked-embedding-hooks",
    "ddp-reentrant-find-unused",
    "ddp-unused-adapter-params",
    "checkpointing-inactive-in-eval-mode",
    "gc-not-supported-by-class",
    "nonreentrant-recompute-metadata-mismatch",
    "benign-none-of-inputs-warning",
    "prepare-after-get-peft-model",
    "adapter-loaded-inference-mode",
    "pure-kbit-model-no-adapters",
    "non-quantized-base-params-left-trainable",
    "kbit-prepare-on-unquantized-model",
    "custom-adapter-name-zero-trainable",
    "fp32-upcast-of-embeddings-and-head",
    "layernorm-low-precision",
    "mixed-dtype-after-partial-upcast",
    "fp16-trainable-params-grad-scaler",
    "bf16-params-with-fp16-scaler",
    "peftmodel-half-bypasses-guard",
    "compute-dtype-fp32-default",
    "compute-dtype-fp16-on-bf16-model",
    "int8-forces-fp16-activations",
    "prequantized-config-wins-over-user-config",
    "non-quantized-dtype-follows-checkpoint",
    "flash-attention-fp32-inputs",
    "skip-modules-clears-default-lm-head",
    "vision-tower-quantized-by-default",
    "moe-fused-experts-not-quantized",
    "moe-experts-upcast-to-fp32-by-prepare",
    "moe-experts-not-adapted",
    "mha-out-proj-quantized",
    "load-in-4bit-kwarg-removed",
    "int8-has-fp16-weights",
    "modules-to-save-on-quantized-module",
    "fsdp-quant-storage-mismatch",
    "quanto-prepare-crash",
    "prepare-skips-checkpointing-for-unlisted-methods",
    "quant-method-not-trainable",
    "tied-embeddings-untied-by-modules-to-save",
    "resized-embeddings-not-trained",
    "adapter-vocab-size-mismatch",
    "device-map-auto-under-ddp",
    "kbit-model-on-wrong-device",
    "cpu-or-disk-offload-while-training",
    "parameters-on-meta-device-at-wrap-time",
    "loftq-on-already-quantized-base",
    "pissa-on-quantized-base",
    "dora-quantized-specifics",
    "empty-adapter-tensors",
    "merge-into-kbit-weights",
    "merge-base-differs-from-training-base",
    "leftover-quantization-config",
    "pretraining-tp-slices-packed-weights",
    "checkpointing-enabled-twice-last-wins",
    "device-map-auto-spills-kbit-to-cpu",
    "dataparallel-wraps-non-bnb-quantized",
    "fsdp1-mixed-float-dtypes",
    "fsdp2-uint8-params4bit-replicated",
    "fsdp-8bit-and-ptq-weights",
    "fsdp-quantized-full-load-per-rank",
    "fsdp-activation-checkpointing-twice",
    "context-parallel-plus-nonreentrant-lora",
    "zero3-nonreentrant-frozen-params",
    "zero3-adapter-fp32-vs-bf16-base",
    "zero3-with-device-map-or-ptq",
    "zero2-reentrant-or-shared-params-reduced-twice",
    "zero3-moe-not-leaf",
    "stateful-adapter-lost-in-recompute",
    "all-linear-or-suffix-target-hits-vision",
    "vlm-mixed-modality-rank-desync",
    "request-vs-checkpoint-quantization-conflict",
    "ptq-inference-only-kernel",
    "mxfp4-silently-dequantized",
    "fused-lora-kernel-on-packed-linear",
    "kbit-prep-fp32-residual-memory",
    "classification-head-frozen-or-uninitialised",
    "optimizer-8bit-incompatible-with-sharding",
    "no-trainable-params-or-all-masked",
]

#: the second list, built in ``test_gradient_causes.py``, ``test_layer_causes.py`` and ``test_folder_causes.py``
FURTHER = [
    "missing-hook-non-text-input",
    "input-hook-masks-zero-trainable",
    "checkpointing-cannot-be-turned-off",
    "reentrant-tensors-as-kwargs",
    "prefix-tuning-with-checkpointing",
    "trainable-adapter-not-active",
    "nested-peft-model",
    "lm-head-cast-without-input-cast",
    "float-quant-storage-corrupted-by-cast",
    "biased-task-head-quantized",
    "skip-modules-prefix-mismatch",
    "lora-on-mha-out-proj-ignored",
    "bnb-config-argument-typo-ignored",
    "prequantized-checkpoint-new-head-init",
    "modules-to-save-packed-weight-silent",
    "no-layer-actually-quantized",
    "tied-weights-broken-by-reassignment",
    "adapter-keys-do-not-match-model",
    "lora-b-all-zero-after-training",
    "stale-kbit-flags-after-dequantize",
    "ranks-adapt-different-modules",
    "fsdp2-mixed-trainable-dtypes",
    "old-format-checkpointing-ignores-kwargs",
    "reentrant-grad-loss-hidden-by-trainable-head",
    "vlm-vision-lora-no-grad",
    "head-adapter-bypassed-by-fused-loss",
    "optimizer-holds-stale-params",
    "tied-head-linear4bit-holding-float",
    "packed-weight-without-quant-state",
    "weight-read-directly-but-packed",
    "linear-subclass-silently-not-quantized",
    "no-peft-dispatcher-for-layer",
    "requested-target-not-attached",
]

LAYERS = ["model.layers.0", "model.layers.1"]
EMBEDDINGS = ["lm_head.weight", "model.embed_tokens.weight"]
MIXTRAL, LLAVA = "mixtral (MoE)", "llava (vision-language)"
EXPERTS = [f"model.layers.{i}.mlp.experts.{name}" for i in (0, 1) for name in ("down_proj", "gate_up_proj")]
Q_PROJ = [f"model.layers.{i}.self_attn.q_proj" for i in (0, 1)]
STACKED_HOOKS = [("KB302", "model.embed_tokens", "info")] if tiny.TRANSFORMERS_5 else []
FACTORS = [f"{layer}.lora_{factor}.default.weight" for layer in Q_PROJ for factor in "AB"]


def adapted(model, targets=("q_proj",), **config):
    targets = list(targets) if isinstance(targets, tuple) else targets
    return get_peft_model(model, LoraConfig(**{"r": 4, "target_modules": targets, **config}))


def said(model, *codes, **context):
    """Every violation of these rules, as (code, path, severity)."""
    found = kbitlint.check(model, select=codes, context=TrainingContext(**context)).violations
    return [(v.code, v.at.path, v.severity.value) for v in found]


def each(code, paths, severity):
    return [(code, path, severity) for path in paths]


def test_every_cause_is_tested_or_listed_with_a_reason():
    listed = re.findall(r"^- `([a-z0-9-]+)`: \S", LISTED, flags=re.MULTILINE)
    texts = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    known = [*IDS, *FURTHER]
    tested = [id_ for id_ in known if f"\ndef test_{id_.replace('-', '_')}(" in texts]

    assert (len(set(IDS)), len(set(known))) == (80, 113)
    assert sorted(listed + tested) == sorted(known)


# -------------------------------------------------------------------------------------- gradients and checkpoints


def test_missing_input_require_grads_reentrant():
    model = adapted(tiny.prepared())
    tiny.bind_reentrant(model.get_base_model(), use_reentrant=True)

    assert said(model, "KB301") == each("KB301", LAYERS, "error")
    assert "does not require grad" in tiny.step(model).error


def test_kbit_prepare_implicit_reentrant():
    assert said(prepare_model_for_kbit_training(tiny.load()), "KB401") == each("KB401", LAYERS, "warning")


def test_stacked_embedding_hooks():
    """transformers 5 installs one where it turns checkpointing on, and PEFT's prepare another; 4 installs none."""
    assert said(prepare_model_for_kbit_training(tiny.load()), "KB302") == STACKED_HOOKS


def test_checkpointing_enabled_twice_last_wins():
    model = prepare_model_for_kbit_training(tiny.load(), gradient_checkpointing_kwargs={"use_reentrant": True})
    assert said(model, "KB401") == each("KB401", LAYERS, "warning")

    model.gradient_checkpointing_enable({"use_reentrant": False})

    assert said(model, "KB302", "KB401") == STACKED_HOOKS


def test_checkpointing_inactive_in_eval_mode():
    model = adapted(tiny.prepared())
    model.get_base_model().model.layers.eval()

    assert said(model, "KB403") == each("KB403", LAYERS, "warning")


def test_gc_not_supported_by_class():
    model = tiny.load()
    model.supports_gradient_checkpointing = False

    assert said(model, "KB402") == [("KB402", "", "info")]
    assert said(model, "KB402", gradient_checkpointing=Checkpointing(enabled=True)) == [("KB402", "", "error")]


def test_benign_none_of_inputs_warning():
    """The tower's layers warn that none of their inputs requires grad; nothing in them is meant to train."""
    model = adapted(tiny.prepared(LLAVA), r".*language_model.*q_proj", init_lora_weights=False)
    tiny.bind_reentrant(model.get_base_model(), use_reentrant=True)
    model.get_base_model().get_input_embeddings().register_forward_hook(
        lambda module, args, output: output.requires_grad_(True)
    )

    assert said(model, "KB301", "KB303") == []
    assert tiny.step(model).trains


def test_stateful_adapter_lost_in_recompute():
    """PEFT tells transformers' own checkpointed layers again; other modules that checkpoint are flagged by KB305."""
    model = adapted(tiny.prepared(), task_type="CAUSAL_LM", alora_invocation_tokens=[5, 6])
    assert said(model, "KB305") == each("KB305", LAYERS[:1], "error")
    model.get_base_model().enable_input_require_grads()
    assert said(model, "KB305") == []

    for layer in model.get_base_model().model.layers:
        layer.__class__ = type("RemoteLayer", (_RemoteLayer,), {})

    assert said(model, "KB305") == each("KB305", LAYERS, "error")


class _RemoteLayer(torch.nn.Module):
    def forward(self, hidden, **_):
        return torch.utils.checkpoint.checkpoint(self.mlp, hidden, use_reentrant=True)


# ---------------------------------------------------------------------------------------------------- trainability


def test_prepare_after_get_peft_model():
    model = prepare_model_for_kbit_training(adapted(tiny.load()))

    assert said(model, "KB202") == [("KB202", "", "error")]
    assert tiny.step(model).arrived == ()


def test_adapter_loaded_inference_mode(tmp_path):
    adapted(tiny.load()).save_pretrained(tmp_path)

    (violation,) = kbitlint.check(PeftModel.from_pretrained(tiny.load(), tmp_path), select="KB202").violations

    assert (violation.at.path, violation.evidence["inference_mode"]) == ("", ["default"])


def test_no_trainable_params_or_all_masked(tmp_path):
    adapted(tiny.load()).save_pretrained(tmp_path)

    assert said(PeftModel.from_pretrained(tiny.load(), tmp_path), "KB202") == [("KB202", "", "error")]
    assert said(PeftModel.from_pretrained(tiny.load(), tmp_path, is_trainable=True), "KB202") == []


def test_pure_kbit_model_no_adapters(tmp_path):
    import transformers

    model = tiny.load()
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)

    assert said(model, "KB201") == each("KB201", plants.UNPACKED[:2], "warning") + each(
        "KB201", sorted(plants.UNPACKED[2:]), "warning"
    )
    with pytest.raises(ValueError, match="purely quantized"):
        transformers.Trainer(model=model, args=arguments)


def test_non_quantized_base_params_left_trainable():
    assert {path for _, path, _ in said(tiny.load(), "KB201")} == set(plants.UNPACKED)


def test_custom_adapter_name_zero_trainable():
    """Fixed in PEFT 0.8: an adapter of any name is active."""
    model = get_peft_model(
        tiny.prepared(), LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False), adapter_name="a"
    )

    assert said(model, "KB202") == []
    assert tiny.step(model).trains


def test_classification_head_frozen_or_uninitialised():
    model = tiny.load("llama (classifier)")

    assert said(adapted(model), "KB204") == [("KB204", "score", "warning")]


def test_tied_embeddings_untied_by_modules_to_save():
    model = adapted(tiny.load("llama (tied)"), modules_to_save=["embed_tokens", "lm_head"])

    assert said(model, "KB205") == [("KB205", "model.embed_tokens", "warning")]


def test_ddp_unused_adapter_params():
    model = adapted(tiny.load("llava (siglip)"), "all-linear", init_lora_weights=False)
    idle = {path.rpartition(".")[0] for path in tiny.step(model).missing}

    found = said(model, "KB203", strategy=Strategy.DDP, find_unused_parameters=False)

    assert {severity for _, _, severity in found} == {"error"}
    assert found
    assert all(any(name.startswith(f"base_model.model.{path}.") for name in idle) for _, path, _ in found)


def test_vlm_mixed_modality_rank_desync():
    model = adapted(tiny.load(LLAVA), init_lora_weights=False)
    tower = "model.vision_tower"

    assert [(path, severity) for _, path, severity in said(model, "KB203")] == [(tower, "info")]
    assert said(model, "KB203", strategy=Strategy.DDP, find_unused_parameters=False) == [("KB203", tower, "error")]
    assert all(tower in name for name in tiny.step(model).missing)


def test_all_linear_or_suffix_target_hits_vision():
    assert said(adapted(tiny.load(LLAVA)), "KB605") == [("KB605", "model.vision_tower", "info")]


# ------------------------------------------------------------------------------------------------ bytes and dtypes


def test_fp32_upcast_of_embeddings_and_head():
    assert said(prepare_model_for_kbit_training(tiny.load()), "KB104") == each("KB104", EMBEDDINGS, "info")


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason=tiny.LISTED)
def test_moe_experts_upcast_to_fp32_by_prepare():
    found = said(prepare_model_for_kbit_training(tiny.load(MIXTRAL)), "KB104")

    routers = [f"model.layers.{i}.mlp.gate.weight" for i in (0, 1)]
    assert found == each("KB104", sorted([*EMBEDDINGS, *EXPERTS, *routers]), "info")


def test_kbit_prep_fp32_residual_memory():
    assert said(prepare_model_for_kbit_training(tiny.load()), "KB103") == [("KB103", "model.embed_tokens", "info")]


def test_flash_attention_fp32_inputs():
    """What reaches the attention is the residual stream; transformers casts it down itself, other code refuses it."""
    model = tiny.load()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data = parameter.data.float()

    assert said(model, "KB103") == [("KB103", "model.layers.0.input_layernorm", "warning")]


def test_layernorm_low_precision():
    assert said(tiny.load(dtype=torch.float16), "KB101") == each("KB101", sorted(_NORMS), "warning")


_NORMS = [*(f"{layer}.{name}" for layer in LAYERS for name in ("input_layernorm", "post_attention_layernorm")), "model.norm"]


def test_mixed_dtype_after_partial_upcast():
    model = tiny.load()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data = parameter.data.float()

    assert said(model, "KB102") == [("KB102", "lm_head", "warning")]
    assert said(model, "KB102", autocast_dtype="float32") == [("KB102", "lm_head", "error")]
    assert "same dtype" in tiny.step(tiny.with_lora(model)).error


def test_fp16_trainable_params_grad_scaler():
    model = adapted(tiny.load(dtype=torch.float16)).half()

    assert said(model, "KB105", grad_scaler=True) == each("KB105", FACTORS, "error")


def test_bf16_params_with_fp16_scaler():
    """torch 2.13 unscales bfloat16 gradients; what is left is that small updates are rounded away."""
    model = adapted(
        tiny.load(),
    )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()

    assert said(model, "KB105", grad_scaler=True) == each("KB105", FACTORS, "info")


def test_peftmodel_half_bypasses_guard():
    with pytest.raises(ValueError, match="not supported"):
        tiny.load().half()

    assert said(adapted(tiny.load()).half(), "KB105") == each("KB105", FACTORS, "warning")


def test_compute_dtype_fp32_default():
    assert {path for _, path, _ in said(tiny.load(compute=torch.float32), "KB502")} == set(plants.QUANTIZED)


def test_compute_dtype_fp16_on_bf16_model():
    assert {path for _, path, _ in said(tiny.load(compute=torch.float16), "KB106")} == set(plants.QUANTIZED)


def test_int8_forces_fp16_activations():
    assert said(tiny.load(kind="int8"), "KB106") == [("KB106", "", "info")]


def test_non_quantized_dtype_follows_checkpoint():
    model = adapted(tiny.load(dtype=torch.float32, compute=torch.bfloat16))

    assert said(model, "KB104") == each("KB104", EMBEDDINGS, "info")


# ------------------------------------------------------------------------------------------------------ quantization


def test_kbit_prepare_on_unquantized_model():
    model = prepare_model_for_kbit_training(tiny.load(kind="none"))

    found = said(model, "KB104", "KB501")

    assert ("KB501", "", "warning") in found
    assert {path for code, path, _ in found if code == "KB104"} == {f"{p}.weight" for p in plants.QUANTIZED} | set(EMBEDDINGS)
    assert not model.is_gradient_checkpointing


def test_prepare_skips_checkpointing_for_unlisted_methods():
    """PEFT takes a method that it does not list for no quantization: everything is cast, nothing checkpoints."""
    model = tiny.load(kind="none")
    for layer in model.model.layers:
        layer.self_attn.o_proj = WQLinear_GEMM(64)
    model.quantization_method = "awq"
    prepare_model_for_kbit_training(model)

    found = said(model, "KB104", "KB402")

    assert ("KB402", "", "warning") in found
    assert {path for code, path, _ in found if code == "KB104"} >= set(EMBEDDINGS)


class WQLinear_GEMM(torch.nn.Module):  # noqa: N801  # the name that AutoAWQ gives it
    w_bit = 4

    def __init__(self, features):
        super().__init__()
        self.in_features = self.out_features = features
        self.register_buffer("qweight", torch.zeros(features, features // 8, dtype=torch.int32))

    def forward(self, hidden):
        return hidden


def test_skip_modules_clears_default_lm_head():
    untied = tiny.load(llm_int8_skip_modules=["k_proj"])

    assert said(untied, "KB505", "KB506") == [("KB505", "lm_head", "info")]
    if not tiny.TRANSFORMERS_5:
        return  # it cannot load the tied one: rules/test_unconverted_linear.py
    tied = tiny.load("llama (tied)", llm_int8_skip_modules=["k_proj"])
    assert said(tied, "KB505", "KB506") == [("KB506", "lm_head", "error")]


def test_vision_tower_quantized_by_default():
    assert said(tiny.load(LLAVA), "KB507") == [("KB507", "model.vision_tower", "info")]


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason=tiny.LISTED)
def test_moe_fused_experts_not_quantized():
    assert said(tiny.load(MIXTRAL), "KB504") == each("KB504", EXPERTS, "warning")


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason=tiny.LISTED)
def test_moe_experts_not_adapted():
    model = adapted(tiny.load(MIXTRAL), ("q_proj", "gate_proj", "up_proj", "down_proj"))

    assert said(model, "KB601", "KB602") == each("KB601", ["down_proj", "gate_proj"], "warning") + each(
        "KB602", EXPERTS, "info"
    ) + each("KB601", ["up_proj"], "warning")


class _Reader(torch.nn.Module):
    """What torch's MultiheadAttention and pretraining_tp do: they take the weight of a layer themselves."""

    def __init__(self, proj, *, rows):
        super().__init__()
        self.proj, self.rows = proj, rows

    def forward(self, hidden):
        return torch.nn.functional.linear(hidden, self.proj.weight[: self.rows])


def test_mha_out_proj_quantized():
    model = tiny.load()
    attention = model.model.layers[0].self_attn
    attention.o_proj = _Reader(attention.o_proj, rows=None)

    assert said(model, "KB503") == [("KB503", "model.layers.0.self_attn.o_proj.proj", "error")]
    assert tiny.step(tiny.with_lora(model, target_modules=["q_proj"])).error is not None


def test_pretraining_tp_slices_packed_weights():
    model = tiny.load()
    attention = model.model.layers[0].self_attn
    attention.o_proj = _Reader(attention.o_proj, rows=64)

    assert said(model, "KB503") == [("KB503", "model.layers.0.self_attn.o_proj.proj", "error")]
    assert tiny.step(tiny.with_lora(model, target_modules=["q_proj"])).error is not None


def test_int8_has_fp16_weights():
    model = tiny.load(kind="int8", llm_int8_has_fp16_weight=True)

    assert {path for _, path, _ in said(model, "KB506")} == set(plants.QUANTIZED)
    assert {path for _, path, _ in said(prepare_model_for_kbit_training(model), "KB104")} >= {
        f"{path}.weight" for path in plants.QUANTIZED
    }


def test_modules_to_save_on_quantized_module():
    with pytest.raises(RuntimeError, match="only Tensors of floating point"):
        adapted(tiny.load(), modules_to_save=["k_proj"])

    model = adapted(tiny.load(), modules_to_save=["k_proj"], inference_mode=True)

    copies = [f"{layer}.self_attn.k_proj.modules_to_save.default" for layer in LAYERS]
    assert said(model, "KB509") == each("KB509", copies, "error")


def test_quant_method_not_trainable(monkeypatch):
    model = tiny.load()
    monkeypatch.setattr(type(model.hf_quantizer), "is_trainable", property(lambda quantizer: False))

    assert said(model, "KB508", sets_training_mode=True) == [("KB508", "", "error")]


def test_ptq_inference_only_kernel():
    model = tiny.load(kind="none")
    for layer in model.model.layers:
        layer.self_attn.o_proj = type("ExllamaV2QuantLinear", (WQLinear_GEMM,), {"bits": 4})(64)

    assert said(model, "KB508") == each("KB508", [f"{layer}.self_attn.o_proj" for layer in LAYERS], "error")


def test_leftover_quantization_config():
    (violation,) = kbitlint.check(recorded("bitsandbytes"), select="KB501").violations

    assert violation.message == "no layer is quantized, although the model is recorded as bitsandbytes"


def test_mxfp4_silently_dequantized():
    (violation,) = kbitlint.check(recorded("mxfp4"), select="KB501").violations

    assert violation.message == "no layer is quantized, although the model is recorded as mxfp4"


def recorded(method):
    """A model in 16 bits whose config still names a quantization."""
    model = tiny.load(kind="none")
    model.config.quantization_config = {"quant_method": method}
    return model


def test_dora_quantized_specifics():
    eight, four = (adapted(tiny.load(kind=kind), use_dora=True) for kind in ("int8", "nf4"))

    assert said(eight, "KB603") == each("KB603", Q_PROJ, "error")
    assert said(four, "KB603") == each("KB603", Q_PROJ, "info")


def test_merge_into_kbit_weights():
    model = adapted(tiny.load(), init_lora_weights=False)
    model.merge_adapter()

    assert said(model, "KB604") == each("KB604", Q_PROJ, "error")


def test_parameters_on_meta_device_at_wrap_time():
    model = tiny.load(kind="none")
    model.model.layers[0].to("meta")
    model = adapted(model)

    found = said(model, "KB710")

    assert each("KB710", FACTORS[:2], "error") == [line for line in found if "lora" in line[1]]
    assert all(path.startswith("model.layers.0.") for _, path, _ in found)
