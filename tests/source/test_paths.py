"""The search for the ways through a script: which combinations of its branches are judged."""

from __future__ import annotations

import ast
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from script_cases import ADAPTED, IMPORTS, LOADED, findings

import kbitlint
from kbitlint.source.interpreter.paths import MAX_PATHS, PathSearch
from kbitlint.upstream.inert import INERT

ROOT = Path(kbitlint.__file__).parent


@dataclass
class _Path:
    """A path through a script whose questions are independent of each other, as the search sees it."""

    given: dict
    decisions: dict = field(default_factory=dict)
    asked: dict = field(default_factory=dict)

    def follow(self, questions, ends=()):
        for key in questions:
            self.decisions[key] = self.given.get(key, True)
            self.asked[key] = 0
            if (key, self.decisions[key]) in ends:
                return


def followed(count, ends=()):
    """Return the answers of each path that is followed through a script with so many questions."""
    search, found = PathSearch(), []
    while (way := search.pop()) is not None:
        path = _Path(way.answers)
        path.follow([f"q{number}" for number in range(count)], ends)
        search.branch(path, way)
        found.append(path.decisions)
    return found, search.left


@pytest.mark.parametrize("count", [12, 20])
def test_every_two_answers_are_followed_together(count):
    found, left = followed(count)
    missing = [
        pair
        for one, other in itertools.combinations([f"q{number}" for number in range(count)], 2)
        for pair in itertools.product((True, False), repeat=2)
        if not any((path[one], path[other]) == pair for path in found)
    ]

    assert (missing, len(found), left) == ([], MAX_PATHS, True)


def test_an_answer_that_ends_the_script_hides_no_pair_behind_it():
    found, _ = followed(12, ends={("q3", False)})
    pairs = {(path["q5"], path["q9"]) for path in found if "q9" in path}

    assert pairs == set(itertools.product((True, False), repeat=2))


@pytest.mark.parametrize("count", [1, 5])
def test_few_questions_are_followed_in_all_combinations(count):
    found, left = followed(count)

    assert ({tuple(path.values()) for path in found}, left) == (set(itertools.product((True, False), repeat=count)), False)


def script_of(first, second):
    """Return a script with twelve flags, of which two together leave the adapters frozen."""
    flags = "abcdefghijkl"
    blocks = [f"if o.{name}:\n    args.optim = '{name}'\n" for name in flags]
    blocks[first] = f"if o.{flags[first]}:\n    again = True\n"
    blocks[second] = f"if o.{flags[second]} and again:\n    model = prepare_model_for_kbit_training(model)\n"
    return (
        "import argparse\np = argparse.ArgumentParser()\n"
        + "".join(f"p.add_argument('--{name}', action='store_true')\n" for name in flags)
        + f"o = p.parse_args()\n{LOADED}{ADAPTED}again = False\nargs = TrainingArguments('out', bf16=True)\n"
        + "".join(blocks)
        + "Trainer(model=model, args=args, train_dataset=data).train()\n"
    )


@pytest.mark.parametrize(("first", "second"), [(0, 11), (4, 9), (10, 11)])
def test_two_flags_of_twelve_that_are_wrong_together_are_seen(first, second):
    found = findings("KB202", script_of(first, second))

    assert [(line, severity) for severity, line, _ in found] == [("model = prepare_model_for_kbit_training(model)", "error")]


def test_a_branch_that_sets_what_no_rule_asks_needs_no_path(tmp_path):
    flags = "".join(f"if o.f{number}:\n    args.run_name = 'run {number}'\n" for number in range(60))
    rest = f"{LOADED}args = TrainingArguments('out', bf16=True)\n{flags}if o.last:\n    args.fp16 = True\n{ADAPTED}"
    path = tmp_path / "train.py"
    path.write_text(f"{IMPORTS}{rest}Trainer(model=model, args=args, train_dataset=data).train()\n")

    assert [skip.reason for skip in kbitlint.check(str(path)).skips if "ways through it" in skip.reason] == []


def test_an_attribute_of_a_branch_that_is_not_followed_is_unknown():
    branch = "o = TrainingArguments('out')\no.debug = False\nif flag:\n    o.debug = True\n"
    prepared = "if o.debug:\n    model = prepare_model_for_kbit_training(model)\n"
    trained = "Trainer(model=model, args=o, train_dataset=data).train()\n"

    assert len(findings("KB202", LOADED + ADAPTED + branch + prepared + trained)) == 1


#: files that ask about the text of a script, and not about its paths
READ_THE_TEXT = (
    *("end_token_never_learned.py", "bindings.py", "data_flow.py", "data_contracts.py", "mapped_functions.py"),
    *("pad_tokens.py", "trainer_functions.py", "by_hand.py", "unfit_tokenizer.py", "removed_attributes.py"),
    *("lost_settings.py", "literal_tokens.py", "literal_token.py", "collators.py", "rendered_texts.py"),
    *("row_encodings.py", "row_uses.py", "row_contracts.py", "run_uses.py", "run_contracts.py", "trl_rows.py"),
)
#: files that ask about configurations, which have one path
OF_PROGRAMS = ("formats.py", "axolotl.py", "axolotl_runs.py", "llamafactory.py", "swift.py")
LEFT_OUT = {"keys.py", "inert.py", *READ_THE_TEXT, *OF_PROGRAMS}


def asked_words():
    """Return each word that rules, contracts and the interpreter compare names with."""
    kept = [ROOT / "source", ROOT / "facts", ROOT / "upstream", ROOT.parent / "rules", ROOT / "rules"]
    for place in (path for folder in kept for path in folder.rglob("*.py")):
        if place.parent.name in {"signatures", "objects", "kinds"} or place.name in LEFT_OUT:
            continue
        tree = ast.parse(place.read_text())
        documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
                yield from re.findall(r"\w+", node.value)


def test_what_is_called_inert_is_asked_nowhere():
    assert sorted(INERT & set(asked_words())) == []
