"""The single and the vector environment keep Gymnasium's contract and agree with each other bit for bit."""

from __future__ import annotations

import warnings
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from rl.envs.trading_env import TradingEnv
from rl.envs.vector_env import VectorTradingEnv
from rl.trading import kernel
from rl.trading.market_arrays import MarketArrays, joined
from rl.trading.rules import TradingRules

RULES = TradingRules(commission_rate=0.0005, margin_rate=0.5, bar_volatility=0.01)


def random_market(bars: int = 400, seed: int = 1) -> MarketArrays:
    generator = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(generator.normal(0, 0.01, bars)))
    open_ = np.roll(close, 1) * np.exp(generator.normal(0, 0.002, bars))
    spread = np.exp(np.abs(generator.normal(0, 0.004, bars)))
    ohlc = np.column_stack(
        [open_, np.maximum(open_, close) * spread, np.minimum(open_, close) / spread, close]
    )
    return MarketArrays(
        ohlc=ohlc,
        features=generator.normal(size=(bars, 3)).astype(np.float32),
        session=(np.arange(bars) // 25).astype(np.int32),
        session_end=np.arange(bars) % 25 == 24,
        tradable=np.ones(bars, dtype=np.bool_),
        atr=np.full(bars, 1.0),
    )


@pytest.mark.parametrize("scheme", ["target", "orders"])
def test_both_public_checkers_pass_with_warnings_as_errors(scheme):
    env = TradingEnv(random_market(), (0, 400), RULES, episode_bars=50, scheme=scheme)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)
        sb3_check_env(env)


def test_one_seed_gives_one_episode_and_another_seed_another():
    def starts(seed):
        env = TradingEnv(random_market(), (0, 400), RULES, episode_bars=50)
        obs, _ = env.reset(seed=seed)
        return obs

    np.testing.assert_array_equal(starts(3), starts(3))
    assert any((starts(3) != starts(seed)).any() for seed in range(4, 9))


def test_observations_handed_out_are_not_changed_by_the_next_step():
    env = TradingEnv(random_market(), (0, 400), RULES, episode_bars=50)
    obs, _ = env.reset(seed=0)
    kept = obs.copy()
    env.step(2)
    np.testing.assert_array_equal(obs, kept)


def test_an_episode_is_truncated_after_its_bars_and_never_terminated_without_ruin():
    env = TradingEnv(random_market(), (0, 400), RULES, episode_bars=50)
    env.reset(seed=0)
    endings = [env.step(1)[2:4] for _ in range(50)]
    assert endings[:-1] == [(False, False)] * 49
    assert endings[-1] == (False, True)


def test_an_episode_longer_than_its_window_ends_with_the_window():
    env = TradingEnv(random_market(), (100, 120), RULES, episode_bars=1000)
    env.reset(seed=0)
    steps = 0
    truncated = False
    while not truncated:
        _, _, _, truncated, _ = env.step(1)
        steps += 1
    assert steps == 19


@pytest.mark.parametrize("scheme", ["target", "orders"])
@pytest.mark.parametrize("lanes", [1, 3, 17])
def test_every_lane_of_the_vector_environment_equals_the_single_environment_bit_for_bit(scheme, lanes):
    market = random_market()
    rules = replace(
        RULES, stop_loss=1.0, take_profit=2.0, trailing_stop=1.5, slippage_rate=0.0002, square_off=True
    )
    vector = VectorTradingEnv(market, [(0, 400)], [rules], num_envs=lanes, episode_bars=60, scheme=scheme)
    obs, _ = vector.reset(seed=11)
    state = vector.get_state()
    singles = []
    for i in range(lanes):
        single = VectorTradingEnv(market, [(0, 400)], [rules], num_envs=1, episode_bars=60, scheme=scheme)
        single.set_state({name: value[i : i + 1] for name, value in state.items()})
        singles.append(single)
    generator = np.random.default_rng(5)
    for _ in range(150):
        actions = generator.integers(kernel.ACTION_COUNTS[scheme], size=lanes)
        obs, rewards, terminated, truncated, _ = vector.step(actions)
        for i, single in enumerate(singles):
            one = single.step(actions[i : i + 1])
            np.testing.assert_array_equal(one[0][0], obs[i])
            assert (one[1][0], one[2][0], one[3][0]) == (rewards[i], terminated[i], truncated[i])
            np.testing.assert_array_equal(single.accounts()[0], vector.accounts()[i])


def test_lanes_over_several_symbols_start_in_every_window_and_stay_in_it():
    both, offsets = joined([random_market(seed=1), random_market(seed=2)])
    windows = [(10, 200), (int(offsets[1]) + 10, int(offsets[1]) + 200)]
    env = VectorTradingEnv(both, windows, [RULES, RULES], num_envs=64, episode_bars=30)
    env.reset(seed=0)
    seen = set()
    for _ in range(200):
        env.step(np.ones(64, dtype=np.int64))
        lanes = env.get_state()["lanes"]
        for bar, window in lanes[:, [0, 3]]:
            seen.add(int(window))
            assert windows[window][0] <= bar < windows[window][1] - 1 or bar == windows[window][1] - 1
    assert seen == {0, 1}


def test_the_last_observation_of_an_episode_is_reported_beside_the_first_of_the_next():
    env = VectorTradingEnv(random_market(), [(0, 400)], [RULES], num_envs=2, episode_bars=5)
    env.reset(seed=0)
    for _ in range(4):
        env.step(np.array([2, 2]))
    obs, _, _, truncated, infos = env.step(np.array([2, 2]))
    assert truncated.all()
    # The episode ended holding a long; the next one begins flat.
    assert (infos["final_obs"][:, 3] > 0.9).all()
    assert (obs[:, 3] == 0).all()
    assert infos["episode_length"].tolist() == [5, 5]


def test_a_state_taken_and_put_back_goes_on_bit_for_bit():
    def run(env, actions):
        return [env.step(row) for row in actions]

    actions = np.random.default_rng(0).integers(3, size=(120, 4))
    env = VectorTradingEnv(random_market(), [(0, 400)], [RULES], num_envs=4, episode_bars=30)
    env.reset(seed=7)
    run(env, actions[:60])
    state = env.get_state()
    expected = run(env, actions[60:])
    other = VectorTradingEnv(random_market(), [(0, 400)], [RULES], num_envs=4, episode_bars=30)
    other.set_state(state)
    for one, two in zip(expected, run(other, actions[60:]), strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[1], two[1])


def test_gymnasium_can_wrap_the_vector_environment():
    env = VectorTradingEnv(random_market(), [(0, 400)], [RULES], num_envs=4, episode_bars=10)
    wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(env)
    wrapped.reset(seed=0)
    for _ in range(10):
        *_, infos = wrapped.step(np.full(4, 2))
    assert infos["episode"]["l"].tolist() == [10, 10, 10, 10]


def test_an_action_out_of_range_is_refused():
    env = VectorTradingEnv(random_market(), [(0, 400)], [RULES], num_envs=2, episode_bars=10)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="whole numbers from 0 to 2"):
        env.step(np.array([0, 3]))
