"""The benchmarks of memory: one fast case of each, and their records."""

from __future__ import annotations

import pytest

from benchmarks.cost import limits, peers, published, ranks
from benchmarks.goals import Kept


@pytest.mark.slow
def test_real_ranks_hold_what_is_told(monkeypatch):
    small = {**ranks.FAMILIES["llama"][2], "num_hidden_layers": 5}
    monkeypatch.setitem(ranks.FAMILIES, "llama", ("LlamaForCausalLM", "LlamaConfig", small))
    found = list(ranks.peaks_of(["llama"], 2))

    assert [(record["strategy"], record["checkpointed"]) for record in found] == [
        ("ddp", False),
        ("ddp", True),
        ("fsdp2", False),
        ("fsdp2", True),
    ]
    for record in found:
        assert record["real"] == pytest.approx([record["told"]] * 2, rel=ranks.GOAL), record


@pytest.mark.slow
def test_what_fit_says_runs_under_its_limit_and_the_next_batch_does_not():
    found = {what: (exact, slack) for what, exact, slack in limits.answers("llama", checkpointed=True)}

    assert list(found) == ["batch 5 x 32", "length 1 x 128"]
    assert all(slack == (True, False) for _, slack in found.values())


def test_published_rows_name_their_source_and_a_reason_where_it_is_needed():
    assert len([row for row in published.ROWS if not row.bound]) >= 12
    assert all(row.url.startswith("https://") and row.kind in published.KINDS for row in published.ROWS)
    assert all(row.geometry in published.GEOMETRIES for row in published.ROWS)
    away = [(row, 1.01) for row in published.ROWS if not row.bound]
    reasoned = [(row, 2.0 if row.reason else ratio) for row, ratio in away]
    bounds = [row for row in published.ROWS if row.bound]
    kept, broken = [(row, 0.9) for row in bounds], [(row, 1.1) for row in bounds]

    assert [goal.met for goal in published.goals([*reasoned, *kept])] == [True] * 3
    assert [goal.met for goal in published.goals([*((row, 2.0) for row, _ in away), *broken])] == [False] * 3


def test_a_stopped_part_goes_on_from_its_file(tmp_path):
    file, asked = tmp_path / "kept.jsonl", []

    def measure():
        asked.append(1)
        return [1, [True, False]]

    for _ in range(2):
        assert Kept(file).get("one", measure) == [1, [True, False]]
    assert asked == [1]


def test_the_variants_of_an_outlier_explain_both_figures_of_its_source():
    source = next(row.source for row in published.ROWS if row.reason)
    told = {True: 12_702_759_818, False: 31_875_390_755}  # with and without offload, as the benchmark prints them
    ratios = {}
    for row in published.ROWS:
        if row.source == source:
            for words, nbytes in published.variants(row, told[row.offload]):
                ratios.setdefault(words, []).append(abs(nbytes / row.measured - 1))
    within = {words: max(found) < 0.07 for words, found in ratios.items()}

    assert [words for words, met in within.items() if met] == ["the residual stream is float32"]
    assert all(len(found) == 2 for found in ratios.values())


def test_peers_are_asked_for_every_figure_of_one_card():
    rows = peers.rows()
    far = {package: dict.fromkeys("abcdef", 0.5) for package in peers.PEERS}

    assert len(rows) >= peers.LEAST
    assert all(peers.parameters_of(row) > 6e9 and peers.targets_of(row)[0] > 0 for row in rows)
    assert [goal.met for goal in peers.goals({"kbitlint": dict.fromkeys("abcdef", 0.1), **far})] == [True] * 3
    assert [goal.met for goal in peers.goals({"kbitlint": dict.fromkeys("abcde", 0.6), **far})] == [False] * 3
    assert 3e9 < peers.accelerate(rows[-1]) < 8e9
