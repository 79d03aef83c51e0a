"""Which state of a meta-training is the stage's model: the one that adapts best on tasks it did not learn from."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from rl.algorithms.adaptation import adapt
from rl.checkpoints.adaptation import flat_weights
from rl.checkpoints.predictor import META_WEIGHTS, STEP_SIZE_PREFIX
from rl.checkpoints.state_files import StateFiles
from rl.common.seeding import generator
from rl.stages.maml_stage import MetaTraining
from rl.stages.meta_selection import LOOK_TASKS, MetaSelection, iterations_between_looks, spread_evenly
from rl.stages.symbol_data import SymbolData
from tests.unit.stages.small_symbol import (
    edge_bars,
    edge_model,
    small_plan,
    symbol_of,
    with_bars_changed_from,
)

PLAN = small_plan(
    "training_params.maml.query_sessions=4",
    "training_params.maml.inner_step_size=0.01",
    # So large that some updates harm the parent: then the best state is not the last.
    "training_params.maml.meta_learning_rate=0.05",
    "training_sequence.stage_3_maml.meta_iterations=40",
)
PARENT = edge_model(PLAN)


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return symbol_of(edge_bars(sessions=160), PLAN)


def training_on(data: SymbolData) -> MetaTraining:
    return MetaTraining(data, PLAN, PARENT, [], seed=3)


def silent(_: dict) -> None:
    """Nobody listens."""


def selection_of(data: SymbolData, *, tasks: bool = True) -> tuple[MetaSelection, dict[str, torch.Tensor]]:
    training = training_on(data)
    sizes = training.step_sizes()
    chosen_from = training._meta_validation if tasks else []
    return MetaSelection(training.policy, sizes, chosen_from, training.config, 3), sizes


def kept(selection: MetaSelection) -> np.ndarray:
    return selection.policy.flat_parameters().numpy()


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_the_best_state_is_kept_not_the_last_and_its_step_sizes_with_it(data):
    selection, sizes = selection_of(data)
    states = [edge_model(PLAN, follow=follow) for follow in (-1.0, 1.0, -0.5)]
    for iteration, state in enumerate(states, start=1):
        own = {name: size * iteration for name, size in sizes.items()}
        selection.look(state.policy(), own, iteration)
    assert selection.iteration == 2
    np.testing.assert_array_equal(kept(selection), states[1].weights)
    for name, size in selection.step_sizes.items():
        assert float(size) == pytest.approx(0.02)
        assert name in sizes
    adapted = [point["adapted"] for point in selection.curve]
    assert [point["iteration"] for point in selection.curve] == [1, 2, 3]
    assert adapted[0] < 0 < adapted[1] > adapted[2]


def test_the_untrained_start_is_shown_but_never_kept(data):
    selection, sizes = selection_of(data)
    best, worse = edge_model(PLAN), edge_model(PLAN, follow=-1.0)
    selection.look(best.policy(), sizes, 0)
    selection.look(worse.policy(), sizes, 1)
    assert selection.curve[0]["adapted"] > selection.curve[1]["adapted"]
    assert selection.iteration == 1
    np.testing.assert_array_equal(kept(selection), worse.weights)


def test_what_is_kept_does_not_change_with_the_policy_that_goes_on_learning(data):
    selection, sizes = selection_of(data)
    policy = edge_model(PLAN).policy()
    own = {name: size.clone() for name, size in sizes.items()}
    selection.look(policy, own, 1)
    before = kept(selection).copy()
    with torch.no_grad():
        for tensor in (*policy.parameters(), *own.values()):
            tensor.add_(1.0)
    np.testing.assert_array_equal(kept(selection), before)
    assert all(float(size) == pytest.approx(0.01) for size in selection.step_sizes.values())


def test_without_a_task_to_look_at_the_last_state_is_kept(data):
    selection, sizes = selection_of(data, tasks=False)
    for iteration, follow in enumerate((1.0, -1.0), start=1):
        selection.look(edge_model(PLAN, follow=follow).policy(), sizes, iteration)
    assert (selection.iteration, selection.curve) == (2, [])
    np.testing.assert_array_equal(kept(selection), edge_model(PLAN, follow=-1.0).weights)


def test_a_look_is_the_mean_growth_on_later_bars_before_and_after_as_many_steps_as_the_plan_says(data):
    training = training_on(data)
    selection, sizes = selection_of(data)
    selection.look(PARENT.policy(), sizes, 1)
    adapted, unadapted = [], []
    for row, task in enumerate(spread_evenly(training._meta_validation, LOOK_TASKS)):
        rng = generator(3, "meta-validation look", row)
        reached = adapt(PARENT.policy(), sizes, task.support, 2, rng, training.config)
        adapted.append(task.query_growth(flat_weights(reached)))
        unadapted.append(task.query_growth(PARENT.weights))
    point = {"iteration": 1, "adapted": np.mean(adapted), "unadapted": np.mean(unadapted)}
    assert selection.curve == [point]


# --- when and where -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("planned", "between"), [(150, 30), (50, 10), (20, 10), (1, 10)])
def test_there_are_five_looks_in_a_run_but_never_one_after_another(planned, between):
    assert iterations_between_looks(planned) == between


@pytest.mark.parametrize("count", [0, 3, 6, 7, 15, 200])
def test_tasks_looked_at_come_from_all_over_and_none_twice(count):
    found = cast(Any, spread_evenly(cast(Any, list(range(count))), 6))
    assert found == sorted(set(found))
    assert len(found) == min(6, count)
    if count > 6:
        # As much is left out before the first as between two and after the last.
        assert found[0] <= count / 6
        assert found[-1] >= count - 1 - count / 6
        assert max(np.diff(found)) <= -(-count // 6)


def test_looks_are_made_before_training_at_every_fifth_of_the_plan_and_at_the_end_of_a_call(data):
    plan = small_plan("training_sequence.stage_3_maml.meta_iterations=60")
    training = MetaTraining(data, plan, PARENT, [], seed=3)
    training.train(25, silent)
    assert [point["iteration"] for point in training._selection.curve] == [0, 12, 24, 25]
    training.train(12, silent)
    assert [point["iteration"] for point in training._selection.curve] == [0, 12, 24, 25, 36, 37]


# --- in stage 3 -----------------------------------------------------------------------------------------------------


def meta_trained(data: SymbolData, *calls: int) -> tuple[MetaTraining, dict[int, tuple], Any]:
    """Meta-train in so many calls; return the training, its state after each iteration, and the model in the end."""
    training, states = training_on(data), {}

    def on_iteration(figures: dict[str, Any]) -> None:
        sizes = {name: float(size) for name, size in training._learner.step_sizes().items()}
        states[int(figures["iteration"])] = (training._learning.flat_parameters().numpy().copy(), sizes)

    for iterations in calls:
        model = training.train(iterations, on_iteration)
    return training, states, model


@pytest.fixture(scope="module")
def trained(data):
    return meta_trained(data, 20)


def test_the_model_is_the_state_with_the_highest_look_with_the_step_sizes_of_that_iteration(trained):
    training, states, model = trained
    curve = model.metrics["meta_validation_curve"]
    assert [point["iteration"] for point in curve] == [0, 10, 20]
    best = max(curve[1:], key=lambda point: point["adapted"])["iteration"]
    # Else this could not tell the best from the last.
    assert best < 20
    assert model.metrics["best_iteration"] == best
    assert model.episodes == 20
    weights, sizes = states[best]
    np.testing.assert_array_equal(model.extra[META_WEIGHTS], weights)
    for name, size in sizes.items():
        assert float(model.extra[STEP_SIZE_PREFIX + name]) == size
        assert states[20][1][name] != size
    # The proof is made of the same.
    np.testing.assert_array_equal(training.policy.flat_parameters(), weights)


class KilledError(BaseException):
    """What happens to a process that is killed, as far as it can be done within one."""


def test_killed_between_two_looks_the_best_so_far_stays_in_the_running(data, trained, tmp_path):
    """Left out of what is saved, the next look would win, however poor, and nobody would know."""
    files = StateFiles(tmp_path)

    def keep(state: dict[str, Any]) -> None:
        files.commit({"training": state})
        raise KilledError

    with pytest.raises(KilledError):
        training_on(data).train(20, silent, keep=keep)
    resumed = training_on(data)
    resumed.load_state(StateFiles(tmp_path).read("training"))
    assert [point["iteration"] for point in resumed._selection.curve] == [0, 10]
    model, whole = resumed.train(20, silent), trained[2]
    # The best lies before the kill, and a look that was worse after it.
    assert whole.metrics["best_iteration"] == 10 < whole.metrics["meta_validation_curve"][-1]["iteration"]
    assert model.metrics == whole.metrics
    assert model.fingerprint() == whole.fingerprint()
    for name, tensor in whole.extra.items():
        np.testing.assert_array_equal(model.extra[name], tensor)


def test_an_extension_goes_on_from_the_last_state_and_the_best_so_far_stays_in_the_running(data, trained):
    _, states, _ = trained
    _, extended, model = meta_trained(data, 10, 10)
    for iteration in range(1, 21):
        np.testing.assert_array_equal(extended[iteration][0], states[iteration][0])
    assert model.metrics["meta_validation_curve"] == trained[2].metrics["meta_validation_curve"]
    assert model.fingerprint() == trained[2].fingerprint()


def test_an_extension_does_not_rewrite_what_the_earlier_model_looked_like(data):
    training = training_on(data)
    first = training.train(1, silent)
    before = [dict(point) for point in first.metrics["meta_validation_curve"]]
    training.train(1, silent)
    assert first.metrics["meta_validation_curve"] == before


def test_looking_changes_nothing_in_what_is_learned(data, trained):
    unwatched = training_on(data)
    unwatched._learner.train(20)
    np.testing.assert_array_equal(unwatched._learning.flat_parameters(), trained[1][20][0])


def test_validation_and_later_bars_decide_nothing(data, trained):
    changed = symbol_of(with_bars_changed_from(data.bars, data.splits.validation.start), PLAN)
    _, states, model = meta_trained(changed, 20)
    assert model.metrics["meta_validation_curve"] == trained[2].metrics["meta_validation_curve"]
    np.testing.assert_array_equal(model.extra[META_WEIGHTS], trained[2].extra[META_WEIGHTS])
    np.testing.assert_array_equal(states[20][0], trained[1][20][0])


def test_the_newest_look_is_reported(data):
    seen: list[dict[str, Any]] = []
    training_on(data).train(12, seen.append)
    assert [figures["meta_validation"]["iteration"] for figures in seen] == [0] * 9 + [10, 10, 12]
