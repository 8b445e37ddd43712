from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, TRAINED, findings

CODE = "KB717"
START = LOADED + PREPARED + ADAPTED + "optimizer = torch.optim.AdamW(model.parameters())\n"


def loop(*lines):
    return START + "for batch in loader:\n    loss = model(**batch).loss\n" + "".join(f"    {line}\n" for line in lines)


BACKWARD, STEP, CLEAR = "loss.backward()", "optimizer.step()", "optimizer.zero_grad()"


@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        ((BACKWARD, CLEAR, STEP), CLEAR, "the gradients are cleared before the optimizer uses them"),
        ((STEP, BACKWARD, CLEAR), CLEAR, "the gradients are cleared before the optimizer uses them"),
        (
            (BACKWARD, "model.zero_grad()", STEP),
            "model.zero_grad()",
            "the gradients are cleared before the optimizer uses them",
        ),
        ((BACKWARD, CLEAR), BACKWARD, "the gradients are cleared, and no optimizer ever takes a step"),
        ((STEP, CLEAR), STEP, "the optimizer takes steps, and no backward pass computes gradients"),
    ],
)
def test_a_loop_that_changes_nothing(lines, line, message):
    assert findings(CODE, loop(*lines)) == [("error", line, message)]


@pytest.mark.parametrize(
    "lines",
    [
        (BACKWARD, STEP, CLEAR),
        (CLEAR, BACKWARD, STEP),
        (BACKWARD, STEP, "scheduler.step()", CLEAR),
        (BACKWARD, "if ready:", f"    {CLEAR}", STEP),
        (BACKWARD, "if ready:", f"    {STEP}", f"    {CLEAR}"),
        (CLEAR, "scaler.scale(loss).backward()", "scaler.step(optimizer)", "scaler.update()"),
        (CLEAR, "engine.backward(loss)", "engine.step()"),
        (CLEAR, "accelerator.backward(loss)", STEP),
        ("with torch.autocast('cuda'):", "    loss = model(**batch).loss", BACKWARD, STEP, CLEAR),
        (STEP, CLEAR, "train_one(model)  # calls backward"),
        (BACKWARD, "for p in model.parameters():", "    p.data.sub_(0.1 * p.grad)", CLEAR),
        ("grads = torch.autograd.grad(loss, trained)", "set_grads(trained, grads)", STEP, CLEAR),
    ],
)
def test_look_alikes(lines):
    assert findings(CODE, loop(*lines)) == []


def test_a_trainer_has_no_loop_of_the_script():
    assert findings(CODE, LOADED + PREPARED + ADAPTED + TRAINED) == []


STEPS = LOADED + PREPARED + ADAPTED + "class Own(Trainer):\n    def training_step(self, model, inputs, *rest):\n"
OWN = "Own(model=model, args=TrainingArguments('out'), train_dataset=data).train()\n"


def test_a_step_of_an_own_trainer_without_a_backward_pass():
    text = STEPS + "        model.train()\n        return self.compute_loss(model, inputs).detach()\n" + OWN

    assert findings(CODE, text) == [
        (
            "error",
            "def training_step(self, model, inputs, *rest):",
            "the optimizer takes steps, and no backward pass computes gradients",
        )
    ]


@pytest.mark.parametrize(
    "lines",
    [
        "return super().training_step(model, inputs, *rest)",
        "loss = self.compute_loss(model, inputs)\n        self.accelerator.backward(loss)\n        return loss.detach()",
        "return self.halves(model, inputs)",
    ],
)
def test_a_step_of_an_own_trainer_that_goes_backward(lines):
    assert findings(CODE, STEPS + f"        {lines}\n" + OWN) == []


MODULE = "import lightning as L\nclass Lit(L.LightningModule):\n    def training_step(self, batch, index):\n        {}\n"


@pytest.mark.parametrize(
    ("lines", "flagged"),
    [
        ("loss = self.model(**batch).loss\n        self.log('loss', loss)", True),
        ("loss = self.model(**batch).loss\n        self.log('loss', loss)\n        return loss", False),
        ("loss = self.model(**batch).loss\n        self.manual_backward(loss)", False),
    ],
)
def test_a_step_of_lightning_that_returns_no_loss(lines, flagged):
    message = "the optimizer takes steps, and no backward pass computes gradients"

    found = findings(CODE, LOADED + PREPARED + ADAPTED + MODULE.format(lines))

    assert found == [("error", "def training_step(self, batch, index):", message)] * flagged
