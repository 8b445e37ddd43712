"""Columns of data sets and their forms: what is said of a script, and what the libraries do with such rows."""

from __future__ import annotations

import ast
import inspect

import datasets
import pytest
import tiny
import tokenizers
import torch
import transformers

from kbitlint.source.text.bindings import Bindings
from kbitlint.source.text.data_flow import data_uses
from kbitlint.source.text.row_functions import RowFunction
from kbitlint.source.text.row_sets import RowSets
from kbitlint.upstream.data_contracts import CONTRACTS, FORWARD

START = """\
from datasets import Dataset, load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, default_data_collator
from transformers import DataCollatorForLanguageModeling, DataCollatorForSeq2Seq, DataCollatorWithPadding
from trl import GRPOTrainer, SFTConfig, SFTTrainer
tokenizer = AutoTokenizer.from_pretrained("m")
model = AutoModelForCausalLM.from_pretrained("m")
data = load_dataset("json", data_files="d.jsonl", split="train")
args = TrainingArguments("o")
"""
TRAIN = "Trainer(model=model, args=args, train_dataset=data, data_collator={}).train()\n"
PLAIN, PAD = TRAIN.format("default_data_collator"), TRAIN.format("DataCollatorWithPadding(tokenizer)")
CAUSAL, SEQ = (
    TRAIN.format("DataCollatorForLanguageModeling(tokenizer, mlm=False)"),
    TRAIN.format("DataCollatorForSeq2Seq(tokenizer)"),
)
ANSWER = """\
def row(one):
    prompt = tokenizer(one["prompt"])["input_ids"]
    answer = tokenizer(one["answer"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}
data = data.map(row, remove_columns=data.column_names)
"""
WHOLE = """\
def row(one):
    made = tokenizer(one["text"], padding="max_length", max_length=64)
    made["labels"] = [token if mask else -100 for token, mask in zip(made["input_ids"], made["attention_mask"])]
    return made
"""
CHARACTERS = """\
def row(one):
    prompt = f"Q: {{one['q']}} A: "
    made = tokenizer(prompt + one["a"])
    {}
    return made
data = data.map(row, remove_columns=data.column_names)
"""
CUT = "made['labels'] = [-100] * {0} + made['input_ids'][{0}:]"
EACH = "made['labels'] = [-100 if at < {} else one for at, one in enumerate(made['input_ids'])]"
LEFT = """\
tokenizer.padding_side = "{}"
def row(one):
    prompt = tokenizer(one["prompt"])["input_ids"]
    made = tokenizer(one["prompt"] + one["answer"], padding="max_length", max_length=64)
    labels = made["input_ids"].copy()
    labels[: len(prompt)] = [-100] * len(prompt)
    made["labels"] = labels
    return made
data = data.map(row, remove_columns=["prompt", "answer"])
"""
CHUNKS = """\
words = data.map(lambda rows: tokenizer(rows["text"]), batched=True{})
def group(rows):
    ids = sum(rows["input_ids"], [])
    parts = [ids[at : at + 8] for at in range(0, len(ids), 8)]
    return {{"input_ids": parts, "labels": parts}}
data = words.map(group, batched=True, remove_columns=["attention_mask"])
"""
CLASS = """\
class Rows:
    def __len__(self):
        return 4
    def __getitem__(self, at):
        made = tokenizer("a", padding="max_length", max_length=64, return_tensors="pt")
        ids, mask = made["input_ids"]{0}, made["attention_mask"]{0}
        return {1}
data = Rows()
"""
ITEM = '{"input_ids": ids, "attention_mask": mask, "labels": ids.clone()}'
WEIGHTS = """\
class Weighted(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        weight = inputs.pop("weight")
        return (model(**inputs).loss * weight).mean()
def row(one):
    made = tokenizer(one["text"], padding="max_length", max_length=64)
    return {**made, "labels": made["input_ids"], "weight": 1.0}
data = data.map(row, remove_columns=data.column_names)
"""
OWN = "Weighted(model=model, args=args, train_dataset=data, data_collator=default_data_collator).train()\n"
LIST = "data = Dataset.from_list([{'question': 'a', 'answer': 'b'}] * 4)\n"
TOKENS = "data = data.map(lambda one: tokenizer(one['text']), remove_columns=['text'])\n"
REWARD = "def reward(completions, solution, **more):\n    return [len(one) for one in completions]\n"
ASK = "data = data.map(lambda one: {{'{}': one['q'], '{}': one['a']}}, remove_columns=data.column_names)\n"
GRPO = "GRPOTrainer(model=model, reward_funcs=[reward], train_dataset=data)\n"
EVAL = f"both = load_dataset('json', data_files=files)\ndata = both['train']\n{TOKENS}test = both['test']{{}}\n"


TEXT = "data = data.map(lambda one: tokenizer(one['text']))\n"
STORED = "def row(one):\n    one['input_ids'] = tokenizer(one['text'])['input_ids']\n"
ROW, SHOWN = "data = data.map(row)\n", "train_dataset=data, eval_dataset=test"
FORMAT = WHOLE + ROW + "data.set_format('torch', columns=['input_ids'])\n"
LAZY = WHOLE + "data = data.with_transform(row)\n"
KEPT = "args = TrainingArguments('o', remove_unused_columns=False)\n"
EACH_EPOCH = "args = TrainingArguments('o', eval_strategy='epoch')\n"
ANSWERS = "data = data.map(lambda one: tokenizer(one['answer']), remove_columns=['{}'])\n"
LABEL = "data = data.map(lambda one: tokenizer(one['text'], padding='max_length')).rename_column('label', '{}')\n"
BY_ONE = "args = TrainingArguments('o', per_device_train_batch_size=1)\n"

LOOP = "from torch.utils.data import DataLoader\nloader = DataLoader(data, batch_size=4{})\n"
EACH_ROW = "data = data.map(lambda one: tokenizer(one['text']{}){})\n"
OBJECT = """\
class Rows:
    def __init__(self):
        self.words = AutoTokenizer.from_pretrained("m")
        self.words.padding_side = "{}"
    def __call__(self, one):
        made = self.words(one["prompt"] + one["answer"], padding="max_length", max_length=64)
        count = len(self.words(one["prompt"])["input_ids"])
        labels = list(made["input_ids"])
        labels[:count] = [-100] * count
        made["labels"] = labels
        return made
data = data.map(Rows(), remove_columns=["prompt", "answer"])
"""
GEMMA = """\
from transformers import Gemma3ForConditionalGeneration
from peft import get_peft_model
model = Gemma3ForConditionalGeneration.from_pretrained("m")
model = get_peft_model(model, config)
def collate(rows):
    ids = [one["input_ids"] for one in rows]
    return {{"input_ids": stack(ids), "labels": stack(ids){}}}
Trainer(model=model, args=args, train_dataset=data, data_collator=collate).train()
"""
BUILD = """\
class Build:
    def build(self):
        raw = load_dataset("json", data_files="d.jsonl", split="train")
        return raw.map(self.row, remove_columns=raw.column_names)
    def row(self, one):
        made = self.tokenizer(one["text"])
        return {"input_ids": made.input_ids, "labels": list(made.input_ids)}
data = Build().build()
"""
COLLATE = """\
def collate(rows):
    batch = tokenizer.pad(rows, return_tensors="pt")
    return {}
"""
PADS = """\
def collate(rows):
    ids = torch.nn.utils.rnn.pad_sequence([row["input_ids"] for row in rows], batch_first=True)
    return {}
"""
MADE = "def make():\n    yield {{'{}': 'a', 'labels': [1]}}\ndata = Dataset.from_generator(make)\n"
FRAME = "data = Dataset.from_pandas(frame[['text']]{})\n"
FILES = "data = load_dataset('json', data_files={{'{}': 'a'}}).map(lambda one: tokenizer(one['text']))['test']\n"
LISTED = "data = []\nfor one in texts:\n    data.append(tokenizer(one, padding='max_length'{}))\n"

PASSED = """\
def make(raw, tokenizer):
    raw = raw.shuffle(seed=1)
    raw = raw.map(
        lambda one: encode(one["text"]),
        remove_columns=raw.column_names,
    )
    return raw
encode = lambda text: {"input_ids": tokenizer.encode(text), "labels": tokenizer.encode(text)}
data = make(data, tokenizer)
#
"""
IMAGES = """\
class Collate:
    def __call__(self, rows):
        batch = self.processor(text=rows, padding=True)
        labels = batch["input_ids"].clone()
        {}
        labels[{}] = -100
        batch["labels"] = labels
        return batch
"""


def uses(code):
    text = START + code
    return sorted({(use.kind, use.line - START.count("\n")) for use in data_uses(ast.parse(text), text)})


SPOKEN = (
    "from trl import SFTConfig, SFTTrainer\n"
    "data = data.map(lambda one: {{'{}': one['q'] + one['a']}}, remove_columns=data.column_names)\n"
    "SFTTrainer(model=model, args=SFTConfig('o'{}), train_dataset=data)\n"
)
PAIRS = {
    "read-and-removed": (SPOKEN.format("prompt_text", ""), "column missing", 3, SPOKEN.format("text", "")),
    "read-removed-and-no-messages": (
        SPOKEN.format("text", ", assistant_only_loss=True"),
        "assistant of whole texts",
        3,
        SPOKEN.format("text", ""),
    ),
    "labels-with-a-padding-collator": (ANSWER + PAD, "labels of unequal length", 6, ANSWER + SEQ),
    "labels-with-a-collator-that-makes-them": (ANSWER + CAUSAL, "labels of unequal length", 6, ANSWER + SEQ),
    "labels-that-are-stacked": (ANSWER + PLAIN, "rows of unequal length", 6, BY_ONE + ANSWER + PLAIN),
    "characters-in-a-slice": (
        CHARACTERS.format(CUT.format("len(prompt)")) + SEQ,
        "labels by characters",
        4,
        CHARACTERS.format(CUT.format("len(tokenizer(prompt)['input_ids'])")) + SEQ,
    ),
    "characters-in-a-comparison": (
        CHARACTERS.format(EACH.format("len(prompt)")) + SEQ,
        "labels by characters",
        4,
        CHARACTERS.format(EACH.format("len(tokenizer.encode(prompt))")) + SEQ,
    ),
    "a-text-that-is-not-removed": (
        EACH_ROW.format("", "") + LOOP.format(", collate_fn=DataCollatorForSeq2Seq(tokenizer)"),
        "texts in batches",
        3,
        EACH_ROW.format("", ", remove_columns=data.column_names")
        + LOOP.format(", collate_fn=DataCollatorForSeq2Seq(tokenizer)"),
    ),
    "prompt-behind-padding-of-an-object": (OBJECT.format("left") + PLAIN, "mask on padding", 9, OBJECT.format("right") + PLAIN),
    "no-token-types": (GEMMA.format(""), "no token types", 7, GEMMA.format(", 'token_type_ids': stack(types)")),
    "prompt-behind-padding": (LEFT.format("left") + PLAIN, "mask on padding", 6, LEFT.format("right") + PLAIN),
    "shifted-by-hand": (
        ANSWER.replace("[-100] * len(prompt) + answer}", "prompt[1:] + [-100]}") + SEQ,
        "labels shifted",
        4,
        ANSWER.replace("[-100] * len(prompt) + answer}", "prompt + answer}") + SEQ,
    ),
    "text-in-chunks": (
        CHUNKS.format("") + PLAIN,
        "rows of other number",
        6,
        CHUNKS.format(", remove_columns=['text']") + PLAIN,
    ),
    "tensors-of-one-row": (CLASS.format("", ITEM) + PLAIN, "tensors in rows", 5, CLASS.format(".squeeze(0)", ITEM) + PLAIN),
    "tuples": (CLASS.format("[0]", "ids, ids") + PLAIN, "rows as tuples", 9, CLASS.format("[0]", ITEM) + PLAIN),
    "no-length": (
        CLASS.format("[0]", ITEM).replace("__len__", "size") + PLAIN,
        "rows without a length",
        9,
        CLASS.format("[0]", ITEM) + PLAIN,
    ),
    "columns-of-a-format": (FORMAT + PLAIN, "no labels", 7, FORMAT.replace("_ids'])", "_ids', 'labels'])") + PLAIN),
    "a-transform": (LAZY + PLAIN, "columns of a transform", 6, KEPT + LAZY + PLAIN),
    "weights-of-an-own-loss": (WEIGHTS + OWN, "inputs removed", 3, KEPT + WEIGHTS + OWN),
    "texts-alone": (LIST + ROW.replace("row", "lambda one: {'text': one['question']}") + CAUSAL, "no tokens", 3, TEXT + CAUSAL),
    "texts-to-evaluate": (
        EACH_EPOCH + EVAL.format("") + CAUSAL.replace("train_dataset=data", SHOWN),
        "no tokens",
        6,
        EACH_EPOCH + EVAL.format(".map(lambda one: tokenizer(one['text']))") + CAUSAL.replace("train_dataset=data", SHOWN),
    ),
    "a-row-that-is-not-returned": (STORED + ROW + CAUSAL, "rows not returned", 2, STORED + "    return one\n" + ROW + CAUSAL),
    "labels-of-classes": (LABEL.format("labels") + PAD, "one label for a text", 2, LABEL.format("kind") + CAUSAL),
    "a-split-of-rows": (
        TEXT.replace("data.map", "data['train'].map") + CAUSAL,
        "split of rows",
        1,
        TEXT.replace("data.map", "load_dataset('x')['train'].map") + CAUSAL,
    ),
    "a-column-that-is-removed": (
        LIST + ANSWERS.format("text") + CAUSAL,
        "column absent",
        2,
        LIST + ANSWERS.format("answer") + CAUSAL,
    ),
    "a-column-that-is-read": (LIST + TEXT + CAUSAL, "column absent", 2, LIST + "if more:\n    " + TEXT + CAUSAL),
    "rows-without-prompts": (
        ASK.format("question", "solution") + REWARD + GRPO,
        "column missing",
        4,
        ASK.format("prompt", "solution") + REWARD + GRPO,
    ),
    "a-column-of-rewards": (
        ASK.format("prompt", "answer") + REWARD + GRPO,
        "column of rewards missing",
        2,
        ASK.format("prompt", "answer") + REWARD.replace("solution", "answer") + GRPO,
    ),
    "methods-of-a-class": (BUILD + PAD, "labels of unequal length", 9, BUILD + SEQ),
    "a-loader-of-uneven-rows": (
        EACH_ROW.format("", ", remove_columns=['text']") + LOOP.format(""),
        "stacked rows of unequal length",
        3,
        EACH_ROW.format("", ", remove_columns=['text']") + LOOP.format(", collate_fn=collate"),
    ),
    "a-loader-of-lists": (
        EACH_ROW.format(", padding='max_length'", "") + LOOP.format(""),
        "lists in batches",
        3,
        EACH_ROW.format(", padding='max_length'", "") + "data = data.with_format('torch')\n" + LOOP.format(""),
    ),
    "texts-in-a-loader": (
        EACH_ROW.format("", "") + LOOP.format(", collate_fn=DataCollatorWithPadding(tokenizer)"),
        "texts in batches",
        3,
        EACH_ROW.format("", ", remove_columns=['text']") + LOOP.format(", collate_fn=DataCollatorWithPadding(tokenizer)"),
    ),
    "texts-that-are-kept": (KEPT + TEXT + CAUSAL, "texts in batches", 3, TEXT + CAUSAL),
    "an-own-collator": (
        ANSWER + COLLATE.format("batch") + TRAIN.format("collate"),
        "labels of unequal length",
        9,
        ANSWER + COLLATE.format("pad_labels(batch, rows)") + TRAIN.format("collate"),
    ),
    "padding-of-an-own-collator": (
        PADS.format("{'input_ids': ids, 'labels': ids.clone()}") + TRAIN.format("collate"),
        "labels of padding",
        3,
        PADS.format("{'input_ids': ids, 'labels': ids.clone().masked_fill(ids == 0, -100)}") + TRAIN.format("collate"),
    ),
    "what-a-generator-yields": (
        MADE.format("text").replace(", 'labels': [1]", "") + CAUSAL,
        "no tokens",
        4,
        MADE.format("input_ids"),
    ),
    "a-part-of-a-frame": (
        FRAME.format("") + CAUSAL,
        "no tokens",
        2,
        FRAME.format(".map(lambda one: tokenizer(one['text']))") + CAUSAL,
    ),
    "a-split-that-is-not-loaded": (FILES.format("train") + CAUSAL, "split absent", 1, FILES.format("test") + CAUSAL),
    "a-list-of-tensors": (LISTED.format(", return_tensors='pt'") + CAUSAL, "tensors in rows", 3, LISTED.format("") + CAUSAL),
    "a-function-over-lines": (PASSED + PAD, "labels of unequal length", 11, PASSED + SEQ),
    "two-names-at-once": (
        PASSED.replace("data = make(", "data, more = make(").replace("tokenizer)\n#", "tokenizer), 1\n#") + PAD,
        "labels of unequal length",
        11,
        PASSED.replace("data = make(", "data, more = make(").replace("tokenizer)\n#", "tokenizer), 1\n#") + SEQ,
    ),
    "images-and-padding": (
        IMAGES.format("", "labels == image") + TRAIN.format("Collate()"),
        "labels of padding",
        7,
        IMAGES.format("", "labels == processor.tokenizer.pad_token_id") + TRAIN.format("Collate()"),
    ),
}


@pytest.mark.parametrize(("code", "kind", "line", "right"), PAIRS.values(), ids=PAIRS)
def test_rows_that_do_not_fit_are_found_and_their_right_twins_are_not(code, kind, line, right):
    assert uses(code) == [(kind, line)]
    assert uses(right) == []


def test_helpers_that_a_function_calls_are_followed():
    code = (
        "def encode(text):\n    made = tokenizer(text, max_length=64)\n    made['labels'] = made['input_ids'].copy()\n"
        "    return made\ndef row(one):\n    return encode(f\"{one['q']} {one['a']}\")\ndata = data.map(row)\n"
    )
    assert uses(code + PAD) == [("labels of unequal length", 8)]
    assert uses(code + SEQ) == []


def test_what_one_path_of_a_function_does_is_not_certain():
    source = (
        "def row(one):\n    if one['a']:\n        return {'input_ids': [1], 'labels': [1]}\n    return {'input_ids': [1]}\n"
    )
    module = ast.parse(source)
    found = RowFunction(None, module.body[0], batched=False).result([])

    assert (set(found.columns), found.closed) == ({"input_ids"}, False)


@pytest.mark.parametrize(
    ("step", "columns"),
    [
        ("remove_columns(['b'])", {"a"}),
        ("rename_column('b', 'd')", {"a"}),
        ("rename_column('a', 'd')", {"d"}),
        ("select_columns(['a', 'b'])", {"a"}),
        ("map(lambda one: {'d': one['b']})", {"a", "d"}),
        ("map(lambda one: {'d': 1}, remove_columns=['b'])", {"a", "d"}),
        ("with_format('torch', columns=['b'])", {"b"}),
        ("with_format('torch')", {"a", "b"}),
        ("shuffle(seed=1).remove_columns('b')", {"a"}),
    ],
)
def test_a_format_hides_columns_from_rows_and_from_no_method(step, columns):
    made = "from datasets import Dataset\ndata = Dataset.from_list([{'a': 1, 'b': 2}] * 4)\n"
    made += "data.set_format('torch', columns=['a'])\n"
    module = ast.parse(made + f"data = data.{step}\nlast = data\n")
    sets, real = RowSets(Bindings(module)), {}
    exec(compile(module, "script.py", "exec"), real)  # noqa: S102  # what the library does with the same calls

    assert set(sets.of(module.body[-1].value).columns) == set(real["data"][0]) == columns
    assert sets.faults == []


ROWS = datasets.Dataset.from_list([{"input_ids": [1, 2, 3]}, {"input_ids": [1, 2]}])
LABELLED = ROWS.map(lambda row: {"labels": row["input_ids"]})
TEXTS = datasets.Dataset.from_dict({"text": ["a", "b"]})
EVEN = datasets.Dataset.from_list([{"input_ids": [1, 2, 3], "labels": [1, 2, 3], "weight": 1.0}] * 2)


MASKED = EVEN.map(lambda row: {"input_ids": [row["input_ids"]], "attention_mask": [[1, 1, 0]]})


def padding():
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<pad>": 0}, "<pad>"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return transformers.DataCollatorWithPadding(tokenizer)


def train(data, **given):
    own = {"remove_unused_columns": given.pop("removes", True)}
    args = transformers.TrainingArguments(
        use_cpu=True, report_to=[], max_steps=1, output_dir="unused", per_device_train_batch_size=2, **own
    )
    given.setdefault("data_collator", transformers.default_data_collator)
    given.pop("cls", transformers.Trainer)(model=tiny.load(kind="none"), args=args, train_dataset=data, **given).train()


class Tuples(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, at):
        return torch.tensor([1, 2]), torch.tensor([1, 2])


class Weighted(transformers.Trainer):
    def compute_loss(self, model, inputs, **_):
        return inputs.pop("weight").mean() * model(**inputs).loss


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda: train(LABELLED), ValueError, "expected sequence of length"),
        (lambda: train(MASKED), IndexError, "bounds"),
        (lambda: train(EVEN.remove_columns("labels")), ValueError, "did not return a loss"),
        (lambda: train(EVEN.with_format("torch", columns=["input_ids"])), ValueError, "did not return a loss"),
        (lambda: train(TEXTS), ValueError, "No columns in the dataset"),
        (lambda: train(TEXTS.with_transform(lambda rows: rows)), ValueError, "No columns in the dataset"),
        (lambda: train(Tuples()), TypeError, "__dict__"),
        (lambda: train(EVEN, cls=Weighted), KeyError, "weight"),
        (lambda: train(EVEN.map(lambda row: {"labels": 1})), ValueError, "batch_size"),
        (lambda: next(iter(torch.utils.data.DataLoader(ROWS.with_format("torch"), 2))), RuntimeError, "equal size"),
        (lambda: next(iter(torch.utils.data.DataLoader(EVEN, 2)))["labels"].shape, AttributeError, "list"),
        (lambda: train(EVEN.add_column("text", ["a", "b"]), removes=False, data_collator=padding()), ValueError, "`text`"),
        (lambda: ROWS["train"], ValueError, "doesn't exist"),
        (lambda: ROWS.remove_columns("text"), ValueError, "not in the dataset"),
        (lambda: ROWS.map(lambda rows: {"labels": [[1]]}, batched=True), Exception, "expected length 2 but got length 1"),
    ],
)  # fmt: skip
def test_the_libraries_refuse_such_rows(run, error, message):
    with pytest.raises(error, match=message):
        run()


def test_an_own_loss_gets_the_columns_that_are_kept():
    train(EVEN, cls=Weighted, removes=False)


def test_the_columns_that_a_decoder_takes_are_those_that_are_kept():
    taken = inspect.signature(transformers.LlamaForCausalLM.forward).parameters
    assert set(taken) - {"self"} <= FORWARD


def test_columns_that_a_function_reads_leave_with_the_others():
    code = (
        "from transformers import AutoModelForCausalLM, DataCollatorForLanguageModeling\n"
        "from torch.utils.data import DataLoader\n"
        "data = data.map(lambda one: tokenizer(one['text']){})\n"
        "DataLoader(data, batch_size=2, collate_fn=DataCollatorForLanguageModeling(tokenizer, mlm=False))\n"
    )

    assert uses(code.format(", remove_columns=data.column_names")) == []
    assert uses(code.format("")) == [("texts in batches", 4)]


@pytest.mark.parametrize(
    ("version", "asks"), [("4.57.1", False), ("5.1.0", True), ("5.5.4", True), ("5.6.0", False), ("", False)]
)
def test_a_forward_asks_for_token_types_in_some_versions_alone(version, asks):
    assert CONTRACTS["no token types"].holds_for({"transformers": version}) is asks
