"""What transformers' training arguments, and TRL's, refuse when they are made or when a run starts: transformers 5.23."""

from __future__ import annotations

from kbitlint.upstream.contracts.rows import Contract

_ARGUMENTS = ("transformers.TrainingArguments", "transformers.Seq2SeqTrainingArguments", "trl.*Config")
#: schedules of the learning rate that end above zero
_LEAST_RATE = "lr_scheduler_type in ('cosine_with_min_lr', 'cosine_warmup_with_min_lr')"
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
ARGUMENT_ROWS = (
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
    Contract(
        _ARGUMENTS,
        f"{_LEAST_RATE} and (lr_scheduler_kwargs is None or lr_scheduler_kwargs.min_lr is None "
        "and lr_scheduler_kwargs.min_lr_rate is None)",
        "One of min_lr or min_lr_rate should be set through the `lr_scheduler_kwargs`",
        moment="when it trains",
        example="lr_scheduler_type='cosine_with_min_lr'",
        since="4.39",
    ),
    Contract(
        _ARGUMENTS,
        f"{_LEAST_RATE} and lr_scheduler_kwargs.min_lr is not None and lr_scheduler_kwargs.min_lr_rate is not None",
        "Only one of min_lr or min_lr_rate should be set",
        moment="when it trains",
        example="lr_scheduler_type='cosine_with_min_lr', lr_scheduler_kwargs={'min_lr': 1e-6, 'min_lr_rate': 0.1}",
        since="4.39",
    ),
    Contract(
        _ARGUMENTS,
        "lr_scheduler_type == 'warmup_stable_decay' and (lr_scheduler_kwargs is None "
        "or lr_scheduler_kwargs.num_decay_steps is None)",
        "get_wsd_schedule() missing 1 required positional argument: 'num_decay_steps'",
        "TypeError",
        moment="when it trains",
        example="lr_scheduler_type='warmup_stable_decay'",
        since="4.41",
    ),
    *(
        Contract(
            _ARGUMENTS,
            f"lr_scheduler_type in {schedules!r} and beyond(lr_scheduler_kwargs, 'last_epoch'{known})",
            "got an unexpected keyword argument",
            "TypeError",
            "lr_scheduler_kwargs",
            "when it trains",
            f"lr_scheduler_type='{schedules[0]}', lr_scheduler_kwargs={{'rate': 0.1}}",
        )
        for schedules, known in (
            (("linear", "constant", "constant_with_warmup"), ""),
            (("cosine", "cosine_with_restarts"), ", 'num_cycles'"),
            (("polynomial",), ", 'lr_end', 'power'"),
        )
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
        "(starts(optim, 'galore') or starts(optim, 'apollo')) and optim_target_modules is None",
        "You need to define `optim_target_modules` to use",
        moment="when it trains",
        since="4.39",
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
