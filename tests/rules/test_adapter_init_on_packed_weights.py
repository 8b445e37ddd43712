from __future__ import annotations

import pytest
from script_cases import ADAPTED, LOADED, findings


def attach(init):
    return f"model = get_peft_model(model, LoraConfig(r=8, init_lora_weights={init!r}))\n"


@pytest.mark.parametrize(
    ("init", "severity"),
    [("pissa", "error"), ("pissa_niter_4", "error"), ("corda", "error"), ("orthogonal", "error"), ("loftq", "error")],
)
def test_the_initialisation_reads_packed_weights(init, severity):
    assert findings("KB620", LOADED + attach(init)) == [
        (
            severity,
            attach(init).strip(),
            f"the {init.partition('_')[0]} initialisation reads the base weights, which are packed",
        )
    ]


@pytest.mark.parametrize(
    "script",
    [
        *(pytest.param(LOADED + attach(init), id=str(init)) for init in ("olora", "eva", "gaussian", True, False)),
        pytest.param("model = AutoModelForCausalLM.from_pretrained('org/base')\n" + attach("pissa"), id="float base"),
        pytest.param(attach("pissa"), id="unknown base"),
        pytest.param(
            LOADED.replace("load_in_4bit=True", "load_in_8bit=True, llm_int8_has_fp16_weight=True") + attach("pissa"),
            id="8-bit layers that keep their weights",
        ),
        pytest.param(LOADED + "model = get_peft_model(model, config)\n", id="unknown config"),
        pytest.param(LOADED + ADAPTED, id="default"),
    ],
)
def test_look_alikes(script):
    assert findings("KB620", script) == []


def test_loftq_takes_integers_of_8_bits_for_the_matrix_and_trains_on_what_comes_out():
    eight = LOADED.replace("load_in_4bit", "load_in_8bit")

    assert [severity for severity, *_ in findings("KB620", eight + attach("loftq"))] == ["warning"]
    assert [severity for severity, *_ in findings("KB620", eight + attach("pissa"))] == ["error"]


@pytest.mark.parametrize(("name", "flagged"), [("tiiuae/falcon-7b", 0), ("tiiuae/Falcon3-7B-Base", 1), ("org/base", 1)])
def test_falcons_linear_layers_are_a_class_of_their_own_that_is_not_quantized(name, flagged):
    assert len(findings("KB620", LOADED.replace("org/base", name) + attach("pissa"))) == flagged


@pytest.mark.parametrize(("default", "flagged"), [("pissa_niter_16", 1), ("olora", 0)])
def test_the_default_of_an_environment_variable_counts(default, flagged):
    script = LOADED + f"init = os.getenv('INIT', '{default}')\n" + attach("x").replace("'x'", "init")

    assert len(findings("KB620", script)) == flagged


def test_orthogonal_factors_take_on_the_dtype_of_bytes_that_pose_as_numbers():
    stored = LOADED.replace("load_in_4bit=True", "load_in_4bit=True, bnb_4bit_quant_storage=torch.bfloat16")

    assert stored != LOADED
    assert findings("KB620", stored + attach("orthogonal")) == []
    assert len(findings("KB620", stored + attach("pissa"))) == 1
