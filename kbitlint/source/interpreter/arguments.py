"""The meaning of a call's arguments, and of the configuration files that they name.

This file holds pure functions over facts. It reads configuration files through ``files/local_configs.py`` only.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from kbitlint.facts.dtypes import CAST_TO
from kbitlint.facts.model_state import Adapters, CheckpointConfig, ModelState
from kbitlint.facts.reentry import Reentry
from kbitlint.facts.values import UNKNOWN, Argument, Call, Symbol, Value, last_name
from kbitlint.files.local_configs import adapter_config, deepspeed_config, zero_stage
from kbitlint.source.interpreter.names import CASTS
from kbitlint.upstream.calls import TRAINING_ARGUMENTS, Arguments, Checkpoints, TrainerApi
from kbitlint.upstream.config_counts import EXPERT_COUNTS, LAYER_COUNTS
from kbitlint.upstream.hub_names import is_hub_id, published_method, stored_method, stored_quantized
from kbitlint.upstream.quantization import OWN_LINEARS, QUANTIZATION_CONFIGS
from kbitlint.upstream.task_heads import HEADLESS, HEADS, head_kind
from kbitlint.upstream.trl_versions import behavior
from kbitlint.upstream.versions import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path as FilePath

    from kbitlint.source.interpreter.objects import Trainer
    from kbitlint.source.launches import Launch

_ZERO3 = re.compile(r"(zero|z|stage)[-_]?3", re.IGNORECASE)
#: the deepest key of a DeepSpeed configuration that transformers compares, optimizer.params.lr, has two dots
_DEPTH = 2
_ZERO2 = re.compile(r"(zero|z|stage)[-_]?2", re.IGNORECASE)


def named_of(config: Mapping[str, Any] | None) -> CheckpointConfig | None:
    """Return the relevant values of a checkpoint's ``config.json``; None if there is no config.

    If the model has several towers, the values of the text tower count.
    """
    if config is None:
        return None
    text = config.get("text_config")
    inner: Mapping[str, Any] = text if isinstance(text, dict) else config
    counts = [inner.get(key) for key in EXPERT_COUNTS]
    experts = next((count for count in counts if isinstance(count, int)), 0)
    tied = config.get("tie_word_embeddings")
    sizes = [size if isinstance(size := inner.get(key), int) else 0 for key in ("vocab_size", "hidden_size")]
    layers = next((count for key in LAYER_COUNTS if isinstance(count := inner.get(key), int)), 0)
    dtype = config.get("dtype", config.get("torch_dtype", inner.get("dtype", inner.get("torch_dtype"))))
    classes, stored = config.get("architectures"), config.get("quantization_config")
    skips = stored.get("llm_int8_skip_modules") if isinstance(stored, dict) else None
    return CheckpointConfig(
        str(inner.get("model_type", "")),
        tied if isinstance(tied, bool) else None,
        experts,
        bool(config.get("auto_map")),
        dtype=dtype if isinstance(dtype, str) else "",
        vocabulary=sizes[0],
        hidden=sizes[1],
        layers=layers,
        pads=True if isinstance(inner.get("pad_token_id"), int) else False if "pad_token_id" in inner else None,
        architecture=str(classes[0]) if isinstance(classes, list) and classes else "",
        skips=tuple(map(str, skips)) if isinstance(skips, list) else None,
    )


def defaults_of(trainer: Trainer, arguments: Call | None, versions: Mapping[str, str]) -> Arguments:
    """Return the defaults of a Trainer's arguments in these versions."""
    api: TrainerApi = trainer.api
    callee = arguments.callee if arguments is not None else api.arguments
    defaults = TRAINING_ARGUMENTS.get(callee, TRAINING_ARGUMENTS[api.arguments])
    own = behavior(versions)
    return Arguments(defaults.checkpointing and own.checkpointing, defaults.bf16 and own.bf16)


def reentry_of(call: Call, how: Checkpoints) -> Reentry:
    """Return the value that a call passes to torch as ``use_reentrant``."""
    if not how.kwargs:
        return how.missing
    kwargs = call.value(how.kwargs)
    if kwargs is None:
        return how.missing
    if not isinstance(kwargs, Call):
        return Reentry.UNKNOWN
    if not kwargs.arguments and kwargs.complete:
        return how.empty
    if kwargs.complete and all(argument.name in ("every_n_layers", "offload") for argument in kwargs.arguments):
        return how.empty  # Trainer removes these (transformers 5.23, trainer.py)
    said = kwargs.value("use_reentrant")
    if said is None:
        return Reentry.UNSET
    return {True: Reentry.YES, False: Reentry.NO}.get(said, Reentry.UNKNOWN) if isinstance(said, bool) else Reentry.UNKNOWN


def rows_of(call: Call, state: ModelState) -> Value:
    """Return the rows of the embeddings after ``resize_token_embeddings``; UNKNOWN if the file does not tell them."""
    count, multiple = call.value("new_num_tokens", UNKNOWN), call.value("pad_to_multiple_of")
    if count is None and multiple is None:
        return state.rows
    if not isinstance(count, int) or not (multiple is None or (isinstance(multiple, int) and multiple > 0)):
        return UNKNOWN
    return count if multiple is None else -(-count // int(multiple)) * int(multiple)


def quantization_of(call: Call) -> tuple[Value, Value, Call | None]:
    """Return the (method, bits, config) that a ``from_pretrained`` call asks for.

    Method None means that the model is surely not quantized. UNKNOWN means that the checkpoint or the caller decides.
    """
    for name, bits in (("load_in_4bit", 4), ("load_in_8bit", 8)):
        if call.value(name) is True:
            return "bitsandbytes", bits, None
    config = call.value("quantization_config")
    if isinstance(config, Call):
        method: Value = QUANTIZATION_CONFIGS.get(config.callee.rpartition(".")[2], UNKNOWN)
        if method == "bitsandbytes" or (method is UNKNOWN and config.callee == "dict"):
            four, eight = config.value("load_in_4bit", False), config.value("load_in_8bit", False)  # noqa: FBT003  # defaults
            if four is True or eight is True:
                return "bitsandbytes", 4 if four is True else 8, config
            return UNKNOWN, UNKNOWN, config
        return method, UNKNOWN, config
    checkpoint = call.value("pretrained_model_name_or_path", UNKNOWN)
    named = isinstance(checkpoint, str) and is_hub_id(checkpoint) and not stored_quantized(checkpoint)
    unquantized = config is None and call.complete and named
    flags = [call.value(name) for name in ("load_in_4bit", "load_in_8bit")]
    if unquantized and all(flag is None or flag is False for flag in flags):
        return None, None, None
    return UNKNOWN, UNKNOWN, None


def stored_of(own: Any, method: Value, bits: Value) -> tuple[Value, Value]:
    """Return the (method, bits) of a checkpoint that is stored quantized; they override those that the call asks for."""
    if not isinstance(own, dict) or not isinstance(own.get("quant_method"), str):
        return method, bits
    return own["quant_method"], 4 if own.get("load_in_4bit") is True else 8 if own.get("load_in_8bit") is True else UNKNOWN


def trained_copies(state: ModelState) -> tuple[tuple[str, ...], ...]:
    """Return the modules of which the adapter config makes PEFT train a copy, each with the names that it may have."""
    config = state.adapters.config if state.adapters is not None else None
    by = state.adapters.by.callee if state.adapters is not None else ""
    if not isinstance(config, Call) or (by in HEADLESS and by != "peft.PeftModel"):
        return ()  # no PeftModel is around the names
    saved, task = config.value("modules_to_save"), config.value("task_type")
    named: list[tuple[str, ...]] = [(name,) for name in saved if isinstance(name, str)] if isinstance(saved, tuple) else []
    kind = head_kind(state.load.callee) if state.load is not None else None
    if kind is not None and by not in HEADLESS and last_name(task) in HEADS[kind][1]:
        named.append(tuple(name for name in HEADS[kind][0] if name not in ("pre_classifier", "pooler")))
    return tuple(named)


def written_flag(name: str, value: str) -> str:
    """Return how a user passes an option of the command line, or sets an environment variable."""
    return f"{name[1:]}={value}" if name.startswith("$") else f"--{name} {value}".rstrip()


def may_stay_unpacked(
    call: Call, quantization: Call | None, config: CheckpointConfig | None, versions: Mapping[str, str]
) -> bool:
    """Return whether a load with bitsandbytes may leave every linear layer as it is.

    Either its linear layers are a class of their own, which transformers 5 leaves out. Or the CPU holds every module, and
    ``llm_int8_enable_fp32_cpu_offload`` leaves those out (quantizer_bnb_4bit.py). Without a ``device_map``, a machine decides.
    """
    offloads = quantization.value("llm_int8_enable_fp32_cpu_offload") if quantization is not None else None
    if offloads not in (None, False):
        given, whole = call.within("device_map"), call.value("device_map")
        devices = {item.value for item in given.arguments} if given is not None and given.complete else {whole}
        if devices <= {"cpu", "disk", None, UNKNOWN}:
            return True
    name, kind = call.value("pretrained_model_name_or_path"), config.model_type if config is not None else ""
    if not kind and isinstance(name, str) and any(word in name.lower() for word in OWN_LINEARS):
        from kbitlint.upstream.families import facts_of  # the table of families, for few scripts

        kind = facts_of(name).model_type
    return kind in OWN_LINEARS and number(versions.get("transformers", "5")) >= (5,)


def stored_by_name(call: Call, beside: FilePath | None) -> tuple[str, Value] | None:
    """Return the (method, bits) in which a checkpoint is stored, as far as its name tells; None if it tells nothing.

    For a folder of adapters, the name of their base counts.
    """
    name = call.value("pretrained_model_name_or_path")
    base = (_adapters_at(name, beside) or {}).get("base_model_name_or_path", name)
    return stored_method(base) if isinstance(base, str) else None


def refused_by_name(call: Call, asked: Value, config: Mapping[str, Any] | None) -> str | None:
    """Return the method in which a checkpoint's publisher stores it, if a config of another method is passed for it.

    transformers then raises. A config of the same method, or none, decides how the checkpoint is loaded. A ``config.json`` on
    this machine, ``config``, knows it better than the name.
    """
    name = call.value("pretrained_model_name_or_path")
    passed = isinstance(asked, str) and isinstance(call.value("quantization_config"), Call)
    if config is not None or not passed or not isinstance(name, str):
        return None
    stored = published_method(name)
    return stored if stored != asked else None


def _adapters_at(name: Value, beside: FilePath | None) -> Mapping[str, Any] | None:
    return adapter_config(name, beside) if isinstance(name, str) and beside is not None else None


def base_of_adapters(call: Call, beside: FilePath | None) -> Value:
    """Return the base that the folder of loaded adapters names; None if the folder is not here, or names none."""
    folder = call.value("model_id", call.value("peft_model_id", call.value("0")))
    base = (_adapters_at(folder, beside) or {}).get("base_model_name_or_path")
    return base if isinstance(base, str) else None


def with_stored_adapters(call: Call, state: ModelState, beside: FilePath | None) -> ModelState:
    """Return the state of a loaded model with the adapters that its folder holds: transformers and unsloth load both.

    Those that transformers loads are frozen (integrations/peft.py), and those of unsloth are trained further.
    """
    name = call.value("pretrained_model_name_or_path", call.value("model_name"))
    stored = _adapters_at(name, beside) if not call.callee.startswith("peft.") else None
    if stored is None:
        return state
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
    given = (Argument(key, value, call.span, call.span) for key, value in plain.items() if not isinstance(value, dict))
    config = Call("peft.LoraConfig", call.span, tuple(given), complete=False)
    further = call.callee.startswith("unsloth.")
    adapters = Adapters(call, config, trainable=further, dtype=UNKNOWN, frozen_by=None if further else call)
    return dataclasses.replace(state, adapters=adapters, base_frozen=True, certain=True)


def sharding_of(arguments: Call, beside: FilePath | None = None, launch: Launch | None = None) -> tuple[Value, bool | None]:
    """Return the (ZeRO stage, FSDP) that training arguments or the launch of the script ask for.

    Stage None means no ZeRO, and UNKNOWN an unknown stage. FSDP is None if it is unknown.
    """
    fsdp = arguments.value("fsdp")
    if launch is not None and (launch.fsdp or launch.zero is not None):
        return launch.zero, launch.fsdp
    sharded = None if fsdp is UNKNOWN else bool(fsdp) if not isinstance(fsdp, Symbol) else None
    deepspeed = arguments.value("deepspeed")
    if isinstance(deepspeed, Call):
        zero = deepspeed.value("zero_optimization")
        return (zero.value("stage") if isinstance(zero, Call) else UNKNOWN), sharded
    if isinstance(deepspeed, str):
        stage = zero_stage(deepspeed, beside) if beside is not None else None
        if stage is not None:
            return stage, sharded
        return (3 if _ZERO3.search(deepspeed) else 2 if _ZERO2.search(deepspeed) else UNKNOWN), sharded
    return (None if deepspeed is None else UNKNOWN), sharded


def fixed_by_deepspeed(arguments: Call, beside: FilePath | None = None) -> tuple[tuple[str, Value], ...]:
    """Return the plain values of the DeepSpeed configuration that training arguments name, by dotted key."""
    deepspeed = arguments.value("deepspeed")
    if isinstance(deepspeed, str) and beside is not None:
        return tuple(_plain(deepspeed_config(deepspeed, beside) or {}))
    return tuple(_written(deepspeed)) if isinstance(deepspeed, Call) and deepspeed.callee == "dict" else ()


def _plain(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Value]]:
    for key, value in config.items():
        if isinstance(value, dict) and prefix.count(".") < _DEPTH:
            yield from _plain(value, f"{prefix}{key}.")
        elif isinstance(value, (bool, int, float, str)):
            yield f"{prefix}{key}", value
        elif isinstance(value, list) and all(isinstance(one, (int, float)) for one in value):
            yield f"{prefix}{key}", tuple(value)


def _written(config: Call, prefix: str = "") -> Iterator[tuple[str, Value]]:
    for argument in config.arguments:
        if isinstance(argument.value, Call) and prefix.count(".") < _DEPTH:
            yield from _written(argument.value, f"{prefix}{argument.name}.")
        elif isinstance(argument.value, (bool, int, float, str, tuple)):
            yield f"{prefix}{argument.name}", argument.value


def cast_dtype(call: Call, name: str) -> str | None:
    """Return the dtype to which a method casts: ``half()``, ``to(torch.float16)``; None if it casts to none that is known."""
    shown = [call.dtype("dtype"), *(call.dtype(argument.name) for argument in call.arguments)]
    found = next((item for item in shown if item in CAST_TO), None)
    return CASTS.get(name) or (found if isinstance(found, str) else None)


def disabled(name: str, state: ModelState) -> ModelState:
    """Return a state after a method that switches checkpointing off, or removes the hooks of the last call that made some."""
    if name in ("gradient_checkpointing_disable", "activation_checkpointing_disable"):
        return dataclasses.replace(state, checkpointing=dataclasses.replace(state.checkpointing, enabled=False))
    return dataclasses.replace(state, hooks=state.hooks[:-1]) if name == "disable_input_require_grads" else state
