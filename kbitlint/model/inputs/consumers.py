"""What the code that first uses an input takes: the leaf that a layer, an operator or a loss needs at that place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kbitlint.lazy_dataclass import dataclass
from kbitlint.model.inputs.recipes import Leaf
from kbitlint.model.layers.quantized import packing_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Edges of an image, steps of a signal, and frames of a volume, for a convolution that accepts any.
EDGE, STEPS, FRAMES = 32, 256, 4
#: Samples of a sound that a short-time Fourier transform takes.
_SAMPLES = 2048
#: Functions whose tensors have one shape, or shapes that broadcast.
_SAME_SHAPE = frozenset(
    [
        *("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy", "kl_div", "gaussian_nll_loss"),
        *("binary_cross_entropy_with_logits", "cosine_similarity", "triplet_margin_loss", "poisson_nll_loss"),
        *("add", "sub", "mul", "div", "true_divide", "addcmul", "lerp", "maximum", "minimum", "pow", "where", "rsub"),
        *("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "bitwise_and", "bitwise_or"),
        *("cat", "stack", "concat", "hstack", "vstack", "add_", "mul_", "sub_", "div_", "copy_"),
    ]
)
_MASKS = frozenset(["masked_fill", "masked_fill_", "masked_select", "masked_scatter"])
_PRODUCTS = frozenset(["matmul", "bmm", "mm"])


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function of torch, with an input at one place of which nothing is known."""

    name: str
    args: tuple[Any, ...]
    named: Mapping[str, Any]
    place: int | str
    """The position or the name of the argument in question."""
    batch: int
    """Samples in a batch."""
    steps: int
    """Tokens or steps in a sample."""

    def at(self, position: int, *names: str) -> bool:
        """Return whether the argument in question is the one at a position, or has one of these names."""
        return self.place in (position, *names)

    def argument(self, position: int, *names: str) -> Any:
        """Return another argument of the call, or None."""
        named = next((self.named[name] for name in names if name in self.named), None)
        return self.args[position] if named is None and len(self.args) > position else named

    def tensor(self, position: int, *names: str) -> Tensor | None:
        """Return another argument of the call if it is a tensor."""
        found = self.argument(position, *names)
        return found if isinstance(found, Tensor) else None

    def tensors(self) -> list[Tensor]:
        """Return all tensors among the arguments, in lists too."""
        values = [*self.args, *self.named.values()]
        flat = [item for value in values for item in (value if isinstance(value, (list, tuple)) else (value,))]
        return [item for item in flat if isinstance(item, Tensor)]


def of_module(module: nn.Module, batch: int, steps: int) -> Leaf | None:
    """Return the input of a layer, or of the first layer inside a module of torch's own. None if it takes any."""
    inside = module.modules() if type(module).__module__.startswith("torch.nn.modules") else (module,)
    return next((found for one in inside if (found := _of_layer(one, batch, steps)) is not None), None)


def _of_layer(module: nn.Module, batch: int, steps: int) -> Leaf | None:
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return Leaf("long", (batch, steps), module.num_embeddings)
    if isinstance(module, nn.MultiheadAttention):
        return Leaf("float", (batch, steps, module.embed_dim))
    if isinstance(module, nn.RNNBase):
        return Leaf("float", (batch, steps, module.input_size))
    if isinstance(module, nn.modules.conv._ConvNd):  # noqa: SLF001  # the common base of all convolutions
        return _of_convolution(module.weight.dim() - 2, module.in_channels, batch)
    packing = packing_of(module)
    if packing is not None and packing.features is not None:
        return Leaf("float", (batch, steps, packing.features[0]))
    return Leaf("float", (batch, steps, module.in_features)) if isinstance(module, nn.Linear) else None


def _of_convolution(axes: int, channels: int, batch: int) -> Leaf:
    extent = {1: (STEPS,), 2: (EDGE, EDGE), 3: (FRAMES, EDGE, EDGE)}[axes]
    return Leaf("float", (batch, channels, *extent))


def of_call(call: Call) -> Leaf | None:
    """Return the input that a function of torch takes at a place. None if its other arguments do not tell."""
    rule = _RULES.get(call.name)
    if rule is not None and (found := rule(call)) is not None:
        return found
    others = call.tensors()
    if not others:
        return None
    if call.name in _MASKS:
        return Leaf("bool", tuple(others[0].shape)) if call.at(1, "mask") else None
    if call.name in _PRODUCTS:
        return _of_product(call, others[0])
    return _of_operand(max(others, key=Tensor.dim), call.batch) if call.name in _SAME_SHAPE else None


def _of_operand(other: Tensor, batch: int) -> Leaf | None:
    """Return an operand of the same shape as another one. Its samples may be broadcast."""
    if not other.dim():
        return None
    kind = "float" if other.is_floating_point() else "bool" if other.dtype is torch.bool else "long"
    return Leaf(kind, (batch if other.shape[0] == 1 else other.shape[0], *other.shape[1:]))


def _of_product(call: Call, other: Tensor) -> Leaf | None:
    if other.dim() < 2:
        return None
    if call.at(0, "input", "self"):
        return Leaf("float", (*(tuple(other.shape[:-2]) or (call.batch,)), call.steps, other.shape[-2]))
    return Leaf("float", (*other.shape[:-2], other.shape[-1], call.steps))


def _embedding(call: Call) -> Leaf | None:
    weight = call.tensor(1, "weight")
    return Leaf("long", (call.batch, call.steps), weight.shape[0]) if weight is not None and call.at(0, "input") else None


def _linear(call: Call) -> Leaf | None:
    weight = call.tensor(1, "weight")
    return Leaf("float", (call.batch, call.steps, weight.shape[-1])) if weight is not None and call.at(0, "input") else None


def _convolution(call: Call) -> Leaf | None:
    weight, groups = call.tensor(1, "weight"), call.argument(6, "groups") or 1
    return None if weight is None else _of_convolution(weight.dim() - 2, weight.shape[1] * groups, call.batch)


def _norm(call: Call) -> Leaf | None:
    shape = call.argument(1, "normalized_shape")
    return Leaf("float", (call.batch, call.steps, *shape)) if call.at(0, "input") and isinstance(shape, (list, tuple)) else None


def _one_hot(call: Call) -> Leaf | None:
    count = call.argument(1, "num_classes")
    return Leaf("long", (call.batch, call.steps), count if isinstance(count, int) and count > 0 else 2)


def _classes(call: Call) -> Leaf | None:
    scores = call.tensor(0, "input")
    if scores is None or not scores.dim() or not call.at(1, "target"):
        return None
    axis = 1 if scores.dim() > 1 else 0
    return Leaf("long", (*scores.shape[:axis], *scores.shape[axis + 1 :]), scores.shape[axis])


def _ctc(call: Call) -> Leaf | None:
    scores = call.tensor(0, "log_probs")
    if scores is None or scores.dim() != 3:
        return None
    frames, samples, classes = scores.shape
    if call.at(1, "targets"):
        return Leaf("long", (samples, 2), classes)
    return Leaf("long", (samples,), frames if call.at(2, "input_lengths") else 2)


def _index(call: Call) -> Leaf | None:
    held, keys = call.tensor(0), call.argument(1)
    if held is None or not held.dim() or call.place == 0:
        return None
    listed = keys if isinstance(keys, tuple) else (keys,)
    at = next((i for i, key in enumerate(listed) if not isinstance(key, (int, slice, Tensor)) and key is not None), 0)
    beside = [key for key in listed if isinstance(key, Tensor)]
    return Leaf("long", tuple(beside[0].shape) if beside else (call.steps,), held.shape[min(at, held.dim() - 1)])


def _rows(call: Call) -> Leaf | None:
    held, dim, source = call.tensor(0, "input"), call.argument(1, "dim"), call.tensor(3, "source", "src")
    if held is None or not isinstance(dim, int) or not call.at(2, "index"):
        return None
    return Leaf("long", (call.steps if source is None else source.shape[dim],), held.shape[dim])


def _gather(call: Call) -> Leaf | None:
    held, dim = call.tensor(0, "input"), call.argument(1, "dim")
    if held is None or not isinstance(dim, int) or not call.at(2, "index"):
        return None
    at = dim % held.dim()
    return Leaf("long", (*held.shape[:at], 1, *held.shape[at + 1 :]), held.shape[at])


def _attention(call: Call) -> Leaf | None:
    query, key = call.tensor(0, "query"), call.tensor(1, "key")
    if query is None or key is None or not call.at(3, "attn_mask"):
        return None
    return Leaf("bool", (*(1 for _ in query.shape[:-2]), query.shape[-2], key.shape[-2]))


def _sound(call: Call) -> Leaf | None:
    return Leaf("float", (call.batch, _SAMPLES)) if call.at(0, "input", "self") else None


def _repeats(call: Call) -> Leaf | None:
    held, dim = call.tensor(0, "input"), call.argument(2, "dim") or 0
    return Leaf("long", (held.shape[dim],), 2) if held is not None and call.at(1, "repeats") else None


_RULES: dict[str, Callable[[Call], Leaf | None]] = {
    "embedding": _embedding,
    "linear": _linear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("layer_norm", "rms_norm"), _norm),
    "one_hot": _one_hot,
    **dict.fromkeys(("cross_entropy", "nll_loss"), _classes),
    "ctc_loss": _ctc,
    "__getitem__": _index,
    **dict.fromkeys(("index_add", "index_add_", "index_select", "index_copy", "scatter_add", "scatter_add_"), _rows),
    "gather": _gather,
    "scaled_dot_product_attention": _attention,
    "stft": _sound,
    "repeat_interleave": _repeats,
}
