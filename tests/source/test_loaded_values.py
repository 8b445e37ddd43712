"""Numbers that YAML 1.1 reads as text, in what a script loads."""

from __future__ import annotations

import pytest
import yaml
from script_cases import ADAPTED, LOADED, PREPARED
from script_cases import beside as found_beside

TRAINS = "args = TrainingArguments('out', bf16=True, **config['train'])\nTrainer(model=model, args=args).train()\n"
TEXT = "train:\n  learning_rate: {}\n  logging_steps: 10\n"
REFUSED = "TrainingArguments raises a TypeError when it trains: '<=' not supported between instances of 'float' and 'str'"


@pytest.mark.parametrize(("number", "found"), [("2e-4", [REFUSED]), ("2.0e-4", []), ("0.0002", [])])
@pytest.mark.parametrize("in_file", [False, True])
def test_a_rate_without_a_dot_is_a_text(number, found, in_file, tmp_path):
    text = TEXT.format(number)
    (tmp_path / "c.yaml").write_text(text)
    load = (
        "with open('c.yaml') as file:\n    config = yaml.safe_load(file)\n"
        if in_file
        else f"config = yaml.safe_load({text!r})\n"
    )

    said = found_beside("KB535", "import yaml\n" + LOADED + PREPARED + ADAPTED + load + TRAINS, tmp_path, {})

    assert isinstance(yaml.safe_load(text)["train"]["learning_rate"], str) is bool(found)
    assert said == [("error", TRAINS.partition("\n")[0], message) for message in found]
