# Every command installs what it needs into .venv by itself.
PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check --quiet
INPUTS = pyproject.toml constraints.txt

.PHONY: help demo test test-all lint docs bench bench-light bench-programs test-oldest test-newest release-check coverage clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

# torch goes first, as the constraint pins it: another package's range would bring gigabytes of CUDA packages
.venv/installed: $(INPUTS)
	$(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(PIP) install -c constraints.txt -e '.[test]'
	touch $@

.venv/linters: .venv/installed
	$(PIP) install --upgrade 'pip>=25.1'
	$(PIP) install --group dev
	touch $@

.venv/documenters: .venv/installed
	$(PIP) install --upgrade 'pip>=25.1'
	$(PIP) install --group docs
	touch $@

.venv-oldest/installed .venv-newest/installed: .venv-%/installed: pyproject.toml constraints-%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip --quiet install -c constraints-$*.txt -e '.[test]'
	touch $@

.venv-release/installed: pyproject.toml
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip --quiet install --upgrade 'pip>=25.1'
	.venv-release/bin/python -m pip --quiet install --group release
	touch $@

demo: .venv/installed  ## Quantize a tiny Llama, audit it, fix it, train it one step
	.venv/bin/kbitlint demo

# a file's tests stay on one worker: they share fixtures, and those of ranks, timing and kills do not meet each other. The order
# is that of tests/conftest.py: the longest files first. Where Python writes no compiled modules, each process that a test starts
# would compile kbitlint again
TESTS = PYTHONDONTWRITEBYTECODE= .venv/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test: .venv/installed  ## Run the tests on all cores, but the slow ones; ARGS="-k KB301" selects
	$(TESTS) -m "not slow" $(ARGS)

test-all: .venv/installed  ## Run all tests, as CI does: sweeps by architecture, large sizes and long races too
	$(TESTS) $(ARGS)

# the tests of rules and of causes alone: a rule is covered by what is written for it, and the whole suite takes an hour so
coverage: .venv/installed  ## Hold the branch coverage of rules/ by the tests of rules at 100 %
	.venv/bin/coverage run --source=kbitlint_rules -m pytest tests/rules tests/causes
	.venv/bin/coverage report --show-missing --skip-covered --fail-under 100

test-oldest: .venv-oldest/installed  ## Run the tests on the oldest versions that pyproject.toml allows
	.venv-oldest/bin/python -m pytest

test-newest: .venv-newest/installed  ## Run the tests on the newest versions
	.venv-newest/bin/python -m pytest

release-check: .venv-release/installed  ## Build the sdist and the wheel, install each in fresh environments, run it there
	.venv-release/bin/python .ci/release_check.py

lint: .venv/linters  ## Format, lint, types, arrows between modules
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

docs: .venv/documenters  ## Write docs/rules, and build the site into site/; fails at a dead link
	.venv/bin/python docs/rule_pages.py
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build

bench: .venv/installed  ## Measure every promise: benchmarks/RESULTS.md (hours; goes on where it was stopped)
	.venv/bin/python -m benchmarks.run

bench-light: .venv/installed  ## The minute of it that CI runs: fails where a ratio became worse
	.venv/bin/python -m benchmarks.run --light

bench-programs: .venv/installed  ## A hundred generated programs of today's seeds: a report, which fails nothing
	-.venv/bin/python -m benchmarks.truth.generated --programs 100 --seed $$(date +%y%j000) --out .generated.jsonl; rm -f .generated.jsonl

clean:  ## Remove what make made
	rm -rf site .venv .venv-oldest .venv-newest .venv-release build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
