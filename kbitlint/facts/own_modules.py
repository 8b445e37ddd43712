"""Facts of classes and functions that a script writes itself: modules around a model, and what libraries call back."""

from __future__ import annotations

from kbitlint.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Head:
    """A module with weights of its own that a class of the script puts beside a model."""

    name: str
    """The attribute that holds it."""
    line: int
    body: str
    """The attribute that holds the model, whose output the head gets."""
    uncast_at: int
    """The line on which a float32 head gets the model's output without a cast; 0 if the head or the output is cast."""


@dataclass(frozen=True, slots=True)
class FileUse:
    """A call in a callback that needs a file of a checkpoint."""

    function: str
    """The name of the function: ``os.remove``."""
    file: str
    line: int
    callback: str
    """The class of the callback."""


@dataclass(frozen=True, slots=True)
class RefusedCall:
    """A function of the script whose parameters do not take the call that a library makes of it."""

    function: str
    """The name of the function or method."""
    owner: str
    """The class or argument through which the library finds it: ``Trainer``, ``TrainerCallback``, ``reward_funcs``."""
    library: str
    """The library that calls it, whose version decides."""
    line: int
    since: str
    """The first version that calls so."""
    moment: str
    """The moment of the first call."""
    refused: str
    """The exception of the call, as a sentence."""


@dataclass(frozen=True, slots=True)
class StateUse:
    """A load of a state dict that the script has saved, whose names are not those that the function looks for."""

    function: str
    """``load_state_dict`` or ``set_peft_model_state_dict``."""
    line: int
    names: str
    """The form of the names in the file."""
    raises: bool
    """Whether the load raises. Otherwise it drops the tensors in silence."""
