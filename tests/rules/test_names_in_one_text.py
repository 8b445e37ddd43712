from __future__ import annotations

import peft
import pytest
import tiny
from script_cases import LOADED, PREPARED, TRAINED, findings, fixed_text

CODE = "KB568"
ATTACH = "model = get_peft_model(model, LoraConfig(r=8, target_modules={}))\n"
TOLD = "target_modules is one text, a pattern for whole paths of modules, and {} matches none: PEFT raises"


def script(targets, before=""):
    return LOADED + PREPARED + before + ATTACH.format(targets) + TRAINED


@pytest.mark.parametrize("text", ["q_proj,v_proj", "q_proj, v_proj", "q_proj v_proj", "q_proj;v_proj", "q_proj", "c_attn"])
def test_names_that_are_no_list_are_refused_by_peft_too(text):
    line = ATTACH.format(repr(text)).strip()
    assert findings(CODE, script(repr(text))) == [("error", line, TOLD.format(repr(text)))]
    with pytest.raises(ValueError, match="not found in the base model"):
        peft.get_peft_model(tiny.load(), peft.LoraConfig(target_modules=text))


@pytest.mark.parametrize(
    "targets", ["'all-linear'", "r'.*\\.q_proj'", "'.*(q|v)_proj'", "['q_proj']", "'lm_head'", "NAMES", "None"]
)
def test_look_alikes(targets):
    assert findings(CODE, script(targets)) == []


def test_a_text_that_an_option_gives():
    parser = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--targets', default='q_proj,v_proj')\n"
    options = "args = parser.parse_args()\n"
    assert [severity for severity, *_ in findings(CODE, script("args.targets", parser + options))] == ["error"]
    assert findings(CODE, script("args.targets.split(',')", parser + options)) == []


def test_a_text_in_the_call_becomes_a_list(tmp_path):
    assert fixed_text(CODE, script("'q_proj, v_proj'"), tmp_path).endswith(script('["q_proj", "v_proj"]'))
