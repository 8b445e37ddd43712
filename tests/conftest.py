from __future__ import annotations

import inspect
import os

import pytest
from click.testing import CliRunner, Result
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each worker has one core; set before torch is imported
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _newest_versions(monkeypatch):
    """Scripts of the tests are written for the newest versions, whatever is installed here."""
    from kbitlint.upstream import versions

    monkeypatch.setattr(versions, "installed", lambda: versions.NEWEST)


class _BothStreams(Result):
    """What click 8.2 keeps by itself: both streams apart, and together as ``output``."""

    @property
    def output(self):
        return self.stdout + self.stderr


class _Runner(CliRunner):
    """The runner of click 8.1, which mixes both streams unless it is told not to."""

    def invoke(self, *arguments, **keywords):
        result = super().invoke(*arguments, **keywords)
        result.__class__ = _BothStreams
        return result


_RUNNER = _Runner(mix_stderr=False) if "mix_stderr" in inspect.signature(CliRunner).parameters else CliRunner()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command line in an empty folder, as a user would."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def invoke(*arguments):
        from kbitlint.cli import main

        return _RUNNER.invoke(main, [str(argument) for argument in arguments])

    return invoke
