"""What functions of a script return to their Trainer, against what a Trainer does with it."""

from __future__ import annotations

import pytest
import tiny
import torch
import transformers
from script_cases import ADAPTED, LOADED, PREPARED, findings
from tokenizers import Tokenizer, models

MADE = LOADED + PREPARED + ADAPTED + "from trl import GRPOTrainer\nfrom datasets import load_dataset\n"
DATA = "ds = load_dataset('org/data', split='train')\n"
EVALUATED = "args = TrainingArguments('out', eval_strategy='steps')\n"
TRAINED = "{}(model=model, args=args, train_dataset=ds, eval_dataset=ds{}).train()\n"
OWN = """\
class Own(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        return {}
"""


def own(result):
    return MADE + DATA + EVALUATED + OWN.format(result) + TRAINED.format("Own", "")


def given(name, *lines):
    return MADE + DATA + EVALUATED + "".join(f"{line}\n" for line in lines) + TRAINED.format("Trainer", f", {name}=f")


def mapped(line, more=", num_proc=4"):
    return MADE + f"def enc(row):\n    return {line}\n" + DATA + f"ds = ds.map(enc{more})\n" + TRAINED.format("Trainer", "")


CASES = [
    (own("outputs"), "returns the outputs of the model"),
    (own("outputs.loss"), "leaves return_outputs out"),
    (given("compute_metrics", "def f(p):", "    print(p)"), "f returns nothing"),
    (given("compute_metrics", "def f(p):", "    return (p.predictions == p.label_ids).mean()"), "f returns a number"),
    (given("data_collator", "def f(rows):", "    batch = {}"), "f returns nothing"),
    (mapped("model(row['x'].to('cuda'))"), "map computes on a GPU in 4 processes"),
]
RIGHT = [
    own("(outputs.loss, outputs) if return_outputs else outputs.loss"),
    given("compute_metrics", "def f(p):", "    return {'accuracy': (p.predictions == p.label_ids).mean()}"),
    given("data_collator", "def f(rows):", "    return {'input_ids': g(rows)}"),
    given("data_collator", "def f(rows):", "    raise NotImplementedError"),
    mapped("model(row['x'].to('cuda'))", ""),
    mapped("{'labels': model(row['x'])}"),
]


@pytest.mark.parametrize(("text", "said"), CASES)
def test_results_that_a_trainer_cannot_use(text, said):
    found = findings("KB561", text)

    assert [(severity, said in message) for severity, _, message in found] == [("error", True)]


def test_a_number_for_a_loss_is_a_loss_without_a_gradient():
    found = findings("KB718", own("outputs.loss.item()"))

    assert found == [("error", "return outputs.loss.item()", "the loss is a number of Python's, which .item() returns")]
    assert [message for _, _, message in findings("KB561", own("outputs.loss.item()")) if "number" in message] == []


@pytest.mark.parametrize("text", RIGHT)
def test_look_alikes(text):
    assert findings("KB561", text) == []


@pytest.mark.parametrize("loss", ["logits", "logits[:, :-1]"])
def test_an_own_loss_without_the_shift(loss):
    body = f"""\
class Own(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **more):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        logits = outputs.logits
        loss = torch.nn.functional.cross_entropy({loss}.view(-1, 9).float(), labels.view(-1))
        return (loss, outputs) if return_outputs else loss
"""
    found = findings("KB730", MADE + DATA + EVALUATED + body + TRAINED.format("Own", ""))

    assert [severity for severity, _, _ in found] == ([] if ":-1" in loss else ["warning"])


@pytest.mark.parametrize(
    ("collator", "found"), [("DataCollatorForLanguageModeling(tok, mlm=False)", 1), ("DataCollatorForSeq2Seq(tok)", 0)]
)
def test_labels_of_the_data_that_a_collator_overwrites(collator, found):
    body = (
        "from transformers import DataCollatorForLanguageModeling, DataCollatorForSeq2Seq\n"
        "def enc(row):\n    ids = tok(row['x']).input_ids\n    return {'input_ids': ids, 'labels': [-100] * 3 + ids[3:]}\n"
        "ds = ds.map(enc)\n"
    )
    text = MADE + DATA + EVALUATED + body + TRAINED.format("Trainer", f", data_collator={collator}")

    assert len(findings("KB730", text)) == found


def test_a_real_collator_overwrites_labels():
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")))
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    row = {"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}

    made = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)([row])

    assert made["labels"].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("result", ["outputs", "outputs.loss.item()", "outputs.loss"])
def test_a_real_trainer_raises_as_the_rule_says(tmp_path, result):
    class Own(transformers.Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # noqa: ARG002, FBT002  # as called
            outputs = model(**inputs)
            return {"outputs": outputs, "outputs.loss": outputs.loss}.get(result, outputs.loss.item())

    example = {"input_ids": torch.tensor([1, 2, 3]), "labels": torch.tensor([1, 2, 3])}
    args = transformers.TrainingArguments(
        str(tmp_path), use_cpu=True, max_steps=1, eval_strategy="steps", eval_steps=1, report_to=[]
    )
    model = tiny.load(kind="none")

    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        Own(model=model, args=args, train_dataset=[example], eval_dataset=[example]).train()
