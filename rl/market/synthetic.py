"""Markets whose best policy is known, so that a weak learner and a market without an edge can be told apart.

Every market here is drawn from a formula of `rl.market.synthetic_formulas` with an exactly solvable optimum;
`rl.market.oracles` holds the solutions. Conventions shared by these modules:

* Bar t closes at C[t]; ``returns[t] = C[t] / C[t-1] - 1``.
* A position decided at the close of bar t earns ``position * returns[t+1]`` and pays the cost of its change.
* ``open[t+1] == close[t]``, across sessions too. An order decided at a close and filled at the next open
  therefore trades at exactly the price the formulas assume, and a backtest can reach the oracle's figure.
* One bar has a standard deviation of SIGMA; one bp is 1e-4.
* Signal columns start with ``x_``; row t is known at the close of bar t.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rl.common.atomic_files import writing
from rl.common.errors import UsageError, nearest
from rl.common.seeding import generator
from rl.market.bars import Bars
from rl.market.synthetic_formulas import MARKETS, SIGMA, START_PRICE, MarketKind

__all__ = [
    "MARKETS",
    "SIGMA",
    "START_PRICE",
    "SyntheticMarket",
    "generate",
    "kind_of",
    "resolved_params",
    "to_bars",
    "write_raw_csv",
]

BAR_MINUTES = 2
FIRST_DAY = "2015-01-01"
SESSION_OPEN_MINUTES = 9 * 60 + 15
"""09:15, as on the National Stock Exchange of India, whose 375 minutes hold 187 whole two-minute bars."""

MINUTES_PER_DAY = 24 * 60
SYMBOL_PREFIX = "SYN_"


@dataclass(frozen=True, kw_only=True)
class SyntheticMarket:
    """A drawn market. T = sessions * bars_per_session bars.

    Attributes:
        name: Row of `MARKETS` it was drawn from.
        params: Every number of the formula, defaults included.
        seed: Seed it was drawn with; the same call gives the same bytes.
        bars_per_session: Bars of one trading day.
        returns: Simple return of each bar against the close before. float64 (T,)
        opens, highs, lows, closes: Prices. float64 (T,)
        signals: Observable columns by name (``x_f1``, ``x_return``, ``x_regime`` …). float64, each (T,)
        regime: Regime number that decides the return of the next bar, None where there is only one;
            hidden from a policy unless it is a signal too. int8 (T,)
    """

    name: str
    params: Mapping[str, float]
    seed: int
    bars_per_session: int
    returns: np.ndarray
    opens: np.ndarray
    highs: np.ndarray
    lows: np.ndarray
    closes: np.ndarray
    signals: Mapping[str, np.ndarray]
    regime: np.ndarray | None

    def __len__(self) -> int:
        return len(self.returns)


def generate(
    market: str, sessions: int, seed: int, bars_per_session: int = 187, **params: float
) -> SyntheticMarket:
    """Draw a market.

    High and low are the extremes of a Brownian path tied to the bar's open and close, so ranges, ATR and
    stops behave as on a continuous market and say nothing about later bars. They come from a stream of their
    own: a change in how they are drawn leaves returns and signals as they were.

    Args:
        market: Name of a row of `MARKETS`.
        sessions: Trading days, at least 1.
        seed: Any integer from 0.
        bars_per_session: Bars of a trading day, at least 1.
        params: Numbers of the formula that differ from its defaults.

    Raises:
        UsageError: Unknown market or parameter, or a number outside its range.
    """
    kind = kind_of(market)
    settings = resolved_params(market, **params)
    if sessions < 1 or bars_per_session < 1:
        raise UsageError(
            f"Synthetic market {market}: sessions and bars_per_session have to be at least 1, "
            f"but are {sessions} and {bars_per_session}."
        )

    def stream(purpose: str) -> np.random.Generator:
        return generator(seed, "synthetic", market, purpose)

    path = kind.draw(stream, sessions * bars_per_session, **settings)
    closes = path.start_price * np.cumprod(1.0 + path.returns)
    opens = np.concatenate([[path.start_price], closes[:-1]])
    highs, lows = _intrabar_extremes(opens, closes, path.bar_sigma, stream("range"))
    return SyntheticMarket(
        name=market,
        params=settings,
        seed=seed,
        bars_per_session=bars_per_session,
        returns=path.returns,
        opens=opens,
        highs=highs,
        lows=lows,
        closes=closes,
        signals=dict(path.signals),
        regime=path.regime,
    )


def kind_of(market: str) -> MarketKind:
    """Return the row of `MARKETS`; UsageError naming the nearest ones if there is none."""
    if market not in MARKETS:
        hint = ", ".join(nearest(market, MARKETS) or MARKETS)
        raise UsageError(f"There is no synthetic market {market!r}. Did you mean: {hint}?")
    return MARKETS[market]


def resolved_params(market: str, **params: float) -> dict[str, float]:
    """Return every number of a market's formula, the given ones checked and the others at their defaults."""
    settings = kind_of(market).settings
    resolved = {name: setting.default for name, setting in settings.items()}
    for name, value in params.items():
        if name not in settings:
            allowed = ", ".join(settings) or "none"
            raise UsageError(f"Synthetic market {market} has no parameter {name!r}; it has: {allowed}.")
        setting = settings[name]
        if not setting.above < value < setting.below:
            raise UsageError(
                f"Synthetic market {market}: {name} has to lie between {setting.above:g} and "
                f"{setting.below:g} (both excluded), but is {value}."
            )
        resolved[name] = float(value)
    return resolved


def _intrabar_extremes(
    opens: np.ndarray, closes: np.ndarray, bar_sigma: np.ndarray | float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw each bar's high and low. Both (T,)

    For a Brownian path from 0 to x with deviation s, P(maximum > m) = exp(-2 m (m - x) / s^2) for m above
    both ends (reflection principle); inverted at a uniform number this is the maximum. The low is the same
    upside down. High and low are each exact, but drawn independently of each other.
    """
    move = np.log(closes / opens)
    spread_up, spread_down = (
        np.sqrt(move**2 - 2.0 * np.square(bar_sigma) * np.log1p(-rng.random(len(move)))) for _ in range(2)
    )
    highs = opens * np.exp((move + spread_up) / 2.0)
    lows = opens * np.exp((move - spread_down) / 2.0)
    # Mathematically the range holds both ends already; exp and log round.
    return np.maximum(highs, np.maximum(opens, closes)), np.minimum(lows, np.minimum(opens, closes))


# ---- bars and files ------------------------------------------------------------------------------


def to_bars(market: SyntheticMarket, symbol: str) -> Bars:
    """Return the market as bars, equal to those read back from the file `write_raw_csv` writes.

    Labels mark the start of a bar and are read as UTC, because synthetic markets belong to no place. They
    have no calendar either, so no bar is known beforehand to be its session's last.
    """
    starts = _bar_starts(market)
    return Bars(
        symbol=symbol,
        bar_seconds=60 * BAR_MINUTES,
        close_time=(starts + np.timedelta64(BAR_MINUTES, "m")).astype("datetime64[ns]").astype(np.int64),
        session=(np.arange(len(market)) // market.bars_per_session).astype(np.int32),
        session_end=np.zeros(len(market), dtype=bool),
        open=market.opens,
        high=market.highs,
        low=market.lows,
        close=market.closes,
        volume=None,
        extra=dict(market.signals),
        label=_labels(starts),
    )


def write_raw_csv(market: SyntheticMarket, path: Path) -> None:
    """Write the market as a raw file: datetime (start of the bar), open, high, low, close, x_… columns.

    Numbers are written with all their digits, so reading them back exactly gives the market bit for bit.
    Business days from 2015-01-01, 09:15 onwards, two minutes a bar. There is no volume column: none is drawn.

    Raises:
        UsageError: The name would hide that the data are synthetic or misstate the bar length, or the session
            does not fit into a day.
    """
    path = Path(path)
    name = path.name
    if not (name.startswith(SYMBOL_PREFIX) and name.endswith(f"_{BAR_MINUTES}.csv")):
        proposal = path.with_name(f"{SYMBOL_PREFIX}{market.name}_{BAR_MINUTES}.csv")
        raise UsageError(
            f"{path}: a synthetic market has to be called {SYMBOL_PREFIX}<name>_{BAR_MINUTES}.csv, so that "
            f"every report says what it is. Write it to {proposal}."
        )
    table = pd.DataFrame(
        {
            "datetime": _labels(_bar_starts(market)),
            "open": market.opens,
            "high": market.highs,
            "low": market.lows,
            "close": market.closes,
            **market.signals,
        }
    )
    with writing(path) as unfinished:
        table.to_csv(unfinished, index=False, compression=None, lineterminator="\n")


def _bar_starts(market: SyntheticMarket) -> np.ndarray:
    """Return when each bar starts. datetime64[m] (T,)"""
    per_session = market.bars_per_session
    limit = (MINUTES_PER_DAY - SESSION_OPEN_MINUTES) // BAR_MINUTES
    if per_session > limit:
        raise UsageError(
            f"Synthetic market {market.name}: {per_session} bars of {BAR_MINUTES} minutes from 09:15 run "
            f"past midnight; bars_per_session may be at most {limit}."
        )
    sessions = len(market) // per_session
    days = np.busday_offset(FIRST_DAY, np.arange(sessions), roll="forward").astype("datetime64[m]")
    minutes = SESSION_OPEN_MINUTES + BAR_MINUTES * np.arange(per_session)
    return (days[:, None] + minutes[None, :].astype("timedelta64[m]")).ravel()


def _labels(starts: np.ndarray) -> np.ndarray:
    """Return the text of each bar's time, such as '2015-01-01 09:15:00'. object (T,)"""
    text = np.datetime_as_string(starts.astype("datetime64[s]"))
    return np.char.replace(text, "T", " ").astype(object)
