"""Adapters that transformers' ``from_pretrained`` attaches by itself, where a folder or a call names some.

``transformers/integrations/peft.py`` reads ``adapter_config.json``, loads the base that it names, and injects the adapters.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from kbitlint.errors import as_library
from kbitlint.files.safetensors import HeaderError, read_header
from kbitlint.model.build.packed_weights import pack
from kbitlint.runtime import content

_FILE, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
#: functions that make integers, and those that do if they are asked for a dtype of integers
_INTEGERS = frozenset((torch.randint, torch.randperm, torch.arange))
_FACTORIES = frozenset((torch.zeros, torch.ones, torch.empty, torch.full, torch.tensor))


class Integers(TorchFunctionMode):
    """Integers that decide the structure of an adapter, such as BOFT's permutations: they have values."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function, on the CPU if it makes integers."""
        given = dict(kwargs or {})
        kind = given.get("dtype")
        typed = isinstance(kind, torch.dtype) and not (kind.is_floating_point or kind.is_complex)
        if function in _INTEGERS or (function in _FACTORIES and typed):
            given.setdefault("device", "cpu")
        return function(*args, **given)


def of_load(name: object, options: dict[str, Any]) -> tuple[str, str | None]:
    """Return (the checkpoint to build, the folder of its adapters or None) of a call of ``from_pretrained``.

    Args:
        name: The checkpoint that the call names. An Auto class has replaced a folder of adapters by their base.
        options: The keyword arguments.
    """
    folder = (options.get("adapter_kwargs") or {}).get("_adapter_model_path")
    if folder is not None:
        return str(name), str(folder)
    file = Path(str(name), str(options.get("subfolder") or ""), _FILE)
    if not file.is_file():
        return str(name), None
    whole = Path(str(name), "config.json").exists()  # a complete model beside its adapters
    base = str(name) if whole else str(json.loads(content.read_text(file))["base_model_name_or_path"])
    return base, str(name)


def attach(model: Any, folder: str, adapter_name: str = "default") -> None:
    """Attach the adapters of a folder to a model without weights, as ``load_adapter`` of transformers does: for inference.

    Of their weights, only the header is read.

    Raises:
        RuntimeError: A tensor of the folder has another shape than the model's, as after tokens were added to it.
        Exception: PEFT refuses, with its own exception, as it does in a real load.
    """
    from peft import PeftConfig, inject_adapter_in_model  # an optional dependency
    from peft.tuners.tuners_utils import BaseTunerLayer  # see above

    config = PeftConfig.from_pretrained(folder)
    config.inference_mode = True
    with torch.device("meta"), Integers():
        inject_adapter_in_model(config, model, adapter_name)
    pack(model)
    _require_fit(model, Path(folder, _WEIGHTS), adapter_name)
    model._hf_peft_config_loaded = True  # noqa: SLF001  # where transformers keeps it
    model.eval()
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.requires_grad_(requires_grad=False)


def _require_fit(model: Any, file: Path, adapter_name: str) -> None:
    """Raise as transformers does if a file of adapters holds a tensor of another shape than the model's.

    PEFT saves the whole embedding among the adapters when tokens were added. Packed weights have a shape of their own.
    """
    try:
        stored = read_header(file) if file.is_file() else {}
    except HeaderError:
        return
    shapes = {
        name.replace(f".{adapter_name}", ""): tuple(one.shape)
        for name, one in model.state_dict().items()
        if one.is_floating_point()
    }
    for name, tensor in stored.items():
        held = shapes.get(name.removeprefix("base_model.model."))
        if held is not None and held != tuple(tensor.shape):
            raise as_library(
                RuntimeError(
                    f"the model's {name.removeprefix('base_model.model.')} has the shape {list(held)}, and the one in the file "
                    f"{list(tensor.shape)}: `ignore_mismatched_sizes` is False"
                )
            )
