"""Ways in which backtests are known to flatter: each made on purpose, and shown not to."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rl.backtest.baselines import last_bar_sign
from rl.backtest.engine import Replay, replay_actions, replay_policy
from rl.backtest.result import figures_of
from rl.market.bars import Bars
from rl.market.ingest import read_raw
from rl.policies.forward import pack
from rl.trading.kernel import LATE_SESSION_END, SESSION_END
from rl.trading.market_arrays import MarketArrays, market_arrays
from rl.trading.rules import TradingRules
from tests.builders import an_instrument
from tests.properties.random_trading import random_policy
from tests.unit.backtest.small_markets import FLAT, FREE, LONG, SHORT, market_of_closes

# --- a signal earns the bar it was made from ------------------------------------------------------------------------

BARS = 20_000
SPREAD = 6e-4
"""Standard deviation of a bar's return."""


def martingale(seed: int, *, told_early: int = 0) -> MarketArrays:
    """Return a market nobody can foretell, whose one feature is the return that led to the bar's close.

    Args:
        seed: The same seed gives the same bars.
        told_early: Bars by which the feature is shown before it is known; 0 is honest.
    """
    returns = np.random.default_rng(seed).normal(0.0, SPREAD, BARS)
    known = np.roll(returns, -told_early) / SPREAD
    return market_of_closes(
        100.0 * np.cumprod(1.0 + returns),
        session=np.arange(BARS) // 187,
        features=known[:, None],
    )


def mean_and_error(replay: Replay) -> tuple[float, float]:
    """Return the mean return of a bar and its standard error."""
    returns = replay.equity[1:] / replay.equity[:-1] - 1
    return float(np.mean(returns)), float(np.std(returns) / math.sqrt(len(returns)))


@pytest.mark.parametrize("cost", [0.0, 0.5e-4])
@pytest.mark.parametrize("scheme", ["target", "orders"])
def test_on_a_market_nobody_can_foretell_no_policy_that_knows_the_last_return_earns_anything(scheme, cost):
    """A signal made at a close that earned the bar it closed would show a Sharpe ratio above 100 here."""
    rules = replace(FREE, commission_rate=cost)
    traded = 0
    for seed in range(30):
        policy = pack(random_policy(scheme, seed, features=1))
        replay = replay_policy(martingale(seed), (0, BARS), rules, policy, scheme=scheme)
        mean, error = mean_and_error(replay)
        assert mean <= 3 * error, f"seed {seed}: {mean} is {mean / error} standard errors above zero"
        traded += len(replay.trades)
    assert traded > 30_000


@pytest.mark.parametrize("sign", [1, -1])
def test_following_and_fading_the_last_bar_lose_what_they_pay(sign):
    cost = 0.5e-4
    arrays = martingale(1)
    replay = last_bar_sign(arrays, (0, BARS), replace(FREE, commission_rate=cost), 100_000.0)
    if sign < 0:
        replay = replay_actions(
            arrays, (0, BARS), replace(FREE, commission_rate=cost), 2 - replay.actions, capital=100_000.0
        )
    mean, error = mean_and_error(replay)
    # Half of the bars a flip of two legs: a leg a bar.
    assert mean == pytest.approx(-cost, abs=3 * error)


def test_a_return_shown_one_bar_early_is_a_fortune():
    """The check above has to be able to fail: the same traders, told each bar's return before it happens."""
    early = martingale(1, told_early=1)
    actions = np.where(early.features[:-1, 0] > 0, LONG, SHORT)
    mean, error = mean_and_error(replay_actions(early, (0, BARS), FREE, actions))
    assert mean > 100 * error


# --- five bars, from the file to the equity -------------------------------------------------------------------------

FIVE_BARS = """datetime,open,high,low,close
2024-01-01 09:15:00,100,102,99,101
2024-01-01 09:17:00,102,106,101,105
2024-01-01 09:19:00,104,105,98,99
2024-01-01 09:21:00,98,103,97,102
2024-01-01 09:23:00,103,104,100,101
"""


def bars_of(text: str, file: Path) -> Bars:
    file.write_text(text)
    return read_raw(file, file.stem, an_instrument(name="Five")).bars


def arrays_of(bars: Bars) -> MarketArrays:
    n = len(bars)
    return market_arrays(bars, np.zeros((n, 1)), np.ones(n, dtype=bool), np.ones(n))


def test_the_equity_of_a_five_bar_file_is_the_one_worked_out_by_hand(tmp_path):
    arrays = arrays_of(bars_of(FIVE_BARS, tmp_path / "Five_2.csv"))
    rules = TradingRules(lot_size=1, margin_rate=0.5, commission_rate=0.01, slippage_price=0.5)
    replay = replay_actions(arrays, (0, 5), rules, np.array([LONG, SHORT, SHORT, FLAT]), capital=1010.0)
    # Close 101 on 1010: 10 units, bought at 102 + 0.5; fee 10.25.
    cash = 1010.0 - 10 * 102.5 - 10.25
    equity = [1010.0, cash + 10 * 105]
    # Close 105 on 1024.75: 9 units short. Sold 10 at 104 - 0.5, fee 10.35, then 9 at 103.5, fee 9.315.
    assert equity[1] == 1024.75
    cash += 10 * 103.5 - 10.35 + 9 * 103.5 - 9.315
    equity += [cash - 9 * 99, cash - 9 * 102]
    # Bought back at 103 + 0.5, fee 9.315.
    cash += -9 * 103.5 - 9.315
    equity.append(cash)
    assert replay.equity == pytest.approx(equity, rel=1e-15)
    assert replay.held.tolist() == [0, 10, -9, -9, 0]
    assert replay.trades.net_pnl == pytest.approx(
        [10 * (103.5 - 102.5) - 10.25 - 10.35, 9 * (103.5 - 103.5) - 9.315 - 9.315]
    )


# --- days cut short -------------------------------------------------------------------------------------------------


def fifteen_minutes(day: str, bars: int, price: float) -> list[str]:
    rows = []
    for bar in range(bars):
        minute = 9 * 60 + 15 + 15 * bar
        opened, closed = price + bar, price + bar + 1
        label = f"{day} {minute // 60:02}:{minute % 60:02}:00"
        rows.append(f"{label},{opened},{closed},{opened},{closed}")
    return rows


def test_a_half_day_ends_flat_at_the_next_open_and_a_whole_day_at_its_last_close(tmp_path):
    """Nobody at the desk knew at noon that no further bar would come; the first price after that is the next open."""
    days = [("2024-01-01", 25, 100.0), ("2024-01-02", 13, 200.0), ("2024-01-03", 25, 300.0)]
    text = "\n".join(
        ["datetime,open,high,low,close", *(row for day in days for row in fifteen_minutes(*day))]
    )
    bars = bars_of(text + "\n", tmp_path / "Five_15.csv")
    assert np.flatnonzero(bars.session_end).tolist() == [24, 62]
    rules = replace(FREE, square_off=True)
    replay = replay_actions(arrays_of(bars), (0, 63), rules, np.full(62, LONG), capital=1000.0)
    first, second, third = (replay.trades.reason[i] for i in range(3))
    assert (first, second, third) == (SESSION_END, LATE_SESSION_END, SESSION_END)
    assert replay.trades.exit_bar.tolist() == [24, 38, 62]
    assert replay.trades.exit_price.tolist() == [125.0, 300.0, 325.0]
    assert replay.held[[24, 62]].tolist() == [0.0, 0.0]
    assert len(replay.trades) == 3


# --- a loss that is not closed --------------------------------------------------------------------------------------


def test_a_loss_that_is_held_shows_at_every_bar():
    """A drawdown of closed trades alone would be zero until the last bar."""
    closes = 100.0 - np.arange(20)
    arrays = market_of_closes(closes, session=np.arange(20))
    replay = replay_actions(arrays, (0, 20), FREE, np.full(19, LONG), capital=1000.0)
    assert (np.diff(replay.equity) < 0).all()
    assert len(replay.trades) == 0
    found = figures_of(replay, arrays.session, 252).values
    assert found["max_drawdown"] == pytest.approx(0.19)
    assert found["total_return"] == pytest.approx(-0.19)
