"""PPO on a market whose best policy is known, through the product's own features, environment and backtest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rl.algorithms.ppo import PPO
from rl.backtest.engine import replay_policy
from rl.common.seeding import generator
from rl.envs.scaled_market import bar_volatility, scaled_market
from rl.envs.vector_env import VectorTradingEnv
from rl.features.pipeline import compute_features
from rl.features.scaler import FeatureScaler
from rl.market.instruments import load_instruments
from rl.market.oracles import evaluate_positions, oracle_of
from rl.market.synthetic import SyntheticMarket, generate, to_bars
from rl.policies.actor_critic import build_policy
from rl.policies.forward import pack
from rl.stages.plan import Plan
from rl.stages.policy_training import ppo_config
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

TRAINING_SESSIONS = 500
UNSEEN_SESSIONS = 250
BARS_PER_SESSION = 187


@dataclass(frozen=True)
class Learned:
    """What a policy earns per bar on unseen bars, beside the best there is, both net of costs, in basis points."""

    earned: float
    oracle: float
    trades_per_session: float

    @property
    def share(self) -> float:
        """Earned as a share of the best there is; 1 is perfect."""
        return self.earned / self.oracle


def _arrays(market: SyntheticMarket, scaler: FeatureScaler | None) -> tuple[MarketArrays, FeatureScaler, int]:
    symbol = f"SYN_{market.name}_2"
    bars = to_bars(market, symbol)
    table = compute_features(bars, load_instruments().find(symbol).instrument)
    first = int(np.argmax(table.usable))
    scaler = scaler or FeatureScaler.fit(table.values[table.usable], table.names)
    return scaled_market(bars, table, table.names, scaler), scaler, first


def learn(
    kind: str,
    *,
    cost_bp: float,
    steps: int,
    seed: int,
    plan: Plan | None = None,
    shuffle_features: bool = False,
    **params: float,
) -> Learned:
    """Train the shipped plan's PPO and let it trade bars of another draw of the same market.

    Args:
        kind: Name of the market.
        cost_bp: Cost of a unit of turnover, per side.
        steps: Steps of training.
        seed: Decides both draws and the training.
        plan: Where the training's settings come from; the shipped defaults if left out.
        shuffle_features: Train on features in random order, from which nothing can be learned.
        params: Numbers of the market's formula that differ from its defaults.
    """
    seen = generate(kind, TRAINING_SESSIONS, 100 + seed, BARS_PER_SESSION, **params)
    unseen = generate(kind, UNSEEN_SESSIONS, 900 + seed, BARS_PER_SESSION, **params)
    train, scaler, first = _arrays(seen, None)
    test, _, start = _arrays(unseen, scaler)
    if shuffle_features:
        order = generator(seed, "known answer", "shuffled features").permutation(len(train))
        train.features[:] = train.features[order]
    volatility = bar_volatility(to_bars(seen, f"SYN_{kind}_2"), (first, len(train)))
    rules = TradingRules(commission_rate=cost_bp * 1e-4, margin_rate=0.2, bar_volatility=volatility)
    plan = plan or Plan()
    envs = VectorTradingEnv(
        train,
        [(first, len(train))],
        [rules],
        num_envs=plan.training_params.ppo.num_envs,
        episode_bars=plan.environment.episode_bars,
    )
    spec = {"encoder": "mlp", "observations": train.feature_count + 5, "actions": 3, "hidden": [64, 64]}
    policy = build_policy(spec, seed)
    PPO(policy, envs, ppo_config(plan), seed).train(steps)
    replay = replay_policy(test, (start, len(test)), rules, pack(policy))
    positions = oracle_of(unseen, cost_bp=cost_bp).positions(unseen.signals)
    return Learned(
        earned=1e4 * math.log(replay.equity[-1] / replay.capital) / (len(replay.equity) - 1),
        oracle=evaluate_positions(positions[start:], unseen.returns[start:], cost_bp),
        trades_per_session=len(replay.trades) / UNSEEN_SESSIONS,
    )
