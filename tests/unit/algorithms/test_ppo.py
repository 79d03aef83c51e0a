"""PPO: its loss held to another implementation, its runs repeatable, its failures named."""

from __future__ import annotations

import dataclasses
import itertools
import math

import gymnasium
import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.logger import Logger

from rl.algorithms.ppo import MOST_ROLLED_BACK, PPO, PPOConfig, explained_variance
from rl.algorithms.ppo_loss import TERMS, clipped_loss
from rl.common.errors import CheckpointError, ConfigError, TrainingDivergedError
from rl.policies.actor_critic import ActorCritic, build_policy
from rl.policies.mixture import MixtureRegulariser, warm_start_mixture
from tests.unit.algorithms.small_worlds import CountingLanes, GuessingLanes

MLP = {"encoder": "mlp", "observations": 3, "actions": 3, "hidden": [16, 16]}
MIXTURE = {
    "encoder": "mixture",
    "observations": 3,
    "actions": 3,
    "experts": 4,
    "expert_hidden": [16, 16],
    "gate_hidden": 8,
    "gate_inputs": [0],
    "temperature": 0.8,
    "value_hidden": [16, 16],
}
CONFIG = PPOConfig(learning_rate=5e-3, rollout_steps=16, batch_size=32, epochs=3, gamma=0.9, target_kl=None)
BATCH = 48


def scattered(spec: dict, seed: int = 1) -> ActorCritic:
    policy = build_policy(spec, seed)
    flat = policy.flat_parameters()
    policy.load_flat(flat + 0.3 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(seed)))
    return policy


def made_up_batch(policy: ActorCritic) -> dict[str, np.ndarray]:
    """Return transitions whose ratios lie on both sides of the clip's interval."""
    rng = np.random.default_rng(4)
    seen = rng.normal(size=(BATCH, policy.spec["observations"])).astype(np.float32)
    actions = rng.integers(3, size=BATCH)
    with torch.no_grad():
        log_probs = torch.log_softmax(policy.logits(torch.from_numpy(seen)), -1).numpy()
    old = log_probs[np.arange(BATCH), actions] + rng.normal(0, 0.3, BATCH).astype(np.float32)
    return {
        "observations": seen,
        "actions": actions,
        "log_probs": old,
        "advantages": rng.normal(0.5, 2.0, BATCH),
        "targets": rng.normal(size=BATCH),
    }


def our_terms_and_gradients(policy, batch, config, masks=None):
    """Return the loss terms by name; the gradients are left in the policy."""
    seen = torch.from_numpy(batch["observations"])
    logits, values = policy(seen)
    by_logits = np.empty(logits.shape, dtype=np.float32)
    by_values = np.empty(values.shape, dtype=np.float32)
    terms = clipped_loss(
        logits.detach().numpy(),
        values.detach().numpy(),
        batch["actions"],
        batch["log_probs"],
        batch["advantages"],
        batch["targets"],
        np.ones((1, 3), dtype=bool) if masks is None else masks,
        config.clip_epsilon,
        config.value_coef,
        config.entropy_coef,
        by_logits,
        by_values,
    )
    policy.zero_grad()
    torch.autograd.backward([logits, values], [torch.from_numpy(by_logits), torch.from_numpy(by_values)])
    return dict(zip(TERMS, terms, strict=True))


class Nothing(gymnasium.Env):
    """An environment that is never stepped; the other library wants one to be made."""

    observation_space = gymnasium.spaces.Box(-9, 9, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, dtype=np.float32), {}


def other_terms_and_model(policy, batch, config):
    """Let stable-baselines3 take one gradient, with our weights, on this batch, at step size 0."""
    model = stable_baselines3.PPO(
        "MlpPolicy",
        Nothing(),
        learning_rate=0.0,
        n_steps=BATCH,
        batch_size=BATCH,
        n_epochs=1,
        clip_range=config.clip_epsilon,
        ent_coef=config.entropy_coef,
        vf_coef=config.value_coef,
        max_grad_norm=1e9,
        policy_kwargs={"net_arch": {"pi": [16, 16], "vf": [16, 16]}, "activation_fn": torch.nn.Tanh},
        device="cpu",
    )
    with torch.no_grad():
        for theirs, ours in pairs_of_parameters(model.policy, policy):
            theirs.copy_(ours)
    buffer = model.rollout_buffer
    buffer.reset()
    buffer.observations[:, 0] = batch["observations"]
    buffer.actions[:, 0, 0] = batch["actions"]
    buffer.log_probs[:, 0] = batch["log_probs"]
    buffer.advantages[:, 0] = batch["advantages"]
    buffer.returns[:, 0] = batch["targets"]
    buffer.full = True
    model.set_logger(Logger(folder=None, output_formats=[]))
    model.train()
    return model.logger.name_to_value, model


def pairs_of_parameters(theirs, ours: ActorCritic):
    """Yield (theirs, ours) parameter by parameter; their weights are stored (outputs, inputs)."""
    layers = [
        *zip((theirs.mlp_extractor.policy_net[0], theirs.mlp_extractor.policy_net[2]), (0, 1), strict=True),
        (theirs.action_net, 2),
    ]
    critics = [
        *zip((theirs.mlp_extractor.value_net[0], theirs.mlp_extractor.value_net[2]), (0, 1), strict=True),
        (theirs.value_net, 2),
    ]
    for chosen, network in ((layers, ours.actor), (critics, ours.critic)):
        for layer, number in chosen:
            yield layer.weight, getattr(network, f"weight_{number}").T
            yield layer.bias, getattr(network, f"bias_{number}")


def test_loss_and_gradient_are_those_of_stable_baselines():
    config = PPOConfig(clip_epsilon=0.2, entropy_coef=0.03, value_coef=0.7)
    policy = scattered(MLP)
    batch = made_up_batch(policy)
    ours = our_terms_and_gradients(policy, batch, config)
    theirs, model = other_terms_and_model(policy, batch, config)
    assert 0.1 < ours["clip_fraction"] < 0.9, "both branches of the clip have to be met"
    assert ours["policy_loss"] == pytest.approx(theirs["train/policy_gradient_loss"], abs=1e-6)
    assert ours["value_loss"] == pytest.approx(theirs["train/value_loss"], abs=1e-6)
    assert ours["entropy"] == pytest.approx(-theirs["train/entropy_loss"], abs=1e-6)
    assert ours["approx_kl"] == pytest.approx(theirs["train/approx_kl"], abs=1e-6)
    assert ours["clip_fraction"] == pytest.approx(theirs["train/clip_fraction"], abs=1e-6)
    whole = ours["policy_loss"] + 0.7 * ours["value_loss"] - 0.03 * ours["entropy"]
    assert whole == pytest.approx(theirs["train/loss"], abs=1e-6)
    names = dict(policy.named_parameters())
    largest = 0.0
    for parameter, (their_parameter, _) in zip(
        names.values(), pairs_of_parameters(model.policy, policy), strict=True
    ):
        gradient = their_parameter.grad
        expected = gradient.T if gradient.dim() == 2 else gradient
        torch.testing.assert_close(parameter.grad, expected, atol=1e-6, rtol=0)
        largest = max(largest, float(expected.abs().max()))
    assert largest > 0.05, "gradients of nothing would agree as well"


@pytest.mark.parametrize("spec", [MLP, MIXTURE])
def test_the_gradient_with_masks_is_that_of_autograd(spec):
    config = PPOConfig(clip_epsilon=0.1, entropy_coef=0.05, value_coef=0.3)
    policy = scattered(spec)
    batch = made_up_batch(policy)
    masks = np.random.default_rng(2).random((BATCH, 3)) < 0.6
    masks[np.arange(BATCH), batch["actions"]] = True
    our_terms_and_gradients(policy, batch, config, masks)
    found = [parameter.grad.clone() for parameter in policy.parameters()]

    logits, values = policy(torch.from_numpy(batch["observations"]))
    log_probs = torch.log_softmax(logits.masked_fill(torch.from_numpy(~masks), -1e9), -1)
    chosen = log_probs[torch.arange(BATCH), torch.from_numpy(batch["actions"])]
    advantages = torch.from_numpy(batch["advantages"])
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    ratio = (chosen - torch.from_numpy(batch["log_probs"])).exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(0.9, 1.1) * advantages).mean()
    entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
    error = (values - torch.from_numpy(batch["targets"])).square().mean()
    expected = torch.autograd.grad(-surrogate + 0.3 * error - 0.05 * entropy, list(policy.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other.to(one.dtype), atol=1e-6, rtol=0)


def one_sided(ratio: float, advantage: float) -> float:
    """Return the gradient of the policy loss by the chosen action's logit, clip 0.2, two actions at one half.

    A second row with the opposite advantage and ratio 1 makes the standardised advantages ±1/√2.
    """
    by_logits, by_values = np.empty((2, 2), dtype=np.float32), np.empty(2, dtype=np.float32)
    half = math.log(0.5)
    clipped_loss(
        np.zeros((2, 2), dtype=np.float32),
        np.zeros(2, dtype=np.float32),
        np.array([0, 0]),
        np.array([half - math.log(ratio), half], dtype=np.float32),
        np.array([advantage, -advantage]),
        np.zeros(2),
        np.ones((1, 2), dtype=bool),
        0.2,
        0.0,
        0.0,
        by_logits,
        by_values,
    )
    return float(by_logits[0, 0])


@pytest.mark.parametrize(
    ("ratio", "advantage", "is_held"),
    [(1.3, 1.0, True), (0.7, -1.0, True), (1.3, -1.0, False), (0.7, 1.0, False), (1.1, 1.0, False)],
)
def test_the_clip_holds_a_gain_but_never_stops_it_from_being_undone(ratio, advantage, is_held):
    # -(1/2 rows) * ratio * A * (1 - 1/2), A = ±1/√2
    free = -0.5 * ratio * advantage * math.sqrt(0.5) * 0.5
    assert one_sided(ratio, advantage) == pytest.approx(0.0 if is_held else free, abs=1e-6)


def learner(seed: int = 3, spec: dict = MLP, config: PPOConfig = CONFIG, lanes: int = 4, **settings) -> PPO:
    return PPO(scattered(spec), GuessingLanes(lanes), config, seed, **settings)


def test_training_twice_with_one_seed_gives_equal_weights():
    first, second, other = learner(), learner(), learner(seed=4)
    for one in (first, second, other):
        one.train(512)
    assert torch.equal(first.policy.flat_parameters(), second.policy.flat_parameters())
    assert not torch.equal(first.policy.flat_parameters(), other.policy.flat_parameters())


def test_a_learner_learns_to_name_the_sign():
    lanes, config = 16, dataclasses.replace(CONFIG, learning_rate=1e-2, batch_size=64)
    training = learner(config=config, lanes=lanes)
    result = training.train(256 * 30)
    first, last = result.metrics[0]["episode_return"], result.metrics[-1]["episode_return"]
    # 8 guesses an episode: a third right by chance.
    assert first < 4.5
    assert last > 7.0
    signs = torch.eye(3)
    assert training.policy.logits(signs).argmax(-1).tolist() == [0, 1, 2]


def test_a_mixture_learns_by_the_same_learner_and_reports_its_own_terms():
    config = dataclasses.replace(CONFIG, learning_rate=1e-2, batch_size=64)
    training = learner(spec=MIXTURE, config=config, lanes=16, auxiliary_loss=MixtureRegulariser())
    result = training.train(256 * 20)
    assert result.metrics[-1]["episode_return"] > 6.5
    for name in ("diversity", "balance", "auxiliary_loss"):
        assert math.isfinite(result.metrics[-1][name])


def test_the_auxiliary_loss_reaches_the_weights():
    def trained(weight: float) -> torch.Tensor:
        terms = MixtureRegulariser(diversity_weight=weight, balance_weight=0.0, diversity_cap=0.69)
        training = learner(spec=MIXTURE, auxiliary_loss=terms)
        metrics = training.train(64 * 6).metrics
        return metrics[-1]["diversity"]

    assert trained(1.0) > trained(0.0) + 0.05


def test_a_warm_started_mixture_goes_on_where_the_single_network_stood():
    config = dataclasses.replace(CONFIG, learning_rate=1e-2, batch_size=64)
    first = learner(config=config, lanes=16)
    reached = first.train(256 * 30).metrics[-1]
    mixture = warm_start_mixture(first.policy, MIXTURE, seed=1)
    begun = PPO(mixture, GuessingLanes(16), config, 5).train(256).metrics[0]
    share_before, share_after = (now["episode_return"] / now["episode_length"] for now in (reached, begun))
    assert share_before > 0.9
    assert share_after > 0.85


@pytest.mark.parametrize("spec", [MLP, MIXTURE])
def test_a_resumed_run_ends_with_the_same_bits_as_one_that_was_never_stopped(spec, tmp_path):
    terms = MixtureRegulariser() if spec is MIXTURE else None
    config = dataclasses.replace(CONFIG, schedule="cosine", target_kl=0.02)
    whole = learner(spec=spec, config=config, auxiliary_loss=terms)
    whole.train(64 * 10)
    stopped = learner(spec=spec, config=config, auxiliary_loss=terms)
    result = stopped.train(64 * 10, should_stop=lambda: stopped.updates == 4)
    assert result.was_stopped
    assert result.steps == 64 * 4
    torch.save(stopped.state(), tmp_path / "state")
    resumed = learner(seed=3, spec=spec, config=config, auxiliary_loss=terms)
    resumed.load_state(torch.load(tmp_path / "state", weights_only=True))
    rest = resumed.train(64 * 10)
    assert [metrics["update"] for metrics in rest.metrics] == [5, 6, 7, 8, 9, 10]
    assert torch.equal(resumed.policy.flat_parameters(), whole.policy.flat_parameters())
    assert resumed.episodes == whole.episodes


def test_an_environment_without_a_state_begins_new_episodes_on_resume():
    envs = CountingLanes([3, 50])
    stopped = PPO(scattered(MLP), envs, CONFIG, 3)
    stopped.train(32)
    state = stopped.state()
    assert state["environment"] is None
    envs = CountingLanes([3, 50])
    resumed = PPO(scattered(MLP), envs, CONFIG, 3)
    resumed.load_state(state)
    resumed.train(64)
    assert resumed.updates == 2
    assert envs.clock[1] == 16


def test_a_state_with_another_number_of_lanes_is_refused():
    with pytest.raises(CheckpointError, match="4 lanes, this environment 8"):
        learner(lanes=8).load_state(learner(lanes=4).state())


def test_every_update_reports_what_happened():
    reported = []
    result = learner().train(64 * 3, on_update=reported.append)
    assert reported == result.metrics
    assert [metrics["steps"] for metrics in reported] == [64, 128, 192]
    for name in ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "gradient_norm"):
        assert all(math.isfinite(metrics[name]) for metrics in reported)
    last = reported[-1]
    # 4 lanes, 48 steps, an episode every 8; lanes 1 to 3 began within one.
    assert last["episodes"] == 4 * 6
    assert last["episodes_ended"] == 8
    assert last["episode_length"] == 8
    assert last["epochs_done"] == 3
    assert last["steps_per_second"] > 0
    assert 0 < last["entropy"] <= math.log(3)


def test_the_learning_rate_follows_the_schedule_at_the_middle_of_each_rollout():
    config = dataclasses.replace(CONFIG, learning_rate=0.01, schedule="linear", schedule_final_fraction=0.0)
    rates = [metrics["learning_rate"] for metrics in learner(config=config).train(64 * 4).metrics]
    assert rates == pytest.approx([0.01 * (1 - progress) for progress in (0.125, 0.375, 0.625, 0.875)])


def test_the_first_minibatch_finds_the_policy_that_acted():
    """Its ratio is 1 up to rounding between the compiled and torch's forward pass."""
    config = dataclasses.replace(CONFIG, epochs=1, batch_size=64, rollout_steps=16)
    metrics = learner(config=config).train(64).metrics[0]
    assert abs(metrics["approx_kl"]) < 1e-9
    assert metrics["clip_fraction"] == 0.0
    assert abs(metrics["policy_loss"]) < 1e-5


def test_a_target_kl_ends_the_update_early():
    config = dataclasses.replace(CONFIG, learning_rate=0.05, epochs=50, target_kl=1e-3)
    metrics = learner(config=config).train(64).metrics[0]
    assert metrics["epochs_done"] < 50


@pytest.mark.parametrize("batch_size", [7, 63, 10_000])
def test_minibatches_cover_a_rollout_whatever_their_size(batch_size):
    config = dataclasses.replace(CONFIG, batch_size=batch_size)
    training = learner(config=config)
    training.train(64)
    pieces = math.ceil(64 / batch_size)
    assert training.state()["adam"]["steps"] == 3 * pieces


# --- numbers that are not finite ------------------------------------------------------------------------------------


def test_a_reward_that_is_no_number_rolls_the_update_back_and_training_goes_on():
    envs = CountingLanes([3, 4])
    envs.bad_reward_at = (CONFIG.rollout_steps + 2, 1)
    training = PPO(scattered(MLP), envs, CONFIG, 3)
    weights = []
    found = training.train(
        4 * 32, on_update=lambda _: weights.append(training.policy.flat_parameters().clone())
    )
    assert [figures["rolled_back"] for figures in found.metrics] == [0, 1, 1, 1]
    assert math.isnan(found.metrics[1]["policy_loss"])
    assert torch.equal(weights[0], weights[1]), "not a bit of the update may stay"
    assert not torch.equal(weights[1], weights[2])
    assert (training.steps, training.updates) == (4 * 32, 4)


def test_three_in_a_row_stop_training_with_step_and_tensor_and_the_weights_of_before():
    envs = CountingLanes([3, 4])
    training = PPO(scattered(MLP), envs, CONFIG, 3)
    training.train(32)
    before = training.policy.flat_parameters().clone()
    step = envs.step

    def broken(actions):
        observations, rewards, *rest = step(actions)
        return observations, rewards * np.nan, *rest

    envs.step = broken
    with pytest.raises(TrainingDivergedError, match="step 48, lane 0: rewards holds nan") as stopped:
        training.train(1000)
    assert str(stopped.value).startswith("3 updates in a row were rolled back; the last one:")
    assert torch.equal(training.policy.flat_parameters(), before)
    assert training.rolled_back == MOST_ROLLED_BACK


def test_two_in_a_row_are_forgiven_however_often_and_also_across_a_saved_state():
    envs = CountingLanes([3, 4])
    training = PPO(scattered(MLP), envs, CONFIG, 3)
    for round_ in range(1, 4):
        for bad in (True, True, False):
            envs.bad_reward_at = (envs.taken, 0) if bad else None
            training.train(training.steps + 32)
        assert training.rolled_back == 2 * round_
    envs.bad_reward_at = (envs.taken, 0)
    training.train(training.steps + 32)
    resumed = PPO(scattered(MLP), envs, CONFIG, 3)
    resumed.load_state(training.state())
    assert resumed.rolled_back == 7
    envs.bad_reward_at = (envs.taken, 0)
    resumed.train(resumed.steps + 32)
    envs.bad_reward_at = (envs.taken, 0)
    with pytest.raises(TrainingDivergedError, match="3 updates in a row"):
        resumed.train(resumed.steps + 32)


def test_a_lane_that_shows_no_numbers_until_it_begins_anew_costs_one_update():
    """What is wrong with an account may stay in it; with the lane left as it is, the next two updates would go too."""
    training = learner()
    envs, calls, is_sick = training.envs, itertools.count(), False
    step, reset = envs.step, envs.reset

    def stepped(actions):
        nonlocal is_sick
        observations, *rest = step(actions)
        is_sick = is_sick or next(calls) == CONFIG.rollout_steps + 3
        hit = (np.arange(4)[:, None] == 1) & is_sick
        return np.where(hit, np.nan, observations).astype(np.float32), *rest

    def begun_anew(**options):
        nonlocal is_sick
        is_sick = False
        return reset(**options)

    envs.step, envs.reset = stepped, begun_anew
    found = training.train(4 * 64)
    assert [figures["rolled_back"] for figures in found.metrics] == [0, 1, 1, 1]


def test_weights_that_are_no_numbers_stop_training_and_are_named():
    training = learner()
    training.train(64)
    with torch.no_grad():
        training.policy.critic.bias_2.fill_(torch.nan)
    with pytest.raises(TrainingDivergedError, match="weights are not finite"):
        training.train(1000)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_loss_that_overflows_is_named_with_its_step():
    envs = GuessingLanes(4)
    training = PPO(scattered(MLP), envs, CONFIG, 3)
    step = envs.step

    def paying_too_much(actions):
        observations, rewards, *rest = step(actions)
        return observations, rewards * 1e300, *rest

    envs.step = paying_too_much
    with pytest.raises(
        TrainingDivergedError, match="Update 3, at environment step 192: value_loss is not finite"
    ):
        training.train(1000)


def _in_observation(training: PPO, call: int, bad: float) -> None:
    _on_step(training, call, lambda seen, pays: (np.where(np.arange(4)[:, None] == 1, bad, seen), pays))


def _in_reward(training: PPO, call: int, bad: float) -> None:
    _on_step(training, call, lambda seen, pays: (seen, np.where(np.arange(4) == 2, bad, pays)))


def _in_loss(training: PPO, call: int, bad: float) -> None:
    """A reward that is finite, and whose square, in the critic's loss, is not."""
    del bad
    _on_step(training, call, lambda seen, pays: (seen, pays + 1e300))


def _on_step(training: PPO, call: int, change) -> None:
    step, calls = training.envs.step, itertools.count()

    def stepped(actions):
        observations, rewards, *rest = step(actions)
        if next(calls) == call:
            observations, rewards = change(observations, rewards)
        return np.asarray(observations, dtype=np.float32), rewards, *rest

    training.envs.step = stepped


def _in_logits(training: PPO, call: int, bad: float) -> None:
    logits, calls = training.policy.logits, itertools.count()
    training.policy.logits = lambda seen: logits(seen) * (bad if next(calls) == call % 24 else 1.0)


def _in_gradient(training: PPO, call: int, bad: float) -> None:
    calls = itertools.count()
    next(training.policy.parameters()).register_hook(
        lambda slope: slope * bad if next(calls) == call % 24 else slope
    )


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("inject", [_in_observation, _in_reward, _in_loss, _in_logits, _in_gradient])
def test_one_number_that_is_none_at_a_random_step_costs_one_update_and_never_a_weight(inject, bad):
    """clip_grad_norm_ spreads one nan over all gradients, and one step of Adam makes every weight of it a nan."""
    for call in np.random.default_rng(11).integers(3 * CONFIG.rollout_steps - 1, size=20).tolist():
        training = learner()
        inject(training, call, bad)
        weights = []
        found = training.train(
            4 * 64, on_update=lambda _, of=training, to=weights: to.append(of.policy.flat_parameters())
        )
        counts = [0, *(figures["rolled_back"] for figures in found.metrics)]
        assert counts[-1] == 1, f"injected at call {call}"
        assert all(torch.isfinite(each).all() for each in weights)
        where = counts.index(1) - 1
        start = scattered(MLP).flat_parameters() if where == 0 else weights[where - 1]
        assert torch.equal(weights[where], start)


def test_all_settings_that_make_no_sense_are_named_at_once():
    assert PPOConfig().problems() == []
    wrong = PPOConfig(gamma=1.1, batch_size=1, learning_rate=-1.0, schedule="step", clip_epsilon=math.nan)
    assert len(wrong.problems()) == 5
    with pytest.raises(ConfigError, match="gamma") as caught:
        learner(config=wrong)
    assert "clip_epsilon" in str(caught.value)


def test_a_policy_that_does_not_fit_the_environment_is_refused():
    with pytest.raises(ConfigError, match="flat Box of 5"):
        PPO(build_policy({**MLP, "observations": 5}, 1), GuessingLanes(2), CONFIG, 1)


def test_mixture_terms_on_a_single_network_are_refused():
    with pytest.raises(ConfigError, match="mixture"):
        learner(auxiliary_loss=MixtureRegulariser())


def test_explained_variance_of_a_perfect_a_useless_and_a_wrong_critic():
    targets = np.array([1.0, 2.0, 3.0])
    assert explained_variance(targets, targets) == 1.0
    assert explained_variance(np.full(3, 7.0), targets) == 0.0
    assert explained_variance(-targets, targets) == pytest.approx(1 - 4)
    assert math.isnan(explained_variance(targets, np.ones(3)))
