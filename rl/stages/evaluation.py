"""How a model did on a window: the greedy replay, net of costs, that gates, champion and best-so-far all judge by."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import numpy as np

from rl.backtest.baselines import buy_and_hold
from rl.backtest.engine import Replay, replay_policy
from rl.market.bars import Bars
from rl.policies.forward import PackedPolicy, pack_weights
from rl.stages.evidence import window_hash
from rl.stages.gates import TradeRecord
from rl.stages.stage_model import StageModel
from rl.stages.symbol_data import SymbolData
from rl.trading.metrics import max_drawdown, session_returns
from rl.trading.rules import TradingRules


def packed(model: StageModel) -> PackedPolicy:
    """Return a stage's acting weights for the compiled forward pass."""
    return pack_weights(model.policy_spec, model.weights)


def replay_on(data: SymbolData, policy: PackedPolicy, window: str, *, scheme: str, capital: float) -> Replay:
    """Let a policy trade one named window of its symbol."""
    return replay_policy(data.market, data.window(window), data.rules, policy, scheme=scheme, capital=capital)


def returns_by_session(data: SymbolData, replay: Replay, window: str) -> np.ndarray:
    """Return the net return of every session of the window; 0 for sessions after the account was ruined. (S,)"""
    start, stop = data.window(window)
    return session_returns(replay.equity, data.market.session[start:stop], replay.capital)


def benchmark_on(data: SymbolData, replay: Replay, window: str) -> Replay:
    """Return buy-and-hold on the bars and with the capital of a replay."""
    return buy_and_hold(data.market, data.window(window), data.rules, replay.capital)


def trade_record(
    data: SymbolData, replay: Replay, window: str, episodes: int | None, benchmark: Replay | None = None
) -> TradeRecord:
    """Return what gates ask about a replay, with buy-and-hold on the same sessions beside it."""
    held = benchmark_on(data, replay, window) if benchmark is None else benchmark
    return TradeRecord(
        net_pnl=replay.trades.net_pnl,
        trade_session=replay.trades.session,
        session_returns=returns_by_session(data, replay, window),
        benchmark_session_returns=returns_by_session(data, held, window),
        max_drawdown=max_drawdown(replay.equity),
        episodes=episodes,
    )


def named_window(bars: Bars, start: int, stop: int) -> tuple[str, tuple[int, int]]:
    """Return the name looks at a window are counted under, and its first and last close, UTC ns.

    The name is made of the window's own prices, so that a file that grows at its end keeps its windows' names.
    """
    digest = hashlib.sha256()
    for column in (bars.open, bars.high, bars.low, bars.close):
        digest.update(np.ascontiguousarray(column[start:stop]).tobytes())
    span = int(bars.close_time[start]), int(bars.close_time[stop - 1])
    return window_hash(bars.symbol, *span, digest.hexdigest()), span


def look_subject(model: StageModel, rules: TradingRules, capital: float) -> str:
    """Return what a look is at: a judged model again under the same costs and capital is no new look.

    The same weights under other costs, or with another capital in whole lots, are another thing looked at.
    """
    return f"{model.fingerprint()} {rules.fingerprint()} {capital!r}"


def described_window(data: SymbolData, window: str) -> dict[str, Any]:
    """Return what a verdict says about the window it judged."""
    first, last = data.times(window)
    return {"name": window, "from": iso_utc(first), "to": iso_utc(last), "data_hash": data.data_hash}


def iso_utc(nanoseconds: int) -> str:
    """Return a UTC time in ISO 8601, to the second."""
    return datetime.fromtimestamp(nanoseconds // 1_000_000_000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
