from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, PREPARED, TRAINED, findings

CODE = "KB718"
START = LOADED + PREPARED + ADAPTED + "optimizer = torch.optim.AdamW(model.parameters())\n"
END = "    loss.backward()\n    optimizer.step()\n    optimizer.zero_grad()\n"


def loop(body, start=START):
    return start + "for batch in loader:\n" + "".join(f"    {line}\n" for line in body.split("\n")) + END


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("loss = model(**batch).loss.item()", "the loss is a number of Python's, which .item() returns"),
        ("loss = model(**batch).loss.detach()", "the loss is detached from the model"),
        ("with torch.no_grad():\n    loss = model(**batch).loss", "the loss is computed where gradients are off"),
        ("with torch.inference_mode():\n    loss = model(**batch).loss", "the loss is computed where gradients are off"),
        (
            "loss = model(input_ids=ids, attention_mask=mask).loss",
            "the loss is None, because the model is called without labels",
        ),
    ],
)
def test_a_loss_that_has_no_gradient(body, message):
    assert findings(CODE, loop(body)) == [("error", "loss.backward()", message)]


@pytest.mark.parametrize(
    "body",
    [
        "loss = model(**batch).loss",
        "loss = model(input_ids=ids, labels=ids).loss",
        "loss = model(input_ids=ids, **rest).loss",
        "loss = model(ids, mask, ids).loss",
        "loss = compute(input_ids=ids).loss",
        "loss = model(**batch).loss\ntotal = loss.item()",
        "loss = model(**batch).loss\nwith torch.no_grad():\n    norm = measure(model)",
        "old = model(**batch).loss.detach()\nloss = model(**batch).loss - old",
        "with torch.no_grad():\n    target = teacher(**batch).logits\nloss = distil(model(**batch).logits, target)",
        "with torch.enable_grad():\n    loss = model(**batch).loss",
    ],
)
def test_look_alikes(body):
    assert findings(CODE, loop(body)) == []


def trainer(*lines):
    method = "    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):\n"
    own = "class Own(Trainer):\n" + method + "".join(f"        {line}\n" for line in lines)
    return LOADED + PREPARED + ADAPTED + own + TRAINED.replace("Trainer(", "Own(")


BOTH = "return (loss, outputs) if return_outputs else loss"
CROSS_ENTROPY = 'loss = torch.nn.functional.cross_entropy({}.float().flatten(0, -2), inputs["labels"].flatten())'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("outputs = model(**inputs)", "loss = outputs.loss.detach()", BOTH), "the loss is detached from the model"),
        (
            ("outputs = model(**inputs)", CROSS_ENTROPY.format("outputs.logits.detach()"), BOTH),
            "the loss is detached from the model",
        ),
        (
            ("outputs = model(**inputs)", "return torch.tensor(outputs.loss.item())"),
            "the loss is detached from the model",
        ),
        (
            ("with torch.no_grad():", "    outputs = model(**inputs)", "loss = outputs.loss * 2", BOTH),
            "the loss is computed where gradients are off",
        ),
    ],
)
def test_a_loss_of_an_own_trainer_that_has_no_gradient(lines, message):
    assert findings(CODE, trainer(*lines)) == [("error", lines[-1], message)]


@pytest.mark.parametrize(
    "lines",
    [
        ("outputs = model(**inputs)", CROSS_ENTROPY.format("outputs.logits"), BOTH),
        (
            "with torch.no_grad():",
            "    old = model(**inputs)",
            "outputs = model(**inputs)",
            "loss = outputs.loss - old.loss",
            BOTH,
        ),
        ("loss = self.measure(model, inputs).detach()", "loss = loss + model(**inputs).loss", "return loss"),
        ("loss = torch.zeros(())", "for part in split(inputs):", "    loss = loss + model(**part).loss", "return loss"),
        ("loss = model(**inputs).loss", "self.seen.append(loss.item())", "return loss"),
        ("loss, outputs = super().compute_loss(model, inputs, return_outputs=True)", "return loss"),
        ("value = self.head(inputs['features'])", "return value.mean()"),
    ],
)
def test_look_alikes_of_an_own_trainer(lines):
    assert findings(CODE, trainer(*lines)) == []


def test_a_model_of_the_users_own_class_may_compute_a_loss_without_labels():
    assert findings(CODE, loop("loss = model(input_ids=ids).loss", "model = Mine()\n")) == []


STEP = "    loss.backward()\n    optimizer.step()\n"
OFF = "the loss is computed where gradients are off"
WRAPPED = "the loss comes from a forward that a script wraps in no_grad"
USED = "the loss has gone backward before, which frees its graph"
ENABLED = """\
@torch.no_grad()
def step(batch):
    with torch.enable_grad():
        loss = model(**batch).loss
    loss.backward()
for batch in loader:
    step(batch)
"""
PLAIN = "for batch in loader:\n    loss = model(**batch).loss\n"


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        ("torch.set_grad_enabled(False)\n" + PLAIN + STEP, "loss.backward()", OFF),
        (
            "@torch.no_grad()\ndef loss_of(batch):\n    return model(**batch).loss\n"
            "for batch in loader:\n    loss = loss_of(batch)\n" + STEP,
            "loss.backward()",
            OFF,
        ),
        ("model.forward = torch.no_grad()(model.forward)\n" + PLAIN + STEP, "loss.backward()", WRAPPED),
        (
            "inner = model.forward\n@torch.inference_mode()\ndef forward(**batch):\n    return inner(**batch)\n"
            "model.forward = forward\n" + PLAIN + STEP,
            "loss.backward()",
            WRAPPED,
        ),
        (PLAIN + "    loss.backward()\n    (loss * 2).backward()\n", "(loss * 2).backward()", USED),
        (PLAIN + "    accelerator.backward(loss)\n    accelerator.backward(loss)\n", "accelerator.backward(loss)", USED),
    ],
)
def test_a_loss_without_a_graph_is_followed_through_the_file(body, line, message):
    start = START + "from accelerate import Accelerator\naccelerator = Accelerator()\n"

    assert findings(CODE, start + body) == [("error", line, message)]


@pytest.mark.parametrize(
    "body",
    [
        "torch.set_grad_enabled(False)\nevaluate(model)\ntorch.set_grad_enabled(True)\n" + PLAIN + STEP,
        "with torch.set_grad_enabled(False):\n    model(**first)\n" + PLAIN + STEP,
        ENABLED,
        "for batch in loader:\n    with torch.no_grad():\n        old = model(**batch).loss\n"
        "    loss = old - head(batch)\n" + STEP,
        PLAIN + "    loss.backward(retain_graph=True)\n    loss.backward()\n",
        PLAIN + "    loss.backward()\n    loss = model(**batch).loss\n    loss.backward()\n",
        PLAIN + "    if half:\n        scaler.scale(loss).backward()\n    else:\n        loss.backward()\n",
        "model.forward = patched(model.forward)\n" + PLAIN + STEP,
    ],
)
def test_a_loss_with_a_graph_is_followed_through_the_file(body):
    assert findings(CODE, START + body) == []


@pytest.mark.parametrize(("config", "flagged"), [("LoraConfig(r=8)", True), ("AdaLoraConfig(total_step=9)", False)])
def test_a_trainer_calls_the_forward_of_the_model(config, flagged):
    wrap = "model.forward = torch.no_grad()(model.forward)\n"
    attach = f"from peft import AdaLoraConfig\nmodel = get_peft_model(model, {config})\n"
    line = wrap.strip()

    assert findings(CODE, LOADED + PREPARED + wrap + attach + TRAINED) == [("error", line, WRAPPED)] * flagged
