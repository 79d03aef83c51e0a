"""Policies that cost milliseconds instead of a training, for judging a gate thousands of times.

*Trained* stands in for an optimiser: of 200 random linear rules the one that earned most on 60 training
sessions. It fits noise the way a learner does, only less hard. *Random* trades without looking. The *oracle*
is the best policy of a market with a planted edge.

All of them are flat at each session's close.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from rl.backtest.engine import Replay, replay_actions
from rl.market.oracles import SessionOracle, solve_sessions
from rl.market.synthetic import SIGMA, SyntheticMarket
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

BARS_PER_SESSION = 187
CAPITAL = 100_000.0

CANDIDATES = 200
"""Rules the trained policy is the best of."""

LOOK_BACKS = (1, 5, 20, 60)
"""Bars over which the rules see the last return."""

REDRAW = 1 / 15
"""Chance per bar that the random policy draws its side anew: about six trades a session."""


@dataclass(frozen=True)
class LinearRules:
    """Random linear rules: in where the weighted inputs are far enough from zero, out where they cross it.

    Axes: P rules, F inputs.
    """

    weights: np.ndarray
    """(P, F) float32"""
    bias: np.ndarray
    """Leaning to one side, in standard deviations of the score. (P, 1) float32"""
    threshold: np.ndarray
    """Score from which a side is taken. (P, 1) float32"""

    def sides(self, inputs: np.ndarray) -> np.ndarray:
        """Return -1, 0 or 1 decided at the close of each bar.

        Args:
            inputs: (F, T) float32

        Returns:
            (P, T) float32
        """
        score = self.weights @ inputs + self.bias
        side = (score > self.threshold).astype(np.int8) - (score < -self.threshold)
        decides = side != 0
        decides[:, 0] = True
        decides[:, 1:] |= (score[:, 1:] > 0.0) != (score[:, :-1] > 0.0)
        latest = np.maximum.accumulate(
            np.where(decides, np.arange(score.shape[1], dtype=np.int32), 0), axis=1
        )
        return np.take_along_axis(side, latest, axis=1).astype(np.float32)

    def row(self, place: int) -> LinearRules:
        """Return one of the rules."""
        one = slice(place, place + 1)
        return LinearRules(self.weights[one], self.bias[one], self.threshold[one])


def inputs_of(market: SyntheticMarket) -> np.ndarray:
    """Return what a rule may look at: the market's signals and its last returns, each of unit size. (F, T) float32"""
    sums = np.concatenate([[0.0], np.cumsum(market.returns)])
    columns = [np.asarray(signal, dtype=np.float64) for signal in market.signals.values()]
    for bars in LOOK_BACKS:
        back = np.maximum(np.arange(1, len(market) + 1) - bars, 0)
        columns.append((sums[1:] - sums[back]) / (SIGMA * np.sqrt(bars)))
    return np.stack(columns).astype(np.float32)


def random_rules(inputs: int, rng: np.random.Generator, count: int = CANDIDATES) -> LinearRules:
    """Draw rules: each looks at about half of the inputs, some lean to one side, from busy to idle.

    A rule that leaves the fast inputs out trades seldom, and only seldom trading survives costs: without such rules the
    best of them would be no better at fitting noise than its costs allow.
    """
    weights = rng.standard_normal((count, inputs)) * (rng.random((count, inputs)) < 0.5)
    weights[~weights.any(axis=1), 0] = 1.0
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    bias = 0.5 * rng.standard_normal((count, 1))
    threshold = rng.uniform(0.0, 2.0, (count, 1))
    return LinearRules(*(part.astype(np.float32) for part in (weights, bias, threshold)))


def earned(sides: np.ndarray, returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what each rule earned before costs and how many units it traded, flat at every close.

    Args:
        sides: Decided at each close, held from the next open. (P, T), T whole sessions
        returns: (T,)

    Returns:
        Sum of returns and units traded, each (P,)
    """
    held = np.zeros_like(sides)
    held[:, 1:] = sides[:, :-1]
    by_session = held.reshape(len(sides), -1, BARS_PER_SESSION)
    first, last = np.abs(by_session[:, :, 0]), np.abs(by_session[:, :, -1])
    units = np.abs(np.diff(by_session, axis=2)).sum(axis=(1, 2)) + (first + last).sum(axis=1)
    return held @ returns.astype(np.float32), units


def best_by_cost(
    candidates: LinearRules, inputs: np.ndarray, returns: np.ndarray, costs_bp: tuple[float, ...]
) -> dict[float, LinearRules]:
    """Return, for each cost, the rule that earned most on these bars; what training does, in the small."""
    gross, units = earned(candidates.sides(inputs), returns)
    return {cost: candidates.row(int(np.argmax(gross - cost * 1e-4 * units))) for cost in costs_bp}


def random_actions(bars: int, rng: np.random.Generator) -> np.ndarray:
    """Return the actions of somebody who does not look. (bars,) int8"""
    redrawn = rng.random(bars) < REDRAW
    redrawn[0] = True
    return rng.integers(0, 3, bars)[np.maximum.accumulate(np.where(redrawn, np.arange(bars), 0))].astype(
        np.int8
    )


@cache
def _oracle(name: str, cost_bp: float, params: tuple[tuple[str, float], ...]) -> SessionOracle:
    settings: dict[str, Any] = dict(params)
    return solve_sessions(name, cost_bp=cost_bp, bars_per_session=BARS_PER_SESSION, **settings)


def oracle_actions(market: SyntheticMarket, cost_bp: float) -> np.ndarray:
    """Return the actions of the market's best policy. (T,) int8"""
    oracle = _oracle(market.name, cost_bp, tuple(market.params.items()))
    return (oracle.positions(market.signals) + 1).astype(np.int8)


def arrays_of(market: SyntheticMarket) -> MarketArrays:
    """Return the kernel's arrays; the policies here bring their own inputs, so there are no features."""
    bars = len(market)
    number = np.arange(bars)
    return MarketArrays(
        ohlc=np.stack([market.opens, market.highs, market.lows, market.closes], axis=1),
        features=np.zeros((bars, 1), dtype=np.float32),
        session=(number // BARS_PER_SESSION).astype(np.int32),
        session_end=number % BARS_PER_SESSION == BARS_PER_SESSION - 1,
        tradable=np.ones(bars, dtype=np.bool_),
        atr=np.ones(bars),
    )


def rules_at(cost_bp: float) -> TradingRules:
    """Return an account that pays so many bp per unit and side and is flat at every close."""
    return TradingRules(commission_rate=cost_bp * 1e-4, square_off=True)


def replay_sessions(
    arrays: MarketArrays, sessions: tuple[int, int], rules: TradingRules, actions: np.ndarray
) -> Replay:
    """Let actions (one per bar of the whole market) trade the sessions from one number up to another."""
    start, stop = (number * BARS_PER_SESSION for number in sessions)
    return replay_actions(arrays, (start, stop), rules, actions[start : stop - 1], capital=CAPITAL)
