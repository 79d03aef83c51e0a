"""Markets, rules and actions drawn at random, for properties that have to hold whatever the market does."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from rl.policies.actor_critic import ActorCritic, build_policy
from rl.policies.encoders import MixtureOfExperts
from rl.trading.kernel import ACCOUNT_FEATURES, ACTION_COUNTS
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

CAPITAL = 100_000.0
FEATURES = 2

# A seed instead of hundreds of drawn prices: hypothesis is good at finding structure, numpy at filling it in.
SEEDS = st.integers(0, 2**32 - 1)
RATES = st.sampled_from([0.0, 1e-4, 0.01])


def market(
    seed: int,
    *,
    bars: int,
    move: float = 0.01,
    reach: float = 0.01,
    gap: float = 0.005,
    session_bars: int = 20,
    break_off: float = 0.0,
    undefined: float = 0.0,
) -> MarketArrays:
    """Return a random walk.

    Args:
        seed: The same seed gives the same bars.
        bars: Number of bars T.
        move: Standard deviation of a bar's log return.
        reach: How far high and low lie beyond open and close, as a log price; large ones touch stop and target at once.
        gap: Standard deviation of the log price between a close and the next open.
        session_bars: Longest session.
        break_off: Chance of a session ending without its calendar end.
        undefined: Chance of a bar without features.
    """
    rng = np.random.default_rng(seed)
    steps = rng.normal(0.0, [gap, move], (bars, 2))
    path = np.cumsum(steps.ravel()).reshape(bars, 2)
    log_open, log_close = path[:, 0], path[:, 1]
    spread = np.abs(rng.normal(0.0, reach, (2, bars)))
    ohlc = 100.0 * np.exp(
        np.column_stack(
            [
                log_open,
                np.maximum(log_open, log_close) + spread[0],
                np.minimum(log_open, log_close) - spread[1],
                log_close,
            ]
        )
    )
    # Sessions of changing length, so that their ends fall anywhere in a test's window.
    lengths = rng.integers(1, session_bars + 1, bars)
    session = np.repeat(np.arange(bars), lengths)[:bars].astype(np.int32)
    is_last = np.append(np.diff(session) != 0, False)
    return MarketArrays(
        ohlc=np.ascontiguousarray(ohlc),
        features=rng.normal(size=(bars, FEATURES)).astype(np.float32),
        session=session,
        session_end=is_last & (rng.random(bars) >= break_off),
        tradable=rng.random(bars) >= undefined,
        atr=np.abs(rng.normal(1.0, 0.3, bars)) + 0.05,
    )


@st.composite
def markets(draw: st.DrawFn, bars: int, **fixed: Any) -> MarketArrays:
    """Return markets that are calm or wild, with gaps, broken sessions and bars without features."""
    drawn = {
        "move": draw(st.sampled_from([0.001, 0.01, 0.05])),
        "reach": draw(st.sampled_from([0.0, 0.005, 0.05])),
        "gap": draw(st.sampled_from([0.0, 0.002, 0.03])),
        "session_bars": draw(st.sampled_from([1, 5, 40])),
        "break_off": draw(st.sampled_from([0.0, 0.3, 1.0])),
        "undefined": draw(st.sampled_from([0.0, 0.05, 0.5])),
    }
    return market(draw(SEEDS), bars=bars, **(drawn | fixed))


@st.composite
def trading_rules(draw: st.DrawFn, **fixed: Any) -> TradingRules:
    """Return costs, lots, exits, limits and reward weights that `TradingRules` finds no fault with."""
    margin = draw(st.sampled_from([0.1, 0.5, 1.0]))
    exits_in_atr = draw(st.booleans())
    # At prices about 100 and an ATR about 1 the same distances either way.
    unit = 1.0 if exits_in_atr else 0.01
    drawn = {
        "commission_per_entry": draw(st.sampled_from([0.0, 20.0])),
        "commission_per_exit": draw(st.sampled_from([0.0, 7.0])),
        "commission_per_unit": draw(st.sampled_from([0.0, 0.01])),
        "commission_rate": draw(RATES),
        "slippage_rate": draw(RATES),
        "slippage_price": draw(st.sampled_from([0.0, 0.05])),
        "tax_on_sale_rate": draw(RATES),
        "lot_size": draw(st.sampled_from([0.0, 0.1, 1.0, 25.0])),
        "allow_short": draw(st.booleans()),
        "margin_rate": margin,
        "square_off": draw(st.booleans()),
        "exposure": draw(st.sampled_from([0.3, 1.0])) / (margin if draw(st.booleans()) else 1.0),
        "ruin_level": draw(st.sampled_from([0.0, 0.1, 0.9])),
        "stop_loss": unit * draw(st.sampled_from([0.0, 0.5, 2.0])),
        "take_profit": unit * draw(st.sampled_from([0.0, 0.5, 3.0])),
        "trailing_stop": unit * draw(st.sampled_from([0.0, 1.0])),
        "exits_in_atr": exits_in_atr,
        "weight_drawdown": draw(st.sampled_from([0.0, 0.5])),
        "weight_turnover": draw(st.sampled_from([0.0, 0.1])),
        "bar_volatility": 0.01,
    }
    rules = TradingRules(**(drawn | fixed))
    assert not rules.problems()
    return rules


def random_actions(scheme: str, shape: tuple[int, ...], seed: int, calm: float = 0.0) -> np.ndarray:
    """Return random actions; with probability `calm` an action repeats the one before it."""
    rng = np.random.default_rng(seed)
    actions = rng.integers(ACTION_COUNTS[scheme], size=shape)
    for step in range(1, shape[0]):
        actions[step] = np.where(rng.random(shape[1:]) < calm, actions[step - 1], actions[step])
    return actions


FIRM = 1e9
"""Scores so far apart that drawing from them always takes the highest."""


def random_policy(
    scheme: str, seed: int, *, encoder: str = "mlp", firmness: float = 100.0, features: int = FEATURES
) -> ActorCritic:
    """Return a random network that acts on everything it sees, market and account.

    Args:
        scheme: What its actions mean.
        seed: The same seed gives the same weights.
        encoder: `mlp`, or `mixture` of three experts whose gate reads the market's features.
        firmness: Its scores are those of a network at the start of training, which are close to uniform, times this.
        features: Market features it reads.
    """
    sizes = {"observations": features + ACCOUNT_FEATURES, "actions": ACTION_COUNTS[scheme]}
    if encoder == "mlp":
        spec = {"encoder": "mlp", "hidden": [8], **sizes}
    else:
        spec = {
            "encoder": "mixture",
            "experts": 3,
            "expert_hidden": [8],
            "gate_hidden": 4,
            "value_hidden": [8],
        }
        spec |= {"gate_inputs": list(range(features)), "temperature": 0.8, **sizes}
    policy = build_policy(spec, seed % 2**31)
    with torch.no_grad():
        if isinstance(policy.actor, MixtureOfExperts):
            policy.actor.expert_layers()[-1][0].mul_(firmness)
            # It starts at zero: every expert would have the same say.
            gate = policy.actor.gate.layers()[-1][0]
            drawn = np.random.default_rng(seed).normal(0.0, 0.01 * firmness, gate.shape)
            gate.copy_(torch.from_numpy(drawn))
        else:
            policy.actor.layers()[-1][0].mul_(firmness)
    return policy
