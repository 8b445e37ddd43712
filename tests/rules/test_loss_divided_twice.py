from __future__ import annotations

import pytest
from accumulating_loops import ACCELERATED, HAND, IMPORTS
from script_cases import findings

CODE = "KB588"
FAULTS = {
    "divided twice": (ACCELERATED.replace("batch).loss", "batch).loss / accumulation"), [("KB588", "warning")]),
    "divided twice in the call": (ACCELERATED.replace("backward(loss)", "backward(loss / 8)"), [("KB588", "warning")]),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_loop_at_another_pace(fault):
    text, expected = fault

    assert [(CODE, severity) for severity, *_ in findings(CODE, text, imports=IMPORTS)] == expected


@pytest.mark.parametrize("text", [ACCELERATED, HAND, ACCELERATED.replace("batch).loss", "batch).loss / 3")])
def test_look_alikes(text):
    assert findings(CODE, text, imports=IMPORTS) == []
