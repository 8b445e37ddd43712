from __future__ import annotations

import pytest
import tiny
import torch
import transformers
from script_cases import LOADED, RECIPE, findings
from trl_trainers import tokenizer

import kbitlint

CODE = "KB714"
END = 1


def trainer(folder, *, pad_is_end, rows=None):
    special = {"eos_token": "1", "pad_token": "1" if pad_is_end else "0"}
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer()._tokenizer, **special)
    collate = transformers.DataCollatorForLanguageModeling(made, mlm=False)
    args = transformers.TrainingArguments(str(folder), use_cpu=True, report_to=[], max_steps=1)
    data = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows or ([5, 6, 7, END], [8, 9, END])]
    model = tiny.with_lora(tiny.load())
    return transformers.Trainer(model, args, train_dataset=data, data_collator=collate, processing_class=made)


def found(target):
    report = kbitlint.check(target, select=CODE, trace=False)
    assert not report.crashes
    return [(v.at.path, v.severity.value, v.message) for v in report.violations]


def labels_of(made):
    return made.data_collator([made.train_dataset[0], made.train_dataset[1]])["labels"]


def test_an_end_that_is_the_pad_token_is_masked(tmp_path):
    made = trainer(tmp_path, pad_is_end=True)

    assert found(made) == [("labels", "warning", "none of the 2 end tokens of the first 2 sequences has a label")]
    assert not (labels_of(made) == END).any()


def test_another_pad_token_leaves_the_end_a_label(tmp_path):
    made = trainer(tmp_path, pad_is_end=False)

    assert found(made) == []
    assert int((labels_of(made) == END).sum()) == 2


def test_sequences_without_an_end_are_not_flagged(tmp_path):
    assert found(trainer(tmp_path, pad_is_end=True, rows=([5, 6, 7], [8, 9]))) == []


def test_a_model_alone_has_no_data():
    assert kbitlint.check(tiny.load(), select=CODE).violations == ()
    assert torch.is_tensor(tiny.load().lm_head.weight)


def test_batches_without_labels_are_skipped(tmp_path):
    made = trainer(tmp_path, pad_is_end=True)
    made.data_collator = lambda rows: {"input_ids": torch.tensor([row["input_ids"][:3] for row in rows])}

    assert [skip.reason for skip in kbitlint.check(made, select=CODE, trace=False).skips] == [
        "no trainer whose first batch has labels is at hand"
    ]


TOKENIZER = "tok = AutoTokenizer.from_pretrained('org/base')\ntok.pad_token = tok.eos_token\n"
ENDS = "data = data.map(lambda row: tok(row['text'] + tok.eos_token))\n"
COLLATES = "collate = DataCollatorForLanguageModeling(tok, mlm=False)\n"
TRAINS = RECIPE.replace("train_dataset=data", "train_dataset=data, data_collator=collate")
SCRIPT = TOKENIZER + ENDS + COLLATES + TRAINS


@pytest.mark.parametrize(
    "script",
    [
        SCRIPT,
        SCRIPT.replace("(tok, mlm", "(tokenizer=tok, mlm"),
        SCRIPT.replace("tok.pad_token = tok.eos_token", "tok.pad_token_id = tok.eos_token_id"),
        SCRIPT.replace("'org/base')\ntok", "'org/base', add_eos_token=True)\ntok").replace(" + tok.eos_token", ""),
        SCRIPT.replace("data = ", "END = tok.eos_token\ndata = ").replace("+ tok.eos_token", "+ END"),
    ],
)
def test_a_script_that_pads_with_the_end_and_lets_the_collator_make_labels(script):
    assert findings(CODE, script) == [
        (
            "warning",
            next(line for line in script.split("\n") if line.startswith("collate")),
            "DataCollatorForLanguageModeling masks every pad token, and the pad token of tok is its end token",
        )
    ]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(SCRIPT.replace("= tok.eos_token\n", "= tok.unk_token\n"), id="another pad token"),
        pytest.param(SCRIPT.replace("tok.pad", "if tok.pad_token is None:\n    tok.pad", 1), id="the tokenizer may have one"),
        pytest.param(SCRIPT.replace(" + tok.eos_token", ""), id="no end in the data"),
        pytest.param(SCRIPT.replace("LanguageModeling", "Seq2Seq").replace(", mlm=False", ""), id="labels of the data"),
        pytest.param(SCRIPT.replace("mlm=False", "mlm=True"), id="masked tokens"),
        pytest.param(SCRIPT + "tok.pad_token = '<pad>'\n", id="set twice"),
        pytest.param(SCRIPT.replace(ENDS, ENDS + "tok.add_special_tokens({'pad_token': '<pad>'})\n"), id="a new token"),
        pytest.param(SCRIPT.replace("(tok, mlm", "(other_tok, mlm"), id="another tokenizer"),
        pytest.param(SCRIPT.replace(ENDS, ENDS + "tok.apply_chat_template(rows)\n"), id="turns that end otherwise"),
        pytest.param(SCRIPT.replace(TRAINS, LOADED), id="no training"),
    ],
)
def test_scripts_whose_ends_may_be_learned(script):
    assert findings(CODE, script) == []
