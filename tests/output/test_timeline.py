"""A step over time, and batch x length as a map: the points, the text and the page."""

from __future__ import annotations

import pytest
import tiny

import kbitlint
from kbitlint.memory_result import Moment, StepMemory
from kbitlint.output.html.step_chart import map_of, step_chart
from kbitlint.output.timeline import Point, chart, points_of
from kbitlint.upstream import cards


def moment(name, total, activations=0, logits=0, gradients=0):
    return Moment(name, total, 100, activations, logits, gradients, 0)


#: a step through six layers, of which a shortened step ran the first and the last two
STEP = StepMemory(
    60,
    20,
    190,
    "the model, backward",
    (
        moment("the model, forward", 180, 60, 20),
        moment("embed, forward", 100),
        moment("layers.0, forward", 105, 10),
        moment("layers.0.mlp, forward", 110, 10),
        moment("layers.4, forward", 150, 50),
        moment("layers.5.mlp, forward", 160, 60),
        moment("head, forward", 170, 60, 20),
        moment("the model, backward", 190, 60, 20),
        moment("layers.5, backward", 165, 60),
        moment("layers.4, backward", 155, 50, 0, 5),
        moment("layers.0, backward", 131, 10, 0, 15),
        moment("the optimizer's step", 130, 0, 0, 20),
    ),
)


def test_a_point_is_the_most_of_a_layer_and_layers_between_lie_on_a_line():
    points = points_of(STEP)

    assert [(point.name, point.phase, round(point.total)) for point in points] == [
        ("embed, forward", "forward", 100),
        ("layers.0.mlp, forward", "forward", 110),
        ("layers.1, forward", "forward", 120),
        ("layers.2, forward", "forward", 130),
        ("layers.3, forward", "forward", 140),
        ("layers.4, forward", "forward", 150),
        ("layers.5.mlp, forward", "forward", 160),
        ("the model, forward", "forward", 180),
        ("the model, backward", "backward", 190),
        ("layers.5, backward", "backward", 165),
        ("layers.4, backward", "backward", 155),
        ("layers.3, backward", "backward", 149),
        ("layers.2, backward", "backward", 143),
        ("layers.1, backward", "backward", 137),
        ("layers.0, backward", "backward", 131),
        ("the optimizer's step", "update", 130),
    ]
    assert points[3] == Point("layers.2, forward", "forward", (100, 30, 0, 0, 0))


def test_the_chart_in_text_is_as_high_as_the_peak():
    lines = list(chart(STEP, 80))

    assert lines[0].split()[:2] == ["190", "B"]
    assert len(lines) == 10
    assert max(map(len, lines)) <= 80
    assert lines[0].count("·") + lines[0].count("▒") + lines[0].count("▓") == 8  # two moments, four columns each
    assert lines[8].split() == ["forward", "backward", "update"]
    assert lines[9].split("  ") == ["█ weights and state", "▓ activations", "▒ logits", "░ gradients", "· temporary"]


def test_the_page_draws_areas_that_add_up():
    drawn = step_chart(STEP, 140)
    last = drawn.areas[-1]
    corners = [tuple(map(float, corner.split(","))) for corner in last.points.split()]

    assert [area.label for area in drawn.areas] == ["weights and state", "activations", "logits", "gradients", "temporary"]
    assert min(y for _, y in corners) == pytest.approx(220 - 220 / 1.05, abs=0.1)  # the peak is 1.05 below the top
    assert drawn.phases == (("forward", 0.0), ("backward", pytest.approx(53.33)), ("update", 100.0))
    assert drawn.limit == pytest.approx(100 - 100 * 140 / (190 * 1.05), abs=0.01)
    assert step_chart(STEP).limit is None


def test_the_map_is_that_of_traced_steps():
    model = tiny.load()
    context = kbitlint.TrainingContext(autocast_dtype="float32")
    found = kbitlint.fit(model, gpu="24GB", seq_len=64, context=context)
    fewer = kbitlint.fit(model, gpu="24GB", batch=8, seq_len=4096, context=context)

    grid = found.grid
    assert (grid.batches[3], grid.lengths[3]) == (8, 4096)
    assert grid.on_card[3][3] == pytest.approx(fewer.memory.on_card, rel=0.01)
    assert all(row == tuple(sorted(row)) for row in grid.on_card)
    row = next(cells for batch, cells in map_of(found) if batch == 8)
    assert [cell.fits for cell in row] == [nbytes <= found.total for nbytes in grid.on_card[3]]
    text = str(found)
    assert "the smallest card in GB for each batch of this run" in text.replace("\n", " ")
    assert max(map(len, text.splitlines())) <= 80
    page = found.to_html()
    assert page.count("<polygon") >= 3
    assert '<table class="map">' in page


@pytest.mark.parametrize(("nbytes", "card"), [(1, 8), (8 * 2**30, 12), (12 * 2**30, 16), (90 * 10**9, 96), (10**12, None)])
def test_the_smallest_card_leaves_the_driver_its_part(nbytes, card):
    assert cards.smallest(nbytes) == card
