"""No input makes kbitlint slow: work is counted, or timed against twice the input, and bounds say what they leave out."""

from __future__ import annotations

import ast
import json
import re
import sys
import time
from pathlib import Path

import pytest

from benchmarks.robustness.shapes import SHAPES
from kbitlint.audit.scripts import run
from kbitlint.files import json_text
from kbitlint.limits import Limits, held_to
from kbitlint.module_paths import matches
from kbitlint.source import documents, folders, gitignore, notebooks
from kbitlint.source.interpreter.relevance import Relevance
from kbitlint.source.offsets import Text
from kbitlint.upstream import versions
from kbitlint.upstream.versions import NEWEST

ROOT = Path(__file__).parents[2]

MARK = "from peft import get_peft_model\n"
#: CPU seconds; what is linear takes hundredths, and what these tests are about took from two to forty
SOON = 1.5


def seconds(function):
    """CPU seconds of a call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def calls_in(function):
    """How many functions of Python a call enters: the same on every machine."""
    entered = 0

    def count(frame, event, argument):
        nonlocal entered
        entered += event == "call"

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return entered


# ------------------------------------------------------------------------------------------------ patterns


SOURCES = {
    path: path.read_text(encoding="utf-8") for path in sorted((*ROOT.glob("kbitlint/**/*.py"), *ROOT.glob("rules/*.py")))
}
_USE = re.compile(r"\b(\w+)(?:\(\))?\.(search|match|fullmatch|finditer|findall|sub)\b")


def _uses():
    """Return {file: {name: how it is used there}}, and the same of all files together."""
    by_file, together = {}, {}
    for path, text in SOURCES.items():
        found = by_file[path] = {}
        for name, used in _USE.findall(text):
            found.setdefault(name, set()).add(used)
            together.setdefault(name, set()).add(used)
    return by_file, together


def _patterns():
    """Every pattern in the packages: its place, how it is used, and its syntax node."""
    by_file, together = _uses()
    for path, text in SOURCES.items():
        if "re." not in text:
            continue
        nodes = list(ast.walk(ast.parse(text)))
        names = {
            id(node.value): node.targets[0].id
            for node in nodes
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in nodes:
            if isinstance(node, ast.FunctionDef) and isinstance(node.body[-1], ast.Return):
                names[id(node.body[-1].value)] = node.name
        chained = {id(node.value): node.attr for node in nodes if isinstance(node, ast.Attribute)}
        for node in nodes:
            called = node.func if isinstance(node, ast.Call) else None
            if (
                isinstance(called, ast.Attribute)
                and isinstance(called.value, ast.Name)
                and called.value.id == "re"
                and node.args
            ):
                used = {called.attr}
                if id(node) in chained:
                    used = {chained[id(node)]}
                elif called.attr == "compile":
                    name = names.get(id(node), "compile")
                    # Modules share no private name: another module's `_NAME` is another pattern.
                    used = (by_file[path] if name.startswith("_") else together).get(name, {"search"})
                yield f"{path.relative_to(ROOT)}:{node.lineno}", used, node.args[0]


FIXED = [(place, used, node.value) for place, used, node in _patterns() if isinstance(node, ast.Constant)]
MADE = sorted(
    {place.partition(":")[0] for place, used, node in _patterns() if not isinstance(node, ast.Constant) and used != {"escape"}}
)


def test_patterns_that_are_made_while_running_are_few_and_known():
    """Their parts: columns of our tables, names of classes and arguments, words of one script, and the patterns of a
    configuration, which ``runtime/patterns.py`` matches within a time limit. ``lazy_patterns.py`` makes those of others."""
    assert MADE == [
        "kbitlint/facts/source_text.py",
        "kbitlint/files/merged.py",
        "kbitlint/files/packing.py",
        "kbitlint/fixes/lora.py",
        "kbitlint/lazy_patterns.py",
        "kbitlint/model/build/meta.py",
        "kbitlint/model/inputs/failure.py",
        "kbitlint/rehearsal/stand_ins/rows.py",
        "kbitlint/runtime/patterns.py",
        "kbitlint/source/gitignore.py",
        "kbitlint/upstream/hub_names.py",
        "kbitlint/upstream/messages.py",
    ]


def _attacks(pattern, letters):
    """Texts in which every word and sign that the pattern names is repeated, so that it nearly matches."""
    words = sorted(
        {*re.findall(r"[A-Za-z_]{2,}", pattern), " ", "a", "0", "a.", "a,", ".", "=", "[", "(", "{", "a a", "#", "/", "\n", "-"}
    )
    named = [f"{word}{sign}" for word in words if len(word) > 2 for sign in ("(", "[", " ", ".", ":", "/", "_")]
    for word in (*words, *named):
        yield word * (letters // len(word)) + "\x00"
        yield f"transformers{word * (letters // len(word))}x!"


@pytest.mark.parametrize(("place", "used", "pattern"), FIXED, ids=[place for place, *_ in FIXED])
def test_every_pattern_takes_time_linear_in_the_text(place, used, pattern):
    pattern = pattern.decode() if isinstance(pattern, bytes) else pattern
    for flags in (0, re.IGNORECASE):
        compiled = re.compile(pattern, flags)
        anchored = [getattr(compiled, how) for how in ("match", "fullmatch") if how in used]
        for way in anchored if used <= {"match", "fullmatch"} else [compiled.search]:
            for text in _attacks(pattern, 12_000):
                took = seconds(lambda way=way, text=text: way(text))
                assert took < 0.25, f"{pattern!r} takes {took:.2f} s for {text[:30]!r}..."


def test_the_check_of_patterns_sees_a_quadratic_one():
    slow = re.compile(r"(\s*[\w, ]+=\s*)[%!].*$")

    assert any(seconds(lambda text=text: slow.match(text)) > 0.25 for text in _attacks(slow.pattern, 12_000))


# ------------------------------------------------------------------------------------------------ .gitignore, globs, pins


@pytest.mark.parametrize("line", ["a*" * 14 + "b.txt", "*a" * 30 + "/*b*c*d", "[ab]*" * 20 + "c", "a?*" * 20 + "c"])
def test_stars_of_a_gitignore_take_no_time(tmp_path, line):
    (tmp_path / ".gitignore").write_text(line + "\n")
    (tmp_path / ("a" * 120 + ".py")).write_text("x = 1\n")
    found = []

    assert seconds(lambda: found.extend(folders.walk(tmp_path))) < SOON
    assert [path.name for path in found] == ["a" * 120 + ".py"]


@pytest.mark.parametrize(
    ("line", "ignored", "kept"),
    [
        ("a*b*c.py", ["abc.py", "axbxc.py", "abbc.py", "aXbc/x/abbc.py"], ["ab.py", "acb.py", "abcd.py"]),
        ("x*y*/z*w*.py", ["xy/zw.py", "x1y2/z1w2.py"], ["xy/z.py", "a/xy/zw.py"]),
        ("*a*b*c*", ["abc", "1a2b3c4", "aabbcc/x.py"], ["cba"]),
        ("[ab]*[cd]*e", ["ace", "bxdxe", "q/ade"], ["ae", "cae"]),
        ("**/a*b*c/**", ["abc/x.py", "q/a1b2c/x.py"], ["abc", "ab/x.py"]),
        ("a**b**c", ["abc", "aXbYc"], ["acb"]),
        (r"a\*b*c*d", ["a*bcd", "a*b1c2d"], ["axbcd"]),
    ],
)
def test_patterns_with_many_stars_mean_what_git_means(tmp_path, line, ignored, kept):
    (tmp_path / ".gitignore").write_text(line + "\n")
    spec = gitignore.patterns(tmp_path / ".gitignore", [])

    assert [path for path in (*ignored, *kept) if spec.match_file(path)] == ignored


def test_a_line_of_a_gitignore_that_is_no_pattern_costs_no_other(tmp_path):
    (tmp_path / ".gitignore").write_text("x.py\n[z-a].py\n!\nz.py\n")
    for name in "xyz":
        (tmp_path / f"{name}.py").write_text("x = 1\n")
    notes = []

    assert [path.name for path in folders.walk(tmp_path, notes)] == ["y.py"]
    assert notes == [f"{tmp_path}/.gitignore: line {number} is no pattern and is not read" for number in (2, 3)]


def test_what_of_a_gitignore_is_not_read_is_said(tmp_path):
    (tmp_path / ".gitignore").write_text("**/a/**/a/**/a/**/b\nx.py\n" + "\n" * 3000)
    (tmp_path / "x.py").write_text("x = 1\n")
    (tmp_path / "y.py").write_text("x = 1\n")
    notes = []

    assert [path.name for path in folders.walk(tmp_path, notes)] == ["y.py"]
    assert notes == [
        f"{tmp_path}/.gitignore: what follows line 2000 is not read",
        f"{tmp_path}/.gitignore: line 1 holds ** more than 3 times and is not read",
    ]


@pytest.mark.parametrize(
    ("pattern", "path", "named"),
    [
        ("**", "", True),
        ("**", "a.b", True),
        ("a.**", "a", True),
        ("a.**.d", "a.b.c.d", True),
        ("a.**.d", "a.d", True),
        ("**.up", "a.b.up", True),
        ("a.*.c", "a.b.b.c", False),
        ("a*b*c", "aXbYc", True),
        ("a*b*b", "ab", False),
        ("a.**.b.**.c", "a.x.b.c.b.c", True),
        ("a.**.b.**.c", "a.x.b.c.b.d", False),
        ("*", "a.b", False),
    ],
)
def test_a_glob_names_paths(pattern, path, named):
    assert matches(pattern, path) is named


def test_globs_take_no_time():
    assert seconds(lambda: matches("a*" * 40 + "b", "a" * 4000)) < SOON
    assert seconds(lambda: matches("**.a." * 30 + "b", "a." * 1000 + "c")) < SOON


def test_pins_take_no_time():
    assert seconds(lambda: versions.bounds_in("transformers" + " " * 60_000 + "x")) < SOON
    assert versions.bounds_in("transformers [a,b] == 4.38\npeft<1\ntrl~=0.9")[0] == {
        "transformers": "4.38",
        "peft": "0.21.2",
        "trl": "0.9",
    }
    assert versions.bounds_in("transformers==" + "1" * 5000)[0] == {}


def test_a_line_of_blanks_in_a_notebook_takes_no_time():
    raw = json.dumps({"cells": [{"cell_type": "code", "source": "get_peft_model(m)\n" + " " * 40_000 + "x\nfiles = !ls"}]})

    assert seconds(lambda: notebooks.read(raw)) < SOON
    assert notebooks.read(raw).python.startswith(" " * 17 + "\n")  # no Python, and so blank


# ------------------------------------------------------------------------------------------------ following


def _twice(make, work):
    """By how much twice the input takes more calls."""
    inputs = [make(count) for count in (150, 300)]
    one, two = (calls_in(lambda given=given: work(given)) for given in inputs)
    return two / one


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "".join(f"v{i + 1} = v{i}\n" for i in range(n)) + f"get_peft_model(v{n})\n",
        lambda n: (
            "".join(f"def f{i}(m):\n    return f{i + 1}(m)\n" for i in range(n)) + f"def f{n}(m):\n    get_peft_model(m)\n"
        ),
        lambda n: "if a:\n    pass\n" + "".join(f"elif a == {i}:\n    x = {i}\n" for i in range(n)),
    ],
)
def test_what_matters_is_found_in_linear_time(make):
    assert _twice(lambda n: ast.parse(make(n)), Relevance) < 2.3


def test_columns_of_a_line_that_is_not_ascii_take_linear_time():
    text = "x = ['é', " + "f(1), " * 16_000 + "]"
    places = Text(text)

    assert seconds(lambda: [places.offset(1, column) for column in range(11, 90_000, 5)]) < SOON
    assert (places.offset(1, 5), places.offset(1, 6), places.offset(1, 8)) == (5, 6, 7)


QUICK = [shape for shape in SHAPES if shape.suffix in (".py", ".ipynb", ".yaml", ".json") and not shape.beside]


@pytest.mark.parametrize(
    "shape",
    [pytest.param(shape, id=shape.name, marks=pytest.mark.slow if place % 3 else ()) for place, shape in enumerate(QUICK)],
)
def test_no_shape_of_60_kb_takes_long(shape):
    """Work in one process; the benchmark goes up to a megabyte in processes of their own."""
    from kbitlint.context import TrainingContext
    from kbitlint.errors import TargetError
    from kbitlint.registry import all_rules

    content = shape.make(60_000).encode()

    def audit():
        try:
            read = documents.parse(Path(f"train{shape.suffix}"), content, "train", NEWEST)
        except TargetError:
            return
        if read is not None:
            outcome, _ = run(tuple(all_rules()), read.facts, TrainingContext())
            assert outcome.crashes == ()

    assert seconds(audit) < 8  # alone, the dearest shape takes 3.4 s; twice that beside another process on the same core


# ------------------------------------------------------------------------------------------------ bounds


def test_what_is_not_followed_is_a_skip(run, tmp_path):
    (tmp_path / "train.py").write_text(MARK + "x = 1\n" * 300 + "get_peft_model(m)\n")
    (tmp_path / "pyproject.toml").write_text("[tool.kbitlint]\nmax-steps = 300\n")

    result = run("check", "train.py")

    assert "skipped: train.py takes more than 100 steps on one way through it, or 300 on all" in " ".join(result.output.split())


def test_more_ways_than_are_followed_are_a_skip(run, tmp_path):
    (tmp_path / "train.py").write_text(MARK + "".join(f"if a{i}:\n    m = get_peft_model(m)\n" for i in range(60)))

    result = run("check", "train.py")

    assert "train.py has more than 40 ways through it, of which the most different are followed" in " ".join(
        result.output.split()
    )


@pytest.mark.parametrize(
    ("line", "name", "text", "problem"),
    [
        ('max-file-size = "1kB"', "t.py", MARK + "x = 1\n" * 300, "is larger than 1,000 bytes, and is skipped (max-file-size"),
        ("max-tokens = 100", "t.py", MARK + "x = 1\n" * 300, "holds more than 100 words and signs, and is skipped (max-tokens"),
        (
            "max-tokens = 100",
            "t.ipynb",
            json.dumps({"cells": [{"cell_type": "code", "source": MARK + "x=1;" * 99}]}),
            "holds more than 50 words and signs of code, and is skipped (max-tokens",
        ),
    ],
)
def test_what_is_too_large_is_named_before_it_is_parsed(run, tmp_path, monkeypatch, line, name, text, problem):  # noqa: PLR0917
    (tmp_path / name).write_text(text)
    (tmp_path / "pyproject.toml").write_text(f"[tool.kbitlint]\n{line}\n")
    for target in (name, "."):
        run("check", target)  # pytest parses what it imports
    with monkeypatch.context() as parsing:
        parsing.setattr(ast, "parse", None)
        alone, folder = run("check", name), run("check", ".")

    assert (alone.exit_code, alone.stderr.startswith(f"kbitlint: {name}: {problem}")) == (2, True)
    assert f"skipped: {name} {problem}" in " ".join(folder.output.split())


def test_a_table_of_more_values_than_a_training_needs_is_refused():
    with pytest.raises(json_text.TooManyValues, match="holds more than 10 values"):
        json_text.parse("[" + "0," * 20 + "0]", most=10)


def test_members_that_nobody_looks_at_are_read_over():
    node = json_text.parse('{"a": [1, {"b": 2}], "c": [3]}', most=3, wanted=lambda _, name: name == "c")

    assert (node.plain(), node.value["a"].start, node.value["a"].end) == ({"a": None, "c": [3]}, 6, 19)


def test_lists_that_double_end_the_path():
    text = MARK + "x = [1]\n" + "x = x + x\n" * 60 + "get_peft_model(x)\n"
    facts = documents.parse(Path("t.py"), text.encode(), "t.py", NEWEST).facts

    assert facts.unfollowed.startswith("takes more than 40,000 steps on one way through it")


def test_the_bounds_hold_inside_only():
    with held_to(Limits(max_steps=30)):
        short = documents.parse(Path("t.py"), (MARK + "x = 1\n" * 50).encode(), "t.py", NEWEST).facts
    whole = documents.parse(Path("t.py"), (MARK + "x = 1\n" * 50).encode(), "t.py", NEWEST).facts

    assert (bool(short.unfollowed), whole.unfollowed) == (True, "")
