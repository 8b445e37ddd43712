from __future__ import annotations

import pytest
from script_cases import ADAPTED, IMPORTS, LOADED, TRAINED, document, findings, fixed_text

from kbitlint.audit.scripts import run
from kbitlint.context import TrainingContext
from kbitlint.registry import all_rules

PREPARE = "model = prepare_model_for_kbit_training(model)"


def codes(body):
    outcome, silenced = run(all_rules(), document(IMPORTS + LOADED + body + ADAPTED + TRAINED).facts, TrainingContext())
    return [v.code for v in outcome.violations], silenced


def test_a_comment_silences_its_line():
    assert codes(f"{PREPARE}  # kbitlint: ignore[KB401] measured, no difference\n") == ([], 1)


@pytest.mark.parametrize("names", ["KB4", "reentrant-checkpointing", "KB502, KB401"])
def test_a_comment_names_codes_prefixes_or_slugs(names):
    assert codes(f"{PREPARE}  # kbitlint: ignore[{names}]\n") == ([], 1)


def test_a_comment_on_a_line_of_its_own_is_meant_for_the_next_statement():
    assert codes(f"# kbitlint: ignore[KB401] as the paper did\n{PREPARE}\n") == ([], 1)


def test_a_comment_may_stand_on_any_line_of_the_statement():
    assert codes("model = prepare_model_for_kbit_training(\n    model,  # kbitlint: ignore[KB401]\n)\n") == ([], 1)


def test_a_comment_for_another_rule_silences_nothing_and_is_reported():
    assert codes(f"{PREPARE}  # kbitlint: ignore[KB502]\n") == (["KB920", "KB401"], 0)


def test_a_comment_without_a_name_is_reported():
    assert codes(f"{PREPARE}  # kbitlint: ignore\n") == (["KB920", "KB401"], 0)


def test_a_comment_in_a_string_is_none():
    assert codes(f"text = '# kbitlint: ignore[KB401]'\n{PREPARE}\n") == (["KB401"], 0)


def test_a_comment_for_a_rule_that_does_not_run_is_not_judged():
    assert findings("KB920", LOADED + f"{PREPARE}  # kbitlint: ignore[KB401]\n") == []


def test_what_it_says():
    assert findings("KB920", "from peft import PeftModel\nx = 1  # kbitlint: ignore[KB920]\ny = 1  # kbitlint: ignore\n") == [
        ("info", "y = 1  # kbitlint: ignore", "the comment names no rule, so it ignores nothing: # kbitlint: ignore[KB401]")
    ]


def test_the_fix_takes_the_comment_out(tmp_path):
    script = "x = 1  # kbitlint: ignore\n# kbitlint: ignore\ny = 1\n"

    assert fixed_text("KB920", script, tmp_path) == "x = 1\ny = 1\n"
