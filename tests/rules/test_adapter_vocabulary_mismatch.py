from __future__ import annotations

import pytest
import tiny
from checkpoint_cases import adapter, checkpoint, findings, floats, lora, skipped
from peft import LoraConfig, PeftModel, get_peft_model
from script_cases import IMPORTS, LOADED, TRAINED
from script_cases import findings as script_findings

from kbitlint.api import check


def rows(name, count):
    return {f"base_model.model.{name}.weight": ("F32", (count, 2))}


def test_more_rows_than_the_base_has(tmp_path):
    base = checkpoint(tmp_path / "base", floats("model.embed_tokens"), vocab_size=4)
    folder = adapter(tmp_path / "adapter", lora("q_proj") | rows("model.embed_tokens", 6) | rows("lm_head", 6), base)

    assert findings("KB626", folder) == [
        (
            "error",
            f"adapter_model.safetensors base_model.model.{name}.weight",
            f"the adapter's {name.rpartition('.')[2]} has 6 rows, and the base has 4",
        )
        for name in ("lm_head", "model.embed_tokens")
    ]


def test_look_alikes(tmp_path):
    base = checkpoint(tmp_path / "base", None, vocab_size=4)
    tensors = rows("model.embed_tokens", 4) | rows("model.score", 2) | lora("lm_head")

    assert findings("KB626", adapter(tmp_path / "adapter", tensors, base)) == []


def test_without_the_base_nothing_is_said(tmp_path):
    assert skipped("KB626", adapter(tmp_path / "a", lora("q"), "org/base")) == ["the config of the adapter's base is not here"]
    assert skipped("KB626", adapter(tmp_path / "b", None)) == ["no adapter_model.safetensors here"]


BASE = "def base():\n" + "".join(f"    {line}\n" for line in LOADED.splitlines()) + "    return model\n"
RESIZE = "    tokenizer.add_special_tokens({'pad_token': '<pad>'})\n    model.resize_token_embeddings(len(tokenizer))\n"
KEEPS = "modules_to_save=['embed_tokens', 'lm_head'], "
TRAIN = (
    "def train():\n    model = base()\n"
    + RESIZE
    + f"    model = get_peft_model(model, LoraConfig({KEEPS}target_modules='all-linear'))\n"
    + f"    {TRAINED}    model.save_pretrained('adapters')\n"
)
ASK = "def ask():\n    model = PeftModel.from_pretrained(base(), 'adapters')\n    model.eval()\n"
LOST = "the adapters were trained on resized embeddings, and the base that loads them is not resized"


@pytest.mark.parametrize(("kept", "severity"), [(KEEPS, "error"), ("", "warning")])
def test_a_load_without_the_resize_of_the_training(kept, severity):
    found = script_findings("KB626", BASE + TRAIN.replace(KEEPS, kept) + ASK)

    assert found == [(severity, ASK.splitlines()[1].strip(), LOST)]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(
            TRAIN + "def ask():\n    model = base()\n" + RESIZE + "    PeftModel.from_pretrained(model, 'adapters')\n"
        ),
        pytest.param(TRAIN.replace(RESIZE, "") + ASK, id="no resize"),
        pytest.param(TRAIN + ASK.replace("'adapters'", "'others'"), id="other adapters"),
        pytest.param(TRAIN.replace("    tokenizer.add_special_tokens({'pad_token': '<pad>'})\n", "") + ASK, id="no new token"),
        pytest.param(TRAIN, id="no load"),
    ],
)
def test_source_look_alikes(script):
    assert script_findings("KB626", BASE + script) == []


SPLIT_TRAIN = f"{IMPORTS}{LOADED}{RESIZE}model = get_peft_model(model, LoraConfig({KEEPS}r=8))\n".replace("    ", "")
SPLIT_TRAIN += f"{TRAINED}model.save_pretrained('adapters')\n"
SPLIT_LOAD = f"{IMPORTS}base = AutoModelForCausalLM.from_pretrained('org/base')\n{{}}PeftModel.from_pretrained(base, '{{}}')\n"


@pytest.mark.parametrize(
    ("train", "resize", "folder", "lines"),
    [
        (SPLIT_TRAIN, "", "adapters", [9]),
        (SPLIT_TRAIN, "base.resize_token_embeddings(32004)\n", "adapters", []),
        (SPLIT_TRAIN, "", "others", []),
        (SPLIT_TRAIN.replace("org/base", "org/other"), "", "adapters", []),
        (SPLIT_TRAIN.replace("model.resize", "# model.resize"), "", "adapters", []),
    ],
)
def test_a_script_that_loads_what_the_one_beside_it_has_trained(tmp_path, train, resize, folder, lines):
    (tmp_path / "train.py").write_text(train)
    (tmp_path / "merge.py").write_text(SPLIT_LOAD.format(resize, folder))
    found = [(one.at.line, one.message) for one in check(tmp_path, select=["KB626"]).violations]

    assert found == [(line, LOST.replace("embeddings,", "embeddings by train.py,")) for line in lines]


def test_a_real_load_on_a_base_of_another_size_fails(tmp_path):
    model = tiny.load(kind="none")
    rows = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(rows + 8)
    get_peft_model(model, LoraConfig(modules_to_save=["embed_tokens", "lm_head"], target_modules=["q_proj"])).save_pretrained(
        tmp_path
    )

    with pytest.raises(RuntimeError, match="size mismatch"):
        PeftModel.from_pretrained(tiny.load(kind="none"), tmp_path)
