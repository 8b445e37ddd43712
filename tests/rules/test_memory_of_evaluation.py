from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, LOOP, PREPARED, findings

CODE = "KB731"
QWEN = LOADED.replace("org/base", "Qwen/Qwen2.5-7B") + PREPARED + ADAPTED
TRAINER = """\
args = TrainingArguments("out", eval_strategy="steps")
Trainer(model=model, args=args, train_dataset=data, eval_dataset=held, compute_metrics=metrics).train()
"""
EVALUATION = """\
def evaluate():
    model.eval()
    total = 0
    for batch in held:
        outputs = model(**batch)
        total += outputs.loss
    model.train()
    return total
"""


def test_a_trainer_that_keeps_all_logits():
    assert findings(CODE, QWEN + TRAINER) == [
        (
            "warning",
            TRAINER.split("\n")[1],
            "the evaluation keeps all logits for compute_metrics: 152,064 numbers for each token",
        )
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("compute_metrics=metrics", "compute_metrics=metrics, preprocess_logits_for_metrics=first"),
        (', eval_strategy="steps"', ""),
        ('"steps"', '"steps", batch_eval_metrics=True'),
        ("compute_metrics=metrics", "compute_metrics=None"),
        ("AutoModelForCausalLM.from", "AutoModelForSequenceClassification.from"),
        ("Qwen/Qwen2.5-7B", "org/base"),
        ("Trainer(model", "class Own(Trainer):\n    pass\nOwn(model"),
    ],
)
def test_trainers_that_keep_less(old, new):
    text = QWEN + TRAINER
    assert old in text
    assert findings(CODE, text.replace(old, new)) == []


@pytest.mark.parametrize(
    "kept",
    ["total += outputs.loss", "total = total + outputs.loss.float()", "total.append(outputs.loss)", "total += outputs[0]"],
)
def test_an_evaluation_that_keeps_each_graph(kept):
    text = QWEN + EVALUATION.replace("total += outputs.loss", kept) + LOOP
    assert findings(CODE, text) == [
        ("warning", kept, "total keeps the graph of every loss: the evaluation runs with gradients")
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def eval", "@torch.no_grad()\ndef eval"),
        ("    for batch in held:", "    for batch in held if torch.set_grad_enabled(False) is None else ():"),
        ("+= outputs.loss", "+= outputs.loss.item()"),
        ("+= outputs.loss", "+= outputs.loss.detach()"),
        ("+= outputs.loss", "+= float(outputs.loss)"),
        ("outputs = model(", "outputs = reference("),
        ("    model.eval()\n", ""),
        ("total += outputs.loss", "with torch.no_grad():\n            total += model(**batch).loss"),
        ("    return total\n", "    return total\nwith torch.no_grad():\n    evaluate()\n"),
        ("total += outputs.loss", "total += outputs.loss\n        break"),
    ],
)
def test_evaluations_that_keep_nothing(old, new):
    assert old in EVALUATION
    assert findings(CODE, QWEN + EVALUATION.replace(old, new) + LOOP) == []
