"""A replay taken apart: by month, by drawdown, by kind of trade; and the stretch of prices a report draws."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from rl.backtest.engine import Replay
from rl.market.bars import Bars, readable_label
from rl.trading import metrics
from rl.trading.kernel import REASONS
from rl.trading.ledger import Trades

WORST_DRAWDOWNS = 5
BINS = 40
TAIL = 0.005
"""Share of trades on either side that may lie outside the drawn bins; they are counted beside them."""

_CLOCK = re.compile(r"(?:^|[ T])(\d{2}):\d{2}")


def monthly_returns(
    returns: np.ndarray, held_returns: np.ndarray, closes: np.ndarray
) -> list[dict[str, Any]]:
    """Return the compounded return of every calendar month with a session, oldest first.

    Args:
        returns: Net returns of the strategy per session, fractions. (S,)
        held_returns: Those of buy-and-hold. (S,)
        closes: When each session closed, UTC ns; the UTC month counts. (S,)
    """
    months = closes.astype("datetime64[ns]").astype("datetime64[M]")
    found = []
    for month in np.unique(months):
        inside = months == month
        number = int(month.astype(np.int64))
        values, reasons = metrics.figures(
            strategy=_compounded(returns[inside]), buy_and_hold=_compounded(held_returns[inside])
        )
        found.append(
            {
                "year": 1970 + number // 12,
                "month": 1 + number % 12,
                "sessions": int(np.sum(inside)),
                **values,
                "not_computed": reasons,
            }
        )
    return found


def _compounded(returns: np.ndarray) -> float:
    return float(np.prod(1.0 + returns) - 1.0)


def worst_drawdowns(equity: np.ndarray, start: int, bars: Bars, count: int) -> list[dict[str, Any]]:
    """Return the deepest falls of marked equity below its peak, deepest first.

    A fall begins at the last bar of its peak and is over at the first close at or above that peak; where the span ends
    before, `recovered` is None.

    Args:
        equity: Marked equity at each close of the span. (n,)
        start: Row of the span's first bar.
        bars: Bars of the symbol, for the labels.
        count: At most so many.
    """
    under = equity < np.maximum.accumulate(equity)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], under, [False]]).astype(np.int8)))
    found: list[dict[str, Any]] = []
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        peak = first - 1
        trough = first + int(np.argmin(equity[first:end]))
        is_over = end < len(equity)
        found.append(
            {
                "depth": float(1.0 - equity[trough] / equity[peak]),
                "peak": readable_label(bars, start + int(peak)),
                "trough": readable_label(bars, start + trough),
                "recovered": readable_label(bars, start + int(end)) if is_over else None,
                "bars_falling": int(trough - peak),
                "bars_under_water": int(end - peak if is_over else len(equity) - 1 - peak),
                "not_computed": {} if is_over else {"recovered": "not before the span ended"},
            }
        )
    return sorted(found, key=lambda fall: -fall["depth"])[:count]


def trade_groups(trades: Trades, bars: Bars) -> dict[str, list[dict[str, Any]]]:
    """Return what the closed trades earned by exit reason, by hour of entry and by side.

    The hour is that of the entry bar's label, in the raw file's own time; where the label has no clock, that of the
    bar's close in UTC. Daily bars have no hours, and the list is empty.
    """
    sides = np.where(trades.side > 0, "long", "short")
    reasons = np.array([REASONS[int(reason)] for reason in trades.reason], dtype=object)
    hours = np.array([_hour(bars, int(row)) for row in trades.entry_bar], dtype=object)
    return {
        "by_exit_reason": _grouped(trades, reasons, lambda name: str(name)),
        "by_hour": [] if bars.is_daily else _grouped(trades, hours, lambda hour: f"{hour:02d}:00"),
        "by_side": _grouped(trades, sides, lambda name: str(name)),
    }


def _hour(bars: Bars, row: int) -> int:
    clock = _CLOCK.search(readable_label(bars, row))
    if clock:
        return int(clock[1])
    return datetime.fromtimestamp(int(bars.close_time[row]) // 10**9, tz=UTC).hour


def _grouped(trades: Trades, keys: np.ndarray, named: Callable[[Any], str]) -> list[dict[str, Any]]:
    found = []
    for key in sorted(set(keys.tolist())):
        inside = keys == key
        net = trades.net_pnl[inside]
        values, reasons = metrics.figures(
            win_rate=metrics.win_rate(net),
            profit_factor=metrics.profit_factor(net),
            expectancy=metrics.expectancy(net),
            net_pnl=float(np.sum(net)),
            costs=float(np.sum(trades.cost[inside])),
        )
        found.append({"name": named(key), "trades": int(np.sum(inside)), **values, "not_computed": reasons})
    return found


def trade_distribution(trades: Trades) -> dict[str, Any]:
    """Return how the net results of closed trades are distributed, as fractions of what was bought or sold at entry.

    `edges` (B + 1,) and `counts` (B,) leave out at most a share `TAIL` of trades on either side, which `below` and
    `above` count. Empty where no trade was closed.
    """
    notional = np.abs(trades.units * trades.entry_price)
    results = trades.net_pnl[notional > 0.0] / notional[notional > 0.0]
    if not len(results):
        return {"trades": 0, "edges": [], "counts": [], "below": 0, "above": 0}
    low, high = np.quantile(results, [TAIL, 1.0 - TAIL])
    if low == high:
        low, high = low - 1e-6, high + 1e-6
    counts, edges = np.histogram(results, bins=BINS, range=(float(low), float(high)))
    shares = {"worst": 0.0, "p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "best": 1.0}
    return {
        "trades": len(results),
        "edges": [float(edge) for edge in edges],
        "counts": [int(count) for count in counts],
        "below": int(np.sum(results < low)),
        "above": int(np.sum(results > high)),
        "mean": float(np.mean(results)),
        **{name: float(np.quantile(results, share)) for name, share in shares.items()},
    }


STRETCHES = {
    "latest": "the last bars of the span in which a trade was closed",
    "worst_trade": "around the trade that lost most",
    "best_trade": "around the trade that won most",
    "worst_drawdown": "around the bottom of the deepest drawdown",
}
"""How a report chooses the bars whose prices it draws, by the name in the settings."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Bars whose prices a report draws with every entry and exit."""

    start: int
    """Row of its first bar."""
    stop: int
    """Row after its last bar."""
    rule: str
    """A key of `STRETCHES`."""
    trades: int
    """Closed trades with entry and exit inside."""

    def as_dict(self, bars: Bars) -> dict[str, Any]:
        """Return it with its dates, ready for JSON."""
        return {
            "rule": self.rule,
            "chosen": STRETCHES[self.rule],
            "from": readable_label(bars, self.start),
            "to": readable_label(bars, self.stop - 1),
            "bars": self.stop - self.start,
            "trades": self.trades,
        }


def chosen_stretch(replay: Replay, rule: str, count: int) -> Stretch:
    """Return at most `count` bars of a replay, chosen by a rule that is named beside the picture.

    Without a closed trade, or without a drawdown, these are the last bars of the span.
    """
    trades = replay.trades
    centre: int | None = None
    if rule == "worst_drawdown":
        falls = 1.0 - replay.equity / np.maximum.accumulate(replay.equity)
        centre = replay.start + int(np.argmax(falls)) if np.any(falls > 0.0) else None
    elif len(trades) and rule in ("worst_trade", "best_trade"):
        place = int(np.argmin(trades.net_pnl) if rule == "worst_trade" else np.argmax(trades.net_pnl))
        centre = int(trades.entry_bar[place] + trades.exit_bar[place]) // 2
    if centre is not None:
        stop = min(replay.stop, max(centre + count // 2, replay.start + count))
    elif len(trades):
        # A few bars after the exit show what came of being out.
        stop = min(replay.stop, max(int(trades.exit_bar[-1]) + 1 + count // 20, replay.start + count))
    else:
        stop = replay.stop
    start = max(replay.start, stop - count)
    inside = (trades.entry_bar >= start) & (trades.exit_bar < stop)
    return Stretch(start=start, stop=stop, rule=rule, trades=int(np.sum(inside)))


def breakdown(
    replay: Replay,
    bars: Bars,
    returns: np.ndarray,
    held_returns: np.ndarray,
    closes: np.ndarray,
) -> dict[str, Any]:
    """Return everything of this module but the stretch, ready for JSON.

    Args:
        replay: What the account did.
        bars: Bars of the symbol.
        returns: Net returns per session. (S,)
        held_returns: Those of buy-and-hold. (S,)
        closes: When each session closed, UTC ns. (S,)
    """
    return {
        "months": monthly_returns(returns, held_returns, closes),
        "drawdowns": worst_drawdowns(replay.equity, replay.start, bars, WORST_DRAWDOWNS),
        **trade_groups(replay.trades, bars),
        "trade_results": trade_distribution(replay.trades),
    }
