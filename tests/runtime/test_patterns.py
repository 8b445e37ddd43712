"""Patterns of configurations: what they match, and a limit for those that take exponential time."""

from __future__ import annotations

import time

import pytest

from kbitlint.runtime.deadline import OverdueError, deadline
from kbitlint.runtime.patterns import matches

NAME = "a" * 60 + "!"


@pytest.mark.parametrize(
    ("pattern", "text", "whole", "found"),
    [
        (r"(.*\.)?(q_proj)$", "model.layers.0.self_attn.q_proj", False, True),
        (r"(.*\.)?(q_proj)$", "model.layers.0.self_attn.k_proj", False, False),
        ("q_proj", "model.q_proj", True, False),
        (r".*\.(q|k)_proj", "model.q_proj", True, True),
        ("(", "model", False, None),
    ],
)
def test_a_pattern_matches_as_in_python(pattern, text, whole, found):
    assert matches(pattern, text, whole=whole) is found


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$", "(a*)*b", "(.*a){20}$", r"^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_a_pattern_of_exponential_time_is_given_up(pattern):
    start = time.process_time()

    assert matches(pattern, NAME) in (None, False)
    assert matches(pattern, NAME + "!") in (None, False)
    assert time.process_time() - start < 3


def test_a_limit_inside_another_one_leaves_the_outer_one_on():
    def spin():
        with deadline(0.5):
            assert matches("a+b", "aab") is True
            while True:
                pass

    with pytest.raises(OverdueError):
        spin()
