from __future__ import annotations

import datasets
import peft
import pytest
import tiny
import torch
from script_cases import ADAPTED, LOADED, PREPARED, findings

CODE = "KB572"
DATA = "from datasets import load_dataset\nds = load_dataset('org/data', split='train')\n"
ACCELERATED = "from accelerate import Accelerator\nacc = Accelerator()\nopt = torch.optim.AdamW(model.parameters())\n"
MADE = LOADED + PREPARED + ADAPTED
TRAINER = "trainer = Trainer(model=model, args=TrainingArguments('out'), train_dataset=data)\n"


@pytest.mark.parametrize(
    ("body", "severity", "said"),
    [
        (
            LOADED + "model = model.gradient_checkpointing_enable()\n" + PREPARED,
            "error",
            "enable returns None, and model needs",
        ),
        (MADE + "model = model.print_trainable_parameters()\nmodel.train()\n", "error", "returns None, and model.train needs"),
        (DATA + "ds = ds.set_format('torch')\nprint(ds.column_names)\n" + LOADED, "error", "Dataset.set_format returns None"),
        (DATA + "ds.map(f)\n" + LOADED, "warning", "map returns a new object and changes nothing"),
        (DATA + "ds = ds.train_test_split(0.1)\nds['validation']\n" + LOADED, "error", "has no 'validation': a KeyError"),
        (MADE + TRAINER + "print(trainer.evaluate()['loss'])\n", "error", "Trainer.evaluate has no 'loss': a KeyError"),
        (
            MADE + ACCELERATED + "opt, model = acc.prepare(model, opt)\n",
            "error",
            "in the same order, and the names are opt, model",
        ),
        (
            MADE + ACCELERATED + "acc.prepare(model, opt)\n",
            "warning",
            "are thrown away, and the loop uses those that it was given",
        ),
        (MADE + "model.disable_adapter()\n", "error", "returns a context manager"),
        (LOADED + "model, tok = AutoModelForCausalLM.from_pretrained('a')\n", "error", "takes it apart into (model, tok)"),
    ],
)
def test_results_that_are_something_else(body, severity, said):
    (found,) = findings(CODE, body)

    assert found[0] == severity
    assert said in found[2]


@pytest.mark.parametrize(
    "body",
    [
        LOADED + "model.gradient_checkpointing_enable()\nmodel = model.train()\nmodel = model.to('cuda')\n" + PREPARED,
        DATA + "ds = ds.map(f)\nds.set_format('torch')\nds = ds.train_test_split(0.1)\nds['test']\n" + LOADED,
        MADE + ACCELERATED + "model, opt = acc.prepare(model, opt)\nloader = acc.prepare(loader)\n",
        MADE + "with model.disable_adapter():\n    ref = model(**batch)\n",
        MADE + TRAINER + "print(trainer.evaluate(metric_key_prefix='test')['test_loss'])\n",
        "model, info = AutoModelForCausalLM.from_pretrained('a', output_loading_info=True)\n" + LOADED,
        LOADED + "none = model.gradient_checkpointing_enable()\nprint(none)\n",
    ],
)
def test_look_alikes(body):
    assert findings(CODE, body) == []


def test_what_the_libraries_return():
    model = peft.get_peft_model(tiny.load(kind="none"), peft.LoraConfig(target_modules=["q_proj"]))
    data = datasets.Dataset.from_list([{"a": 1}, {"a": 2}])

    assert model.print_trainable_parameters() is None
    assert model.get_base_model().gradient_checkpointing_enable() is None
    assert isinstance(model.resize_token_embeddings(64), torch.nn.Embedding)
    assert data.set_format("torch") is None
    assert sorted(data.train_test_split(0.5)) == ["test", "train"]
