"""Months, drawdowns and kinds of trade of a replay, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rl.backtest.breakdown import (
    chosen_stretch,
    monthly_returns,
    trade_distribution,
    trade_groups,
    worst_drawdowns,
)
from rl.backtest.engine import replay_actions
from tests.builders import DAY_NS, bars_from_closes
from tests.unit.backtest.small_markets import FLAT, FREE, LONG, SHORT, market_of_closes

CAPITAL = 1000.0
CLOSES = [100.0, 110.0, 121.0, 99.0, 99.0, 132.0]


def replay_of(actions, closes=CLOSES, rules=FREE):
    return replay_actions(market_of_closes(closes), (0, len(closes)), rules, actions, capital=CAPITAL)


def at(*dates: str) -> np.ndarray:
    return np.array(dates, dtype="datetime64[ns]").astype(np.int64)


def test_a_months_return_is_compounded_over_its_sessions():
    closes = at("2024-01-30T10:00", "2024-01-31T10:00", "2024-02-01T10:00")
    found = monthly_returns(np.array([0.1, -0.1, 0.02]), np.array([0.0, 0.5, 0.0]), closes)
    assert [(each["year"], each["month"], each["sessions"]) for each in found] == [(2024, 1, 2), (2024, 2, 1)]
    assert found[0]["strategy"] == pytest.approx(1.1 * 0.9 - 1)
    assert found[0]["buy_and_hold"] == pytest.approx(0.5)
    assert found[1]["strategy"] == pytest.approx(0.02)


def test_a_month_before_1970_has_its_own_number():
    (found,) = monthly_returns(np.array([0.0]), np.array([0.0]), at("1969-12-31T10:00"))
    assert (found["year"], found["month"]) == (1969, 12)


def test_a_month_that_cannot_be_computed_says_so():
    (found,) = monthly_returns(np.array([np.nan]), np.array([0.0]), at("2024-01-31T10:00"))
    assert found["strategy"] is None
    assert found["not_computed"]["strategy"]


def test_drawdowns_run_from_peak_over_trough_to_recovery_deepest_first():
    equity = np.array([100.0, 90.0, 100.0, 120.0, 60.0, 84.0, 90.0])
    bars = bars_from_closes(np.arange(9.0) + 1)
    first, second = worst_drawdowns(equity, 2, bars, 5)
    assert first["depth"] == pytest.approx(0.5)
    assert (first["peak"], first["trough"], first["recovered"]) == (bars.label[5], bars.label[6], None)
    assert (first["bars_falling"], first["bars_under_water"]) == (1, 3)
    assert first["not_computed"] == {"recovered": "not before the span ended"}
    assert second["depth"] == pytest.approx(0.1)
    assert (second["peak"], second["recovered"]) == (bars.label[2], bars.label[4])
    assert second["bars_under_water"] == 2


def test_only_so_many_drawdowns_are_kept_and_none_where_equity_never_fell():
    bars = bars_from_closes(np.arange(5.0) + 1)
    assert len(worst_drawdowns(np.array([2.0, 1.0, 2.0, 1.0, 2.0]), 0, bars, 1)) == 1
    assert worst_drawdowns(np.array([1.0, 1.0, 2.0]), 0, bars, 5) == []


def test_trades_are_grouped_by_side_and_by_what_ended_them():
    # Long over bar 1 wins 100, short over bar 3 wins 18.2 % of 1100.
    replay = replay_of([LONG, FLAT, SHORT, FLAT, FLAT])
    found = trade_groups(replay.trades, bars_from_closes(CLOSES))
    long, short = found["by_side"]
    assert (long["name"], long["trades"]) == ("long", 1)
    assert long["net_pnl"] == pytest.approx(100.0)
    assert short["net_pnl"] == pytest.approx(1100 * 22 / 121)
    assert long["profit_factor"] is None
    assert long["not_computed"]["profit_factor"] == "no trade lost money"
    assert [group["name"] for group in found["by_exit_reason"]] == ["order"]
    assert found["by_exit_reason"][0]["trades"] == 2


def test_the_hour_is_that_of_the_entry_bars_label():
    bars = bars_from_closes(CLOSES)
    assert str(bars.label[1])[11:13] == "04"
    groups = trade_groups(replay_of([LONG, FLAT, FLAT, FLAT, FLAT]).trades, bars)
    assert [group["name"] for group in groups["by_hour"]] == ["04:00"]
    seconds = replace(bars, label=np.array([str(t // 10**9) for t in bars.close_time], dtype=object))
    assert (
        trade_groups(replay_of([LONG, FLAT, FLAT, FLAT, FLAT]).trades, seconds)["by_hour"][0]["name"]
        == "04:00"
    )


def test_daily_bars_have_no_hours():
    daily = replace(bars_from_closes(CLOSES, minutes=1440), close_time=np.arange(6) * DAY_NS + DAY_NS)
    assert trade_groups(replay_of([LONG, FLAT, FLAT, FLAT, FLAT]).trades, daily)["by_hour"] == []


def test_results_are_shares_of_what_was_bought_and_the_tails_are_counted():
    replay = replay_of([LONG, FLAT, SHORT, FLAT, LONG])
    found = trade_distribution(replay.trades)
    assert found["trades"] == 2
    # 10 % up; 18.2 % down, sold short.
    assert found["worst"] == pytest.approx(0.1)
    assert found["best"] == pytest.approx(22 / 121)
    assert found["mean"] == pytest.approx((0.1 + 22 / 121) / 2)
    assert sum(found["counts"]) + found["below"] + found["above"] == 2
    assert len(found["edges"]) == len(found["counts"]) + 1


def test_no_trade_has_no_distribution_and_equal_trades_have_one():
    assert trade_distribution(replay_of([FLAT] * 5).trades) == {
        "trades": 0, "edges": [], "counts": [], "below": 0, "above": 0,
    }  # fmt: skip
    once = trade_distribution(replay_of([LONG, FLAT, FLAT, FLAT, FLAT]).trades)
    assert sum(once["counts"]) == 1


@pytest.mark.parametrize(
    ("rule", "inside"),
    [("latest", 49), ("worst_trade", 11), ("best_trade", 31), ("worst_drawdown", 12)],
)
def test_the_stretch_holds_what_its_rule_asks_for(rule, inside):
    closes = np.full(60, 100.0)
    closes[11:] = 80.0
    closes[31:] = 120.0
    # Long into the fall, long into the rise, and once for nothing at the end.
    actions = [FLAT] * 59
    for bar in (10, 30, 48):
        actions[bar] = LONG
    replay = replay_of(actions, closes=list(closes))
    found = chosen_stretch(replay, rule, 20)
    assert found.stop - found.start == 20
    assert found.start <= inside < found.stop
    assert found.trades >= 1
    described = found.as_dict(bars_from_closes(closes))
    assert (described["rule"], described["bars"]) == (rule, 20)


def test_without_a_trade_the_stretch_is_the_end_of_the_span():
    found = chosen_stretch(replay_of([FLAT] * 5), "worst_trade", 3)
    assert (found.start, found.stop, found.trades) == (3, 6, 0)
    assert chosen_stretch(replay_of([FLAT] * 5), "latest", 100).start == 0
