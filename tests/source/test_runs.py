"""What a script asks of a run and of the folders that it leaves: what is said, and what the libraries do."""

from __future__ import annotations

import ast

import datasets
import peft
import pytest
import tiny
import torch
import transformers

from kbitlint.source.text.data_flow import data_uses
from kbitlint.upstream.run_contracts import EVALUATED, TRAINED

START = """\
import math, torch
from accelerate import Accelerator
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer, TrainingArguments
base = AutoModelForCausalLM.from_pretrained("m")
model = get_peft_model(base, LoraConfig(r=8))
"""
RUN = "args = TrainingArguments('o'{})\ntrainer = Trainer(model=model, args=args{})\n"
PLAIN, SILENT = RUN.format("", ""), RUN.format(", save_strategy='no'", "")
SHOWN = RUN.format("", ", eval_dataset=rows")
LOGITS = "def logits(scores, labels):\n    return scores.argmax(-1)\n"
METRIC = LOGITS + "def metric(pair):\n    ids, labels = pair\n    {}\n    return {{'accuracy': ({}).mean()}}\n"
SCORED = RUN.format("", ", compute_metrics=metric, preprocess_logits_for_metrics=logits")
LOAD = "other = AutoModelForCausalLM.from_pretrained('m')\n"
MERGED = "merged = model.merge_and_unload()\nmerged.save_pretrained('whole')\n"
TWO = "one = get_peft_model(base, LoraConfig(r=8), adapter_name='a')\none.add_adapter('b', LoraConfig(r={}))\n"
MIX = "one.add_weighted_adapter(['a', 'b'], [0.5, 0.5], 'c', combination_type='linear')\n"
SPEED = "speed = Accelerator()\n{0}model = speed.prepare(model)\n{1}"
OWN = """\
class Own(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs{}("labels")
        outputs = model(**inputs)
        return outputs.loss * 2
Own(model=model, args=TrainingArguments("o"), train_dataset=data).train()
"""
SFT = """\
from trl import SFTConfig, SFTTrainer
data = load_dataset("json", data_files="d.jsonl", split="train")
tokenizer = AutoTokenizer.from_pretrained("m")
"""
TEXTS = "data = data.map(lambda one: {{'text': tokenizer.apply_chat_template(one['m'], tokenize=False{})}})\n"
TUNE = "SFTTrainer(model=model, args=SFTConfig('o'{}), train_dataset=data{}).train()\n"

STAMPED = "stamp = {}\nfolder = f'o-{{stamp}}'\n" + PLAIN.replace("'o'", "output_dir=str(folder)")
LLAMA = SFT.replace('"m"', '"meta-llama/Llama-3.1-8B-Instruct"')


def uses(code):
    text = START + code
    return [(use.kind, use.line - START.count("\n")) for use in data_uses(ast.parse(text), text)]


PAIRS = {
    "no-data": (PLAIN + "trainer.evaluate()\n", "evaluation without data", 3, SHOWN + "trainer.evaluate()\n"),
    "no-metric": (
        SHOWN + "print(trainer.evaluate()['eval_f1'])\n",
        "metric of no run",
        3,
        SHOWN + "trainer.evaluate()['eval_loss']\n",
    ),
    "no-loss": (
        SHOWN + "trainer.train().metrics['loss']\n",
        "metric of no run",
        3,
        SHOWN + "trainer.train().metrics['train_loss']\n",
    ),
    "no-best": (
        SHOWN + "PeftModel.from_pretrained(base, trainer.state.best_model_checkpoint)\n",
        "best checkpoint unknown",
        3,
        RUN.format(", metric_for_best_model='loss'", "")
        + "PeftModel.from_pretrained(base, trainer.state.best_model_checkpoint)\n",
    ),
    "no-checkpoint": (
        SILENT + "trainer.train(resume_from_checkpoint=True)\nmodel.save_pretrained('a')\n",
        "resumed without checkpoints",
        3,
        PLAIN + "trainer.train(resume_from_checkpoint=True)\n",
    ),
    "no-optimizer": (
        RUN.format(", save_only_model=True", "") + "trainer.train(resume_from_checkpoint='o/checkpoint-9')\n",
        "resumed without optimizer",
        3,
        RUN.format(", save_only_model=True", "") + "trainer.train(resume_from_checkpoint=asked)\n",
    ),
    "no-resume": (
        RUN.format(", resume_from_checkpoint='o/checkpoint-9'", "") + "trainer.train()\n",
        "resume argument unread",
        1,
        RUN.format(", resume_from_checkpoint='o/checkpoint-9'", "") + "trainer.train(args.resume_from_checkpoint)\n",
    ),
    "too-soon": (
        SILENT + "model.save_pretrained('a')\ntrainer.train()\nmodel.eval()\n",
        "saved before training",
        3,
        SILENT + "model.save_pretrained('a')\ntrainer.train()\nmodel.save_pretrained('b')\n",
    ),
    "not-at-all": (SILENT + "trainer.train()\n", "nothing saved", 3, SILENT + "trainer.train()\nprint(model(rows))\n"),
    "same-token": (
        METRIC.format("mask = labels != -100", "ids[mask] == labels[mask]") + SCORED,
        "metrics unshifted",
        6,
        METRIC.format("ids, labels = ids[:, :-1], labels[:, 1:]", "ids == labels") + SCORED,
    ),
    "ids-as-logits": (
        METRIC.format("ids = ids.argmax(-1)", "ids[:, :-1] == labels[:, 1:]") + SCORED,
        "argmax of ids",
        5,
        METRIC.format("ids = ids.clip(0)", "ids[:, :-1] == labels[:, 1:]") + SCORED,
    ),
    "no-adapter": (
        "model.set_adapter('b')\n",
        "adapter unknown",
        1,
        "model.load_adapter('d', adapter_name='b')\nmodel.set_adapter('b')\n",
    ),
    "a-merged-one": (
        MERGED + "AutoPeftModelForCausalLM.from_pretrained('./whole')\n",
        "adapter of a merged model",
        3,
        MERGED + "AutoModelForCausalLM.from_pretrained('./whole')\n",
    ),
    "no-tokenizer": (
        MERGED + "AutoTokenizer.from_pretrained('whole')\n",
        "tokenizer not saved",
        3,
        MERGED + "tokenizer.save_pretrained('whole')\nAutoTokenizer.from_pretrained('whole')\n",
    ),
    "other-ranks": (TWO.format(16) + MIX, "ranks that differ", 3, TWO.format(8) + MIX),
    "a-pickle": (
        "torch.save(model, 'a.pt')\ntorch.load('a.pt')\n",
        "model pickled",
        2,
        "torch.save(model.state_dict(), 'a')\ntorch.load('a')\n",
    ),
    "unprepared": (
        SPEED.format("speed.load_state('s')\n", ""),
        "state loaded before prepare",
        2,
        SPEED.format("", "speed.load_state('s')\n"),
    ),
    "popped-labels": (OWN.format(".pop"), "loss of popped labels", 5, OWN.format(".get")),
    "begun-answers": (
        SFT + TEXTS.format(", add_generation_prompt=True") + TUNE.format("", ""),
        "generation prompt learned",
        4,
        SFT + TEXTS.format("") + TUNE.format("", ""),
    ),
    "raw-texts": (
        SFT + TUNE.format(", dataset_kwargs={'skip_prepare_dataset': True}", ""),
        "rows not prepared",
        4,
        SFT + TUNE.format(", dataset_kwargs={'skip_prepare_dataset': True}", ", data_collator=collate"),
    ),
    "another-folder": (
        STAMPED.format("datetime.now()") + "trainer.train(resume_from_checkpoint=True)\n",
        "resumed from a new folder",
        5,
        STAMPED.format("version") + "trainer.train(resume_from_checkpoint=True)\n",
    ),
    "two-first-tokens": (
        LLAMA + TEXTS.format("") + TUNE.format("", ", processing_class=tokenizer"),
        "two first tokens",
        4,
        LLAMA.replace("Llama-3.1-8B-Instruct", "Unknown") + TEXTS.format("") + TUNE.format("", ", processing_class=tokenizer"),
    ),
}


@pytest.mark.parametrize(("code", "kind", "line", "right"), PAIRS.values(), ids=PAIRS)
def test_what_a_run_does_not_give_is_found_and_the_right_twin_is_not(code, kind, line, right):
    assert uses(code) == [(kind, line)]
    assert uses(right) == []


def adapted(name="default", rank=2):
    return peft.get_peft_model(tiny.load(kind="none"), peft.LoraConfig(r=rank, target_modules=["q_proj"]), adapter_name=name)


def trainer(model, folder, **arguments):
    rows = datasets.Dataset.from_list([{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 4)
    plain = {"use_cpu": True, "report_to": [], "max_steps": 2, "save_steps": 2, "disable_tqdm": True} | arguments
    return transformers.Trainer(model, transformers.TrainingArguments(str(folder), **plain), train_dataset=rows)


def test_the_folders_of_a_run_hold_what_is_said(tmp_path):
    adapted("chat").save_pretrained(tmp_path / "named")
    adapted().merge_and_unload().save_pretrained(tmp_path / "merged")
    torch.save(adapted(), tmp_path / "whole.pt")

    for folder in ("named", "merged"):
        with pytest.raises(ValueError, match="adapter_config"):
            peft.PeftModel.from_pretrained(tiny.load(kind="none"), tmp_path / folder)
    for folder in ("named/chat", "merged"):
        with pytest.raises((OSError, ValueError, TypeError, KeyError)):
            transformers.AutoTokenizer.from_pretrained(tmp_path / folder)
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "whole.pt")


def test_adapters_are_asked_for_by_their_names_and_combined_by_their_ranks():
    model = adapted("a")
    with pytest.raises(ValueError, match="not found"):
        model.set_adapter("b")
    model.add_adapter("b", peft.LoraConfig(r=4, target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="same r value"):
        model.add_weighted_adapter(["a", "b"], [0.5, 0.5], "c", combination_type="linear")


def test_what_a_run_returns_and_resumes_from(tmp_path):
    made = trainer(adapted(), tmp_path, save_only_model=True, resume_from_checkpoint=str(tmp_path / "none"))
    result = made.train()

    assert set(result.metrics) <= TRAINED
    assert made.state.best_model_checkpoint is None
    with pytest.raises(ValueError, match="requires an eval_dataset"):
        made.evaluate()
    assert {one.removeprefix("eval_") for one in made.evaluate(made.train_dataset)} - {"epoch"} <= EVALUATED
    with pytest.raises(ValueError, match="No valid checkpoint"):
        trainer(adapted(), tmp_path / "new", save_strategy="no").train(resume_from_checkpoint=True)
    again = trainer(adapted(), tmp_path / "more", max_steps=4)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    steps = {int(state["step"]) for state in again.optimizer.state.values()}
    assert (again.state.global_step, steps) == (4, {2})


def test_predictions_are_compared_with_the_token_after_them():
    model = tiny.load(kind="none")
    ids = torch.tensor([[1, 2, 3, 4]])
    loss = model(ids, labels=ids)
    shifted = torch.nn.functional.cross_entropy(loss.logits[0, :-1].float(), ids[0, 1:])

    assert loss.loss.item() == pytest.approx(shifted.item())
