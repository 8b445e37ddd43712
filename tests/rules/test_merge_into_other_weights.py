from __future__ import annotations

import pytest
from script_cases import IMPORTS, LOADED, RECIPE, findings

AUTO = IMPORTS + "from peft import AutoPeftModelForCausalLM\n"
MERGE = "merged = AutoPeftModelForCausalLM.from_pretrained('adapter', dtype=torch.bfloat16).merge_and_unload()\n"
ONTO_BASE = """\
base = AutoModelForCausalLM.from_pretrained("org/base", dtype=torch.bfloat16)
merged = PeftModel.from_pretrained(base, "adapter")
merged = merged.merge_and_unload()
"""
SAVED = RECIPE + "model.save_pretrained('adapter')\n"
TRAINER = RECIPE.replace("Trainer(", "trainer = Trainer(").replace(".train()\n", "\n")
MESSAGE = "the adapters were trained on 4-bit weights and are merged into the unquantized ones"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(SAVED + MERGE, id="loaded with its base"),
        pytest.param(SAVED + ONTO_BASE, id="loaded onto the base"),
        pytest.param(TRAINER + "trainer.save_model('adapter')\n" + MERGE, id="saved by the trainer"),
        pytest.param(TRAINER + "trainer.model.save_pretrained('adapter')\n" + MERGE, id="off the trainer"),
        pytest.param(TRAINER + "trainer.save_model()\n" + MERGE.replace("adapter", "out"), id="the output folder"),
        pytest.param(
            TRAINER.replace("'out'", "output_dir='out'") + "trainer.save_model()\n" + MERGE.replace("adapter", "out"),
            id="the output folder by name",
        ),
        pytest.param("folder = 'a' + 'dapter'\n" + SAVED.replace("'adapter'", "folder") + MERGE, id="a name for it"),
    ],
)
def test_adapters_are_merged_into_what_they_were_not_trained_on(script):
    line = next(line for line in script.split("\n") if "merge_and_unload" in line)

    assert findings("KB627", script, imports=AUTO) == [("info", line, MESSAGE)]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(SAVED + MERGE.replace("'adapter'", "'other'"), id="other adapters"),
        pytest.param(MERGE, id="trained elsewhere"),
        pytest.param(SAVED.replace("'adapter'", "folder()") + MERGE, id="an unknown folder"),
        pytest.param(SAVED.replace("quantization_config=bnb, ", "") + MERGE, id="trained on the same weights"),
        pytest.param(SAVED.replace("=bnb,", "=config,") + MERGE, id="perhaps quantized"),
        pytest.param(
            SAVED.replace("quantization_config=bnb, ", "").replace("org/base", "org/base-bnb-4bit") + MERGE,
            id="a base that is stored quantized",
        ),
        pytest.param(SAVED + LOADED + ONTO_BASE.partition("\n")[2].replace("base,", "model,"), id="packed: another rule's"),
        pytest.param(
            SAVED + ONTO_BASE.replace("merged = P", "base = f(base)\nmerged = P"), id="something unknown had the base"
        ),
        pytest.param(SAVED + "model = model.merge_and_unload()\n", id="the trained model itself"),
        pytest.param(
            SAVED + ONTO_BASE.replace("dtype=", "quantization_config=config, dtype="), id="perhaps quantized the second time"
        ),
        pytest.param("if fresh:\n    " + SAVED.replace("\n", "\n    ") + "\n" + MERGE, id="saved on one path only"),
        pytest.param(LOADED + "model.save_pretrained('adapter')\n" + MERGE, id="what was saved has no adapters"),
        pytest.param("def merge(model):\n    return model.merge_and_unload()\n", id="a model from elsewhere"),
    ],
)
def test_look_alikes(script):
    assert findings("KB627", script, imports=AUTO) == []
