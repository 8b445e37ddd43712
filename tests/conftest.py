from __future__ import annotations

import gc
import inspect
import os
import subprocess
from pathlib import Path

import preloaded as interpreters
import pytest
from click.testing import CliRunner, Result
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each worker has one core; set before torch is imported
interpreters.Popen.environment = dict(os.environ)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("quick", settings.get_profile("ci"), max_examples=25)


#: the modules that take longest, first: where files are shared out among workers, none is left with a long one at the end
_LONGEST = (
    *(
        "integrations/test_trl",
        "benchmarks/test_truth",
        "rehearsal/test_scripts",
        "rehearsal/test_process",
        "runtime/test_reach",
    ),
    *(
        "integrations/test_ranks",
        "rehearsal/test_ranks",
        "model/test_edits",
        "runtime/test_optimized_python",
        "test_rules_meta",
    ),
    *("model/test_memory_of_like_layers", "rehearsal/test_measured", "benchmarks/test_memory_benchmarks", "cli/test_exits"),
    *(
        "model/test_diffusion",
        "test_security",
        "output/test_reproducible",
        "test_extension",
        "model/test_fit",
        "output/test_page",
    ),
    *("model/test_step_settings", "model/test_passes", "rehearsal/test_what_is_not_here", "audit/test_concurrency"),
    *(
        "audit/test_large",
        "fixes/test_fixed_models",
        "jobs/test_jobs",
        "files/test_hub",
        "test_notebook",
        "model/test_optimizers",
    ),
)


ROOT = Path(__file__).parents[1]


def pytest_configure(config):
    """Try a quarter of the examples where slow tests are left out."""
    settings.load_profile("quick" if config.option.markexpr == "not slow" else "ci")


def pytest_collection_finish():
    """Leave the libraries and the tests to no further garbage collection: a quarter of the time of a test with a model."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):
        places = {str(config.rootpath / "tests" / f"{name}.py"): place for place, name in enumerate(_LONGEST)}
        items.sort(key=lambda item: places.get(str(item.path), len(places)))


@pytest.fixture(scope="session", autouse=True)
def _own_folder(tmp_path_factory):
    """Run the tests in a folder of their own: a Trainer without an output folder writes into the working folder."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("working"))
    yield
    os.chdir(before)


def _in_root():
    """Return the entries of the project's folder, without those of tools, whose names begin with a dot."""
    return {name for name in os.listdir(ROOT) if not name.startswith(".")}  # noqa: PTH208  # for each test


@pytest.fixture(autouse=True)
def _nothing_in_root():
    """Fail where a test, or one that runs beside it, leaves a new entry in the project's folder."""
    before = _in_root()
    yield
    assert _in_root() - before == set(), "written into the project's folder, where no test may write"


@pytest.fixture(autouse=True)
def _newest_versions(monkeypatch):
    """Scripts of the tests are written for the newest versions, whatever is installed here."""
    from kbitlint.upstream import versions

    monkeypatch.setattr(versions, "installed", lambda: versions.NEWEST)


@pytest.fixture
def preloaded(monkeypatch):
    """Let the interpreters that a test starts be forked from one that has imported torch: a tenth of the CPU time."""
    monkeypatch.setattr(subprocess, "Popen", interpreters.Popen)


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

    def invoke(*arguments, text=None):
        from kbitlint.cli import main

        return _RUNNER.invoke(main, [str(argument) for argument in arguments], input=text)

    return invoke
