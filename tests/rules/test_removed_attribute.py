"""KB563: attributes that objects of the libraries no longer have."""

from __future__ import annotations

import inspect

import pytest
import transformers
import trl
from script_cases import findings

from kbitlint.upstream.removed_attributes import OF_TOKENIZERS, OF_TRAINERS, TRAINERS, removed_attribute
from kbitlint.upstream.signatures import transformers as base_rows
from kbitlint.upstream.signatures import trl as trl_rows
from kbitlint.upstream.versions import installed

IMPORTS = "from transformers import AutoTokenizer, Trainer, TrainingArguments\n"
MADE = "tok = AutoTokenizer.from_pretrained('a')\nargs = TrainingArguments('out')\ntrainer = Trainer(args=args)\n"


def test_no_row_is_an_attribute_of_an_installed_class(tmp_path):
    kinds = (transformers.TrainingArguments, trl.SFTConfig, trl.DPOConfig, trl.RewardConfig, trl.GRPOConfig)
    made = [kind(str(tmp_path), use_cpu=True) for kind in kinds]
    parameters = {
        word.partition("<")[0].partition(">")[0]
        for rows in (base_rows.ROWS, trl_rows.ROWS)
        for text in rows.values()
        for word in text.split()
    }
    kept = {
        (type(one).__name__, name)
        for one in made
        for name in parameters
        if hasattr(one, name)
        and removed_attribute(f"{type(one).__module__.split('.')[0]}.{type(one).__name__}", name, installed())
    }
    tokenizers = [transformers.PreTrainedTokenizerFast, transformers.PreTrainedTokenizer]
    trainers = [getattr(trl if name.startswith("trl") else transformers, name.rpartition(".")[2]) for name in TRAINERS]

    assert kept == set()
    assert [name for name in OF_TOKENIZERS for one in tokenizers if hasattr(one, name)] == []
    assert [name for name in OF_TRAINERS for one in trainers if hasattr(one, name)] == []
    assert [one for one in trainers if "self.tokenizer = " in inspect.getsource(one)] == []


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (MADE + "trainer.tokenizer.save_pretrained('out')", 1),
        (MADE + "ids = tok.additional_special_tokens_ids", 1),
        (MADE + "ds.map(lambda row: tok.encode_plus(row))", 1),
        (MADE + "print(args.evaluation_strategy)", 1),
        (MADE + "trainer.processing_class.save_pretrained(args.output_dir)", 0),
        (MADE + "trainer.tokenizer = tok\ntrainer.tokenizer.save_pretrained('out')", 0),
        (MADE + "if hasattr(trainer, 'tokenizer'):\n    trainer.tokenizer.save_pretrained('out')", 0),
        (MADE + "try:\n    trainer.tokenizer.save_pretrained('out')\nexcept AttributeError:\n    pass", 0),
        (MADE + "trainer = Other()\ntrainer.tokenizer.save_pretrained('out')", 0),
        (MADE + "def save(trainer):\n    trainer.tokenizer.save_pretrained('out')", 0),
    ],
)
def test_reads_of_objects_whose_class_is_certain(body, lines):
    assert len(findings("KB563", IMPORTS + body + "\n")) == lines
