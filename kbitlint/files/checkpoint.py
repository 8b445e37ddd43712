"""Facts of a checkpoint or adapter folder, from its JSON files and safetensors headers.

This module imports no torch. It reads no weights, except for ``lora_B`` tensors of an adapter, the first values of its others,
and those of the model's scales and vectors.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from kbitlint.errors import TargetError
from kbitlint.facts.checkpoint import CheckpointFacts, Damage, Tensor
from kbitlint.files.adapter_tensors import contradictions
from kbitlint.files.json_object import read_json
from kbitlint.files.packing import packing_of
from kbitlint.files.resume import resume_facts
from kbitlint.files.safetensors import HeaderError, all_zero, nonfinite, read_header
from kbitlint.files.stored_values import with_values

#: the largest public checkpoints have about 200 shards
MAX_SHARDS = 2_000
#: bytes of ``lora_B`` that are read to find tensors of zeros
MAX_LOOKED_AT = 64 * 1024 * 1024
_OUTSIDE = "leads out of the folder, and is not followed"
INDEX = "model.safetensors.index.json"


def read_checkpoint(folder: Path, only: Path | None = None) -> CheckpointFacts | None:
    """Return the facts of a folder, or of one of its files.

    None means that the one file is JSON but configures neither a model nor an adapter.

    Raises:
        TargetError: If a JSON file cannot be read or is no JSON object.
    """
    if only is not None and only.name.endswith((".safetensors", ".safetensors.index.json")):
        return _weights(CheckpointFacts(str(folder)), folder, only)
    configs = {"config": "config.json", "adapter": "adapter_config.json", "generation": "generation_config.json"}
    found: dict[str, dict[str, Any] | None] = dict.fromkeys(configs)
    for name, file in configs.items():
        path = folder / file
        if (only is None or only.name == file) and path.is_file():
            found[name] = read_json(path)
    config, adapter = found["config"], found["adapter"]
    if only is not None:
        if only.name not in configs.values():
            read_json(only)
            return None
        if (config is None or "model_type" not in config) and (adapter is None or "peft_type" not in adapter):
            return None
        return CheckpointFacts(str(folder), config, adapter)
    own = CheckpointFacts(
        str(folder),
        config,
        adapter,
        found["generation"],
        highest_token=_highest_token(folder),
        resume=resume_facts(folder),
    )
    facts = _weights(own, folder)
    return facts if adapter is None else _adapter(facts, folder)


def _highest_token(folder: Path) -> int:
    """Return the highest id among the added tokens in tokenizer_config.json; -1 if there is none or it cannot be read."""
    path = folder / "tokenizer_config.json"
    try:
        added = read_json(path).get("added_tokens_decoder") if path.is_file() and inside(path, folder) else None
    except TargetError:
        return -1
    return max((int(key) for key in added if key.isdecimal()), default=-1) if isinstance(added, dict) else -1


def _weights(facts: CheckpointFacts, folder: Path, only: Path | None = None) -> CheckpointFacts:
    """Return the facts with the headers of the model's safetensors files."""
    damages: list[Damage] = []
    unread: list[Damage] = []
    index = _index(folder, only, damages)
    names = sorted(set(index.values())) if index else sorted(_shards(folder))
    if only is not None and only.name.endswith(".safetensors"):
        index, names = {}, [only.name]
    tensors: dict[str, Tensor] = {}
    for name in names[:MAX_SHARDS]:
        path = folder / name
        if Path(name).name != name or not inside(path, folder):
            unread.append(Damage(name, _OUTSIDE))
        elif not path.is_file():
            damages.append(Damage(INDEX, f"names {name}, which is not there"))
        else:
            try:
                tensors |= read_header(path)
            except HeaderError as error:
                damages.append(Damage(name, str(error)))
    if index and not damages and not unread:
        lost = [name for name, file in index.items() if name not in tensors or tensors[name].file != file]
        if lost:
            damages.append(Damage(INDEX, f"places {lost[0]} in {index[lost[0]]}, which does not hold it"))
    packing, bad = with_values(folder, tensors, packing_of(tensors))
    return dataclasses.replace(
        facts, tensors=tensors, damages=tuple(damages), unread=tuple(unread), packing=packing, nonfinite=bad
    )


def _index(folder: Path, only: Path | None, damages: list[Damage]) -> dict[str, str]:
    """Return the file of each tensor from the index; empty if there is no index."""
    path = folder / INDEX
    if (only is not None and only.name != INDEX) or not path.is_file():
        return {}
    weights = read_json(path).get("weight_map")
    if not isinstance(weights, dict) or not all(isinstance(file, str) for file in weights.values()):
        damages.append(Damage(INDEX, "weight_map: must map names of tensors to names of files"))
        return {}
    return weights


def _shards(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.safetensors") if not path.name.startswith("adapter_")]


def inside(path: Path, folder: Path) -> bool:
    """Return whether a file is in the folder. The blobs of a snapshot in the Hub's cache count as part of it."""
    try:
        place, candidates = path.resolve(), homes(folder)
        path.is_file()
    except (OSError, ValueError, RuntimeError):  # an invalid file name, or circular links
        return False
    return any(place.is_relative_to(candidate) for candidate in candidates)


def homes(folder: Path) -> tuple[Path, ...]:
    """Return the folders of a folder's files: itself, and for a snapshot in the Hub's cache its blobs."""
    home = folder.resolve()
    return (home, home.parent.parent / "blobs") if home.parent.name == "snapshots" else (home,)


def _adapter(facts: CheckpointFacts, folder: Path) -> CheckpointFacts:
    """Return the facts with the adapter's header, its tensors of zeros, and its base model if that is a local folder."""
    path = folder / "adapter_model.safetensors"
    if path.is_file() and not inside(path, folder):
        return dataclasses.replace(
            facts, unread=(*facts.unread, Damage(path.name, "leads out of the folder, and is not followed"))
        )
    tensors: dict[str, Tensor] = {}
    if path.is_file():
        try:
            tensors = read_header(path)
        except HeaderError as error:
            return dataclasses.replace(facts, damages=(*facts.damages, Damage(path.name, str(error))))
    zero, left, known = set(), MAX_LOOKED_AT, True
    for name, tensor in tensors.items():
        if ".lora_B." in name and tensor.nbytes:
            found = all_zero(path, tensor, left)
            known = known and found is not None
            left -= tensor.nbytes if found is not None else 0
            if found:
                zero.add(name)
    base = _base(facts, folder)
    return dataclasses.replace(
        facts,
        adapter_tensors=tensors,
        adapter_file=path.is_file(),
        zero=frozenset(zero),
        zero_known=known,
        contradictions=contradictions(facts.adapter or {}, tensors, None if base is None else base.tensors or None),
        nonfinite=(*facts.nonfinite, *(name for name, tensor in tensors.items() if nonfinite(path, tensor))),
        base=base,
    )


def _base(facts: CheckpointFacts, folder: Path) -> CheckpointFacts | None:
    name = (facts.adapter or {}).get("base_model_name_or_path")
    if not isinstance(name, str) or not name or "\0" in name:
        return None
    for place in (Path(name), folder / name):
        if place.is_dir() and (place / "config.json").is_file():
            try:
                config = read_json(place / "config.json")
            except TargetError:
                return None
            return _weights(CheckpointFacts(str(place), config), place)
    return None


def base_of_adapter(folder: Path) -> str:
    """Return the folder or Hub id of an adapter's base model. A folder relative to the adapter's is found too.

    Raises:
        TargetError: If adapter_config.json cannot be read or names no base model.
    """
    path = folder / "adapter_config.json"
    name = read_json(path).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise TargetError(path, "base_model_name_or_path: must name the base model")
    return str(folder / name) if not Path(name).exists() and (folder / name).is_dir() else name
