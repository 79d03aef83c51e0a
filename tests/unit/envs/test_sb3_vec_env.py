"""Stable-Baselines3's contract is kept, and what its algorithms do there is what our kernel does."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecCheckNan, VecMonitor

from rl.backtest.engine import replay_actions
from rl.common.errors import MISSING, MissingPackageError, UsageError
from rl.envs.sb3_vec_env import MarketBox, SB3VecEnv, sides_of
from rl.envs.vector_env import VectorTradingEnv
from rl.trading.rules import TradingRules
from tests.unit.envs.test_trading_env import random_market

RULES = TradingRules(commission_rate=0.0005, margin_rate=0.5, bar_volatility=0.01)
SHORT, FLAT, LONG = 0, 1, 2


def lanes(
    count: int = 3, *, episode_bars: int = 20, rules: TradingRules = RULES, **options
) -> VectorTradingEnv:
    return VectorTradingEnv(
        random_market(), [(0, 400)], [rules], num_envs=count, episode_bars=episode_bars, **options
    )


def test_reset_and_step_have_the_shapes_spaces_and_types_of_the_contract():
    env = VecCheckNan(SB3VecEnv(lanes()), raise_exception=True)
    assert env.num_envs == 3
    assert isinstance(env.action_space, gymnasium.spaces.Discrete)
    obs = env.reset()
    assert obs.shape == (3, *env.observation_space.shape)
    obs, rewards, ended, infos = env.step(np.array([SHORT, FLAT, LONG]))
    assert all(env.observation_space.contains(row) for row in obs)
    assert (rewards.shape, ended.shape, ended.dtype) == ((3,), (3,), np.bool_)
    assert infos == [{}, {}, {}]


def test_an_ended_account_tells_how_it_ended_and_shows_the_first_sight_of_its_next_episode():
    env, twin = SB3VecEnv(lanes()), lanes()
    env.seed(5)
    np.testing.assert_array_equal(env.reset(), twin.reset(seed=[5, 6, 7])[0])
    total = np.zeros(3)
    for step in range(20):
        obs, rewards, ended, infos = env.step(np.full(3, LONG))
        next_obs, _, _, _, found = twin.step(np.full(3, LONG))
        total += rewards
        np.testing.assert_array_equal(obs, next_obs)
        assert ended.all() == (step == 19)
    for lane, info in enumerate(infos):
        assert info["TimeLimit.truncated"] is True
        np.testing.assert_array_equal(info["terminal_observation"], found["final_obs"][lane])
        assert not np.array_equal(info["terminal_observation"], obs[lane])
        # A new account holds nothing; the one that ended was long.
        assert obs[lane][-5] == 0.0 < info["terminal_observation"][-5]
        assert info["episode"]["l"] == 20
        assert info["episode"]["r"] == pytest.approx(total[lane])


def test_a_ruined_account_is_terminated_and_not_truncated():
    env = SB3VecEnv(lanes(1, episode_bars=399, rules=replace(RULES, commission_rate=0.2, ruin_level=0.9)))
    env.reset()
    *_, ended, infos = env.step(np.array([LONG]))
    assert ended[0]
    assert infos[0]["TimeLimit.truncated"] is False


def test_a_seed_fixes_every_start_and_is_used_up_by_one_reset():
    one, other = SB3VecEnv(lanes()), SB3VecEnv(lanes())
    one.seed(3)
    other.seed(3)
    first = one.reset()
    np.testing.assert_array_equal(first, other.reset())
    again = one.reset()
    np.testing.assert_array_equal(again, other.reset())
    assert not np.array_equal(first, again)


def test_attributes_are_shared_and_cannot_be_set_for_one_account():
    env = SB3VecEnv(lanes())
    assert env.get_attr("episode_bars", indices=[0, 2]) == [20, 20]
    assert not env.has_attr("no_such_thing")
    assert env.env_is_wrapped(gymnasium.Wrapper) == [False] * 3
    with pytest.raises(UsageError, match="share one environment"):
        env.set_attr("episode_bars", 5)
    with pytest.raises(AttributeError):
        env.env_method("action_masks")


def test_a_continuous_action_names_a_side():
    actions = np.array([[-1.0], [-0.4], [-0.3], [0.0], [0.3], [0.4], [1.0]], dtype=np.float32)
    assert sides_of(actions, continuous=True).tolist() == [SHORT, SHORT, FLAT, FLAT, FLAT, LONG, LONG]
    with pytest.raises(UsageError, match="diverged"):
        sides_of(np.array([[np.nan]]), continuous=True)
    with pytest.raises(UsageError, match="orders"):
        SB3VecEnv(lanes(scheme="orders"), continuous=True)


def test_facts_travel_with_the_observation_space():
    space = SB3VecEnv(lanes(), facts={"symbol": "EDGE_15"}).observation_space
    again = pickle.loads(pickle.dumps(space))
    assert isinstance(again, MarketBox)
    assert again.facts == {"symbol": "EDGE_15"}
    assert again == space


@pytest.mark.parametrize("scheme", ["target", "orders"])
def test_a_rollout_of_stable_baselines_is_the_kernels_replay_of_the_same_actions_bit_for_bit(scheme):
    """One kernel: what an algorithm was rewarded for is what a backtest of its actions pays."""
    env = SB3VecEnv(lanes(1, episode_bars=399, scheme=scheme))
    model = PPO("MlpPolicy", env, n_steps=399, batch_size=57, n_epochs=1, seed=0, device="cpu")
    model.learn(399)
    buffer = model.rollout_buffer
    # The buffer is laid out anew for minibatches: one lane, so in order of time all the same.
    actions = buffer.actions.reshape(-1).astype(np.int8)
    replay = replay_actions(random_market(), (0, 400), RULES, actions, scheme=scheme)
    assert len(replay.trades) > 10
    rewards = buffer.rewards.reshape(-1)
    # Its buffer is float32, and what a truncated episode still has before it is added to its last reward.
    np.testing.assert_array_equal(rewards[:-1], replay.rewards[:-1].astype(np.float32))


def test_ppo_trains_and_its_log_shows_episodes_without_a_monitor():
    env = SB3VecEnv(lanes(4))
    model = PPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu")
    before = model.policy.state_dict()["action_net.weight"].clone()
    model.learn(256)
    assert len(model.ep_info_buffer) >= 8
    assert not np.array_equal(before, model.policy.state_dict()["action_net.weight"])
    mean, _ = evaluate_policy(model, VecMonitor(SB3VecEnv(lanes(2))), n_eval_episodes=2)
    assert np.isfinite(mean)


def test_dqn_stores_the_observation_an_episode_ended_in_and_that_it_was_cut_off():
    env = SB3VecEnv(lanes(2))
    model = DQN("MlpPolicy", env, learning_starts=40, train_freq=4, buffer_size=1000, seed=0, device="cpu")
    before = model.policy.state_dict()["q_net.q_net.0.weight"].clone()
    model.learn(300)
    assert not np.array_equal(before, model.policy.state_dict()["q_net.q_net.0.weight"])
    buffer = model.replay_buffer
    ends = np.flatnonzero(buffer.dones[: buffer.pos].all(axis=1))
    assert ends.tolist() == list(range(19, buffer.pos, 20))
    assert (buffer.timeouts[ends] == 1).all()
    for end in ends[ends + 1 < buffer.pos]:
        assert not np.array_equal(buffer.next_observations[end], buffer.observations[end + 1])


def test_an_algorithm_of_continuous_actions_trains():
    env = SB3VecEnv(lanes(2), continuous=True)
    model = SAC("MlpPolicy", env, learning_starts=20, train_freq=8, batch_size=16, seed=0, device="cpu")
    before = model.policy.state_dict()["actor.mu.weight"].clone()
    model.learn(200)
    assert not np.array_equal(before, model.policy.state_dict()["actor.mu.weight"])


def test_without_stable_baselines_the_command_that_installs_it_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "stable_baselines3"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "rl.envs.sb3_vec_env")
    with pytest.raises(
        MissingPackageError, match=r"pip install -c constraints\.txt stable-baselines3"
    ) as error:
        __import__("rl.envs.sb3_vec_env")
    assert error.value.exit_code == MISSING
