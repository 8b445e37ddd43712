"""KB552: a comma behind a value makes a tuple of it."""

from __future__ import annotations

import peft
import pytest
import tiny
import transformers
from script_cases import ADAPTED, LOADED, PREPARED, RECIPE, TRAINED, findings, fixed_text

COMMA = """\
bnb = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_compute_dtype=torch.bfloat16,
),  # nf4
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=bnb)
"""
NUMBER = "rank = 16,\nmodel = get_peft_model(model, LoraConfig(r=rank))\n"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (COMMA + PREPARED + ADAPTED + TRAINED, "),  # nf4"),
        (LOADED + PREPARED + ADAPTED.replace("\n", ",\n") + TRAINED, ADAPTED.replace("\n", ",")),
        (LOADED + "lora = LoraConfig(r=8),\nmodel = get_peft_model(model, lora)\n" + TRAINED, "lora = LoraConfig(r=8),"),
        (
            LOADED + "args = TrainingArguments('out'),\nTrainer(model=model, args=args).train()\n",
            "args = TrainingArguments('out'),",
        ),
        (LOADED + NUMBER + TRAINED, "rank = 16,"),
        (LOADED + "lora = [LoraConfig(r=8)]\nmodel = get_peft_model(model, lora)\n", "model = get_peft_model(model, lora)"),
    ],
)
def test_the_comma_is_the_place(body, line):
    assert [(severity, where) for severity, where, _ in findings("KB552", body)] == [("error", line)]


@pytest.mark.parametrize(
    "body",
    [
        RECIPE,
        COMMA.replace("),  # nf4", ")"),
        COMMA.replace("quantization_config=bnb", "quantization_config=bnb[0]"),
        LOADED + "model = get_peft_model(model, LoraConfig(r=8, target_modules=('q_proj',)))\n",
        LOADED + "Trainer(model=model, args=args, callbacks=[Log()], optimizers=(one, None)).train()\n",
        "pairs = LoraConfig(r=8), LoraConfig(r=16)\nfor pair in pairs:\n    use(pair)\n",
        LOADED + "import cfg\nmodel = get_peft_model(model, *cfg.pair)\n",
    ],
)
def test_look_alikes(body):
    assert findings("KB552", body) == []


@pytest.mark.parametrize("body", [COMMA, LOADED + NUMBER])
def test_the_fix_removes_the_comma(body, tmp_path):
    assert fixed_text("KB552", body, tmp_path, unsafe=False) == body.replace("),  #", ")  #").replace("= 16,", "= 16")


def refused(act):
    with pytest.raises((AttributeError, TypeError, ValueError)) as caught:
        act()
    return str(caught.value)


def test_the_libraries_raise_for_each_of_them(tmp_path):
    config = transformers.BitsAndBytesConfig(load_in_4bit=True)
    model = tiny.load(kind="none")
    model.save_pretrained(tmp_path)
    load = transformers.AutoModelForCausalLM.from_pretrained

    assert "no attribute 'quant_method'" in refused(lambda: load(tmp_path, quantization_config=(config,)))
    assert "not tuple" in refused(lambda: load((str(tmp_path),)))
    assert "no attribute" in refused(lambda: peft.prepare_model_for_kbit_training((model,)))
    assert "no attribute" in refused(lambda: peft.get_peft_model(model, (peft.LoraConfig(),)))
    assert "no attribute" in refused(lambda: peft.get_peft_model((model,), peft.LoraConfig()))
    arguments = transformers.TrainingArguments(tmp_path, use_cpu=True)
    assert "no attribute" in refused(lambda: transformers.Trainer(model=model, args=(arguments,)))
    assert "no attribute" in refused(lambda: transformers.Trainer(model=(model,), args=arguments))
    for name, value in {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "bias": "none", "task_type": "CAUSAL_LM"}.items():
        assert refused(lambda: peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], **{name: (value,)})))  # noqa: B023
