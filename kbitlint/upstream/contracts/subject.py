"""What the conditions of a row are asked of: a call, its model and the number of processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.facts.values import UNKNOWN, Call, Value
from kbitlint.upstream.contracts.loaded_models import OF_LOAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbitlint.facts.model_state import ModelState

#: properties that no call changes
_KEPT = ("adapted", "object", "loader")


class Subject:
    """A call, with the defaults of its class, the state of the model that it receives, and the number of processes."""

    def __init__(
        self,
        call: Call,
        defaults: Mapping[str, Mapping[str, Value]],
        model: ModelState | None = None,
        processes: int | None = None,
    ) -> None:
        self.call = call
        self._defaults = defaults
        self._model = model
        self._processes = processes

    def argument(self, call: Call, name: str) -> Value:
        """Return an argument of a call or its default; UNKNOWN if the call may pass it with an unknown value."""
        if name == "processes":
            return self._processes or UNKNOWN
        return call.value(name, self._defaults.get(call.callee, {}).get(name))

    def state(self, name: str) -> Value:
        """Return a property of the model's state; UNKNOWN without a model, or if the file does not tell it.

        Raises:
            KeyError: The model has no property of this name.
        """
        model = self._model
        if model is None:
            return UNKNOWN
        if name in OF_LOAD:
            return OF_LOAD[name](model)
        known = {
            "adapted": model.adapters is not None or (False if model.certain else UNKNOWN),
            "packed": model.method,
            "bits": model.bits,
            "dtype": model.dtype,
            "checkpointed": UNKNOWN if model.checkpointing.enabled is None else model.checkpointing.enabled,
            "loader": model.load.callee if model.load is not None else UNKNOWN,
            "adapter_config": model.adapters.config if model.adapters is not None else None,
            "object": not isinstance(self.call.value("model"), str),
        }
        return known[name] if model.certain or name in _KEPT else UNKNOWN
