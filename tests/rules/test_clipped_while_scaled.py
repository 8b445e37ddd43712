from __future__ import annotations

import pytest
import torch
from script_cases import ADAPTED, LOADED, PREPARED, findings

CODE = "KB565"
BACKWARD, STEP = "scaler.scale(loss).backward()", "scaler.step(optimizer)"
CLIP = "torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)"


def loop(*lines, scaler="torch.amp.GradScaler('cuda')"):
    start = LOADED + PREPARED + ADAPTED + f"optimizer = torch.optim.SGD(model.parameters())\nscaler = {scaler}\n"
    return start + "for batch in loader:\n    loss = model(**batch).loss\n" + "".join(f"    {line}\n" for line in lines)


@pytest.mark.parametrize(
    "lines",
    [(BACKWARD, CLIP, STEP, "scaler.update()"), (BACKWARD, "if ready:", f"    {CLIP}", f"    {STEP}", "    scaler.update()")],
)
def test_a_clip_between_the_scaled_backward_pass_and_the_step(lines):
    message = "the gradients are clipped while scaler has multiplied them, by 65536 at first"
    assert findings(CODE, loop(*lines)) == [("warning", CLIP, message)]


@pytest.mark.parametrize(
    "text",
    [
        loop(BACKWARD, "scaler.unscale_(optimizer)", CLIP, STEP),
        loop(CLIP, BACKWARD, STEP),
        loop("loss.backward()", CLIP, "optimizer.step()"),
        loop(BACKWARD, CLIP, STEP, scaler="torch.amp.GradScaler('cuda', enabled=half)"),
        loop(BACKWARD, CLIP, STEP, scaler="torch.amp.GradScaler('cuda', init_scale=1.0)"),
        loop(BACKWARD, CLIP.replace("1.0", "1.0 * scaler.get_scale()"), STEP),
        loop("if half:", f"    {BACKWARD}", "else:", "    loss.backward()", CLIP, STEP),
        loop(BACKWARD, "if not half:", f"    {CLIP}", STEP),
    ],
)
def test_look_alikes(text):
    assert findings(CODE, text) == []


def test_a_real_step_is_as_short_as_the_message_says():
    moved = {}
    for unscaled in (True, False):
        weight = torch.nn.Parameter(torch.ones(4))
        optimizer, scaler = torch.optim.SGD([weight], lr=1.0), torch.amp.GradScaler("cpu")
        scaler.scale((weight * 3).sum()).backward()
        if unscaled:
            scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        scaler.step(optimizer)
        moved[unscaled] = (1 - weight.detach()).norm().item()

    assert moved[True] == pytest.approx(1, rel=1e-3)
    assert moved[False] == pytest.approx(0, abs=1e-4)
