"""KB553: adapters on a base that from_config made."""

from __future__ import annotations

import pytest
import tiny
import torch
import transformers
from script_cases import ADAPTED, LOADED, PREPARED, TRAINED, findings, fixed_text

BNB = LOADED.split("\n", maxsplit=1)[0] + "\n"
CONFIG = "from transformers import AutoConfig\nname = 'org/base'\n"
CONFIG += "config = AutoConfig.from_pretrained(name, quantization_config=bnb)\n"
PLAIN = CONFIG.replace(", quantization_config=bnb", "")
BUILT = "model = AutoModelForCausalLM.from_config(config)\n"
RANDOM = "from_config makes random weights{}: the adapters are trained on noise"


def test_a_model_from_a_config_is_random_and_not_quantized(tmp_path):
    tiny.load(kind="none").save_pretrained(tmp_path)
    bnb = transformers.BitsAndBytesConfig(load_in_4bit=True)
    config = transformers.AutoConfig.from_pretrained(tmp_path, quantization_config=bnb)
    made = transformers.AutoModelForCausalLM.from_config(config)
    stored = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)

    assert {type(module).__name__ for name, module in made.named_modules() if name.endswith("_proj")} == {"Linear"}
    weights = [model.get_parameter("model.layers.0.self_attn.q_proj.weight") for model in (made, stored)]
    assert not torch.equal(*weights)


@pytest.mark.parametrize(
    ("body", "more"),
    [
        (BNB + CONFIG + BUILT + ADAPTED + TRAINED, " and quantizes none of them"),
        (PLAIN + BUILT + ADAPTED + TRAINED, ""),
        (BNB + CONFIG + "config.use_cache = False\n" + BUILT + ADAPTED + TRAINED, " and quantizes none of them"),
        (PLAIN + BUILT + "SFTTrainer(model, SFTConfig('out'), peft_config=LoraConfig()).train()\n", ""),
    ],
)
def test_adapters_on_random_weights_are_an_error(body, more):
    assert findings("KB553", body) == [("error", BUILT.strip(), RANDOM.format(more))]


@pytest.mark.parametrize(
    "body",
    [
        BNB + CONFIG + BUILT + TRAINED,
        PLAIN + BUILT + ADAPTED + "model.print_trainable_parameters()\n",
        PLAIN + "config.num_hidden_layers = 2\n" + BUILT + ADAPTED + TRAINED,
        PLAIN + BUILT + "model.load_state_dict(torch.load('weights.pt'))\n" + ADAPTED + TRAINED,
        PLAIN + BUILT + "from accelerate import load_checkpoint_and_dispatch\n"
        "model = load_checkpoint_and_dispatch(model, 'weights')\n" + ADAPTED + TRAINED,
        "from transformers import LlamaConfig\n" + BUILT.replace("config)", "LlamaConfig(hidden_size=64))") + ADAPTED + TRAINED,
        PLAIN + "if rank == 0:\n    model = AutoModelForCausalLM.from_pretrained(name)\nelse:\n    "
        + BUILT + ADAPTED + TRAINED,
        LOADED + ADAPTED + TRAINED,
    ],
)  # fmt: skip
def test_look_alikes(body):
    assert findings("KB553", body) == []


def test_the_fix_loads_the_weights(tmp_path):
    body = BNB + CONFIG + BUILT + PREPARED + ADAPTED + TRAINED
    loaded = "model = AutoModelForCausalLM.from_pretrained(name, config=config, quantization_config=bnb)\n"

    assert fixed_text("KB553", body, tmp_path, unsafe=False) == body
    assert fixed_text("KB553", body, tmp_path) == body.replace(BUILT, loaded)
