"""What unsloth refuses or ignores: unsloth 2026.10, ``models/loader.py``, ``llama.py``, ``rl.py`` and ``save.py``."""

from __future__ import annotations

from kbitlint.upstream.contracts.rows import Contract

_LOADERS: tuple[str, ...] = ("unsloth.FastLanguageModel.from_pretrained", "unsloth.FastModel.from_pretrained")
_LOADERS += ("unsloth.FastVisionModel.from_pretrained",)
_CHANGED = " or ".join(f"{name} != model.adapter_config.{name}" for name in ("r", "lora_alpha", "lora_dropout", "bias"))

#: the formats of llama.cpp that ``save_pretrained_gguf`` knows; those of ``iq`` need a matrix of their own
_FORMATS = (
    *("not_quantized", "fast_quantized", "quantized", "f32", "bf16", "f16", "q8_0", "q4_k_m", "q5_k_m", "q2_k", "q2_k_l"),
    *("q3_k_l", "q3_k_m", "q3_k_s", "q4_0", "q4_1", "q4_k_s", "q4_k", "q5_k", "q5_0", "q5_1", "q5_k_s", "q6_k", "q3_k_xs"),
)

ROWS: tuple[Contract, ...] = (
    Contract(
        _LOADERS,
        "load_in_4bit is True and load_in_8bit is True and full_finetuning is not True",
        "Unsloth: Can only load in 4bit or 8bit or 16bit, not a combination!",
        "RuntimeError",
    ),
    Contract(
        _LOADERS,
        "full_finetuning is True and load_in_4bit is True",
        "You selected full finetuning support, but 4bit / 8bit is enabled - disabling LoRA / QLoRA",
        "",
        "load_in_4bit",
    ),
    Contract(
        _LOADERS,
        "full_finetuning is True and load_in_8bit is True",
        "You selected full finetuning support, but 4bit / 8bit is enabled - disabling LoRA / QLoRA",
        "",
        "load_in_8bit",
    ),
    Contract(
        _LOADERS,
        "qat_scheme is not None and full_finetuning is not True",
        "Specifying `qat_scheme`  is only compatible with `full_finetuning=True`",
    ),
    Contract(
        ("unsloth.get_peft_model",),
        f"model.adapted and starts(model.loader, 'unsloth') and ({_CHANGED})",
        "Unsloth: Your model already has LoRA adapters. Your new parameters are different.",
        "TypeError",
    ),
    Contract(
        ("unsloth.get_peft_model",),
        "whole(r) and r <= 0",
        "Unsloth: Rank of  must be larger than 0",
        "TypeError",
    ),
    Contract(
        ("unsloth.get_peft_model",),
        "number(r) and not whole(r)",
        "Unsloth: Rank of  must be an integer",
        "TypeError",
    ),
    Contract(
        ("unsloth.get_peft_model",),
        "init_lora_weights == 'eva' and has(model.loader, 'fastlanguagemodel')",
        "`init_lora_weights = 'eva'` is not supported by FastLanguageModel's fused LoRA path",
        "NotImplementedError",
    ),
    Contract(
        ("unsloth.save_pretrained_merged", "unsloth.push_to_hub_merged"),
        "save_method == 'merged_4bit'",
        "Unsloth: Merging into 4bit will cause your model to lose accuracy",
        "RuntimeError",
    ),
    Contract(
        ("unsloth.save_pretrained_merged", "unsloth.push_to_hub_merged"),
        "starts(save_method, 'merged') and save_method not in ('merged_16bit', 'merged 16bit', 'merged_4bit', 'merged 4bit',"
        " 'merged_4bit_forced')",
        "Unsloth: You must select one of 3 options when saving models",
        "RuntimeError",
    ),
    Contract(
        ("unsloth.save_pretrained_gguf", "unsloth.push_to_hub_gguf"),
        "text(quantization_method) and quantization_method and not starts(quantization_method, 'iq')"
        f" and quantization_method not in {_FORMATS!r}",
        "Unsloth: Quant method is not supported. Choose from below",
        "RuntimeError",
    ),
    Contract(  # vllm/lora: refuses adapters of a higher rank than the engine was made for
        ("unsloth.get_peft_model",),
        "model.fast is True and whole(r) and whole(model.highest_rank) and r > model.highest_rank",
        "LoRA rank  is greater than max_lora_rank",
        moment="when it generates",
    ),
)
