from __future__ import annotations

import pytest
from script_cases import ADAPTED, IMPORTS, LOADED, TRAINED, document, findings

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


@pytest.mark.parametrize("comment", ["ignore", "ignore[]", "ignore as in the paper"])
def test_a_comment_without_a_name_silences_the_line_and_is_reported_as_blanket(comment):
    assert codes(f"{PREPARE}  # kbitlint: {comment}\n") == (["KB920"], 1)


def test_a_blanket_comment_beside_nothing_is_reported():
    assert codes(f"{PREPARE}  # kbitlint: ignore[KB401]\nx = 1  # kbitlint: ignore\n") == (["KB920"], 1)


def test_a_comment_in_a_string_is_none():
    assert codes(f"text = '# kbitlint: ignore[KB401]'\n{PREPARE}\n") == (["KB401"], 0)


def test_a_comment_for_a_rule_that_does_not_run_is_not_judged():
    assert findings("KB920", LOADED + f"{PREPARE}  # kbitlint: ignore[KB401]\n") == []


def test_what_it_says():
    assert findings("KB920", "from peft import PeftModel\nx = 1  # kbitlint: ignore[KB920]\ny = 1  # kbitlint: ignore\n") == [
        ("info", "y = 1  # kbitlint: ignore", "the comment silences every rule, and none reports anything here")
    ]


def test_only_an_unsafe_fix_takes_a_comment_out(run, tmp_path):
    script = f"{IMPORTS}x = 1  # kbitlint: ignore\n# kbitlint: ignore\ny = 1\n"
    (tmp_path / "train.py").write_text(script)

    run("check", "--fix", "train.py", "--select", "KB920")
    safe = (tmp_path / "train.py").read_text()
    run("check", "--fix", "--unsafe-fixes", "train.py", "--select", "KB920")

    assert safe == script
    assert (tmp_path / "train.py").read_text() == f"{IMPORTS}x = 1\ny = 1\n"


@pytest.mark.parametrize(
    ("before", "after"), [("ignore", "ignore[KB401]"), ("ignore[ ] as measured", "ignore[KB401] as measured")]
)
def test_a_safe_fix_names_the_rules_that_a_blanket_comment_silences(run, tmp_path, before, after):
    script = IMPORTS + LOADED + f"{PREPARE}  # kbitlint: {before}\n" + ADAPTED + TRAINED
    (tmp_path / "train.py").write_text(script)

    run("check", "--fix", "train.py")

    assert (tmp_path / "train.py").read_text() == script.replace(before, after)
