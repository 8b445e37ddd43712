"""What misspelt arguments mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.upstream.quantization import QUANTIZATION_ARGUMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kbitlint.facts.values import Call


def meant_argument(name: str, known: Iterable[str]) -> str | None:
    """Return the argument that a misspelt name means; None if no known argument is similar."""
    import difflib  # only imported for an unknown name

    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.75)), None)


def misspelt_arguments(config: Call) -> Mapping[str, str]:
    """Return the arguments of a quantization config that a misspelt one means: argument -> name in the call."""
    known = QUANTIZATION_ARGUMENTS.get(config.callee.rpartition(".")[2], ())
    unknown = [one.name for one in config.arguments if known and one.name not in known and not one.name.isdigit()]
    return {meant: name for name in unknown if (meant := meant_argument(name, known)) is not None}
