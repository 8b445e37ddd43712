from __future__ import annotations

import datasets
import pytest
from script_cases import ADAPTED, LOADED, PREPARED, findings

CODE = "KB571"
DATA = "from datasets import load_dataset\nds = load_dataset('org/data', split='train')\n"
STREAM = DATA.replace("split=", "streaming=True, split=")
TOKENIZER = "tok = AutoTokenizer.from_pretrained('org/base')\n"
TRAINER = "trainer = Trainer(model=model, args=TrainingArguments('out'), train_dataset=data)\n"
MADE = LOADED + PREPARED + ADAPTED


@pytest.mark.parametrize(
    ("body", "severity", "said"),
    [
        (MADE + TRAINER + "trainer.train(resume=True)\n", "error", "Trainer.train takes no resume: a TypeError"),
        (DATA + "ds.train_test_split(test_ratio=0.1)\n" + LOADED, "error", "train_test_split takes no test_ratio: a TypeError"),
        (DATA + "ds = ds.map(f, batch=True)\n" + LOADED, "error", "map takes no batch: a TypeError"),
        (STREAM + "ds = ds.map(f, num_proc=2)\n" + LOADED, "error", "IterableDataset.map takes no num_proc: a TypeError"),
        (STREAM + "ds = ds.filter(f, keep_in_memory=True)\n" + LOADED, "error", "filter takes no keep_in_memory: a TypeError"),
        (MADE + "model.save_pretrained()\n", "error", "save_pretrained needs save_directory: a TypeError"),
        (MADE + "model.generate(ids, max_new_token=9)\n", "error", "generate takes no max_new_token: a ValueError"),
        (LOADED + TOKENIZER + "tok(text, max_len=512)\n", "warning", "the tokenizer drops max_len"),
    ],
)
def test_arguments_that_a_call_does_not_take(body, severity, said):
    (found,) = findings(CODE, body)

    assert found[0] == severity
    assert said in found[2]


@pytest.mark.parametrize(
    "body",
    [
        MADE + TRAINER + "trainer.train(resume_from_checkpoint=True)\ntrainer.train(**given)\n",
        DATA + "ds = ds.train_test_split(test_size=0.1, seed=1)\nds = ds.map(f, batched=True, num_proc=4)\n" + LOADED,
        MADE + "model.save_pretrained(*places)\nmodel.generate(ids, max_new_tokens=9, input_ids=ids, num_logits_to_keep=1)\n",
        LOADED + TOKENIZER + "tok(text, max_length=512, truncation=True, boxes=boxes)\n",
        MADE + "try:\n    model.save_pretrained()\nexcept TypeError:\n    pass\n",
    ],
)
def test_look_alikes(body):
    assert findings(CODE, body) == []


def test_a_real_data_set_refuses_the_arguments():
    data = datasets.Dataset.from_list([{"a": 1}, {"a": 2}])

    for refused in (lambda: data.train_test_split(test_ratio=0.5), lambda: data.map(dict, batch=True)):
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            refused()
