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
        ("planted", RULE.format(code="KB1", slug="planted", body=CHECK), "code 'KB1' is not capital letters and three digits"),
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
    with pytest.raises(RuleShapeError, match="it cannot be imported: No module named 'no_such_pack'"):
        registry._rules_of("no_such_pack")


@pytest.fixture
def second_pack(tmp_path, monkeypatch):
    """Install a pack with one rule of a given code through the entry point."""

    def install(code):
        name = f"pack_{code.lower()}"
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "planted.py").write_text(RULE.format(code=code, slug="planted", body=CHECK))
        importlib.invalidate_caches()
        monkeypatch.setattr(registry, "entry_points", lambda _: [name])
        registry._loaded.cache_clear()

    monkeypatch.syspath_prepend(tmp_path)
    yield install
    registry._loaded.cache_clear()


def test_packs_are_found_by_entry_point(second_pack):
    second_pack("KB199")

    assert [rule.meta.code for rule in registry.all_rules()] == sorted([*ALL, "KB199"])


def test_a_pack_has_a_prefix_of_its_own(second_pack):
    second_pack("HOU001")

    assert registry.find("hou001").meta.slug == "planted"
    assert [rule.meta.code for rule in select(["HOU"])] == ["HOU001"]


def test_a_pack_with_a_code_of_another_is_left_out(second_pack):
    second_pack("KB101")

    assert [rule.meta.code for rule in registry.all_rules()] == ALL
    assert list(map(str, registry.broken_packs())) == [
        "the rule pack pack_kb101 is left out: Planted and LowPrecisionNorm share the code KB101"
    ]


@pytest.mark.parametrize("fault", ["raise ValueError('not today')", "import no_such_module", "x = 1"])
def test_a_broken_pack_is_a_named_warning_and_fails_what_asked_for_it_alone(second_pack, run, tmp_path, fault):
    second_pack("HOU001")
    (tmp_path / "pack_hou001" / "planted.py").write_text(fault)
    (tmp_path / "train.py").write_text("from peft import get_peft_model\n")
    for name in ("pack_hou001", "pack_hou001.planted"):
        sys.modules.pop(name, None)

    rules, asked, other = run("rules"), run("check", "train.py"), run("check", "train.py", "--select", "KB4")
    gone, document = run("check", "train.py", "--select", "HOU001"), run("explain", "KB401")

    line = "kbitlint: warning: the rule pack pack_hou001 is left out: "
    assert (rules.exit_code, rules.stderr.startswith(line), "KB101" in rules.stdout) == (0, True, True)
    assert (asked.exit_code, asked.stderr.startswith(line)) == (2, True)
    assert "RuleShapeError: the rule pack pack_hou001 is left out: " in " ".join(asked.stdout.split())
    assert (other.exit_code, document.exit_code) == (0, 0)
    assert (gone.exit_code, "the rule pack pack_hou001 is left out" in gone.stderr) == (2, True)


@pytest.mark.parametrize("surface", ["model", "source"])
def test_new_rule_writes_a_package_whose_test_passes(run, tmp_path, monkeypatch, surface):
    command = ("new-rule", "own-rule", "--code", "HOU001", "--package", f"house_{surface}", "--surface", surface)
    made, again, wrong = run(*command), run(*command), run(*command[:3], "house1", *command[4:])
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {}
    exec((tmp_path / "test_own_rule.py").read_text(), names)  # noqa: S102  # written by the command

    names["test_own_rule"]()

    entry = f'[project.entry-points."kbitlint.rules"]\nhouse_{surface} = "house_{surface}"\n'
    assert entry in (tmp_path / "pyproject.toml").read_text()
    assert made.stdout.splitlines() == [
        "written: pyproject.toml",
        f"written: house_{surface}/__init__.py",
        f"written: house_{surface}/own_rule.py",
        "written: test_own_rule.py",
        "then: pip install -e . pytest; kbitlint explain HOU001; python -m pytest test_own_rule.py",
    ]
    assert again.stderr == f"kbitlint: new-rule own-rule: house_{surface}/own_rule.py is there already\n"
    assert wrong.stderr == "kbitlint: new-rule own-rule: --code house1: a code is capital letters and three digits: HOU001\n"


def test_new_rule_tells_what_a_project_lacks(run, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "ours"\n')

    made = run("new-rule", "own-rule", "--code", "HOU001", "--package", "house")

    assert (tmp_path / "pyproject.toml").read_text() == '[project]\nname = "ours"\n'
    assert made.stdout.splitlines()[3:6] == [
        "add to pyproject.toml:",
        '    [project.entry-points."kbitlint.rules"]',
        '    house = "house"',
    ]
