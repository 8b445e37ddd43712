"""The module or parameter that an edit changes, found below the wrappers of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.errors import EditError
from kbitlint.model.layers import adapters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from kbitlint.model.edits.checkpoint_tensors import StoredParameters
    from kbitlint.model.edits.optimizers import Carrier
    from kbitlint.violation import Edit


class EditPlace:
    """Where an edit applies: resolves its path below whatever wrappers the model has."""

    def __init__(
        self,
        model: nn.Module,
        base: nn.Module,
        edit: Edit,
        checkpoint: Callable[[], StoredParameters | None],
        carrier: Carrier | None,
    ) -> None:
        self.model, self.base, self.edit, self.checkpoint, self.carrier = model, base, edit, checkpoint, carrier

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments of the edit."""
        return self.edit.arguments

    def module(self, path: str | None = None) -> nn.Module:
        """The module at the path; adapters that wrap modules on the way are seen through."""
        path = self.edit.path if path is None else path
        for root in (self.base, self.model):
            found = _descend(root, path)
            if found is not None:
                return found
        raise EditError(f"{self.edit.kind}: {type(self.base).__name__} has no module {path!r}")

    def parameter(self) -> nn.Parameter:
        """The parameter at the path."""
        owner, _, name = self.edit.path.rpartition(".")
        for root in (self.base, self.model):
            module = _descend(root, owner)
            while module is not None:
                parameter = module._parameters.get(name)  # noqa: SLF001  # torch has no public dictionary
                if parameter is not None:
                    return parameter
                wrapped = adapters.wrapped_child(module)
                module = None if wrapped is None else module._modules[wrapped]  # noqa: SLF001  # see above
        raise EditError(f"{self.edit.kind}: {type(self.base).__name__} has no parameter {self.edit.path!r}")


def _descend(root: nn.Module, path: str) -> nn.Module | None:
    module = adapters.seen_through(root)
    for name in path.split(".") if path else ():
        children = module._modules  # noqa: SLF001  # torch has no public dictionary of children
        wrapped = adapters.wrapped_child(module)
        while name not in children and wrapped is not None:
            module = adapters.seen_through(children[wrapped])  # type: ignore[arg-type]  # a wrapped child is never None
            children = module._modules  # noqa: SLF001  # see above
            wrapped = adapters.wrapped_child(module)
        child = children.get(name)
        if child is None:
            return None
        module = adapters.seen_through(child)
    return module
