"""What transformers' quantization configs and Trainer refuse or ignore: transformers 5.23."""

from __future__ import annotations

from kbitlint.upstream.contracts.auto_classes import AUTO_ROWS
from kbitlint.upstream.contracts.choices import CHOICE_ROWS
from kbitlint.upstream.contracts.loads import LOAD_ROWS
from kbitlint.upstream.contracts.rows import Contract
from kbitlint.upstream.contracts.training_arguments import ARGUMENT_ROWS

_BNB = ("transformers.BitsAndBytesConfig",)
_LOADED = "when the model is loaded"
_DTYPES = "('float16', 'float32', 'float64', 'bfloat16', 'half', 'float', 'double', 'int8', 'uint8')"

_TYPES = {
    "load_in_4bit": ("flag", "load_in_4bit must be a boolean", "1"),
    "load_in_8bit": ("flag", "load_in_8bit must be a boolean", "1"),
    "llm_int8_enable_fp32_cpu_offload": ("flag", "llm_int8_enable_fp32_cpu_offload must be a boolean", "1"),
    "llm_int8_has_fp16_weight": ("flag", "llm_int8_has_fp16_weight must be a boolean", "None"),
    "bnb_4bit_use_double_quant": ("flag", "bnb_4bit_use_double_quant must be a boolean", "'true'"),
    "bnb_4bit_quant_type": ("text", "bnb_4bit_quant_type must be a string", "4"),
}

_BNB_ROWS = (
    Contract(
        _BNB,
        "load_in_4bit is True and load_in_8bit is True",
        "load_in_4bit and load_in_8bit are both True, but only one can be used at the same time",
        example="load_in_4bit=True, load_in_8bit=True",
    ),
    *(
        Contract(_BNB, f"not {kind}({name})", message, "TypeError", name, example=f"{name}={value}")
        for name, (kind, message, value) in _TYPES.items()
    ),
    Contract(
        _BNB,
        "whole(llm_int8_threshold) or text(llm_int8_threshold) or llm_int8_threshold is None",
        "llm_int8_threshold must be a float",
        "TypeError",
        "llm_int8_threshold",
        example="llm_int8_threshold=6",
    ),
    Contract(
        _BNB,
        "text(llm_int8_skip_modules)",
        "llm_int8_skip_modules must be a list of strings",
        "TypeError",
        "llm_int8_skip_modules",
        example="llm_int8_skip_modules='lm_head'",
    ),
    Contract(
        _BNB,
        f"text(bnb_4bit_compute_dtype) and bnb_4bit_compute_dtype not in {_DTYPES}",
        "module 'torch' has no attribute",
        "AttributeError",
        example="bnb_4bit_compute_dtype='bf16'",
    ),
    Contract(
        _BNB,
        "number(bnb_4bit_compute_dtype)",
        "bnb_4bit_compute_dtype must be a string or a torch.dtype",
        example="bnb_4bit_compute_dtype=16",
    ),
    Contract(
        _BNB,
        "text(bnb_4bit_quant_storage) and"
        " bnb_4bit_quant_storage not in ('float16', 'float32', 'int8', 'uint8', 'float64', 'bfloat16', 'half', 'float')",
        "`bnb_4bit_quant_storage` must be a valid string",
        example="bnb_4bit_quant_storage='bf16'",
    ),
    Contract(
        _BNB,
        "number(bnb_4bit_quant_storage)",
        "bnb_4bit_quant_storage must be a string or a torch.dtype",
        example="bnb_4bit_quant_storage=8",
    ),
    Contract(
        _BNB,
        # a call that passes load_in_4bit too has its bits from an option, and serves both
        "load_in_8bit is True and not call.load_in_4bit and bnb_4bit_quant_type == 'nf4'",
        "arguments bnb_4bit_* belong to load_in_4bit, and load_in_8bit=True stores 8 bits",
        "",
        "bnb_4bit_quant_type",
    ),
    Contract(
        _BNB,
        "load_in_8bit is not True and text(bnb_4bit_quant_type) and bnb_4bit_quant_type not in ('nf4', 'fp4')",
        "quant_type must be 'nf4' or 'fp4', got",
        moment=_LOADED,
        example="load_in_4bit=True, bnb_4bit_quant_type='nf8'",
    ),
)

_GPTQ = ("transformers.GPTQConfig", "transformers.AwqConfig")
_OTHER_ROWS = (
    Contract(
        _GPTQ[:1],
        "whole(bits) and bits not in (2, 3, 4, 8)",
        "Only support quantization to [2,3,4,8] bits but found",
        example="bits=5",
    ),
    Contract(
        _GPTQ[:1],
        "number(group_size) and group_size != -1 and group_size <= 0",
        "group_size must be greater than 0 or equal to -1",
        example="bits=4, group_size=0",
    ),
    Contract(
        _GPTQ[:1],
        "number(damp_percent) and (damp_percent <= 0 or damp_percent >= 1)",
        "damp_percent must between 0 and 1",
        example="bits=4, damp_percent=1.5",
    ),
    Contract(
        _GPTQ[:1],
        "text(dataset) and dataset not in ('wikitext2', 'c4', 'c4-new')",
        "You have entered a string value for dataset",
        example="bits=4, dataset='ptb'",
    ),
    Contract(
        ("transformers.HqqConfig",), "axis is not None and axis not in (0, 1)", "Invalid axis value. Only 0 and 1 are allowed"
    ),
    Contract(
        ("transformers.QuantoConfig",),
        "text(weights) and weights not in ('float8', 'int8', 'int4', 'int2')",
        "Only support weights in",
        example="weights='nf4'",
    ),
    Contract(
        ("transformers.QuantoConfig",),
        "activations is not None and activations not in ('int8', 'float8')",
        "Only support weights in",
        example="activations='int4'",
    ),
    Contract(
        ("transformers.EetqConfig",), "text(weights) and weights != 'int8'", "Only support weights in", example="weights='int4'"
    ),
    Contract(
        ("transformers.TorchAoConfig",),
        "text(quant_type)",
        "String-based quantization type ",
        example="quant_type='int4_weight_only'",
        since="5",
    ),
)

_TRAINERS = ("transformers.Trainer", "transformers.Seq2SeqTrainer", "trl.*Trainer")
_TRAINER_ROWS = (
    *(
        Contract(  # unsloth/models/rl.py writes this check into every trainer
            _TRAINERS,
            f"has(model.loader, 'unsloth') and model.dtype == '{dtype}' and args.{flag} is True",
            f"Unsloth: Model is in {dtype} precision but you want to use {other} precision",
            "TypeError",
        )
        for dtype, other, flag in (("float16", "bfloat16", "bf16"), ("bfloat16", "float16", "fp16"))
    ),
    Contract(
        ("transformers.Trainer", "transformers.Seq2SeqTrainer"),
        "model_init is not None and model.object",
        "`Trainer` requires either a `model` or `model_init` argument, but not both",
    ),
    Contract(
        _TRAINERS,
        "args.eval_strategy in ('steps', 'epoch') and eval_dataset is None",
        "You have set `args.eval_strategy` to  but you didn't pass an `eval_dataset` to `Trainer`",
        since="4.46",
    ),
    Contract(
        _TRAINERS,
        "args.fsdp and listed(optimizers) and size(optimizers) > 0",
        "Passing `optimizers` is not allowed if PyTorch FSDP is enabled",
    ),
    Contract(
        _TRAINERS,
        "args.save_strategy == 'best' and args.metric_for_best_model is None and not args.load_best_model_at_end",
        "`args.metric_for_best_model` must be provided when using 'best' save_strategy",
        since="4.47",
    ),
    Contract(
        _TRAINERS,
        "args.fsdp and args.deepspeed",
        "Using --fsdp xxx together with --deepspeed is not possible, deactivate one of those flags",
    ),
    Contract(  # Trainer.compute_loss takes the labels out of the batch, of which T5 would make its decoder's input
        ("transformers.Trainer", "transformers.Seq2SeqTrainer"),
        "number(args.label_smoothing_factor) and args.label_smoothing_factor > 0 and data_collator is None"
        " and model.type in ('t5', 'mt5', 'umt5')",
        "You must specify exactly one of input_ids or inputs_embeds",
        moment="in the first step",
        since="5",
    ),
)

#: classes of models that cannot generate: PEFT's wrapper for CAUSAL_LM takes a method of those that can
_NO_GENERATION = " or ".join(
    f"has(model.loader, 'automodelfor{name}')"
    for name in ("sequenceclassification", "tokenclassification", "questionanswering")
)
_WRAPPED_ROWS = (
    Contract(
        ("peft.get_peft_model", "trl.RewardTrainer", "trl.SFTTrainer", "trl.PRMTrainer"),
        f"peft_config.task_type == 'CAUSAL_LM' and ({_NO_GENERATION}"
        " or starts(model.loader, 'transformers.automodel.') and text(model.type)) and not model.remote",
        "object has no attribute 'prepare_inputs_for_generation'",
        "AttributeError",
        "peft_config.task_type",
        since="4.50",
    ),
)

ROWS = (*_WRAPPED_ROWS, *LOAD_ROWS, *AUTO_ROWS, *_BNB_ROWS, *_OTHER_ROWS, *ARGUMENT_ROWS, *_TRAINER_ROWS, *CHOICE_ROWS)
