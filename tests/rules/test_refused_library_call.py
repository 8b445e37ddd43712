from __future__ import annotations

import pytest
from script_cases import NEWEST, RECIPE, findings

CODE = "KB560"
LINE = "def compute_loss(self, model, inputs, return_outputs=False):"
OWN = f"""\
class Weighted(Trainer):
    {LINE}
        loss = model(**inputs).loss
        return (loss, None) if return_outputs else loss
"""
USED = RECIPE.replace("Trainer(model", "Weighted(model")


def test_an_override_of_before_the_argument():
    told = (
        "transformers 5.23.0 cannot call Weighted.compute_loss: it got an unexpected keyword argument 'num_items_in_batch', "
        "a TypeError at the first step"
    )
    assert findings(CODE, OWN + USED) == [("error", LINE, told)]


@pytest.mark.parametrize(("version", "count"), [("4.45.2", 0), ("4.46.3", 0), ("4.47.1", 0), ("4.48.0", 1), ("4.57.1", 1)])
def test_the_version_decides(version, count):
    assert len(findings(CODE, OWN + USED, versions={**NEWEST, "transformers": version})) == count


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(OWN.replace("False)", "False, **kwargs)") + USED, id="takes all"),
        pytest.param(OWN.replace("False)", "False, num_items_in_batch=None)") + USED, id="takes it"),
        pytest.param("from lightning import Trainer\n" + OWN, id="another library's class"),
        pytest.param(OWN.replace("    def", "    @wrapped\n    def") + USED, id="decorated"),
        pytest.param(
            "collate = make()\ndef collate(): ...\nTrainer(model, data_collator=collate)\n", id="a name of two values"
        ),
        pytest.param("def collate(rows, more): ...\nLoader(data_collator=collate)\n", id="no Trainer"),
    ],
)
def test_look_alikes(script):
    assert findings(CODE, script) == []


@pytest.mark.parametrize(
    ("script", "line"),
    [
        pytest.param(OWN.replace("(Trainer)", "(SFTTrainer)") + USED, LINE, id="a trainer of TRL"),
        pytest.param("class Base(Trainer): pass\n" + OWN.replace("(Trainer)", "(Base)") + USED, LINE, id="two steps below"),
        pytest.param("import transformers as hf\n" + OWN.replace("(Trainer)", "(hf.Trainer)") + USED, LINE, id="by its module"),
        pytest.param(
            "class Own(Trainer):\n    def log(self, logs):\n        super().log(logs)\n", "def log(self, logs):", id="log"
        ),
        pytest.param(
            "Trainer(model, data_collator=lambda rows, pad: rows).train()\n",
            "Trainer(model, data_collator=lambda rows, pad: rows).train()",
            id="a lambda",
        ),
    ],
)
def test_each_way_to_give_a_function(script, line):
    assert [(severity, where) for severity, where, _ in findings(CODE, script)] == [("error", line)]
