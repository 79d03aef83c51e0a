"""A few bars whose every fill can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

SHORT, FLAT, LONG = 0, 1, 2
FREE = TradingRules(margin_rate=0.2)
DAY_NS = 86_400 * 10**9


def market_of_closes(
    closes: Sequence[float],
    *,
    session: Sequence[int] | None = None,
    session_end: Sequence[bool] | None = None,
    tradable: Sequence[bool] | None = None,
    features: np.ndarray | None = None,
) -> MarketArrays:
    """Return bars that open at the close before and reach no further than open and close."""
    close = np.array(closes, dtype=np.float64)
    opens = np.concatenate([close[:1], close[:-1]])
    n = len(close)
    return MarketArrays(
        ohlc=np.column_stack([opens, np.maximum(opens, close), np.minimum(opens, close), close]),
        features=np.zeros((n, 1), dtype=np.float32) if features is None else features.astype(np.float32),
        session=np.zeros(n, dtype=np.int32) if session is None else np.array(session, dtype=np.int32),
        session_end=np.zeros(n, dtype=bool) if session_end is None else np.array(session_end, dtype=bool),
        tradable=np.ones(n, dtype=bool) if tradable is None else np.array(tradable, dtype=bool),
        atr=np.ones(n),
    )
