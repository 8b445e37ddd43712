"""The report on a merged checkpoint as text and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import TYPE_CHECKING

from kbitlint.facts.merged import MergeComparison, Verdict
from kbitlint.output.wording import plural, printable, some, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN = 4
_FAULTS = {
    Verdict.ABSENT: "do not hold the adapter: the merge was lost before the folder was saved",
    Verdict.TWICE: "hold the adapter twice",
    Verdict.OTHER: "are neither the base nor the base plus the adapter",
}


def findings_of(seen: MergeComparison) -> Iterator[str]:
    """Yield the faults of a merged checkpoint, one sentence each."""
    if seen.packed:
        yield "the merged weights are packed, or config.json says so: they were rounded after the merge"
    if seen.missing:
        yield f"{plural(len(seen.missing), 'tensor')} of the base missing: {some(seen.missing, _SHOWN)}"
    if seen.reshaped:
        yield f"{plural(len(seen.reshaped), 'tensor')} with another shape than in the base: {some(seen.reshaped, _SHOWN)}"
    for verdict, words in _FAULTS.items():
        names = [layer.name for layer in seen.of(verdict)]
        if names:
            yield f"{len(names)} of {plural(len(seen.layers), 'adapted weight')} {words}: {some(names, _SHOWN)}"
    gridded = [layer.name for layer in seen.layers if layer.on_grid]
    if gridded:
        yield (
            f"{plural(len(gridded), 'adapted weight')} with values of 4-bit packing: the merge was into packed weights, "
            f"and was rounded with them: {some(gridded, _SHOWN)}"
        )
    if seen.changed and not seen.of(Verdict.ROUNDED) and not gridded:
        yield f"{plural(len(seen.changed), 'weight')} without an adapter differ from the base: {some(seen.changed, _SHOWN)}"


def notes_of(seen: MergeComparison) -> Iterator[str]:
    """Yield the notes on a merged checkpoint that are no faults."""
    if seen.of(Verdict.ROUNDED):
        share = max(layer.residual for layer in seen.of(Verdict.ROUNDED))
        yield f"the base was unpacked from few bits before the merge: weights differ from it by up to {share:.0%}"
    if seen.of(Verdict.TOO_SMALL):
        yield f"in {plural(len(seen.of(Verdict.TOO_SMALL)), 'weight')} the adapter is smaller than the rounding of the dtype"
    if seen.of(Verdict.UNKNOWN):
        yield f"{plural(len(seen.of(Verdict.UNKNOWN)), 'adapted weight')} cannot be compared"


def render_text(name: str, seen: MergeComparison, columns: int) -> str:
    """Return the report as text.

    Args:
        name: The merged folder.
        seen: Its comparison.
        columns: Columns of a line.
    """
    counts = Counter(layer.verdict for layer in seen.layers)
    held = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items()) or "no adapted weight is in the base"
    lines = wrapped(f"{printable(name)}  {plural(len(seen.layers), 'adapted weight')}: {held}", columns, "")
    found = list(findings_of(seen))
    lines += [line for finding in found for line in wrapped(f"error: {finding}", columns, "  ")]
    lines += [line for note in notes_of(seen) for line in wrapped(f"note: {note}", columns, "  ")]
    last = (
        [] if found else ["the adapter is in the weights" if is_known(seen) else "whether the adapter is in them is not known"]
    )
    return "\n".join([*lines, *last])


def render_json(name: str, seen: MergeComparison) -> str:
    """Return the report as a JSON document."""
    layers = [dataclasses.asdict(layer) | {"verdict": layer.verdict.value} for layer in seen.layers]
    document = {"merged": name, "findings": list(findings_of(seen)), "notes": list(notes_of(seen)), "layers": layers}
    return json.dumps(document | {"missing": seen.missing, "reshaped": seen.reshaped, "changed": seen.changed}, indent=2)


def is_known(seen: MergeComparison) -> bool:
    """Return whether there is a finding, or any adapted weight could be compared."""
    untold = len(seen.of(Verdict.UNKNOWN)) + len(seen.of(Verdict.TOO_SMALL))
    return untold < len(seen.layers) or any(True for _ in findings_of(seen))
