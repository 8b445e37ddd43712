from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, findings

LOOPED = """
for param in model.parameters():
    param.requires_grad = False
    if param.ndim == 1:
        param.data = param.data.to(torch.float32)
"""


def test_the_loop_of_2023_is_recognised():
    assert findings("KB628", LOADED + LOOPED) == [
        ("info", "param.data = param.data.to(torch.float32)", "parameters of a quantized model are cast one by one")
    ]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED + "for p in model.parameters():\n    p.requires_grad = False\n", id="frozen only"),
        pytest.param(LOOPED, id="unknown model"),
        pytest.param(LOADED + PREPARED + LOOPED, id="after the preparation"),
        pytest.param(LOADED + ADAPTED + LOOPED, id="adapters"),
    ],
)
def test_look_alikes(script):
    assert findings("KB628", script) == []
