"""Stages 1 and 2: trained on the training window, chosen on the validation window, and on nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rl.algorithms.ppo import PPO
from rl.common.errors import ConfigError, TrainingDivergedError
from rl.stages.evaluation import packed, replay_on, returns_by_session
from rl.stages.policy_training import PolicyTraining, ppo_config, training_env
from rl.stages.ppo_stage import ppo_training
from rl.stages.stage_model import StageModel
from rl.stages.symbol_data import SymbolData
from tests.unit.stages.small_symbol import edge_bars, small_plan, symbol_of, with_bars_changed_from

PLAN = small_plan()
SEED = 5


def silent(_: dict) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return symbol_of(edge_bars(sessions=80), PLAN)


@pytest.fixture(scope="module")
def model(data) -> StageModel:
    return ppo_training(data, PLAN, seed=SEED).train(6, silent)


def validation_score(data: SymbolData, model: StageModel) -> float:
    replay = replay_on(
        data, packed(model), "validation", scheme="target", capital=PLAN.environment.initial_capital
    )
    return float(np.mean(returns_by_session(data, replay, "validation")))


def test_the_model_is_the_checkpoint_that_did_best_on_validation(data, model):
    curve = model.metrics["validation_curve"]
    assert [point["episodes"] for point in curve] == [0, 2, 4, 6]
    trained = {point["episodes"]: point["mean_session_return"] for point in curve if point["episodes"] > 0}
    best = max(trained, key=trained.get)
    assert model.metrics["best_episodes"] == best
    assert validation_score(data, model) == trained[best] == model.metrics["best_score"]
    assert model.metrics["validation_looks"] == 4


def test_the_untrained_start_is_never_the_model_however_well_it_did(data):
    """A stage that hands on what it was given has trained nothing, and its gate would judge another's work."""
    training = ppo_training(data, PLAN, seed=SEED)
    untrained = training._policy.flat_parameters().numpy().copy()
    for episodes in (1, 1):
        model = training.train(episodes, silent)
        assert (model.weights != untrained).any()
        assert model.metrics["best_episodes"] > 0


def test_episodes_are_counted_over_extensions(data):
    training = ppo_training(data, PLAN, seed=SEED)
    assert training.train(2, silent).episodes == 2
    extended = training.train(3, silent)
    assert extended.episodes == 5
    assert [point["episodes"] for point in extended.metrics["validation_curve"]] == [0, 2, 4, 5]


def test_updates_that_were_rolled_back_are_counted_over_extensions_and_a_resumed_half(data, monkeypatch):
    whole, calls = PPO._whole_update, iter([True, False, False, True, True])

    def sometimes(self: PPO, total_steps: int) -> dict[str, float]:
        if next(calls, False):
            raise TrainingDivergedError("a reward is not finite")
        return whole(self, total_steps)

    monkeypatch.setattr(PPO, "_whole_update", sometimes)
    training = ppo_training(data, PLAN, seed=SEED)
    # 64 transitions an update, 32 an episode: three updates a call.
    assert training.train(6, silent).metrics["rolled_back"] == 1
    states: list[dict[str, Any]] = []
    assert training.train(6, silent, keep=lambda state: states.append(state)).metrics["rolled_back"] == 3
    resumed = ppo_training(data, PLAN, seed=SEED)
    resumed.load_state(states[0])
    assert resumed.train(6, silent).metrics["rolled_back"] == 2
    assert ppo_training(data, PLAN, seed=SEED).train(2, silent).metrics["rolled_back"] == 0


def test_a_model_handed_out_does_not_change_when_training_goes_on(data):
    """Attempts at a gate are compared by what each knew of itself; a shared record makes them all look the same."""
    training = ppo_training(data, PLAN, seed=SEED)
    first = training.train(2, silent)
    assert [point["episodes"] for point in first.metrics["validation_curve"]] == [0, 2]
    training.train(2, silent)
    assert [point["episodes"] for point in first.metrics["validation_curve"]] == [0, 2]


def test_an_extension_goes_on_from_the_latest_weights_not_from_the_best_ones(data):
    training = ppo_training(data, PLAN, seed=SEED)
    training.train(4, silent)
    latest = training._policy.flat_parameters().numpy().copy()
    training.model()
    np.testing.assert_array_equal(training._policy.flat_parameters().numpy(), latest)


def test_training_twice_with_one_seed_gives_equal_weights_and_another_seed_does_not(data, model):
    again = ppo_training(data, PLAN, seed=SEED).train(6, silent)
    np.testing.assert_array_equal(again.weights, model.weights)
    assert again.fingerprint() == model.fingerprint()
    other = ppo_training(data, PLAN, seed=SEED + 1).train(6, silent)
    assert other.fingerprint() != model.fingerprint()


def test_bars_after_validation_change_no_bit_of_the_model(data, model):
    """Promotion and test windows are for judging; a stage that reads them has judged itself."""
    changed = with_bars_changed_from(data.bars, data.splits.promotion.start)
    other = ppo_training(symbol_of(changed, PLAN), PLAN, seed=SEED).train(6, silent)
    assert other.fingerprint() == model.fingerprint()
    assert other.metrics["validation_curve"] == model.metrics["validation_curve"]


def test_validation_bars_choose_among_checkpoints_and_change_no_gradient(data):
    validation = data.splits.validation
    changed = with_bars_changed_from(data.bars, validation.start, until=validation.stop)
    one, two = (ppo_training(each, PLAN, seed=SEED) for each in (data, symbol_of(changed, PLAN)))
    curves = [training.train(4, silent).metrics["validation_curve"] for training in (one, two)]
    assert curves[0] != curves[1]
    np.testing.assert_array_equal(
        one._policy.flat_parameters().numpy(), two._policy.flat_parameters().numpy()
    )


def test_training_bars_do_change_the_model(data, model):
    changed = with_bars_changed_from(data.bars, 300, until=900)
    other = ppo_training(symbol_of(changed, PLAN), PLAN, seed=SEED).train(6, silent)
    assert other.fingerprint() != model.fingerprint()


def test_the_lanes_trade_the_training_window_and_nothing_but_it(data):
    env = training_env(data, PLAN)
    start, stop = data.window("train")
    assert env._windows.tolist() == [[start, stop - 1]]
    env.reset(seed=0)
    for _ in range(80):
        env.step(np.ones(env.num_envs, dtype=np.int64))
        bars = env.get_state()["lanes"][:, 0]
        assert ((start <= bars) & (bars < stop)).all()


def test_progress_is_told_after_every_update(data):
    heard = []
    training = ppo_training(data, PLAN, seed=SEED)
    training.train(2, silent)
    training.train(4, heard.append)
    assert [figures["episodes_this_call"] for figures in heard] == sorted(
        figures["episodes_this_call"] for figures in heard
    )
    assert heard[-1]["episodes_this_call"] == 4
    assert heard[-1]["episodes"] == 6
    assert heard[-1]["validation"]["episodes"] == 6


def test_the_plans_settings_reach_ppo():
    plan = small_plan(
        "training_params.ppo.learning_rate=0.002",
        "training_params.ppo.gamma=0.9",
        "training_params.ppo.target_kl=0.03",
        "training_params.ppo.learning_rate_schedule=cosine",
    )
    config = ppo_config(plan)
    assert (config.learning_rate, config.gamma, config.target_kl) == (0.002, 0.9, 0.03)
    assert (config.schedule, config.epochs, config.batch_size, config.rollout_steps) == ("cosine", 2, 64, 8)


def test_settings_that_ppo_refuses_are_an_error_of_the_plan():
    params = PLAN.training_params
    broken = PLAN.model_copy(
        update={
            "training_params": params.model_copy(update={"ppo": params.ppo.model_copy(update={"gamma": 2.0})})
        }
    )
    with pytest.raises(ConfigError, match=r"training_params\.ppo:\n  gamma"):
        ppo_config(broken)


def test_the_network_is_the_one_the_plan_asks_for(data):
    plan = small_plan("training_params.ppo.hidden_dim=5", "training_params.ppo.hidden_layers=3")
    training = ppo_training(data, plan, seed=0)
    assert isinstance(training, PolicyTraining)
    assert training._policy.spec["hidden"] == [5, 5, 5]
    # Two features and the five numbers of the account; short, flat, long.
    assert (training._policy.spec["observations"], training._policy.spec["actions"]) == (7, 3)


def test_the_orders_scheme_has_its_own_five_actions(data):
    plan = small_plan("environment.action_scheme=orders")
    model = ppo_training(data, plan, seed=0).train(1, silent)
    assert model.policy_spec["actions"] == 5
