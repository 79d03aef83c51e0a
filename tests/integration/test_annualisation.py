"""One price path in bars of 1, 2, 5 and 15 minutes, an hour and a day: a backtest shows one and the same Sharpe ratio.

From raw files through processing, training and the report. A wrong number of periods a year shows as a factor: the
root of the bars in a session (13.7 at 2 minutes), or 1.2 where 365 and 252 are mixed up.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.command_line import Workplace

INSTRUMENTS = """
instruments:
  Path: {asset_class: index, currency: INR, calendar: NSE, lot_size: 0, tick_size: 0, commission: {rate: 1.0e-5},
         slippage: {rate: 0}, margin_rate: 0.1}
  Coin: {asset_class: crypto, lot_size: 0, tick_size: 0, commission: {rate: 1.0e-5}, slippage: {rate: 0},
         margin_rate: 0.1}
  Coin-USD: {lot_size: 0, tick_size: 0, commission: {rate: 1.0e-5}, slippage: {rate: 0}, margin_rate: 0.1}
"""
DAYS = 420
SHOWN_DAYS = 75
"""Of these the files of short bars consist; the daily file needs the whole length for its slow features."""
TEST_DAYS = 50


@dataclass(frozen=True)
class MinutePath:
    """Minute prices of a market over `DAYS` sessions."""

    minutes: int
    """In a session."""
    first_minute: int
    """Of the day, local time."""
    days: np.ndarray
    """datetime64[D] (DAYS,)"""
    close: np.ndarray
    """Price at each minute's end; the session opens at the close before. (DAYS, minutes)"""


def made_path(minutes: int, first_minute: int, days: np.ndarray, seed: int) -> MinutePath:
    """Return a path of about 1 % a day with a drift strong enough that one session more or less hardly counts."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0.005 / minutes, 0.01 / math.sqrt(minutes), DAYS * minutes)
    return MinutePath(minutes, first_minute, days, 100.0 * np.exp(np.cumsum(steps)).reshape(DAYS, minutes))


def write_bars(path: MinutePath, length: int, file: Path) -> None:
    """Write the path in bars of `length` minutes; a bar's open is the close before it. Whole days are dated alone."""
    is_daily = length >= path.minutes
    first = 0 if is_daily else DAYS - SHOWN_DAYS
    starts = np.arange(0, path.minutes, path.minutes if is_daily else length)
    rows = ["datetime,open,high,low,close"]
    before = path.close[first - 1, -1] if first else path.close[0, 0]
    for day, closes in zip(path.days[first:], path.close[first:], strict=True):
        for start in starts:
            inside = closes[start : start + (path.minutes if is_daily else length)]
            clock = path.first_minute + start
            label = str(day) if is_daily else f"{day} {clock // 60:02}:{clock % 60:02}:00"
            prices = (before, max(before, inside.max()), min(before, inside.min()), inside[-1])
            rows.append(",".join((label, *(repr(float(price)) for price in prices))))
            before = inside[-1]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(rows) + "\n")


def figures(place: Workplace, symbol: str, days: np.ndarray, *, is_daily: bool) -> dict[str, Any]:
    """Train a small model on everything before the test days, backtest it, and return the holder's figures."""
    test = DAYS - TEST_DAYS
    cut = {"validation": test - 10, "promotion": test - 5, "test": test}
    if is_daily:
        cut = {"validation": test - 60, "promotion": test - 30, "test": test}
    dates = ", ".join(f"{name}: {days[row]}" for name, row in cut.items())
    done = place.train(
        "--symbols",
        symbol,
        "--stages",
        "ppo",
        "--instruments",
        str(place.root / "instruments.yaml"),
        settings=(f"splits.dates={{{dates}}}", "embargo_bars=0", "training_sequence.stage_1_ppo.episodes=1"),
    )
    assert done.code == 0, done.err + done.out
    report = place.root / f"{symbol}.json"
    done = place.backtest(
        "--symbols",
        symbol,
        "--report-file",
        str(report),
        "--instruments",
        str(place.root / "instruments.yaml"),
    )
    assert done.code == 0, done.err
    return json.loads(report.read_text())["symbols"][symbol]


MARKETS = {
    "NSE": (
        made_path(375, 9 * 60 + 15, np.busday_offset("2022-01-03", np.arange(DAYS), roll="forward"), 5),
        252,
        {"Path_1": 1, "Path_2": 2, "Path_5": 5, "Path_15": 15, "Path": 375},
    ),
    "round the clock": (
        made_path(1440, 0, np.datetime64("2022-01-03") + np.arange(DAYS), 6),
        365,
        {"Coin_15": 15, "Coin_60": 60, "Coin-USD": 1440},
    ),
}


@pytest.mark.parametrize("market", MARKETS)
def test_the_sharpe_ratio_of_one_path_is_the_same_at_every_bar_length(market, tmp_path):
    path, per_year, lengths = MARKETS[market]
    place = Workplace(tmp_path)
    (tmp_path / "instruments.yaml").write_text(INSTRUMENTS)
    # The figures by hand: closes of the test days, held throughout.
    closes = path.close[-TEST_DAYS - 1 :, -1]
    returns = closes[1:] / closes[:-1] - 1
    by_hand = float(np.mean(returns) / np.std(returns, ddof=1)) * math.sqrt(per_year)
    assert by_hand > 3
    for symbol, length in lengths.items():
        write_bars(path, length, place.raw / f"{symbol}.csv")
        found = figures(place, symbol, path.days, is_daily=length >= path.minutes)
        held = found["baselines"]["buy_and_hold"]
        assert (symbol, held["sessions"]) == (symbol, TEST_DAYS)
        assert held["sharpe_ratio"] == pytest.approx(by_hand, rel=0.10), symbol
        downside = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
        sortino = float(np.mean(returns)) / downside * math.sqrt(per_year)
        assert held["sortino_ratio"] == pytest.approx(sortino, rel=0.10), symbol
        growth = math.log1p(held["annual_return"]) * TEST_DAYS / per_year
        assert growth == pytest.approx(math.log1p(held["total_return"]), rel=1e-9), symbol
        print(f"{symbol}: {held['bars']} bars, Sharpe {held['sharpe_ratio']:.3f}, by hand {by_hand:.3f}")
