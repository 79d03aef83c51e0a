"""A small symbol whose edge is known, and policies that take it, leave it or bet against it.

`x_edge` says, at the close of each bar, which way the next bar probably goes. A policy that follows its sign earns, one
that opposes it loses, both by amounts far beyond chance, so that gates can be tested without training anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rl.envs.scaled_market import bar_volatility, scaled_market
from rl.features.pipeline import FeatureTable
from rl.features.scaler import FeatureScaler
from rl.market.bars import Bars
from rl.market.instruments import Commission, FoundInstrument
from rl.market.splits import split_bars
from rl.policies.actor_critic import build_policy
from rl.stages.plan import Plan, load_plan
from rl.stages.stage_model import StageModel
from rl.stages.symbol_data import SymbolData, gate_columns, split_plan, symbol_rules
from rl.trading.kernel import ACCOUNT_FEATURES, ACTION_COUNTS
from tests.builders import an_instrument, bars_from_closes

PLAN_FILE = Path(__file__).resolve().parents[3] / "config" / "training_sequence.yaml"
BARS_PER_SESSION = 25
MOVE = 1e-3
"""Standard deviation of a bar's return."""

SMALL = (
    "training_params.ppo.num_envs=8",
    "training_params.ppo.rollout_steps=8",
    "training_params.ppo.batch_size=64",
    "training_params.ppo.k_epochs=2",
    "training_params.ppo.hidden_dim=8",
    "training_params.moe.expert_hidden_dim=8",
    "training_params.moe.gating_hidden_dim=4",
    "training_params.moe.dense_control=false",
    "training_params.moe.fresh_start_if_collapsed=false",
    "training_params.maml.support_steps=32",
    "training_params.maml.query_steps=32",
    "training_params.maml.inner_loop_steps=2",
    "training_params.maml.inner_step_size=0.1",
    "training_params.maml.evaluation_steps=2",
    "training_params.maml.support_sessions=1",
    "training_params.maml.query_sessions=1",
    "training_sequence.stage_1_ppo.episodes=4",
    "training_sequence.stage_2_moe.episodes=4",
    "training_sequence.stage_3_maml.meta_iterations=1",
    "training_sequence.stage_3_maml.success_criteria.min_adaptation_speed=2",
    "progression_rules.advancement_criteria.stage_1_to_2.min_episodes=0",
    "progression_rules.advancement_criteria.stage_2_to_3.min_episodes=0",
    "progression_rules.fallback_strategies.extend_training=false",
    "progression_rules.fallback_strategies.hyperparameter_tuning=false",
    "model_management.keep_best_models=false",
    "monitoring.checkpoint_frequency=2",
    "environment.episode_bars=32",
    "evidence.min_trades=20",
    "evidence.min_sessions=5",
    "embargo_bars=0",
)
"""The shipped plan, made small enough to run in a test."""


def small_plan(*overrides: str) -> Plan:
    """Return the shipped plan with `SMALL` and these `KEY=VALUE` settings laid over it."""
    return load_plan(PLAN_FILE, overrides=[*SMALL, *overrides])


def edge_bars(symbol: str = "EDGE_15", *, sessions: int = 120, seed: int = 0, hit_rate: float = 0.65) -> Bars:
    """Return bars of which `x_edge` foretells the next one's direction with this chance.

    Every bar opens at the close before, so that what is decided at a close is filled at that very price.
    """
    rng = np.random.default_rng(seed)
    count = sessions * BARS_PER_SESSION
    edge = rng.normal(size=count)
    is_hit = rng.random(count) < hit_rate
    direction = np.where(is_hit, np.sign(edge), -np.sign(edge))
    moves = np.abs(rng.normal(0.0, MOVE, count)) * direction
    closes = 100.0 * np.exp(np.concatenate([[0.0], np.cumsum(moves[:-1])]))
    mood = np.repeat(rng.normal(size=sessions), BARS_PER_SESSION)
    return bars_from_closes(
        closes,
        symbol=symbol,
        bars_per_session=BARS_PER_SESSION,
        extra={"x_edge": edge, "x_regime_mood": mood},
    )


def edge_table(bars: Bars) -> FeatureTable:
    """Return just the two x_ columns as features, defined everywhere."""
    return FeatureTable(
        values=np.column_stack([bars.extra["x_edge"], bars.extra["x_regime_mood"]]).astype(np.float32),
        names=("x_edge", "x_regime_mood"),
        usable=np.ones(len(bars), dtype=bool),
        atr=np.full(len(bars), 100.0 * MOVE),
        regime_names=("x_regime_mood",),
    )


def symbol_of(bars: Bars, plan: Plan, *, table: FeatureTable | None = None, **instrument: Any) -> SymbolData:
    """Return bars split and scaled as `prepare` does it, without files; keyword arguments are an instrument's keys."""
    table = edge_table(bars) if table is None else table
    keys = {"name": "EDGE", "commission": Commission(rate=1e-5), "margin_rate": 0.2, **instrument}
    found = FoundInstrument(an_instrument(**keys), "EDGE (instrument)")
    splits = split_bars(bars, split_plan(plan), 0)
    train = slice(splits.train.start, splits.train.stop)
    scaler = FeatureScaler.fit(table.values[train], table.names)
    return SymbolData(
        symbol=bars.symbol,
        found=found,
        bars=bars,
        table=table,
        feature_names=table.names,
        gate_columns=gate_columns(scaler.feature_of_columns(), table),
        scaler=scaler,
        market=scaled_market(bars, table, table.names, scaler),
        splits=splits,
        embargo_bars=0,
        rules=symbol_rules(plan, found, bar_volatility(bars, (train.start, train.stop))),
        data_hash=f"hash of {bars.symbol}",
        sessions_per_year=252,
        notes=("instrument: EDGE (instrument)",),
    )


def small_symbol(plan: Plan, symbol: str = "EDGE_15", **options: Any) -> SymbolData:
    """Return an edge symbol ready for the stages; options are those of `edge_bars`."""
    return symbol_of(edge_bars(symbol, **options), plan)


def with_bars_changed_from(bars: Bars, row: int, *, until: int | None = None, seed: int = 99) -> Bars:
    """Return the bars with other prices and x_ columns from a row on (to `until`); times and sessions stay."""
    stop = len(bars) if until is None else until
    rng = np.random.default_rng(seed)
    n = stop - row

    def redrawn(column: np.ndarray, values: np.ndarray) -> np.ndarray:
        changed = column.copy()
        changed[row:stop] = values
        return changed

    closes = bars.close[row - 1] * np.exp(np.cumsum(rng.normal(0.0, 5 * MOVE, n)))
    opens = np.concatenate([[bars.close[row - 1]], closes[:-1]])
    return replace(
        bars,
        open=redrawn(bars.open, opens),
        high=redrawn(bars.high, np.maximum(opens, closes) * 1.001),
        low=redrawn(bars.low, np.minimum(opens, closes) * 0.999),
        close=redrawn(bars.close, closes),
        extra={name: redrawn(own, rng.normal(size=n)) for name, own in bars.extra.items()},
    )


def mlp_spec(plan: Plan, hidden: Sequence[int] = (1,)) -> dict[str, Any]:
    """Return the spec of a network for these symbols' two features."""
    return {
        "encoder": "mlp",
        "observations": 2 + ACCOUNT_FEATURES,
        "actions": ACTION_COUNTS[plan.environment.action_scheme],
        "hidden": list(hidden),
    }


def edge_model(plan: Plan, *, follow: float = 1.0, stage: str = "ppo", episodes: int = 4) -> StageModel:
    """Return a hand-made model that goes long where `follow * x_edge` is above zero, else short; 0 stays flat."""
    policy = build_policy(mlp_spec(plan), seed=0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
        policy.actor.weight_0[0, 0] = 1.0
        policy.actor.weight_1[0] = torch.tensor([-follow, 0.0, follow])
        # Flat is the choice only where the network is indifferent between the sides.
        policy.actor.bias_1[:] = torch.tensor([0.0, 1.0 if follow == 0 else -9.0, 0.0])
    return StageModel(
        stage=stage,
        policy_spec=dict(policy.spec),
        weights=policy.flat_parameters().numpy().copy(),
        episodes=episodes,
        metrics={
            "validation_curve": [{"episodes": episodes, "mean_session_return": follow}],
            "best_score": follow,
        },
    )
