"""KB543: keywords that a constructor does not take, against the constructors themselves."""

from __future__ import annotations

import pytest
import transformers
import trl
from script_cases import ADAPTED, IMPORTS, LOADED, OLD, PREPARED, RECIPE, findings, fixed_text

from kbitlint.audit.scripts import run
from kbitlint.context import TrainingContext
from kbitlint.registry import find
from kbitlint.source import documents
from kbitlint.upstream.versions import Versions, installed, number

newest = pytest.mark.skipif(number(installed()["trl"]) < (1, 16), reason="older versions take other keywords")


def said(body, **how):
    return [(severity, message) for severity, _, message in findings("KB543", body, **how)]


def declaring(**versions):
    found = Versions({**installed(), **versions})
    found.declared = versions
    return found


OF_2024 = LOADED + PREPARED + ADAPTED + "SFTTrainer(model, tokenizer=tok, max_seq_length=512, train_dataset=data).train()\n"
REFUSED = "SFTTrainer takes no tokenizer (since trl 0.16), max_seq_length (since trl 0.13): a TypeError"


def test_what_the_classes_take_is_clean():
    assert said(RECIPE) == []
    assert said("TrainingArguments('out', eval_strategy='no', warmup_steps=0.1)\nSFTConfig('out', max_length=8)\n") == []
    assert said(OF_2024, versions=OLD) == []


def test_a_keyword_of_older_versions_is_a_warning_without_a_declared_version():
    assert said(OF_2024) == [("warning", REFUSED)]


def test_it_is_an_error_if_the_project_declares_a_version_that_refuses_it():
    assert said(OF_2024, versions=declaring(trl="0.24.0")) == [("error", REFUSED)]
    old = declaring(trl="0.8.6", transformers="4.40.2")
    assert said(OF_2024.replace(" dtype=", " torch_dtype="), versions=old) == []
    assert said(OF_2024, versions=old) == [("error", "from_pretrained takes no dtype (up to transformers 4.55): a TypeError")]


@pytest.mark.parametrize(
    ("pins", "severity"),
    [
        ("trl==0.24.0\ntransformers==4.56.2\n", "error"),
        ("trl>=0.20\n", "error"),
        ("trl>=0.7\n", "warning"),
        ("trl>=0.7,<0.12\ntransformers<4.45\n", None),
        ("trl~=0.11.4\n", None),
        ("", "warning"),
    ],
)
def test_requirements_beside_the_script_decide(tmp_path, pins, severity):
    (tmp_path / ".git").mkdir()
    (tmp_path / "requirements.txt").write_text(pins)
    path = tmp_path / "train.py"
    path.write_text(IMPORTS + OF_2024.replace(" dtype=", " torch_dtype="))

    found = run((find("KB543"),), documents.read(path, path.name).facts, TrainingContext())[0].violations

    assert [v.severity.value for v in found] == ([severity] if severity else [])


def test_a_keyword_that_no_version_takes_is_an_error():
    assert said("LoraConfig(rank=8)\n") == [("error", "LoraConfig takes no rank: a TypeError")]
    assert said("LoraConfig(rank=8)\n", versions=OLD) == [("error", "LoraConfig takes no rank: a TypeError")]


def test_a_keyword_of_newer_versions_is_an_error_if_an_older_one_is_declared():
    body = "TrainingArguments('out', eval_strategy='no')\n"

    assert said(body, versions=declaring(transformers="4.38.2")) == [
        ("error", "TrainingArguments takes no eval_strategy (up to transformers 4.40): a TypeError")
    ]


@pytest.mark.parametrize(
    "body",
    [
        (
            "class Mine(SFTTrainer):\n    def __init__(self, *args, tokenizer=None):\n        super().__init__(*args)\n"
            "Mine(model, tokenizer=tok)\n"
        ),
        "class Mine(Mixin, SFTTrainer):\n    pass\nMine(model, tokenizer=tok)\n",
        "from dataclasses import dataclass\n@dataclass\nclass Own(TrainingArguments):\n    bits: int = 4\nOwn('out', bits=8)\n",
        "try:\n    args = TrainingArguments('out', no_cuda=True)\nexcept TypeError:\n    args = TrainingArguments('out')\n",
        "import transformers\nif transformers.__version__ < '5':\n    a = TrainingArguments('out', no_cuda=True)\n",
        "settings = {}\nif fast:\n    settings.update(no_cuda=True)\nTrainingArguments('out', **settings)\n",
        "settings = {'no_cuda': True}\nsettings.pop('no_cuda')\nTrainingArguments('out', **settings)\n",
        "s = {'no_cuda': True}\nargs = TrainingArguments('out', **{k: v for k, v in s.items() if k != 'no_cuda'})\n",
        "AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True, device='cuda')\n",
        "AutoTokenizer.from_pretrained(name, use_auth_token=True)\n",
    ],
)
def test_a_call_that_expects_the_refusal_or_another_class_is_clean(body):
    assert said(body) == []


_NO_CUDA = "TrainingArguments takes no no_cuda (since transformers 5.0): a TypeError"
_TOKENIZER = "SFTTrainer takes no tokenizer (since trl 0.16): a TypeError"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("settings = {'no_cuda': True}\nTrainingArguments('out', **settings)\n", _NO_CUDA),
        ("settings = dict(output_dir='o')\nsettings |= {'no_cuda': True}\nTrainingArguments(**settings)\n", _NO_CUDA),
        ('import json\nTrainingArguments(**json.loads(\'{"output_dir": "o", "no_cuda": true}\'))\n', _NO_CUDA),
        (
            (
                "from dataclasses import dataclass, field\n@dataclass\nclass C:\n"
                "    training: TrainingArguments = field(default_factory=lambda: TrainingArguments('out', no_cuda=True))\nC()\n"
            ),
            _NO_CUDA,
        ),
        ("from functools import partial\nmake = partial(TrainingArguments, no_cuda=True)\nmake('out')\n", _NO_CUDA),
        ("class Mine(SFTTrainer):\n    pass\nMine(model, tokenizer=tok)\n", _TOKENIZER),
        (
            (
                "class Mine(SFTTrainer):\n    def __init__(self, tok, **kw):\n        super().__init__(tokenizer=tok, **kw)\n"
                "Mine(tok, model=model)\n"
            ),
            _TOKENIZER,
        ),
        (
            "AutoModelForCausalLM.from_pretrained(name, use_auth_token=True)\n",
            "from_pretrained takes no use_auth_token (since transformers 5.0): a TypeError",
        ),
        (
            "AutoModelForCausalLM.from_pretrained(name, use_flash_attention_2=True)\n",
            "from_pretrained takes no use_flash_attention_2 (since transformers 5.0): a TypeError",
        ),
    ],
)
def test_a_keyword_is_found_on_its_way_to_the_constructor(body, message):
    assert said(body) == [("warning", message)]


@pytest.mark.parametrize(
    "test",
    ["torch.__version__ >= '2'", "version.parse(torch.__version__) >= version.parse('2.0')", "sys.version_info >= (3, 11)"],
)
def test_a_choice_by_the_version_of_torch_or_python_expects_no_refusal(test):
    body = f"if {test}:\n    model = torch.compile(model)\nTrainingArguments('out', no_cuda=True)\n"

    assert [severity for severity, _ in said(body)] == ["warning"]


@newest
@pytest.mark.parametrize(
    ("body", "make"),
    [
        ("TrainingArguments('out', logging_dir='runs')\n", lambda: transformers.TrainingArguments("out", logging_dir="runs")),
        ("SFTConfig('out', max_seq_length=8)\n", lambda: trl.SFTConfig("out", max_seq_length=8)),
        ("SFTTrainer(model, packing=True)\n", lambda: trl.SFTTrainer("org/base", packing=True)),
        ("Trainer(model, tokenizer=tok)\n", lambda: transformers.Trainer(None, tokenizer=None)),
    ],
)
def test_the_constructor_raises_what_the_message_says(body, make):
    with pytest.raises(TypeError, match="unexpected keyword"):
        make()

    assert [severity for severity, _ in said(body)] == ["warning"]


def test_new_names_and_inert_values_are_a_safe_fix(tmp_path):
    body = (
        "args = TrainingArguments(\n    'out',\n    evaluation_strategy='no',\n    overwrite_output_dir=True,\n    seed=1,\n)\n"
    )

    assert fixed_text("KB543", body, tmp_path, unsafe=False) == (
        "args = TrainingArguments(\n    'out',\n    eval_strategy='no',\n    seed=1,\n)\n"
    )


def test_arguments_of_a_trainer_move_into_its_config_only_if_asked(tmp_path):
    body = (
        f"{LOADED}args = SFTConfig('out', seed=1)\n"
        "SFTTrainer(model, args=args, peft_config=LoraConfig(), dataset_text_field='text', max_seq_length=64).train()\n"
    )

    assert fixed_text("KB543", body, tmp_path, unsafe=False) == body
    assert fixed_text("KB543", body, tmp_path) == (
        f"{LOADED}args = SFTConfig('out', seed=1, dataset_text_field='text', max_length=64)\n"
        "SFTTrainer(model, args=args, peft_config=LoraConfig()).train()\n"
    )


def test_a_misspelt_keyword_is_renamed_only_if_asked(tmp_path):
    body = "args = TrainingArguments('out', gradient_checkpoint=True)\n"

    assert fixed_text("KB543", body, tmp_path, unsafe=False) == body
    assert fixed_text("KB543", body, tmp_path) == body.replace("gradient_checkpoint=", "gradient_checkpointing=")


def test_what_has_no_successor_is_by_hand(tmp_path):
    body = "args = TrainingArguments('out', past_index=1)\n"

    assert fixed_text("KB543", body, tmp_path) == body


def test_a_question_for_the_version_of_torch_says_nothing_of_the_other_libraries():
    asked = "if torch.__version__ >= '2':\n    model = torch.compile(model)\n"
    body = f"args = TrainingArguments('out', evaluation_strategy='no')\n{asked}"

    assert len(findings("KB543", body)) == 1


def test_a_native_family_takes_no_former_keyword_where_remote_code_is_trusted():
    load = "AutoModelForCausalLM.from_pretrained('{}', trust_remote_code=True, use_auth_token=True)\n"
    refused = [("warning", "from_pretrained takes no use_auth_token (since transformers 5.0): a TypeError")]

    assert said(load.format("meta-llama/Llama-2-7b-hf")) == refused
    assert said(load.format("org/own-model")) == []  # its code may take any


def test_unsloth_moves_former_keywords_and_passes_on_those_that_no_version_took():
    trained = "from unsloth import FastLanguageModel\nfrom trl import DPOTrainer\n"
    trained += "DPOTrainer(model, {}args=args, train_dataset=data).train()\n"

    assert said(trained.format("beta=0.1, tokenizer=tok, ")) == []
    assert said(trained.format("model_ref=None, beta=0.1, ")) == [("error", "DPOTrainer takes no model_ref: a TypeError")]
