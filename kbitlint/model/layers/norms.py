"""Recognition of norms by the code of a class, not by its name.

Over the causal-LM architectures of transformers 5.23, ``isinstance(module, LayerNorm)`` misses norms in two of three. A test of
names misses some (``ln_1``, ``RmsNormAct2d``) or hits modules that hold whole layers (``DbrxNormAttentionNorm``). A norm here
is a module that

- holds parameters of its own and has no child that holds any,
- multiplies no matrices (it is no Linear, convolution or embedding), and
- normalises: its forward, or a function that its forward calls, computes a mean square, a variance or a vector norm. A vector
  norm that only bounds is a clip: it shortens long vectors and leaves short ones unchanged.

The code of fused kernels cannot be read. Such a module is a norm if it holds only vectors and its class name contains "norm".
"""

from __future__ import annotations

import dis
import functools
import inspect
import re
import types
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

_TORCH_NORMS: tuple[type[nn.Module], ...] = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._BatchNorm,  # noqa: SLF001  # the only common base of the batch norms
    nn.modules.instancenorm._InstanceNorm,  # noqa: SLF001  # the only common base of the instance norms
)

_MATRICES: tuple[type[nn.Module], ...] = (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd, nn.Bilinear)  # noqa: SLF001  # the only common base of convolutions

#: Functions that normalise, by name.
_NORMALISES = frozenset(
    [
        "rsqrt",
        "layer_norm",
        "native_layer_norm",
        "rms_norm",
        "fused_rms_norm",
        "group_norm",
        "batch_norm",
        "instance_norm",
        "normalize",
        "var",
        "var_mean",
        "std",
        "norm",
        "vector_norm",
        "l2norm",
    ]
)
#: Functions that compute the length of a vector. Division by it is a norm, a bound on it is a clip.
_LENGTHS = frozenset(["norm", "vector_norm"])
#: Functions that bound large values. ``clamp`` does so as well if ``max`` is passed.
_CUTS = frozenset(["clamp_max", "clamp_max_", "minimum", "fmin"])
_CLAMPS = frozenset(["clamp", "clamp_", "clip", "clip_"])
#: Functions that mix features. A module that calls one is no norm.
_MIXES = frozenset(
    [
        "linear",
        "matmul",
        "bmm",
        "mm",
        "einsum",
        "baddbmm",
        "embedding",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "scaled_dot_product_attention",
        "softmax",
        "log_softmax",
        "topk",
        "chunk_scan",
        "selective_scan",
    ]
)
_BARE_NORM = re.compile(
    r"(^|_)(layer_?|rms_?|l2_?|[qk]_?)?norm(_weight|_scale|_bias|_gamma|_beta)?$|(^|_)ln(_\w|\d)?$", re.IGNORECASE
)


def is_norm(module: nn.Module) -> bool:
    """Return whether the module is a normalisation layer with parameters of its own. A scripted one takes no hooks."""
    if isinstance(module, torch.jit.ScriptModule):
        return False
    own = [parameter for parameter in module._parameters.values() if parameter is not None]  # noqa: SLF001  # parameters of the module alone, without a generator for each module
    if not own or (module._modules and any(True for child in module.children() for _ in child.parameters())):  # noqa: SLF001  # see above
        return False
    if isinstance(module, _TORCH_NORMS):
        return True
    if isinstance(module, _MATRICES):
        return False
    normalises, mixes, readable = _what_code_does(_class_of(module))
    if readable:
        return normalises and not mixes
    vectors = all(sum(size > 1 for size in parameter.shape) <= 1 for parameter in own)
    return vectors and "norm" in type(module).__name__.lower()


def is_bare_norm(name: str, dimensions: int) -> bool:
    """Return whether a parameter outside of norm modules has at most one dimension and a name of norm weights."""
    return dimensions <= 1 and _BARE_NORM.search(name) is not None


def _class_of(module: nn.Module) -> Any:
    return type(module)


@functools.lru_cache(maxsize=4096)
def _what_code_does(cls: Any) -> tuple[bool, bool, bool]:
    """Return (normalises, mixes features, is readable) for the forward of a class and the functions that it calls."""
    names: set[str] = set()
    keywords: set[str] = set()
    readable = False
    for code in _reachable(cls):
        readable = True
        names.update(code.co_names)
        keywords.update(_keywords(code))
    cuts = bool(names & _CUTS) or (bool(names & _CLAMPS) and "max" in keywords)
    normalisers = names & _NORMALISES
    if cuts and normalisers <= _LENGTHS:
        normalisers = set()
    power = bool(names & {"pow", "square", "sqrt"}) and bool(names & {"mean", "sum"})
    # a norm class calls its own kernel
    called = "norm" in cls.__name__.lower() and any("norm" in name.lower() for name in names)
    return bool(normalisers) or power or called, bool(names & _MIXES), readable


def _reachable(cls: type[nn.Module], depth: int = 3) -> Iterator[types.CodeType]:
    """Yield the code of a class's forward and of the functions that it calls, up to a depth."""
    todo = [(function_of(cls.forward), depth)]
    seen: set[types.CodeType] = set()
    while todo:
        function, left = todo.pop()
        code = getattr(function, "__code__", None)
        if code is None or code in seen:
            continue
        seen.add(code)
        yield code
        if not left:
            continue
        for name in code.co_names:
            method = inspect.getattr_static(cls, name, None)
            target = method if callable(method) or isinstance(method, (staticmethod, classmethod)) else None
            if name not in _NORMALISES and hasattr(nn.Module, name):
                continue  # torch's own methods do not characterise this class
            target = target or getattr(function, "__globals__", {}).get(name)
            if isinstance(target, (staticmethod, classmethod)):
                target = target.__func__
            if isinstance(target, types.FunctionType):
                todo.append((function_of(target), left - 1))


def _keywords(code: types.CodeType) -> Iterator[str]:
    """Yield names that may be keyword arguments in code. They are tuples of strings among its constants."""
    for constant in code.co_consts:
        if isinstance(constant, tuple):
            yield from (name for name in constant if isinstance(name, str))


def function_of(forward: object) -> object:
    """Return the function below decorators. transformers wraps the forward of every checkpointed layer."""
    return inspect.unwrap(forward) if callable(forward) else forward


@functools.lru_cache(maxsize=4096)
def mentions(cls: Any, name: str) -> bool:
    """Return whether the forward of a class, or a function it calls, uses a name.

    The name may be that of a variable, an attribute or a keyword.
    """
    for code in _reachable(cls):
        if name in (*code.co_names, *code.co_varnames) or name in code.co_consts or name in _keywords(code):
            return True
    return False


@functools.lru_cache(maxsize=4096)
def upcasts(cls: Any) -> bool | None:
    """Return whether a norm computes its statistics in float32 for half-precision input; None if its code cannot be read.

    The kernels of torch's own norms accumulate in float32 (``opmath_t`` of ``layer_norm_kernel.cu`` and its CPU
    counterpart). Other norms do if their code casts to float32.
    """
    if issubclass(cls, _TORCH_NORMS) and function_of(cls.forward).__module__.startswith("torch."):  # type: ignore[attr-defined]  # a function has one
        return True
    if next(_reachable(cls), None) is None:
        return None
    kernels = any(mentions(cls, name) for name in ("layer_norm", "rms_norm", "group_norm", "batch_norm"))
    return kernels or mentions(cls, "float32") or mentions(cls, "float")


@functools.lru_cache(maxsize=4096)
def dtype_readers(cls: Any) -> frozenset[str]:
    """Return the names of children whose ``weight.dtype`` the forward of a class reads, and ``self`` for its own weight.

    Several state-space models cast the residual with ``x.to(self.norm.weight.dtype)`` before the norm. T5's norm casts its
    output to the dtype of its own weight. If the weight becomes float32, that dtype is no longer the one that the rest of the
    model expects.
    """
    code = getattr(function_of(cls.forward), "__code__", None)
    if code is None:
        return frozenset()
    names = [loaded(instruction) for instruction in dis.get_instructions(code)]
    return frozenset(
        first
        for first, second, third in zip(names, names[1:], names[2:], strict=False)
        if first is not None and second == "weight" and third == "dtype"
    )


def loaded(instruction: dis.Instruction) -> str | None:
    """Return the last name that an instruction loads, or None. Python 3.13 loads two locals with one instruction."""
    if instruction.opname != "LOAD_ATTR" and not instruction.opname.startswith("LOAD_FAST"):
        return None
    name = instruction.argval
    return name[-1] if isinstance(name, tuple) else name
