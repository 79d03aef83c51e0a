"""The formulas of the markets whose best policy is known, and the table of them.

`rl.market.synthetic` turns what a formula draws into prices, bars and files; `rl.market.oracles` solves it.

* ``returns[t] = C[t] / C[t-1] - 1``; one bar has a standard deviation of SIGMA; one bp is 1e-4.
* Signal columns start with ``x_``; row t is known at the close of bar t.

A new market is one function that draws a `DrawnPath`, one row in `MARKETS`, and its chain in
`rl.market.oracle_chains`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType

import numpy as np
from scipy.signal import lfilter

from rl.common.errors import UsageError
from rl.common.seeding import generator

BP = 1e-4

SIGMA = 6e-4
"""Standard deviation of one bar's return: what a two-minute index bar moves, about 13 % a year."""

START_PRICE = 100.0
DECOY_RHO = 0.95
GARCH_WARM_UP_BARS = 1000

BARS_PER_YEAR = 187 * 250
"""Two-minute bars of 250 sessions; turns a yearly drift into one per bar."""

WIDE_REGIMES, WIDE_FEATURES = 4, 6
TWO_PI = 2.0 * np.pi

Stream = Callable[[str], np.random.Generator]


@dataclass(frozen=True)
class DrawnPath:
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
    """Number of the regime that decides the return of the *next* bar; hidden unless it is a signal too. int8 (T,)"""


@dataclass(frozen=True)
class Setting:
    """One number of a market's formula: its default and the open interval it has to lie in."""

    default: float
    above: float
    below: float


@dataclass(frozen=True)
class MarketKind:
    """One row of the table of markets."""

    draw: Callable[..., DrawnPath]
    settings: Mapping[str, Setting]
    best_policy: str


# ---- nothing to find -----------------------------------------------------------------------------


def _noise_gauss(stream: Stream, bars: int) -> DrawnPath:
    """Independent normal returns. Observable: two decoys, f1 and f2."""
    return DrawnPath(SIGMA * stream("returns").standard_normal(bars), signals=_decoys(stream, bars))


def _noise_garch(stream: Stream, bars: int, *, a: float, b: float) -> DrawnPath:
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
    return DrawnPath(bar_sigma * shocks[warm_up:], bar_sigma, signals=_decoys(stream, bars))


def _noise_drift(stream: Stream, bars: int, *, yearly_drift: float) -> DrawnPath:
    """Independent normal returns around a constant mean of `yearly_drift` per BARS_PER_YEAR bars.

    Observable: two decoys, f1 and f2.
    """
    noise = stream("returns").standard_normal(bars)
    return DrawnPath(drift_per_bar(yearly_drift) + SIGMA * noise, signals=_decoys(stream, bars))


def drift_per_bar(yearly_drift: float) -> float:
    """Return the mean simple return of a bar of noise_drift."""
    return yearly_drift / BARS_PER_YEAR


def _bounce(stream: Stream, bars: int, *, half_spread_bp: float) -> DrawnPath:
    """Close = mid (1 + h q): the mid is a martingale with deviation SIGMA, q = ±1 the side that traded last.

    The side is drawn anew each bar, so the last return reverses a little, but never by more than the spread
    (Roll 1984). Observable: the return, in SIGMA, and two decoys. `regime` is the side, hidden: 0 bid, 1 ask.
    """
    side = stream("side").integers(0, 2, bars + 1).astype(np.int8)
    step = bounce_steps(half_spread_bp)[side[:-1], side[1:]]
    returns = step * (1.0 + SIGMA * stream("returns").standard_normal(bars)) - 1.0
    return DrawnPath(returns, signals={"x_return": returns / SIGMA, **_decoys(stream, bars)}, regime=side[1:])


def bounce_steps(half_spread_bp: float) -> np.ndarray:
    """Return close over close where the mid does not move, by old and new side (bid, ask). (2, 2)

    The ratio of two quotes is h^2 above 1 in the mean (Blume and Stambaugh 1983), which a position
    would seem to earn for nothing. It is taken out, so that the mean return is exactly h after a bid and exactly
    -h after an ask; the mid then falls by h^2 a bar, a ten-thousandth of a bp.
    """
    half_spread = half_spread_bp * BP
    quote = 1.0 + half_spread * np.array([-1.0, 1.0])
    return (1.0 - half_spread**2) * quote[None, :] / quote[:, None]


# ---- one signal ----------------------------------------------------------------------------------


def _ar1(stream: Stream, bars: int, *, phi: float) -> DrawnPath:
    """r[t+1] = phi r[t] + e, where r has standard deviation SIGMA. Observable: the return, in SIGMA."""
    standardised = _unit_ar1(stream("returns"), bars, phi)
    return DrawnPath(SIGMA * standardised, signals={"x_return": standardised})


def _ou(stream: Stream, bars: int, *, a: float) -> DrawnPath:
    """Price = 100 exp(X) where X is AR(1) with coefficient a and innovation SIGMA.

    Observable: X in its own standard deviations.
    """
    level = _unit_ar1(stream("returns"), bars + 1, a)
    log_price = level * SIGMA / np.sqrt(1.0 - a**2)
    return DrawnPath(
        np.expm1(np.diff(log_price)),
        start_price=START_PRICE * float(np.exp(log_price[0])),
        signals={"x_level": level[1:]},
    )


def _hamilton(stream: Stream, bars: int, *, mu_bp: float, stay: float) -> DrawnPath:
    """r[t+1] = ±mu + SIGMA noise: plus in regime 0, minus in regime 1 (Hamilton 1989).

    The regime is hidden. Observable: the return, in SIGMA, from which it can be guessed.
    """
    regime = _regime_chain(stream("regime"), bars + 1, 2, stay)
    drift = mu_bp * BP * np.where(regime[:-1] == 0, 1.0, -1.0)
    returns = drift + SIGMA * stream("returns").standard_normal(bars)
    return DrawnPath(returns, signals={"x_return": returns / SIGMA}, regime=regime[1:])


def _planted(stream: Stream, bars: int, *, r2: float, rho: float) -> DrawnPath:
    """r[t+1] = sqrt(r2) SIGMA f1[t] + sqrt(1 - r2) SIGMA noise: f1 explains the share r2 of the variance.

    Observable: f1, AR(1) with coefficient rho, and f2, a decoy of the same kind.
    """
    f1 = _unit_ar1(stream("f1"), bars + 1, rho)
    f2 = _unit_ar1(stream("f2"), bars + 1, rho)
    noise = stream("returns").standard_normal(bars)
    returns = SIGMA * (np.sqrt(r2) * f1[:-1] + np.sqrt(1.0 - r2) * noise)
    return DrawnPath(returns, signals={"x_f1": f1[1:], "x_f2": f2[1:]})


def _momrev(stream: Stream, bars: int, *, phi: float, stay: float) -> DrawnPath:
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
    return DrawnPath(SIGMA * standardised, signals=signals, regime=regime)


# ---- a direction in the space of features --------------------------------------------------------


def _task(stream: Stream, bars: int, *, r2: float, rho: float, theta: float) -> DrawnPath:
    """r[t+1] = sqrt(r2) SIGMA (w · f)[t] + sqrt(1 - r2) SIGMA noise, w = (cos theta, sin theta).

    Observable: f1 and f2, AR(1) with coefficient rho. theta is the task, the same from the first bar to the last.
    """
    only_one = np.zeros(bars + 1, dtype=np.int8)
    returns, features = _directed(stream, only_one, task_direction(theta), r2=r2, rho=rho)
    return DrawnPath(returns, signals=features)


def _moe4(stream: Stream, bars: int, *, r2: float, rho: float, stay: float) -> DrawnPath:
    """The same as `_task` with four directions at right angles; the regime says which one holds.

    Observable: f1, f2 and the regime deciding the next return. The directions add up to zero, so that a linear
    rule that does not look at the regime earns nothing.
    """
    return _mixed(stream, bars, MOE4_DIRECTIONS, r2=r2, rho=rho, stay=stay)


def _moe_wide(stream: Stream, bars: int, *, r2: float, stay: float) -> DrawnPath:
    """The same as `_moe4` with six white features and the four directions of `moe_wide_directions`."""
    return _mixed(stream, bars, moe_wide_directions(), r2=r2, rho=0.0, stay=stay)


def task_direction(theta: float) -> np.ndarray:
    """Return the unit vector at angle theta. (1, 2)"""
    return np.array([[np.cos(theta), np.sin(theta)]])


MOE4_DIRECTIONS = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
"""Unit vectors at the angles 0, 90, 180 and 270 degrees, one per regime. (4, 2)"""


@cache
def moe_wide_directions() -> np.ndarray:
    """Return four random unit vectors that add up to zero, one per regime. (4, 6)

    They have a seed of their own and are the same in every market drawn: training and unseen bars are one market.
    """
    directions = generator(0, "synthetic", "moe_wide", "directions").standard_normal(
        (WIDE_REGIMES, WIDE_FEATURES)
    )
    # Alternating projections on "mean zero" and "length one"; the two sets meet, and far fewer rounds suffice.
    for _ in range(200):
        directions -= directions.mean(axis=0)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions.flags.writeable = False
    return directions


def _mixed(
    stream: Stream, bars: int, directions: np.ndarray, *, r2: float, rho: float, stay: float
) -> DrawnPath:
    """Draw a market whose direction changes with an observable regime."""
    regime = _regime_chain(stream("regime"), bars + 1, len(directions), stay)
    returns, features = _directed(stream, regime, directions, r2=r2, rho=rho)
    known = regime[1:]
    return DrawnPath(returns, signals={**features, "x_regime": known.astype(np.float64)}, regime=known)


def _directed(
    stream: Stream, regime: np.ndarray, directions: np.ndarray, *, r2: float, rho: float
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw features and the returns that follow them along the direction of each bar's regime.

    Args:
        regime: Regime in which each bar's features are weighed, one bar before the first return. (T + 1,)
        directions: Unit vector of each regime. (G, D)

    Returns:
        Returns (T,), and the columns x_f1 … x_fD, each (T,).
    """
    bars = len(regime) - 1
    signal = np.zeros(bars + 1)
    features = {}
    for place, weights in enumerate(directions.T, start=1):
        feature = _unit_ar1(stream(f"f{place}"), bars + 1, rho)
        signal += weights[regime] * feature
        features[f"x_f{place}"] = feature[1:]
    noise = stream("returns").standard_normal(bars)
    return SIGMA * (np.sqrt(r2) * signal[:-1] + np.sqrt(1.0 - r2) * noise), features


MARKETS: Mapping[str, MarketKind] = MappingProxyType(
    {
        "noise_gauss": MarketKind(_noise_gauss, {}, "stay flat"),
        "noise_garch": MarketKind(
            _noise_garch, {"a": Setting(0.08, 0.0, 1.0), "b": Setting(0.90, 0.0, 1.0)}, "stay flat"
        ),
        "noise_drift": MarketKind(_noise_drift, {"yearly_drift": Setting(0.15, -1.0, 1.0)}, "always long"),
        "bounce": MarketKind(
            _bounce,
            {"half_spread_bp": Setting(1.0, 0.0, 100.0)},
            "flat where the cost is the half spread or more",
        ),
        "ar1": MarketKind(
            _ar1, {"phi": Setting(-0.3, -1.0, 1.0)}, "threshold on the last return and the own position"
        ),
        "ou": MarketKind(_ou, {"a": Setting(0.97, 0.0, 1.0)}, "threshold on the level and the own position"),
        "hamilton": MarketKind(
            _hamilton,
            {"mu_bp": Setting(1.2, 0.0, 100.0), "stay": Setting(0.99, 0.0, 1.0)},
            "threshold on the belief filtered from the returns and the own position",
        ),
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
        "moe4": MarketKind(
            _moe4,
            {
                "r2": Setting(0.05, 0.0, 1.0),
                "rho": Setting(0.0, -1.0, 1.0),
                "stay": Setting(0.99, 0.0, 1.0),
            },
            "threshold on the features weighed as the regime says",
        ),
        "moe_wide": MarketKind(
            _moe_wide,
            {"r2": Setting(0.05, 0.0, 1.0), "stay": Setting(0.99, 0.0, 1.0)},
            "threshold on the features weighed as the regime says",
        ),
        "task": MarketKind(
            _task,
            {
                "r2": Setting(0.05, 0.0, 1.0),
                "rho": Setting(0.0, -1.0, 1.0),
                "theta": Setting(0.7, -TWO_PI, TWO_PI),
            },
            "threshold on the features weighed along theta",
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
