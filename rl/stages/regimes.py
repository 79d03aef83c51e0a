"""Which regime of the market each bar is in, by limits fixed on the training window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rl.common.errors import DataError
from rl.common.interpreter import interpreter
from rl.features.pipeline import REGIME_PREFIX
from rl.features.scaler import MOST_REGIMES
from rl.stages.symbol_data import SymbolData

VOLATILITY = "volatility_level"
TREND = "adx"
"""Features the regimes are made of where the market brings no column of its own."""

ANOTHER_VALUE = "another value"


@dataclass(frozen=True, kw_only=True)
class Regimes:
    """The regime of every bar of a symbol. Axes: T bars, R regimes."""

    source: str
    """What they are made of, in words."""
    names: tuple[str, ...]
    """(R,)"""
    labels: np.ndarray
    """Place of each bar's regime among the names; says nothing where features are undefined. (T,) int64"""


def regimes_of(data: SymbolData) -> Regimes:
    """Return the regime of every bar; that of bar t depends on bars up to t and on the training window.

    The market's own column `x_regime…` where there is one (the first of several), else thirds of trailing
    volatility crossed with thirds of trend strength.

    Raises:
        DataError: There is neither such a column nor those two features.
    """
    own = [name for name in data.table.names if name.startswith(REGIME_PREFIX)]
    if not own:
        return _volatility_and_trend(data)
    column, seen = _column(data, own[0])
    values = np.unique(seen)
    if len(values) <= MOST_REGIMES:
        labels = np.searchsorted(values, column)
        is_known = values[np.minimum(labels, len(values) - 1)] == column
        return Regimes(
            source=own[0],
            names=(*(f"{own[0]} {value:g}" for value in values), ANOTHER_VALUE),
            labels=np.where(is_known, labels, len(values)).astype(np.int64),
        )
    return Regimes(
        source=f"thirds of {own[0]} on the training window",
        names=tuple(f"{word} {own[0]}" for word in ("low", "middle", "high")),
        labels=_thirds(column, seen),
    )


def _volatility_and_trend(data: SymbolData) -> Regimes:
    missing = [name for name in (VOLATILITY, TREND) if name not in data.table.names]
    if missing:
        raise DataError(
            f"{data.symbol}: regimes need a column {REGIME_PREFIX}… or the features {VOLATILITY} and {TREND}, but "
            f"{' and '.join(missing)} is not there. Process the symbol again: {interpreter()} -m rl process --force"
        )
    volatility, trend = (_thirds(*_column(data, name)) for name in (VOLATILITY, TREND))
    return Regimes(
        source=f"thirds of {VOLATILITY} and of {TREND} on the training window",
        names=tuple(
            f"{level} volatility, {strength} trend"
            for level in ("low", "middle", "high")
            for strength in ("weak", "middling", "strong")
        ),
        labels=3 * volatility + trend,
    )


def _column(data: SymbolData, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a feature at every bar, and at the usable bars of the training window."""
    column = data.table.values[:, data.table.names.index(name)]
    start, stop = data.window("train")
    return column, column[start:stop][data.table.usable[start:stop]]


def _thirds(column: np.ndarray, seen: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.quantile(seen, [1 / 3, 2 / 3]), column, side="right").astype(np.int64)
