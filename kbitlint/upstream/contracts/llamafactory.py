"""What LLaMA-Factory refuses or does not heed: LLaMA-Factory 0.9.5, ``hparams/`` and ``model/``."""

from __future__ import annotations

from kbitlint.upstream.contracts.formats import TEMPLATE_ROWS
from kbitlint.upstream.contracts.rows import Contract

_TRAIN = ("llamafactory.train",)
_ZERO3 = "(has(deepspeed, 'z3') or has(deepspeed, 'zero3') or has(deepspeed, 'stage3'))"


#: checkpoints that are stored quantized, by their names
_PTQ = "(has(model_name_or_path, '-gptq') or has(model_name_or_path, '-awq'))"
_STORED = f"({_PTQ} or has(model_name_or_path, '-bnb-4bit'))"


def _refused(when: str, message: str, drops: str = "") -> Contract:
    return Contract(_TRAIN, when, message, drops=drops)


_QUANTIZED = (
    # quantized weights without adapters are another rule's (quantized-without-adapters)
    _refused(
        "quantization_bit is not None and pissa_init",
        "Please use scripts/pissa_init.py to initialize PiSSA for a quantized model",
        "pissa_init",
    ),
    _refused(
        "quantization_bit is not None and resize_vocab",
        "Cannot resize embedding layers of a quantized model",
        "resize_vocab",
    ),
    _refused(
        "quantization_bit is not None and adapter_name_or_path is not None and create_new_adapter",
        "Cannot create new adapter upon a quantized model",
        "create_new_adapter",
    ),
    _refused(
        "quantization_bit is not None and text(adapter_name_or_path) and has(adapter_name_or_path, ',')",
        "Quantized model only accepts a single adapter. Merge them first",
    ),
    _refused(
        "quantization_bit is not None and quantization_method in ('bnb', 'bitsandbytes') and quantization_bit not in (4, 8)",
        "Bitsandbytes only accepts 4-bit or 8-bit quantization",
    ),
    _refused(
        "quantization_bit is not None and quantization_method == 'eetq' and quantization_bit != 8",
        "EETQ only accepts 8-bit quantization",
    ),
    _refused(
        "quantization_bit is not None and quantization_method == 'hqq' and quantization_bit not in (1, 2, 3, 4, 5, 6, 8)",
        "HQQ only accepts 1/2/3/4/5/6/8-bit quantization",
    ),
    _refused(
        f"quantization_bit == 8 and quantization_method in ('bnb', 'bitsandbytes') and {_ZERO3}",
        "Only 4-bit quantized model can use fsdp+qlora or auto device map",
    ),
    _refused(
        f"quantization_bit is not None and quantization_method == 'hqq' and {_ZERO3}",
        "HQQ quantization is incompatible with DeepSpeed ZeRO-3 or FSDP",
    ),
    _refused(
        f"quantization_bit is not None and quantization_method == 'eetq' and {_ZERO3}",
        "EETQ quantization is incompatible with DeepSpeed ZeRO-3 or FSDP",
    ),
    _refused(
        "do_train and quantization_device_map == 'auto'",
        "Cannot use device map for quantized models in training",
        "quantization_device_map",
    ),
    _refused(f"{_PTQ} and {_ZERO3}", "DeepSpeed ZeRO-3 or FSDP is incompatible with PTQ-quantized models"),
    _refused(f"{_PTQ} and use_dora", "DoRA is not compatible with PTQ-quantized models", "use_dora"),
    _refused(
        f"{_STORED} and quantization_bit is None and pissa_init",
        "Cannot initialize PiSSA adapter on quantized models",
        "pissa_init",
    ),
    _refused(
        f"{_STORED} and quantization_bit is None and resize_vocab",
        "Cannot resize embedding layers of a quantized model",
        "resize_vocab",
    ),
    _refused(
        "infer_backend in ('vllm', 'sglang')",
        "vLLM/SGLang backend is only available for API, CLI and Web",
        "infer_backend",
    ),
    _refused("fp8 and quantization_bit is not None", "FP8 training is not compatible with quantization"),
    _refused(
        "export_quantization_bit is not None and export_quantization_dataset is None",
        "Quantization dataset is necessary for exporting",
    ),
)

_ADAPTED = (
    _refused(
        "adapter_name_or_path is not None and finetuning_type != 'lora'",
        "Adapter is only valid for the LoRA method",
        "adapter_name_or_path",
    ),
    *(
        _refused(f"finetuning_type != 'lora' and {name}", f"`{name}` is only valid for LoRA training", name)
        for name in ("use_rslora", "use_dora", "pissa_init")
    ),
    _refused(
        "finetuning_type != 'lora' and loraplus_lr_ratio is not None",
        "`loraplus_lr_ratio` is only valid for LoRA training",
        "loraplus_lr_ratio",
    ),
    _refused(
        "finetuning_type == 'lora' and (use_galore or use_apollo or use_badam)",
        "Cannot use LoRA with GaLore, APOLLO or BAdam together",
    ),
    _refused("use_llama_pro and finetuning_type == 'full'", "`use_llama_pro` is only valid for Freeze or LoRA training"),
    _refused("pissa_init and stage in ('ppo', 'kto')", "Cannot use PiSSA for current training stage", "pissa_init"),
    _refused("use_unsloth and finetuning_type == 'oft'", "Unsloth is currently not supported for OFT"),
    _refused(f"pissa_init and {_ZERO3}", "Please use scripts/pissa_init.py to initialize PiSSA in DeepSpeed ZeRO-3"),
    _refused(f"use_unsloth and {_ZERO3}", "Unsloth is incompatible with DeepSpeed ZeRO-3"),
    _refused(f"pure_bf16 and {_ZERO3}", "`pure_bf16` is incompatible with DeepSpeed ZeRO-3"),
    _refused("deepspeed and (use_galore or use_apollo)", "GaLore and APOLLO are incompatible with DeepSpeed yet"),
    _refused(
        "stage == 'ppo' and reward_model_type == 'lora' and use_unsloth",
        "Unsloth does not support lora reward model",
    ),
    _refused("stage in ('rm', 'ppo') and load_best_model_at_end", "RM and PPO stages do not support `load_best_model_at_end`"),
)

#: sizes of a picture and of a video, which the program sets where a configuration does not: 32 x 32 and 16 x 16 pixels
_LEAST_PIXELS = {"image": 32 * 32, "video": 16 * 16}

_RUN = (
    *(
        _refused(
            f"number({kind}_max_pixels) and (number({kind}_min_pixels) and {kind}_max_pixels < {kind}_min_pixels "
            f"or {kind}_min_pixels is None and {kind}_max_pixels < {least})",
            f"`{kind}_max_pixels` cannot be smaller than `{kind}_min_pixels`",
        )
        for kind, least in _LEAST_PIXELS.items()
    ),
    *(
        Contract(
            _TRAIN,
            f"whole({kind}_quantization_bit) and {kind}_quantization_bit not in (4, 8)",
            "We only accept 4-bit or 8-bit quantization",
            "AssertionError",
            f"{kind}_quantization_bit",
        )
        for kind in ("ref_model", "reward_model")
    ),
    _refused("dataset is None and number(val_size) and val_size > 0", "Cannot specify `val_size` if `dataset` is None"),
    _refused(
        "eval_dataset is not None and number(val_size) and val_size > 0",
        "Cannot specify `val_size` if `eval_dataset` is not None",
        "val_size",
    ),
    _refused(
        "interleave_probs is not None and (mix_strategy is None or mix_strategy == 'concat')",
        "`interleave_probs` is only valid for interleaved mixing",
        "interleave_probs",
    ),
    _refused(
        "streaming and number(val_size) and val_size > 0 and val_size < 1", "Streaming mode should have an integer val size"
    ),
    _refused("streaming and max_samples is not None", "`max_samples` is incompatible with `streaming`", "max_samples"),
    _refused("do_train and streaming and max_steps is None", "Please specify `max_steps` in streaming mode"),
    _refused("mask_history and train_on_prompt", "`mask_history` is incompatible with `train_on_prompt`"),
    _refused(
        "(do_eval or do_predict or predict_with_generate or eval_strategy in ('steps', 'epoch')) and eval_dataset is None "
        "and (val_size is None or val_size == 0)",
        "Please make sure eval_dataset be provided or val_size >1e-6",
    ),
    *(
        _refused(f"text(stage) and stage != 'sft' and {key}", f"`{key}` cannot be set as True except SFT", key)
        for key in ("predict_with_generate", "neat_packing")
    ),
    _refused(
        "text(stage) and stage != 'sft' and (train_on_prompt or mask_history)",
        "`train_on_prompt` or `mask_history` cannot be set as True except SFT",
    ),
    _refused(
        "(stage is None or stage == 'sft') and do_predict and not predict_with_generate",
        "Please enable `predict_with_generate` to save model predictions",
    ),
    _refused(
        "predict_with_generate and compute_accuracy", "Cannot use `predict_with_generate` and `compute_accuracy` together"
    ),
    _refused(f"predict_with_generate and {_ZERO3}", "`predict_with_generate` is incompatible with DeepSpeed ZeRO-3"),
    _refused("stage == 'ppo' and reward_model is None", "`reward_model` is necessary for PPO training"),
    _refused("stage == 'ppo' and not do_train", "PPO training does not support evaluation"),
    _refused("stage == 'ppo' and shift_attn", "PPO training is incompatible with S^2-Attn", "shift_attn"),
    _refused(
        "stage == 'ppo' and reward_model_type == 'lora' and text(finetuning_type) and finetuning_type != 'lora'",
        "`reward_model_type` cannot be lora for Freeze/Full PPO training",
    ),
    _refused(
        "stage == 'dpo' and text(pref_loss) and pref_loss != 'sigmoid' and number(dpo_label_smoothing) "
        "and dpo_label_smoothing > 0",
        "`dpo_label_smoothing` is only valid for sigmoid loss function",
        "dpo_label_smoothing",
    ),
    _refused(
        "pissa_init and stage == 'dpo' and (pref_loss is None or pref_loss not in ('orpo', 'simpo'))",
        "Cannot use PiSSA for current training stage",
        "pissa_init",
    ),
    *(
        _refused(f"{one} and {other}", "Cannot use GaLore, APOLLO or BAdam together")
        for one, other in (("use_galore", "use_apollo"), ("use_galore", "use_badam"), ("use_apollo", "use_badam"))
    ),
)

_EXPORTED = (  # train/tuner.py, export_model
    Contract(
        ("llamafactory.export",),
        "quantization_bit is not None and adapter_name_or_path is not None",
        "Cannot merge adapters to a quantized model",
        drops="quantization_bit",
    ),
    Contract(
        ("llamafactory.export",),
        "export_quantization_bit is not None and adapter_name_or_path is not None",
        "Please merge adapters before quantizing the model",
    ),
    Contract(  # model/model_utils/quantization.py
        ("llamafactory.export",),
        "whole(export_quantization_bit) and export_quantization_bit not in (2, 3, 4, 8)",
        "AutoGPTQ only accepts 2/3/4/8-bit quantization",
    ),
)

ROWS = (*TEMPLATE_ROWS, *_QUANTIZED, *_ADAPTED, *_RUN, *_EXPORTED)
