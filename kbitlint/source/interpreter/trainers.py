"""Trainers: the changes that their constructors make to a model, in the versions that the script runs with."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kbitlint.facts.source import Action
from kbitlint.facts.values import UNKNOWN, Call, Value
from kbitlint.source.interpreter.arguments import defaults_of
from kbitlint.source.interpreter.base import Interpreter
from kbitlint.source.interpreter.batches import batch_of_data
from kbitlint.source.interpreter.objects import Constant, Object, Record, Scope, TrackedModel, Trainer
from kbitlint.source.interpreter.unsloth import is_unsloth
from kbitlint.upstream.calls import FUNCTIONS, TRAINERS
from kbitlint.upstream.trl_versions import behavior

if TYPE_CHECKING:
    from kbitlint.upstream.trl_versions import TrainerBehavior

#: Number of names that take as long to process as one step.
_CHEAP = 64


class Trainers(Interpreter):
    """The part of the interpreter that makes Trainers."""

    def trainer(self, name: str, arguments: Record, *, base: bool = False) -> Object:
        """Return a Trainer after applying the changes that its constructor makes to the model; see ``Interpreter.trainer``."""
        api = TRAINERS[name]
        call = arguments.frozen(self.effort)
        self.trail.calls[call.span] = call
        model = arguments.get("model")
        given = arguments.get("args")
        known = given if isinstance(given, Record) else None
        if known is None and (given is not UNKNOWN or "args" in arguments.items or not arguments.complete):
            known = Record(api.arguments, complete=False, span=call.span)
        net = model if isinstance(model, TrackedModel) else self._model_by_name(model, arguments, known)
        trainer = Trainer(call, net, known, api, batch=batch_of_data(arguments))
        if net is not None and api.attaches:
            self._attach_in_trainer(arguments, call, trainer, net, base=base)
        if net is not None:
            self._dropped(net, base=base and arguments.get("peft_config") in (UNKNOWN, Constant(None)))
            other = arguments.get("ref_model")
            copy = other.state.load if isinstance(other, TrackedModel) and other is not net else None
            self.trail.step(Action.TRAINER, call, net, net.state, copy)
        self.trail.trainers.append(trainer)
        return trainer

    def _dropped(self, net: TrackedModel, *, base: bool) -> None:
        """Record that a Trainer gets the base, and not the ``PeftModel`` that another name holds or a function returned."""
        adapters = net.state.adapters
        if base and adapters is not None and adapters.by.callee == "peft.get_peft_model":
            net.state = dataclasses.replace(net.state, adapters=dataclasses.replace(adapters, kept=False))

    def _attach_in_trainer(self, arguments: Record, call: Call, trainer: Trainer, net: TrackedModel, *, base: bool) -> None:
        own = behavior(self.trail.versions, call.callee)
        config = arguments.get("peft_config") if "peft_config" in arguments.items else Constant(None)
        if config == Constant(None) and not arguments.complete:
            config = UNKNOWN
        if config != Constant(None):
            nested = net.state.adapters is not None and net.state.adapters.kept and not base
            if nested and own.second == "kept":
                return
            if own.prepares and net.state.method == "bitsandbytes" and config is not UNKNOWN:
                self._prepare_in_trainer(own, call, trainer, net)
            if config is UNKNOWN:
                net.state = dataclasses.replace(net.state, certain=False)
            else:
                row = next(item for item in FUNCTIONS if item.name == "peft.get_peft_model")
                self.trail.apply(row, call, net, by_base_name=base)
                self.rename_base(net)
        adapters = net.state.adapters
        if adapters is not None and net.state.method == "bitsandbytes" and own.casts and not is_unsloth(net.state):
            # TRL asks is_loaded_in_4bit and is_loaded_in_8bit; unsloth cuts the cast out of the trainers
            dtype = "bfloat16" if own.casts == "always" else self._cast_with_bf16(trainer, net)
            net.state = dataclasses.replace(net.state, adapters=dataclasses.replace(adapters, dtype=dtype))

    def _prepare_in_trainer(self, own: TrainerBehavior, call: Call, trainer: Trainer, net: TrackedModel) -> None:
        """Prepare a model as the Trainer's constructor does; if it is asked to checkpoint, its arguments decide how later."""
        trainer.prepared = own.prepares
        name = "peft.prepare_model_for_int8_training" if own.prepares == "always" else "peft.prepare_model_for_kbit_training"
        row = next(item for item in FUNCTIONS if item.name == name)
        if own.prepares == "asked":
            row = dataclasses.replace(row, checkpoints=None)
        self.trail.apply(row, call, net)

    def _cast_with_bf16(self, trainer: Trainer, net: TrackedModel) -> Value:
        """Return the dtype of adapters that the Trainer casts for ``bf16=True`` and a 4-bit model only."""
        if net.state.bits not in (4, UNKNOWN):
            return "float32"
        given = trainer.arguments.frozen(self.effort) if trainer.arguments is not None else None
        defaults = defaults_of(trainer, given, self.trail.versions)
        if given is None:
            return "bfloat16" if defaults.bf16 else "float32"
        fp16 = given.value("fp16", False)  # noqa: FBT003  # the default of the argument
        bf16 = given.value("bf16", defaults.bf16 and fp16 is False)
        return {True: "bfloat16", False: "float32"}.get(bf16, UNKNOWN) if isinstance(bf16, bool) else UNKNOWN

    def rename_base(self, net: TrackedModel) -> None:
        """Record the names that hold the base model while the Trainer holds the model with adapters.

        These are names of the current scope, and of the functions that have called the current one.
        """
        seen: set[int] = set()
        for first in (self.scope, *self.callers):
            scope: Scope | None = first
            while scope is not None and id(scope) not in seen:
                seen.add(id(scope))
                self.effort.spend(len(scope.names) // _CHEAP)
                self.trail.base_names |= {(id(scope), name) for name, value in scope.names.items() if value is net}
                scope = scope.outer

    def _model_by_name(self, model: Object, arguments: Record, known: Record | None) -> TrackedModel | None:
        """Return the model that TRL loads if a script passes its name, with ``model_init_kwargs`` of the training arguments.

        None if the script passes no string. If neither ``model_init_kwargs`` nor a quantization config are known, the model's
        state is unknown.
        """
        if not (isinstance(model, Constant) and isinstance(model.value, str)):
            return None
        kwargs = known.get("model_init_kwargs") if known is not None else UNKNOWN
        config = arguments.items.get("quantization_config") if behavior(self.trail.versions).loads else None
        if not isinstance(kwargs, Record):
            if config is None:
                return self.trail.adopt()
            kwargs = Record("dict", span=arguments.span)
        name = arguments.items.get("model")
        items = {**kwargs.items, **({"quantization_config": config} if config is not None else {})}
        if name is not None:
            items["pretrained_model_name_or_path"] = name
        return self.trail.load(dataclasses.replace(kwargs, items=items).frozen(self.effort))
