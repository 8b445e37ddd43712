"""The memory of loading and saving on ranks that share the weights.

Sources: transformers 5.23 (``quantizer_bnb_4bit.py``: without a ``device_map``, a quantized model lies whole on each rank's
card; ``integrations/accelerate.py``: ZeRO 3 refuses a ``device_map``), accelerate 1.15 (``fsdp2_prepare_model``,
``FullyShardedDataParallelPlugin.set_state_dict_type``), torch 2.13 (``_fsdp_init.py`` moves a unit to the card and shards it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.memory_result import Phase
from kbitlint.model.attributes import attribute
from kbitlint.model.layers import adapters, quantized
from kbitlint.model.memory.storing import kept_bytes, loading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from kbitlint.model.memory.ranks import Rank

#: kinds of resident bytes that are there after a model is loaded and before the run begins
_LATER = ("adapters", "other models")
_FROM_HOST = 'from the host of each rank, device_map={"": "cpu"}'


def loading_of_rank(model: nn.Module, resident: Mapping[str, int], rank: Rank, device: str) -> Iterator[Phase]:
    """Yield the memory of loading a model on one rank, for each way that its strategy and the model allow.

    Args:
        model: The whole model. A ``hf_device_map`` says where it was loaded.
        resident: Bytes that the rank holds on its card for the whole run, by kind.
        rank: The rank.
        device: The device whose kernels and allocator are simulated.
    """
    strategy, whole = rank.launch.strategy, loading(model, device)
    base = sum(nbytes for kind, nbytes in resident.items() if kind not in _LATER)
    if strategy in ("device_map", "tp"):
        words = f"{whole.words}, " + (
            "layer by layer over the cards" if strategy == "device_map" else "a part of each on each card"
        )
        yield Phase("loading", words, base + (whole.host if strategy == "device_map" else 0), whole.peak_at, whole.host)
        return
    packed = any(quantized.packing_of(module) is not None for module in model.modules())
    places = {str(place) for place in (attribute(adapters.base_of(model), "hf_device_map") or {}).values()}
    on_host = places == {"cpu"}
    if packed and not on_host:
        yield Phase("loading", "whole on the card of each rank, as without device_map", whole.peak, whole.peak_at, whole.host)
    if packed and (strategy == "zero3" or rank.units.integers or (places and not on_host)):
        return
    unit = max(rank.units.sharded, key=lambda unit: unit.nbytes)
    words = _FROM_HOST if packed else "from the host of each rank"
    yield Phase("loading", words, base + unit.nbytes, unit.path or "the head", kept_bytes(model))


def saving_of_rank(rank: Rank, trained: int, held: int) -> Phase:
    """Return the memory of saving between two steps, as each strategy does by default.

    FSDP2 writes each rank's share of what trains. FSDP1 gathers unit by unit all weights to the host of rank 0, ZeRO 3 those
    that train.
    """
    if rank.launch.strategy == "fsdp2":
        return Phase("saving", "what trains, each rank its share", held, "the end of a step", rank.share(trained))
    gathers_all = rank.launch.strategy == "fsdp1"
    sizes = {unit.path: unit.nbytes if gathers_all else unit.trained for unit in rank.units.sharded}
    largest = max(sizes, key=lambda path: sizes[path])
    words = "all weights" if gathers_all else "what trains"
    host = sum(sizes.values())
    return Phase("saving", f"{words}, gathered to the host of rank 0", held + sizes[largest], largest or "the head", host)
