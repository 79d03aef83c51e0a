"""Learning on a market whose best policy is known: what is drawn, and what a policy earned beside the best one.

The learner trains on one draw of a market and trades another, drawn with another seed from the same formula. Both go
through the product's own features, scaler, environment and replay. `known_answer_stages` puts the three stages on such
a market; `learn` here is PPO alone, without windows or choice of weights, for comparing its settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from rl.algorithms.ppo import PPO
from rl.backtest.engine import Replay, replay_policy
from rl.common.seeding import generator
from rl.envs.scaled_market import bar_volatility, scaled_market
from rl.envs.vector_env import VectorTradingEnv
from rl.features.pipeline import FeatureTable, compute_features
from rl.features.scaler import FeatureScaler
from rl.market.bars import Bars
from rl.market.instruments import Commission, FoundInstrument, load_instruments
from rl.market.oracles import earned_by_bar, evaluate_positions, oracle_of
from rl.market.synthetic import SyntheticMarket, generate, to_bars
from rl.policies.actor_critic import build_policy
from rl.policies.forward import pack
from rl.stages.plan import Plan
from rl.stages.policy_training import ppo_config
from rl.stages.symbol_data import symbol_rules
from rl.trading.kernel import ACCOUNT_FEATURES, ACTION_COUNTS

TRAINING_SESSIONS = 500

SEEN_SESSIONS = 833
"""Of which the shipped plan's windows give 500 to training, 125 to validation, and leave the rest alone."""

UNSEEN_SESSIONS = 250
BARS_PER_SESSION = 187

SEEN_SEED = 100
UNSEEN_SEED = 900
"""Added to the seed of a trial; trials are numbered from 0, far fewer than lie between the two."""

FAST_SPAN, SLOW_SPAN = 5, 20
"""Bars of the two exponential averages whose order is the momentum rule."""


@dataclass(frozen=True)
class Learned:
    """What a policy earns per bar on unseen bars, beside the best there is, both net of costs, in basis points."""

    earned: float
    """Mean growth of log equity."""
    oracle: float
    """What the best policy earns on the very same bars."""
    trades_per_session: float
    error: float
    """Standard error of `earned - oracle`: bar by bar, the two differ by chance as well."""
    earned_error: float
    """Standard error of `earned` itself."""
    momentum: float
    """What the order of two averages of the close, over 5 and 20 bars, earns on the same bars."""

    @property
    def share(self) -> float:
        """Earned as a share of the best there is; 1 is perfect."""
        return self.earned / self.oracle

    @property
    def excess(self) -> float:
        """Earned beyond the best policy; the figure where that one earns nothing, or what holding earns."""
        return self.earned - self.oracle


@dataclass(frozen=True, kw_only=True)
class KnownMarket:
    """A market whose best policy is known, at one cost."""

    kind: str
    """Row of `rl.market.synthetic.MARKETS`."""
    cost_bp: float
    """Cost of a unit of turnover, per side."""
    params: Mapping[str, float] = field(default_factory=dict)
    """Numbers of the formula that differ from its defaults."""

    @property
    def symbol(self) -> str:
        """The symbol it trades under."""
        return f"SYN_{self.kind}_2"

    def seen(self, seed: int, sessions: int) -> SyntheticMarket:
        """Return the draw to learn from."""
        return generate(self.kind, sessions, SEEN_SEED + seed, BARS_PER_SESSION, **self.params)

    def instrument(self) -> FoundInstrument:
        """Return the symbol's instrument, with this market's cost as its only one."""
        found = load_instruments().find(self.symbol)
        costs = {"commission": Commission(rate=self.cost_bp * 1e-4)}
        return FoundInstrument(found.instrument.model_copy(update=costs), found.matched)

    def features(self, market: SyntheticMarket) -> tuple[Bars, FeatureTable]:
        """Return a draw's bars and their features."""
        bars = to_bars(market, self.symbol)
        return bars, compute_features(bars, self.instrument().instrument)

    def unseen(self, seed: int, sessions: int) -> UnseenBars:
        """Return a draw nobody learns from, with what the best policy does on it."""
        market = generate(self.kind, sessions, UNSEEN_SEED + seed, BARS_PER_SESSION, **self.params)
        bars, table = self.features(market)
        return UnseenBars(
            bars=bars,
            table=table,
            first=int(np.argmax(table.usable)),
            returns=market.returns,
            best=oracle_of(market, cost_bp=self.cost_bp).positions(market.signals),
            cost_bp=self.cost_bp,
        )


@dataclass(frozen=True, kw_only=True)
class UnseenBars:
    """A draw to be judged on. Axes: T bars."""

    bars: Bars
    table: FeatureTable
    first: int
    """First row whose features are defined."""
    returns: np.ndarray
    """Simple return of each bar. (T,)"""
    best: np.ndarray
    """The best policy's position after each close. int8 (T,)"""
    cost_bp: float

    def compared(self, replay: Replay) -> Learned:
        """Return what an account earned beside the best policy on the same bars, both starting flat."""
        rows = slice(replay.start, replay.stop)
        best = earned_by_bar(self.best[rows], self.returns[rows], self.cost_bp)
        grown = 1e4 * np.diff(np.log(replay.equity))
        sessions = len(np.unique(self.bars.session[rows]))
        return Learned(
            earned=float(np.mean(grown)),
            oracle=float(np.mean(best)),
            trades_per_session=len(replay.trades) / sessions,
            error=float(np.std(grown - best) / np.sqrt(len(best))),
            earned_error=float(np.std(grown) / np.sqrt(len(grown))),
            momentum=evaluate_positions(
                _by_averages(self.bars.close)[rows], self.returns[rows], self.cost_bp
            ),
        )


def _by_averages(close: np.ndarray) -> np.ndarray:
    """Return the side of the fast average of the close from the slow one, at each close. (T,)"""
    series = pd.Series(close)
    fast, slow = (series.ewm(span=span, adjust=False).mean() for span in (FAST_SPAN, SLOW_SPAN))
    return np.sign((fast - slow).to_numpy())


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
    """Train PPO, as a plan sets it, and let it trade bars of another draw of the same market.

    The weights after the last update are taken, and all 500 sessions are trained on: no window chooses among weights.
    `python -m rl doctor --full` measures the stages as they are used, with windows and that choice.

    Args:
        kind: Name of the market.
        cost_bp: Cost of a unit of turnover, per side.
        steps: Steps of training.
        seed: Decides both draws and the training.
        plan: Where the training's settings come from; the shipped defaults if left out.
        shuffle_features: Train on features in random order, from which nothing can be learned.
        params: Numbers of the market's formula that differ from its defaults.
    """
    plan = plan or Plan()
    known = KnownMarket(kind=kind, cost_bp=cost_bp, params=params)
    bars, table = known.features(known.seen(seed, TRAINING_SESSIONS))
    scaler = FeatureScaler.fit(table.values[table.usable], table.names)
    train = scaled_market(bars, table, table.names, scaler)
    first = int(np.argmax(table.usable))
    if shuffle_features:
        order = generator(seed, "known answer", "shuffled features").permutation(len(train))
        train.features[:] = train.features[order]
    rules = symbol_rules(plan, known.instrument(), bar_volatility(bars, (first, len(train))))
    envs = VectorTradingEnv(
        train,
        [(first, len(train))],
        [rules],
        num_envs=plan.training_params.ppo.num_envs,
        episode_bars=plan.environment.episode_bars,
    )
    settings = plan.training_params.ppo
    spec = {
        "encoder": "mlp",
        "observations": train.feature_count + ACCOUNT_FEATURES,
        "actions": ACTION_COUNTS["target"],
        "hidden": [settings.hidden_dim] * settings.hidden_layers,
    }
    policy = build_policy(spec, seed)
    PPO(policy, envs, ppo_config(plan), seed).train(steps)
    unseen = known.unseen(seed, UNSEEN_SESSIONS)
    market = scaled_market(unseen.bars, unseen.table, table.names, scaler)
    return unseen.compared(replay_policy(market, (unseen.first, len(market)), rules, pack(policy)))
