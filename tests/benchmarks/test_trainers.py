"""The benchmark of TRL's trainers: one trainer in two states, and what counts as a difference."""

from __future__ import annotations

import pytest

from benchmarks.truth.trainers import STATES, differences, state_of

ERROR = ["KB303", "error", "no gradient reaches it"]
TRAINS = {"built": None, "error": None, "moved": ["a", "b"], "kept": [], "reached": ["a", "b"]}


def said(*violations, skips=(), crashes=()):
    return {"violations": list(violations), "skips": list(skips), "crashes": list(crashes)}


@pytest.mark.parametrize(("state", "kept"), [("cut", 14), ("no scaling", 28)])
def test_a_trainer_is_judged_as_it_trains(state, kept, tmp_path):
    line = state_of("SFTTrainer", state, tmp_path)

    assert (line["built"], line["error"], len(line["kept"])) == (None, None, kept)
    assert list(differences(line)) == []


def test_what_fails_only_while_a_trainer_generates_is_named(tmp_path):
    """The loss of TRL reads the weight of the head; the forward of the head runs in the generation."""
    line = state_of("GRPOTrainer", "float32 norms, not bf16", tmp_path)

    assert line["error"] == "RuntimeError: expected m1 and m2 to have the same dtype, but got: float != c10::BFloat16"
    assert list(differences(line)) == []
    assert [violation[::2] for violation in line["said"]["violations"] if violation[1] == "error"] == [
        ("KB102", "mm refuses float32 and bfloat16")
    ]


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"said": said()}, []),
        ({"said": said(ERROR)}, [f"said: false error {ERROR}"]),
        ({"begun": said(ERROR)}, [f"begun: false error {ERROR}"]),
        ({"said": said(), "moved": ["a"], "kept": ["b"], "reached": ["a"]}, ["said: silent, 1 of 2 kept"]),
        ({"said": said(), "error": "RuntimeError: dtype"}, ["said: silent, RuntimeError: dtype"]),
        ({"said": said(crashes=["StopIteration"])}, ["said: crash StopIteration"]),
        ({"said": said(skips=["no batch"])}, ["said: not traced, no batch"]),
        ({"said": said(), "reached": ["a"]}, ["the trace reaches 1 parameters, and 2 move"]),
        ({"built": "ValueError: no server"}, []),
    ],
)
def test_each_way_to_differ_is_told(changed, wanted):
    assert list(differences(TRAINS | changed)) == wanted


def test_the_states_hold_some_that_train_and_some_that_do_not():
    assert {"ordinary", "cut", "not bf16", "frozen", "int8"} <= set(STATES)
