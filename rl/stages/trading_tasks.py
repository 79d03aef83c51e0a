"""What a meta-learning task is made of: which bars of which symbol, and what a policy earns on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rl.algorithms.adaptation import Parameters, RolloutData
from rl.backtest.baselines import buy_and_hold
from rl.backtest.engine import Replay, replay_policy
from rl.checkpoints.adaptation import TradingStretch
from rl.common.errors import DataError
from rl.envs.scaled_market import bar_volatility, scaled_market
from rl.envs.tasks import TaskWindow
from rl.features.pipeline import compute_features, longest_lookback_bars
from rl.market.shuffled import with_moves_shuffled
from rl.policies.forward import pack_weights
from rl.stages.plan import Plan
from rl.stages.symbol_data import SymbolData
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

FEWEST_SUPPORT_BARS = 128
FEWEST_QUERY_BARS = 32
"""A session of daily data is one bar; a task needs more than that to learn from and to be judged on."""


@dataclass(frozen=True, kw_only=True)
class TaskMarket:
    """One symbol as seen through the target's scaler."""

    symbol: str
    market: MarketArrays
    rules: TradingRules
    first: int
    """First row a support may use."""
    stop: int
    """Row after the last that meta-training may see."""


@dataclass(frozen=True, kw_only=True)
class TaskSizes:
    """How long a task's stretches are, in bars."""

    support_bars: int
    query_bars: int
    purge_bars: int


def task_sizes(data: SymbolData, plan: Plan) -> TaskSizes:
    """Return the stretches' lengths for a symbol: the plan's sessions, but never too few bars to learn from."""
    params = plan.training_params.maml
    per_session = data.bars_per_session()
    return TaskSizes(
        support_bars=max(FEWEST_SUPPORT_BARS, round(params.support_sessions * per_session)),
        query_bars=max(FEWEST_QUERY_BARS, round(params.query_sessions * per_session)),
        # A position may be held over a session end; one session between support and query lets none reach across.
        purge_bars=max(1, round(per_session)),
    )


def task_markets(data: SymbolData, others: Sequence[SymbolData]) -> list[TaskMarket]:
    """Return the target and every other symbol with the same features, cut at the target's end of training.

    Another symbol's later bars would carry the target's validation days into its training: markets move together.
    """
    start, stop = data.window("train")
    end_of_training = data.bars.close_time[stop - 1]
    markets = [TaskMarket(symbol=data.symbol, market=data.market, rules=data.rules, first=start, stop=stop)]
    for other in others:
        if other.symbol == data.symbol:
            continue
        other_start, other_stop = other.window("train")
        before = int(np.searchsorted(other.bars.close_time, end_of_training, side="right"))
        scaled = scaled_market(other.bars, other.table, data.feature_names, data.scaler)
        end = min(other_stop, before)
        if end - other_start < 2:
            continue
        # Its own rules scale the reward by its whole training window, which may end later than the target's.
        try:
            volatility = bar_volatility(other.bars, (other_start, end))
        except DataError:
            # Its price stands still there: no action would differ from another.
            continue
        rules = replace(other.rules, bar_volatility=volatility)
        markets.append(
            TaskMarket(symbol=other.symbol, market=scaled, rules=rules, first=other_start, stop=end)
        )
    return markets


def shuffled_tasks(
    data: SymbolData,
    windows: Sequence[TaskWindow],
    spec: dict[str, Any],
    plan: Plan,
    rng: np.random.Generator,
) -> list[TradingTask]:
    """Return tasks of the same shape on bars whose moves come in random order; nothing foretells anything there.

    Features are computed anew from the shuffled bars, with the symbol's own scaler.

    Args:
        data: The symbol of the windows.
        windows: The tasks, in order of time. Only their bars, and as many before as features look back, take part.
        spec: Of the policies that will trade.
        plan: The plan.
        rng: Source of the order.
    """
    if not windows:
        return []
    start, stop = windows[0].support[0], windows[-1].query[1]
    first = max(0, start - longest_lookback_bars())
    bars = with_moves_shuffled(data.bars.slice(first, stop), (max(1, start - first), stop - first), rng)
    table = compute_features(bars, data.found.instrument)
    market = TaskMarket(
        symbol=data.symbol,
        market=scaled_market(bars, table, data.feature_names, data.scaler),
        rules=data.rules,
        first=0,
        stop=len(bars),
    )
    return [TradingTask(market, _moved(window, -first), spec, plan) for window in windows]


def _moved(window: TaskWindow, by: int) -> TaskWindow:
    (a, b), (c, d) = window.support, window.query
    return replace(window, support=(a + by, b + by), query=(c + by, d + by))


class TradingTask:
    """One stretch of support bars and the query bars after it, as the meta-learner sees them."""

    def __init__(self, market: TaskMarket, window: TaskWindow, spec: dict[str, Any], plan: Plan) -> None:
        self.window = window
        self._spec = spec
        self._steps = plan.training_params.maml.support_steps, plan.training_params.maml.query_steps
        self._support = _stretch(market, window.support, plan)
        self._query = _stretch(market, window.query, plan)

    def support(self, policy_params: Parameters, rng: np.random.Generator) -> RolloutData:
        """Act on the support bars."""
        return self._support.rollout(self._spec, policy_params, self._steps[0], rng)

    def query(self, policy_params: Parameters, rng: np.random.Generator) -> RolloutData:
        """Act on the query bars."""
        return self._query.rollout(self._spec, policy_params, self._steps[1], rng)

    def query_growth(self, weights: np.ndarray, spec: dict[str, Any] | None = None) -> float:
        """Return the greedy policy's net log growth per query bar; `spec` where the weights are another network's."""
        stretch = self._query
        replay = replay_policy(
            stretch.market,
            stretch.window,
            stretch.rules,
            pack_weights(spec or self._spec, weights),
            scheme=stretch.scheme,
            capital=stretch.capital,
        )
        return _growth_per_bar(replay)

    def buy_and_hold_growth(self) -> float:
        """Return the net log growth per query bar of holding."""
        stretch = self._query
        return _growth_per_bar(buy_and_hold(stretch.market, stretch.window, stretch.rules, stretch.capital))


def _growth_per_bar(replay: Replay) -> float:
    return math.log(max(replay.equity[-1] / replay.capital, 1e-12)) / (len(replay.equity) - 1)


def _stretch(market: TaskMarket, window: tuple[int, int], plan: Plan) -> TradingStretch:
    return TradingStretch(
        market=market.market,
        rules=market.rules,
        window=window,
        scheme=plan.environment.action_scheme,
        capital=plan.environment.initial_capital,
    )
