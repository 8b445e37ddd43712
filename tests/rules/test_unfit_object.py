from __future__ import annotations

import datasets
import peft
import pytest
import tiny
import torch
import transformers
import trl
from script_cases import ADAPTED, LOADED, NEWEST, PREPARED, findings

CODE = "KB573"
MADE = LOADED + PREPARED + ADAPTED
TRAINER = "args = TrainingArguments('out')\nTrainer(model=model, args=args, train_dataset=data, {})\n"
TOKENIZER = "tok = AutoTokenizer.from_pretrained('org/base')\n"
FAST = "from unsloth import FastLanguageModel\nmodel = FastLanguageModel.from_pretrained('unsloth/Qwen3-8B')\n"
OPTIMIZER = "opt = torch.optim.AdamW(model.parameters())\n"
SEQ2SEQ = "from transformers import Seq2SeqTrainer\nargs = TrainingArguments('out')\n"
PREFERRED = (
    "from trl import DPOTrainer\nargs = TrainingArguments('out')\nDPOTrainer(model=model, args=args, train_dataset=data)\n"
)
STOPPING = "from transformers import DataCollatorWithPadding, EarlyStoppingCallback\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (MADE + OPTIMIZER + TRAINER.format("optimizers=opt"), "optimizers of Trainer is one optimizer"),
        (STOPPING + MADE + TRAINER.format("callbacks=EarlyStoppingCallback(3)"), "callbacks of Trainer is one callback"),
        (STOPPING + MADE + TRAINER.format("data_collator=DataCollatorWithPadding"), "is the class DataCollatorWithPadding"),
        (MADE + "Trainer(model=model, args={'output_dir': 'out'}, train_dataset=data)\n", "args of Trainer is a dict"),
        (LOADED + "model = get_peft_model(model, {'r': 8})\n", "peft_config of get_peft_model is a dict"),
        (LOADED + "model = PeftModel.from_pretrained(model, LoraConfig(r=8))\n", "model_id of PeftModel.from_pretrained"),
        (MADE + TOKENIZER + "model.generate(tok('a', return_tensors='pt'))\n", "is a BatchEncoding"),
        (MADE + TOKENIZER + "ids = tok.apply_chat_template(rows)\nmodel.generate(input_ids=ids)\n", "is a BatchEncoding"),
        (MADE + TOKENIZER + "model(tok.batch_decode(ids))\n", "is a list"),
        (
            LOADED
            + TOKENIZER
            + "tok = tok.add_special_tokens({'pad_token': '<p>'})\n"
            + PREPARED
            + ADAPTED
            + TRAINER.format("processing_class=tok"),
            "processing_class of Trainer is a number",
        ),
        (MADE + "opt = torch.optim.AdamW(model.parameters, lr=1e-4)\n", "params of optim.AdamW is the method parameters"),
        (MADE + SEQ2SEQ + "Seq2SeqTrainer(model=model, args=args)\n", "must be an object of Seq2SeqTrainingArguments"),
        (MADE + PREFERRED, "args of DPOTrainer is an object of TrainingArguments, and must be an object of DPOConfig"),
        (
            MADE + PREFERRED.replace("TrainingArguments", "SFTConfig"),
            "args of DPOTrainer is an object of SFTConfig, and must be an object of DPOConfig",
        ),
        (
            LOADED + "model.add_adapter('default', LoraConfig(r=8))\n",
            "of add_adapter is a text, and must be the adapter's config",
        ),
        (MADE + "model.add_adapter(LoraConfig(r=8), 'dpo')\n", "of add_adapter is an object of LoraConfig, and must be"),
        (LOADED.replace("=bnb", "=BitsAndBytesConfig"), "is the class BitsAndBytesConfig, and must be an object of it"),
        (LOADED.replace("quantization_config=bnb", "bnb"), "is an object of BitsAndBytesConfig, and belongs to"),
        (
            MADE + "from trl import DPOTrainer\nDPOTrainer(model, model, train_dataset=data)\n",
            "ref_model of DPOTrainer is the model itself",
        ),
        (
            MADE.replace("org/base", "Qwen/Qwen2.5-0.5B")
            + "from trl.experimental.gkd import GKDTrainer\n"
            + LOADED.replace("model =", "big =").replace("org/base", "Qwen/Qwen2.5-7B")
            + "GKDTrainer(model, teacher_model=big, train_dataset=data)\n",
            "teacher_model of GKDTrainer has 152064 tokens in its vocabulary, and the model 151936",
        ),
        (
            MADE
            + "from trl import GRPOTrainer\n"
            + LOADED.replace("model =", "judge =")
            + "GRPOTrainer(model, judge, train_dataset=data)\n",
            "reward_funcs of GRPOTrainer is a causal language model",
        ),
        (
            MADE + "SFTTrainer(model, train_dataset=[row for row in data])\n",
            "train_dataset of SFTTrainer is a list, and must be a Dataset",
        ),
        (
            "import pandas as pd\n" + MADE + TRAINER.replace("=data", "=pd.read_csv('d.csv')").format(""),
            "train_dataset of Trainer is a DataFrame of pandas",
        ),
        (
            FAST + "model = FastLanguageModel.get_peft_model(model, r=8)\n",
            "model of FastLanguageModel.get_peft_model is a tuple",
        ),
        (LOADED + "model = model.resize_token_embeddings(9)\n" + ADAPTED, "model of get_peft_model is an object of Embedding"),
    ],
)
def test_objects_that_cannot_be_used_in_their_place(body, said):
    (found,) = findings(CODE, body)

    assert found[0] == ("warning" if "TrainingArguments, and must" in said and "DPO" in said else "error")
    assert said in found[2]


@pytest.mark.parametrize(
    "body",
    [
        MADE + OPTIMIZER + TRAINER.format("optimizers=(opt, None)"),
        STOPPING + MADE + TRAINER.format("callbacks=[EarlyStoppingCallback(3)], data_collator=DataCollatorWithPadding(tok)"),
        MADE + TOKENIZER + TRAINER.format("processing_class=tok"),
        MADE + "opt = torch.optim.AdamW(model.parameters(), lr=1e-4)\n",
        MADE + "from trl import SFTTrainer\nSFTTrainer(model=model, args=TrainingArguments('out'), train_dataset=data)\n",
        LOADED + "model.add_adapter(LoraConfig(r=8), 'default')\n",
        MADE + "model.add_adapter('dpo', LoraConfig(r=8))\n",
        MADE
        + TOKENIZER
        + "model.generate(**tok('a', return_tensors='pt'))\nmodel.generate(tok('a', return_tensors='pt').input_ids)\n",
        "trainer = SFTTrainer(model='org/base', args=SFTConfig('out'), train_dataset=data)\n" + LOADED,
    ],
)
def test_look_alikes(body):
    assert findings(CODE, body) == []


def test_the_libraries_raise_as_the_rule_says(tmp_path):
    model = tiny.load(kind="none")
    args = transformers.TrainingArguments(str(tmp_path), use_cpu=True)
    optimizer = torch.optim.AdamW(model.parameters())
    stop = transformers.EarlyStoppingCallback()

    for refused in (
        lambda: transformers.Trainer(model=model, args=args, optimizers=optimizer),
        lambda: transformers.Trainer(model=model, args=args, callbacks=stop),
        lambda: transformers.Trainer(model=model, args={"output_dir": "out"}),
        lambda: peft.get_peft_model(model, {"r": 8}),
        lambda: transformers.Seq2SeqTrainer(model=model, args=args),
        lambda: trl.DPOTrainer(model=model, args=args, train_dataset=datasets.Dataset.from_list([{"prompt": "a"}])),
        lambda: model.add_adapter("default", peft.LoraConfig(r=8)),
        lambda: torch.optim.AdamW(model.parameters),
        lambda: model.generate(transformers.BatchEncoding({"input_ids": torch.ones(1, 2, dtype=torch.long)})),
    ):
        with pytest.raises((AttributeError, TypeError, ValueError)):
            refused()


def test_a_list_of_rows_is_taken_before_trl_1_10_and_with_unsloth():
    body = MADE + "SFTTrainer(model, train_dataset=[row for row in data])\n"

    assert findings(CODE, body, versions={**NEWEST, "trl": "1.9.0"}) == []
    assert findings(CODE, "from unsloth import FastLanguageModel\n" + body) == []


@pytest.mark.parametrize(
    ("given", "versions"),
    [
        ("tok.apply_chat_template(rows, return_dict=False)", NEWEST),
        ("tok.apply_chat_template(rows, tokenize=False)", NEWEST),
        ("tok.apply_chat_template(rows)['input_ids']", NEWEST),
        ("tok.apply_chat_template(rows).input_ids", NEWEST),
        ("tok.apply_chat_template(rows)", {**NEWEST, "transformers": "4.57.1"}),
    ],
)
def test_what_a_chat_template_makes_depends_on_its_arguments_and_version(given, versions):
    body = MADE + TOKENIZER + f"ids = {given}\nmodel.generate(input_ids=ids)\n"

    assert findings(CODE, body, versions=versions) == []
