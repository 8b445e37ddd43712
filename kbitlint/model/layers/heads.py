"""Parts of a model that quantization treats differently: heads, towers, offloaded modules, modules kept in float32."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kbitlint.facts.layers import short_name
from kbitlint.facts.model import HeadFacts, TowerFacts
from kbitlint.model.attributes import attribute
from kbitlint.model.layers.adapters import below_wrappers, input_embedding, wrapped_child

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Main inputs that are text or another model's output. A model with any other main input is a tower.
_TEXT = frozenset(["input_ids", "inputs_embeds", "hidden_states", "decoder_input_ids"])
_TASK = re.compile(r"For(\w{0,60}Classification|QuestionAnswering|MultipleChoice)$")


def is_offloaded(hook: Any) -> bool:
    """Return whether accelerate's hook of a module loads its weights for each call.

    It is an ``AlignDevicesHook``, or a hook that holds several.
    """
    return any(attribute(one, "offload") is True for one in (hook, *attribute(hook, "hooks", ())))


def heads(base: Any, where: dict[int, str]) -> Iterator[HeadFacts]:
    """Yield the output embedding of a language model, or every head of a task model."""
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
    """Yield the models within the model that read images or sound beside a text model, the outermost ones.

    A part that holds a text model is no tower. Neither is the encoder of an encoder-decoder that reads no text itself, such as
    Whisper: it is half of the model.
    """
    known = [(path, model, _main_input(model)) for path, model in models]
    texts = [path for path, _, reads in known if reads in _TEXT]
    found: list[str] = []
    for path, model, reads in known:
        if not path and reads not in _TEXT and attribute(attribute(model, "config"), "is_encoder_decoder"):
            return
        inside = any(path.startswith(f"{outer}.") for outer in found)
        around = any(text.startswith(f"{path}.") for text in texts)
        if path and isinstance(reads, str) and reads not in _TEXT and texts and not (inside or around):
            found.append(path)
            yield TowerFacts(path, type(model).__name__, reads)


def _main_input(model: Any) -> str | None:
    """Return the name of the main input of a model; the first one, if it has several."""
    reads = attribute(model, "main_input_name")
    reads = reads[0] if isinstance(reads, (list, tuple)) and reads else reads
    return reads if isinstance(reads, str) else None


def recorded_dtype(base: Any) -> str | None:
    """Return the dtype in the config, or None if it has none."""
    found = attribute(attribute(base, "config"), "dtype")
    return None if found is None else short_name(found)


def keeps_float32(models: Iterable[tuple[str, Any]], dtype: str | None) -> tuple[str, ...]:
    """Return names of modules that the model keeps in float32 if it is loaded in this dtype.

    transformers applies ``_keep_in_fp32_modules`` to float16 only, and the strict list also to bfloat16. The bitsandbytes
    quantizers of transformers 4 apply both lists to every dtype.
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
    """Return whether the quantizer that loaded the model applies ``_keep_in_fp32_modules`` to bfloat16 as well."""
    return bool(attribute(attribute(model, "hf_quantizer"), "use_keep_in_fp32_modules"))


def untied(base: Any, where: dict[int, str]) -> Iterator[tuple[str, str]]:
    """Yield (output embedding, input embedding) if the config ties them and they hold two tensors.

    Trained copies of adapters are not compared, and a packed head cannot be tied.
    """
    config = attribute(base, "config")
    text = attribute(config, "get_text_config")
    config = text(decoder=True) if callable(text) else config
    one, other = _output_embedding(base), input_embedding(base)
    if attribute(config, "tie_word_embeddings") is not True or one is None or other is None:
        return
    head, entry = (_own_weight(module) for module in (one, other))
    keys = attribute(base, "_tied_weights_keys") or ()
    path = below_wrappers(where.get(id(one), ""))
    if head is None or entry is None or head is entry or head.shape != entry.shape or f"{path}.weight" not in keys:
        return
    if head.device.type == "meta" or head.data_ptr() != entry.data_ptr():
        yield path, below_wrappers(where.get(id(other), ""))


def _own_weight(module: nn.Module) -> torch.Tensor | None:
    """Return the base model's weight in a module that adapters may wrap; None if it is not a plain tensor."""
    found: nn.Module | None = module
    while found is not None and (name := wrapped_child(found)) is not None:
        found = found._modules[name]  # noqa: SLF001  # None where PEFT ties the copy to another module
    weight = None if found is None else found._parameters.get("weight")  # noqa: SLF001  # one dictionary read instead of a property chain
    return weight if weight is not None and weight.is_floating_point() else None


def beyond_embedding(base: Any) -> Iterator[tuple[str, int, int]]:
    """Yield (key, value, rows) of the config's vocabulary size and pad token that the input embedding has no row for.

    Other special tokens are not compared: many small configs keep the defaults of their class and never use them.
    """
    config = attribute(base, "config")
    text = attribute(config, "get_text_config")
    config = text(decoder=True) if callable(text) else config
    embedding = input_embedding(base)
    weight = None if embedding is None else _own_weight(embedding)
    if weight is None or weight.dim() != 2 or attribute(config, "is_encoder_decoder"):
        return
    rows = int(weight.shape[0])
    size = attribute(config, "vocab_size")
    if _is_count(size) and size > rows:
        yield "vocab_size", size, rows
    padding = attribute(config, "pad_token_id")
    if _is_count(padding) and padding >= rows:
        yield "pad_token_id", padding, rows


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
