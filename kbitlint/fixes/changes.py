"""The changes that may make a run fit, in the order of their price, each with what to paste into a script.

The cost model, in percent of a step's time: recomputing a layer costs its forward pass, a third of a step with frozen weights.
Paging and offloading cost traffic. What changes the training itself costs more than any of these: a smaller rank, then a
shorter length. The figures order the changes and are no promise of speed.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from kbitlint.errors import KbitlintError
from kbitlint.fit_result import Change
from kbitlint.lazy_dataclass import dataclass
from kbitlint.memory_result import OFF, ON
from kbitlint.step_plan import Loss
from kbitlint.upstream import optimizers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.fit_result import Setup
    from kbitlint.fixes.meter import Meter

EVERY_SECOND = "every 2nd layer"


@dataclass(frozen=True, slots=True)
class Option:
    """One change that can be made to a run."""

    name: str
    price: float
    cost: str
    flags: str
    fields: tuple[tuple[str, Any], ...]
    """(field of Setup, value)."""
    plan: tuple[tuple[str, Any], ...] = ()
    """(field of its StepPlan, value)."""

    def apply(self, setup: Setup) -> Setup:
        """Return the run with the change."""
        changed = dataclasses.replace(setup, **dict(self.fields))
        return dataclasses.replace(changed, plan=changed.plan.but(**dict(self.plan))) if self.plan else changed

    def change(self, setup: Setup, meter: Meter) -> Change:
        """Return the change with the bytes that it saves alone."""
        before, after = meter.rank(setup), meter.rank(self.apply(setup))
        fits = after.on_card <= meter.card.total
        return Change(self.name, before.on_card - after.on_card, self.cost, self.price, self.flags, fits)


def options_of(setup: Setup, meter: Meter) -> Iterator[list[Option]]:
    """Yield groups of changes of which one can be made at a time, each group from the cheapest to the strongest."""
    groups = (
        _storage(setup, meter),
        _double(meter),
        _optimizer(setup),
        _loss(setup, meter),
        _checkpointing(setup, meter),
        _experts(meter),
    )
    yield from filter(None, (*groups, _batch(setup), _sharding(setup, meter), _rank(setup), _length(setup)))


def changes_of(setup: Setup, meter: Meter) -> tuple[Change, ...]:
    """Return every change that saves bytes alone, cheapest first."""
    options = [option for group in options_of(setup, meter) for option in group]
    made = [option.change(setup, meter) for option in sorted(options, key=lambda option: option.price)]
    return tuple(change for change in made if change.saves > 0)


def _storage(setup: Setup, meter: Meter) -> list[Option]:
    if setup.strategy != "fsdp2" or setup.stored or not meter.has_integers:
        return []
    flags = "BitsAndBytesConfig(bnb_4bit_quant_storage=torch.bfloat16)"
    return [Option("packed weights stored as bfloat16", 0.5, "no time", flags, (("stored", True),))]


def _double(meter: Meter) -> list[Option]:
    flags = "BitsAndBytesConfig(bnb_4bit_use_double_quant=True)"
    made = Option("double quantization", 1, "1 % of the time, the same loss (QLoRA, section 3)", flags, (("double", True),))
    return [made] if meter.saved_by_double else []


def _optimizer(setup: Setup) -> list[Option]:
    now = optimizers.find(setup.plan.optimizer)
    if now.tensors < 2 or now.layout != "full" or now.paged:
        return []
    eight = Option("8-bit optimizer", 1, "no time", 'optim="adamw_8bit"', (), (("optimizer", "adamw_8bit"),))
    paged = 'optim="paged_adamw_8bit"'
    pages = Option("paged 8-bit optimizer", 4, "traffic to the host", paged, (), (("optimizer", "paged_adamw_8bit"),))
    return [pages] if now.bits == 8 else [eight, pages]


def _loss(setup: Setup, meter: Meter) -> list[Option]:
    option = Option("loss in tiles", 2, "the head runs once more", "trl.SFTTrainer (TRL 1.16)", (), (("loss", Loss.FUSED),))
    if setup.plan.loss is Loss.FUSED:
        return []
    try:
        meter.rank(option.apply(setup))
    except KbitlintError:  # a head over no vocabulary, or a failed step
        return []
    return [option]


def _checkpointing(setup: Setup, meter: Meter) -> list[Option]:
    if ON not in meter.modes or setup.mode == ON:
        return []
    snippet = "for i, layer in enumerate(layers): layer.gradient_checkpointing = i % 2 == 0"
    every = Option("checkpointing of every 2nd layer", 17, "17 % of the time", snippet, (("mode", EVERY_SECOND),))
    flags = 'gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False}'
    whole = Option("checkpointing", 33, "33 % of the time", flags, (("mode", ON),))
    return [every, whole] if setup.mode == OFF else [whole]


def _experts(meter: Meter) -> list[Option]:
    if not meter.has_packable_experts:
        return []
    return [Option("packed experts", 40, "experts are unpacked in each pass", "kbitlint --unsafe-fixes", (("packed", True),))]


def _batch(setup: Setup) -> list[Option]:
    made: list[Option] = []
    size, times = setup.batch, 1
    while size > 1 and size % 2 == 0 and len(made) < 4:
        size, times = size // 2, times * 2
        steps = setup.plan.accumulation * times
        flags = f"per_device_train_batch_size={size}, gradient_accumulation_steps={steps}"
        name = f"{size} sequences at a time" if size > 1 else "one sequence at a time"
        made.append(
            Option(name, 3.0 * len(made) + 3, "smaller products", flags, (("batch", size),), (("accumulation", steps),))
        )
    return made


def _sharding(setup: Setup, meter: Meter) -> list[Option]:
    if meter.ranks == 1 or setup.strategy in ("fsdp1", "zero3", "device_map"):
        return []
    flags = "accelerate: fsdp_version: 2, fsdp_reshard_after_forward: true; bnb_4bit_quant_storage=torch.bfloat16"
    fields = (("strategy", "fsdp2"), ("offload", False), ("stored", True))
    shard = Option(f"FSDP2 over {meter.ranks} cards", 25, "weights travel between cards", flags, fields)
    offload = Option(
        "FSDP2 with weights in host memory",
        90,
        "weights travel to and from the host",
        f"{flags}; fsdp_offload_params: true",
        (("strategy", "fsdp2"), ("offload", True), ("stored", True)),
    )
    try:
        meter.rank(offload.apply(setup))
    except KbitlintError:  # int8 weights
        return []
    return [offload] if setup.strategy == "fsdp2" else [shard, offload]


def _rank(setup: Setup) -> list[Option]:
    if setup.rank is None or setup.rank < 16:
        return []
    rank = setup.rank // 2
    return [Option(f"rank {rank}", 150, "fewer trained weights", f"LoraConfig(r={rank})", (("rank", rank),))]


def _length(setup: Setup) -> list[Option]:
    made: list[Option] = []
    length = setup.seq_len
    while length >= 512 and len(made) < 3:
        length //= 2
        made.append(
            Option(
                f"{length} tokens",
                300.0 * (len(made) + 1),
                "longer texts are cut",
                f"max_length={length}",
                (("seq_len", length),),
            )
        )
    return made
