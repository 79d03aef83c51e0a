"""One kernel: every way through it leaves the same bits behind, counted over more than 100,000 random steps.

The ways are a vector environment of any number of lanes, a single environment, the rollout collector of training,
and the backtest's two replays, of given actions and of a policy. Compared are observations, action masks, rewards,
positions, fills, costs, equity and the whole account.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields

import gymnasium
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rl.algorithms.rollout import collect
from rl.backtest.engine import Replay, replay_actions, replay_policy
from rl.envs.lanes import BAR, LAST, WINDOW
from rl.envs.trading_env import TradingEnv
from rl.envs.vector_env import VectorTradingEnv
from rl.policies.forward import PackedPolicy, pack
from rl.trading.kernel import (
    BAR_COST,
    BOTH_TOUCHED,
    EQUITY,
    FILL_COUNT,
    FILL_SIZE,
    REASONS,
    REFUSALS,
    UNITS,
)
from rl.trading.ledger import LOG_BAR, LOG_REASON
from rl.trading.market_arrays import MarketArrays, joined
from rl.trading.rules import TradingRules
from tests.properties.random_trading import (
    CAPITAL,
    FIRM,
    SEEDS,
    market,
    markets,
    random_actions,
    random_policy,
    trading_rules,
)

BARS = 160
STEPS_AN_EXAMPLE = 1300
"""Shared out among the lanes, so that few lanes walk far and many lanes walk together."""

# The same examples every time, so that what was counted once is always counted.
COUNTED = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
CALM = st.sampled_from([0.0, 0.8])


@dataclass(frozen=True)
class World:
    """Some symbols, how each is traded, and the lanes that trade them."""

    market: MarketArrays
    windows: list[tuple[int, int]]
    rules: list[TradingRules]
    scheme: str
    lane_count: int
    episode_bars: int

    @property
    def steps(self) -> int:
        return STEPS_AN_EXAMPLE // self.lane_count

    def lanes(self) -> VectorTradingEnv:
        return VectorTradingEnv(
            self.market,
            self.windows,
            self.rules,
            num_envs=self.lane_count,
            episode_bars=self.episode_bars,
            scheme=self.scheme,
            capital=CAPITAL,
        )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Return one to three symbols, each with its own kind of market and rules."""
    symbols = draw(st.integers(1, 3))
    both, offsets = joined([draw(markets(BARS)) for _ in range(symbols)])
    first, cut = draw(st.sampled_from([0, 3, 60])), draw(st.sampled_from([0, 2]))
    return World(
        market=both,
        windows=[(int(offsets[k]) + first, int(offsets[k + 1]) - cut) for k in range(symbols)],
        rules=[draw(trading_rules()) for _ in range(symbols)],
        scheme=draw(st.sampled_from(["target", "orders"])),
        lane_count=draw(st.sampled_from([1, 2, 3, 8, 13, 64])),
        # Shorter than a session, longer than most, and longer than the window: then it is the whole window.
        episode_bars=draw(st.sampled_from([9, 40, 90, 1000])),
    )


class Episode:
    """What one lane did between two resets, noted down step by step."""

    def __init__(self, place: tuple[int, int], lane: np.ndarray, seen: np.ndarray, mask: np.ndarray) -> None:
        self.first_step, self.lane = place
        self.start, self.last, self.window = int(lane[BAR]), int(lane[LAST]), int(lane[WINDOW])
        self.seen = [seen]
        self.masks = [mask]
        self.actions: list[int] = []
        self.rewards: list[float] = []
        self.equity = [CAPITAL]
        self.units = [0.0]
        self.parts: list[np.ndarray] = []
        self.account = np.zeros(0)
        self.was_terminated = self.was_truncated = False

    @property
    def span(self) -> tuple[int, int]:
        """The window a replay of it walks over."""
        return self.start, self.start + len(self.actions) + 1


class Recorder(gymnasium.vector.VectorWrapper):
    """A vector environment that notes down every episode while somebody else steps it."""

    def __init__(self, lanes: VectorTradingEnv) -> None:
        super().__init__(lanes)
        self.lanes = lanes
        self.steps_taken = 0
        self.episodes: list[Episode] = []
        self._running: list[Episode] = []

    def _begin(self, i: int, obs: np.ndarray, infos: dict) -> Episode:
        state = self.lanes.get_state()["lanes"][i]
        self.episodes.append(Episode((self.steps_taken, i), state, obs[i], infos["action_mask"][i]))
        return self.episodes[-1]

    def reset(self, **options):
        obs, infos = self.lanes.reset(**options)
        self._running = [self._begin(i, obs, infos) for i in range(self.lanes.num_envs)]
        return obs, infos

    def step(self, actions):
        obs, rewards, terminated, truncated, infos = self.lanes.step(actions)
        self.steps_taken += 1
        accounts = self.lanes.accounts()
        for i, episode in enumerate(self._running):
            over = bool(terminated[i] or truncated[i])
            episode.account = infos["final_account"][i] if over else accounts[i]
            episode.actions.append(int(actions[i]))
            episode.rewards.append(float(rewards[i]))
            episode.equity.append(float(episode.account[EQUITY]))
            episode.units.append(float(episode.account[UNITS]))
            episode.parts.append(infos["parts"][i])
            episode.seen.append(infos["final_obs"][i] if over else obs[i])
            if over:
                episode.was_terminated, episode.was_truncated = bool(terminated[i]), bool(truncated[i])
                self._running[i] = self._begin(i, obs, infos)
            else:
                episode.masks.append(infos["action_mask"][i])
        return obs, rewards, terminated, truncated, infos

    def walked(self) -> list[Episode]:
        """Return the episodes in which at least one step was taken, also the unfinished ones."""
        return [episode for episode in self.episodes if episode.actions]


def assert_same_bits(found, expected) -> None:
    """Compare every bit: zeros of either sign and nan are told apart as well."""
    found, expected = np.asarray(found), np.asarray(expected)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes(), "equal, but not in every bit"


def assert_backtest_agrees(replay: Replay, episode: Episode) -> None:
    """Compare everything the lane left behind with a replay over the same bars."""
    assert replay.decisions == len(episode.actions), "the replay was ruined elsewhere than the episode"
    assert replay.was_ruined == episode.was_terminated
    parts = np.array(episode.parts)
    assert_same_bits(replay.actions, np.array(episode.actions, dtype=np.int8))
    assert_same_bits(replay.rewards, episode.rewards)
    assert_same_bits(replay.equity, episode.equity)
    assert_same_bits(replay.costs, parts[:, BAR_COST])
    assert_same_bits(replay.account, episode.account)
    # A ruined account stands still without position in a replay; its episode shows what it held when it ended.
    steps = len(episode.actions)
    assert_same_bits(replay.held[: steps + 1], episode.units)
    assert replay.bars_touching_both == parts[:, BOTH_TOUCHED].sum()
    bars = (replay.fill_log[:, LOG_BAR] - episode.start - 1).astype(int)
    assert_same_bits(np.bincount(bars, minlength=steps).astype(float), parts[:, FILL_COUNT])


def assert_single_environment_agrees(episode: Episode, world: World, replay: Replay) -> None:
    """Step a single environment through the episode's actions; its fills are compared with the replay's."""
    env = TradingEnv(
        world.market,
        episode.span,
        world.rules[episode.window],
        episode_bars=len(episode.actions),
        scheme=world.scheme,
        capital=CAPITAL,
    )
    obs, info = env.reset(seed=0)
    fills = []
    for step, action in enumerate(episode.actions):
        assert_same_bits(obs, episode.seen[step])
        assert_same_bits(info["action_mask"], episode.masks[step])
        obs, reward, terminated, truncated, info = env.step(action)
        fills += [fill.copy() for fill in env._lanes._fills[: int(env._lanes._out[FILL_COUNT])]]
        assert_same_bits(
            [reward, info["equity"], info["units"], info["cost"]],
            [
                episode.rewards[step],
                episode.equity[step + 1],
                episode.units[step + 1],
                episode.parts[step][BAR_COST],
            ],
        )
    assert_same_bits(obs, episode.seen[-1])
    assert (terminated, truncated) == (episode.was_terminated, not episode.was_terminated)
    assert_same_bits(np.array(fills).reshape(-1, FILL_SIZE), replay.fill_log[:, 1:])


def replay_of(episode: Episode, world: World, policy: PackedPolicy | None = None) -> Replay:
    """Return the backtest of the episode's own actions, or of a policy left to itself on the same bars."""
    rules, settings_ = world.rules[episode.window], {"scheme": world.scheme, "capital": CAPITAL}
    if policy is not None:
        return replay_policy(world.market, episode.span, rules, policy, **settings_)
    return replay_actions(world.market, episode.span, rules, np.array(episode.actions), **settings_)


COSTS = (
    "commission_per_entry",
    "commission_per_exit",
    "commission_per_unit",
    "commission_rate",
    "slippage_rate",
    "slippage_price",
    "tax_on_sale_rate",
)
EXITS = ("stop_loss", "take_profit", "trailing_stop")


def happened(episode: Episode, replay: Replay, world: World) -> Counter[str]:
    """Return how often each thing occurred that the paths have to agree on."""
    rules = world.rules[episode.window]
    found = Counter(REASONS[int(reason)] for reason in replay.fill_log[:, LOG_REASON])
    sides = np.sign(replay.held)
    found["flip"] = int(np.sum(sides[1:] * sides[:-1] < 0))
    found["stop and target in one bar"] = replay.bars_touching_both
    found["refused order"] = int(replay.account[REFUSALS])
    found["ruin"] = int(replay.was_ruined)
    found["cut off"] = int(episode.was_truncated)
    fills = len(replay.fill_log)
    found["fill with more than one symbol"] = fills * (len(world.windows) > 1)
    found["fill in one lane"] = fills * (world.lane_count == 1)
    found["fill in 64 lanes"] = fills * (world.lane_count == 64)
    found["fill of scheme " + world.scheme] = fills
    found["fill of whole lots"] = fills * (rules.lot_size > 0)
    found["fill of fractions"] = fills * (rules.lot_size == 0)
    found["fill at part of the equity"] = fills * (rules.exposure < 1)
    found["fill beyond the equity"] = fills * (rules.exposure > 1)
    found["fill where shorts are forbidden"] = fills * (not rules.allow_short)
    found["exit in ATR"] = fills * (rules.exits_in_atr and rules.stop_loss > 0)
    found["exit in rates"] = fills * (not rules.exits_in_atr and rules.stop_loss > 0)
    for name in (*COSTS, *EXITS, "square_off", "weight_drawdown", "weight_turnover"):
        assert name in {field.name for field in fields(rules)}
        found["fill under " + name] = fills * (getattr(rules, name) > 0)
    return found


def test_over_100_000_random_steps_lanes_single_environment_and_backtest_leave_the_same_bits():
    """A gate judges by the backtest what was trained in the lanes; if the two differ, it judges another thing."""
    compared: Counter[str] = Counter()

    @settings(COUNTED, max_examples=100)
    @given(worlds(), SEEDS, CALM)
    def paths_agree(world: World, seed: int, calm: float) -> None:
        recorder = Recorder(world.lanes())
        recorder.reset(seed=seed)
        for actions in random_actions(world.scheme, (world.steps, world.lane_count), seed, calm):
            recorder.step(actions)
        walked = recorder.walked()
        assert sum(len(episode.actions) for episode in walked) == world.steps * world.lane_count
        for episode in walked:
            replay = replay_of(episode, world)
            assert_backtest_agrees(replay, episode)
            assert_single_environment_agrees(episode, world, replay)
            compared["step"] += len(episode.actions)
            compared["episode"] += 1
            compared.update(happened(episode, replay, world))

    paths_agree()
    print(f"compared: {dict(sorted(compared.items()))}")
    assert compared["step"] >= 100_000
    assert not [name for name in REASONS if compared[name] == 0]
    assert not [name for name, count in compared.items() if count == 0]


KEPT = ("actions", "rewards", "observations", "action_masks", "terminated", "truncated")
"""What a rollout keeps of each step, for each lane."""


@pytest.mark.parametrize("encoder", ["mlp", "mixture"])
@pytest.mark.parametrize("firmness", [100.0, FIRM], ids=["drawing", "firm"])
def test_over_15_000_steps_the_rollout_collector_and_the_backtest_leave_the_same_bits(encoder, firmness):
    """What the collector hands to training is what the backtest of the same actions, or policy, earns."""
    compared: Counter[str] = Counter()

    @settings(COUNTED, max_examples=15)
    @given(worlds(), SEEDS)
    def paths_agree(world: World, seed: int) -> None:
        policy = random_policy(world.scheme, seed, encoder=encoder, firmness=firmness)
        recorder = Recorder(world.lanes())
        obs, infos = recorder.reset(seed=seed)
        rng, mask, batches = np.random.default_rng(seed), infos["action_mask"], []
        # Two rollouts, the second going on where the first stopped, as in training.
        for steps in (world.steps // 2, world.steps - world.steps // 2):
            batches.append(collect(recorder, policy, obs, steps, rng, action_mask=mask))
            obs, mask = batches[-1].next_observations, batches[-1].next_action_mask
        kept = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in KEPT}
        for episode in recorder.walked():
            steps = len(episode.actions)
            own = (slice(episode.first_step, episode.first_step + steps), episode.lane)
            replay = replay_of(episode, world)
            assert_backtest_agrees(replay, episode)
            assert_same_bits(kept["actions"][own], np.array(episode.actions))
            assert_same_bits(kept["rewards"][own], replay.rewards)
            assert_same_bits(kept["observations"][own], np.array(episode.seen[:-1]))
            assert_same_bits(kept["action_masks"][own], np.array(episode.masks[:steps]))
            assert kept["terminated"][own].tolist() == [False] * (steps - 1) + [replay.was_ruined]
            assert kept["truncated"][own].tolist() == [False] * (steps - 1) + [episode.was_truncated]
            compared["step"] += steps
            compared.update(happened(episode, replay, world))
            if firmness == FIRM:
                # It draws only its highest score, so the backtest, which takes that, has to do the same by itself.
                assert_backtest_agrees(replay_of(episode, world, pack(policy)), episode)

    paths_agree()
    print(f"compared: {dict(sorted(compared.items()))}")
    assert compared["step"] >= 15_000
    assert compared["ruin"] > 0
    assert not [name for name in REASONS if compared[name] == 0]


@pytest.mark.parametrize("encoder", ["mlp", "mixture"])
@pytest.mark.parametrize("scheme", ["target", "orders"])
def test_a_path_longer_than_the_replays_blocks_of_bars_is_the_collectors_too(scheme, encoder):
    """The replay prepares the first layer for 4096 bars at a time; the collector for one."""
    rules = TradingRules(
        commission_rate=1e-5,
        exposure=0.3,
        stop_loss=2.0,
        take_profit=3.0,
        square_off=True,
        bar_volatility=0.001,
    )
    bars = 9000
    world = World(
        market=market(8, bars=bars, move=0.0005, gap=0.0002, reach=0.01, break_off=0.2, undefined=0.02),
        windows=[(0, bars)],
        rules=[rules],
        scheme=scheme,
        lane_count=1,
        episode_bars=bars,
    )
    policy = random_policy(scheme, 4, encoder=encoder, firmness=FIRM)
    recorder = Recorder(world.lanes())
    obs, infos = recorder.reset(seed=1)
    rng = np.random.default_rng(0)
    collect(recorder, policy, obs, bars - 1, rng, action_mask=infos["action_mask"])
    (episode,) = recorder.walked()
    assert len(episode.actions) == bars - 1
    replay = replay_of(episode, world, pack(policy))
    assert_backtest_agrees(replay, episode)
    assert len(replay.trades) > 500


def test_a_difference_in_the_last_bit_is_noticed():
    """What the comparisons above are worth: one unit in the last place, or a zero of the other sign, fails them."""
    with pytest.raises(AssertionError):
        assert_same_bits([1.0, np.nextafter(2.0, 3.0)], [1.0, 2.0])
    with pytest.raises(AssertionError, match="every bit"):
        assert_same_bits([-0.0], [0.0])
