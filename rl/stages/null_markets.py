"""The calibration bank: markets without an edge, and trading without one, on which a gate shows how often it errs.

Three kinds of market, a hundred of each, all at no cost, which is where worthless trading looks best:

* *noise*: direction is pure chance, volatility clusters (GARCH). The six null policies trade it.
* *drift*: the same with a steady rise, as strong as an annual Sharpe ratio of 3. Whoever is long earns, and adds
  nothing to holding. Here long-only trading is tried, by day and at random times.
* *shocks*: every session drifts its own way, on average nowhere. Whoever takes a side for the session without looking
  has no edge, but all trades of a session win or lose together: a test that counts trades finds an edge here.

The draws depend on nothing but this file: not on a plan, nor on its seed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np

from rl.backtest.baselines import FLAT, LONG, SHORT, baselines, buy_and_hold, sign_flipped
from rl.backtest.engine import Replay, replay_actions
from rl.common.seeding import generator
from rl.market.synthetic import SIGMA, START_PRICE, generate
from rl.stages.gates import TradeRecord
from rl.trading.market_arrays import MarketArrays
from rl.trading.metrics import max_drawdown, session_returns
from rl.trading.rules import TradingRules

MARKETS = 100
"""Independent markets of each kind."""

SESSIONS = 120
BARS_PER_SESSION = 20
"""Few bars, many sessions: evidence counts sessions."""

MOST_AMOUNT = 100
"""Closed trades, and sessions with trades, that every policy which trades at all reaches in nearly every market."""

DRIFT_SHARPE = 3.0
"""Annual Sharpe ratio of holding the drifting market, at 250 sessions a year."""

SHOCK = 1.0
"""Standard deviation of a session's drift per bar, in standard deviations of a bar."""

KINDS = {
    "noise": "noise markets",
    "drift": "markets that only drift upwards",
    "shocks": "markets whose sessions share shocks",
}

_SEED = 7_310_000
"""Market k is drawn with this plus k, far from the seeds people choose."""

_CAPITAL = 100_000.0
_RULES = TradingRules(margin_rate=0.2, square_off=True, bar_volatility=SIGMA)
_TREND_BARS = 5
_HELD_BARS = 4
_WINDOW = (0, SESSIONS * BARS_PER_SESSION)


@functools.cache
def calibration_records() -> dict[tuple[str, str], list[TradeRecord]]:
    """Return what every policy did in every market, by kind of market and policy; `MARKETS` records each.

    Kept for the life of the process: about 10 MB.
    """
    found: dict[tuple[str, str], list[TradeRecord]] = {}
    for number in range(MARKETS):
        returns = _noise(number)
        for kind, changed in (
            ("noise", returns),
            ("drift", returns + DRIFT_SHARPE / math.sqrt(250 * BARS_PER_SESSION) * SIGMA),
            ("shocks", returns + np.repeat(_session_shocks(number), BARS_PER_SESSION)),
        ):
            market = _market(changed)
            held = _by_session(market, buy_and_hold(market, _WINDOW, _RULES, _CAPITAL))
            for policy, replay in _POLICIES[kind](market, number):
                found.setdefault((kind, policy), []).append(_record(market, replay, held))
    return found


def _noise(number: int) -> np.ndarray:
    return generate("noise_garch", SESSIONS, _SEED + number, BARS_PER_SESSION).returns


def _session_shocks(number: int) -> np.ndarray:
    return SHOCK * SIGMA * generator(_SEED + number, "session shocks").standard_normal(SESSIONS)


def _market(returns: np.ndarray) -> MarketArrays:
    """Return bars that open at the close before; nothing here asks for highs, lows, features or ATR."""
    closes = START_PRICE * np.cumprod(1.0 + returns)
    opens = np.concatenate([[START_PRICE], closes[:-1]])
    count = len(returns)
    return MarketArrays(
        ohlc=np.column_stack([opens, np.maximum(opens, closes), np.minimum(opens, closes), closes]),
        features=np.zeros((count, 0), dtype=np.float32),
        session=(np.arange(count) // BARS_PER_SESSION).astype(np.int32),
        session_end=np.arange(count) % BARS_PER_SESSION == BARS_PER_SESSION - 1,
        tradable=np.ones(count, dtype=np.bool_),
        atr=np.zeros(count),
    )


def _record(market: MarketArrays, replay: Replay, held: np.ndarray) -> TradeRecord:
    return TradeRecord(
        net_pnl=replay.trades.net_pnl,
        trade_session=replay.trades.session,
        session_returns=_by_session(market, replay),
        benchmark_session_returns=held,
        max_drawdown=max_drawdown(replay.equity),
    )


def _by_session(market: MarketArrays, replay: Replay) -> np.ndarray:
    return session_returns(replay.equity, market.session, _CAPITAL)


def _traded(market: MarketArrays, actions: np.ndarray) -> Replay:
    return replay_actions(
        market, _WINDOW, _RULES, actions[: _WINDOW[1] - 1].astype(np.int8), capital=_CAPITAL
    )


def _six(market: MarketArrays, number: int) -> Iterator[tuple[str, Replay]]:
    """The null bank itself, beside a follower of the last five bars' direction as the candidate."""
    closes = market.ohlc[:, 3]
    decided_at = np.arange(len(closes)) // _TREND_BARS * _TREND_BARS
    change = closes[decided_at] - closes[np.maximum(decided_at - _TREND_BARS, 0)]
    candidate = _traded(market, 1 + np.sign(change))
    each = baselines(
        market, _WINDOW, _RULES, _CAPITAL, candidate, generator(_SEED + number, "random timing"), draws=1
    )
    for null in (*each, sign_flipped(market, _WINDOW, _RULES, _CAPITAL, candidate)):
        yield null.name, null.replays[0]


def _long_only(market: MarketArrays, number: int) -> Iterator[tuple[str, Replay]]:
    bars = len(market)
    yield "long_by_day", _traded(market, np.full(bars, LONG))
    sides = generator(_SEED + number, "long or flat").choice([FLAT, LONG], bars // _HELD_BARS)
    yield "random_long", _traded(market, np.repeat(sides, _HELD_BARS))


def _one_side_a_session(market: MarketArrays, number: int) -> Iterator[tuple[str, Replay]]:
    """In and out several times a session, always on the side drawn for it before it began."""
    sides = generator(_SEED + number, "side of the session").choice([SHORT, LONG], SESSIONS)
    actions = np.repeat(sides, BARS_PER_SESSION)
    # The decision of a session's last bar is the next one's first trade.
    actions = np.append(actions[1:], FLAT)
    actions[np.arange(len(market)) % _HELD_BARS == 1] = FLAT
    yield "random_side_by_session", _traded(market, actions)


_POLICIES = {"noise": _six, "drift": _long_only, "shocks": _one_side_a_session}
