"""The changes that may make a run fit, in the order of their price, each with what to paste into a script.

The cost model, in percent of a step's time: recomputing a layer costs its forward pass, a third of a step with frozen weights.
Paging and offloading cost traffic. What changes the training itself costs more than any of these: a smaller rank, then a
shorter length. The figures order the changes and are no promise of speed.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from kbitlint.errors import KbitlintError
from kbitlint.facts.literals import Literal, literal
from kbitlint.facts.values import Call, Span
from kbitlint.fit_result import Change, Owner, Setting
from kbitlint.lazy_dataclass import dataclass
from kbitlint.memory_result import OFF, ON
from kbitlint.step_plan import Loss
from kbitlint.upstream import optimizers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.fit_result import Setup
    from kbitlint.fixes.meter import Meter

TILES = "loss in tiles"
EVERY_SECOND = "every 2nd layer"
#: changes of a higher price change the training itself: what is learned, and from which tokens
LEAST_UNSAFE_PRICE = 100.0
#: a call of nothing, whose constants are written as Python
_PYTHON = Call("", Span(0, 0, 1))


@dataclass(frozen=True, slots=True)
class Option:
    """One change that can be made to a run."""

    name: str
    price: float
    cost: str
    settings: tuple[Setting, ...]
    """The arguments that make it in a script."""
    fields: tuple[tuple[str, Any], ...] = ()
    """(field of Setup, value)."""
    plan: tuple[tuple[str, Any], ...] = ()
    """(field of its StepPlan, value)."""
    by_hand: str = ""
    """What to do where no argument of a script makes the change."""

    @property
    def flags(self) -> str:
        """Return what to paste into a script, or what to do by hand."""
        return self.by_hand or words_of(self.settings)

    def apply(self, setup: Setup) -> Setup:
        """Return the run with the change."""
        changed = dataclasses.replace(setup, **dict(self.fields))
        return dataclasses.replace(changed, plan=changed.plan.but(**dict(self.plan))) if self.plan else changed

    def change(self, setup: Setup, meter: Meter) -> Change:
        """Return the change with the bytes that it saves alone."""
        before, after = meter.rank(setup), meter.rank(self.apply(setup))
        fits = after.on_card <= meter.card.total
        return Change(self.name, before.on_card - after.on_card, self.cost, self.price, self.flags, fits, self.settings)


def are_taken(settings: tuple[Setting, ...], names: frozenset[tuple[Owner, str]]) -> bool:
    """Return whether a change is made by settings alone, and a script takes all of them under these (owner, name)."""
    return bool(settings) and all((setting.owner, setting.name) in names for setting in settings)


def _arguments(**values: Literal) -> tuple[Setting, ...]:
    return tuple(Setting(Owner.ARGUMENTS, name, value) for name, value in values.items())


def words_of(settings: tuple[Setting, ...]) -> str:
    """Return settings as Python writes them; those of training arguments without the name of their class."""
    written = [(setting.owner, f"{setting.name}={literal(_PYTHON, setting.value)}") for setting in settings]
    return ", ".join(words if owner is Owner.ARGUMENTS else f"{owner.value}({words})" for owner, words in written)


def options_of(setup: Setup, meter: Meter, writable: frozenset[tuple[Owner, str]] | None = None) -> Iterator[list[Option]]:
    """Yield groups of changes of which one can be made at a time, each group from the cheapest to the strongest.

    A change that the run has already is left out, and so is one that makes the same run as a change before it.

    Args:
        setup: The run.
        meter: Measures it.
        writable: The settings that a script takes, if changes that no script can hold are left out.
    """
    groups = (
        _storage(setup, meter),
        _double(meter),
        _optimizer(setup),
        _loss(setup, meter),
        _checkpointing(setup, meter),
        _experts(setup, meter),
    )
    all_groups = (*groups, _batch(setup), _sharding(setup, meter), _rank(setup), _length(setup))
    made = {setup}
    for group in all_groups:
        taken = []
        for option in group:
            changed = option.apply(setup)
            if changed not in made and (writable is None or are_taken(option.settings, writable)):
                taken.append(option)
                made.add(changed)
        if taken:
            yield taken


def changes_of(setup: Setup, meter: Meter) -> tuple[Change, ...]:
    """Return every change that saves bytes alone, cheapest first."""
    options = [option for group in options_of(setup, meter) for option in group]
    made = [option.change(setup, meter) for option in sorted(options, key=lambda option: option.price)]
    return tuple(change for change in made if change.saves > 0)


def _storage(setup: Setup, meter: Meter) -> list[Option]:
    if setup.strategy != "fsdp2" or setup.stored or not meter.has_integers:
        return []
    settings = (Setting(Owner.QUANTIZATION, "bnb_4bit_quant_storage", "bfloat16"),)
    return [Option("packed weights stored as bfloat16", 0.5, "no time", settings, (("stored", True),))]


def _double(meter: Meter) -> list[Option]:
    settings = (Setting(Owner.QUANTIZATION, "bnb_4bit_use_double_quant", value=True),)
    cost = "1 % of the time"
    return [Option("double quantization", 1, cost, settings, (("double", True),))] if meter.saved_by_double else []


def _optimizer(setup: Setup) -> list[Option]:
    now = optimizers.find(setup.plan.optimizer)
    if now.tensors < 2 or now.layout != "full" or now.paged:
        return []

    def made(name: str, price: float, cost: str, optimizer: str) -> Option:
        return Option(name, price, cost, _arguments(optim=optimizer), plan=(("optimizer", optimizer),))

    pages = made("paged 8-bit optimizer", 4, "traffic to the host", "paged_adamw_8bit")
    return [pages] if now.bits == 8 else [made("8-bit optimizer", 1, "no time", "adamw_8bit"), pages]


def _loss(setup: Setup, meter: Meter) -> list[Option]:
    by_hand = "trl.SFTTrainer (TRL 1.16)"
    option = Option(TILES, 2, "the head runs once more", (), plan=(("loss", Loss.FUSED),), by_hand=by_hand)
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
    whole = Option("checkpointing", 33, "33 % of the time", _checkpoints(use_reentrant=False), (("mode", ON),))
    if setup.mode != OFF:
        return [whole]
    # transformers takes the stride since 5.23, as it names the arguments anew
    settings = _checkpoints(every_n_layers=2, use_reentrant=False) if meter.takes_strides else ()
    snippet = "" if settings else "for i, layer in enumerate(layers): layer.gradient_checkpointing = i % 2 == 0"
    fields = (("mode", EVERY_SECOND),)
    every = Option("checkpointing of every 2nd layer", 17, "17 % of the time", settings, fields, by_hand=snippet)
    return [every, whole]


def _checkpoints(**kwargs: bool | int) -> tuple[Setting, ...]:
    return _arguments(gradient_checkpointing=True, gradient_checkpointing_kwargs=kwargs)


def _experts(setup: Setup, meter: Meter) -> list[Option]:
    if not meter.has_packable_experts:
        return []
    cost, by_hand = "experts are unpacked in each pass", "kbitlint --unsafe-fixes"
    option = Option("packed experts", 40, cost, (), (("packed", True),), by_hand=by_hand)
    try:
        meter.rank(option.apply(setup))
    except KbitlintError:  # the unsafe fixes freeze factors of the user's own, and nothing is left that trains
        return []
    return [option]


def _batch(setup: Setup) -> list[Option]:
    """Return smaller batches, with as many sequences for each step of the optimizer as before."""
    made: list[Option] = []
    size = 1 if setup.own_batch else setup.batch
    while size > 1 and len(made) < 4:
        size //= next((prime for prime in (2, 3, 5, 7) if size % prime == 0), size)
        steps = setup.plan.accumulation * (setup.batch // size)
        settings = _arguments(per_device_train_batch_size=size, gradient_accumulation_steps=steps)
        name = f"{size} sequences at a time" if size > 1 else "one sequence at a time"
        made.append(
            Option(name, 3.0 * len(made) + 3, "smaller products", settings, (("batch", size),), (("accumulation", steps),))
        )
    return made


#: strategy that shards weights -> what puts them into host memory
_OFFLOADED = {
    "fsdp1": "accelerate: fsdp_offload_params: true",
    "fsdp2": "accelerate: fsdp_offload_params: true",
    "zero3": "DeepSpeed: offload_param and offload_optimizer to device: cpu",
}
_SHARDED = "accelerate: fsdp_version: 2, fsdp_reshard_after_forward: true"


def _sharding(setup: Setup, meter: Meter) -> list[Option]:
    """Return the ways to hold a part of the weights on each card. Weights in host memory need a strategy that shards them."""
    if meter.ranks == 1 or setup.offload or setup.strategy in ("device_map", "tp"):
        return []
    stored: tuple[tuple[str, Any], ...] = (("stored", True),) if meter.has_integers else ()
    storage = "; bnb_4bit_quant_storage=torch.bfloat16" if stored else ""
    cost = "weights travel to and from the host"
    if setup.strategy in _OFFLOADED:
        stored = stored if setup.strategy == "fsdp2" else ()
        flags = _OFFLOADED[setup.strategy] + (storage if stored and not setup.stored else "")
        made = [Option("weights in host memory", 90, cost, (), (("offload", True), *stored), by_hand=flags)]
    else:
        shard, hosted = (("strategy", "fsdp2"), *stored), f"FSDP2 over {meter.ranks} cards, with offload"
        flags = f"{_SHARDED}{storage}"
        made = [
            Option(f"FSDP2 over {meter.ranks} cards", 25, "weights travel between cards", (), shard, by_hand=flags),
            Option(hosted, 90, cost, (), (*shard, ("offload", True)), by_hand=f"{flags}; fsdp_offload_params: true"),
        ]
    try:
        meter.rank(made[-1].apply(setup))
    except KbitlintError:  # int8 weights
        return _spread(setup, meter)
    return made


def _spread(setup: Setup, meter: Meter) -> list[Option]:
    """Return the way to spread layers over cards where no strategy shards the weights."""
    if setup.strategy not in ("ddp", "zero1", "zero2"):
        return []
    flags = 'from_pretrained(device_map="auto"), started as one process'
    cost = "one card works at a time"
    return [Option(f"layers over {meter.ranks} cards", 80, cost, (), (("strategy", "device_map"),), by_hand=flags)]


def _rank(setup: Setup) -> list[Option]:
    if setup.rank is None or setup.rank < 16:
        return []
    rank = setup.rank // 2
    settings = (Setting(Owner.ADAPTERS, "r", rank),)
    return [Option(f"rank {rank}", 150, "fewer trained weights", settings, (("rank", rank),))]


def _length(setup: Setup) -> list[Option]:
    made: list[Option] = []
    length = 0 if setup.own_batch else setup.seq_len
    while length >= 512 and len(made) < 3:
        length //= 2
        price = LEAST_UNSAFE_PRICE * 3 * (len(made) + 1)
        settings = _arguments(max_length=length)
        made.append(Option(f"{length} tokens", price, "longer texts are cut", settings, (("seq_len", length),)))
    return made
