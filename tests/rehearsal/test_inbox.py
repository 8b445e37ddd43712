"""What kbitlint's own process takes from the pipe that a rehearsed script can write into."""

from __future__ import annotations

import os
import pickle
import subprocess

import pytest

from kbitlint.rehearsal.inbox import ForeignMessageError, take
from kbitlint.rehearsal.messages import Done, Note, Received
from kbitlint.result import Skip
from kbitlint.violation import Surface


def sent(*messages):
    return b"".join(len(data).to_bytes(8, "big") + data for data in map(pickle.dumps, messages))


class Calls:
    """A pickle that calls a function when it is read."""

    def __init__(self, function, *given):
        self.called = function, given

    def __reduce__(self):
        return self.called


def test_messages_are_taken_in_order_and_the_rest_waits():
    skip = Skip("KB903", Surface.REHEARSAL, "why")
    received, data = Received(), sent(Note("one"), skip, Done())
    rest = take(data[:-3], received)
    assert (received.notes, received.skips, received.done) == ([Note("one")], [skip], False)
    assert take(rest + data[-3:], received) == b""
    assert received.done


@pytest.mark.parametrize(
    "function",
    [os.system, os.mkdir, subprocess.Popen, eval, exec, getattr, __import__, pickle.loads],
    ids=lambda function: function.__name__,
)
def test_a_pickle_that_calls_a_function_is_refused_and_calls_nothing(tmp_path, function):
    given = str(tmp_path / "made") if function is os.mkdir else f"__import__('os').mkdir({str(tmp_path / 'made')!r})"
    with pytest.raises(ForeignMessageError):
        take(sent(Calls(function, given)), Received())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [
        sent(Calls(take, b"", None)),  # a function of kbitlint itself
        sent([Note("one")]),
        sent({"done": True}),
        (3).to_bytes(8, "big") + b"abc",
        (2**60).to_bytes(8, "big"),
        sent(Note("one"))[:-1] + b"x",
    ],
    ids=["own function", "list", "dict", "no pickle", "endless", "damaged"],
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(ForeignMessageError):
        take(data, Received())
