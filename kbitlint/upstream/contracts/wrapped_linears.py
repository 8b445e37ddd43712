"""Linear layers inside a class of a model's own, which PEFT refuses as targets: transformers 5.23, PEFT 0.21."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.upstream.contracts.rows import Contract

if TYPE_CHECKING:
    from collections.abc import Iterator

#: (type, sizes of checkpoints with such towers) -> (class around the linear layers of its towers, names of those layers).
#: PEFT adapts the linear layer inside, ``linear``, and refuses the class around it
WRAPPED_LINEARS: dict[tuple[str, tuple[str, ...]], tuple[str, tuple[str, ...]]] = {
    ("gemma4", ("e2b", "e4b")): (
        "Gemma4ClippableLinear",
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    ),
}


def wrapped_rows(*callees: str) -> Iterator[Contract]:
    """Yield the rows of functions that attach adapters to a whole model, towers included."""
    for (kind, sizes), (wrapper, modules) in WRAPPED_LINEARS.items():
        yield Contract(
            callees,
            f"model.type == {kind!r} and model.size in {sizes!r} and has(model.loader, 'automodel')"
            " and peft_config.exclude_modules is None and peft_config.layers_to_transform is None"
            f" and within(peft_config.target_modules, {', '.join(map(repr, modules))})",
            f"Target module {wrapper}(...) of the vision tower is not supported",
        )
