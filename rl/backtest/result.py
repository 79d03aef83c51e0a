"""What a replay amounts to: one set of figures for strategy and baselines alike, and the portfolio of all symbols."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rl.backtest.baselines import Baseline, baselines
from rl.backtest.breakdown import Stretch, breakdown, chosen_stretch
from rl.backtest.cost_frontier import BreakEvenCost, break_even_cost, cost_frontier
from rl.backtest.engine import Replay
from rl.market.bars import Bars
from rl.trading import metrics
from rl.trading.kernel import COSTS, REASONS, REFUSALS
from rl.trading.ledger import LOG_PRICE, LOG_UNITS
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Every figure of one replay. Fractions, money in account currency; None where it cannot be computed."""

    values: dict[str, float | int | None]
    not_computed: dict[str, str]
    """Why, for every None in `values`."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures with the reasons beside them, ready for JSON."""
        return {**self.values, "not_computed": self.not_computed}


@dataclass(frozen=True, kw_only=True)
class SymbolResult:
    """One symbol's backtest."""

    symbol: str
    bars: Bars
    """Of the symbol, the span's among them."""
    model: dict[str, Any]
    """file, stage, verdict and the note for the headline."""
    span: dict[str, Any]
    """from, to, split, bars, sessions, and whether any bar was seen in training or selection."""
    instrument: dict[str, Any]
    replay: Replay
    session_returns: np.ndarray
    session_close: np.ndarray
    """Close time of each session's last bar, UTC ns. (S,)"""
    session_equity: np.ndarray
    sessions_per_year: float
    figures: Figures
    baselines: dict[str, dict[str, Any]]
    cost_frontier: list[dict[str, float | None]]
    break_even_cost: BreakEvenCost
    sharpe_after_trials: Figures
    """Deflated and probabilistic Sharpe ratio, with the number of trials: each 1 minus the chance of such a ratio by
    luck alone, not the chance that there is an edge."""
    exits: dict[str, int]
    trades: list[dict[str, Any]]
    """The latest closed trades, oldest first."""
    held_equity: np.ndarray
    """Equity of buy-and-hold at each close of the span. (n,)"""
    breakdown: dict[str, Any]
    """By month, by drawdown, by kind of trade; see `rl.backtest.breakdown`."""
    stretch: Stretch
    """Bars whose prices a report draws."""
    confidence: float
    """Coverage of the intervals among the figures."""
    notes: tuple[str, ...] = field(default=())
    background: dict[str, Any] = field(default_factory=dict)
    """What is known beside the replay, where it was gathered: `windows` of the data, `stages` of the training,
    `experts` on this span, `data_quality`, `plan` the model was trained under."""


def figures_of(
    replay: Replay, session: np.ndarray, sessions_per_year: float, confidence: float = 0.95
) -> Figures:
    """Return every figure of one replay.

    Args:
        replay: What the account did.
        session: Session number of every bar of the market. (T,)
        sessions_per_year: 252 for exchanges, 365 for round-the-clock markets.
        confidence: Coverage of the intervals of Sharpe ratio and win rate.
    """
    inside = session[replay.start : replay.stop]
    returns = metrics.session_returns(replay.equity, inside, replay.capital)
    sessions = len(returns)
    trades = replay.trades
    final = float(replay.equity[-1])
    growth = metrics.cagr(replay.capital, final, sessions, sessions_per_year)
    drawdown = metrics.max_drawdown(replay.equity)
    low, high = metrics.sharpe_interval(returns, sessions_per_year, confidence)
    wins = float(np.sum(trades.net_pnl > 0))
    win_low, win_high = metrics.wilson_interval(wins, len(trades), confidence)
    traded = np.abs(replay.fill_log[:, LOG_UNITS] * replay.fill_log[:, LOG_PRICE])
    values, reasons = metrics.figures(
        total_return=final / replay.capital - 1.0,
        final_equity=final,
        total_pnl=final - replay.capital,
        annual_return=growth,
        sharpe_ratio=metrics.sharpe_ratio(returns, sessions_per_year),
        sharpe_low=low,
        sharpe_high=high,
        sortino_ratio=metrics.sortino_ratio(returns, sessions_per_year),
        max_drawdown=drawdown,
        calmar_ratio=metrics.calmar(growth, drawdown),
        win_rate=metrics.win_rate(trades.net_pnl),
        win_rate_low=win_low,
        win_rate_high=win_high,
        break_even_win_rate=metrics.break_even_win_rate(trades.net_pnl),
        profit_factor=metrics.profit_factor(trades.net_pnl),
        payoff_ratio=metrics.payoff_ratio(trades.net_pnl),
        expectancy=metrics.expectancy(trades.net_pnl),
        average_holding_bars=metrics.average_holding_bars(trades.entry_bar, trades.exit_bar),
        exposure=metrics.exposure(replay.held),
        turnover_per_year=metrics.turnover(traded, replay.equity, sessions, sessions_per_year),
        total_costs=float(replay.account[COSTS]),
        cost_share=metrics.cost_share(trades.cost, trades.gross_pnl),
    )
    counts = {
        "total_trades": len(trades),
        "sessions": sessions,
        "bars": len(replay.equity),
        "refused_orders": int(replay.account[REFUSALS]),
        "bars_touching_stop_and_target": replay.bars_touching_both,
        "open_position_units": float(replay.held[-1]),
        "was_ruined": replay.was_ruined,
    }
    return Figures(values=values | counts, not_computed=reasons)


def session_series(
    replay: Replay, session: np.ndarray, close_time: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each session's return, closing equity and closing time. (S,) each"""
    inside = session[replay.start : replay.stop]
    last = np.append(np.flatnonzero(np.diff(inside)), len(inside) - 1)
    returns = metrics.session_returns(replay.equity, inside, replay.capital)
    return returns, replay.equity[last], close_time[replay.start : replay.stop][last]


def baseline_figures(
    each: Sequence[Baseline],
    strategy: Replay,
    session: np.ndarray,
    sessions_per_year: float,
    confidence: float = 0.95,
) -> dict[str, dict[str, Any]]:
    """Return the figures of every baseline; those of `random` are the mean of its draws, with the strategy's rank."""
    found: dict[str, dict[str, Any]] = {}
    for baseline in each:
        if not baseline.replays:
            found[baseline.name] = {"description": baseline.description, "unavailable": baseline.unavailable}
            continue
        every = [figures_of(replay, session, sessions_per_year, confidence) for replay in baseline.replays]
        if baseline.name != "random":
            found[baseline.name] = {"description": baseline.description, **every[0].as_dict()}
            continue
        means = {name: _mean([one.values[name] for one in every]) for name in every[0].values}
        final = [float(replay.equity[-1]) for replay in baseline.replays]
        found[baseline.name] = {
            "description": baseline.description,
            **means,
            "not_computed": {
                name: "no draw has this figure" for name, value in means.items() if value is None
            },
            "draws": len(every),
            "draws_beaten": int(np.sum(np.array(final) < strategy.equity[-1])),
        }
    return found


def _mean(values: Sequence[float | int | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return float(np.mean(known)) if known else None


def sharpe_after_trials(returns: np.ndarray, trials: int, trial_variance: float | None) -> Figures:
    """Return how hard the Sharpe ratio is to explain by luck alone, given how many things were tried.

    Both are 1 minus a p value, the chance of such a ratio or a larger one by luck. `probabilistic_sharpe` takes this as
    the only thing ever tried, its true ratio zero; `deflated_sharpe` takes the true ratio to be what the best of all
    trials is expected to show where none has an edge. Neither is the chance that there is an edge: 0.95 does not mean
    that 95 of 100 such ratios are real. Both are shown and decide nothing. Sources:
    `rl.trading.metrics.deflated_sharpe`.

    Args:
        returns: Net returns per session, fractions. (S,)
        trials: Things tried on this symbol, this one included.
        trial_variance: Variance of the trials' Sharpe ratios per session; None for fewer than two.
    """
    alone = metrics.deflated_sharpe_of(returns, 1, 0.0)
    values: dict[str, float | int | None] = {
        "deflated_sharpe": None,
        "probabilistic_sharpe": None,
        "trials": trials,
        "trial_sharpe_variance": trial_variance,
    }
    reasons: dict[str, str] = {}
    if math.isnan(alone):
        reasons["probabilistic_sharpe"] = metrics.reason_not_computed("sharpe_ratio", math.nan)
    else:
        values["probabilistic_sharpe"] = alone
    if trial_variance is None:
        counted = "no judged trial" if trials == 0 else "one judged trial"
        reasons["trial_sharpe_variance"] = f"the evidence ledger holds {counted} of this symbol; it takes two"
        reasons["deflated_sharpe"] = reasons["trial_sharpe_variance"]
    elif math.isnan(alone):
        reasons["deflated_sharpe"] = reasons["probabilistic_sharpe"]
    else:
        values["deflated_sharpe"] = metrics.deflated_sharpe_of(returns, trials, trial_variance)
    return Figures(values=values, not_computed=reasons)


def symbol_result(
    *,
    bars: Bars,
    market: MarketArrays,
    window: tuple[int, int],
    rules: TradingRules,
    scheme: str,
    replay: Replay,
    model: dict[str, Any],
    span: dict[str, Any],
    instrument: dict[str, Any],
    sessions_per_year: float,
    generator: np.random.Generator,
    random_draws: int,
    frontier_bp: Sequence[float],
    confidence: float,
    listed_trades: int,
    trials: int = 0,
    trial_variance: float | None = None,
    notes: Sequence[str] = (),
    price_stretch: str = "latest",
    price_stretch_bars: int = 260,
    background: dict[str, Any] | None = None,
) -> SymbolResult:
    """Put one symbol's backtest together: strategy, baselines and cost frontier on the same bars.

    `trials` and `trial_variance` say how much was tried on this symbol so far; see `sharpe_after_trials`.
    """
    returns, equity, closes = session_series(replay, market.session, bars.close_time)
    others = baselines(market, window, rules, replay.capital, replay, generator, random_draws)
    held = next(baseline for baseline in others if baseline.name == "buy_and_hold").replays[0]
    held_returns, _, _ = session_series(held, market.session, bars.close_time)
    reasons, counts = np.unique(replay.trades.reason, return_counts=True)
    return SymbolResult(
        symbol=bars.symbol,
        bars=bars,
        model=model,
        span=span,
        instrument=instrument,
        replay=replay,
        session_returns=returns,
        session_close=closes,
        session_equity=equity,
        sessions_per_year=sessions_per_year,
        figures=figures_of(replay, market.session, sessions_per_year, confidence),
        baselines=baseline_figures(others, replay, market.session, sessions_per_year, confidence),
        cost_frontier=cost_frontier(market, window, rules, replay, scheme=scheme, basis_points=frontier_bp),
        break_even_cost=break_even_cost(market, window, rules, replay, scheme=scheme),
        sharpe_after_trials=sharpe_after_trials(returns, trials, trial_variance),
        exits={REASONS[int(reason)]: int(count) for reason, count in zip(reasons, counts, strict=True)},
        trades=latest_trades(replay, bars, listed_trades),
        held_equity=held.equity,
        breakdown=breakdown(replay, bars, returns, held_returns, closes),
        stretch=chosen_stretch(replay, price_stretch, price_stretch_bars),
        confidence=confidence,
        notes=tuple(notes),
        background=background or {},
    )


def latest_trades(replay: Replay, bars: Bars, count: int) -> list[dict[str, Any]]:
    """Return the last `count` closed trades with the labels of the bars they were filled in."""
    trades = replay.trades
    return [
        {
            "side": "long" if trades.side[row] > 0 else "short",
            "entry": str(bars.label[trades.entry_bar[row]]),
            "exit": str(bars.label[trades.exit_bar[row]]),
            "units": float(trades.units[row]),
            "entry_price": float(trades.entry_price[row]),
            "exit_price": float(trades.exit_price[row]),
            "net_pnl": float(trades.net_pnl[row]),
            "cost": float(trades.cost[row]),
            "reason": REASONS[int(trades.reason[row])],
        }
        for row in range(max(0, len(trades) - count), len(trades))
    ]


def portfolio_figures(results: Sequence[SymbolResult]) -> dict[str, Any]:
    """Return the account that gave every symbol the same capital and never moved money between them.

    Every account counts by its share of its own capital, so that currencies never mix. Equity is summed at the close
    of each UTC day; a symbol without a bar that day counts with its last equity, before
    its first bar with its capital. Annual figures use the sessions a year of the busiest calendar among the symbols.
    """
    day = [result.session_close // 86_400_000_000_000 for result in results]
    days = np.unique(np.concatenate(day))
    total = np.zeros(len(days))
    for result, own in zip(results, day, strict=True):
        position = np.searchsorted(own, days, side="right") - 1
        total += np.where(
            position >= 0, result.session_equity[np.maximum(position, 0)], result.replay.capital
        )
    capital = float(sum(result.replay.capital for result in results))
    before = np.concatenate([[capital], total[:-1]])
    returns = np.where(before > 0, total / np.where(before > 0, before, 1.0) - 1.0, 0.0)
    # The days that occur are those of the busiest calendar among the symbols.
    per_year = max(result.sessions_per_year for result in results)
    trades = np.concatenate([result.replay.trades.net_pnl for result in results])
    growth = metrics.cagr(capital, float(total[-1]), len(days), per_year)
    drawdown = metrics.max_drawdown(np.concatenate([[capital], total]))
    values, reasons = metrics.figures(
        total_return=float(total[-1]) / capital - 1.0,
        initial_capital=capital,
        final_equity=float(total[-1]),
        total_pnl=float(total[-1]) - capital,
        annual_return=growth,
        sharpe_ratio=metrics.sharpe_ratio(returns, per_year),
        sortino_ratio=metrics.sortino_ratio(returns, per_year),
        max_drawdown=drawdown,
        calmar_ratio=metrics.calmar(growth, drawdown),
        win_rate=metrics.win_rate(trades),
        profit_factor=metrics.profit_factor(trades),
        total_costs=float(sum(result.replay.account[COSTS] for result in results)),
    )
    currencies = sorted({str(result.instrument["currency"]) for result in results})
    if len(currencies) > 1:
        # Money of different currencies does not add up; shares of each account's own capital do.
        for name in ("initial_capital", "final_equity", "total_pnl", "total_costs", "profit_factor"):
            values[name] = None
            reasons[name] = f"the accounts are in {', '.join(currencies)}; no exchange rates are applied"
    return {
        **values,
        "total_trades": len(trades),
        "days": len(days),
        "currencies": currencies,
        "not_computed": reasons,
    }
