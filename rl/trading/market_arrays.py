"""Bars and scaled features as the contiguous arrays the kernel walks over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rl.common.errors import DataError
from rl.market.bars import Bars


@dataclass(frozen=True, kw_only=True)
class MarketArrays:
    """One or several symbols laid end to end; a window is a pair of row numbers inside one symbol.

    Axes: T bars, F features.
    """

    ohlc: np.ndarray
    """Open, high, low, close. (T, 4) float64"""
    features: np.ndarray
    """Scaled features known at each bar's close. (T, F) float32"""
    session: np.ndarray
    """Number of the trading day. (T,) int32"""
    session_end: np.ndarray
    """True where the calendar says this bar is its session's last. (T,) bool"""
    tradable: np.ndarray
    """True where every feature is defined, so that a decision can be made. (T,) bool"""
    atr: np.ndarray
    """Average true range in price units, known at the close. (T,) float64"""

    def __len__(self) -> int:
        return len(self.ohlc)

    @property
    def feature_count(self) -> int:
        """Number of market features per bar."""
        return int(self.features.shape[1])

    def kernel_args(self) -> tuple[np.ndarray, ...]:
        """Return the arrays in the order every kernel takes them."""
        return self.ohlc, self.features, self.session, self.session_end, self.tradable, self.atr


def market_arrays(bars: Bars, features: np.ndarray, usable: np.ndarray, atr: np.ndarray) -> MarketArrays:
    """Return the kernel's arrays of one symbol.

    Args:
        bars: The symbol's bars. (T,)
        features: Scaled features. (T, F)
        usable: True where the features are defined. (T,)
        atr: Average true range in price units. (T,)

    Raises:
        DataError: A price, or a number of a usable bar, is not finite; the first is named. Equity would never be a
            number again, and the clip of the scaler or a saturated unit would hide the rest.
    """
    for name in ("open", "high", "low", "close"):
        _refuse_unfinite(bars, name, getattr(bars, name), np.ones(len(bars), dtype=np.bool_))
    _refuse_unfinite(bars, "average true range", atr, usable)
    _refuse_unfinite(bars, "feature", features, usable)
    return MarketArrays(
        ohlc=np.ascontiguousarray(
            np.column_stack([bars.open, bars.high, bars.low, bars.close]), dtype=np.float64
        ),
        features=np.ascontiguousarray(features, dtype=np.float32),
        session=np.ascontiguousarray(bars.session, dtype=np.int32),
        session_end=np.ascontiguousarray(bars.session_end, dtype=np.bool_),
        tradable=np.ascontiguousarray(usable, dtype=np.bool_),
        atr=np.ascontiguousarray(atr, dtype=np.float64),
    )


def _refuse_unfinite(bars: Bars, name: str, values: np.ndarray, rows: np.ndarray) -> None:
    sick = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1) & rows
    if sick.any():
        first = int(np.argmax(sick))
        raise DataError(
            f"{bars.symbol}, bar {first} (label {bars.label[first]}): the {name} is {values[first]}, which is not "
            f"finite ({int(sick.sum())} such bars).\n  Correct the raw file and process it again."
        )


def joined(parts: list[MarketArrays]) -> tuple[MarketArrays, np.ndarray]:
    """Lay several symbols end to end.

    Returns:
        The joined arrays and the row each symbol starts at, with the total length last. (len(parts) + 1,) int64
    """
    names = ("ohlc", "features", "session", "session_end", "tradable", "atr")
    widths = {part.feature_count for part in parts}
    if len(widths) != 1:
        raise ValueError(f"symbols with different numbers of features cannot be joined: {sorted(widths)}")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return MarketArrays(**arrays), offsets
