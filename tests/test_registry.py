from __future__ import annotations

import importlib
import sys

import pytest

from kbitlint import registry
from kbitlint.errors import SelectionError
from kbitlint.registry import RuleShapeError, all_rules, find, select

ALL = [rule.meta.code for rule in all_rules()]


def codes(**arguments):
    return [rule.meta.code for rule in select(**arguments)]


@pytest.mark.parametrize(
    ("selected", "ignored", "expected"),
    [
        ((), (), ALL),
        (("ALL",), (), ALL),
        (("KB4",), (), [code for code in ALL if code.startswith("KB4")]),
        (("kb4",), ("KB402",), [code for code in ALL if code.startswith("KB4") and code != "KB402"]),
        (("KB401",), ("KB4",), ["KB401"]),
        (("KB4",), ("KB4",), []),
        (("low-precision-norm", "KB501"), (), ["KB101", "KB501"]),
        ((), ("KB",), []),
        ((), ("nothing-quantized",), [code for code in ALL if code != "KB501"]),
    ],
)
def test_the_more_specific_selector_wins(selected, ignored, expected):
    assert codes(selected=selected, ignored=ignored) == expected


@pytest.mark.parametrize("selector", ["KB91", "nothing", "", "KB1011"])
def test_a_selector_without_a_rule_is_an_error(selector):
    with pytest.raises(SelectionError):
        codes(selected=[selector])


def test_rules_are_found_by_code_and_slug():
    assert find("kb101") is find("low-precision-norm")


RULE = """
from kbitlint.rule import Meta, Rule
from kbitlint.violation import Consequence, Severity
class Planted(Rule):
    '''Planted.'''
    meta = Meta(code={code!r}, slug={slug!r}, severity=Severity.INFO, consequence=Consequence.HARMLESS, since="0")
    {body}
"""
CHECK = "def check_model(self, model, context): return []"


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("planted", RULE.format(code="KB1", slug="planted", body=CHECK), "code 'KB1' is not KB and three digits"),
        ("planted", RULE.format(code="KB101", slug="Planted", body=CHECK), "slug 'Planted' is not words joined by hyphens"),
        ("other", RULE.format(code="KB199", slug="planted", body=CHECK), "the module of 'planted' must be called planted.py"),
        ("planted", RULE.format(code="KB199", slug="planted", body=""), "overrides no check method"),
        ("planted", "", "holds 0 rules; a module holds exactly one"),
        ("planted", "from kbitlint.rule import Rule\nclass Planted(Rule): pass\n", "has no meta"),
    ],
)
def test_a_pack_with_a_rule_of_the_wrong_shape_is_refused(tmp_path, monkeypatch, name, text, problem):
    folder = tmp_path / "planted_pack"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for module in [module for module in sys.modules if module.startswith("planted_pack")]:
        monkeypatch.delitem(sys.modules, module)

    with pytest.raises(RuleShapeError, match=problem):
        registry._rules_of("planted_pack")


def test_a_pack_that_cannot_be_imported_is_no_silent_pass():
    with pytest.raises(RuleShapeError, match="rule pack 'no_such_pack' cannot be imported"):
        registry._rules_of("no_such_pack")


@pytest.fixture
def second_pack(tmp_path, monkeypatch):
    """Install a pack with one rule of a given code through the entry point."""
    from importlib.metadata import EntryPoint

    def install(code):
        name = f"pack_{code.lower()}"
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "planted.py").write_text(RULE.format(code=code, slug="planted", body=CHECK))
        importlib.invalidate_caches()
        monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint("second", name, group)])
        registry.all_rules.cache_clear()

    monkeypatch.syspath_prepend(tmp_path)
    yield install
    registry.all_rules.cache_clear()


def test_packs_are_found_by_entry_point(second_pack):
    second_pack("KB199")

    assert [rule.meta.code for rule in registry.all_rules()] == sorted([*ALL, "KB199"])


def test_packs_may_not_share_a_code(second_pack):
    second_pack("KB101")

    with pytest.raises(RuleShapeError, match="share the code KB101"):
        registry.all_rules()
