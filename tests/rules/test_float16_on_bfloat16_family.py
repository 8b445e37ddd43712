from __future__ import annotations

import pytest
from script_cases import findings, fixed_text, flagged_lines

GEMMA = """
bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float16)
model = AutoModelForCausalLM.from_pretrained("google/gemma-2-9b", quantization_config=bnb)
"""


def test_gemma_in_float16_overflows():
    assert findings("KB121", GEMMA) == [
        (
            "warning",
            GEMMA.split("\n")[1],
            "google/gemma-2-9b computes in float16, whose range its activations leave",
        )
    ]


def test_the_dtype_of_the_load_counts_too():
    load = "model = AutoModelForCausalLM.from_pretrained('google/flan-t5-xl', torch_dtype='float16')"

    assert flagged_lines("KB121", load) == [("warning", load)]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(GEMMA.replace("float16", "bfloat16"), id="bfloat16"),
        pytest.param(GEMMA.replace("google/gemma-2-9b", "openlm-research/open_llama_7b"), id="another family"),
        pytest.param(GEMMA.replace('"google/gemma-2-9b"', "name"), id="unknown checkpoint"),
        pytest.param(GEMMA.replace("gemma-2-9b", "bigemma"), id="a name that only sounds like it"),
    ],
)
def test_look_alikes(script):
    assert findings("KB121", script) == []


def test_the_fix_uses_bfloat16(tmp_path):
    assert fixed_text("KB121", GEMMA, tmp_path) == GEMMA.replace("torch.float16", "torch.bfloat16")


def test_a_dtype_that_is_computed_is_shown_only(tmp_path):
    script = "half = torch.float16\nmodel = AutoModelForCausalLM.from_pretrained('google/gemma-2-9b', dtype=half)\n"

    assert flagged_lines("KB121", script) == [("warning", script.split("\n")[1])]
    assert fixed_text("KB121", script, tmp_path) == script


HALF = "TrainingArguments('o', fp16=True)"
TRAINED = (
    GEMMA.replace("float16", "bfloat16")
    + "model = get_peft_model(model, LoraConfig(r=8))\n"
    + f"Trainer(model=model, args={HALF}, train_dataset=data).train()\n"
)


def test_mixed_precision_in_float16_overflows_too(tmp_path):
    line = TRAINED.splitlines()[-1]

    assert flagged_lines("KB121", TRAINED) == [("warning", line)]
    assert fixed_text("KB121", TRAINED, tmp_path) == TRAINED.replace("fp16=True", "bf16=True")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(TRAINED.replace("fp16=True", "bf16=True"), id="bfloat16"),
        pytest.param(TRAINED.replace("google/gemma-2-9b", "openlm-research/open_llama_7b"), id="another family"),
        pytest.param(GEMMA + "model.generate(**batch)\n", id="the model only generates"),
    ],
)
def test_look_alikes_in_mixed_precision(script):
    assert findings("KB121", script) == []
