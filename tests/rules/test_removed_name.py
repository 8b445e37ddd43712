"""KB544: imports of names that a library no longer exports."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
from script_cases import IMPORTS, OLD, RECIPE, findings, fixed_text

from kbitlint.upstream.signatures.lookup import HOMES, STRANGERS
from kbitlint.upstream.versions import Versions, installed, number

newest = pytest.mark.skipif(number(installed()["trl"]) < (1, 16), reason="older versions export other names")
COLLATOR = "from trl import DataCollatorForCompletionOnlyLM\n"


def said(body, **how):
    return [(severity, message) for severity, _, message in findings("KB544", body, **how)]


def test_names_that_the_libraries_export_are_clean():
    assert said(RECIPE) == []
    assert said(COLLATOR + RECIPE, versions=OLD) == []


def test_a_removed_name_is_a_warning_without_a_declared_version_and_else_an_error():
    message = "trl exports no DataCollatorForCompletionOnlyLM since 0.20: an ImportError"
    declared = Versions({**installed(), "trl": "0.24.0"})
    declared.declared = {"trl": "0.24.0"}

    assert said(COLLATOR + RECIPE) == [("warning", message)]
    assert said(COLLATOR + RECIPE, versions=declared) == [("error", message)]


@pytest.mark.parametrize(
    "body",
    [
        "try:\n    from trl import DataCollatorForCompletionOnlyLM\nexcept ImportError:\n    pass\n",
        "import trl\nif trl.__version__ < '0.20':\n    pass\nfrom trl import DataCollatorForCompletionOnlyLM\n",
        "from mine.trl import DataCollatorForCompletionOnlyLM\n",
    ],
)
def test_an_import_that_expects_its_absence_is_clean(body):
    assert said(body + RECIPE) == []


@newest
@pytest.mark.parametrize("name", ["trl.DataCollatorForCompletionOnlyLM", "transformers.AdamW", "trl.PPOTrainer"])
def test_the_import_raises_what_the_message_says(name):
    library, _, last = name.partition(".")
    done = subprocess.run(
        [sys.executable, "-c", f"from {library} import {last}"], capture_output=True, text=True, check=False, timeout=300
    )

    assert "ImportError" in done.stderr
    assert [severity for severity, _ in said(f"from {library} import {last}\n{RECIPE}")] == ["warning"]


def test_a_class_that_moved_is_imported_from_its_new_place_only_if_asked(tmp_path):
    body = "from trl import ORPOTrainer\n" + RECIPE

    assert fixed_text("KB544", body, tmp_path, imports=IMPORTS, unsafe=False) == body
    assert fixed_text("KB544", body, tmp_path, imports=IMPORTS) == "from trl.experimental.orpo import ORPOTrainer\n" + RECIPE


def test_a_name_in_a_longer_import_is_by_hand(tmp_path):
    body = "from trl import ORPOConfig, ORPOTrainer\n" + RECIPE

    assert fixed_text("KB544", body, tmp_path) == body


def test_a_name_of_another_library_is_an_error():
    assert said("from unsloth import FastLanguageModel, SFTTrainer\n" + RECIPE) == [
        ("error", "unsloth exports no SFTTrainer, which is trl's: an ImportError")
    ]
    assert said("from transformers import LoraConfig\n" + RECIPE) == [
        ("error", "transformers exports no LoraConfig, which is peft's: an ImportError")
    ]


@newest
@pytest.mark.parametrize("library", sorted(STRANGERS - {"unsloth"}))
def test_the_libraries_export_their_own_names_only(library):
    module = importlib.import_module(library)

    assert {name for name in HOMES if hasattr(module, name)} == {name for name, home in HOMES.items() if home == library}
