"""KB562: state dicts that are loaded under other names than they are saved with."""

from __future__ import annotations

import peft
import pytest
import tiny
import torch
from script_cases import ADAPTED, LOADED, findings

ADAPTER = "peft.get_peft_model_state_dict(model)"
OWN = "{k: v.cpu() for k, v in model.state_dict().items() if 'lora_' in k}"
COMPILED = "model = torch.compile(model)\n"
LOOSE = "fresh.load_state_dict(torch.load('a.pt'), strict=False)"
STRICT = "fresh.load_state_dict(torch.load('a.pt'))"
SET = "peft.set_peft_model_state_dict(fresh, torch.load('a.pt'))"
FRESH = "fresh = peft.get_peft_model(base(), lora())\n"
CASES = (
    ("", ADAPTER, LOOSE, True),
    ("", ADAPTER, STRICT, True),
    ("", OWN, SET, False),
    (COMPILED, OWN, SET, True),
    (COMPILED, OWN, LOOSE, True),
    ("", ADAPTER, SET, False),
    ("", OWN, LOOSE, False),
    (COMPILED, OWN, "fresh = torch.compile(fresh)\n" + LOOSE, False),
)


@pytest.mark.parametrize(("wrap", "saved", "load", "lost"), CASES)
def test_the_rule_says_what_the_load_does(wrap, saved, load, lost, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj"], "init_lora_weights": False}
    names = {"peft": peft, "torch": torch, "base": lambda: tiny.load("llama", kind="none")}
    names["lora"] = lambda: peft.LoraConfig(**config)
    body = f"model = peft.get_peft_model(base(), lora())\n{wrap}torch.save({saved}, 'a.pt')\n{FRESH}{load}\n"
    try:
        exec(compile(body, "script.py", "exec"), names)  # noqa: S102  # the text of this test
        weights = [
            {k.replace("_orig_mod.", ""): v for k, v in names[one].state_dict().items() if "lora_" in k}
            for one in ("model", "fresh")
        ]
        assert weights[0], "no adapters"
        differ = any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    except RuntimeError:
        differ = True

    assert differ == lost
    found = findings("KB562", "import peft, torch\n" + body)
    assert [line for _, line, _ in found] == ([load.split("\n")[-1]] if lost else [])


RESUMED = LOADED + ADAPTED + "if args.resume:\n    model.load_state_dict(torch.load(args.resume), strict=False)\n"
SAVE = "torch.save(get_peft_model_state_dict(model), 'a.pt')\n"


@pytest.mark.parametrize(
    ("body", "lost"),
    [
        (RESUMED + SAVE, True),
        (RESUMED + SAVE + "torch.save(model.state_dict(), 'b.pt')\n", False),
        (RESUMED + SAVE + "model.save_pretrained('out')\n", False),
        (RESUMED.replace("torch.load(args.resume)", "renamed(torch.load(args.resume))") + SAVE, False),
        (
            LOADED + ADAPTED + SAVE + "if fast:\n    model = torch.compile(model)\n" + STRICT.replace("a.pt", "b.pt") + "\n",
            False,
        ),
    ],
)
def test_a_file_of_the_command_line_is_that_of_an_earlier_run(body, lost):
    assert len(findings("KB562", body)) == lost
