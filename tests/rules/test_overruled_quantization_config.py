from __future__ import annotations

import json

import pytest
from stored import BNB
from written import IMPORTS, LOADED

import kbitlint


def codes(tmp_path, config, script, select="KB526"):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    path = tmp_path / "train.py"
    path.write_text(IMPORTS + script.replace("org/base", "base"))
    return [(v.code, v.severity.value, v.message) for v in kbitlint.check(str(path), select=select).violations]


def test_a_stored_quantization_wins_over_the_one_that_is_passed(tmp_path):
    assert codes(tmp_path, {"quantization_config": BNB}, LOADED) == [
        (
            "KB526",
            "warning",
            "the checkpoint is stored quantized (bitsandbytes), and its config wins over the one that is passed",
        )
    ]


@pytest.mark.parametrize(
    ("config", "script"),
    [
        pytest.param({}, LOADED, id="not quantized"),
        pytest.param({"quantization_config": BNB}, LOADED.replace("quantization_config=bnb, ", ""), id="nothing passed"),
        pytest.param({"quantization_config": BNB}, LOADED.replace("=bnb,", "=config,"), id="unknown config"),
        pytest.param({"quantization_config": BNB}, LOADED.replace("org/base", "org/other"), id="not on this machine"),
    ],
)
def test_look_alikes(tmp_path, config, script):
    assert codes(tmp_path, config, script) == []


PREPARE = "model = AutoModelForCausalLM.from_pretrained('org/base')\nmodel = prepare_model_for_kbit_training(model)\n"


@pytest.mark.parametrize(("config", "found"), [({}, ["KB221"]), ({"quantization_config": BNB}, [])])
def test_what_a_checkpoint_stores_is_known_to_other_rules_too(tmp_path, config, found):
    assert [code for code, *_ in codes(tmp_path, config, PREPARE, select="KB221")] == found


def test_the_hubs_cache_is_looked_into(tmp_path, monkeypatch):
    from kbitlint.files import nearby

    snapshot = tmp_path / "hub" / "models--org--cached" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "hub" / "models--org--cached" / "refs").mkdir()
    (tmp_path / "hub" / "models--org--cached" / "refs" / "main").write_text("abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    nearby.checkpoint_config.cache_clear()

    assert nearby.checkpoint_config("org/cached", tmp_path) == {"model_type": "llama"}
    for name in ("org/other", "", "\0", "../escape/x", "a" * 5000):
        assert nearby.checkpoint_config(name, tmp_path) is None


def test_the_stage_of_a_deepspeed_file_beside_the_script(tmp_path):
    from kbitlint.files.nearby import zero_stage

    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 3}}')
    (tmp_path / "odd.json").write_text('{"zero_optimization": {"stage": "3"}}')
    (tmp_path / "broken.json").write_text("{")

    assert [zero_stage(name, tmp_path) for name in ("ds.json", "odd.json", "broken.json", "gone.json", "ds.yaml")] == [
        3,
        None,
        None,
        None,
        None,
    ]
