"""Round trips, put together from the fills of a replay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rl.common.compiled import njit

# Columns of a fill log: the bar it happened on, then the kernel's fill columns.
LOG_BAR = 0
LOG_UNITS = 1
LOG_PRICE = 2
LOG_CHARGES = 3
LOG_SLIPPAGE = 4
LOG_REASON = 5
LOG_SIZE = 6

_ENTRY_BAR, _EXIT_BAR, _SIDE, _UNITS, _ENTRY_PRICE, _EXIT_PRICE, _NET, _COST, _REASON = range(9)


@dataclass(frozen=True, kw_only=True)
class Trades:
    """Closed round trips: from flat back to flat. A flip closes one and opens the next.

    Partial exits belong to their trade; a position still open at the end is not a trade. Axis: n trades.
    """

    entry_bar: np.ndarray
    """Bar of the first fill. int64"""
    exit_bar: np.ndarray
    """Bar of the fill that made the account flat. int64"""
    session: np.ndarray
    """Session of the exit bar. int32"""
    side: np.ndarray
    """1 long, -1 short. int8"""
    units: np.ndarray
    """Largest size held."""
    entry_price: np.ndarray
    """Price of the first fill."""
    exit_price: np.ndarray
    """Price of the last fill."""
    net_pnl: np.ndarray
    """Money won after every cost on both legs."""
    cost: np.ndarray
    """Commission, tax and slippage of all its fills, in money."""
    reason: np.ndarray
    """Why it ended, an index into `kernel.REASONS`. int8"""

    def __len__(self) -> int:
        return len(self.net_pnl)

    @property
    def gross_pnl(self) -> np.ndarray:
        """Money won at the quoted prices, before every cost."""
        return self.net_pnl + self.cost

    @property
    def holding_bars(self) -> np.ndarray:
        """Bars from first fill to last."""
        return self.exit_bar - self.entry_bar


@njit(cache=True)
def _round_trips(fill_log):
    """Return one row per closed round trip. (n, 9)"""
    trades = np.zeros((len(fill_log), 9), dtype=np.float64)
    count = 0
    held = 0.0
    cash = 0.0
    cost = 0.0
    for row in range(len(fill_log)):
        units = fill_log[row, LOG_UNITS]
        price = fill_log[row, LOG_PRICE]
        if held == 0.0:
            cash = 0.0
            cost = 0.0
            trades[count, _ENTRY_BAR] = fill_log[row, LOG_BAR]
            trades[count, _ENTRY_PRICE] = price
            trades[count, _SIDE] = 1.0 if units > 0.0 else -1.0
            trades[count, _UNITS] = 0.0
        held += units
        cash += -units * price - fill_log[row, LOG_CHARGES]
        cost += fill_log[row, LOG_CHARGES] + fill_log[row, LOG_SLIPPAGE]
        trades[count, _UNITS] = max(trades[count, _UNITS], abs(held))
        if held == 0.0:
            trades[count, _EXIT_BAR] = fill_log[row, LOG_BAR]
            trades[count, _EXIT_PRICE] = price
            trades[count, _NET] = cash
            trades[count, _COST] = cost
            trades[count, _REASON] = fill_log[row, LOG_REASON]
            count += 1
    return trades[:count]


def trades_from_fills(fill_log: np.ndarray, session: np.ndarray) -> Trades:
    """Return the closed round trips of a fill log.

    Args:
        fill_log: Fills in order of time. (n, LOG_SIZE)
        session: Session number of every bar the log speaks of. (T,)
    """
    rows = _round_trips(np.ascontiguousarray(fill_log, dtype=np.float64))
    exit_bar = rows[:, _EXIT_BAR].astype(np.int64)
    return Trades(
        entry_bar=rows[:, _ENTRY_BAR].astype(np.int64),
        exit_bar=exit_bar,
        session=session[exit_bar].astype(np.int32),
        side=rows[:, _SIDE].astype(np.int8),
        units=rows[:, _UNITS],
        entry_price=rows[:, _ENTRY_PRICE],
        exit_price=rows[:, _EXIT_PRICE],
        net_pnl=rows[:, _NET],
        cost=rows[:, _COST],
        reason=rows[:, _REASON].astype(np.int8),
    )
