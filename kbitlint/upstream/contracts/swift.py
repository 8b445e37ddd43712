"""What ms-swift refuses or does not heed: ms-swift 4.6, ``arguments/``."""

from __future__ import annotations

from kbitlint.upstream.contracts.rows import Contract

_SFT = ("swift.sft",)


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
