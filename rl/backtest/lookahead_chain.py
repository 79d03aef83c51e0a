"""The steps from a raw file to a trade, each replaceable, so that the look-ahead check can be tried on a faulty one.

The defaults are the functions that training, gates and backtest call; there is no second version of them here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rl.backtest.baselines import buy_and_hold
from rl.backtest.engine import Replay, replay_actions, replay_policy
from rl.checkpoints.checkpoint import Checkpoint
from rl.checkpoints.predictor import Predictor
from rl.common.seeding import generator
from rl.envs.scaled_market import fitted_scaler, scaled_market
from rl.envs.trading_env import TradingEnv
from rl.envs.vector_env import VectorTradingEnv
from rl.features.pipeline import FeatureTable, compute_features
from rl.features.scaler import FeatureScaler
from rl.market.bars import Bars
from rl.market.ingest import bars_of_table
from rl.market.instruments import Instrument
from rl.market.raw_table import RawTable
from rl.market.splits import SplitPlan, split_bars
from rl.policies.forward import PackedPolicy, pack_weights
from rl.policies.spec import parameter_count
from rl.trading.kernel import ACCOUNT_FEATURES, ACTION_COUNTS, EQUITY
from rl.trading.market_arrays import MarketArrays
from rl.trading.metrics import max_drawdown, session_returns
from rl.trading.rules import TradingRules

WEIGHT_SCALE = 2.0
"""The policy without a model has weights this many times the usual size, so that it acts on what it sees."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What acts: a trained model, or a network of random weights where there is none."""

    description: str
    feature_names: tuple[str, ...]
    scheme: str
    rules: TradingRules
    capital: float
    boundaries: Mapping[str, Any] | None
    """Windows the model was trained with, as its file dates them; None divides the data anew."""
    embargo_bars: int | None
    """Embargo those windows were made with; None without a model."""
    scaler: FeatureScaler | None
    """Scaler of the model's file; None fits one."""
    data_hash: str | None
    """Hash of the raw file it was trained on."""
    prepare: Callable[[MarketArrays, int], PackedPolicy]
    """Returns the policy that acts from a bar on."""


def model_of(checkpoint: Checkpoint, rules: TradingRules, *, capital: float, adapts: bool) -> Model:
    """Return a trained model as the backtest uses it.

    Args:
        checkpoint: Its file.
        rules: Costs and limits it is to trade under.
        capital: Starting capital.
        adapts: Whether a stage-3 model is adapted before each span.
    """
    predictor = Predictor(checkpoint)

    def prepare(market: MarketArrays, span_start: int) -> PackedPolicy:
        return predictor.policy_for(
            market, rules, span_start=span_start, capital=capital, adapt_before_use=adapts
        ).packed

    return Model(
        description=f"{checkpoint.stage} model of {checkpoint.symbol}",
        feature_names=tuple(checkpoint.feature_names),
        scheme=checkpoint.action_scheme,
        rules=rules,
        capital=capital,
        boundaries=checkpoint.splits,
        embargo_bars=int(checkpoint.splits.get("embargo_bars", 0)),
        scaler=predictor.scaler,
        data_hash=checkpoint.data_hash,
        prepare=prepare,
    )


def random_model(table: FeatureTable, rules: TradingRules, *, capital: float, seed: int) -> Model:
    """Return a network of random weights: it knows nothing, but what it does depends on all it sees."""

    def prepare(market: MarketArrays, _span_start: int) -> PackedPolicy:
        spec = {
            "encoder": "mlp",
            "observations": market.feature_count + ACCOUNT_FEATURES,
            "actions": ACTION_COUNTS["target"],
            "hidden": [16],
        }
        rng = generator(seed, "look-ahead check", "random policy")
        weights = WEIGHT_SCALE / np.sqrt(market.feature_count) * rng.standard_normal(parameter_count(spec))
        return pack_weights(spec, weights.astype(np.float32))

    return Model(
        description="random weights (no trained model)",
        feature_names=table.names,
        scheme="target",
        rules=rules,
        capital=capital,
        boundaries=None,
        embargo_bars=None,
        scaler=None,
        data_hash=None,
        prepare=prepare,
    )


def ingested(table: RawTable, path: Path, symbol: str, instrument: Instrument) -> Bars:
    """Return the bars of a raw file, every check applied."""
    return bars_of_table(table, path, symbol, instrument).bars


def window_rows(bars: Bars, embargo_bars: int) -> dict[str, np.ndarray]:
    """Return the rows of each window by its name, oldest window first, as the usual shares divide the bars."""
    splits = split_bars(bars, SplitPlan(), embargo_bars)
    return {window.name: np.arange(window.start, window.stop) for window in splits.windows}


def observed(
    market: MarketArrays, window: tuple[int, int], rules: TradingRules, actions: np.ndarray, *, scheme: str
) -> dict[str, np.ndarray]:
    """Walk both environments from the first bar of a window to its last.

    Args:
        market: The symbol.
        window: First row and row after the last; an episode is all of it.
        rules: Costs and limits.
        actions: One row per step, one column per account. (n, N)
        scheme: What the actions mean.

    Returns:
        What N accounts of the vector environment saw, got and were worth, and the same of the single environment with
        the first column's actions: `observations` (k + 1, N, D), `rewards` (k, N), `equity` (k, N), and `single …`
        without the axis N; k below n only where an account was ruined.
    """
    steps, lanes = actions.shape
    many = VectorTradingEnv(
        market, [window], [rules], num_envs=lanes, episode_bars=window[1] - window[0] - 1, scheme=scheme
    )
    one = TradingEnv(market, window, rules, episode_bars=window[1] - window[0] - 1, scheme=scheme)
    seen, rewards, equity = [many.reset(seed=0)[0]], [], []
    single_seen, single_rewards, single_equity = [one.reset(seed=0)[0]], [], []
    for step in range(steps):
        obs, reward, terminated, truncated, infos = many.step(actions[step])
        ended = terminated | truncated
        accounts = many.accounts()
        if ended.any():
            # The lane of an ended episode shows the next one's first bar; what it ended with is kept aside.
            obs = np.where(ended[:, None], infos["final_obs"], obs)
            accounts = np.where(ended[:, None], infos["final_account"], accounts)
        seen.append(obs)
        rewards.append(reward)
        equity.append(accounts[:, EQUITY])
        last, single_reward, _, _, info = one.step(int(actions[step, 0]))
        single_seen.append(last)
        single_rewards.append(single_reward)
        single_equity.append(info["equity"])
        if ended.any():
            break
    return {
        "observations": np.array(seen),
        "rewards": np.array(rewards),
        "equity": np.array(equity),
        "single observations": np.array(single_seen),
        "single rewards": np.array(single_rewards),
        "single equity": np.array(single_equity),
    }


def traded(
    market: MarketArrays,
    window: tuple[int, int],
    rules: TradingRules,
    decisions: PackedPolicy | np.ndarray,
    *,
    scheme: str,
    capital: float,
) -> Replay:
    """Let a policy, or a list of actions, trade a window."""
    if isinstance(decisions, PackedPolicy):
        return replay_policy(market, window, rules, decisions, scheme=scheme, capital=capital)
    return replay_actions(market, window, rules, decisions, scheme=scheme, capital=capital)


def gate_inputs(
    market: MarketArrays, window: tuple[int, int], rules: TradingRules, replay: Replay
) -> dict[str, np.ndarray]:
    """Return what a gate asks about a replay of a window."""
    session = market.session[slice(*window)]
    held = buy_and_hold(market, window, rules, replay.capital)
    return {
        "net result of each trade": replay.trades.net_pnl,
        "session of each trade": replay.trades.session,
        "session returns": session_returns(replay.equity, session, replay.capital),
        "session returns of buy-and-hold": session_returns(held.equity, session, held.capital),
        "drawdown": np.array([max_drawdown(replay.equity)]),
    }


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Each step from file to verdict."""

    read: Callable[[RawTable, Path, str, Instrument], Bars] = ingested
    """Ingest: rows of a raw file to bars, resampled or joined with other series where that is wanted."""
    features: Callable[[Bars, Instrument], FeatureTable] = compute_features
    """Bars to features."""
    split: Callable[[Bars, int], dict[str, np.ndarray]] = window_rows
    """Bars and embargo to windows."""
    fit_scaler: Callable[[FeatureTable, Sequence[str], np.ndarray, str], FeatureScaler] = fitted_scaler
    """Features and training rows to a scaler."""
    scale: Callable[[Bars, FeatureTable, Sequence[str], FeatureScaler], MarketArrays] = scaled_market
    """Bars, features, names and scaler to what environments and replays walk over."""
    observe: Callable[..., dict[str, np.ndarray]] = observed
    """What the environments show and pay."""
    prepare: Callable[[Model, MarketArrays, int], PackedPolicy] = lambda model, market, start: model.prepare(
        market, start
    )
    """Model to the policy that acts from a bar on."""
    trade: Callable[..., Replay] = traded
    """Decisions to fills and equity."""
    judge: Callable[..., dict[str, np.ndarray]] = gate_inputs
    """Replay to what a gate is told."""
