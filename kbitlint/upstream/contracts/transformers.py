"""What transformers' quantization configs, training arguments and Trainer refuse or ignore: transformers 5.23."""

from __future__ import annotations

from kbitlint.upstream.contracts.choices import CHOICE_ROWS
from kbitlint.upstream.contracts.loads import LOAD_ROWS
from kbitlint.upstream.contracts.rows import Contract

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

_ARGUMENTS = ("transformers.TrainingArguments", "transformers.Seq2SeqTrainingArguments", "trl.*Config")
_MATCH = "load_best_model_at_end and save_strategy != 'best'"
_ROUND = f"{_MATCH} and eval_strategy == 'steps' and save_strategy == 'steps' and number(save_steps) and number(eval_steps)"
_OPTIMIZERS = (
    *("adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "adafactor"),
    *(
        "adamw_anyprecision",
        "adamw_torch_4bit",
        "adamw_torch_8bit",
        "ademamix",
        "sgd",
        "adagrad",
        "adamw_bnb_8bit",
        "adamw_8bit",
    ),
    *("ademamix_8bit", "lion_8bit", "lion_32bit", "paged_adamw_32bit", "paged_adamw_8bit", "paged_ademamix_32bit"),
    *("paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit", "rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit"),
    *("rmsprop_bnb_32bit", "galore_adamw", "galore_adamw_8bit", "galore_adafactor", "galore_adamw_layerwise"),
    *("galore_adamw_8bit_layerwise", "galore_adafactor_layerwise", "lomo", "adalomo", "grokadamw", "schedule_free_radam"),
    *("schedule_free_adamw", "schedule_free_sgd", "apollo_adamw", "apollo_adamw_layerwise", "stable_adamw"),
)
#: arguments that ``train()`` computes with, and the message for a text
_NUMBERS = {
    "learning_rate": "'<=' not supported between instances of 'float' and 'str'",
    "max_steps": "'>' not supported between instances of 'str' and 'int'",
    "warmup_steps": "'<' not supported between instances of 'str' and 'int'",
    "gradient_accumulation_steps": "unsupported operand type(s) for //: 'int' and 'str'",
    "per_device_train_batch_size": "batch_size should be a positive integer value, but got",
}
_ARGUMENT_ROWS = (
    *(
        Contract(
            (*_ARGUMENTS[:2], "trl.SFTConfig", "trl.DPOConfig"),
            f"text({name})",
            message,
            "ValueError" if name.endswith("size") else "TypeError",
            moment="" if name == "warmup_steps" else "when it trains",
            example=f"{name}='2', use_cpu=True",
            python=True,
        )
        for name, message in _NUMBERS.items()
    ),
    Contract(
        _ARGUMENTS,
        "fp16 is True and bf16 is True",
        "At most one of fp16 and bf16 can be True, but not both",
        example="fp16=True, bf16=True, use_cpu=True",
    ),
    Contract(
        _ARGUMENTS,
        "fp16_full_eval is True and bf16_full_eval is True",
        "At most one of fp16 and bf16 can be True for full eval, but not both",
        example="fp16_full_eval=True, bf16_full_eval=True, use_cpu=True",
    ),
    Contract(
        _ARGUMENTS,
        f"{_MATCH} and eval_strategy != save_strategy",
        "--load_best_model_at_end requires the save and eval strategy to match",
        example="load_best_model_at_end=True, eval_strategy='epoch'",
        since="4.41",
    ),
    Contract(
        _ARGUMENTS,
        f"{_ROUND} and eval_steps >= 1 and save_steps >= 1 and save_steps % eval_steps != 0",
        "--load_best_model_at_end requires the saving steps to be a round multiple of the evaluation steps",
        example="load_best_model_at_end=True, eval_strategy='steps', eval_steps=300, save_steps=500",
        since="4.41",
    ),
    Contract(
        _ARGUMENTS,
        f"{_ROUND} and (eval_steps < 1 or save_steps < 1) and (eval_steps >= 1 or save_steps >= 1)",
        "--load_best_model_at_end requires the saving steps to be a multiple of the evaluation steps, which cannot",
        example="load_best_model_at_end=True, eval_strategy='steps', eval_steps=0.3, save_steps=500",
        since="4.41",
    ),
    Contract(
        _ARGUMENTS,
        "logging_strategy == 'steps' and logging_steps == 0",
        "logging strategy  requires non-zero",
        example="logging_steps=0",
    ),
    Contract(
        _ARGUMENTS,
        "lr_scheduler_type == 'reduce_lr_on_plateau' and eval_strategy == 'no'",
        "lr_scheduler_type reduce_lr_on_plateau requires an eval strategy",
        example="lr_scheduler_type='reduce_lr_on_plateau'",
        since="4.41",
    ),
    Contract(_ARGUMENTS, "number(warmup_steps) and warmup_steps < 0", "Got warmup_steps", example="warmup_steps=-1"),
    Contract(
        _ARGUMENTS,
        "dataloader_num_workers == 0 and dataloader_prefetch_factor is not None",
        "--dataloader_prefetch_factor can only be set when data is loaded in a different process",
        drops="dataloader_prefetch_factor",
        example="dataloader_prefetch_factor=2",
    ),
    Contract(
        _ARGUMENTS,
        f"text(optim) and optim not in {_OPTIMIZERS!r}",
        "is not a valid OptimizerNames, please select one of",
        example="optim='paged_adamw_8bits'",
        since="5",
        until="5.24",
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
)

ROWS = (*LOAD_ROWS, *_BNB_ROWS, *_OTHER_ROWS, *_ARGUMENT_ROWS, *_TRAINER_ROWS, *CHOICE_ROWS)
