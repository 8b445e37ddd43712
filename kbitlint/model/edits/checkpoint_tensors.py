"""Single parameters of a checkpoint folder, read as ``from_pretrained`` would load them, without the rest."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class StoredParameters:
    """A reader of single parameters in a model's checkpoint.

    Some checkpoints store each expert by itself. transformers' own conversions stack them, on a copy of the model without
    weights. Only tensors that belong to the requested parameter are read.

    Args:
        model: The transformers model, for its class, its config and the names of its parameters.
        folder: The folder of the checkpoint.

    Raises:
        Exception: transformers cannot build the class without weights. Its own error passes through.
    """

    def __init__(self, model: Any, folder: Path) -> None:
        from safetensors import safe_open  # comes with transformers
        from transformers.conversion_mapping import get_model_conversion_mapping  # takes a second to import
        from transformers.core_model_loading import (  # takes a second to import
            WeightConverter,
            WeightRenaming,
            rename_source_key,
        )

        with torch.device("meta"):
            self._skeleton = type(model)(copy.deepcopy(model.config))
        self._mapping = get_model_conversion_mapping(self._skeleton)
        renamings = [one for one in self._mapping if isinstance(one, WeightRenaming)]
        converters = [one for one in self._mapping if isinstance(one, WeightConverter)]
        names = self._skeleton.state_dict()
        prefix = self._skeleton.base_model_prefix
        self._places: dict[str, list[tuple[Path, str]]] = {}
        for file in sorted(folder.glob("*.safetensors")):
            if not file.is_file():  # a read from a named pipe would block
                continue
            with safe_open(file, "pt") as content:
                for key in content.keys():  # noqa: SIM118  # not a mapping
                    name = rename_source_key(key, renamings, converters, prefix, names)[0]
                    self._places.setdefault(name, []).append((file, key))

    def parameter(self, path: str, dtype: torch.dtype) -> Tensor | None:
        """Return the parameter at a path of the model, on the CPU. None means that the checkpoint has no tensor for it."""
        from safetensors import safe_open  # comes with transformers
        from transformers.core_model_loading import convert_and_load_state_dict_in_model  # takes a second to import
        from transformers.modeling_utils import LoadStateDictConfig  # takes a second to import

        places = self._places.get(path, [])
        if not places:
            return None
        owner, _, name = path.rpartition(".")
        module = self._skeleton.get_submodule(owner)
        empty = module._parameters[name]  # noqa: SLF001  # torch has no public dictionary
        with ExitStack() as files:
            opened = {file: files.enter_context(safe_open(file, "pt")) for file in dict.fromkeys(file for file, _ in places)}
            found = {key: opened[file].get_slice(key) for file, key in places}
            config = LoadStateDictConfig(dtype=dtype, device_map={"": "cpu"}, weight_mapping=copy.deepcopy(self._mapping))
            convert_and_load_state_dict_in_model(self._skeleton, found, config)
        loaded = module._parameters[name]  # noqa: SLF001  # see above
        module._parameters[name] = empty  # noqa: SLF001  # see above
        return None if loaded is None or loaded.is_meta else loaded.detach().to(dtype)


def stored_parameters(model: nn.Module) -> StoredParameters | None:
    """Return the checkpoint named by the model's ``name_or_path``, or None if it is no local folder or cannot be read."""
    folder = Path(str(getattr(model, "name_or_path", "") or ""))
    if not (folder.is_dir() and any(folder.glob("*.safetensors"))):
        return None
    try:
        return StoredParameters(model, folder)
    except Exception:  # noqa: BLE001  # transformers' loader has no interface for this, so any error means that there is none
        return None
