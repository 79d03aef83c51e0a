"""What is kept of acting, above all where episodes end."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rl.algorithms.rollout import LaneTotals, collect, env_problems, final_observations
from rl.common.errors import ConfigError, TrainingDivergedError
from rl.policies.actor_critic import ActorCritic, build_policy
from tests.unit.algorithms.small_worlds import CountingLanes

STEPS = 7


def policy_for_three_numbers() -> ActorCritic:
    policy = build_policy({"encoder": "mlp", "observations": 3, "actions": 3, "hidden": [8]}, 1)
    flat = policy.flat_parameters()
    policy.load_flat(flat + 0.5 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(1)))
    return policy


def value_of(policy: ActorCritic, clock: int, lane: int) -> float:
    with torch.no_grad():
        return float(policy.values(torch.tensor([[clock, lane, 1.0]])))


def collected(envs, policy, steps=STEPS, seed=0, **settings):
    observations, infos = envs.reset()
    settings = {"action_mask": infos.get("action_mask")} | settings
    return collect(envs, policy, observations, steps, np.random.default_rng(seed), **settings)


def test_observations_rewards_and_endings_stand_where_they_happened():
    batch = collected(CountingLanes([3, 4]), policy_for_three_numbers())
    assert batch.observations[:, 0, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert batch.observations[:, 1, 0].tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert batch.rewards[:, 1].tolist() == [10, 11, 12, 13, 10, 11, 12]
    assert np.flatnonzero(batch.terminated[:, 0]).tolist() == [2, 5]
    assert np.flatnonzero(batch.truncated[:, 1]).tolist() == [3]
    assert not batch.truncated[:, 0].any()
    assert batch.next_observations[:, 0].tolist() == [1, 3]


def test_the_next_value_is_that_of_the_state_reached():
    policy = policy_for_three_numbers()
    batch = collected(CountingLanes([3, 4]), policy)
    assert batch.next_values[0, 0] == batch.values[1, 0] == pytest.approx(value_of(policy, 1, 0), abs=1e-6)
    # The last step of the batch ends no episode: the state it reached was never acted in.
    assert batch.next_values[6, 0] == pytest.approx(value_of(policy, 1, 0), abs=1e-6)
    assert batch.next_values[6, 1] == pytest.approx(value_of(policy, 3, 1), abs=1e-6)


def test_an_episode_cut_off_keeps_the_value_of_its_own_last_state():
    policy = policy_for_three_numbers()
    batch = collected(CountingLanes([3, 4]), policy)
    assert batch.next_values[3, 1] == pytest.approx(value_of(policy, 4, 1), abs=1e-6)
    assert abs(value_of(policy, 4, 1) - value_of(policy, 0, 1)) > 0.01, "else the test could not fail"


def test_a_terminated_episode_has_no_next_value():
    batch = collected(CountingLanes([3, 4]), policy_for_three_numbers())
    assert batch.next_values[[2, 5], 0].tolist() == [0.0, 0.0]


class OneCounter(gymnasium.Env):
    """One lane of CountingLanes that is truncated after 4 steps, for Gymnasium's own vectors."""

    observation_space = gymnasium.spaces.Box(-100, 100, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, length: int) -> None:
        self.length = length
        self.clock = 0

    def reset(self, *, seed=None, options=None):
        self.clock = 0
        return np.array([0, 1, 1], dtype=np.float32), {}

    def step(self, action):
        self.clock += 1
        return np.array([self.clock, 1, 1], dtype=np.float32), 1.0, False, self.clock == self.length, {}


def test_gymnasiums_own_vectors_give_last_observations_as_objects():
    policy = policy_for_three_numbers()
    envs = SyncVectorEnv(
        [lambda: OneCounter(4), lambda: OneCounter(6)], autoreset_mode=AutoresetMode.SAME_STEP
    )
    batch = collected(envs, policy)
    assert batch.next_values[3, 0] == pytest.approx(value_of(policy, 4, 1), abs=1e-6)
    assert batch.next_values[5, 1] == pytest.approx(value_of(policy, 6, 1), abs=1e-6)


def test_last_observations_are_read_from_arrays_and_from_objects():
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    objects = np.array([None, rows[1]], dtype=object)
    mask = np.array([False, True])
    for given in (rows, objects):
        found = final_observations({"final_obs": given, "_final_obs": mask}, np.array([1]))
        np.testing.assert_array_equal(found, rows[1:])


def test_an_environment_that_hides_the_last_observation_is_refused():
    with pytest.raises(ConfigError, match="final_obs"):
        collected(CountingLanes([3, 4], gives_final_obs=False), policy_for_three_numbers())


def test_kept_log_probabilities_are_those_of_the_policy_that_acted():
    policy = policy_for_three_numbers()
    batch = collected(CountingLanes([3, 4, 5]), policy, steps=30)
    with torch.no_grad():
        log_probs = torch.log_softmax(policy.logits(torch.from_numpy(batch.observations.reshape(-1, 3))), -1)
    expected = log_probs.numpy()[np.arange(90), batch.actions.reshape(-1)]
    np.testing.assert_allclose(batch.log_probs.reshape(-1), expected, atol=1e-5)
    assert set(np.unique(batch.actions)) == {0, 1, 2}


def test_forbidden_actions_are_not_taken_and_the_masks_are_kept():
    batch = collected(CountingLanes([3, 4], masks=True), policy_for_three_numbers(), steps=50)
    assert batch.action_masks.shape == (50, 2, 3)
    assert not (batch.actions[:, 0] == 0).any()
    assert (batch.actions[:, 1] == 0).any()
    assert batch.next_action_mask.tolist() == [[False, True, True], [True, True, True]]


def test_without_masks_none_are_kept():
    assert collected(CountingLanes([3, 4]), policy_for_three_numbers()).action_masks is None


def test_returns_and_lengths_of_episodes_are_counted_across_batches():
    envs, policy, totals = CountingLanes([3, 4]), policy_for_three_numbers(), LaneTotals.empty(2)
    first = collected(envs, policy, steps=2, totals=totals)
    assert first.episode_returns.tolist() == []
    rng = np.random.default_rng(0)
    second = collect(envs, policy, first.next_observations, 2, rng, totals=totals)
    # Lane 0: 0 + 1 + 2. Lane 1: 10 + 11 + 12 + 13.
    assert second.episode_returns.tolist() == [3.0, 46.0]
    assert second.episode_lengths.tolist() == [3, 4]


def test_two_short_rollouts_are_one_long_one():
    policy = policy_for_three_numbers()
    whole = collected(CountingLanes([3, 4]), policy, steps=10)
    envs, rng = CountingLanes([3, 4]), np.random.default_rng(0)
    first = collect(envs, policy, envs.reset()[0], 4, rng)
    second = collect(envs, policy, first.next_observations, 6, rng)
    np.testing.assert_array_equal(np.concatenate([first.actions, second.actions]), whole.actions)
    np.testing.assert_array_equal(np.concatenate([first.next_values, second.next_values]), whole.next_values)


def test_a_reward_that_is_no_number_stops_the_rollout_and_is_named():
    envs = CountingLanes([3, 4])
    envs.bad_reward_at = (5, 1)
    with pytest.raises(TrainingDivergedError, match=r"step 105, lane 1: rewards holds nan"):
        collected(envs, policy_for_three_numbers(), first_step=100)


def test_a_policy_that_is_no_longer_finite_stops_the_rollout_and_is_named():
    policy = policy_for_three_numbers()
    policy.load_flat(policy.flat_parameters() * torch.nan)
    with pytest.raises(TrainingDivergedError, match="weights are not finite"):
        collected(CountingLanes([3, 4]), policy)


def test_a_lane_that_allows_nothing_is_an_error():
    with pytest.raises(ConfigError, match=r"lane 1: .*allows no action"):
        mask = np.array([[True] * 3, [False] * 3])
        collected(CountingLanes([3, 4]), policy_for_three_numbers(), action_mask=mask)


def test_environments_that_do_not_fit_are_named():
    envs = CountingLanes([3, 4])
    assert env_problems(envs, 3, 3) == []
    assert len(env_problems(envs, 4, 5)) == 2
    envs.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    assert "SAME_STEP" in env_problems(envs, 3, 3)[0]
