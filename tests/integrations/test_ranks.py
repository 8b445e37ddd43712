"""Verdicts on what ranks do together, equal to what two and four real gloo processes do."""

from __future__ import annotations

import json
import signal
import time

import gloo
import pytest
import rank_cases

from kbitlint.facts.ranks import Divergence, compare, named
from kbitlint.integrations.ranks import RankAudit, merge_ranks
from kbitlint.registry import all_rules
from kbitlint.report import Report
from kbitlint.violation import Consequence, Location, Severity, Surface, Violation

pytestmark = pytest.mark.usefixtures("preloaded")


def held(matrix, *, warns=()):
    """Every case of which verdict and outcome disagree: an error must fail, and nothing but an error may."""
    wrong = {}
    for case, (outcome, verdict) in matrix.items():
        severities = {severity for _, severity in verdict}
        failed = outcome is not None
        if failed != ("error" in severities) and not ("warning" in severities and case in warns):
            wrong[case] = (outcome, verdict)
    return wrong


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ddp_fails_exactly_where_the_rule_says_so(world):
    first, *others = gloo.run("ddp_matrix", world)

    # without a hook a reentrant step stops for a reason of its own, which missing-input-grad-hook reports
    marked = {case: result for case, result in first.items() if not (case[0] == "no hook" and case[1])}
    assert held(marked) == {}
    assert [case for case, (outcome, _) in marked.items() if outcome] == [("adapters", True, True, False)]
    assert [v for case, (_, v) in first.items() if case not in marked and v] == []
    assert len(first) == 24
    assert all(other == first for other in others)


@pytest.mark.slow
def test_ddp_loses_biases_that_the_first_step_recasts():
    for found in gloo.run("recast_biases"):
        assert found == {
            False: ("Expected to have finished reduction in the prior iteration", ["error"], False, False),
            True: ("Expected Float, got BFloat16", ["error"], False, True),
        }


@pytest.mark.slow
def test_the_real_trainer_passes_find_unused_to_a_peft_model_and_fails_as_said():
    for find_unused, verdict, outcome in gloo.run("trainer_default"):
        assert (find_unused, verdict) == (True, ["error", "error"])
        assert outcome.startswith("Expected to mark a variable ready only once")


@pytest.mark.slow
def test_accelerate_refuses_exactly_the_device_maps_that_the_rule_reports():
    for matrix in gloo.run("spread_map"):
        assert held(matrix) == {}
        assert [outcome is None for outcome, _ in matrix.values()] == [False, False, True]


@pytest.mark.slow
def test_fsdp1_refuses_exactly_the_dtypes_that_the_rules_report():
    first, second = gloo.run("fsdp1_matrix")

    unknown_policy = [(name, False) for name in rank_cases.FSDP]  # where nobody says who wraps, adapters are a warning
    assert held(first, warns=unknown_policy) == {}
    assert all(outcome for (_, trainer), (outcome, verdict) in first.items() if verdict and not trainer)
    assert second == first


def test_fsdp2_refuses_exactly_the_trainable_dtypes_that_the_rules_report():
    first, *others = gloo.run("fsdp2_matrix")

    assert held(first) == {}
    assert [case for case, (outcome, _) in first.items() if outcome] == [
        ("int8", False),
        ("int8", True),
        ("mixed adapters", False),
        ("mixed adapters", True),
        ("adapters mixed across layers", True),
    ]
    assert first["uint8 storage", False] == (None, [("KB704", "warning")])
    # torch's message prints a set of dtypes, whose order differs from process to process
    refused = {case: (outcome is not None, verdict) for case, (outcome, verdict) in first.items()}
    for other in others:
        assert {case: (outcome is not None, verdict) for case, (outcome, verdict) in other.items()} == refused


@pytest.mark.slow
def test_wrapped_models_are_seen_through():
    for found in gloo.run("seen_through"):
        strategies = {name: facts[3] and facts[3].value for name, facts in found.items()}

        assert strategies == {"bare": None, "ddp": "ddp", "compiled ddp": "ddp", "fsdp1": "fsdp1", "fsdp2": "fsdp2"}
        assert {name: facts[:3] for name, facts in found.items()} == dict.fromkeys(found, found["bare"][:3])


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_that_differ_are_found_and_ddp_trains_wrong_or_refuses_exactly_then(world):
    first, *others = gloo.run("divergence", world)

    assert {case: (outcome, verdict) for case, (outcome, verdict, _) in first.items()} == {
        "same": ("agree", []),
        "other modules, other shapes": ("refused", [("error", "adapters"), ("error", "trainable parameters")]),
        "other modules, same shapes": ("differ", [("error", "adapters"), ("error", "trainable parameters")]),
        "more modules": ("refused", [("error", "adapters"), ("error", "trainable parameters")]),
        "other quantization": ("differ", [("error", "quantization")]),
        "other scaling": ("differ", [("error", "adapters")]),
    }
    assert all(
        {case: found[1:] for case, found in other.items()} == {case: found[1:] for case, found in first.items()}
        for other in others
    )


# ------------------------------------------------------------------------------------------- the command line


FACTORY = """
import os, signal, time
import tiny

RANK = int(os.environ["RANK"])


def same():
    return tiny.with_lora(tiny.load())


def diverges():
    return tiny.with_lora(tiny.load(), target_modules=["q_proj"] if RANK else ["q_proj", "v_proj"])


def dies():
    if RANK == VICTIM:
        os.kill(os.getpid(), signal.SIGKILL)
    return same()


def hangs():
    if RANK == VICTIM:
        time.sleep(600)
    return same()


def raises():
    if RANK == VICTIM:
        raise OSError("the checkpoint of this node is gone")
    return same()


VICTIM = int(os.environ.get("VICTIM", "1"))
"""


@pytest.fixture
def launched(tmp_path):
    (tmp_path / "train.py").write_text(FACTORY)

    def launch(function, world=2, *options, kill=None, **further):
        arguments = ["-m", "kbitlint", "check", f"{tmp_path / 'train.py'}:{function}", "--no-trace", *options]
        processes = gloo.start(arguments, world, **further)
        start = time.monotonic()
        if kill is not None:
            others = [process for rank, process in enumerate(processes) if rank != kill]
            for process in others:
                process.wait(timeout=120)
            waited = time.monotonic() - start
            processes[kill].kill()
            return gloo.finish(processes), waited
        return gloo.finish(processes), time.monotonic() - start

    return launch


def test_ranks_that_agree_report_once_and_leave_alike(launched):
    done, _ = launched("same", 4, "--select", "KB705", "--format", "json")

    assert [code for code, _, _ in done] == [0] * 4
    assert [bool(out) for _, out, _ in done] == [True, False, False, False]
    (target,) = json.loads(done[0][1])["targets"]
    assert (target["notes"], target["ran"]) == (
        ["audited on 4 of 4 ranks"],
        [{"code": "KB705", "surface": "ranks"}],
    )


def test_a_planted_divergence_is_found_and_the_rank_that_reports_leaves_with_1(launched):
    done, _ = launched("diverges", 2, "--select", "KB705", "--format", "json")

    assert [code for code, _, _ in done] == [1, 0]
    (target,) = json.loads(done[0][1])["targets"]
    found = {v["at"]["path"]: v["message"] for v in target["violations"] if v["evidence"]["aspect"] == "trainable parameters"}
    assert found == {
        f"model.layers.{layer}.self_attn.v_proj.lora_{side}.default.weight": "trainable parameters differ between ranks: "
        f"float32 {shape} on rank 0, absent on rank 1"
        for layer in (0, 1)
        for side, shape in (("A", [4, 64]), ("B", [32, 4]))
    }


def test_a_rank_that_is_killed_in_its_audit_is_named_and_the_others_leave_with_2(launched):
    done, waited = launched("dies", 2, "--rank-timeout", "5")

    assert [code for code, _, _ in done] == [2, -signal.SIGKILL]
    assert "rank 1 did not answer: process" in done[0][1]
    assert "hangs in its audit or died" in " ".join(done[0][1].split())
    assert waited < 60


@pytest.mark.slow
def test_when_the_rank_that_hosts_the_store_is_killed_the_others_leave_with_2(launched):
    done, waited = launched("dies", 4, "--rank-timeout", "5", VICTIM="0")

    assert [code for code, _, _ in done] == [-signal.SIGKILL, 2, 2, 2]
    assert waited < 90


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_and_the_others_leave_within_the_timeout(launched):
    done, waited = launched("hangs", 2, "--rank-timeout", "5", kill=1)

    assert done[0][0] == 2
    assert "rank 1 did not answer" in done[0][1]
    assert waited < 60


def test_a_rank_whose_audit_fails_is_named_and_the_rank_that_reports_leaves_with_2(launched):
    done, _ = launched("raises", 2)

    assert [code for code, _, _ in done] == [2, 0]
    assert "rank 1: " in " ".join(done[0][1].split())
    assert "the checkpoint of this node is gone" in " ".join(done[0][1].split())


def test_ranks_that_cannot_be_met_are_one_clear_line(run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)

    result = run("check", "plants:clean")

    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith("kbitlint: the 2 ranks that WORLD_SIZE names cannot be met: ")
    assert result.stderr.endswith("; unset WORLD_SIZE to audit alone\n")


# ------------------------------------------------------------------------------------------- without processes


def violation(path="a"):
    return Violation("KB101", "slug", Severity.WARNING, Consequence.UNSTABLE, "message", Location(path), Surface.MODEL)


def test_a_violation_of_some_ranks_names_them():
    with_one = Report("t", violations=(violation("a"), violation("b")))
    records = {rank: RankAudit(with_one if rank else Report("t", violations=(violation("a"),))) for rank in range(3)}

    report = merge_ranks(records, {}, 3, all_rules())

    assert [(v.at.path, v.message, v.evidence) for v in report.violations] == [
        ("a", "message", {}),
        ("b", "message (on ranks 1-2 only)", {"ranks": [1, 2]}),
    ]
    assert report.notes == ("audited on 3 of 3 ranks",)


def test_where_no_rank_has_a_report_all_of_them_are_named():
    report = merge_ranks({0: RankAudit(None, error="no config.json")}, {1: "it never started its audit"}, 2, ())

    assert [str(crash) for crash in report.crashes] == [
        "rank 0: no config.json",
        "rank 1 did not answer: it never started its audit",
    ]
    assert report.exit_code() == 2


@pytest.mark.parametrize(
    ("ranks", "words"), [((1,), "rank 1"), ((0, 1, 2), "ranks 0-2"), ((5, 0, 2, 1), "ranks 0-2, 5"), ((1, 3), "ranks 1, 3")]
)
def test_ranks_in_words(ranks, words):
    assert named(ranks) == words


def test_comparing_gives_each_path_once_with_its_values():
    by_rank = {0: {"x": {"a": "1", "b": "1"}}, 1: {"x": {"a": "1", "b": "2"}}, 2: {"x": {"a": "1"}, "y": {"c": "1"}}}

    assert compare(by_rank) == (
        Divergence("x", "b", (("1", (0,)), ("2", (1,)), ("absent", (2,)))),
        Divergence("y", "c", (("absent", (0, 1)), ("1", (2,)))),
    )
    assert compare({0: {"x": {"a": "1"}}, 1: {"x": {"a": "1"}}}) == ()
