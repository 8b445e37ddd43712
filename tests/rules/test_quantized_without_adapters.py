from __future__ import annotations

import pytest
import tiny
from peft import LoraConfig, get_peft_model
from script_cases import ADAPTED, IMPORTS, LOADED, LOOP, PREPARED, RECIPE, TRAINED, findings, fixed_text, flagged_lines
from transformers import Trainer, TrainingArguments

from kbitlint.api import check

BARE = LOADED + TRAINED
RESULT_LOST = LOADED + "peft_model = wrap(model)\n" + TRAINED


def test_a_trainer_refuses_a_bare_quantized_model():
    assert findings("KB220", BARE) == [
        ("error", TRAINED.strip(), "the quantized model has no adapters, and Trainer refuses it")
    ]


def test_merging_before_training_takes_the_adapters_away():
    assert flagged_lines("KB220", LOADED + ADAPTED + "model = model.merge_and_unload()\n" + TRAINED) == [
        ("error", TRAINED.strip())
    ]


def test_a_trainer_that_only_evaluates_refuses_too():
    evaluates = "print(Trainer(model=model, eval_dataset=data).evaluate())"

    assert flagged_lines("KB220", LOADED + evaluates) == [("error", evaluates)]


def test_adapters_whose_model_is_thrown_away():
    """They are in the layers, but the base is no PeftModel: Trainer raises."""
    assert flagged_lines("KB220", LOADED + "get_peft_model(model, LoraConfig())\n" + TRAINED) == [("error", TRAINED.strip())]


OWN = """\
class Own(Trainer):
    def __init__(self, model, args, temperature=1.0, **kwargs):
        super().__init__(model=model, args=args, **kwargs)
        self.temperature = temperature
class Further(Own):
    pass
"""


@pytest.mark.parametrize("name", ["Own", "Further"])
def test_a_trainer_of_the_file_that_passes_its_model_on(name):
    trained = TRAINED.replace("Trainer(", f"{name}(", 1)

    assert flagged_lines("KB220", OWN + LOADED + trained) == [("error", trained.strip())]


@pytest.mark.parametrize(
    "change",
    [
        ("model=model,", "model=get_peft_model(model, LoraConfig()),"),
        ("        super", "        model = get_peft_model(model, LoraConfig())\n        super"),
        ("        super", "        prepare(model)\n        super"),
        ("        super", "        kwargs['model'] = adapted()\n        super"),
        ("        super", "        prepare(base=model)\n        super"),
    ],
)
@pytest.mark.parametrize("name", ["Own", "Further"])
def test_a_trainer_of_the_file_that_may_attach_adapters(name, change):
    assert flagged_lines("KB220", OWN.replace(*change) + LOADED + TRAINED.replace("Trainer(", f"{name}(", 1)) == []


def test_what_is_attached_after_the_trainer_is_made_comes_too_late():
    made = "trainer = Trainer(model=model, args=TrainingArguments('out', bf16=True), train_dataset=data)"

    assert flagged_lines(
        "KB220", f"{LOADED}{made}\ntrainer.model = get_peft_model(model, LoraConfig())\ntrainer.train()\n"
    ) == [("error", made)]


@pytest.mark.parametrize("config", ["GPTQConfig(bits=4)", "HqqConfig()", "TorchAoConfig(Int8WeightOnlyConfig())"])
def test_other_methods_are_refused_too(config):
    imports = IMPORTS + "from transformers import GPTQConfig, HqqConfig, TorchAoConfig\nfrom torchao.quantization import *\n"
    load = f"model = AutoModelForCausalLM.from_pretrained('org/base', quantization_config={config})\n"

    assert flagged_lines("KB220", load + TRAINED, imports=imports) == [("error", TRAINED.strip())]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(RECIPE, id="adapters"),
        pytest.param(LOADED + "SFTTrainer(model, peft_config=LoraConfig()).train()\n", id="the trainer attaches them"),
        pytest.param(LOADED + "SFTTrainer(model, peft_config=config).train()\n", id="the trainer may attach them"),
        pytest.param(LOADED + "SFTTrainer(model, **kwargs).train()\n", id="the trainer may be given a config"),
        pytest.param(RESULT_LOST, id="something unknown had the model"),
        pytest.param("model = AutoModelForCausalLM.from_pretrained('org/base')\n" + TRAINED, id="not quantized"),
        pytest.param(LOADED + "model.add_adapter(LoraConfig())\n" + TRAINED, id="transformers' own way"),
        pytest.param(LOADED + "if lora:\n    " + ADAPTED + TRAINED, id="on one path only"),
        pytest.param(
            "model = AutoModelForCausalLM.from_pretrained('org/base', quantization_config=Mxfp4Config(dequantize=True))\n"
            + TRAINED,
            id="dequantized",
        ),
        pytest.param(LOADED + LOOP, id="a loop of one's own is another rule's"),
    ],
)
def test_look_alikes(script):
    assert findings("KB220", script) == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("unsloth/llama-3-8b-bnb-4bit", ["error"]),
        ("lora_model", []),
        ("outputs/checkpoint-60", []),
        ("me/my-second-round", []),
    ],
)
def test_unsloth_may_load_a_folder_of_adapters(name, found):
    script = f"""
from unsloth import FastLanguageModel
model, tokenizer = FastLanguageModel.from_pretrained("{name}", load_in_4bit=True)
SFTTrainer(model=model, args=SFTConfig("out"), train_dataset=data).train()
"""
    assert [severity for severity, *_ in findings("KB220", script)] == found


SETUP = """\
def setup(net, rank=8):
    net = prepare_model_for_kbit_training(net)
    net = get_peft_model(net, LoraConfig(r=rank))
"""
RETURNS = SETUP + "    net.print_trainable_parameters()\n    return net\n"


def test_a_peft_model_that_a_function_returns_is_dropped():
    (found,) = findings("KB220", RETURNS + LOADED + "setup(model)\n" + TRAINED)

    told = "the PeftModel that setup returns is dropped, and Trainer refuses the quantized model without it"
    assert found == ("error", "setup(model)", told)


def test_the_fix_keeps_the_peft_model(tmp_path):
    fixed = fixed_text("KB220", RETURNS + LOADED + "setup(model)\n" + TRAINED, tmp_path)

    assert fixed == RETURNS + LOADED + "model = setup(model)\n" + TRAINED


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(SETUP + LOADED + "setup(model)\n" + TRAINED, id="not returned"),
        pytest.param(LOADED + "tuned = get_peft_model(model, LoraConfig())\n" + TRAINED, id="under another name"),
        pytest.param(RETURNS + LOADED + "tuned = setup(model)\n" + TRAINED, id="returned to another name"),
    ],
)
def test_the_base_is_given_although_another_name_holds_the_adapters(script):
    assert flagged_lines("KB220", script) == [("error", TRAINED.strip())]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(RETURNS + LOADED + "model = setup(model)\n" + TRAINED, id="kept"),
        pytest.param(RETURNS + LOADED + "tuned = setup(model)\n" + TRAINED.replace("=model", "=tuned"), id="another name"),
        pytest.param(
            "def build():\n    global model\n    model = get_peft_model(model, LoraConfig())\n"
            + LOADED
            + "build()\n"
            + TRAINED,
            id="global",
        ),
        pytest.param(
            "def setup(net):\n    net.add_adapter(LoraConfig())\n    return net\n" + LOADED + "setup(model)\n" + TRAINED,
            id="in place",
        ),
        pytest.param(RETURNS + LOADED + "model, _ = setup(model), 1\n" + TRAINED, id="in a tuple"),
    ],
)
def test_adapters_that_the_trainer_gets(script):
    assert findings("KB220", script) == []


def test_a_real_trainer_refuses_the_base_of_a_dropped_peft_model(tmp_path):
    model = tiny.load()
    get_peft_model(model, LoraConfig(target_modules=["q_proj"]))

    with pytest.raises(ValueError, match="purely quantized"):
        Trainer(model=model, args=TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"))


def test_a_configuration_is_flagged_at_its_key_for_adapters():
    text = (
        "model_name_or_path: org/base\nquantization_bit: 4\nstage: sft\ndo_train: true\nfinetuning_type: full\ntemplate: qwen\n"
    )

    assert flagged_lines("KB220", text, suffix=".yaml") == [("error", "finetuning_type: full")]


@pytest.mark.parametrize(("training", "flagged"), [(TRAINED, True), (LOOP, False)])
def test_adapters_that_are_injected_into_the_model(training, flagged):
    inject = "from peft import inject_adapter_in_model\nmodel = inject_adapter_in_model(LoraConfig(r=8), model)\n"
    message = "the adapters are injected into the quantized model, and Trainer refuses it without a PeftModel"

    assert findings("KB220", LOADED + PREPARED + inject + training) == [("error", training.strip(), message)] * flagged


PARSED = """\
from transformers import AutoModelForCausalLM
from trl import ModelConfig, SFTConfig, SFTTrainer, TrlParser, get_peft_config, get_quantization_config
args, config = TrlParser((SFTConfig, ModelConfig)).parse_args_and_config()
model = AutoModelForCausalLM.from_pretrained("org/base", quantization_config=get_quantization_config(config))
SFTTrainer(model=model, args=args, train_dataset=data, peft_config=get_peft_config(config)).train()
"""


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("--load_in_4bit", ["KB220"]),
        ("--load_in_4bit --use_peft", []),
        ("--lora_r 8", []),
        ("--load_in_4bit ...", []),
        ("--load_in_4bit\npython train.py --load_in_4bit --use_peft", []),
    ],
)
def test_a_launch_without_adapters_for_a_packed_base(tmp_path, flags, found):
    (tmp_path / "train.py").write_text(PARSED)
    (tmp_path / "run.sh").write_text(f"python train.py {flags}\n")

    violations = [one for one in check(str(tmp_path / "train.py")).violations if one.code == "KB220"]
    assert [(one.code, one.at.file, one.at.line) for one in violations] == [
        (code, str(tmp_path / "run.sh"), 1) for code in found
    ]
