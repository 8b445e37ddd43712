"""Data that does not fit the code that takes it: what is said of a script, and what the libraries do with such data."""

from __future__ import annotations

import ast
from unittest.mock import MagicMock

import datasets
import pytest
import tiny
import transformers

from kbitlint.source.text.data_flow import data_uses

START = """\
from datasets import Dataset, load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, default_data_collator
from trl import GRPOTrainer, SFTConfig, SFTTrainer
tokenizer = AutoTokenizer.from_pretrained("m")
data = load_dataset("json", data_files="d.jsonl", split="train")
"""
TRAIN = "Trainer(model=model, args=TrainingArguments('o'), train_dataset=data{}).train()\n"
STREAMED = "d = load_dataset('x', split='train', streaming=True)\n"
COLLATE = "def collate(rows):\n    return processor([row['question'] for row in rows])\n"
FORMAT = "def form(rows):\n    texts = []\n    for one in rows['text']:\n        texts.append(one)\n    return {}\n"
SFT = "SFTTrainer(model=model, args=SFTConfig('o'), train_dataset=data, formatting_func=form)\n"
REWARD = "import re\ndef reward(completions, **kwargs):\n    return [{} for one in completions]\n"
GRPO = "GRPOTrainer(model=m, reward_funcs=[reward], train_dataset=data)\n"
CHAT = "data = data.map(lambda row: {'prompt': [{'role': 'user', 'content': row['q']}]})\n"
TEXTS = "data = data.map(lambda row: {'prompt': f\"Q: {row['q']}\"})\n"
MARKED = "tokenizer.chat_template = '{%{} for m in messages %}{{ m.content }}{% endfor %}'\n"
ASSISTANT = "SFTTrainer(model=model, args=SFTConfig('o', assistant_only_loss=True), train_dataset=data)\n"
TALK = """\
words = AutoTokenizer.from_pretrained("meta-llama/Llama-3.1-8B")
data = Dataset.from_list([{"messages": [{"role": "user", "content": "a"}]}] * 4)
"""
SPOKEN = "SFTTrainer(model=model, args=SFTConfig('o'), train_dataset=data, processing_class=words{})\n"
PADDED = """\
def tokenize(row):
    made = tokenizer(row['text'], padding={}, max_length=512)
    made['labels'] = made['input_ids'].copy()
    return made
"""
BEST = "args = TrainingArguments('o', load_best_model_at_end=True, eval_strategy='epoch', metric_for_best_model='{}')\n"
METRICS = "def metrics(pair):\n    return {'accuracy': 1}\nTrainer(model=m, args=args, compute_metrics=metrics).train()\n"


def uses(code):
    text = START + code
    return [(use.kind, use.line - START.count("\n")) for use in data_uses(ast.parse(text), text)]


@pytest.mark.parametrize(
    ("code", "kind", "line", "right"),
    [
        (STREAMED + TRAIN.replace("=data", "=d").format(""), "streamed without max_steps", 2,
         STREAMED + TRAIN.replace("=data", "=d").replace("'o'", "'o', max_steps=1").format("")
         ),
        (COLLATE + TRAIN.format(", data_collator=collate"), "removed columns", 3,
         COLLATE + TRAIN.replace("'o'", "'o', remove_unused_columns=False").format(", data_collator=collate")),
        (FORMAT.format("texts") + SFT, "list of texts", 1, FORMAT.format("texts[0]") + SFT),
        (CHAT + REWARD.format("len(re.findall('a', one))") + GRPO, "messages as text", 4,
         CHAT + REWARD.format("len(re.findall('a', one[0]['content']))") + GRPO),
        (TEXTS + REWARD.format("len(one[0]['content'])") + GRPO, "text as messages", 4,
         TEXTS + REWARD.format("len(one)") + GRPO),
        (TALK + SPOKEN.format(""), "messages without a template", 3,
         TALK + SPOKEN.format("").replace("SFTConfig('o'", "SFTConfig('o', chat_template_path='m'")),
        (MARKED.replace("{%{}", "{%") + ASSISTANT, "template without marks", 2,
         MARKED.replace("{%{}", "{% generation %}{%") + ASSISTANT),
        ("def ids(row):\n    return {'input_ids': tokenizer.apply_chat_template(row['m'])}\n", "encoding as token ids", 2,
         "def ids(row):\n    return {'input_ids': tokenizer.apply_chat_template(row['m'], return_dict=False)}\n"),
        ("data.map(lambda rows: tokenizer(rows['a'] + tokenizer.eos_token), batched=True)\n", "column as text", 1,
         "data.map(lambda row: tokenizer(row['a'] + tokenizer.eos_token))\n"),
        ("data.map(lambda rows: {'text': f\"{rows['a']}\"}, batched=True)\n", "text for a batch", 1,
         "data.map(lambda rows: {'text': [f'{one}' for one in rows['a']]}, batched=True)\n"),
        ("AutoModelForCausalLM\ndata = data.map(lambda row: tokenizer(row['a']))\n" + TRAIN.format(""), "no labels", 3,
         "AutoModelForCausalLM\ndata = data.map(lambda row: make(row['a']))\n" + TRAIN.format("")),
        (BEST.format("f1") + METRICS, "unknown metric", 1, BEST.format("accuracy") + METRICS),
        (PADDED.format("'max_length'") + TRAIN.format(""), "labels of padding", 3, PADDED.format("False") + TRAIN.format("")),
        ("AutoModelForCausalLM\ndef item(x):\n    return {'input_ids': x[:-1], 'labels': x[1:]}\n" + TRAIN.format(""),
         "labels shifted", 3,
         "AutoModelForCausalLM\ndef item(x):\n    return {'input_ids': x[:-1], 'labels': x[:-1]}\n" + TRAIN.format("")),
    ],
)  # fmt: skip
def test_data_that_does_not_fit_is_found_and_its_right_twin_is_not(code, kind, line, right):
    assert uses(code) == [(kind, line)]
    assert uses(right) == []


SPLITS = "both = load_dataset('x')\n"
STREAM = "rows = load_dataset('x', split='train', streaming=True)\n"
STOP = (
    "from transformers import EarlyStoppingCallback\nargs = TrainingArguments('o', {})\n"
    "Trainer(model=m, args=args, callbacks=[EarlyStoppingCallback(3)]).train()\n"
)
LOSS = (
    "AutoModelForCausalLM\ndef loss(outputs, labels, num_items_in_batch=None):\n    return {}\n"
    "Trainer(model=m, compute_loss_func=loss).train()\n"
)
ONE = "def reward(completions, **kwargs):\n    score = 0.0\n    score += 1\n    return {}\n" + GRPO
SFT = (
    "from trl import SFTConfig, SFTTrainer\nd = load_dataset('x', split='train').select_columns([{}])\n"
    "SFTTrainer(model=m, train_dataset=d, args=SFTConfig('o', {}))\n"
)
DPO = (
    "from trl import DPOTrainer\nd = data.map(lambda row: {{'prompt': 'a', 'chosen': 'b'}}, remove_columns={})\n"
    "DPOTrainer(model=m, train_dataset=d)\n"
)

PROMPTS = (
    "def rows():\n    own = load_dataset('x', split='train')\n"
    "    return own.map(lambda row: {{'{}': 'a', 'a': 'b'}}, remove_columns=own.column_names)\n"
    "def reward(completions, {}, **kwargs):\n    return [len(one) for one in completions]\ndata = rows()\n"
)
FILLED = (
    "def reward(completions, **kwargs):\n    scores = []\n    for one in completions:\n        if one:\n"
    "            scores.append(1.0)\n        {}\n    return scores\n"
)
MADE_BY = "def maker():\n    return reward\nGRPOTrainer(model=m, reward_funcs=[maker()], train_dataset=data)\n"
PAIRS = (
    "from sentence_transformers import SentenceTransformerTrainer, losses\n"
    "d = load_dataset('x', split='train').select_columns(['a', 'b', '{}'])\nloss = losses.CoSENTLoss(model)\n"
    "SentenceTransformerTrainer(model=model, train_dataset=d, loss=loss).train()\n"
)
HELPED = (
    "def score(text):\n    return len(re.findall('a', text))\n"
    "def reward(completions, **kwargs):\n    return [score(one{}) for one in completions]\n"
)
CAUGHT = (
    "def reward(completions, **kwargs):\n    found = []\n    for one in completions:\n        try:\n"
    "            found.append(len(json.loads(one)))\n        except Exception:\n            found.append(0.0)\n"
    "    return found\n"
)
TURNS = (
    "words = AutoTokenizer.from_pretrained('{}')\ndef render(row, words):\n"
    "    text = words.apply_chat_template(row['m'], tokenize=False{})\n    return {{'text': text}}\n"
    "d = data.map(render, fn_kwargs={{'words': words}})\n"
    "SFTTrainer(model=m, args=SFTConfig('o'), train_dataset=d, processing_class=words)\n"
)
WHOLE = (
    "from trl import SFTConfig, SFTTrainer\nd = load_dataset('x', split='train').select_columns(['{}'])\n"
    "SFTTrainer(model=m, train_dataset=d, args=SFTConfig('o', {}), processing_class=p)\n"
)
REFERENCE = (
    "from trl import DPOConfig, DPOTrainer\nDPOTrainer(model=m, args=DPOConfig('o', max_steps=9{}), train_dataset=rows)\n"
)


@pytest.mark.parametrize(
    ("code", "kind", "line", "right"),
    [
        (SPLITS + TRAIN.replace("=data", "=both").format(""), "splits for rows", 2,
         SPLITS + TRAIN.replace("=data", "=both['train']").format("")),
        (STREAM + "len(rows)\n", "length of a stream", 2, STREAM + "len(data)\n"),
        (STOP.format("metric_for_best_model='loss'"), "early stopping without metric", 3,
         STOP.format("load_best_model_at_end=True, eval_strategy='epoch'")),
        (STOP.format("eval_strategy='epoch'"), "early stopping without metric", 3,
         STOP.format("metric_for_best_model='loss', eval_strategy='epoch'")),
        (STOP.format("eval_strategy='epoch', save_strategy='epoch'"), "early stopping without metric", 3,
         STOP.format("eval_strategy='epoch', save_strategy='best'")),
        (SFT.format("'prompt', 'answer'", ""), "column missing", 3, SFT.format("'prompt', 'completion'", "")),
        (SFT.format("'text'", "completion_only_loss=True"), "completions of whole texts", 3,
         SFT.format("'prompt', 'completion'", "completion_only_loss=True")),
        (LOSS.format("outputs.loss"), "loss of no labels", 3, LOSS.format("mean(outputs.logits, labels)")),
        (ONE.format("score"), "one reward for a batch", 4, ONE.format("[score]")),
        (DPO.format("data.column_names"), "column missing", 3, DPO.format("['text']")),
        (PROMPTS.format("question", "a") + GRPO, "column missing", 7, PROMPTS.format("prompt", "a") + GRPO),
        (PROMPTS.format("prompt", "solution") + GRPO, "column of rewards missing", 4, PROMPTS.format("prompt", "a") + GRPO),
        (REWARD.replace("(completions", "(completions, prompt").format("len(one)") + GRPO, "column of rewards missing", 2,
         REWARD.replace("(completions", "(completions, prompts").format("len(one)") + GRPO),
        (REWARD.replace("completions]", "completions if one]").format("len(one)") + GRPO, "rewards left out", 3,
         REWARD.format("len(one) if one else 0") + GRPO),
        (FILLED.format("") + GRPO, "rewards left out", 3, FILLED.format("else:\n            scores.append(0.0)") + GRPO),
        (FILLED.format("") + MADE_BY, "rewards left out", 3, FILLED.format("else:\n            scores.append(0.0)") + MADE_BY),
        (REWARD.format("{{'score': len(one)}}") + GRPO, "reward of no number", 3, REWARD.format("len(one)") + GRPO),
        (REWARD.format("0.5") + GRPO, "equal rewards", 3, REWARD.format("0.5 if one else 0.0") + GRPO),
        (WHOLE.format("text", "assistant_only_loss=True"), "assistant of whole texts", 3,
         WHOLE.format("messages", "assistant_only_loss=True")),
        (DPO.replace("from trl", "from trl.experimental.orpo").replace("DPO", "ORPO").format("data.column_names"),
         "column missing", 3, DPO.replace("'b'", "'b', 'rejected': 'c'").format("data.column_names")),
        (PAIRS.format("similarity"), "pairs without labels", 3, PAIRS.format("score")),
        (CHAT + HELPED.format("") + GRPO, "messages as text", 3, CHAT + HELPED.format("[0]['content']") + GRPO),
        (CHAT + "def reward(completions, **kwargs):\n    return [len(json.loads(one)) for one in completions]\n" + GRPO,
         "messages as text", 3, CHAT + CAUGHT + GRPO),
        (TURNS.format("Qwen/Qwen3-8B", ", add_generation_prompt=True"), "generation prompt learned", 3,
         TURNS.format("Qwen/Qwen3-8B", "")),
        (TURNS.format("meta-llama/Llama-3.1-8B-Instruct", ""), "two first tokens", 3,
         TURNS.replace("False", "False).removeprefix(words.bos_token", 1).format("meta-llama/Llama-3.1-8B-Instruct", "")),
        (REWARD.format("len(one)") + GRPO.replace("[reward]", "[reward([])]"), "reward called", 4,
         REWARD.format("len(one)") + GRPO),
        (STREAM + REFERENCE.format(", precompute_ref_log_probs=True"), "streamed reference", 3, STREAM + REFERENCE.format("")),
    ],
)  # fmt: skip
def test_what_a_trainer_is_given_and_cannot_use(code, kind, line, right):
    assert uses(code) == [(kind, line)]
    assert uses(right) == []


def test_a_call_over_lines_that_rebinds_its_model_is_followed_to_an_end():
    assert uses("model = get_peft_model(\n    model,\n    LoraConfig(),\n)\n" + TRAIN.format("")) == []


BUILT = """\
def build(limit):
    raw = load_dataset('x', split='train')
    own = raw.column_names
    train = raw.map(lambda row: dict({}=row['a'], gold=row['b']), remove_columns=own)
    if limit:
        train = train.select(range(limit))
    return train, train.select(range(9))
class Reward:
    def __call__(self, completions, {}, **kwargs):
        found = []
        for one, right in zip(completions, gold):
            try:
                same = int(one) == int(right)
            except ValueError:
                {}
            found.append(1.0 if same else 0.0)
        return found
def main():
    rows, test = build(3)
    GRPOTrainer(model=m, reward_funcs=[Reward()], args=args, train_dataset=rows)
main()
"""


def test_data_is_followed_through_functions_tuples_and_fewer_rows():
    assert uses(BUILT.format("prompt", "gold", "same = False")) == []
    assert uses(BUILT.format("question", "gold", "same = False")) == [("column missing", 20)]
    assert uses(BUILT.format("prompt", "answer", "same = False")) == [("column of rewards missing", 9)]
    assert uses(BUILT.format("prompt", "gold", "continue")) == [("rewards left out", 11)]


def test_padding_of_a_tokenizer_without_its_token():
    code = (
        "from transformers import AutoTokenizer\ntok = AutoTokenizer.from_pretrained('openai-community/gpt2')\n"
        "tok(text, padding=True)\n"
    )
    padded = code.replace("tok(", "tok.pad_token = tok.eos_token\ntok(")

    assert [use.kind for use in data_uses(ast.parse(code), code)] == ["padding without a token"]
    assert list(data_uses(ast.parse(padded), padded)) == []


def train(data, **given):
    arguments = given.pop("arguments", {})
    args = transformers.TrainingArguments(use_cpu=True, report_to=[], num_train_epochs=1, output_dir="unused", **arguments)
    transformers.Trainer(model=tiny.load(kind="none"), args=args, train_dataset=data, **given).train()


ROWS = datasets.Dataset.from_list([{"input_ids": [1, 2, 3]}] * 2)
LABELLED = ROWS.map(lambda row: {"labels": row["input_ids"]})


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda: train(ROWS), ValueError, "did not return a loss"),
        (lambda: train(ROWS.to_iterable_dataset()), ValueError, "max_steps has to be specified"),
        (lambda: train(ROWS.rename_column("input_ids", "question"), data_collator=list), ValueError, "No columns in the data"),
        (lambda: train(datasets.DatasetDict(train=ROWS)), KeyError, "select a split"),
        (lambda: len(ROWS.to_iterable_dataset()), TypeError, "no len"),
        (lambda: ROWS.to_iterable_dataset().map(len, num_proc=2), TypeError, "num_proc"),
        (lambda: train(LABELLED, callbacks=[transformers.EarlyStoppingCallback()]), AssertionError, "metric_for_best_model"),
        (lambda: train(LABELLED, compute_loss_func=lambda outputs, *_, **more: outputs.loss), TypeError, "NoneType"),
        (lambda: ROWS.map(lambda rows: {"text": f"{rows['input_ids']}"}, batched=True), TypeError, "batched=True"),
        (lambda: ROWS.map(lambda rows: rows["input_ids"] + "</s>", batched=True), TypeError, "concatenate list"),
    ],
)  # fmt: skip
def test_the_libraries_refuse_such_data(run, error, message):
    with pytest.raises(error, match=message):
        run()


def test_a_best_metric_that_no_evaluation_returns_ends_the_training(tmp_path):
    data = ROWS.map(lambda row: {"labels": row["input_ids"]})
    best = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch", "metric_for_best_model": "f1"}
    args = transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to=[], num_train_epochs=1, **best)
    with pytest.raises(KeyError, match="eval_f1"):
        transformers.Trainer(model=tiny.load(kind="none"), args=args, train_dataset=data, eval_dataset=data).train()


def test_rows_that_differ_in_length_and_labels_that_are_decoded_with_their_marks():
    map_, train_ = "data = data.map(lambda row: tokenizer(row['label']))\n", "Trainer(model=m, args=TrainingArguments('o'){})\n"
    rows = map_ + train_.format(", train_dataset=data")
    metrics = "def metrics(pair):\n    scores, labels = pair\n    return score(tokenizer.batch_decode({}))\n" + train_.format(
        ", eval_dataset=data, data_collator=collate, compute_metrics=metrics"
    )
    code = (
        "from transformers import DataCollatorForSeq2Seq\ncollate = DataCollatorForSeq2Seq(tokenizer)\n"
        + metrics
        + ".evaluate()"
    )

    assert uses(rows) == [("rows of unequal length", 2)]
    assert uses(rows.replace("['label'])", "['label'], padding=True)")) == []
    assert uses(code.format("labels").replace("\n.evaluate", ".evaluate")) == [("ignored labels decoded", 5)]
    assert uses(code.format("clean(labels)").replace("\n.evaluate", ".evaluate")) == []
    called = code.format("pair.label_ids").replace("\n.evaluate", ".evaluate").replace("    scores, labels = pair\n", "{}")
    called = called.replace("def metrics(pair)", "class Metric:\n  def __call__(self, pair)").replace("=metrics", "=Metric()")
    scores = "    scores = np.where(pair.predictions != -100, pair.predictions, 0)\n"
    assert uses(called.format(scores)) == [("ignored labels decoded", 6)]
    assert uses(called.format(scores + "    pair.label_ids[pair.label_ids == -100] = 0\n")) == []


@pytest.mark.parametrize(
    ("reward", "error", "message"),
    [
        (lambda completions, **_: [1.0 for one in completions if one == "a"], ValueError, "returned 1 rewards"),
        (lambda completions, **_: [{"score": 1.0} for _ in completions], TypeError, "not dict"),
        (lambda completions, solution, **_: [1.0 for _ in completions], TypeError, "solution"),
        (lambda completions, prompt, **_: [1.0 for _ in completions], TypeError, "prompt"),
    ],
)
def test_a_trainer_of_trl_refuses_such_rewards(reward, error, message):
    trl = pytest.importorskip("trl", "1.16")
    trainer = MagicMock(
        reward_funcs=[reward], reward_processing_classes=[None], reward_func_names=["reward"], environments=None
    )
    trainer.accelerator.device = "cpu"

    with pytest.raises(error, match=message):
        trl.GRPOTrainer._calculate_rewards(trainer, [{"prompt": "p", "answer": "b"}] * 2, ["p"] * 2, ["a", "b"], [[1]] * 2)
