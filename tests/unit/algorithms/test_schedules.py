"""Step sizes over a run, at its start, middle and end."""

from __future__ import annotations

import math

import pytest

from rl.algorithms.schedules import Schedule


@pytest.mark.parametrize(
    ("shape", "middle", "end"),
    [
        ("constant", 1.0, 1.0),
        ("linear", 0.505, 0.01),
        ("exponential", 0.1, 0.01),
        ("cosine", 0.505, 0.01),
    ],
)
def test_each_shape_at_start_middle_and_end(shape, middle, end):
    schedule = Schedule(shape=shape, final_fraction=0.01)
    assert [schedule.factor(progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx([1.0, middle, end])


def test_cosine_starts_flatter_than_a_straight_line():
    quarter = Schedule(shape="cosine", final_fraction=0.0).factor(0.25)
    assert quarter == pytest.approx(0.5 * (1 + math.sqrt(0.5)))
    assert quarter > Schedule(shape="linear", final_fraction=0.0).factor(0.25) == pytest.approx(0.75)


@pytest.mark.parametrize("shape", ["constant", "linear", "exponential", "cosine"])
def test_warm_up_rises_to_one_and_the_shape_runs_over_the_rest(shape):
    plain = Schedule(shape=shape, final_fraction=0.01)
    warmed = Schedule(shape=shape, final_fraction=0.01, warm_up=0.5)
    assert warmed.factor(0.0) == 0.0
    assert warmed.factor(0.25) == pytest.approx(0.5)
    assert warmed.factor(0.5) == pytest.approx(1.0)
    assert warmed.factor(0.75) == pytest.approx(plain.factor(0.5))
    assert warmed.factor(1.0) == pytest.approx(plain.factor(1.0))


def test_progress_outside_the_run_counts_as_its_nearer_end():
    schedule = Schedule(shape="linear", final_fraction=0.2)
    assert schedule.factor(-1.0) == 1.0
    assert schedule.factor(1.5) == pytest.approx(0.2)


def test_impossible_schedules_are_named():
    assert Schedule().problems() == []
    assert "linear" in Schedule(shape="step").problems()[0]
    assert "ratio" in Schedule(shape="exponential", final_fraction=0.0).problems()[0]
    assert len(Schedule(final_fraction=1.5, warm_up=1.0).problems()) == 2
