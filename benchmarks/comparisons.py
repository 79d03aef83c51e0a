"""What is compared with what.

Each function builds its comparisons one after the other, so that memory is freed between them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import gymnasium
import numpy as np
import pandas as pd

from benchmarks.measuring import Comparison, Contender, Work
from benchmarks.peers import is_here, note_on
from benchmarks.sample import (
    CAPITAL,
    EPISODE_BARS,
    PLAIN_RULES,
    RULES,
    SEED,
    market_of,
    network,
    planted,
    sides_by_moving_average,
)
from rl.algorithms.ppo import PPO, PPOConfig
from rl.backtest.engine import replay_actions, replay_policy
from rl.envs.trading_env import TradingEnv
from rl.envs.vector_env import VectorTradingEnv
from rl.features.pipeline import compute_features
from rl.market.ingest import read_raw
from rl.market.instruments import load_instruments
from rl.market.synthetic import write_raw_csv
from rl.policies.forward import pack
from rl.stages.plan import Plan
from rl.trading.market_arrays import MarketArrays

ROOT = Path(__file__).resolve().parents[1]
OURS = "Stagegate"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much work a run does."""

    bars: int = 100_000
    long_history: int = 1_000_000
    histories: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    peer_bars: int = 20_000
    """Bars for peers that take a moment for each."""
    predict_bars: int = 1_000


QUICK = Sizes(
    bars=20_000, long_history=100_000, histories=(10_000, 100_000), peer_bars=5_000, predict_bars=300
)


def lanes_of(market: MarketArrays, count: int) -> VectorTradingEnv:
    """Return `count` accounts anywhere in the market."""
    return VectorTradingEnv(
        market, [(0, len(market))], [PLAIN_RULES], num_envs=count, episode_bars=EPISODE_BARS, capital=CAPITAL
    )


def single_env(market: MarketArrays) -> TradingEnv:
    """Return one account as an ordinary Gymnasium environment."""
    return TradingEnv(market, (0, len(market)), PLAIN_RULES, episode_bars=EPISODE_BARS, capital=CAPITAL)


# ---- stepping ------------------------------------------------------------------------------------


def stepping(sizes: Sizes) -> Iterator[Comparison]:
    """Environments alone, random actions, observations included."""
    market = market_of(sizes.bars)
    contenders = [Contender(f"{OURS}, one environment", _walk(single_env(market)))]
    if is_here("gym_anytrading"):
        from benchmarks.anytrading_peer import environment

        contenders.insert(0, Contender("gym-anytrading, one environment", _walk(environment(market))))
    contenders += [
        Contender(f"{OURS}, {count} lanes", _walk_lanes(lanes_of(market, count)))
        for count in (64, 256, 1024, 4096)
    ]
    yield Comparison(
        title="Environment stepping",
        unit="steps",
        contenders=tuple(contenders),
        notes=(
            "Ours keeps margin, costs, drawdown and five account features; gym-anytrading long or short.",
            *note_on("gym_anytrading"),
        ),
    )


def _walk(env: gymnasium.Env, steps: int = 2_000) -> Work:
    count = int(env.action_space.n)  # ty: ignore[missing-attribute]
    actions = np.random.default_rng(SEED).integers(0, count, steps).tolist()
    env.reset(seed=SEED)

    def walk() -> float:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return steps

    return walk


def _walk_lanes(lanes: VectorTradingEnv, steps: int = 64) -> Work:
    actions = np.random.default_rng(SEED).integers(0, 3, (steps, lanes.num_envs))
    lanes.reset(seed=SEED)

    def walk() -> float:
        for row in actions:
            lanes.step(row)
        return actions.size

    return walk


# ---- training ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shape:
    """How PPO is run: both libraries with the same lanes, minibatches and passes."""

    title: str
    lanes: int
    rollout_steps: int
    batch_size: int
    epochs: int
    shares_lanes: bool = False
    """Whether Stable-Baselines3 is given our vector environment instead of single ones in a row."""


SHAPES = (
    _Shape("PPO, 1 lane x 2048, minibatch 64, 10 passes (SB3's defaults)", 1, 2048, 64, 10),
    _Shape("PPO, 8 lanes x 2048, minibatch 64, 10 passes", 8, 2048, 64, 10),
    _Shape("PPO, 256 lanes x 64, minibatch 512, 10 passes", 256, 64, 512, 10, shares_lanes=True),
    _Shape("PPO, 1024 lanes x 32, minibatch 4096, 4 passes", 1024, 32, 4096, 4, shares_lanes=True),
)


def _as_shipped(market: MarketArrays) -> Comparison:
    """Return PPO end to end as each library runs it if nothing is said: the wait a user has."""
    params = Plan().training_params.ppo
    ours = _Shape("", params.num_envs, params.rollout_steps, params.batch_size, params.k_epochs)
    contenders = [Contender(f"{OURS}, its plan", _our_update(market, ours))]
    if is_here("stable_baselines3"):
        from benchmarks import sb3_peer

        single = sb3_peer.several([lambda: single_env(market)])
        contenders.insert(
            0, Contender("Stable-Baselines3 on our environment", _sb3_update(single, SHAPES[0]))
        )
        if is_here("gym_anytrading"):
            from benchmarks.anytrading_peer import environment

            theirs = sb3_peer.several([lambda: environment(market)])
            contenders.insert(
                0, Contender("Stable-Baselines3 on gym-anytrading", _sb3_update(theirs, SHAPES[0]))
            )
    return Comparison(
        title="PPO end to end with the settings each ships with",
        unit="steps",
        contenders=tuple(contenders),
        notes=(
            "Stable-Baselines3: 1 lane x 2048, minibatch 64, 10 passes. Ours: "
            f"{ours.lanes} lanes x {ours.rollout_steps}, minibatch {ours.batch_size}, {ours.epochs} passes. "
            "Networks of the same size; more lanes, larger minibatches and fewer passes are part of the difference.",
            *note_on("stable_baselines3", "gym_anytrading"),
        ),
    )


def training(sizes: Sizes) -> Iterator[Comparison]:
    """PPO from rollout to update, learning included."""
    market = market_of(sizes.bars)
    yield _as_shipped(market)
    for shape in SHAPES:
        notes = ["Both learn on the same environment with networks of the same size."]
        contenders = [Contender(OURS, _our_update(market, shape))]
        if is_here("stable_baselines3"):
            from benchmarks import sb3_peer

            if shape.shares_lanes:
                envs = sb3_peer.lanes_for_sb3(lanes_of(market, shape.lanes))
                notes.append("Stable-Baselines3 is given our vector environment; its own would be slower.")
            else:
                envs = sb3_peer.several([lambda: single_env(market)] * shape.lanes)
            contenders.insert(0, Contender("Stable-Baselines3", _sb3_update(envs, shape)))
            if shape is SHAPES[0] and is_here("gym_anytrading"):
                from benchmarks.anytrading_peer import environment

                theirs = sb3_peer.several([lambda: environment(market)])
                contenders.insert(
                    1, Contender("Stable-Baselines3 on gym-anytrading", _sb3_update(theirs, shape))
                )
        notes += note_on("stable_baselines3")
        yield Comparison(title=shape.title, unit="steps", contenders=tuple(contenders), notes=tuple(notes))


def _our_update(market: MarketArrays, shape: _Shape) -> Work:
    # Rates, weights and limits are those Stable-Baselines3 has by default; they do not change the speed.
    config = PPOConfig(
        learning_rate=3e-4,
        rollout_steps=shape.rollout_steps,
        batch_size=shape.batch_size,
        epochs=shape.epochs,
        gamma=0.99,
        clip_epsilon=0.2,
        entropy_coef=0.0,
    )
    learner = PPO(network(), lanes_of(market, shape.lanes), config, SEED)

    def one_update() -> float:
        steps = shape.lanes * shape.rollout_steps
        learner.train(learner.steps + steps)
        return steps

    return one_update


def _sb3_update(envs: object, shape: _Shape) -> Work:
    from benchmarks.sb3_peer import VecEnv, learning

    assert isinstance(envs, VecEnv)
    return learning(envs, rollout_steps=shape.rollout_steps, batch_size=shape.batch_size, epochs=shape.epochs)


# ---- backtests -----------------------------------------------------------------------------------


def backtests(sizes: Sizes) -> Iterator[Comparison]:
    """A policy and a list of positions replayed over history."""
    yield _policy_backtest(sizes)
    yield _signal_backtest(sizes)


def _policy_backtest(sizes: Sizes) -> Comparison:
    market = market_of(sizes.bars)
    packed = pack(network())
    window = (0, len(market))

    def replay() -> float:
        return len(replay_policy(market, window, PLAIN_RULES, packed, capital=CAPITAL).actions)

    contenders = [Contender(f"{OURS}, one compiled scan", replay)]
    if is_here("stable_baselines3"):
        from benchmarks.sb3_peer import acting_bar_by_bar

        walk = acting_bar_by_bar(single_env(market), sizes.predict_bars)
        contenders.insert(0, Contender("Stable-Baselines3, predict bar by bar", walk))
    return Comparison(
        title="Backtest of a 64-64 network that sees its own account",
        unit="bars",
        contenders=tuple(contenders),
        notes=("Ours includes the list of trades and the equity curve.", *note_on("stable_baselines3")),
    )


def _signal_backtest(sizes: Sizes) -> Comparison:
    long_market = market_of(sizes.long_history)
    short_market = market_of(sizes.peer_bars)
    contenders: list[Contender] = []
    trades: list[str] = []

    def add(
        name: str, market: MarketArrays, follow: Callable[[MarketArrays, np.ndarray], tuple[Work, int]]
    ) -> None:
        work, count = follow(market, sides_by_moving_average(market.ohlc[:, 3]))
        contenders.append(Contender(name, work))
        trades.append(f"{1000 * count / len(market):.0f} ({name})")

    if is_here("backtesting"):
        from benchmarks import backtesting_peer

        add("backtesting.py, statistics included", short_market, backtesting_peer.following)
    if is_here("vectorbt"):
        from benchmarks import vectorbt_peer

        add("vectorbt", long_market, vectorbt_peer.following)
    add(OURS, long_market, _following)
    return Comparison(
        title="Backtest of a 5/20 moving average with stop and target",
        unit="bars",
        contenders=tuple(contenders),
        notes=(
            "Fill rules differ in details, so trade lists do too. Trades per 1000 bars: "
            + ", ".join(trades)
            + ".",
            *note_on("backtesting", "vectorbt"),
        ),
    )


def _following(market: MarketArrays, sides: np.ndarray) -> tuple[Work, int]:
    actions = sides[:-1] + 1
    window = (0, len(market))

    def run() -> float:
        replay_actions(market, window, RULES, actions, capital=CAPITAL)
        return len(market)

    return run, len(replay_actions(market, window, RULES, actions, capital=CAPITAL).trades)


# ---- growth, data, start -------------------------------------------------------------------------


def growth(sizes: Sizes) -> Iterator[Comparison]:
    """The same work on longer histories: the rate should hardly fall."""
    markets = {bars: market_of(bars) for bars in sizes.histories}
    yield Comparison(
        title="Stepping 256 lanes on histories of growing length",
        unit="steps",
        contenders=tuple(
            Contender(f"{bars:,} bars", _walk_lanes(lanes_of(market, 256)))
            for bars, market in markets.items()
        ),
    )
    shape = SHAPES[2]
    yield Comparison(
        title="PPO on histories of growing length",
        unit="steps",
        contenders=tuple(
            Contender(f"{bars:,} bars", _our_update(market, shape)) for bars, market in markets.items()
        ),
    )


def processing(sizes: Sizes) -> Iterator[Comparison]:
    """From a raw file to features."""
    symbol = "SYN_planted_2"
    instrument = load_instruments().find(symbol).instrument
    market = planted(sizes.bars)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{symbol}.csv"
        write_raw_csv(market, path)
        bars = read_raw(path, symbol, instrument).bars

        def read_by_pandas() -> float:
            return len(pd.read_csv(path))

        def read() -> float:
            return len(read_raw(path, symbol, instrument).bars)

        def features() -> float:
            return len(compute_features(bars, instrument))

        yield Comparison(
            title="Processing a raw file",
            unit="bars",
            contenders=(
                Contender("pandas.read_csv alone", read_by_pandas),
                Contender(f"{OURS}, read and checked", read),
                Contender(f"{OURS}, all features", features),
            ),
        )


def start(_sizes: Sizes) -> Iterator[Comparison]:
    """How long a user waits for nothing: processes started per second of processor time."""
    python = [sys.executable]
    commands = {
        "bare Python": [*python, "-c", "pass"],
        "run_training.py --help": [*python, str(ROOT / "run_training.py"), "--help"],
        "run_backtest.py --help": [*python, str(ROOT / "run_backtest.py"), "--help"],
        "importing torch": [*python, "-c", "import torch"],
    }
    yield Comparison(
        title="Starting",
        unit="starts",
        contenders=tuple(Contender(name, _started(command)) for name, command in commands.items()),
        notes=("A command that imported torch for its --help would be as slow as the last row.",),
    )


def _started(command: list[str]) -> Work:
    def once() -> float:
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        return 1

    return once


BENCHMARKS: Mapping[str, Callable[[Sizes], Iterator[Comparison]]] = MappingProxyType(
    {
        "stepping": stepping,
        "training": training,
        "backtests": backtests,
        "growth": growth,
        "processing": processing,
        "start": start,
    }
)
