"""Versions that pip chooses beside pinned ones: the rows against the installed metadata, and projects that pin one library."""

from __future__ import annotations

import importlib.metadata
import re

import pytest
from script_cases import NEWEST

from kbitlint.upstream.resolution import REQUIREMENTS, fitting
from kbitlint.upstream.versions import installed, number, versions_for

BOUNDED = ("accelerate", "datasets", "huggingface_hub", "peft", "transformers", "trl")


@pytest.mark.parametrize("library", ["transformers", "trl"])
def test_the_newest_row_holds_what_the_installed_metadata_requires(library):
    if installed()[library] != NEWEST[library]:
        pytest.skip("the newest row describes the newest version")
    first, last, *bounds = REQUIREMENTS[library][0].split()
    required = dict.fromkeys(BOUNDED, "")
    for line in importlib.metadata.requires(library):
        name, least = re.match(r"([\w-]+)[^;]*?(?:>=([\d.]+))?(?:;|$)", line).groups()
        if "extra ==" not in line and name.replace("-", "_") in required:
            required[name.replace("-", "_")] = least

    assert number(first) <= number(installed()[library]) <= number(last)
    told = {bound.partition(">=")[0]: bound.partition(">=")[2] for bound in bounds}
    # a lower bound of the hub's client that each version of transformers has as well binds nothing
    assert set(told) == {name for name, least in required.items() if least} - {"huggingface_hub"} or library == "transformers"
    assert all(number(least) <= number(required[name]) for name, least in told.items())


@pytest.mark.parametrize("library", ["transformers", "trl", "unsloth"])
def test_rows_are_ordered_and_do_not_overlap(library):
    ends = [number(one) for row in REQUIREMENTS[library] for one in reversed(row.split()[:2])]

    assert ends == sorted(ends, reverse=True)


@pytest.mark.parametrize(
    ("requirements", "chosen"),
    [
        ("transformers==4.46.3\npeft==0.13.2\naccelerate==1.1.1\n", {"trl": "0.17.0"}),
        ("transformers==4.35.2\naccelerate\n", {"trl": "0.12.2"}),
        ("transformers==4.46\n", {"trl": "0.17.0"}),
        ("transformers==4.28.1\n", {"trl": "0.12.2"}),  # its only bound is an upper one
        ("transformers==4.47.1\n", {"trl": "0.17.0"}),
        ("transformers==4.54.0\naccelerate==1.0.1\n", {"trl": "0.18.2"}),
        ("transformers==4.57.1\ndatasets==3.6.0\n", {"trl": "0.29.1"}),
        ("transformers<5\n", {}),  # the newest TRL takes 4.57
        ("trl==0.12.2\n", {"transformers": "4.46.3"}),
        ("trl==0.12.1\n", {}),
        ("huggingface-hub<1.0\n", {"transformers": "4.57.6"}),
        ("unsloth[colab-new]==2025.10.5\n", {"transformers": "4.56.2", "trl": "0.23.0"}),
        ("unsloth==2025.5.1\ntrl==0.18.2\n", {"transformers": "4.51.3"}),
        ("trl>=0.20\ntransformers==4.46.3\n", {}),  # nothing fits both
        ("transformers\ntrl\n", {}),
    ],
)
def test_a_library_that_is_not_pinned_has_the_version_that_fits_the_pinned_ones(tmp_path, requirements, chosen):
    (tmp_path / ".git").mkdir()
    (tmp_path / "requirements.txt").write_text(requirements)
    found = versions_for(tmp_path / "train.py", "")
    pinned = {name for name in found if f"{name}=" in requirements or f"{name}<" in requirements}

    assert {name: found[name] for name in ("transformers", "trl") if name not in pinned} == {
        name: chosen.get(name, installed()[name]) for name in ("transformers", "trl") if name not in pinned
    }
    assert not set(chosen) & set(found.declared)  # pip chooses them; the project does not


def test_what_pins_nothing_bounds_nothing():
    assert [*fitting({}, {})] == []
