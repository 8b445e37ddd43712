"""The parts of a model that quantization and adapters treat differently: heads, towers, fused experts, empty shells."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from kbitlint.facts.layers import short_name
from kbitlint.model import adapters
from kbitlint.model.attributes import attribute
from kbitlint.model.facts import HeadFacts, HollowFacts, LinearFacts, TowerFacts
from kbitlint.model.quantized import packed_class

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from kbitlint.facts.layers import AdapterFacts

#: inputs that are text, or that a model gets from another one; what reads anything else is a tower
_TEXT = frozenset(["input_ids", "inputs_embeds", "hidden_states", "decoder_input_ids"])
_TASK = re.compile(r"For(\w*Classification|QuestionAnswering|MultipleChoice)$")
#: what a stack of experts is called, by its own path or by the class that holds it
_EXPERTS = re.compile(r"expert|moe", re.IGNORECASE)
#: small beside a stack of experts, and no matrices: what picks experts and what is added to their output
_NO_EXPERTS = re.compile(r"bias|router|gate\.|gate$|scale|embed", re.IGNORECASE)
#: dimensions of stacked matrices; DBRX stacks them in two
_BANK, _FLAT_BANK = 3, 2
#: modules that multiply with the whole of a parameter
_NO_BANKS: tuple[type[nn.Module], ...] = (nn.modules.conv._ConvNd, nn.Embedding, nn.Linear)  # noqa: SLF001  # the only common base


def is_bank(module: nn.Module, path: str, parameter: Tensor) -> bool:
    """Whether a parameter stacks the matrices of several experts: code uses one at a time, or all in one product."""
    if isinstance(module, _NO_BANKS) or not _FLAT_BANK <= parameter.ndim <= _BANK or min(parameter.shape) <= 1:
        return False
    if not parameter.is_floating_point() or _NO_EXPERTS.search(".".join(path.split(".")[-2:])):
        return False
    if parameter.ndim == _BANK:
        return _EXPERTS.search(f"{path} {type(module).__name__}") is not None
    return "Expert" in type(module).__name__ and not type(module).__module__.startswith(("torch.", "peft.", "bitsandbytes."))


def hollow(module: nn.Module, path: str) -> Iterator[HollowFacts]:
    """The module, where its class packs a weight and its weight is not packed."""
    bits, weight = packed_class(type(module)), module._parameters.get("weight")  # noqa: SLF001  # one dictionary read
    if bits is not None and weight is not None:
        pending = type(weight).__name__ == "Params4bit"
        yield HollowFacts(path, type(module).__name__, bits, short_name(weight.dtype), pending)


def is_offloaded(hook: Any) -> bool:
    """Whether accelerate's hook of a module (``AlignDevicesHook``, or several in one) brings its weights for each call."""
    return any(attribute(one, "offload") is True for one in (hook, *attribute(hook, "hooks", ())))


def unconverted(base: Any, linears: Iterable[tuple[str, nn.Module]]) -> tuple[LinearFacts, ...] | None:
    """Those of a model's plain Linears that bitsandbytes was to replace; None where no record says which it was not to.

    The keys are patterns (``should_convert_module`` of transformers); a key that occurs anywhere in the path counts
    here, so that a layer is reported only where no version of transformers would have left it out.
    """
    keys = attribute(attribute(base, "hf_quantizer"), "modules_to_not_convert")
    if keys is None:
        return None
    return tuple(
        LinearFacts(path, type(module).__name__, short_name(module.weight.dtype), int(module.weight.numel()))
        for path, module in linears
        if not any(key in path or re.match(key, path) for key in map(str, keys))
    )


def heads(base: Any, where: dict[int, str]) -> Iterator[HeadFacts]:
    """The output embedding of a language model, or every head of a model for a task."""
    task = _TASK.search(type(base).__name__)
    if task is None:
        head = _output_embedding(base)
        if id(head) in where:
            yield HeadFacts(where[id(head)], "")
        return
    prefix = attribute(base, "base_model_prefix", "")
    for name, child in base.named_children():
        if name != prefix and attribute(child, "config") is None and any(True for _ in child.parameters()):
            yield HeadFacts(name, task.group(1))


def _output_embedding(model: Any) -> nn.Module | None:
    try:
        found = model.get_output_embeddings()
    except Exception:  # noqa: BLE001  # see adapters.input_embedding
        return None
    return found if isinstance(found, nn.Module) else None


def towers(models: Iterable[tuple[str, Any]]) -> Iterator[TowerFacts]:
    """The models within the model that read images, sound or something else that is no text, outermost only."""
    found: list[str] = []
    for path, model in models:
        reads = attribute(model, "main_input_name")
        reads = reads[0] if isinstance(reads, (list, tuple)) and reads else reads
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if path and isinstance(reads, str) and reads not in _TEXT and not inside:
            found.append(path)
            yield TowerFacts(path, type(model).__name__, reads)


def dead_targets(known: Iterable[AdapterFacts], paths: Collection[str], adapted: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Entries of ``target_modules`` that are no module's name; PEFT complains only where all of them are dead.

    PEFT compares an entry with the whole path or with its end (``check_target_module_exists``), when it attaches: a layer
    that was wrapped later has names in its path that the entry has not, and keeps its adapters.

    Args:
        known: The adapters.
        paths: Those of all modules.
        adapted: Those of the modules that have adapters.
    """
    names: set[str] = set()
    for adapter in known:
        if not names and adapter.targets:
            plain = [adapters.below_wrappers(path) for path in paths]
            names.update(plain)
            names.update(path.rpartition(".")[2] for path in plain)
        dead = [t for t in adapter.targets if t not in names and not any(path.endswith(f".{t}") for path in names if "." in t)]
        ends = tuple(f".{target}" for target in adapter.targets)
        unnamed = [path for path in adapted if not f".{path}".endswith(ends)] if dead else []
        for target in dead:
            if not any(_was_at(target.split("."), path) for path in unnamed):
                yield adapter.name, target


def _was_at(entry: list[str], path: str) -> bool:
    """Whether a path is that of the entry with names in between."""
    names = path.split(".")
    left = iter(names)
    return len(entry) > 1 and (entry[0], entry[-1]) == (names[0], names[-1]) and all(name in left for name in entry)


def recorded_dtype(base: Any) -> str | None:
    """The dtype in the config."""
    found = attribute(attribute(base, "config"), "dtype")
    return None if found is None else short_name(found)


def keeps_float32(models: Iterable[tuple[str, Any]], dtype: str | None) -> tuple[str, ...]:
    """Names of modules that the model keeps in float32 where it is asked for this dtype.

    transformers keeps those of ``_keep_in_fp32_modules`` from float16 only, the strict ones from bfloat16 too.
    bitsandbytes' quantizers of transformers 4 keep both, whatever the dtype.
    """
    names: set[str] = set()
    models = tuple(models)
    both = dtype == "float16" or any(keeps_whatever_the_dtype(model) for _, model in models)
    lists = ("_keep_in_fp32_modules_strict", "_keep_in_fp32_modules")[: 1 + both]
    for _, model in models:
        for name in lists:
            names.update(map(str, attribute(model, name) or ()))
    return tuple(sorted(names))


def keeps_whatever_the_dtype(model: Any) -> bool:
    """Whether the quantizer that loaded the model keeps ``_keep_in_fp32_modules`` from bfloat16 too."""
    return bool(attribute(attribute(model, "hf_quantizer"), "use_keep_in_fp32_modules"))


def quantizer_trains(base: Any) -> bool | None:
    """What the quantizer that loaded the model says about training, or None where there is none or it cannot say."""
    try:
        found = base.hf_quantizer.is_trainable
    except Exception:  # noqa: BLE001  # some ask for the version of a package that is not installed
        return None
    return found if isinstance(found, bool) else None
