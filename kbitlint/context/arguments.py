"""Fields of a TrainingContext from transformers' TrainingArguments and Trainer.

The functions return dictionaries. ``kbitlint.context.training`` builds the context from them and imports this
module.
"""

from __future__ import annotations

import os
from typing import Any

from kbitlint.context.launchers import offloads, zero_stage
from kbitlint.context.passes import cast_by, evaluates, rows_of_an_example
from kbitlint.context.strategy import Checkpointing, Strategy


def arguments_fields(arguments: Any, model: Any = None) -> dict[str, Any]:
    """Return the fields that ``TrainingArguments`` set. A TRL config extends that class.

    transformers 5 names the arguments ``activation_checkpointing*``. Without kwargs it checkpoints without reentry
    (``PreTrainedModel.activation_checkpointing_enable``). transformers 4 names them ``gradient_checkpointing*`` and
    checkpoints reentrantly.

    Args:
        arguments: The arguments.
        model: The model of the Trainer; None if it is not known.
    """
    renamed = hasattr(arguments, "activation_checkpointing")
    prefix = "activation_checkpointing" if renamed else "gradient_checkpointing"
    enabled = bool(getattr(arguments, prefix, False))
    kwargs = getattr(arguments, f"{prefix}_kwargs", None) or {"use_reentrant": not renamed}
    fp16, bf16 = bool(getattr(arguments, "fp16", False)), bool(getattr(arguments, "bf16", False))
    optimizer = getattr(arguments, "optim", None)
    strategy = _strategy_of(arguments, renamed=renamed)
    deepspeed = strategy in (Strategy.ZERO2, Strategy.ZERO3)
    known = not (deepspeed and (fp16 or bf16))  # DeepSpeed casts the model and opens no autocast region
    return {
        "autocast_dtype": ("float16" if fp16 else "bfloat16" if bf16 else "float32") if known else None,
        "grad_scaler": fp16 and not deepspeed,
        "strategy": strategy,
        "offload": _offloads(arguments, strategy),
        "find_unused_parameters": _find_unused(arguments, model, enabled=enabled),
        "static_graph": bool(getattr(arguments, "ddp_static_graph", None)),
        "gradient_checkpointing": Checkpointing(
            enabled, kwargs.get("use_reentrant") if enabled else None, renamed, _positive(kwargs.get("every_n_layers")) or 1
        ),
        "fsdp_checkpointing": _fsdp_checkpointing(arguments),
        "sets_training_mode": True,
        "optimizer": None if optimizer is None else str(getattr(optimizer, "value", optimizer)),
        "learning_rate": _rate(getattr(arguments, "learning_rate", None)),
        "beta": _beta(arguments),
        "batch_size": getattr(arguments, "per_device_train_batch_size", None),
        "accumulation": _positive(getattr(arguments, "gradient_accumulation_steps", None)),
        "seq_len": _seq_len(arguments),
        "world_size": _positive(getattr(arguments, "world_size", None)),
        "device": _accelerator(getattr(arguments, "device", None)),
    }


def trainer_fields(trainer: Any) -> dict[str, Any]:
    """Return the fields of a Trainer. The settings of its accelerator override those of its arguments."""
    read = arguments_fields(trainer.args, trainer.model)
    read |= {"loss": _loss_of(trainer), "evaluates": evaluates(trainer), "cast_by": cast_by(trainer)}
    groups = getattr(getattr(trainer, "optimizer", None), "param_groups", ())  # the user's, or made from the arguments
    rates = [rate for group in groups if (rate := _rate(group.get("initial_lr", group.get("lr")))) is not None]
    read |= {"learning_rate": max(rates)} if rates else {}
    if isinstance(read["batch_size"], int):
        read["batch_size"] *= rows_of_an_example(trainer)
    handler = getattr(getattr(trainer, "accelerator", None), "ddp_handler", None)
    if handler is None:
        return read
    names = ("find_unused_parameters", "static_graph")
    return read | {name: bool(getattr(handler, name, read[name])) for name in names}


def _loss_of(trainer: Any) -> str | None:
    """Return where the logits of a Trainer's step live, in the words of ``TrainingContext.loss``; None if that is unknown.

    A loss function of the user and label smoothing need the logits of a whole batch (``SFTTrainer.compute_loss``, TRL 1.16).
    Without them, TRL's trainers call the fused head that they attached, and Liger's kernel fuses head and loss.
    """
    if getattr(trainer, "compute_loss_func", None) is not None or getattr(trainer, "label_smoother", None) is not None:
        return "full"
    liger = getattr(trainer.args, "liger_kernel_config", None) or {}
    fuses = getattr(trainer.args, "use_liger_kernel", False) and liger.get("fused_linear_cross_entropy", True)
    chunked = getattr(trainer.args, "loss_type", None) == "chunked_nll"  # TRL before 1.16
    if fuses or chunked or _has_fused_head(trainer.model):
        return "fused"
    return "full" if type(trainer).__module__.startswith("transformers.") else None


def _has_fused_head(model: Any) -> bool:
    """Return whether TRL's ``add_fused_lm_head`` replaced the forward of a model, or of the model below PEFT."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    forward = vars(inner).get("forward")
    code = getattr(getattr(forward, "__func__", forward), "__code__", None)
    return code is not None and "fused_lm_head" in code.co_varnames


def accelerator_fields(accelerator: Any) -> dict[str, Any]:
    """Return the fields of an ``accelerate.Accelerator``. A loop of one's own may open an autocast region of its own.

    Its optimizer, batches and checkpointing are unknown.
    """
    dtype = {"fp16": "float16", "bf16": "bfloat16"}.get(str(getattr(accelerator, "mixed_precision", "no")))
    kind = str(getattr(accelerator, "distributed_type", ""))
    deepspeed = kind.endswith("DEEPSPEED")  # casts the model and opens no autocast region; its engine names the stage
    scaler = getattr(accelerator, "scaler", None)
    return {
        "autocast_dtype": None if deepspeed else dtype,
        "grad_scaler": False if deepspeed else scaler is not None,
        "strategy": None if deepspeed else (strategy := _strategy_of(accelerator, renamed=True)),
        "offload": None if deepspeed else _offloads(accelerator, strategy),
        "world_size": _positive(getattr(accelerator, "num_processes", None)),
        "device": _accelerator(getattr(accelerator, "device", None)),
    }


def _strategy_of(arguments: Any, *, renamed: bool) -> Strategy | None:
    """Return the strategy that the arguments set, or the launcher through the environment; None if neither does."""
    config = getattr(arguments, "deepspeed", None)
    config = getattr(getattr(arguments, "hf_deepspeed_config", None), "config", config)
    if config:
        return zero_stage(config)
    fsdp = getattr(arguments, "fsdp_config", None)
    if getattr(arguments, "fsdp", None):
        version = fsdp.get("version", fsdp.get("fsdp_version")) if isinstance(fsdp, dict) else None
        return Strategy.FSDP2 if str(version or (2 if renamed else 1)) == "2" else Strategy.FSDP1
    state = getattr(arguments, "distributed_state", arguments)  # an Accelerator names the type itself
    kind = str(getattr(state, "distributed_type", "")).rpartition(".")[2]
    if kind == "FSDP":
        return Strategy.FSDP2 if os.environ.get("FSDP_VERSION") == "2" else Strategy.FSDP1
    if kind == "NO":
        return Strategy.SINGLE
    return Strategy.DDP if kind in ("MULTI_GPU", "MULTI_CPU", "MULTI_XPU", "MULTI_NPU", "MULTI_MLU", "MULTI_HPU") else None


def _offloads(arguments: Any, strategy: Strategy | None) -> bool | None:
    """Return whether sharded weights lie in host memory, as the arguments or the launcher's environment say; None for no."""
    config: Any = getattr(arguments, "deepspeed", None)
    config = getattr(getattr(arguments, "hf_deepspeed_config", None), "config", config)
    if isinstance(config, dict):
        return offloads(strategy, config.get("zero_optimization") or {})
    if strategy not in (Strategy.FSDP1, Strategy.FSDP2):
        return None
    given: Any = getattr(arguments, "fsdp_config", None)
    given = given if isinstance(given, dict) else {}
    options = getattr(arguments, "fsdp", None)
    named = "offload" in {str(getattr(one, "value", one)) for one in options} if isinstance(options, list) else False
    words = (given.get("cpu_offload", given.get("offload_params")), os.environ.get("FSDP_OFFLOAD_PARAMS"))
    return named or any(str(word).lower() == "true" for word in words) or None


def _find_unused(arguments: Any, model: Any, *, enabled: bool) -> bool | None:
    given = getattr(arguments, "ddp_find_unused_parameters", None)
    if given is not None or model is None:
        return given
    if not any(base.__name__ == "PreTrainedModel" for base in type(model).__mro__):
        return True
    checkpoints = getattr(model, "is_activation_checkpointing", getattr(model, "is_gradient_checkpointing", False))
    return not (checkpoints or enabled)


def _fsdp_checkpointing(arguments: Any) -> bool | None:
    config = getattr(arguments, "fsdp_config", None)
    value = config.get("activation_checkpointing") if isinstance(config, dict) and getattr(arguments, "fsdp", None) else None
    return None if value is None else str(value).lower() == "true"


def _seq_len(arguments: Any) -> int | None:
    """Return the tokens per sequence; None if the arguments set no limit.

    SFT, DPO and reward configs limit the whole sequence. GRPO configs limit prompt and completion separately.
    """
    for name in ("max_length", "max_seq_length"):
        found = _positive(getattr(arguments, name, None))
        if found is not None:
            return found
    parts = [_positive(getattr(arguments, name, None)) for name in ("max_prompt_length", "max_completion_length")]
    return None if None in parts else sum(part for part in parts if part)


def _accelerator(device: Any) -> str | None:
    return None if device is None or str(device) == "cpu" else str(device)


def _rate(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 else None


def _beta(arguments: Any) -> float | None:
    """Return the factor in the loss of TRL's ``DPOConfig`` and ``KTOConfig``. IPO divides by it."""
    kinds = getattr(arguments, "loss_type", None)
    scaled = {"sigmoid", "hinge", "robust", "kto"}.issuperset([kinds] if isinstance(kinds, str) else kinds or [""])
    named = any(cls.__name__ in ("DPOConfig", "KTOConfig") for cls in type(arguments).__mro__)
    return _rate(getattr(arguments, "beta", None)) if named and scaled else None


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
