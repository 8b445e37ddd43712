"""Contradictions between the configuration of a saved LoRA adapter and the names and shapes of its tensors.

The comparisons are those of PEFT 0.21 when it loads an adapter: the configuration decides which layers are made, and
``load_state_dict(strict=False)`` fills those whose names are found. Nothing of a tensor is read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kbitlint.facts.checkpoint import FLOATS, Contradiction
from kbitlint.runtime.patterns import matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kbitlint.facts.checkpoint import Tensor

_PREFIX = "base_model.model."
_LORA = re.compile(r"(?P<module>.+)\.(?P<part>lora_(embedding_)?[AB]|lora_magnitude_vector)(\.default)?(\.weight)?")
#: Names that wrappers insert.
_WRAPPERS = re.compile(r"(^module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_NO_TENSOR = "it is named in adapter_config.json, and the file holds no tensor of such a module"
#: The name of an adapter, which PEFT strips when it saves. PEFT 0.21 finds ``default`` all the same, the name it loads under.
_NAMED = re.compile(r"\.lora_(embedding_)?[AB]\.(?P<adapter>(?!(weight|bias|default)(\.|$))\w+)(\.weight)?$")


def contradictions(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], base: Mapping[str, Tensor] | None
) -> tuple[Contradiction, ...]:
    """Return what PEFT would refuse, or drop without an error, when it loads these tensors under this configuration.

    Adapters of other types than LoRA, and those of single parameters (experts), have other names and are left out.

    Args:
        config: The content of adapter_config.json.
        tensors: The tensors of adapter_model.safetensors, by name.
        base: The tensors of the base model, by name; None if they are not known.
    """
    if str(config.get("peft_type")) != "LORA" or not tensors or config.get("target_parameters"):
        return ()
    strange = tuple(_strange_names(tensors))
    if strange:
        return strange
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _LORA.fullmatch(name.removeprefix(_PREFIX))
        if match is not None and "expert" not in match["module"]:  # transformers 5 renames experts while it loads
            modules.setdefault(match["module"], {})[match["part"]] = tensor
    found = (*_ranks(config, modules), *_sizes(modules, base or {}), *_parts(config, modules), *_dropped(config, modules))
    converted = any("expert" in name for name in tensors)
    return (*found, *_missing_copies(config, tensors, base), *(() if converted else _missing_targets(config, modules, base)))


def _strange_names(tensors: Iterable[str]) -> Iterator[Contradiction]:
    names = [name for name in tensors if ".lora_" in name]
    if not names:
        yield Contradiction("", "it is configured as LoRA, and no tensor of its file is LoRA's", fails=False)
    for name in names:
        named, wrapped = _NAMED.search(name), _WRAPPERS.search(name)
        if name.startswith(_PREFIX * 2):
            yield Contradiction(name, "its name has the prefix of PEFT twice, as nested adapters are saved", fails=False)
        elif named is not None:
            yield Contradiction(name, f"its name still holds that of the adapter, {named['adapter']}", fails=False)
        elif wrapped is not None:
            yield Contradiction(name, f"its name still holds that of a wrapper, {wrapped[1]}", fails=False)
        elif not name.startswith(_PREFIX):
            yield Contradiction(name, f"its name lacks the prefix {_PREFIX}", fails=False)


def _ranks(config: Mapping[str, Any], modules: Mapping[str, Mapping[str, Tensor]]) -> Iterator[Contradiction]:
    rank, patterns = config.get("r"), config.get("rank_pattern")
    patterns = patterns if isinstance(patterns, dict) else {}
    if not isinstance(rank, int) or config.get("use_bdlora"):
        return
    for module, parts in modules.items():
        wanted = _by_pattern(patterns, module, rank)
        for part, axis in (("lora_A", 0), ("lora_B", 1), ("lora_embedding_A", 0), ("lora_embedding_B", 1)):
            shape = parts[part].shape if part in parts else ()
            if len(shape) > 1 and shape[axis] != wanted and 0 not in shape:
                yield Contradiction(
                    f"{module}.{part}", f"it has rank {shape[axis]}, and the configuration {wanted}", fails=True
                )
                break


def _sizes(modules: Mapping[str, Mapping[str, Tensor]], base: Mapping[str, Tensor]) -> Iterator[Contradiction]:
    """Yield factors whose sizes differ from those of the base's matrix. GPT-2 stores its matrices transposed."""
    for module, parts in modules.items():
        weight, first, second = base.get(f"{module}.weight"), parts.get("lora_A"), parts.get("lora_B")
        if (
            weight is None
            or first is None
            or second is None
            or not len(weight.shape) == len(first.shape) == len(second.shape) == 2
        ):
            continue
        made = second.shape[0], first.shape[1]
        if weight.dtype in FLOATS and made not in (weight.shape, weight.shape[::-1]) and 0 not in made:
            problem = f"it makes a matrix of {list(made)}, and the base has {list(weight.shape)}"
            yield Contradiction(f"{module}.lora_A", problem, fails=True)


def _by_pattern(patterns: Mapping[str, Any], module: str, default: int) -> Any:
    """Return the rank of a module (``get_pattern_key`` of PEFT)."""
    for pattern, value in patterns.items():
        found = matches(rf"(.*\.)?({pattern})$", module)
        if found is not False:
            return value if found else default
    return default


def _parts(config: Mapping[str, Any], modules: Mapping[str, Mapping[str, Tensor]]) -> Iterator[Contradiction]:
    for module, parts in modules.items():
        for one, other in (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")):
            if (one in parts) != (other in parts):
                lost, held = (other, one) if one in parts else (one, other)
                yield Contradiction(f"{module}.{held}", f"{lost} of this module is not in the file", fails=False)
        if config.get("use_dora") and "lora_A" in parts and "lora_magnitude_vector" not in parts:
            yield Contradiction(
                f"{module}.lora_A", "use_dora is set, and lora_magnitude_vector is not in the file", fails=False
            )


def _dropped(config: Mapping[str, Any], modules: Iterable[str]) -> Iterator[Contradiction]:
    targets = config.get("target_modules")
    for module in modules:
        if isinstance(targets, str):
            attached = targets == "all-linear" or matches(targets, module, whole=True) is not False
        else:
            attached = not isinstance(targets, list) or any(f".{module}".endswith(f".{target}") for target in targets)
        if not attached:
            yield Contradiction(module, "target_modules do not match it: PEFT drops its tensors", fails=False)


def _missing_targets(config: Mapping[str, Any], modules: Iterable[str], base: Iterable[str] | None) -> Iterator[Contradiction]:
    targets = config.get("target_modules")
    for target in targets if isinstance(targets, list) else ():
        held = any(f".{module}".endswith(f".{target}") for module in modules)
        if not held and (base is None or any(f".{name}".endswith(f".{target}.weight") for name in base)):
            yield Contradiction(f"target_modules.{target}", _NO_TENSOR, fails=False)


def _missing_copies(config: Mapping[str, Any], tensors: Iterable[str], base: Iterable[str] | None) -> Iterator[Contradiction]:
    """Yield copies that are not in the file. PEFT itself lists heads that a model need not have, if there is a task type."""
    saved = config.get("modules_to_save")
    for entry in saved if isinstance(saved, list) and (base is not None or not config.get("task_type")) else ():
        held = any(f".{entry}." in f".{name}." for name in tensors)
        if not held and (base is None or any(f".{entry}." in f".{name}." for name in base)):
            yield Contradiction(f"modules_to_save.{entry}", _NO_TENSOR, fails=base is not None)
