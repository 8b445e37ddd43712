"""The state of one path, and the changes that calls make to its models.

``upstream/calls.py`` lists the effect of each call; this file applies it. The parts decide which calls a path makes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import field
from itertools import starmap
from typing import TYPE_CHECKING, Any

from kbitlint.facts.model_state import CheckpointingState, ModelState, merged, without_adapters
from kbitlint.facts.source import Action, ExecutionPath, Step
from kbitlint.facts.training import Batch, Loop, Training
from kbitlint.facts.values import UNKNOWN, Call, Span, Value
from kbitlint.files.local_configs import checkpoint_config
from kbitlint.lazy_dataclass import dataclass
from kbitlint.limits import current
from kbitlint.source.interpreter import unsloth
from kbitlint.source.interpreter.adapter_states import with_loaded_adapters, with_new_adapters
from kbitlint.source.interpreter.arguments import (
    base_of_adapters,
    defaults_of,
    fixed_by_deepspeed,
    may_stay_unpacked,
    named_of,
    quantization_of,
    reentry_of,
    refused_by_name,
    rows_of,
    sharding_of,
    stored_by_name,
    stored_of,
    with_stored_adapters,
    written_flag,
)
from kbitlint.source.interpreter.effort import Effort
from kbitlint.source.interpreter.objects import Object, TrackedModel, Trainer
from kbitlint.source.interpreter.saved_models import loaded_again, may_thaw
from kbitlint.source.interpreter.training_arguments import with_arguments
from kbitlint.upstream.quantization import PREPARED_METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path as FilePath

    from kbitlint.facts.own_loops import DeadLoss
    from kbitlint.source.launches import Launch
    from kbitlint.upstream.calls import Api, Checkpoints

#: Number of hooks that take as long to copy as one step.
_CHEAP = 64


@dataclass(slots=True)
class PathState:
    """The facts that one path has collected so far."""

    versions: Mapping[str, str]
    steps: list[Step] = field(default_factory=list)
    trainings: list[Training] = field(default_factory=list)
    nets: list[TrackedModel] = field(default_factory=list)
    trainers: list[Trainer] = field(default_factory=list)
    calls: dict[Span, Call] = field(default_factory=dict)
    beside: FilePath | None = None
    """The folder of the script, in which configuration files that it names are searched. None if it is unknown."""
    launch: Launch | None = None
    """How the files beside the script launch it; None if they do not."""
    reached: dict[int, int] = field(default_factory=dict)
    """The number of steps before each training in a loop of the file, by the training's number."""
    effort: Effort = field(default_factory=lambda: Effort(current().max_steps))
    """The steps that the path may still take."""
    loops: set[tuple[Span, int]] = field(default_factory=set)
    """The recorded trainings in loops of the file: the place of ``backward()`` and the number of the model."""
    inferred: int = 0
    """The number of ``inference_mode`` contexts and decorators around the current statement."""
    wraps: dict[int, Call] = field(default_factory=dict)
    """The last call that wraps a model in DistributedDataParallel, by the model's number."""
    base_names: set[tuple[int, str]] = field(default_factory=set)
    """The names, each with the id of its scope, that hold a base model while a Trainer holds the model with adapters."""
    files: dict[str, Object] = field(default_factory=dict)
    """The values that the path has written with ``torch.save``, by the name of the file."""
    flags: dict[str, str] = field(default_factory=dict)
    """The options of the command line that lead to this path, with their values; empty for a switch."""
    losses: list[DeadLoss] = field(default_factory=list)
    """The backward passes so far that raise, because no graph is behind their losses."""
    gradients_off: Call | None = None
    """The call that switched gradients off for the rest of the script; None if they are on."""
    scaler: Value = None
    """The dtype of an Accelerator's or a GradScaler's mixed precision. None if there is none, UNKNOWN if it is unknown."""

    placed: bool = False
    """Whether a call so far may have chosen the device of the process."""

    def path(self, *, whole: bool = True) -> ExecutionPath:
        """Return the facts of the path.

        Args:
            whole: Whether the path was followed to its end. If it was not, the final state of every model is uncertain.
        """
        wrapped = {step.model_id for step in self.steps if step.detail == "deepspeed"}
        trainings = tuple(
            dataclasses.replace(training, early_optimizer=self._early(training))
            if training.loop is Loop.TRAINER or self.nets[training.model_id].handed or training.model_id in wrapped
            else dataclasses.replace(training, optimized=False)
            for training in self.trainings
        )
        flags = tuple(starmap(written_flag, sorted(self.flags.items())))
        trainings = tuple(dataclasses.replace(training, flags=flags) for training in trainings) if flags else trainings
        left = {net.number: net.state if whole else dataclasses.replace(net.state, certain=False) for net in self.nets}
        return ExecutionPath(tuple(self.steps), trainings, left, tuple(self.losses))

    def _early(self, training: Training) -> Call | None:
        net = self.nets[training.model_id]
        if training.model.adapters is None or net.handed != {False}:
            return None
        if training.loop is Loop.TRAINER:
            given = training.call.value("optimizers")
            if not isinstance(given, tuple) or not given or given[0] is None:
                return None  # the Trainer creates its own optimizer
        return net.optimizer

    def net(self, state: ModelState) -> TrackedModel:
        """Return a new model in this state."""
        net = TrackedModel(len(self.nets), state)
        self.nets.append(net)
        return net

    def step(self, action: Action, call: Call, net: TrackedModel, after: ModelState, detail: Value = None) -> None:
        """Record the change that a call makes to a model, and apply it."""
        self.steps.append(Step(action, call, net.state, net.number, detail))
        if detail == "ddp":
            self.wraps[net.number] = call
        net.state = after

    def load(self, call: Call, *, quantized: bool | None = None) -> TrackedModel:
        """Return the model that ``from_pretrained`` or ``from_config`` returns.

        Args:
            call: The call.
            quantized: False if the call builds the model from a config without weights; None otherwise.
        """
        method, bits, config = quantization_of(call) if quantized is None else (None, None, None)
        stored = self._config_of(call) if quantized is None else None
        own = (stored or {}).get("quantization_config")
        named = stored_by_name(call, self.beside) if stored is None and quantized is None else None
        if named is not None:
            own, (method, bits) = named, named
        elif stored is not None and own is not None:
            method, bits = stored_of(own, method, bits)
        elif stored is not None and method is UNKNOWN and call.complete and call.value("quantization_config") is None:
            method = bits = None
        given = call.dtype("dtype", UNKNOWN)
        given = call.dtype("torch_dtype", UNKNOWN) if given is UNKNOWN else given
        dtype = UNKNOWN if given == "auto" else given
        state = ModelState(call, method, bits, config, dtype, training_mode=quantized is not None, named=named_of(stored))
        unconverted = may_stay_unpacked(call, config, state.named, self.versions)
        state = dataclasses.replace(state, inferred=self.inferred > 0, unconverted=unconverted, placed=self.placed)
        state = loaded_again(call, state, self.steps, self.effort)
        net = self.net(with_stored_adapters(call, state, self.beside))
        detail = refused_by_name(call, method, stored) if own is None else method
        self.steps.append(Step(Action.LOAD, call, state, net.number, detail))
        return net

    def _config_of(self, call: Call) -> Mapping[str, Any] | None:
        name = call.value("pretrained_model_name_or_path")
        return checkpoint_config(name, self.beside) if isinstance(name, str) and self.beside is not None else None

    def adopt(self) -> TrackedModel:
        """Return a new model whose origin and state are unknown."""
        return self.net(ModelState(certain=False, checkpointing=CheckpointingState(None)))

    def enable_checkpointing(self, call: Call, how: Checkpoints, state: ModelState) -> ModelState:
        """Return the state after a call that sets how layers checkpoint."""
        switch: Value = call.value(how.switch, how.on) if how.switch else True
        if switch is False or switch is None:
            return state
        reentry = reentry_of(call, how)
        enabled = None if switch is UNKNOWN else True
        hooks = how.hooks + (how.reentrant_hooks if reentry.reentrant else 0)
        self.effort.spend(len(state.hooks) // _CHEAP)
        return dataclasses.replace(
            state, checkpointing=CheckpointingState(enabled, reentry, call, how.kwargs), hooks=state.hooks + (call,) * hooks
        )

    def apply(self, api: Api, call: Call, net: TrackedModel, *, by_base_name: bool = False) -> None:
        """Apply a function or method of a framework to a model, which its name may hold without the adapters around it."""
        state = net.state
        match api.action:
            case Action.PREPARE:
                self._prepare(api, call, net)
            case Action.ATTACH if api.library == "unsloth":
                self.step(Action.ATTACH, call, net, unsloth.attached(call, state))
            case Action.ATTACH:
                self._attach(call, net, call.value("peft_config", UNKNOWN), "base" if by_base_name else None)
            case Action.LOAD_ADAPTERS:
                self.load_adapters(call, net)
            case Action.CHECKPOINT if api.checkpoints is not None:
                self.step(Action.CHECKPOINT, call, net, self.enable_checkpointing(call, api.checkpoints, state))
            case Action.HOOK:
                self.effort.spend(len(state.hooks) // _CHEAP)
                self.step(Action.HOOK, call, net, dataclasses.replace(state, hooks=(*state.hooks, call)))
            case Action.MERGE:
                after = without_adapters(state) if call.callee.endswith("merge_and_unload") else merged(state, call)
                self.step(Action.MERGE, call, net, after, "base" if by_base_name else None)
            case Action.RESIZE:
                after = dataclasses.replace(state, rows=rows_of(call, state))
                self.step(Action.RESIZE, call, net, after, "tokens" if api.returns else None)
            case Action.CONTEXT | Action.CAST:
                detail = "packed" if api.action is Action.CAST else "activation checkpointing"
                self.step(api.action, call, net, dataclasses.replace(state, dtype=call.dtype("dtype", state.dtype)), detail)

    def _prepare(self, api: Api, call: Call, net: TrackedModel) -> None:
        state = net.state
        adapters = state.adapters
        if adapters is not None:
            adapters = dataclasses.replace(adapters, trainable=False, frozen_by=call)
        cast = state.method == "bitsandbytes" or state.method not in PREPARED_METHODS
        dtype = "float32" if cast and state.method is not UNKNOWN else state.dtype
        after = dataclasses.replace(state, base_frozen=True, adapters=adapters, prepared=call, dtype=dtype)
        after = dataclasses.replace(after, widened=None, recast=False) if dtype == "float32" else after
        known = state.method in PREPARED_METHODS or state.method is UNKNOWN or state.unpacked is not None
        if api.checkpoints is not None and known:
            after = self.enable_checkpointing(call, api.checkpoints, after)
        self.step(Action.PREPARE, call, net, after)

    def _attach(self, call: Call, net: TrackedModel, config: Value, detail: Value) -> None:
        self.step(Action.ATTACH, call, net, with_new_adapters(call, net.state, config), detail)

    def load_adapters(self, call: Call, net: TrackedModel) -> None:
        """Apply ``PeftModel.from_pretrained`` or ``load_adapter``."""
        after = with_loaded_adapters(call, net.state, thaws=may_thaw(self.steps, self.effort))
        self.step(Action.LOAD_ADAPTERS, call, net, after, base_of_adapters(call, self.beside))

    def finish(self, trainer: Trainer) -> None:
        """Record the training of a Trainer, once; its arguments override earlier checkpointing settings."""
        if trainer.trained or trainer.net is None:
            return
        trainer.trained = True
        arguments = trainer.arguments.frozen(self.effort) if trainer.arguments is not None else None
        defaults = defaults_of(trainer, arguments, self.versions)
        state = trainer.net.state
        given = arguments if arguments is not None else Call(trainer.api.arguments, trainer.call.span)
        certain = arguments is not None or trainer.arguments is None
        how = self.versions, self.enable_checkpointing, state, given if certain else None, defaults, trainer.prepared
        state, fp16, bf16 = with_arguments(*how)
        zero, fsdp = sharding_of(given, self.beside, self.launch) if certain else (UNKNOWN, None)
        made = Training(trainer.call, Loop.TRAINER, state, trainer.net.number, arguments, fp16, bf16, zero, fsdp)
        made = dataclasses.replace(made, find_unused=given.value("ddp_find_unused_parameters"), batch=trainer.batch)
        if certain and given.value("deepspeed") is not None:
            made = dataclasses.replace(made, deepspeed=fixed_by_deepspeed(given, self.beside))
        self.trainings.append(dataclasses.replace(made, flattened=self.launch is not None and self.launch.flattens))

    def backward(self, call: Call, net: TrackedModel, loop: Span | None, name: str, batch: Batch | None = None) -> None:
        """Record that a loop of the file trains a model, once for each place and model."""
        if (call.span, net.number) in self.loops:
            return
        self.loops.add((call.span, net.number))
        fp16: Value = UNKNOWN if self.scaler is UNKNOWN else self.scaler == "float16"
        bf16: Value = UNKNOWN if self.scaler is UNKNOWN else self.scaler == "bfloat16"
        wrap = self.wraps.get(net.number)
        self.reached[len(self.trainings)] = len(self.steps)
        self.trainings.append(
            Training(
                call,
                Loop.OWN,
                net.state,
                net.number,
                None,
                fp16,
                bf16,
                self.launch.zero if self.launch is not None else None,
                self.launch is not None and self.launch.fsdp,
                self.launch is not None and self.launch.flattens,
                distributed=wrap is not None,
                find_unused=wrap.value("find_unused_parameters") if wrap is not None else None,
                loop_span=loop,
                name=name,
                batch=batch,
            )
        )
