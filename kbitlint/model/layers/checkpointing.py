"""Activation checkpointing of each layer, under the names of transformers 4 and 5.

transformers 5.23 renamed ``gradient_checkpointing_*`` to ``activation_checkpointing_*``. Without kwargs it is non-reentrant and
installs the embedding hook itself. transformers 4 is reentrant by default and installs no hook. PEFT's
``prepare_model_for_kbit_training`` passes ``{}`` in both, so torch's own default decides, which is reentrant.
"""

from __future__ import annotations

import ast
import enum
import functools
import inspect
import textwrap
import types
import warnings
from typing import TYPE_CHECKING, Any

from kbitlint.facts.layers import LayerCheckpointing
from kbitlint.facts.reentry import Reentry
from kbitlint.model.attributes import attribute
from kbitlint.model.layers.norms import function_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

FLAG = "gradient_checkpointing"
FUNCTION = "_gradient_checkpointing_func"
_SETS = "_set_gradient_checkpointing"


@functools.lru_cache(maxsize=4096)
def _has_flag(cls: Any) -> bool:
    return hasattr(cls, FLAG)


def checkpoint_facts(module: nn.Module, path: str) -> LayerCheckpointing | None:
    """Return how the module checkpoints, or None if it never does.

    Many modules have the flag and never checkpoint, such as every ``LlamaModel``. A module counts if it is one of transformers'
    checkpointed layers, or if its code calls a checkpoint function.
    """
    cls: Any = type(module)
    if FLAG not in module.__dict__ and not _has_flag(cls):  # hasattr(module) is slow: it raises inside
        return None
    layer, (called, caller) = _is_layer(cls), _checkpoint_call(cls)
    if not layer and called is None:
        return None
    bound = module.__dict__.get(FUNCTION)
    enabled = bool(attribute(module, FLAG))
    if called is _Call.DIRECT and bound is None:
        reentry = _reentry_in_code(caller)
    else:
        reentry = reentry_of(bound) if enabled else Reentry.UNKNOWN
    return LayerCheckpointing(
        path=path,
        class_name=type(module).__name__,
        enabled=enabled,
        training=module.training,
        reentry=reentry,
        is_layer=layer,
        rebindable=takes_use_reentrant(bound),
        redraws=_loses_random_state(bound) and _has_dropout(module),
    )


def _loses_random_state(function: object) -> bool:
    """Return whether ``preserve_rng_state=False`` is bound to a checkpoint function."""
    while isinstance(function, functools.partial):
        if "preserve_rng_state" in function.keywords:
            return function.keywords["preserve_rng_state"] is False
        function = function.func
    return False


def _has_dropout(module: nn.Module) -> bool:
    """Return whether a module in it drops elements: a module of torch, or code that reads its share from an attribute."""
    for inner in module.modules():
        own = {"dropout": attribute(inner, "p")} if "Dropout" in type(inner).__name__ else inner.__dict__
        if any("dropout" in name and isinstance(share, float) and share > 0 for name, share in own.items()):
            return True
    return False


def reentry_of(function: object) -> Reentry:
    """Return the ``use_reentrant`` that a bound checkpoint function passes to torch.

    The source of a user's own function is read, since it may pass the argument itself.
    """
    value: object = None
    while isinstance(function, functools.partial):
        value = function.keywords.get("use_reentrant", value) if value is None else value
        function = function.func
    if value is not None:
        return Reentry.YES if value else Reentry.NO
    if _is_torchs_own(function):
        return Reentry.UNSET
    return _reentry_in_code(function) if callable(function) else Reentry.UNKNOWN


def _passes(function: object, name: str) -> object:
    """Return the value of a keyword that a bound checkpoint function passes to torch, or None."""
    while isinstance(function, functools.partial):
        if name in function.keywords:
            return function.keywords[name]
        function = function.func
    return None


def takes_use_reentrant(function: object) -> bool:
    """Return whether ``use_reentrant=False`` can be passed to a bound checkpoint function."""
    while isinstance(function, functools.partial):
        if "use_reentrant" in function.keywords:
            return True
        function = function.func
    return _is_torchs_own(function)


def _is_torchs_own(function: object) -> bool:
    module, name = getattr(function, "__module__", None), getattr(function, "__name__", None)
    return (module, name) == ("torch.utils.checkpoint", "checkpoint")


def without_reentry(function: Callable[..., Any]) -> functools.partial[Any]:
    """Return the checkpoint function with its options, made non-reentrant."""
    return functools.partial(function, use_reentrant=False)


def runs_hooks_outside(module: nn.Module) -> bool:
    """Return whether a layer's own hooks run before it checkpoints.

    transformers 5 checkpoints the forward of a layer, and transformers 4 its ``__call__``, hooks included.
    """
    bases = [base for base in type(module).__mro__ if base.__name__ == "GradientCheckpointingLayer"]
    return bool(bases) and not any("__call__" in base.__dict__ for base in bases)


def supports_checkpointing(model: nn.Module) -> bool:
    """Return whether the model's class declares that its layers support checkpointing. diffusers writes the name privately.

    Remote code may override how a model enables it, in a form that the installed transformers does not call.
    """
    names = ("supports_gradient_checkpointing", "_supports_gradient_checkpointing")
    return any(attribute(model, name) is True for name in names) and _can_be_enabled(model)


def takes_strides() -> bool:
    """Return whether the installed transformers checkpoints every n-th layer if its training arguments ask for it."""
    from transformers import PreTrainedModel  # takes a second to import

    enables = getattr(PreTrainedModel, "activation_checkpointing_enable", None)
    return enables is not None and "every_n_layers" in inspect.signature(enables).parameters


def stride_of(model: nn.Module) -> int:
    """Return every how many layers of a model checkpoint, as their flags say; 0 for none.

    Flags without such a pattern count as all.
    """
    facts = (checkpoint_facts(module, "") for module in model.modules())
    flags = [fact.enabled for fact in facts if fact is not None and fact.is_layer]
    if not any(flags):
        return 0
    for stride in range(1, len(flags) + 1):
        if flags == [number % stride == 0 for number in range(len(flags))]:
            return stride
    return 1


def _can_be_enabled(model: nn.Module) -> bool:
    """Return whether a model's ``_set_gradient_checkpointing`` takes the arguments that the installed transformers passes."""
    from transformers import PreTrainedModel  # takes a second to import

    own: Any = getattr(type(model), _SETS, None)
    ours: Any = getattr(PreTrainedModel, _SETS, None)
    if own is None or ours is None or own is ours or not isinstance(model, PreTrainedModel):
        return True
    taken = inspect.signature(own).parameters.values()
    names = {parameter.name for parameter in taken}
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken)
    return any_name or "value" in names or set(inspect.signature(ours).parameters) <= names  # "value" is the form before 4.35


def enable(model: Any, **kwargs: Any) -> None:
    """Enable checkpointing through the public method of the installed transformers or diffusers."""
    if hasattr(model, "enable_gradient_checkpointing"):  # diffusers, which is non-reentrant by default
        model.enable_gradient_checkpointing(
            *([functools.partial(_checkpoint, **kwargs)] if kwargs.get("use_reentrant") else [])
        )
        return
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(kwargs)
        return
    with warnings.catch_warnings():  # remote code may override the older name, which then warns about itself
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)


def _checkpoint(module: nn.Module, *args: Any, use_reentrant: bool) -> Any:
    """Checkpoint a block of diffusers, whose function receives the module itself."""
    from torch.utils.checkpoint import checkpoint  # this file describes modules and needs torch only here

    return checkpoint(module.__call__, *args, use_reentrant=use_reentrant)


@functools.lru_cache(maxsize=4096)
def _is_layer(cls: Any) -> bool:
    return any(base.__name__ == "GradientCheckpointingLayer" for base in cls.__mro__)


class _Call(enum.Enum):
    BOUND = "calls the function that was bound to it"
    DIRECT = "calls torch.utils.checkpoint itself"


@functools.lru_cache(maxsize=4096)
def _checkpoint_call(cls: Any) -> tuple[_Call | None, Any]:
    """Return how the forward of a class, or a method that it calls, checkpoints, and that function. None if it never does."""
    for function in _methods_of(cls):
        names = set(_names_in(function.__code__))
        if FUNCTION in names:
            return _Call.BOUND, function
        if "checkpoint" in names:
            return _Call.DIRECT, function
    return None, None


def _methods_of(cls: Any) -> Iterator[Any]:
    """Yield the forward of a class, and the methods that it calls. Those of torch and of transformers' base do not count."""
    todo, seen = [function_of(cls.forward)], set()
    while todo:
        function = todo.pop(0)
        code = getattr(function, "__code__", None)
        if code is None or code in seen:
            continue
        seen.add(code)
        yield function
        methods = (inspect.getattr_static(cls, name, None) for name in _names_in(code))
        todo += [method for method in methods if isinstance(method, types.FunctionType) and _is_own(method)]


def _is_own(method: types.FunctionType) -> bool:
    return not method.__module__.startswith(("torch.", "transformers.modeling_utils"))


def _names_in(code: types.CodeType) -> Iterator[str]:
    """Yield the names of code, and of the functions that it defines."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)


@functools.lru_cache(maxsize=4096)
def _reentry_in_code(function: Any) -> Reentry:
    """Return the literal that a function's source passes to ``checkpoint`` as ``use_reentrant``, or UNKNOWN.

    If several calls differ, the one that is worst for training decides.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)).lstrip("."))
    except (OSError, TypeError, SyntaxError):
        return Reentry.UNKNOWN
    found = {_passed(call) for call in ast.walk(tree) if isinstance(call, ast.Call) and _is_checkpoint(call.func)}
    worst_first = (Reentry.UNSET, Reentry.YES, Reentry.UNKNOWN, Reentry.NO)
    return next((reentry for reentry in worst_first if reentry in found), Reentry.UNKNOWN)


def _is_checkpoint(function: ast.expr) -> bool:
    return getattr(function, "attr", getattr(function, "id", None)) == "checkpoint"


def _passed(call: ast.Call) -> Reentry:
    for keyword in call.keywords:
        if keyword.arg == "use_reentrant":
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            return Reentry.YES if value is True else Reentry.NO if value is False else Reentry.UNKNOWN
        if keyword.arg is None:  # the call passes **kwargs
            return Reentry.UNKNOWN
    return Reentry.UNSET


def makes_require_grad(hook: Any) -> bool:
    """Return whether the code of a forward hook sets ``requires_grad``. The name of the hook does not count."""
    while isinstance(hook, functools.partial):
        hook = hook.func
    code = attribute(attribute(hook, "__func__", hook), "__code__")
    return code is not None and bool({"requires_grad_", "requires_grad"} & set(code.co_names))
