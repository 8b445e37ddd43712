from __future__ import annotations

import os

import pytest
from click.testing import CliRunner
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _newest_versions(monkeypatch):
    """Scripts of the tests are written for the newest versions, whatever is installed here."""
    from kbitlint.source import versions

    monkeypatch.setattr(versions, "installed", lambda: versions.NEWEST)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command line in an empty folder, as a user would."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def invoke(*arguments):
        from kbitlint.cli import main

        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return invoke
