"""Rule KB733: generations-not-divided."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from kbitlint.facts.guards import imports_package
from kbitlint.facts.source import Action
from kbitlint.facts.values import UNKNOWN, Call
from kbitlint.rule import Meta, Rule
from kbitlint.upstream.contracts.defaults import DEFAULTS
from kbitlint.upstream.versions import number
from kbitlint.violation import Consequence, Fix, Safety, Severity, Surface, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.context import TrainingContext
    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.values import Value

_CONFIGS = ("trl.GRPOConfig", "trl.RLOOConfig")


class GenerationsNotDivided(Rule):
    """The completions of a generation batch are no whole number of groups.

    ## What it does

    Reports arguments of GRPO and RLOO for which `per_device_train_batch_size * gradient_accumulation_steps` (or
    `steps_per_generation`) of one process is no multiple of `num_generations`. An error if the base is placed for one process
    (`device_map="auto"` or one device); otherwise a warning that names the number of processes for which it would be one. TRL
    before 0.18 leaves the accumulation out. Also looks at the batches of evaluations.

    ## Why is this bad?

    The constructor raises a ValueError: a group of completions for one prompt must lie in one batch.

    ## Example

    `GRPOConfig(per_device_train_batch_size=1, gradient_accumulation_steps=4)`, with 8 generations by default.

    ## Fix

    Choose a batch size whose product with the accumulation is a multiple of `num_generations`.

    ## Fix safety

    Display only: several arguments decide.

    ## References

    - https://huggingface.co/docs/trl/grpo_trainer
    - https://github.com/huggingface/trl/issues/3046
    """

    meta: ClassVar[Meta] = Meta(
        code="KB733",
        slug="generations-not-divided",
        severity=Severity.ERROR,
        consequence=Consequence.FAILS,
        since="0.2.0",
    )

    def check_source(self, source: SourceFacts, context: TrainingContext) -> Iterator[Violation]:
        """Yield one violation for each config whose batches hold no whole groups."""
        if imports_package(source.text, "unsloth"):  # its config changes the batch size itself
            return
        for call in source.calls:
            if call.callee not in _CONFIGS and not (call.callee == "swift.sft" and call.value("rlhf_type") == "grpo"):
                continue
            ways = source.variants.get(call.span) or (call,)
            found = [_lacking(one, source.versions.get("trl", "")) for one in ways]
            if all(found) and found[0] is not None:
                yield self._report(source, call, *found[0])

    def _report(self, source: SourceFacts, call: Call, what: str, batch: int, generations: int) -> Violation:
        processes = generations // math.gcd(batch, generations)
        error = _is_alone(source)
        rest = "" if error else f", unless {processes} processes or a multiple train"
        argument = call.argument("num_generations") or call.argument("per_device_train_batch_size")
        where = source.at_line(argument.whole.line, argument.name) if argument is not None else source.at(call)
        return self.violation(
            f"a {what} of {batch} is no multiple of the {generations} generations for a prompt{rest}: a ValueError",
            where,
            surface=Surface.SOURCE,
            severity=Severity.ERROR if error else Severity.WARNING,
            consequence=Consequence.FAILS if error else Consequence.FRAGILE,
            evidence={"batch": batch, "generations": generations, "processes": processes},
            fix=Fix(f"make the batch size times the accumulation a multiple of {generations}", Safety.DISPLAY),
        )


def _lacking(call: Call, version: str) -> tuple[str, int, int] | None:
    """Return the kind of batch that holds no whole groups, its size in one process, and the generations; None if none does."""
    whole = _whole(call, "generation_batch_size")
    generations = _whole(call, "num_generations")
    batch = _whole(call, "per_device_train_batch_size")
    have = number(version)
    steps: Value = 1
    if not have or have >= (0, 18):
        steps = _whole(call, "steps_per_generation")
        steps = _whole(call, "gradient_accumulation_steps") if steps is None else steps
    if not isinstance(generations, int) or generations < 2:  # another rule's
        return None
    if whole is None and isinstance(batch, int) and isinstance(steps, int) and batch * steps % generations:
        return "generation batch", batch * steps, generations
    strategy, at_once = call.value("eval_strategy", "no"), _whole(call, "per_device_eval_batch_size")
    number_of = call.value("num_generations_eval")
    asked = generations if number_of is None else number_of
    if strategy in ("steps", "epoch") and isinstance(at_once, int) and isinstance(asked, int) and asked and at_once % asked:
        return "batch of an evaluation", at_once, asked
    return None


def _whole(call: Call, name: str) -> Value:
    """Return an argument or its default; UNKNOWN if the call may pass it."""
    default = 8 if name == "per_device_eval_batch_size" else DEFAULTS.get(call.callee, {}).get(name)
    value = call.value(name, default)
    return value if value is None or (isinstance(value, int) and not isinstance(value, bool)) else UNKNOWN


def _is_alone(source: SourceFacts) -> bool:
    """Return whether every base is placed for one process: on one device, or spread over all."""
    places = [step.call.value("device_map") for _, steps in source.steps_at(Action.LOAD) for step in steps]
    return bool(places) and not source.distributed and all(place == "auto" or _is_one(place) for place in places)


def _is_one(place: Value) -> bool:
    """Return whether a device map names one device by its number."""
    if isinstance(place, str):
        return place in ("cuda", "cuda:0")
    held = [one.value for one in place.arguments] if isinstance(place, Call) and place.complete else []
    return held in ([0], ["cuda:0"], ["cuda"])
