from __future__ import annotations

import pytest
import tiny
import torch
from peft.utils import cast_mixed_precision_params
from script_cases import ADAPTED, IMPORTS, LOADED, PREPARED, findings

from kbitlint.upstream.versions import NEWEST, installed, versions_for

PEFT = "from peft import cast_mixed_precision_params\n"


@pytest.mark.parametrize("cast", ["half()", "float()", "to(torch.float16)", "to('cuda', dtype=torch.float32)"])
def test_a_quantized_model_refuses_to_be_cast(cast):
    (found,) = findings("KB122", LOADED + f"model.{cast}\n")

    assert found[:2] == ("error", f"model.{cast}")
    assert found[2].startswith("a quantized model cannot be cast to float")


def test_the_peft_model_around_it_passes_the_cast_on():
    assert findings("KB122", LOADED + PREPARED + ADAPTED + "model = model.half()\n") == [
        ("warning", "model = model.half()", "the cast to float16 goes through to the adapters and norms")
    ]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(LOADED + "model.to('cuda')\n", id="moved, not cast"),
        pytest.param(LOADED + "model.bfloat16()\n", id="bfloat16 has no guard"),
        pytest.param(LOADED + PREPARED + ADAPTED + "model.float()\n", id="float32 adapters stay"),
        pytest.param("model = AutoModelForCausalLM.from_pretrained('org/base')\nmodel.half()\n", id="not quantized"),
        pytest.param("model.half()\n", id="unknown model"),
        pytest.param(LOADED + "if late:\n    model = get_peft_model(model, LoraConfig())\nmodel.half()\n", id="either"),
    ],
)
def test_look_alikes(script):
    assert findings("KB122", script) == []


INT8 = LOADED.replace("load_in_4bit", "load_in_8bit")


@pytest.mark.parametrize(
    ("script", "version", "found"),
    [
        (LOADED + "model = model.to(device)\n", "4.38.2", 1),
        (LOADED + "model.to('cuda')\n", "4.44.2", 1),
        (LOADED + "model.to('cuda')\n", "4.45.0", 0),
        (INT8 + "model.to('cuda')\n", "4.57.1", 1),
        (INT8 + "model.to('cuda')\n", "5.0.0", 0),
        (INT8 + "model.cuda()\n", "5.23.0", 1),
        (LOADED + "model.cuda()\n", "4.44.2", 1),
        (LOADED + "model.cuda()\n", "5.23.0", 0),
        (LOADED + "model.cuda()\n", "4.38.2", 0),
        (LOADED + PREPARED + ADAPTED + "model.to('cuda')\n", "4.38.2", 0),
        ("model = AutoModelForCausalLM.from_pretrained('org/base')\nmodel.to('cuda')\n", "4.38.2", 0),
    ],
)
def test_versions_that_refuse_a_move(script, version, found):
    told = findings("KB122", script, versions={**NEWEST, "transformers": version})

    bits = 8 if "load_in_8bit" in script else 4
    assert [message for _, _, message in told] == [
        f"transformers {version} refuses to move a {bits}-bit model: a ValueError"
    ] * found


def test_a_list_of_pins_in_a_comment_tells_the_version(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("# Environment: transformers==4.38.2, peft==0.9.0, torch==2.1.2\nimport torch\n")

    assert versions_for(script, script.read_text())["transformers"] == "4.38.2"


def test_one_version_in_a_comment_is_no_pin(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("# copied from an example for transformers==4.38.2, with changes\nimport torch\n")

    assert versions_for(script, script.read_text())["transformers"] == installed()["transformers"]


CAST = "cast_mixed_precision_params(model, dtype=torch.bfloat16)\n"


def test_peft_s_cast_of_every_parameter_destroys_packed_weights():
    script = LOADED + PREPARED + ADAPTED + CAST
    message = "the cast reaches the packed weights, too, whose bytes are then read as numbers"

    assert findings("KB122", script, imports=IMPORTS + PEFT) == [("error", CAST.strip(), message)]
    model = tiny.with_lora(tiny.load())
    assert tiny.step(model).error is None
    cast_mixed_precision_params(model, torch.bfloat16)
    assert "invalid for input of size" in tiny.step(model).error


def test_peft_s_cast_of_a_model_that_is_not_packed_is_fine():
    loaded = "model = AutoModelForCausalLM.from_pretrained('m')\n"

    assert findings("KB122", loaded + ADAPTED + CAST, imports=IMPORTS + PEFT) == []


def test_a_copy_of_a_model_is_as_packed_as_the_model():
    script = LOADED + "import copy\nother = copy.deepcopy(model)\nother.half()\n"

    assert [severity for severity, *_ in findings("KB122", script)] == ["error"]
    assert findings("KB122", LOADED + "import copy\nother = copy.deepcopy(model)\nother.requires_grad_(False)\n") == []


@pytest.mark.parametrize(("name", "flagged"), [("org/base", 1), ("tiiuae/falcon-7b", 0)])
def test_a_model_without_packed_layers_has_none_for_the_cast_of_peft_to_reach(name, flagged):
    script = PEFT + LOADED.replace("org/base", name) + ADAPTED + "cast_mixed_precision_params(model, dtype=torch.bfloat16)\n"

    assert len(findings("KB122", script)) == flagged
