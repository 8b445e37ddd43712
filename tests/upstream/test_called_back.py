"""The calls that the installed transformers and TRL really make of a script's functions, against the rows of the table."""

from __future__ import annotations

import inspect

import pytest
import tiny
import torch
import transformers
import trl_trainers
from script_cases import NEWEST, findings

from kbitlint.upstream.called_back import CALLBACK_METHODS, TRAINER_ARGUMENTS, TRAINER_METHODS, TRL_ARGUMENTS

ROWS = [{"input_ids": torch.arange(16), "labels": torch.arange(16)} for _ in range(4)]


def heard(calls, name, function):
    """Return a function that notes how it is called, and then calls the function."""

    def noted(*given, **named):
        calls.setdefault(name, (len(given), frozenset(named)))
        return function(*given, **named)

    return noted


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Return (positional arguments, keywords) of the first call of each function, in real runs with every event."""
    found, folder = {}, tmp_path_factory.mktemp("out")
    callback = transformers.TrainerCallback()
    for row in CALLBACK_METHODS:
        setattr(callback, row.name, heard(found, row.name, getattr(callback, row.name)))
    args = transformers.TrainingArguments(
        str(folder), use_cpu=True, report_to=[], max_steps=1, logging_steps=1, eval_strategy="steps", eval_steps=1,
        save_steps=1, disable_tqdm=True, gradient_accumulation_steps=2, per_device_train_batch_size=2,
    )  # fmt: skip
    trainer = transformers.Trainer(
        tiny.with_lora(tiny.prepared()), args, train_dataset=ROWS, eval_dataset=ROWS, callbacks=[callback],
        data_collator=heard(found, "data_collator", transformers.default_data_collator),
        compute_loss_func=heard(found, "compute_loss_func", lambda outputs, labels, **_: outputs.logits.mean()),
        compute_metrics=heard(found, "compute_metrics", lambda _: {}),
        preprocess_logits_for_metrics=heard(found, "preprocess_logits_for_metrics", lambda logits, _: logits),
    )  # fmt: skip
    for row in TRAINER_METHODS:
        setattr(trainer, row.name, heard(found, row.name, getattr(trainer, row.name)))
    trainer.train()
    sft = trl_trainers.RECIPES["SFTTrainer"][1]
    sft["formatting_func"] = heard(found, "formatting_func", lambda _: "one two")
    try:
        trl_trainers.build("SFTTrainer", folder)
    finally:
        del sft["formatting_func"]
    grpo = trl_trainers.RECIPES["GRPOTrainer"][1]
    usual, grpo["reward_funcs"] = grpo["reward_funcs"], heard(found, "reward_funcs", trl_trainers.reward)
    try:
        trl_trainers.build("GRPOTrainer", folder, max_steps=1).train()
    finally:
        grpo["reward_funcs"] = usual
    return found


ALL = TRAINER_METHODS + CALLBACK_METHODS + TRAINER_ARGUMENTS + TRL_ARGUMENTS


def test_each_row_is_the_call_that_is_made(calls):
    assert {row.name: (row.positional, frozenset(row.keywords)) for row in ALL if not row.more} == {
        row.name: calls[row.name] for row in ALL if not row.more
    }
    for row in (row for row in ALL if row.more):
        positional, keywords = calls[row.name]
        assert positional == row.positional
        assert keywords > set(row.keywords)


#: parameters after those that a function has at its place
FORMS = [
    "{most}", "{all}", "{all}, more", "{all}, more=None", "{all}, *, more", "*given", "{all}, num_items_in_batch",
    "{all}, num_items_in_batch=None", "{all}, *, num_items_in_batch", "{all}, **rest", "{most}, **rest", "*given, **rest",
    "{all}, more, **rest", "{all}, /", "{all}, num_items_in_batch=None, /",
]  # fmt: skip


@pytest.mark.parametrize("row", [row for row in ALL if not row.more], ids=lambda row: row.name)
def test_a_form_is_refused_where_python_refuses_it(calls, row):
    positional, keywords = calls[row.name]
    method = row in TRAINER_METHODS
    expected, found = [], []
    for form in FORMS:
        places = [f"a{index}" for index in range(positional)]
        parameters = form.format(all=", ".join(places), most=", ".join(places[:-1])).strip(", ")
        if parameters.startswith("/"):
            continue
        try:
            inspect.signature(eval(f"lambda {parameters}: None")).bind(*places, **dict.fromkeys(keywords))  # noqa: S307
        except TypeError:
            expected.append(form)
        own = f"def own({parameters}): ...\nTrainer({row.name}=own)"
        if row in TRL_ARGUMENTS:
            own = own.replace("Trainer", "SFTTrainer")
        text = f"class Own(Trainer):\n    def {row.name}(self, {parameters}): ...\n" if method else own
        if findings("KB560", text):
            found.append(form)
    assert found == expected
    assert expected


def test_functions_that_get_changing_keywords_take_all_of_them(calls):
    for row in CALLBACK_METHODS:
        start = "from transformers import TrainerCallback\nclass Own(TrainerCallback):\n"
        fine = f"    def {row.name}(self, args, state, control, **kwargs): ...\n"
        assert findings("KB560", start + fine) == []
        assert len(findings("KB560", start + fine.replace(", **kwargs", ", model=None"))) == 1
    trained = "from trl import GRPOTrainer\n{}\nGRPOTrainer('m', reward_funcs=[own], train_dataset=data).train()\n"
    assert findings("KB560", trained.format("def own(completions, answer, **kwargs): ...")) == []
    narrow = trained.format("def own(prompts, completions): ...")
    assert [severity for severity, *_ in findings("KB560", narrow)] == ["error"]
    assert findings("KB560", narrow, versions={**NEWEST, "trl": "0.17.0"}) == []
