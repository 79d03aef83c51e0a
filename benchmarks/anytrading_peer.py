"""gym-anytrading's environment on the same prices. Imported only where it is installed."""

from __future__ import annotations

import gymnasium
import pandas as pd

from rl.trading.market_arrays import MarketArrays

WINDOW = 10
"""Its default: prices and differences of the last ten bars, 20 numbers observed."""


def environment(market: MarketArrays) -> gymnasium.Env:
    """Return its stock environment over all bars of a market."""
    frame = pd.DataFrame(market.ohlc, columns=pd.Index(["Open", "High", "Low", "Close"]))
    # The part before the colon is imported, which registers the environment.
    return gymnasium.make(
        "gym_anytrading:stocks-v0",
        df=frame,
        window_size=WINDOW,
        frame_bound=(WINDOW, len(frame)),
        disable_env_checker=True,  # checks of every step are not this environment's own work
    )
