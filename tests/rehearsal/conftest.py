"""Rehearsals that share one interpreter, which has imported the libraries and forks for each script.

What is a rehearsal's own process to its script is in ``test_process.py``: those tests start one each.
"""

from __future__ import annotations

import pytest

from benchmarks.truth.rehearsal_server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.close()


@pytest.fixture
def forked(server, monkeypatch):
    """Let ``kbitlint.rehearse`` fork the shared interpreter instead of starting one."""
    monkeypatch.setattr("kbitlint.rehearsal.run.process.run", server.run)
