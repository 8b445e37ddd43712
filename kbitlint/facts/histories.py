"""What happens to the models of a script in the end: the calls that decide, over all paths."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kbitlint.facts.model_state import has_task_head
from kbitlint.facts.source import Action
from kbitlint.facts.training import Loop
from kbitlint.facts.values import UNKNOWN, Call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbitlint.facts.model_state import Adapters, ModelState
    from kbitlint.facts.source import ExecutionPath, SourceFacts
    from kbitlint.facts.training import Trained, Training
    from kbitlint.facts.values import Span


def left_frozen(source: SourceFacts) -> Iterator[tuple[Call, Adapters]]:
    """Yield each call that leaves adapters frozen on every path that trains them, with the adapters."""
    frozen: dict[Call, Adapters] = {}
    spared: set[Call] = set()
    for path in source.paths:
        trained: set[int] = set()
        here: dict[Call, Adapters] = {}
        for training in path.trainings:
            state, adapters = training.model, training.model.adapters
            if adapters is not None and adapters.trainable is False and state.base_frozen and state.certain:
                here[adapters.frozen_by or adapters.by] = adapters
            else:
                trained.add(training.model_id)
        # a path may train a model twice, and freeze it between
        spared |= {step.call for step in path.steps if step.model_id in trained and step.call not in here}
        frozen |= here
        frozen |= dict(prepared_last(path))
    return ((call, adapters) for call, adapters in frozen.items() if call not in spared)


def put_to_sleep(source: SourceFacts, training: Training) -> bool:
    """Return whether the script trains a model after it put it into eval mode, in which its layers do not checkpoint."""
    for path in source.paths:
        modes = [step.detail for step in path.steps if step.action is Action.EVAL and step.model_id == training.model_id]
        if training in path.trainings and training.loop is Loop.OWN and modes and modes[-1] is False:
            return True
    return False


def prepared_last(path: ExecutionPath) -> Iterator[tuple[Call, Adapters]]:
    """Yield each preparation that leaves adapters frozen at the end of a path that trains no model."""
    trained = {training.model_id for training in path.trainings}
    for step in path.steps:
        left = path.models.get(step.model_id)
        if step.action is not Action.PREPARE or left is None or left.adapters is None or step.model_id in trained:
            continue
        if left.adapters.frozen_by == step.call and left.adapters.trainable is False and left.certain == step.before.certain:
            yield step.call, left.adapters


def trains_only_adapters(model: ModelState) -> bool:
    """Return whether nothing but its adapters can learn in a model: no copy of a module, no bias, no new token's row."""
    config = model.adapters.config if model.adapters is not None else None
    if not isinstance(config, Call) or not config.complete or not model.base_frozen:
        return False
    others = any(config.value(name) is not None for name in ("modules_to_save", "trainable_token_indices"))
    return not others and not has_task_head(model) and config.value("bias", "none") == "none" and not config.value("use_dora")


def left_merged(source: SourceFacts) -> Iterator[Call]:
    """Yield each call that merges adapters and leaves them so on every path that trains them.

    A trainer with a reference model disables the adapters for it, which takes them out of the weights.
    """
    for trained in source.trained():
        calls = {model.adapters.merged for model in trained.models if model.adapters is not None and model.adapters.trainable}
        plain = trained.call.callee in ("backward", "trl.SFTTrainer") or trained.call.callee.startswith("transformers.")
        alone = len(calls) == 1 and all(model.adapters is not None for model in trained.models)
        if alone and plain and trained.certain and all(map(trains_only_adapters, trained.models)):
            yield from (call for call in calls if call is not None)


def trained_bare(source: SourceFacts) -> Iterator[Call]:
    """Yield the backward pass of each loop that trains a frozen base without adapters on every path."""
    for trained in source.trained():
        frozen = all(model.adapters is None and model.base_frozen and model.load is not None for model in trained.models)
        own = all(training.loop is Loop.OWN for training in trained.paths)
        if frozen and own and trained.optimized and trained.certain:
            yield trained.call


def deciding(source: SourceFacts, *, zero3: bool) -> Iterator[list[tuple[ModelState, Training | None]]]:
    """Yield the models, each with its training, for each call that makes checkpointing reentrant on every path through it.

    Args:
        source: The facts of the script.
        zero3: Whether the user trains under DeepSpeed ZeRO-3, which needs reentry.
    """
    decided: dict[Span, list[tuple[ModelState, Training | None]]] = {}
    overruled: set[Span] = set()
    for path in source.paths:
        for model, training, steps in path.histories():
            how = model.checkpointing
            by, holds = how.by, how.enabled and how.reentry.reentrant
            stage = training.zero_stage if training is not None else None
            if stage is UNKNOWN and "deepspeed" not in source.text.lower():
                stage = None  # no option of the command line is meant to shard
            spared = zero3 or stage not in (None, 0, 1, 2)
            if by is not None and holds and not spared:
                decided.setdefault(by.span, []).append((model, training))
            last = None if by is None or not holds or spared else by.span
            overruled |= {step.call.span for step in steps if step.call.span != last}
    yield from (found for span, found in decided.items() if span not in overruled)


def attached_first(source: SourceFacts, trained: Trained) -> bool:
    """Return whether PEFT wraps a model before it checkpoints, which leaves an unquantized one without a hook.

    Else ``PeftModel`` makes its inputs require grad (PEFT 0.21, peft_model.py). TRL's trainers install the hook themselves.
    """
    by = {model.adapters.by.span for model in trained.models if model.adapters is not None}
    steps = [step for call, steps in source.steps_at(Action.ATTACH) if call.span in by for step in steps]
    plain = trained.call.callee == "backward" or trained.call.callee.startswith("transformers.")
    off = all(step.before.checkpointing.enabled is False for step in steps)
    return plain and off and bool(steps) and all(step.call.callee == "peft.get_peft_model" for step in steps)


def received_models(source: SourceFacts) -> dict[int, list[tuple[Call, ModelState]]]:
    """Return each call that changes or trains a model, by its start: the call and the model before it, for each path."""
    found: dict[int, list[tuple[Call, ModelState]]] = {}
    for path in source.paths:
        seen: set[int] = set()
        for step in path.steps:
            if step.call.span.start not in seen:
                seen.add(step.call.span.start)
                model = step.before
                if not _is_peft_model(source, step.call, model):
                    model = dataclasses.replace(model, adapters=None, certain=False)
                found.setdefault(step.call.span.start, []).append((step.call, model))
    return found


def _is_peft_model(source: SourceFacts, call: Call, model: ModelState) -> bool:
    """Return whether a call receives the PeftModel, and not the base under a name of its own."""
    given = call.argument("model")
    peft = source.name_of(model.adapters.by) if model.adapters is not None else ""
    name = source.code_of(given.span) if given is not None else ""
    return not (peft and name.isidentifier() and name != peft and source.times(name) > 1)
