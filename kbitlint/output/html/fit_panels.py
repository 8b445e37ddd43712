"""Data of the page of ``kbitlint fit``: the verdict, the step over time, the changes, and batch x length as a map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.output.fit import assumptions, card_words, largest_words, setup_words, sum_words, tensors_of, verdict_words
from kbitlint.output.html.step_chart import map_of, step_chart
from kbitlint.output.memory import phase_words
from kbitlint.output.timeline import KINDS
from kbitlint.sizes import size

if TYPE_CHECKING:
    from kbitlint.fit_result import FitResult


def fit_data(report: FitResult) -> dict[str, Any]:
    """Return what the page shows of an answer, as text and as shapes."""
    verdict = verdict_words(report)
    return {
        "report": report,
        "verdict": verdict[0].upper() + verdict[1:],
        "cards": card_words(report),
        "asked": ", ".join(setup_words(report.asked)),
        "sum": sum_words(report.memory),
        "answer": "" if report.answer_memory is None else sum_words(report.answer_memory),
        "chart": None if report.step is None else step_chart(report.step, tensors_of(report)),
        "kinds": KINDS,
        "changes": [(change, size(-change.saves)) for change in report.changes],
        "phases": [
            (
                phase.label,
                phase_words(phase),
                size(on_card) if on_card else "–",
                size(phase.host) if phase.host else "–",
                "does not fit" if on_card > report.total else "fits" if on_card else "–",
            )
            for phase, on_card in report.phases
        ],
        "map": map_of(report),
        "largest": largest_words(report),
        "assumptions": assumptions(report),
    }
