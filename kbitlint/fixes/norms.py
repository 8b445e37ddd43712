"""The treatment of norms by a fix (``--norms``): float32 with their interface kept, as PEFT does it, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.audit.options import Norms
from kbitlint.facts.dtypes import LOW_PRECISION
from kbitlint.violation import Edit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbitlint.facts.model import ModelFacts


def with_norms(edits: Iterable[Edit], norms: Norms, facts: ModelFacts) -> tuple[Edit, ...]:
    """Return edits with those of norms replaced by the chosen treatment.

    Args:
        edits: The edits of the rules' fixes.
        norms: The treatment.
        facts: The model; PEFT's treatment widens every half-precision parameter of it.
    """
    if norms is Norms.TRANSPARENT:
        return tuple(edits)
    kept = [edit for edit in edits if edit.kind != "float32-norm"]
    if norms is Norms.KEEP:
        return tuple(kept)
    wide = [
        Edit("widen-parameter", p.path, {"dtype": "float32"}, adds_bytes=p.nbytes)
        for p in facts.parameters
        if p.dtype in LOW_PRECISION and not (p.packed or p.adapter)
    ]
    return (*(edit for edit in kept if edit.kind != "narrow-parameter"), *wide)
