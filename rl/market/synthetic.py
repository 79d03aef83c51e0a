"""Markets whose best policy is known, so that a weak learner and a market without an edge can be told apart.

Every market here is drawn from a formula with an exactly solvable optimum; `rl.market.oracles` holds the
solutions. Conventions shared by both modules:

* Bar t closes at C[t]; ``returns[t] = C[t] / C[t-1] - 1``.
* A position decided at the close of bar t earns ``position * returns[t+1]`` and pays the cost of its change.
* ``open[t+1] == close[t]``, across sessions too. An order decided at a close and filled at the next open
  therefore trades at exactly the price the formulas assume, and a backtest can reach the oracle's figure.
* One bar has a standard deviation of SIGMA; one bp is 1e-4.
* Signal columns start with ``x_``; row t is known at the close of bar t.

A new market is one function that draws a `_Path`, and one row in `MARKETS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from rl.common.atomic_files import writing
from rl.common.errors import UsageError, nearest
from rl.common.seeding import generator
from rl.market.bars import Bars

SIGMA = 6e-4
"""Standard deviation of one bar's return: what a two-minute index bar moves, about 13 % a year."""

START_PRICE = 100.0
DECOY_RHO = 0.95
BAR_MINUTES = 2
FIRST_DAY = "2015-01-01"
SESSION_OPEN_MINUTES = 9 * 60 + 15
"""09:15, as on the National Stock Exchange of India, whose 375 minutes hold 187 whole two-minute bars."""

MINUTES_PER_DAY = 24 * 60
GARCH_WARM_UP_BARS = 1000
SYMBOL_PREFIX = "SYN_"

Stream = Callable[[str], np.random.Generator]


@dataclass(frozen=True)
class _Path:
    """What a market's formula draws. T bars."""

    returns: np.ndarray
    """Simple return of each bar. (T,)"""

    bar_sigma: np.ndarray | float = SIGMA
    """Deviation of the price path inside a bar; decides how far high and low reach. (T,) or one number"""

    start_price: float = START_PRICE
    """Open of bar 0."""

    signals: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Observable columns. Each (T,)"""

    regime: np.ndarray | None = None
    """Number of the regime that decides the return of the *next* bar. int8 (T,)"""


@dataclass(frozen=True)
class Setting:
    """One number of a market's formula: its default and the open interval it has to lie in."""

    default: float
    above: float
    below: float


@dataclass(frozen=True)
class MarketKind:
    """One row of the table of markets."""

    draw: Callable[..., _Path]
    settings: Mapping[str, Setting]
    best_policy: str


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
        regime: Regime number that decides the return of the next bar, None where there is only one. int8 (T,)
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


# ---- the formulas --------------------------------------------------------------------------------


def _noise_garch(stream: Stream, bars: int, *, a: float, b: float) -> _Path:
    """Volatility clusters, direction is pure chance: GARCH(1,1) with t(5) shocks (Bollerslev 1987).

    Observable: two decoys, f1 and f2.
    """
    if a + b >= 1.0:
        raise UsageError(f"Synthetic market noise_garch: a + b has to be below 1, but is {a + b:g}.")
    degrees = 5
    warm_up = GARCH_WARM_UP_BARS
    shocks = stream("returns").standard_t(degrees, bars + warm_up) * np.sqrt((degrees - 2) / degrees)
    # With r = sqrt(h) z the recursion w + a r^2 + b h is h[t+1] = w + (a z[t]^2 + b) h[t].
    long_run = SIGMA**2
    base = long_run * (1.0 - a - b)
    growth = (a * shocks**2 + b).tolist()
    variance = np.empty(bars + warm_up)
    current = long_run
    for t, factor in enumerate(growth):
        variance[t] = current
        current = base + factor * current
    bar_sigma = np.sqrt(variance[warm_up:])
    return _Path(bar_sigma * shocks[warm_up:], bar_sigma, signals=_decoys(stream, bars))


def _ar1(stream: Stream, bars: int, *, phi: float) -> _Path:
    """r[t+1] = phi r[t] + e, where r has standard deviation SIGMA. Observable: the return, in SIGMA."""
    standardised = _unit_ar1(stream("returns"), bars, phi)
    return _Path(SIGMA * standardised, signals={"x_return": standardised})


def _ou(stream: Stream, bars: int, *, a: float) -> _Path:
    """Price = 100 exp(X) where X is AR(1) with coefficient a and innovation SIGMA.

    Observable: X in its own standard deviations.
    """
    level = _unit_ar1(stream("returns"), bars + 1, a)
    log_price = level * SIGMA / np.sqrt(1.0 - a**2)
    return _Path(
        np.expm1(np.diff(log_price)),
        start_price=START_PRICE * float(np.exp(log_price[0])),
        signals={"x_level": level[1:]},
    )


def _planted(stream: Stream, bars: int, *, r2: float, rho: float) -> _Path:
    """r[t+1] = sqrt(r2) SIGMA f1[t] + sqrt(1 - r2) SIGMA noise: f1 explains the share r2 of the variance.

    Observable: f1, AR(1) with coefficient rho, and f2, a decoy of the same kind.
    """
    f1 = _unit_ar1(stream("f1"), bars + 1, rho)
    f2 = _unit_ar1(stream("f2"), bars + 1, rho)
    noise = stream("returns").standard_normal(bars)
    returns = SIGMA * (np.sqrt(r2) * f1[:-1] + np.sqrt(1.0 - r2) * noise)
    return _Path(returns, signals={"x_f1": f1[1:], "x_f2": f2[1:]})


def _momrev(stream: Stream, bars: int, *, phi: float, stay: float) -> _Path:
    """r[t+1] = phi r[t] + e in regime 0 (momentum), -phi r[t] + e in regime 1 (reversal).

    r has standard deviation SIGMA. Observable: the return, in SIGMA, and the regime deciding the next one.
    """
    regime = _regime_chain(stream("regime"), bars, 2, stay)
    # With s[t] = +1 or -1 by regime and S[t] = s[0] … s[t-1], y[t] = S[t] r[t] is a plain AR(1) with
    # coefficient phi, because S[t+1] s[t] = S[t]. So one filter draws the series without a loop over bars.
    sign = np.where(regime == 0, 1.0, -1.0)
    turned = np.concatenate([[1.0], np.cumprod(sign[:-1])])
    standardised = turned * _unit_ar1(stream("returns"), bars, phi)
    signals = {"x_return": standardised, "x_regime": regime.astype(np.float64)}
    return _Path(SIGMA * standardised, signals=signals, regime=regime)


MARKETS: Mapping[str, MarketKind] = MappingProxyType(
    {
        "noise_garch": MarketKind(
            _noise_garch, {"a": Setting(0.08, 0.0, 1.0), "b": Setting(0.90, 0.0, 1.0)}, "stay flat"
        ),
        "ar1": MarketKind(
            _ar1, {"phi": Setting(-0.3, -1.0, 1.0)}, "threshold on the last return and the own position"
        ),
        "ou": MarketKind(_ou, {"a": Setting(0.97, 0.0, 1.0)}, "threshold on the level and the own position"),
        "planted": MarketKind(
            _planted,
            {"r2": Setting(0.02, 0.0, 1.0), "rho": Setting(0.95, -1.0, 1.0)},
            "threshold on f1 and the own position",
        ),
        "momrev": MarketKind(
            _momrev,
            {"phi": Setting(0.3, -1.0, 1.0), "stay": Setting(0.995, 0.0, 1.0)},
            "threshold on the last return, its direction decided by the regime",
        ),
    }
)


# ---- building blocks -----------------------------------------------------------------------------


def _unit_ar1(rng: np.random.Generator, length: int, coefficient: float) -> np.ndarray:
    """Draw a stationary AR(1) series of unit variance. (length,)"""
    noise = rng.standard_normal(length)
    # The first value is drawn from the stationary law, so no warm-up has to be thrown away.
    noise[1:] *= np.sqrt(1.0 - coefficient**2)
    return lfilter([1.0], [1.0, -coefficient], noise)


def _decoys(stream: Stream, bars: int) -> dict[str, np.ndarray]:
    """Two persistent features that mean nothing."""
    return {f"x_{name}": _unit_ar1(stream(name), bars, DECOY_RHO) for name in ("f1", "f2")}


def _regime_chain(rng: np.random.Generator, length: int, regimes: int, stay: float) -> np.ndarray:
    """Draw a regime that stays with probability `stay`, else moves to any other alike. int8 (length,)"""
    moves = rng.random(length) >= stay
    steps = np.where(moves, rng.integers(1, regimes, length), 0)
    steps[0] = rng.integers(regimes)
    return (np.cumsum(steps) % regimes).astype(np.int8)


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
