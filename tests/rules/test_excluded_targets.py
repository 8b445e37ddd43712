"""KB658: adapter configs that exclude all of their targets, and PEFT's refusal."""

from __future__ import annotations

import peft
import pytest
import tiny
from script_cases import LOADED, PREPARED, findings

ATTACHED = "model = get_peft_model(model, LoraConfig(r=4, target_modules={}, exclude_modules={}))\n"


@pytest.mark.parametrize(
    ("targets", "excluded", "flagged"),
    [
        ("'all-linear'", "r'.*'", True),
        ("['q_proj', 'v_proj']", "['v_proj', 'q_proj', 'k_proj']", True),
        ("['q_proj', 'v_proj']", "['q_proj']", False),
        ("'all-linear'", "['lm_head']", False),
        ("['q_proj']", "r'.*vision.*'", False),
        ("['q_proj']", "names", False),
    ],
)
def test_a_config_that_excludes_its_targets(targets, excluded, flagged):
    body = LOADED + PREPARED + ATTACHED.format(targets, excluded)
    line = body.splitlines()[-1]

    assert [(severity, at) for severity, at, _ in findings("KB658", body)] == [("error", line)] * flagged


@pytest.mark.parametrize("excluded", [r".*", ["q_proj"]])
def test_peft_refuses_it(excluded):
    config = peft.LoraConfig(target_modules=["q_proj"], exclude_modules=excluded)

    with pytest.raises(ValueError, match=r"All modules were excluded|No modules were targeted"):
        peft.get_peft_model(tiny.load("llama", kind="none"), config)
