"""Bars of one symbol in memory: contiguous arrays, one entry per bar."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

SECONDS_PER_DAY = 86_400

LONGEST_COLUMN_NAME = 200
"""Of a column of the user's own; it stands in tables of reports and in models."""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Open, high, low, close and time of one symbol, oldest first.

    Axes: T bars. Prices are in the instrument's currency, unrounded, as the raw file wrote them.
    The arrays are shared with slices, so nothing may write into them; a changed series is a new `Bars`.
    """

    symbol: str
    """Name of the raw file without its ending, for example `Nifty_15`."""
    bar_seconds: int
    """Length of a bar: 900 for `Nifty_15`, 86400 for daily bars."""
    close_time: np.ndarray
    """When the bar's close became known: UTC nanoseconds since 1970, strictly increasing. (T,) int64"""
    session: np.ndarray
    """Number of the trading day, from 0, never decreasing; every daily bar is a session. (T,) int32"""
    session_end: np.ndarray
    """True where the calendar says that this bar is its session's last. It is never taken from the next
    bar, which is not known yet: a session that breaks off early has no True at all. (T,) bool"""
    open: np.ndarray
    """First price of the bar. (T,) float64"""
    high: np.ndarray
    """Highest price of the bar. (T,) float64

    Adjusted prices are each rounded on their own, so high and low may miss open and close by 1e-9 of them."""
    low: np.ndarray
    """Lowest price of the bar. (T,) float64"""
    close: np.ndarray
    """Last price of the bar. (T,) float64"""
    volume: np.ndarray | None = None
    """Traded volume in the file's unit; None where the file has none worth using. (T,) float64"""
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    """The user's own columns, by lower-case name starting with `x_`. (T,) float64 each"""
    label: np.ndarray
    """The bar's time exactly as the raw file writes it, for finding it there again. (T,) object of str"""

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together; the raw file's faults are caught before this."""
        length = len(self.close_time)
        for name, array in self._columns().items():
            if array.shape != (length,):
                raise ValueError(
                    f"{self.symbol}: {name} has shape {array.shape}, but there are {length} bars"
                )
        if length and np.any(np.diff(self.close_time) <= 0):
            raise ValueError(f"{self.symbol}: close_time has to increase from bar to bar")
        if length and np.any(np.diff(self.session) < 0):
            raise ValueError(f"{self.symbol}: session numbers may not decrease")

    def __len__(self) -> int:
        return len(self.close_time)

    @property
    def is_daily(self) -> bool:
        """True where a bar is a whole trading day."""
        return self.bar_seconds >= SECONDS_PER_DAY

    def slice(self, start: int, stop: int) -> Bars:
        """Return bars `start` to `stop - 1`, sharing memory with these; session numbers are kept."""
        part = np.s_[start:stop]
        columns = {
            name: array[part] for name, array in self._columns().items() if not name.startswith("extra:")
        }
        return Bars(
            symbol=self.symbol,
            bar_seconds=self.bar_seconds,
            extra={name: values[part] for name, values in self.extra.items()},
            **columns,
        )

    def _columns(self) -> dict[str, np.ndarray]:
        """Return every per-bar array by name; the user's own are named `extra:<name>`."""
        names = ("close_time", "session", "session_end", "open", "high", "low", "close", "label")
        columns = {name: getattr(self, name) for name in names}
        if self.volume is not None:
            columns["volume"] = self.volume
        return columns | {f"extra:{name}": values for name, values in self.extra.items()}


def readable_label(bars: Bars, row: int) -> str:
    """Return a bar's label as the raw file writes it, or its close in UTC where the file counts seconds."""
    label = str(bars.label[row])
    if not label.replace(".", "", 1).isdigit() or len(label) <= 8:
        return label
    return datetime.fromtimestamp(int(bars.close_time[row]) // 10**9, tz=UTC).strftime(
        "%Y-%m-%d %H:%M:%S UTC"
    )
