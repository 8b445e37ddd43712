from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, findings

CODE = "KB575"
CLIP = "torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3)"


def loop(*lines):
    start = LOADED + PREPARED + ADAPTED + "optimizer = torch.optim.AdamW(model.parameters())\n"
    return start + "for batch in loader:\n    loss = model(**batch).loss\n" + "".join(f"    {line}\n" for line in lines)


BACKWARD, STEP, CLEAR = "loss.backward()", "optimizer.step()", "optimizer.zero_grad()"


@pytest.mark.parametrize(
    "lines",
    [
        (BACKWARD, STEP, CLIP, CLEAR),
        (BACKWARD, "if ready:", f"    {STEP}", f"    {CLIP}", "    schedule.step()", f"    {CLEAR}"),
    ],
)
def test_a_clip_behind_the_step(lines):
    message = "the gradients are clipped after the step that has used them, and cleared next: the clip does nothing"
    assert findings(CODE, loop(*lines)) == [("warning", CLIP, message)]


@pytest.mark.parametrize(
    "lines",
    [
        (BACKWARD, CLIP, STEP, CLEAR),
        (CLEAR, BACKWARD, CLIP, STEP),
        (BACKWARD, "schedule.step()", CLIP, STEP, CLEAR),
        (BACKWARD, STEP, CLEAR, "other.backward()", CLIP, STEP, CLEAR),
    ],
)
def test_look_alikes(lines):
    assert findings(CODE, loop(*lines)) == []
