"""Fields of a TrainingContext from the launch files of accelerate and DeepSpeed.

Only settings that the file decides are set. A script may still open an autocast region if the file has ``no``.
DeepSpeed casts the model instead of opening a region. Such fields stay None.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.context.strategy import Strategy
from kbitlint.errors import KbitlintError, did_you_mean
from kbitlint.runtime.content import is_file, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PRECISIONS = {"bf16": "bfloat16", "fp16": "float16", "no": None, "fp8": None}
_STRATEGIES = {
    "NO": Strategy.SINGLE,
    "MULTI_GPU": Strategy.DDP,
    "MULTI_CPU": Strategy.DDP,
    "MULTI_XPU": Strategy.DDP,
    "MULTI_NPU": Strategy.DDP,
    "MULTI_MLU": Strategy.DDP,
    "MULTI_HPU": Strategy.DDP,
    "FSDP": Strategy.FSDP1,
    "DEEPSPEED": None,
    "XLA": None,
    "TP": None,
    "MEGATRON_LM": None,
}
_AUTO = "auto"


def training_file(file: Path) -> dict[str, Any]:
    """Return the fields that an accelerate or DeepSpeed file sets; its keys identify the format.

    Raises:
        KbitlintError: If the file cannot be read or has neither format.
    """
    content = _read(file)
    if "distributed_type" in content or "compute_environment" in content:
        return accelerate(file)
    if {"zero_optimization", "train_micro_batch_size_per_gpu", "train_batch_size", "bf16", "fp16"} & set(content):
        return deepspeed(file)
    raise KbitlintError(
        f"--training {file}: is neither an accelerate configuration (it has no distributed_type) "
        "nor a DeepSpeed one (it has no zero_optimization)"
    )


def accelerate(file: Path) -> dict[str, Any]:
    """Return the fields that a file of ``accelerate config`` sets.

    Raises:
        KbitlintError: If the file cannot be read or a value is wrong. The message names the file and the key.
    """
    content = _read(file)
    kind = _one_of(file, "distributed_type", content.get("distributed_type"), _STRATEGIES)
    # YAML reads a bare `no` as false, and accelerate treats false as "no"
    precision = content.get("mixed_precision") or "no"
    autocast = _PRECISIONS[_one_of(file, "mixed_precision", precision, _PRECISIONS)]
    processes = _positive(file, "num_processes", content.get("num_processes"))
    strategy, checkpoints, offload = _STRATEGIES[kind], None, None
    if kind == "FSDP":
        sharding = _table(file, "fsdp_config", content.get("fsdp_config"))
        version = str(sharding.get("fsdp_version", 1))
        strategy = Strategy.FSDP2 if _one_of(file, "fsdp_config.fsdp_version", version, ("1", "2")) == "2" else Strategy.FSDP1
        checkpoints = _flag(file, "fsdp_config.fsdp_activation_checkpointing", sharding.get("fsdp_activation_checkpointing"))
        offload = _flag(file, "fsdp_config.fsdp_offload_params", sharding.get("fsdp_offload_params"))
    elif kind == "DEEPSPEED":
        return _through_accelerate(file, content, processes)
    elif strategy is Strategy.DDP and processes == 1:
        strategy = Strategy.SINGLE
    return {
        "autocast_dtype": autocast,
        "grad_scaler": autocast == "float16" if autocast else None,
        "strategy": strategy,
        "offload": offload,
        "fsdp_checkpointing": checkpoints,
        "world_size": processes,
    }


def _through_accelerate(file: Path, content: dict[str, Any], processes: int | None) -> dict[str, Any]:
    table = _table(file, "deepspeed_config", content.get("deepspeed_config"))
    own = table.get("deepspeed_config_file")
    if own is None:
        stage = _stage(file, "deepspeed_config.zero_stage", table.get("zero_stage", 2))
        offload = offloads(stage, {"offload_param": {"device": table.get("offload_param_device")}})
        return {"strategy": stage, "offload": offload, "world_size": processes}
    there = Path(str(own))
    if not there.is_absolute() and not is_file(there):
        there = file.parent / there
    return deepspeed(there) | {"world_size": processes}


def deepspeed(file: Path) -> dict[str, Any]:
    """Return the fields that a DeepSpeed configuration sets.

    Raises:
        KbitlintError: If the file cannot be read or a value is wrong. The message names the file and the key.
    """
    content = _read(file)
    zero = _table(file, "zero_optimization", content.get("zero_optimization"))
    batch = content.get("train_micro_batch_size_per_gpu")
    _table(file, "zero_optimization.offload_param", zero.get("offload_param"))
    optimizer = _table(file, "optimizer", content.get("optimizer")).get("type")
    casts = any(_casts(file, name, content.get(name)) for name in ("bf16", "fp16"))
    strategy = _stage(file, "zero_optimization.stage", zero.get("stage", 0))
    return {
        "autocast_dtype": None if casts else "float32",
        "strategy": strategy,
        "offload": offloads(strategy, zero),
        "optimizer": None if optimizer in (None, _AUTO) else str(optimizer),
        "batch_size": None if batch == _AUTO else _positive(file, "train_micro_batch_size_per_gpu", batch),
    }


def offloads(strategy: Strategy | None, zero: Mapping[str, Any]) -> bool | None:
    """Return whether ZeRO 3 holds weights in host memory, by the table ``zero_optimization``; None for other stages."""
    if strategy is not Strategy.ZERO3:
        return None
    offload = zero.get("offload_param")
    return (isinstance(offload, dict) and offload.get("device") in ("cpu", "nvme")) or None


def zero_stage(config: Any) -> Strategy | None:
    """Return the strategy of a DeepSpeed configuration, which is a dictionary or the path of a file.

    None means ZeRO stage 0 or an unknown stage.
    """
    if not isinstance(config, dict):
        strategy: Strategy | None = deepspeed(Path(str(config)))["strategy"]
        return strategy
    zero = config.get("zero_optimization")
    stage = zero.get("stage", 0) if isinstance(zero, dict) else 0
    return {1: Strategy.ZERO2, 2: Strategy.ZERO2, 3: Strategy.ZERO3}.get(stage)


def _read(file: Path) -> dict[str, Any]:
    try:
        text = read_text(file)
    except (OSError, UnicodeDecodeError) as error:
        raise KbitlintError(f"--training {file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        content = json.loads(text) if file.suffix == ".json" else _yaml(file, text)
    except (ValueError, RecursionError) as error:  # a number with too many digits raises ValueError
        raise KbitlintError(f"--training {file}: the file is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise KbitlintError(f"--training {file}: must hold a table of keys, not a {type(content).__name__}")
    return content


def _yaml(file: Path, text: str) -> Any:
    try:
        import yaml  # only the file of accelerate needs it
    except ImportError as error:
        raise KbitlintError(f"--training {file}: reading YAML needs PyYAML: pip install pyyaml") from error
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise KbitlintError(f"--training {file}: the file is not valid YAML: {problem}") from error


def _one_of(file: Path, key: str, value: Any, known: Iterable[str]) -> str:
    word = str(getattr(value, "value", value))
    if word not in known:
        raise KbitlintError(f"--training {file}: {key}: {value!r} is none of {', '.join(known)}{did_you_mean(word, known)}")
    return word


def _stage(file: Path, key: str, value: Any) -> Strategy | None:
    stages = {0: None, 1: Strategy.ZERO2, 2: Strategy.ZERO2, 3: Strategy.ZERO3}
    if isinstance(value, bool) or not isinstance(value, int) or value not in stages:
        raise KbitlintError(f"--training {file}: {key}: {value!r} is none of 0, 1, 2, 3")
    return stages[value]


def _table(file: Path, key: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise KbitlintError(f"--training {file}: {key}: must be a table, not {value!r}")
    return value


def _positive(file: Path, key: str, value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise KbitlintError(f"--training {file}: {key}: must be a positive number, not {value!r}")
    return value


def _flag(file: Path, key: str, value: Any) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise KbitlintError(f"--training {file}: {key}: must be true or false, not {value!r}")
    return value


def _casts(file: Path, key: str, value: Any) -> bool:
    """Return whether DeepSpeed casts the model to this precision, or may do so (``auto``)."""
    enabled = _table(file, key, value).get("enabled", False)
    return enabled == _AUTO or bool(_flag(file, f"{key}.enabled", enabled))
