"""The gradient feed of each stack of checkpointed layers, as far as attributes show it.

A reentrant checkpoint creates a backward node only if one of its tensor inputs requires grad. That depends on the code that
runs before the layer, and a walk sees only registered modules and hooks. A feed is thus certain, possible or absent. The trace
(``kbitlint.model.trace``) decides open cases.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kbitlint.facts.layers import GradientFeed
from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kbitlint.facts.model import EmbeddingFacts, InputGradHooks, ParameterFacts


@dataclass(frozen=True, slots=True)
class GradientFlow:
    """The facts of a walk that bear on the flow of gradients."""

    layers: frozenset[str]
    """Paths of the modules whose checkpointing is enabled."""
    models: tuple[str, ...]
    """Paths of all transformers models in the tree."""
    embeddings: Sequence[EmbeddingFacts]
    hooks: Sequence[InputGradHooks]
    parameters: Sequence[ParameterFacts]
    has_adapters: bool
    outside: str | None = None
    """A trainable module outside the base whose wrapper passes ``inputs_embeds``, or None if there is none."""
    entered: frozenset[str] = frozenset()
    """Layers whose own pre-hook makes their input require grad before they checkpoint."""


def gradient_feeds(around: GradientFlow) -> tuple[GradientFeed, ...]:
    """Return one GradientFeed for each stack of checkpointed layers, in the order of their paths."""
    stacks: dict[str, list[str]] = {}
    for layer in sorted(around.layers):
        stacks.setdefault(_parent(layer), []).append(layer)
    trained: dict[str, list[str]] = {}
    for parameter in around.parameters:
        layer = _layer_of(parameter.path, around.layers) if parameter.requires_grad else ""
        if layer:
            trained.setdefault(_parent(layer), []).append(layer)
    return tuple(_feed(stack, layers, tuple(trained.get(stack, ())), around) for stack, layers in stacks.items())


def _feed(stack: str, layers: list[str], inside: tuple[str, ...], around: GradientFlow) -> GradientFeed:
    """Return the feed of one stack within the innermost transformers model that holds it (a text decoder, a vision tower).

    Before adapters are attached only hooks count, because attaching them freezes every parameter of the base.
    """
    tower = _tower(layers[0], around.models)
    own = {embedding.path for embedding in around.embeddings if embedding.owner == tower}
    if any(_reaches(hooks.path, tower, own, around) for hooks in around.hooks):
        return GradientFeed(stack, certain=True, possible=None, fed_by_layers=frozenset(), trains_inside=inside)
    holder = _parent(stack)
    entrances = own | {_parent(path) for path in own} - {tower, holder, ""}
    certain, possible, live, reached = False, around.outside, math.inf, False
    for parameter in around.parameters if around.has_adapters else ():
        path = parameter.path
        in_stack = _within(path, stack) if stack else bool(_layer_of(path, around.layers))
        reached = reached or in_stack
        if not parameter.requires_grad or parameter.norm or parameter.outside or not _within(path, tower):
            continue
        if any(_within(path, entrance) for entrance in entrances):
            certain = True
        elif _layer_of(path, around.layers):
            continue
        elif in_stack:
            live = min(live, _index(path[len(stack) + 1 :].partition(".")[0]))
        elif not reached or _within(path, holder):
            possible = possible or parameter.module
    live = min([live, *(_index(layer) - 1 for layer in layers if layer in around.entered)])
    fed = frozenset(layer for layer in layers if _index(layer) > live)
    return GradientFeed(stack, certain=certain, possible=possible, fed_by_layers=fed, trains_inside=inside)


def _reaches(path: str, tower: str, own: set[str], around: GradientFlow) -> bool:
    """Return whether a hook at a path feeds the tower.

    Its module must run, in the tower or as its input embedding.

    transformers 4 hooks the shared embedding of an encoder-decoder, which neither half may run. If the tower exposes no input
    embedding, a hook in a model around it counts.
    """
    never_runs = any(embedding.path == path and not embedding.hookable for embedding in around.embeddings)
    if never_runs or _layer_of(path, around.layers):
        return False
    return _within(path, tower) or path in own or (not own and _within(tower, _tower(path, around.models)))


def _layer_of(path: str, layers: frozenset[str]) -> str:
    """Return the checkpointed layer that holds a path, or an empty string."""
    while path and path not in layers:
        path = _parent(path)
    return path


def _tower(path: str, models: Iterable[str]) -> str:
    """Return the path of the innermost transformers model that holds a path. It is empty for the root model."""
    return max((owner for owner in models if _within(path, owner)), key=len, default="")


def _index(path: str) -> float:
    """Return the number of a layer in its stack. A layer without a number precedes all others."""
    last = path.rpartition(".")[2]
    return int(last) if last.isdecimal() else -math.inf


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _within(path: str, ancestor: str) -> bool:
    return not ancestor or path == ancestor or path.startswith(f"{ancestor}.")
