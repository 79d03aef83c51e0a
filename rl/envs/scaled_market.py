"""From processed bars and features to the scaled arrays every environment and replay walks over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rl.common.errors import DataError
from rl.features.pipeline import FeatureTable
from rl.features.scaler import FeatureScaler
from rl.market.bars import Bars
from rl.trading.market_arrays import MarketArrays, market_arrays


def chosen_columns(table: FeatureTable, names: Sequence[str], symbol: str) -> np.ndarray:
    """Return the named feature columns in the order given. (T, len(names)) float32

    Raises:
        DataError: A named feature does not exist for this symbol; all missing ones are listed.
    """
    place = {name: column for column, name in enumerate(table.names)}
    missing = [name for name in names if name not in place]
    if missing:
        raise DataError(
            f"{symbol}: the features {', '.join(missing)} do not exist for this symbol. "
            "A model needs the features it was trained on; was a volume or x_ column removed from the raw file?"
        )
    return table.values[:, [place[name] for name in names]]


def fitted_scaler(table: FeatureTable, names: Sequence[str], rows: np.ndarray, symbol: str) -> FeatureScaler:
    """Return a scaler of the named features, fitted on the usable ones among these rows and on no others.

    Args:
        table: All features of the symbol. (T, F)
        names: The features wanted.
        rows: Rows of the training window.
        symbol: For messages.

    Raises:
        DataError: A named feature does not exist, or no row is usable.
    """
    return FeatureScaler.fit(chosen_columns(table, names, symbol)[rows][table.usable[rows]], names)


def scaled_market(
    bars: Bars, table: FeatureTable, names: Sequence[str], scaler: FeatureScaler
) -> MarketArrays:
    """Return the kernel's arrays of one symbol with the named features scaled by a fitted scaler."""
    chosen = chosen_columns(table, names, bars.symbol)
    # Before the scaler, whose clip would make an ordinary number of an infinite one.
    sick = ~np.isfinite(chosen) & table.usable[:, None]
    if sick.any():
        row, column = (int(place) for place in np.argwhere(sick)[0])
        raise DataError(
            f"{bars.symbol}, bar {row} (label {bars.label[row]}): the feature {names[column]} is "
            f"{chosen[row, column]}, which is not finite ({int(sick.any(axis=1).sum())} such bars).\n"
            "  Correct the raw file and process it again."
        )
    values = scaler.transform(chosen)
    # Rows before the features are defined carry no information; the kernel lets nothing be held there.
    values[~table.usable] = 0.0
    return market_arrays(bars, values, table.usable, table.atr)


def bar_volatility(bars: Bars, window: tuple[int, int]) -> float:
    """Return the standard deviation of one bar's relative close-to-close move inside a window.

    Raises:
        DataError: The price never moves there, so that no reward could tell one action from another.
    """
    close = bars.close[window[0] : window[1]]
    move = np.diff(close) / np.abs(close[:-1])
    spread = float(np.std(move[np.isfinite(move)])) if len(move) else 0.0
    if not spread > 0.0:
        raise DataError(
            f"{bars.symbol}: the price does not move on the training window; there is nothing to learn"
        )
    return spread
