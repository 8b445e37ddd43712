"""What ms-swift refuses or does not heed: ms-swift 4.6, ``arguments/``."""

from __future__ import annotations

from kbitlint.upstream.contracts.rows import Contract

_SFT = ("swift.sft",)
_FLASH = ("flash_attn", "flash_attention_2", "flash_attention_3", "flash_attention_4")


def _refused(when: str, message: str, raises: str = "ValueError", drops: str = "") -> Contract:
    return Contract(_SFT, when, message, raises, drops)


ROWS = (
    _refused(
        "quant_method is not None and quant_method not in ('fp8', 'awq', 'gptq', 'gptq_v2') and quant_bits is None",
        "Please set the quant_bits. args.quant_bits",
    ),
    _refused("quant_method == 'bnb' and quant_bits is not None and quant_bits not in (4, 8)", "bnb not support quant_bits"),
    _refused(
        "quant_method == 'quanto' and quant_bits is not None and quant_bits not in (2, 4, 8, 'float8')",
        "quanto quantization only support quant bits 2/4/8/float8",
    ),
    _refused(
        "quant_method == 'eetq' and quant_bits is not None and quant_bits != 8",
        "Only support weights in ['int8'] but found",
    ),
    _refused(
        "text(quant_method) and quant_method not in ('bnb', 'hqq', 'eetq', 'quanto', 'fp8', 'awq', 'gptq', 'gptq_v2')",
        "argument --quant_method: invalid choice",
        "SystemExit",
    ),
    Contract(
        _SFT,
        "quant_bits is not None and quant_method is None",
        "no `quant_method` is set, and the model is not quantized",
        "",
        "quant_bits",
    ),
    Contract(
        _SFT,
        "quant_method is None and text(bnb_4bit_quant_type) and quant_bits is None",
        "no `quant_method` is set, and the model is not quantized",
        "",
        "bnb_4bit_quant_type",
    ),
    _refused(
        "text(rlhf_type) and rlhf_type not in ('dpo', 'orpo', 'simpo', 'kto', 'cpo', 'rm', 'ppo', 'grpo', 'gkd')",
        "argument --rlhf_type: invalid choice",
        "SystemExit",
    ),
    _refused("fsdp and deepspeed", "FSDP2 is not compatible with DeepSpeed"),
    *(
        _refused(
            f"ref_model is not None and {when}",
            "CPO/ORPO or LoRA training does not require a ref_model to be passed in",
            drops="ref_model",
        )
        for when in (
            "tuner_type in ('lora', 'longlora', 'adalora') and rlhf_type in ('dpo', 'kto')",
            "tuner_type in ('lora', 'longlora', 'adalora') and rlhf_type == 'grpo' and beta != 0",
            "rlhf_type in ('cpo', 'orpo')",
        )
    ),
    _refused(
        "quant_bits is not None and quant_bits not in (1, 2, 3, 4, 8, 'float8')",
        "argument --quant_bits: invalid choice",
        "SystemExit",
    ),
    _refused(
        "text(bnb_4bit_quant_type) and bnb_4bit_quant_type not in ('fp4', 'nf4')",
        "argument --bnb_4bit_quant_type: invalid choice",
        "SystemExit",
    ),
    _refused(
        "text(bnb_4bit_compute_dtype) and bnb_4bit_compute_dtype not in ('float16', 'bfloat16', 'float32')",
        "argument --bnb_4bit_compute_dtype: invalid choice",
        "SystemExit",
    ),
    _refused(  # pipelines/train/tuner.py
        "tuner_backend == 'unsloth' and tuner_type == 'longlora'",
        "Unsloth does not support LongLoRA",
        "AssertionError",
    ),
    _refused("listed(adapters) and size(adapters) > 1 and tuner_type != 'full'", "args.adapters:", "AssertionError"),
    Contract(
        _SFT,
        "quant_method == 'bnb' and quant_bits == 8 and text(bnb_4bit_quant_storage)",
        "8-bit weights have no storage dtype",
        "",
        "bnb_4bit_quant_storage",
    ),
    _refused("packing and lazy_tokenize", "Packing and lazy_tokenize are incompatible"),
    _refused("streaming and lazy_tokenize", "Streaming and lazy_tokenize are incompatible", drops="lazy_tokenize"),
    *(
        _refused(
            f"{feature} and (attn_impl is None or attn_impl not in {_FLASH})",
            f'The "{feature}" feature requires a flash attention implementation',
        )
        for feature in ("packing", "padding_free")
    ),
    _refused(
        "(packing or padding_free) and rlhf_type is not None and rlhf_type not in ('grpo', 'dpo', 'kto', 'gkd')",
        "does not support padding_free/packing",
        "NotImplementedError",
    ),
    _refused(
        "number(sequence_parallel_size) and sequence_parallel_size > 1 and rlhf_type is not None "
        "and rlhf_type not in ('grpo', 'dpo')",
        "does not support sequence_parallel",
        "NotImplementedError",
    ),
    *(
        _refused(f"rlhf_type == 'grpo' and {when}", message)
        for when, message in (
            ("num_generations == 1 and teacher_model is None", "num_generations must be greater than 1 for GRPO"),
            (
                "text(truncation_strategy) and truncation_strategy not in ('left', 'delete')",
                "GRPO requires `truncation_strategy 'left' or 'delete'`",
            ),
            ("use_liger_kernel and padding_free", "Liger loss does not support padding free yet"),
            ("use_liger_kernel and delta is not None", "Liger loss does not support two-sided GRPO loss yet"),
            ("use_liger_kernel and log_entropy", "Liger loss does not support log entropy yet"),
            (
                "use_liger_kernel and number(top_entropy_quantile) and top_entropy_quantile < 1",
                "Liger loss does not support entropy mask yet",
            ),
            (
                (
                    "generation_batch_size is None and steps_per_generation is None and whole(num_generations)"
                    " and num_generations > 1 and whole(gradient_accumulation_steps)"
                    " and per_device_train_batch_size * gradient_accumulation_steps * processes % num_generations != 0"
                ),
                "generation_batch_size () must be evenly divisible by num_generations ()",
            ),
            ("cached_dataset", "cached_dataset is not supported for GRPO"),
        )
    ),
    _refused(
        "rlhf_type in ('grpo', 'gkd') and vllm_mode is not None and not use_vllm",
        "vllm_mode is not supported when use_vllm is false",
    ),
    _refused("rlhf_type in ('grpo', 'gkd') and vllm_mode is None and use_vllm", "vllm_mode is required when use_vllm is true"),
    _refused("rlhf_type == 'gkd' and seq_kd", "seq_kd=True (Sequential KD with teacher generation) is deprecated"),
    Contract(  # arguments/export_args.py
        ("swift.export",),
        "quant_bits is not None and quant_method is None",
        "Please specify the quantization method using `--quant_method awq/gptq/bnb`",
    ),
    Contract(
        ("swift.export",),
        "quant_method in ('gptq', 'awq') and dataset is None",
        "Please input the quant dataset",
    ),
    Contract(  # pipelines/export/quant.py
        ("swift.export",),
        "quant_method in ('hqq', 'eetq', 'quanto')",
        "args.quant_method:",
    ),
    Contract(
        ("swift.export",),
        "quant_method is not None and quant_bits is None and quant_method != 'fp8'",
        "Please specify `--quant_bits`",
    ),
)
