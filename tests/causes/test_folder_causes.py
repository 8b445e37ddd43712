"""Root causes of the second list that a folder or ranks show, beside what loading and training do.

A test is named after the id of its cause; ``test_model_causes.py`` counts them.
"""

from __future__ import annotations

import pytest
import tiny
import transformers  # noqa: F401  # the lines under test name it
from cause_cases import LAYERS, adapted, said_of_files
from peft import PeftModel
from safetensors.torch import load_file, save_file
from script_cases import findings as said_of_script

import kbitlint
from kbitlint.context import Strategy, TrainingContext

pytestmark = pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="the second list was stated for transformers 5")


def test_adapter_keys_do_not_match_model(tmp_path):
    model = adapted(tiny.load(kind="none"), init_lora_weights=False)
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({name.replace("model.layers", "language_model.layers"): t for name, t in load_file(file).items()}, file)

    assert {(code, severity) for code, _, severity in said_of_files(tmp_path, "KB623")} == {("KB623", "error")}
    with pytest.warns(UserWarning, match="Found missing adapter keys"):
        PeftModel.from_pretrained(tiny.load(), tmp_path)


def test_lora_b_all_zero_after_training(tmp_path):
    adapted(tiny.load()).save_pretrained(tmp_path)

    assert said_of_files(tmp_path, "KB625") == [("KB625", "adapter_model.safetensors", "warning")]
    assert not any(
        tensor.any() for name, tensor in load_file(tmp_path / "adapter_model.safetensors").items() if "lora_B" in name
    )


def test_prequantized_checkpoint_new_head_init(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.load(llm_int8_skip_modules=["lm_head", "k_proj"]).save_pretrained(tmp_path / "packed")
    load = "transformers.AutoModelForSequenceClassification.from_pretrained('packed', device_map='cpu', num_labels=3)"

    assert [severity for severity, _, _ in said_of_script("KB635", f"import transformers\nmodel = {load}\n")] == ["error"]
    with pytest.raises(NotImplementedError, match="Byte"):
        eval(load)  # noqa: S307  # the line of the test

    tiny.load().save_pretrained(tmp_path / "spared")
    load = load.replace("packed", "spared")
    assert said_of_script("KB635", f"import transformers\nmodel = {load}\n") == []
    assert type(eval(load).score).__name__ == "Linear"  # noqa: S307  # the line of the test


def test_ranks_adapt_different_modules():
    """What DDP makes of it (an average of unrelated gradients) is held against real ranks in ``test_ranks.py``."""
    from kbitlint.integrations.ranks import merge_ranks, seen
    from kbitlint.registry import all_rules

    records = {}
    for rank, target in enumerate(("k_proj", "v_proj")):
        model = adapted(tiny.load(), target_modules=[target])
        context = TrainingContext(strategy=Strategy.DDP)
        records[rank] = seen(model, kbitlint.check(model, select="KB705"), context)
    report = merge_ranks(records, {}, 2, tuple(all_rules()))

    found = {(v.at.path, v.severity.value) for v in report.violations if v.code == "KB705"}
    factors = [
        f"{layer}.self_attn.{side}_proj.lora_{factor}.default.weight" for layer in LAYERS for side in "kv" for factor in "AB"
    ]
    assert found >= {(path, "error") for path in factors}
    assert {severity for _, severity in found} == {"error"}
