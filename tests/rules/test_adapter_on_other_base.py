"""KB654: adapters that were trained on one checkpoint and are loaded onto another."""

from __future__ import annotations

import json

import peft
import pytest
import tiny
import torch
from script_cases import ADAPTED, IMPORTS, LOADED, PREPARED, TRAINED, findings, fixed_text

from kbitlint.audit.scripts import run
from kbitlint.context import TrainingContext
from kbitlint.registry import find
from kbitlint.source import documents
from kbitlint.upstream.hub_names import other_weights

TUNED, PLAIN = "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B"
TRAINS = LOADED.replace("org/base", TUNED) + PREPARED + ADAPTED + TRAINED + "model.save_pretrained('lora')\n"
BASE = f'base = AutoModelForCausalLM.from_pretrained("{PLAIN}", dtype=torch.bfloat16)\n'
ONTO = BASE + "tuned = PeftModel.from_pretrained(base, 'lora').merge_and_unload()\n"
MESSAGE = f"the adapters were trained on {TUNED}, and are loaded onto {PLAIN}"


def test_peft_adds_the_adapters_to_any_base_of_the_same_shapes(tmp_path):
    def base(seed):
        torch.manual_seed(seed)
        made = tiny.load("llama", kind="none")
        with torch.no_grad():
            made.model.layers[0].self_attn.q_proj.weight.normal_()
        return made

    first, second = base(1), base(2)
    weights = [model.model.layers[0].self_attn.q_proj.weight.clone() for model in (first, second)]
    assert not torch.equal(*weights)
    made = peft.get_peft_model(first, peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    made.peft_config["default"].base_model_name_or_path = "first"
    made.save_pretrained(tmp_path)

    merged = peft.PeftModel.from_pretrained(second, tmp_path).merge_and_unload().model.layers[0].self_attn.q_proj.weight
    wanted = made.merge_and_unload().model.layers[0].self_attn.q_proj.weight

    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "first"
    assert not torch.allclose(merged, wanted, atol=1e-2)
    assert torch.allclose((merged - weights[1]).float(), (wanted - weights[0]).float(), atol=1e-1)


@pytest.mark.parametrize(
    "script",
    [
        TRAINS + ONTO,
        TRAINS.replace("model.save_pretrained('lora')", "folder = 'lora'\nmodel.save_pretrained(folder)") + ONTO,
        TRAINS + ONTO.replace("'lora'", "'out/checkpoint-40'"),
    ],
)
def test_another_base_is_an_error(script):
    assert findings("KB654", script) == [("error", BASE.strip(), MESSAGE)]


@pytest.mark.parametrize(
    "script",
    [
        TRAINS + ONTO.replace(PLAIN, TUNED),
        TRAINS + ONTO.replace(PLAIN, "unsloth/Qwen2.5-7B-Instruct-bnb-4bit"),
        TRAINS + ONTO.replace(PLAIN, "./merged"),
        TRAINS + ONTO.replace(f'"{PLAIN}"', "sys.argv[1]"),
        TRAINS + ONTO.replace("'lora'", "'another'"),
        TRAINS.replace("model.save", "model = model.merge_and_unload()\nmodel.save") + ONTO,
    ],
)
def test_the_same_weights_or_unknown_ones_are_clean(script):
    assert findings("KB654", script) == []


def test_a_base_that_only_some_paths_load_is_clean():
    choice = BASE.replace(f'"{PLAIN}"', f'"{PLAIN}" if sys.argv[1] else "{TUNED}"')

    assert findings("KB654", TRAINS + ONTO.replace(BASE, choice)) == []


def test_the_fix_loads_the_base_of_the_training(tmp_path):
    assert fixed_text("KB654", TRAINS + ONTO, tmp_path) == TRAINS + ONTO.replace(PLAIN, TUNED)


@pytest.mark.parametrize(("base", "expected"), [(TUNED, [MESSAGE]), (PLAIN, []), ("unsloth/qwen2.5-7b-bnb-4bit", [])])
def test_the_folder_of_the_adapters_names_their_base(tmp_path, base, expected):
    (tmp_path / "lora").mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": base, "r": 8}
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(config))
    path = tmp_path / "merge.py"
    path.write_text(IMPORTS + ONTO)

    outcome = run((find("KB654"),), documents.read(path, path.name).facts, TrainingContext())[0]

    assert [one.message for one in outcome.violations] == expected


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct", True),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.2-3B", True),
        ("mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-v0.3", True),
        ("unsloth/gemma-2-9b-it-bnb-4bit", "google/gemma-2-9b", True),
        ("Qwen/Qwen2.5-7B", "someone/qwen2.5-14b-mirror", True),
        ("meta-llama/Meta-Llama-3-8B", "unsloth/llama-3-8b-unsloth-bnb-4bit", False),
        ("meta-llama/Llama-2-7b-hf", "NousResearch/Llama-2-7b-hf", False),
        ("TheBloke/Llama-2-7B-fp16", "TheBloke/Llama-2-7B-GPTQ", False),
        ("huggyllama/llama-7b", "decapoda-research/llama-7b-hf", False),
        ("tiiuae/falcon-7b", "vilsonrodrigues/falcon-7b-sharded", False),
        ("someone/model-a", "other/model-b", False),
        ("outputs/sft", "outputs/sft-instruct", False),
        ("/data/llama", "meta-llama/Llama-3.1-8B", False),
    ],
)
def test_which_names_tell_of_other_weights(one, other, differ):
    assert other_weights(one, other) is differ
    assert other_weights(other, one) is differ
