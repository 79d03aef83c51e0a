"""What the proof of stage 3 measures: the curve, every baseline, both controls, and no bar of the future."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from rl.algorithms.adaptation import adapt, adaptable_names, fine_tune
from rl.checkpoints.adaptation import flat_weights
from rl.common.seeding import generator
from rl.envs.tasks import TaskWindow, task_windows
from rl.policies.actor_critic import build_policy
from rl.stages.adaptation_gate import placebo_control
from rl.stages.adaptation_proof import (
    FIRST_TUNING_TASKS,
    PLAIN_STEPS,
    UNTUNED,
    AdaptationProof,
    AdaptationTrial,
    PlainSteps,
    measured_steps,
    other_tasks,
    plain_growth,
    tuned_steps,
)
from rl.stages.maml_stage import MetaTraining, maml_config
from rl.stages.stage_model import model_of
from rl.stages.symbol_data import SymbolData
from rl.stages.trading_tasks import shuffled_tasks
from tests.unit.stages.small_symbol import (
    edge_bars,
    edge_model,
    mlp_spec,
    small_plan,
    symbol_of,
    with_bars_changed_from,
)

PLAN = small_plan("training_params.maml.query_sessions=4", "training_params.maml.inner_step_size=1.0")
PARENT = edge_model(PLAN)


def meta_training(data: SymbolData, parent=PARENT, seed: int = 3) -> MetaTraining:
    return MetaTraining(data, PLAN, parent, [], seed=seed)


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return symbol_of(edge_bars(sessions=160), PLAN)


@pytest.fixture(scope="module")
def meta(data) -> MetaTraining:
    return meta_training(data)


@pytest.fixture(scope="module")
def proof(meta) -> AdaptationProof:
    return meta.proof()


def adapted_to(meta: MetaTraining, row: int, steps: int) -> np.ndarray:
    """Return the weights after so many steps on the support of a meta-test task."""
    rng = generator(3, "meta-test", row)
    support = meta._meta_test[row].support
    return flat_weights(adapt(meta.policy, meta.step_sizes(), support, steps, rng, meta.config))


# --- the curve ------------------------------------------------------------------------------------------------------


def test_the_curve_goes_as_far_as_twice_the_plans_steps():
    assert measured_steps(7, 5) == (0, 1, 2, 3, 4, 5, 7, 14)
    assert measured_steps(2, 2) == (0, 1, 2, 3)
    # The plan's own number is always measured, and every one that the speed asks for.
    assert measured_steps(6, 2) == (0, 1, 2, 3, 5, 6, 7)
    assert measured_steps(1, 4) == (0, 1, 2, 3, 4)


def test_growth_after_some_steps_is_that_of_the_policy_after_as_many(meta, proof):
    assert proof.curve_steps == (0, 1, 2, 3)
    assert proof.adapted.shape == (len(meta._meta_test), 4)
    for row in (0, len(meta._meta_test) - 1):
        for steps in proof.curve_steps:
            weights = adapted_to(meta, row, steps)
            assert proof.after(steps)[row] == meta._meta_test[row].query_growth(weights)
    assert len({each.tobytes() for each in proof.adapted.T}) == 4


def test_before_any_meta_training_the_unadapted_policy_is_the_parent(meta, proof):
    np.testing.assert_array_equal(proof.after(0), proof.parent)
    assert proof.steps == 2
    for growth, task in zip(proof.parent, meta._meta_test, strict=True):
        assert growth == task.query_growth(PARENT.weights)


def a_proof(curve: list[float]) -> AdaptationProof:
    return AdaptationProof(
        steps=len(curve) - 1,
        curve_steps=tuple(range(len(curve))),
        adapted=np.tile(curve, (3, 1)),
        parent=np.zeros(3),
        fine_tuned=np.zeros(3),
        fine_tune=UNTUNED,
        random_start=np.zeros(3),
        random_start_steps=UNTUNED,
        buy_and_hold=np.zeros(3),
        other_support=None,
        placebo=None,
    )


@pytest.mark.parametrize(
    ("curve", "tried", "speed"),
    [
        ([1.0, 2.0, 3.0], 2, 1),
        ([1.0, 0.5, 3.0], 2, 2),
        # Better at the third step only, but two were tried.
        ([1.0, 0.5, 0.7, 3.0], 2, None),
        ([1.0, 1.0, 1.0], 2, None),
        ([1.0, 0.9], 5, None),
    ],
)
def test_adaptation_speed_is_the_first_step_above_the_unadapted_policy(curve, tried, speed):
    assert a_proof(curve).speed(tried) == speed


# --- baselines ------------------------------------------------------------------------------------------------------


def test_holding_earns_the_move_of_the_query_bars(meta, data, proof):
    for growth, task in zip(proof.buy_and_hold, meta._meta_test, strict=True):
        start, stop = task.window.query
        # Bought at the open after the first bar, which is its close here; 0.1 bp of commission, no slippage.
        move = np.log(data.bars.close[stop - 1] / data.bars.close[start])
        assert growth == pytest.approx(move / (stop - 1 - start), abs=1e-6)


def test_a_random_start_owes_nothing_to_the_stage_before(data, proof):
    other = meta_training(data, edge_model(PLAN, follow=-1.0)).proof()
    assert other.random_start_steps == proof.random_start_steps
    np.testing.assert_array_equal(other.random_start, proof.random_start)
    assert (other.fine_tuned != proof.fine_tuned).any()


def test_every_task_has_a_random_start_of_its_own(meta, proof):
    """One start for all would make its luck that of the baseline."""
    starts = []
    for row, task in enumerate(meta._meta_test):
        seed = int(generator(3, "random start", "meta-test", row).integers(2**31))
        starts.append(build_policy(PARENT.policy_spec, seed))
        rng = generator(3, "meta-test", row)
        expected = plain_growth(starts[-1], task, proof.random_start_steps, rng, meta.config)
        assert proof.random_start[row] == expected
    assert len({start.flat_parameters().numpy().tobytes() for start in starts}) == len(starts)


def test_another_seed_starts_elsewhere(data, proof):
    assert (meta_training(data, seed=4).proof().random_start != proof.random_start).any()


@pytest.mark.parametrize(("adapt", "moved"), [("heads", {"actor.weight_1", "actor.bias_1"}), ("all", None)])
def test_plain_fine_tuning_moves_what_it_was_tuned_to_move_whatever_meta_learning_may(meta, adapt, moved):
    """The plan adapts heads; whoever fine-tunes the stage before has no reason to stop there."""
    assert meta.config.adapt == "heads"
    task, start = meta._meta_test[0], PARENT.policy()
    steps = PlainSteps(size=1.0, adapt=adapt)
    config = replace(meta.config, adapt=adapt)
    rng = generator(3, "any", 0)
    reached = fine_tune(start, task.support, config.inner_loop_steps, 1.0, rng, config)
    before = dict(start.named_parameters())
    assert {name for name in before if (reached[name] != before[name]).any()} == (
        moved or set(adaptable_names(start, "all"))
    )
    growth = plain_growth(start, task, steps, generator(3, "any", 0), meta.config)
    assert growth == task.query_growth(flat_weights(reached))


def test_both_what_meta_learning_may_change_and_all_is_tried_from_small_to_large_steps():
    for part in ("all", "heads"):
        sizes = [steps.size for steps in PLAIN_STEPS if steps.adapt == part]
        assert max(sizes) / min(sizes) >= 100


def tuned_with(tasks: int, best: PlainSteps) -> tuple[PlainSteps, dict[PlainSteps, list[int]]]:
    """Return what is chosen where growth falls with the distance from the best, and the tasks each was tried on."""
    tried: dict[PlainSteps, list[int]] = {steps: [] for steps in PLAIN_STEPS}

    def growth(_task: Any, steps: PlainSteps, _stream: str, row: int) -> float:
        tried[steps].append(row)
        # Every other task is worth more, whatever the steps.
        return -abs(np.log10(steps.size / best.size)) - 0.3 * (steps.adapt != best.adapt) + row % 2

    return tuned_steps(cast(Any, [None] * tasks), growth), tried


@pytest.mark.parametrize("tasks", [1, 5, 40])
@pytest.mark.parametrize("best", PLAIN_STEPS, ids=str)
def test_the_steps_that_grow_most_on_meta_validation_are_taken(tasks, best):
    assert tuned_with(tasks, best)[0] == best


def test_the_best_two_are_tried_on_every_task_the_others_on_a_few():
    _, tried = tuned_with(40, PlainSteps(size=1.0, adapt="heads"))
    everywhere = [steps for steps, rows in tried.items() if sorted(rows) == list(range(40))]
    # The other part at the same size costs 0.3, half a decade of size 0.5.
    assert everywhere == [PlainSteps(size=1.0, adapt="all"), PlainSteps(size=1.0, adapt="heads")]
    for steps in set(PLAIN_STEPS) - set(everywhere):
        assert len(tried[steps]) == FIRST_TUNING_TASKS
        assert max(tried[steps]) >= 33


def test_where_few_tasks_exist_all_is_tried_on_all_of_them():
    tried = tuned_with(FIRST_TUNING_TASKS, UNTUNED)[1]
    assert set(map(tuple, tried.values())) == {tuple(range(FIRST_TUNING_TASKS))}


def test_without_a_task_to_tune_on_steps_of_middle_size_move_all():
    assert tuned_with(0, PLAIN_STEPS[-1])[0] == UNTUNED
    assert UNTUNED in PLAIN_STEPS


# --- controls -------------------------------------------------------------------------------------------------------


def windows_of(tasks: int, *, support_bars: int = 100) -> list[TaskWindow]:
    stretch = (1000, 1000 + 50 * tasks)
    return task_windows(
        "A", stretch, support_bars=support_bars, query_bars=50, purge_bars=10, support_may_reach_back_to=0
    )


@pytest.mark.parametrize("tasks", [30, 31])
def test_the_other_support_lies_half_of_all_tasks_further_on_and_every_one_is_used_once(tasks):
    others = other_tasks(windows_of(tasks))
    assert others is not None
    assert others[:2] == [tasks // 2, tasks // 2 + 1]
    assert sorted(others) == list(range(tasks))


def test_another_tasks_support_never_shares_a_bar_with_the_task():
    """It would hold the very query it is judged on, and so be no control."""
    # With 10 tasks the other support begins 5 * 50 bars after the own one, which ends 60 bars before the query does.
    assert other_tasks(windows_of(10, support_bars=190)) is not None
    assert other_tasks(windows_of(10, support_bars=191)) is None
    assert other_tasks(windows_of(1)) is None


def test_the_other_support_is_what_the_policy_was_adapted_to(meta, proof):
    others = other_tasks([task.window for task in meta._meta_test])
    assert others is not None
    for row in (0, len(others) - 1):
        weights = adapted_to(meta, others[row], 2)
        assert proof.other_support[row] == meta._meta_test[row].query_growth(weights)
    assert (proof.other_support != proof.after(2)).any()


def test_without_another_support_there_is_no_control_and_no_placebo():
    plan = small_plan("training_params.maml.query_sessions=4", "training_params.maml.support_sessions=20")
    short = symbol_of(edge_bars(sessions=120), plan)
    found = MetaTraining(short, plan, PARENT, [], seed=3).proof()
    assert len(found.adapted) == 4
    assert found.other_support is found.placebo is None


def test_on_shuffled_bars_the_known_edge_is_worth_nothing(proof):
    """The policy follows a column that foretells the next bar; in random order it foretells nothing."""
    assert len(proof.placebo.parent) == len(proof.parent)
    assert proof.parent.mean() > 1e-4
    assert abs(proof.placebo.parent.mean()) < 0.2 * proof.parent.mean()
    np.testing.assert_array_equal(proof.placebo.parent, proof.placebo.unadapted)
    assert (proof.placebo.adapted != proof.placebo.unadapted).any()
    assert (proof.placebo.other_support != proof.placebo.adapted).any()


def placebo_p(query_is_support: bool) -> float:
    """Return the placebo's p over 36 tasks of a market without an edge."""
    plan = small_plan("training_params.maml.support_steps=128", "training_params.maml.inner_loop_steps=5")
    market = symbol_of(edge_bars(sessions=200, hit_rate=0.5), plan)
    policy = build_policy(mlp_spec(plan, (8,)), seed=1)
    parent = model_of("moe", policy, episodes=1, metrics={})
    windows = []
    for start in range(1400, 1400 + 36 * 64, 64):
        query = start, start + 64
        support = query if query_is_support else (start - 89, start - 25)
        windows.append(TaskWindow(symbol="EDGE_15", support=support, query=query))
    tasks = shuffled_tasks(market, windows, parent.policy_spec, plan, np.random.default_rng(0))
    trial = AdaptationTrial(
        policy=policy,
        step_sizes=dict.fromkeys(adaptable_names(policy), torch.tensor(1.0)),
        parent=parent,
        config=maml_config(plan),
        seed=3,
    )
    found = placebo_control(trial.proof(tasks, tasks, [], tried=1), 0.025).value
    assert found is not None
    return found


def test_the_placebo_catches_a_policy_judged_on_the_bars_it_adapted_to():
    """Measured on its own support, adaptation shows itself on pure noise."""
    assert placebo_p(query_is_support=True) < 0.025 < placebo_p(query_is_support=False)


# --- no bar of the future -------------------------------------------------------------------------------------------


def test_prices_after_the_anchor_leave_the_adapted_weights_bit_identical(data, meta):
    for row in (0, 1, 2):
        # The first support ends inside the training window, whose last bars the scaler may know: no query does.
        anchor = max(meta._meta_test[row].window.support[1], data.window("validation")[0])
        assert anchor <= meta._meta_test[row].window.query[0]
        changed = meta_training(symbol_of(with_bars_changed_from(data.bars, anchor), PLAN))
        np.testing.assert_array_equal(adapted_to(changed, row, 2), adapted_to(meta, row, 2))


def test_prices_of_the_support_change_the_adapted_weights(data, meta):
    start, anchor = meta._meta_test[1].window.support
    changed = symbol_of(with_bars_changed_from(data.bars, anchor - 10, until=anchor), PLAN)
    assert (adapted_to(meta_training(changed), 1, 2) != adapted_to(meta, 1, 2)).any()
    assert start < anchor - 10


def test_prices_after_a_query_change_no_bit_of_what_was_measured_on_it(data, meta, proof):
    """Neither of the policy nor of a baseline; the controls look at other tasks, so they may change."""
    last = 2
    after = meta._meta_test[last].window.query[1]
    found = meta_training(symbol_of(with_bars_changed_from(data.bars, after), PLAN)).proof()
    for name in ("adapted", "parent", "fine_tuned", "random_start", "buy_and_hold"):
        one, two = getattr(proof, name), getattr(found, name)
        np.testing.assert_array_equal(one[: last + 1], two[: last + 1])
        assert (one[last + 1 :] != two[last + 1 :]).any()


def test_the_placebo_leaves_the_proof_itself_alone(data, meta, proof):
    """Shuffling works on copies: the market that is judged stays as it was."""
    assert replace(data, notes=()).market is data.market
    again = meta.proof()
    np.testing.assert_array_equal(again.adapted, proof.adapted)
    np.testing.assert_array_equal(again.placebo.adapted, proof.placebo.adapted)
