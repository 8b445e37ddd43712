from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, findings

CODE = "KB719"
START = LOADED + PREPARED + ADAPTED


@pytest.mark.parametrize(
    "line",
    [
        "optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)",
        "optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0)",
        "args = TrainingArguments('out', learning_rate=0.0)",
    ],
)
def test_a_rate_of_zero_changes_nothing(line):
    assert findings(CODE, START + f"{line}\n") == [("error", line, "the learning rate is 0: no step changes a parameter")]


@pytest.mark.parametrize(
    "line",
    [
        "optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)",
        "optimizer = torch.optim.AdamW(model.parameters(), lr=rate)",
        "optimizer = torch.optim.AdamW(model.parameters())",
        "optimizer = torch.optim.AdamW([{'params': model.parameters(), 'lr': 1e-4}], lr=1e-3)",
        "args = TrainingArguments('out', weight_decay=0.0)",
        "args = TrainingArguments('out', learning_rate=2e-4)",
    ],
)
def test_look_alikes(line):
    assert findings(CODE, START + f"{line}\n") == []
