"""The market, account rules and network every benchmark uses, so that all speak of the same work."""

from __future__ import annotations

from functools import cache

import numpy as np

from rl.market.synthetic import SyntheticMarket, generate
from rl.policies.actor_critic import ActorCritic, build_policy
from rl.trading.kernel import ACCOUNT_FEATURES
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

SEED = 7
FEATURES = 16
BARS_PER_SESSION = 187
CAPITAL = 100_000.0
EPISODE_BARS = 1000
HIDDEN = (64, 64)

RULES = TradingRules(
    commission_rate=0.5e-4, stop_loss=0.003, take_profit=0.006, exits_in_atr=False, bar_volatility=6e-4
)
"""Half a basis point a side, stop and target inside the bar: what an ordinary strategy asks for."""

PLAIN_RULES = TradingRules(commission_rate=0.5e-4, bar_volatility=6e-4)
"""Without exits, for what other libraries' environments do not have either."""


@cache
def planted(bars: int) -> SyntheticMarket:
    """Return a market with a predictable part, of at least `bars` bars."""
    return generate("planted", -(-bars // BARS_PER_SESSION), SEED, BARS_PER_SESSION)


def market_of(bars: int) -> MarketArrays:
    """Return `bars` bars with 16 features: the planted one and noise."""
    market = planted(bars)
    rng = np.random.default_rng(SEED)
    features = rng.standard_normal((bars, FEATURES), dtype=np.float32)
    features[:, 0] = market.signals["x_f1"][:bars]
    prices = [market.opens, market.highs, market.lows, market.closes]
    return MarketArrays(
        ohlc=np.stack(prices, axis=1)[:bars].copy(),
        features=features,
        session=(np.arange(bars) // BARS_PER_SESSION).astype(np.int32),
        session_end=np.zeros(bars, dtype=np.bool_),
        tradable=np.ones(bars, dtype=np.bool_),
        atr=np.full(bars, 0.08),
    )


def network() -> ActorCritic:
    """Return an untrained network: actor and critic apart, two layers of 64, Stable-Baselines3's default."""
    spec = {
        "encoder": "mlp",
        "hidden": list(HIDDEN),
        "observations": FEATURES + ACCOUNT_FEATURES,
        "actions": 3,
    }
    return build_policy(spec, SEED)


def sides_by_moving_average(closes: np.ndarray, fast: int = 5, slow: int = 20) -> np.ndarray:
    """Return 1 where the fast mean is above the slow one, else -1; 0 for the first bars. int8 (T,)"""
    sums = np.concatenate([[0.0], np.cumsum(closes)])
    sides = np.zeros(len(closes), dtype=np.int8)
    ends = np.arange(slow, len(closes) + 1)
    fast_mean = (sums[ends] - sums[ends - fast]) / fast
    slow_mean = (sums[ends] - sums[ends - slow]) / slow
    sides[slow - 1 :] = np.where(fast_mean > slow_mean, 1, -1)
    return sides
