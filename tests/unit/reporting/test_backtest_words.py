"""The verdict on one symbol in sentences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rl.backtest.cost_frontier import BreakEvenCost
from rl.reporting.backtest_words import what_is_shown
from tests.unit.reporting.html.some_backtests import a_backtest


def said(result=None, **changes):
    return " ".join(what_is_shown(result or a_backtest(count=300, **changes)))


def with_interval(low, high):
    result = a_backtest(count=300)
    values = {
        **result.figures.values,
        "sharpe_ratio": (low + high) / 2,
        "sharpe_low": low,
        "sharpe_high": high,
    }
    return replace(result, figures=replace(result.figures, values=values))


def test_a_model_that_was_not_promoted_shows_no_edge_whatever_it_earned():
    assert "Not promoted: no edge is shown" in said()
    assert "Promoted: the model showed an edge" in said(promoted=True, verdict_text="promotion PASS")


def test_an_interval_that_holds_zero_shows_nothing():
    assert "-1.00 to 2.00: it holds zero, so this span alone shows neither gain nor loss" in said(
        with_interval(-1.0, 2.0)
    )
    assert "0.50 to 2.00: above zero on this span." in said(with_interval(0.5, 2.0))
    assert "-2.00 to -0.50: below zero on this span." in said(with_interval(-2.0, -0.5))


def test_the_result_stands_beside_holding_and_doing_nothing_with_span_and_look():
    result = a_backtest(count=300)
    earned = result.figures.values["total_return"]
    held = result.baselines["buy_and_hold"]["total_return"]
    assert earned < 0
    text = said(result)
    assert f"test window (look 2 at it), it lost {-100 * earned:.2f} % after costs" in text
    assert f"buy-and-hold made {100 * held:.2f} %, doing nothing 0.00 %." in text


def test_nothing_done_is_no_loss_and_no_chance():
    text = said(a_backtest(count=300, actions=np.ones(269, dtype=np.int8)))
    assert "it made 0.00 % after costs" in text
    assert "Whether that is more than chance cannot be said: fewer than two sessions" in text
    assert "What cost it bears cannot be computed: nothing was traded" in text


def test_the_cost_it_bears_stands_beside_the_cost_paid():
    cost = BreakEvenCost(cost_bp_per_side=3.05, reason=None, paid_bp_per_side=3.47)
    text = said(replace(a_backtest(count=300), break_even_cost=cost))
    assert "It bears 3.05 bp of cost per side before it earns nothing; 3.47 bp were paid." in text
