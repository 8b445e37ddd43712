"""The loss of a Trainer, computed by its own method on a copy of its model.

A Trainer may compute another loss than the model's: with label smoothing, with a function of the user, with a second pass of
a reference. So its ``compute_loss`` runs on its own first batch. It is bound to a stand-in for the Trainer, whose model is the
copy, whose records are copies, and which reports to no callback.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import io
import types
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.attributes import attribute
from kbitlint.model.inspect.first_batch import IGNORED, first_inputs
from kbitlint.model.inspect.trainer_code import codes_of
from kbitlint.model.trace.twin import TwinError, stand_in_quantized, twin_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The most sequences of a batch. The kind of a failure does not depend on more of them.
_MAX_SEQUENCES = 4
#: Containers that a loss may write, such as the metrics of TRL.
_RECORDS = (dict, list, set, collections.deque)
#: The most elements of a container that is copied. Larger ones are data.
_MAX_RECORDS = 1000
#: Methods with which a Trainer makes the inputs of its loss, beside a move to its device. TRL's generate text in it.
_PREPARES = "_prepare_inputs"
#: Names that code of the user's loss reads if it reports to somewhere, so that it does not run for an audit.
_REPORTING = frozenset(
    [
        *("wandb", "mlflow", "comet_ml", "neptune", "clearml", "swanlab", "trackio", "add_scalar", "add_scalars"),
        *("open", "write", "save", "dump", "system", "popen", "requests", "urlopen", "exec", "input", "breakpoint"),
        *("step", "barrier", "all_reduce", "all_gather", "broadcast", "gather"),
    ]
)


@dataclass(frozen=True, slots=True)
class TrainerLoss:
    """The loss of a Trainer on its first batch."""

    trainer: Any
    """The Trainer, which is only read."""
    batch: Mapping[str, Any]
    """The batch of its collator."""

    def of(self, model: nn.Module, *, emptied: bool = True) -> Tensor:
        """Return the loss of a model that stands for the one of the Trainer.

        Args:
            model: The twin, or a small copy with weights.
            emptied: Whether floating-point inputs lose their values, as on a twin.

        Raises:
            TypeError: The Trainer returns no tensor.
        """
        made = _stand_in(self.trainer, model)
        inputs = {name: _input(value, emptied=emptied) for name, value in self.batch.items()}
        with contextlib.redirect_stdout(io.StringIO()):
            found = made.compute_loss(model, inputs, **self._items(made))
        if not isinstance(found, Tensor):
            raise TypeError(f"compute_loss returns a {type(found).__name__}, and the step needs a tensor")
        return found.mean()

    def _items(self, trainer: Any) -> dict[str, Any]:
        """Return the argument with which ``training_step`` calls the loss: how many labels there are, if they are counted."""
        labels = self.batch.get("labels")
        counts = attribute(trainer, "model_accepts_loss_kwargs") or attribute(trainer, "compute_loss_func") is not None
        known = counts and isinstance(labels, Tensor)
        return {"num_items_in_batch": labels.ne(IGNORED).sum() if known else None}  # type: ignore[union-attr]  # a tensor then


def trainer_loss(trainer: Any, batch_size: int | None) -> TrainerLoss | None:
    """Return the loss of a Trainer, or None if it cannot be computed beside its training.

    A batch may be empty: Trainer drops every column where the forward names no argument. None if the Trainer runs on several
    ranks, whose losses are gathered; if it generates its inputs; if it steps on another loss; if its data cannot be read
    ahead; or if code of the user's in its loss reports to somewhere.

    Args:
        trainer: The Trainer, or None.
        batch_size: Sequences in a batch, or None if it is not known.
    """
    loss = attribute(type(trainer), "compute_loss")
    if not isinstance(loss, types.FunctionType) or attribute(attribute(trainer, "accelerator"), "num_processes", 1) != 1:
        return None
    prepares = getattr(type(trainer), _PREPARES, loss).__module__
    if not prepares.startswith("transformers.") or not _steps_on_its_loss(trainer) or _reports(trainer):
        return None
    batch = first_inputs(trainer, min(batch_size or _MAX_SEQUENCES, _MAX_SEQUENCES))
    return TrainerLoss(trainer, dict(batch)) if isinstance(batch, collections.abc.Mapping) else None


def _steps_on_its_loss(trainer: Any) -> bool:
    """Return whether each step of a Trainer's class leads to ``compute_loss``. OnlineDPO of TRL computes another loss there."""
    step = [
        vars(base).get("training_step") for base in type(trainer).__mro__ if not base.__module__.startswith("transformers.")
    ]
    codes = [one.__code__ for one in step if isinstance(one, types.FunctionType)]
    return all({"training_step", "compute_loss"}.intersection(code.co_names) for code in codes)


def _reports(trainer: Any) -> bool:
    """Return whether the loss of the user's own class or function names something that it would report to."""
    own = [
        base for base in type(trainer).__mro__ if base.__module__.partition(".")[0] not in ("transformers", "trl", "builtins")
    ]
    codes = [code for base in own for code in codes_of(base)]
    function = attribute(trainer, "compute_loss_func")
    if isinstance(function, types.FunctionType):
        codes.append(function.__code__)
    return any(_REPORTING.intersection(code.co_names) for code in codes)


def _stand_in(trainer: Any, model: nn.Module) -> Any:
    """Return an object with the methods of a Trainer, with the model in place of its own and with copies of its records.

    Raises:
        KbitlintError: A module or a record of the Trainer cannot be copied.
    """
    made = object.__new__(type(trainer))
    own = (attribute(trainer, "model"), attribute(trainer, "model_wrapped"))
    memo = {id(one): model for one in own}
    for name, value in vars(trainer).items():
        vars(made)[name] = _copied(value, memo)
    # set by ``train``; TRL weighs the loss of routers by it
    vars(made).setdefault("current_gradient_accumulation_steps", trainer.args.gradient_accumulation_steps)
    vars(made).update(dict(_without_reports(trainer)))
    return made


def _without_reports(trainer: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of the attributes with which a Trainer reports: nothing is logged, and no callback hears of it."""
    yield "log", lambda *_, **__: None
    for name in ("state", "control"):
        if hasattr(trainer, name):
            yield name, copy.deepcopy(getattr(trainer, name))
    handler = copy.copy(attribute(trainer, "callback_handler"))
    if handler is not None:
        handler.callbacks = []
        yield "callback_handler", handler


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """Return what stands for an attribute of a Trainer: a module's twin, a record's copy, or the value itself."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, nn.Module):
        made = memo[id(value)] = twin_of(value)
        stand_in_quantized(made, "cpu", adapters=False)
        return made
    if isinstance(value, _RECORDS) and len(value) <= _MAX_RECORDS and type(value).__module__ in ("builtins", "collections"):
        try:
            return copy.deepcopy(value, dict(memo))
        except Exception as error:
            raise TwinError(f"a record of the Trainer cannot be copied: {type(error).__name__}") from error
    return value


def _input(value: Any, *, emptied: bool) -> Any:
    """Return a copy of an input, on meta if it holds floating-point numbers that lose their values."""
    if not isinstance(value, Tensor):
        return copy.copy(value)
    return value.to("meta") if emptied and value.is_floating_point() else value.detach().cpu().clone()
