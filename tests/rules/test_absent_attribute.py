from __future__ import annotations

import peft
import pytest
import tiny
import transformers
from script_cases import ADAPTED, LOADED, PREPARED, TRAINED, findings

CODE = "KB570"
MADE = LOADED + PREPARED + ADAPTED
TRAINER = "trainer = Trainer(model=model, args=TrainingArguments('out'), train_dataset=data)\nres = trainer.train()\n"
SPLITS = LOADED + "from datasets import load_dataset\nboth = load_dataset('x')\n"
STREAM = LOADED + "from datasets import load_dataset\nrows = load_dataset('x', split='train', streaming=True)\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (LOADED + "model.print_trainable_parameters()\n", "PreTrainedModel has no attribute print_trainable_parameters"),
        (MADE + "model.save_pretrained_merged('out')\n", "PeftModel has no attribute save_pretrained_merged"),
        (MADE + "model.enable_input_requires_grads()\n", "PeftModel has no attribute enable_input_requires_grads"),
        (MADE + TRAINER + "trainer.save_pretrained('out')\n", "Trainer has no attribute save_pretrained"),
        (MADE + TRAINER + "print(res.loss)\n", "TrainOutput has no attribute loss"),
        (
            MADE + TRAINER + "print(trainer.evaluate().eval_loss)\n",
            "dict, which Trainer.evaluate returns, has no attribute eval_loss",
        ),
        (MADE + TRAINER + "print(trainer.state.best_metrics)\n", "TrainerState has no attribute best_metrics"),
        (
            MADE + "model = DDP(model, device_ids=[0])\nmodel.save_pretrained('out')\n",
            "DistributedDataParallel has no attribute save_pretrained",
        ),
        (MADE + "def main(net):\n    net.fit(data)\nmain(model)\n", "PeftModel has no attribute fit"),
        (SPLITS + "both.train_test_split(0.1)\n", "DatasetDict has no attribute train_test_split"),
        (SPLITS + "both.select(range(8))\n", "DatasetDict has no attribute select"),
        (STREAM + "rows.sort('a')\n", "IterableDataset has no attribute sort"),
        (STREAM + "rows = rows.shuffle(seed=0)\nrows.select(range(8))\n", "IterableDataset has no attribute select"),
        (STREAM.replace("split='train', ", "") + "rows.take(8)\n", "IterableDatasetDict has no attribute take"),
        (STREAM.replace("split='train', ", "") + "rows['train'].select(range(8))\n", "IterableDataset has no attribute select"),
        (MADE + "def load():\n    return model\nload().save_model('out')\n", "PeftModel has no attribute save_model"),
    ],
)
def test_attributes_that_an_object_lacks(body, said):
    (found,) = findings(CODE, body)

    assert found[0] == "error"
    assert said in found[2]


@pytest.mark.parametrize(
    "body",
    [
        MADE + "model.print_trainable_parameters()\nmodel.base_model.model.lm_head.requires_grad_(True)\n",
        MADE + TRAINER + "print(res.metrics, res.training_loss, trainer.evaluate()['eval_loss'], trainer.state.log_history)\n",
        SPLITS + "if 'test' not in both:\n    both = both['train'].train_test_split(0.1)\nboth['train'].select(range(8))\n",
        STREAM + "rows.take(8).skip(2).shuffle(seed=0).map(f)\n",
        MADE + TRAINER + "trainer.own = 1\nprint(trainer.own)\n",
        MADE + "try:\n    model.save_pretrained_merged('out')\nexcept AttributeError:\n    pass\n",
        MADE + "if hasattr(model, 'save_pretrained_merged'):\n    model.save_pretrained_merged('out')\n",
        LOADED + "if bits:\n    model = wrap(model)\nmodel.fit(data)\n",
        LOADED + "for one in several:\n    model = one(model)\n    model.fit(data)\n",
        "model, tokenizer = load()\nmodel.fit(data)\n",
        "from unsloth import FastLanguageModel\n" + MADE + "model.save_pretrained_merged('out')\n",
        LOADED.replace('"org/base",', '"org/base", trust_remote_code=True,') + "model.fit(data)\n" + TRAINED,
    ],
)
def test_look_alikes(body):
    assert findings(CODE, body) == []


def test_the_libraries_raise_as_the_rule_says(tmp_path):
    model = tiny.load(kind="none")
    adapted = peft.get_peft_model(tiny.load(kind="none"), peft.LoraConfig(target_modules=["q_proj"]))
    trainer = transformers.Trainer(model=model, args=transformers.TrainingArguments(str(tmp_path), use_cpu=True))

    for owner, name in (
        (model, "print_trainable_parameters"),
        (adapted, "save_pretrained_merged"),
        (trainer, "save_pretrained"),
    ):
        with pytest.raises(AttributeError):
            getattr(owner, name)
