"""The benchmark of robustness sees what it looks for: a run that fails each of its promises is counted as lost."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from benchmarks.robustness.trials import Run, Tally, contents, run


@pytest.mark.parametrize(
    ("ended", "problem"),
    [
        (Run(0, "clean", "", 1.0), None),
        (Run(1, "1 warning", "", 1.0), None),
        (Run(2, "", "kbitlint: x: no such file\n", 1.0), None),
        (Run(2, "", "", 1.0), "failed without a word"),
        (Run(1, "", "Traceback (most recent call last):\n  ...\nValueError: x\n", 1.0), "traceback: ValueError: x"),
        (Run(-9, "", "", 1.0), "ended with -9: "),
        (Run(70, "", "odd\n", 1.0), "ended with 70: odd"),
        (Run(-9, "", "", 60.2, hung=True), "hung for 60 s"),
    ],
)
def test_a_run_is_judged_by_its_end(ended, problem):
    assert ended.problem == problem


def test_a_case_with_a_problem_is_lost(capsys):
    tally = Tally("x", "what")
    tally.case("one", None, None)
    tally.case("two", None, "broken")

    record = tally.record()
    assert (record["tried"], record["survived"], record["lost"]) == (2, 1, ["two: broken"])
    assert capsys.readouterr().out == "  LOST x: two: broken\n"


def test_a_process_that_hangs_is_ended_and_one_that_dies_is_seen(tmp_path):
    hung = run(["rules"], tmp_path, seconds=0.5, before=lambda: time.sleep(600))
    dead = run(["rules"], tmp_path, before=lambda: os.kill(os.getpid(), signal.SIGKILL))
    wrong = run(["rules"], tmp_path, before=lambda: 1 / 0)
    fine = run(["check", "nothing/at/all"], tmp_path)

    assert (hung.hung, dead.code, "ZeroDivisionError" in wrong.problem) == (True, -signal.SIGKILL, True)
    assert (fine.code, fine.err) == (2, "kbitlint: nothing/at/all: there is no such file or folder\n")


@pytest.mark.parametrize("text", ["\x1b[31m", "a\x07", "\x9b1m", "\u202e", "x\r", "\u200b", "\x00", "\udc9b", "\U000e0041"])
def test_what_steers_a_terminal_is_seen(text):
    from benchmarks.robustness.terminal_output import escaped

    assert escaped(f"fine {text} fine").startswith(f"{text.strip('ax[31m')!r}"[:3])
    assert escaped("fine\nfine é 模\t") is None
    assert escaped("\x1b[31;1merror\x1b[0m\r\nauditing x ... 1 s\r\x1b[K", painted=True) is None


def test_a_damaged_file_and_a_half_done_work_are_seen(tmp_path, monkeypatch):
    from benchmarks.robustness import interrupted_writes

    write = interrupted_writes.Write("x", lambda _: None, ("check", "."))
    old, new = {"a": b"old", "b": b"old"}, {"a": b"new", "b": b"new"}
    found = dict.fromkeys(("killed", "untouched", "partly", "done", "temporary", "after the next run"), 0)
    tally = Tally("kills", "")

    def judged(**files):
        for path in tmp_path.iterdir():
            path.unlink()
        for name, text in files.items():
            (tmp_path / name.replace("__", ".")).write_text(text)
        before = len(tally.lost)
        interrupted_writes._judge(tally, write, tmp_path, (old, new), Run(-9, "", "", 0.1), found)
        return len(tally.lost) > before

    assert [judged(a="old", b="old"), judged(a="new", b="old"), judged(a="new", b="new")] == [False] * 3
    assert [judged(a="ne", b="old"), judged(a="old"), judged(a="old", b="old", c="more")] == [True] * 3
    monkeypatch.setattr(interrupted_writes, "run", lambda *_: Run(0, "", "", 0.1))
    assert judged(a="old", b="old", __a__12345678__kbitlint_tmp="half") is True  # no temporary file by its name
    assert judged(a="old", b="old", **{".a.12345678.kbitlint-tmp": "half"}) is False
    assert (found["killed"], found["partly"], found["temporary"]) == (8, 5, 1)


@pytest.mark.parametrize(
    ("name", "text", "fine"),
    [
        ("json", "{", False),
        ("json", json.dumps({"version": 1}), False),
        ("junit", "<a>", False),
        ("junit", '<testsuites><testsuite failures="3"/></testsuites>', True),
        ("github", "::warning file=a::b\nnot a command", False),
        ("html", "<html>", False),
    ],
)
def test_a_report_that_is_not_valid_is_seen(name, text, fine):
    from benchmarks.robustness.terminal_output import _valid

    assert (_valid(name, text)[1] is None) == fine


def test_contents_are_of_files_and_links(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").symlink_to("a")
    os.mkfifo(tmp_path / "c")

    assert contents(tmp_path) == {"a": b"x", "b": b"-> a"}


# ---------------------------------------------------------------------------------------- what a fix leaves is judged


def test_a_fixed_text_that_does_not_compile_is_seen():
    from benchmarks.robustness import fix_variants

    assert fix_variants.fault_of("f(a=1, a=2)\n", ".py").startswith("keyword argument repeated")
    assert fix_variants.fault_of(fix_variants.notebook(["f(", "x = 1"], fix_variants.NOTEBOOKS[0]).decode(), ".ipynb")
    assert not fix_variants.fault_of(
        fix_variants.notebook(["%pip install x", "x = 1"], fix_variants.NOTEBOOKS[3]).decode(), ".ipynb"
    )


@pytest.mark.parametrize(
    ("after", "seen"),
    [
        ("a = 1\r\nb = 3\nc = 3\r", ""),
        ("a = 1\nb = 3\nc = 3\r", "what stood at 0 to 10 is another text"),
        ("a = 1\r\nb = 3\nc = 3\n", "what stood at 11 to 18 is another text"),
        ("a = 1\r\nb = 4\nc = 3\r", "what is new at 10 is another text"),
        ("a = 1\r\nb = 3\nc = 3\rd", "something follows"),
    ],
)
def test_what_changes_outside_of_a_span_is_seen(after, seen):
    from benchmarks.robustness import fix_variants

    assert fix_variants.strayed_text("a = 1\r\nb = 2\nc = 3\r", after, [(10, 11, "3")]) == seen


def test_a_statement_that_becomes_another_one_is_seen():
    from benchmarks.robustness import fix_variants

    before, span = "x = 1\n_ = \\\nf()\ng()\n", (12, 16, "")
    assert fix_variants.strayed_statements(before, "x = 1\n_ = \\\ng()\n", [span]).startswith("a statement is another one")
    assert fix_variants.strayed_statements("x = 1\nf()\ng()\n", "x = 1\ng()\n", [(6, 10, "")]) == ""


@pytest.mark.parametrize("layout", [0, 3, 5])
def test_what_changes_around_the_cells_of_a_notebook_is_seen(layout):
    from benchmarks.robustness import fix_variants

    layout = fix_variants.NOTEBOOKS[layout]
    before, after = (
        fix_variants.notebook(cells, layout).decode() for cells in (["a = 1\n\xe9 = 2", "b = 2"], ["a = 3\n\xe9 = 2", "b = 2"])
    )
    span = [(4, 5, "3")]

    assert fix_variants.strayed_notebook(before, after, span) == ""
    assert (
        fix_variants.strayed_notebook(before, after.replace("1.5", "1.50"), span)
        == "what stands around the cells is another text"
    )
    assert fix_variants.strayed_notebook(before, before, span) == "a cell holds something else than its edits leave"
    escaped = after.replace('"b = 2"', '"\\u0062 = 2"')
    assert fix_variants.strayed_notebook(before, escaped, span) == "a cell without edits is written in another way"


def test_fixes_are_judged_and_a_stopped_run_goes_on(tmp_path, monkeypatch):
    from benchmarks.robustness import fix_variants

    state = tmp_path / "state.jsonl"
    first = fix_variants.fix(3, state=state)
    lines = state.read_text()
    monkeypatch.setattr(fix_variants, "Judge", lambda: None)  # nothing is judged twice

    assert first == (3, {kind: [] for kind in fix_variants.GOALS})
    assert (fix_variants.fix(3, state=state), state.read_text()) == (first, lines)
    (raised,) = fix_variants.fix(4, state=state)[1]["raised"]
    assert raised.startswith(json.loads(state.read_text().splitlines()[-1])["case"])
