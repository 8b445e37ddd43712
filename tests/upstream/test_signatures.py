"""Parameters of constructors and removed names: the newest rows against the installed libraries, older ones by example."""

from __future__ import annotations

import importlib
import inspect

import pytest
from script_cases import NEWEST

from kbitlint.upstream.signatures.lookup import MOVED, base_of, names_of, refusal, removal
from kbitlint.upstream.versions import installed, number

LIBRARIES = ("datasets", "peft", "transformers", "trl")
newest = pytest.mark.skipif(
    any(number(installed()[name])[:2] != number(NEWEST[name])[:2] for name in LIBRARIES),
    reason="the rows describe the newest versions",
)
TABLES = {library: importlib.import_module(f"kbitlint.upstream.signatures.{library}") for library in LIBRARIES}
CALLEES = sorted(name for table in TABLES.values() for name in table.ROWS)


def parameters(callee):
    """Return the names of the keywords that an installed function or class takes; None if it is not installed."""
    library, _, name = callee.partition(".")
    inner = ("peft.tuners.lora.config",) if library == "peft" else ()
    places = (library, *inner, *(module for module, _ in MOVED.values() if module.startswith("trl.") and library == "trl"))
    for place in places:
        module = importlib.import_module(place)
        if hasattr(module, name):
            found = getattr(module, name)
            taken = inspect.signature(found.__init__ if inspect.isclass(found) else found).parameters
            return [one for one, value in taken.items() if one != "self" and value.kind is not value.VAR_KEYWORD]
    return None


@newest
@pytest.mark.parametrize("callee", CALLEES)
def test_a_row_has_the_parameters_of_the_installed_constructor(callee):
    real = parameters(callee)
    if real is None:
        assert removal(*callee.split("."))
        return

    assert sorted(set(names_of(callee, NEWEST))) == sorted(real)


@newest
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_removed_name_cannot_be_imported_and_its_successor_can(library):
    module = importlib.import_module(library)
    names = " ".join(TABLES[library].REMOVED.values()).split()

    assert [name for name in names if hasattr(module, name)] == []
    for name in names:
        if name in MOVED:
            place, new = MOVED[name]
            assert hasattr(importlib.import_module(place), new)


@pytest.mark.parametrize(
    ("callee", "name", "version", "taken"),
    [
        ("trl.SFTTrainer", "max_seq_length", "0.12.2", True),  # deprecated, and passed on by a decorator
        ("trl.SFTTrainer", "max_seq_length", "0.13.0", False),
        ("trl.SFTTrainer", "tokenizer", "0.15.2", True),
        ("trl.SFTTrainer", "tokenizer", "0.16.1", False),
        ("trl.SFTConfig", "max_seq_length", "0.19.1", True),
        ("trl.SFTConfig", "max_seq_length", "0.20.0", False),
        ("trl.DPOTrainer", "beta", "0.8.6", True),
        ("trl.DPOTrainer", "beta", "0.13.0", False),
        ("transformers.Trainer", "tokenizer", "4.57.1", True),
        ("transformers.Trainer", "tokenizer", "5.0.0", False),
        ("transformers.TrainingArguments", "eval_strategy", "4.40.2", False),
        ("transformers.TrainingArguments", "eval_strategy", "4.41.2", True),
        ("transformers.TrainingArguments", "evaluation_strategy", "4.44.2", True),
        ("transformers.TrainingArguments", "evaluation_strategy", "5.0.0", False),
        ("transformers.TrainingArguments", "overwrite_output_dir", "4.57.1", True),
        ("transformers.TrainingArguments", "overwrite_output_dir", "5.0.0", False),
        ("peft.LoraConfig", "use_dora", "0.8.2", False),
        ("peft.LoraConfig", "use_dora", "0.9.0", True),
        ("peft.LoraConfig", "rank", "0.21.2", False),
    ],
)
def test_an_older_version_takes_what_its_release_had(callee, name, version, taken):
    versions = {**NEWEST, callee.partition(".")[0]: version}

    assert (refusal(callee, name, versions) is None) is taken


def test_a_class_takes_what_its_base_takes_in_the_version_of_the_base():
    assert base_of("trl.SFTConfig") == "transformers.TrainingArguments"
    assert refusal("trl.SFTConfig", "logging_dir", {**NEWEST, "transformers": "4.57.1"}) is None
    assert refusal("trl.SFTConfig", "logging_dir", NEWEST).library == "transformers"


def test_what_has_no_row_takes_anything():
    assert refusal("transformers.BitsAndBytesConfig", "anything", NEWEST) is None
    assert refusal("mine.Trainer", "anything", NEWEST) is None
