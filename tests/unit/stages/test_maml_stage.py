"""Stage 3: which bars a task may use, and what the proof compares."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from rl.algorithms.adaptation import AdaptationConfig, RolloutData, baseline_advantages
from rl.checkpoints.predictor import META_WEIGHTS, STEP_SIZE_PREFIX
from rl.common.errors import DataError
from rl.features.pipeline import FeatureTable
from rl.policies.actor_critic import build_policy
from rl.stages.maml_stage import MetaTraining, TaskPool, maml_config
from rl.stages.plan import load_plan
from rl.stages.stage_model import StageModel
from rl.stages.symbol_data import SymbolData
from rl.stages.trading_tasks import (
    FEWEST_QUERY_BARS,
    FEWEST_SUPPORT_BARS,
    TradingTask,
    task_markets,
    task_sizes,
)
from tests.unit.stages.small_symbol import (
    BARS_PER_SESSION,
    PLAN_FILE,
    edge_bars,
    edge_model,
    edge_table,
    mlp_spec,
    small_plan,
    symbol_of,
    with_bars_changed_from,
)

PLAN = small_plan()
PARENT = edge_model(PLAN)
FEWER_TASKS = small_plan("training_params.maml.query_sessions=4")
"""Where a whole proof is made: each query window costs an adaptation and a fine-tuning."""


def silent(_: dict) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return symbol_of(edge_bars(sessions=120), PLAN)


@pytest.fixture(scope="module")
def longer() -> SymbolData:
    """Another symbol whose history goes on for twice as long: its training window ends after the target's test."""
    return symbol_of(edge_bars("OTHER_15", sessions=240, seed=1), PLAN)


@pytest.fixture(scope="module")
def meta(data, longer) -> MetaTraining:
    return MetaTraining(data, PLAN, PARENT, [longer], seed=3)


def training_tasks(meta: MetaTraining) -> list[TradingTask]:
    return [task for symbol in meta._learner.sampler._tasks for task in symbol]


def closes_of(symbol: SymbolData, rows: tuple[int, int]) -> tuple[int, int]:
    """Return the closing times of the first and last bar of a stretch."""
    return int(symbol.bars.close_time[rows[0]]), int(symbol.bars.close_time[rows[1] - 1])


# --- which bars -----------------------------------------------------------------------------------------------------


def test_no_meta_training_task_of_any_symbol_reaches_past_the_targets_training_window(meta, data, longer):
    """Markets move together: another symbol's later bars would carry the target's validation days into training."""
    end = data.bars.close_time[data.window("train")[1] - 1]
    by_symbol = {"EDGE_15": data, "OTHER_15": longer}
    seen = set()
    for task in training_tasks(meta):
        symbol = by_symbol[task.window.symbol]
        seen.add(task.window.symbol)
        for rows in (task.window.support, task.window.query):
            assert closes_of(symbol, rows)[1] <= end
    assert seen == {"EDGE_15", "OTHER_15"}
    # Without the cut there would be such tasks: the other symbol's own training window ends later.
    assert longer.bars.close_time[longer.window("train")[1] - 1] > end


def test_meta_training_ends_before_the_bars_the_fine_tuning_baseline_is_tuned_on(meta, data, longer):
    first_tuned = min(task.window.query[0] for task in meta._meta_validation)
    at = data.bars.close_time[first_tuned]
    for task in training_tasks(meta):
        symbol = data if task.window.symbol == "EDGE_15" else longer
        assert closes_of(symbol, task.window.query)[1] < at


def test_meta_validation_lies_at_the_end_of_the_training_window(meta, data):
    start, stop = data.window("train")
    cut = stop - int(0.15 * (stop - start))
    queries = [task.window.query for task in meta._meta_validation]
    assert queries
    assert all(cut <= first < last <= stop for first, last in queries)


def test_meta_test_queries_lie_in_the_validation_window_and_their_supports_just_before(meta, data):
    start, stop = data.window("validation")
    assert len(meta._meta_test) == (stop - start) // meta.sizes.query_bars
    for task in meta._meta_test:
        assert start <= task.window.query[0] < task.window.query[1] <= stop
        assert task.window.query[0] - task.window.support[1] == meta.sizes.purge_bars
        assert task.window.support[1] - task.window.support[0] == meta.sizes.support_bars
    for one, two in pairwise(meta._meta_test):
        assert one.window.query[1] == two.window.query[0]


def test_bars_after_validation_change_no_bit_of_the_model_nor_of_its_proof(data):
    """Promotion and test windows decide whether the model may be used; it must not have met them."""
    changed = symbol_of(with_bars_changed_from(data.bars, data.splits.promotion.start), PLAN)
    one, two = (MetaTraining(each, FEWER_TASKS, PARENT, [], seed=3) for each in (data, changed))
    models = [each.train(2, silent) for each in (one, two)]
    assert models[0].fingerprint() == models[1].fingerprint()
    for name, tensor in models[0].extra.items():
        assert (models[1].extra[name] == tensor).all()
    np.testing.assert_array_equal(one.proof().adapted, two.proof().adapted)


def test_validation_bars_change_the_proof_but_not_what_was_learned(data):
    window = data.splits.validation
    changed = symbol_of(with_bars_changed_from(data.bars, window.start, until=window.stop), PLAN)
    one, two = (MetaTraining(each, FEWER_TASKS, PARENT, [], seed=3) for each in (data, changed))
    models = [each.train(2, silent) for each in (one, two)]
    assert models[0].fingerprint() == models[1].fingerprint()
    assert (one.proof().adapted != two.proof().adapted).any()


def test_another_symbols_bars_after_the_targets_training_window_change_nothing(data, longer):
    end = data.bars.close_time[data.window("train")[1] - 1]
    after = int(np.searchsorted(longer.bars.close_time, end, side="right"))
    changed_bars = with_bars_changed_from(longer.bars, after)
    # The other symbol's own scaler and volatility may see its whole training window; they are not the target's.
    changed = replace(symbol_of(changed_bars, PLAN), rules=longer.rules, scaler=longer.scaler)
    models = [MetaTraining(data, PLAN, PARENT, [each], seed=3).train(2, silent) for each in (longer, changed)]
    assert models[0].fingerprint() == models[1].fingerprint()


def test_not_even_the_reward_scale_of_another_symbol_knows_the_targets_validation_days(data, longer):
    end = data.bars.close_time[data.window("train")[1] - 1]
    after = int(np.searchsorted(longer.bars.close_time, end, side="right"))
    changed = symbol_of(with_bars_changed_from(longer.bars, after), PLAN)
    models = [MetaTraining(data, PLAN, PARENT, [each], seed=3).train(2, silent) for each in (longer, changed)]
    assert models[0].fingerprint() == models[1].fingerprint()


def test_another_symbol_ends_for_meta_learning_where_the_targets_training_ends(data, longer):
    end = data.bars.close_time[data.window("train")[1] - 1]
    ours, theirs = task_markets(data, [longer])
    assert (ours.first, ours.stop) == data.window("train")
    assert longer.bars.close_time[theirs.stop - 1] == end
    # A shorter history ends with its own training window.
    short = symbol_of(edge_bars("SHORT_15", sessions=60, seed=2), PLAN)
    assert task_markets(data, [short])[1].stop == short.window("train")[1]


def test_other_symbols_are_seen_through_the_targets_scaler(data, longer):
    ours, theirs = task_markets(data, [longer])
    assert (ours.symbol, theirs.symbol) == ("EDGE_15", "OTHER_15")
    expected = data.scaler.transform(longer.table.values)
    np.testing.assert_array_equal(theirs.market.features, expected)
    # Its own costs and limits; the scale of its reward is that of the bars it may use here.
    assert replace(theirs.rules, bar_volatility=1.0) == replace(longer.rules, bar_volatility=1.0)
    close = longer.bars.close[theirs.first : theirs.stop]
    assert theirs.rules.bar_volatility == pytest.approx(np.std(np.diff(close) / close[:-1]), rel=1e-12)
    assert theirs.rules.bar_volatility != longer.rules.bar_volatility


def test_a_symbol_that_begins_after_the_targets_training_takes_no_part(data, longer):
    late = symbol_of(longer.bars.slice(3000, 6000), PLAN)
    assert [market.symbol for market in task_markets(data, [late])] == ["EDGE_15"]


def test_the_target_is_not_its_own_other(data, longer):
    assert [market.symbol for market in task_markets(data, [data, longer])] == ["EDGE_15", "OTHER_15"]


def test_a_symbol_without_the_targets_features_is_refused_by_name(data, longer):
    """Whoever chooses the others leaves such symbols out; a policy shown zeros instead would learn from nothing."""
    table = edge_table(longer.bars)
    poorer = FeatureTable(
        table.values[:, 1:], ("x_regime_mood",), table.usable, table.atr, ("x_regime_mood",)
    )
    without = symbol_of(longer.bars, PLAN, table=poorer)
    with pytest.raises(DataError, match="OTHER_15: the features x_edge do not exist"):
        task_markets(data, [without])


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_tasks_are_as_long_as_the_plans_sessions(data):
    plan = small_plan("training_params.maml.support_sessions=6", "training_params.maml.query_sessions=2")
    sizes = task_sizes(data, plan)
    assert sizes.support_bars == 6 * BARS_PER_SESSION
    assert sizes.query_bars == 2 * BARS_PER_SESSION
    assert sizes.purge_bars == BARS_PER_SESSION


def test_a_task_never_has_too_few_bars_to_learn_from(data):
    sizes = task_sizes(data, PLAN)
    assert (sizes.support_bars, sizes.query_bars) == (FEWEST_SUPPORT_BARS, FEWEST_QUERY_BARS)


def test_a_training_window_too_short_for_one_task_is_refused_with_the_keys_to_lower():
    short = symbol_of(edge_bars(sessions=40), PLAN)
    plan = small_plan("training_params.maml.support_sessions=30")
    with pytest.raises(DataError, match="support_sessions and query_sessions"):
        MetaTraining(short, plan, PARENT, [], seed=0)


def test_the_plans_settings_reach_the_meta_learner():
    plan = small_plan(
        "training_params.maml.meta_learning_rate=0.002",
        "training_params.maml.meta_batch_size=3",
        "training_params.maml.meta_accumulation=2",
        "training_params.maml.inner_step_size=0.05",
        "training_params.maml.first_order_fraction=0.5",
        "training_params.maml.adapt=heads",
        "training_params.maml.engine=learn2learn",
        "training_params.maml.gae_lambda=0.7",
        "training_params.ppo.gae_lambda=0.3",
        "training_params.ppo.gamma=0.9",
        "training_params.ppo.entropy_coef=0.02",
        "training_sequence.stage_3_maml.meta_iterations=11",
    )
    config = maml_config(plan)
    assert (config.meta_learning_rate, config.meta_batch_size, config.meta_accumulation) == (0.002, 3, 2)
    assert (config.inner_step_size, config.first_order_fraction, config.adapt) == (0.05, 0.5, "heads")
    assert (config.engine, config.iterations, config.inner_loop_steps) == ("learn2learn", 11, 2)
    assert (config.gamma, config.inner_entropy_coef) == (0.9, 0.02)
    # PPO's own belongs to a baseline that is a network.
    assert config.gae_lambda == 0.7


def meta_trained(
    data: SymbolData, iterations: int, *overrides: str
) -> tuple[list[dict], np.ndarray, list[int]]:
    """Meta-train; return every update's figures, the meta-parameters in the end, and each draw's number of tasks."""
    training = MetaTraining(data, small_plan(*overrides), PARENT, [], seed=3)
    pool, drawn, figures = training._learner.sampler, [], []
    sample = pool.sample

    def counted(n: int, rng: np.random.Generator):
        drawn.append(n)
        return sample(n, rng)

    pool.sample = counted
    training.train(iterations, figures.append)
    return figures, training.policy.flat_parameters().numpy(), drawn


def test_the_meta_learning_rate_decides_how_far_an_outer_update_goes(data):
    """Adam's first update moves a parameter by its learning rate, whatever the gradient."""
    start = PARENT.weights
    for rate in (0.0005, 0.002):
        figures, weights, _ = meta_trained(data, 1, f"training_params.maml.meta_learning_rate={rate}")
        assert np.abs(weights - start).max() == pytest.approx(rate, rel=0.01)
        # The same tasks were adapted to and judged: only the step after them is another.
        assert figures[0]["query_reward"] == meta_trained(data, 1)[0][0]["query_reward"]


def test_the_meta_batch_size_is_the_number_of_tasks_an_outer_update_is_made_of(data):
    assert meta_trained(data, 2)[2] == [2, 2]
    assert meta_trained(data, 2, "training_params.maml.meta_batch_size=3")[2] == [3, 3]
    assert meta_trained(data, 1, "training_params.maml.meta_accumulation=2")[2] == [2, 2]


@pytest.mark.parametrize("steps", [1, 3])
def test_the_inner_loop_takes_as_many_steps_as_the_plan_says_in_training_use_and_proof(data, steps):
    plan = small_plan(
        f"training_params.maml.inner_loop_steps={steps}", "training_params.maml.query_sessions=4"
    )
    training = MetaTraining(data, plan, PARENT, [], seed=3)
    taken = []
    for task in training._learner.sampler._tasks[0]:
        support = task.support

        def counted(params, rng, support=support):
            taken.append(1)
            return support(params, rng)

        task.support = counted
    training.train(1, silent)
    assert len(taken) == 2 * steps  # two tasks
    assert training.recipe().config.inner_loop_steps == steps
    assert training.proof().steps == steps


def test_the_adaptation_speed_is_looked_for_in_as_many_steps_as_the_plan_says(data):
    plans = [
        small_plan(f"training_params.maml.evaluation_steps={tried}", "training_params.maml.query_sessions=4")
        for tried in (2, 5)
    ]
    curves = [MetaTraining(data, plan, PARENT, [], seed=3).proof().curve_steps for plan in plans]
    # Twice the plan's two inner steps are shown anyway; to find a speed of up to 5, 4 and 5 are measured too.
    assert curves == [(0, 1, 2, 3), (0, 1, 2, 3, 4, 5)]


def test_tasks_are_drawn_by_symbol_first_so_that_a_long_history_does_not_drown_a_short_one(meta):
    pool: TaskPool = meta._learner.sampler
    drawn = pool.sample(2000, np.random.default_rng(0))
    share = np.mean([task.window.symbol == "EDGE_15" for task in drawn])
    assert share == pytest.approx(0.5, abs=0.05)


# --- how far an adaptation looks ahead ------------------------------------------------------------------------------


def held_positions(bars: int = 256, lanes: int = 256) -> tuple[RolloutData, np.ndarray]:
    """Return accounts in a market where one has to hold to earn, and which of their steps entered with the signal.

    The signal, 1 or -1, lasts 20 bars on average and pays 0.1 a bar to a position on its side; a unit of turnover costs
    0.3. Accounts leave their position alone at nine bars of ten, else they take a random one. So entering with the
    signal earns about 0.69 until the signal or the account turns, and costs 0.3 at once.
    """
    rng = np.random.default_rng(0)
    signal, position = rng.choice([-1.0, 1.0], lanes), np.zeros(lanes)
    obs, reached, rewards, entered = [], [], [], []
    for _ in range(bars):
        wanted = np.where(rng.random(lanes) < 0.9, position, rng.choice([-1.0, 0.0, 1.0], lanes))
        obs.append(np.column_stack([signal, position]))
        rewards.append(0.1 * wanted * signal - 0.3 * np.abs(wanted - position))
        entered.append((position == 0.0) & (wanted == signal))
        signal = np.where(rng.random(lanes) < 0.05, -signal, signal)
        position = wanted
        reached.append(np.column_stack([signal, position]))
    never = np.zeros((bars, lanes), dtype=bool)
    rollout = RolloutData(
        obs=torch.tensor(np.concatenate(obs)),
        next_obs=torch.tensor(np.concatenate(reached)),
        actions=torch.zeros(bars * lanes, dtype=torch.int64),
        log_probs=torch.zeros(bars * lanes),
        rewards=np.array(rewards),
        terminated=never,
        truncated=np.arange(bars)[:, None] == np.full((bars, lanes), bars - 1),
    )
    return rollout, np.array(entered)


def test_an_adaptation_sees_that_a_position_is_worth_holding_while_the_signal_lasts():
    """With PPO's shorter look it sees the cost only: a line in signal and position knows nothing of their product."""
    plan = load_plan(PLAN_FILE)
    rollout, entered = held_positions()

    def worth(config: AdaptationConfig) -> float:
        advantages = baseline_advantages(rollout, config)
        before, after = (rows[:, 1].reshape(entered.shape) == 0.0 for rows in (rollout.obs, rollout.next_obs))
        stayed_out = (before & after).numpy()
        return float(advantages[entered].mean() - advantages[stayed_out].mean())

    config = maml_config(plan)
    assert worth(config) > 0.0
    # Else this market could not tell the two.
    assert worth(replace(config, gae_lambda=plan.training_params.ppo.gae_lambda)) < 0.0


# --- what a task measures -------------------------------------------------------------------------------------------


def test_query_growth_is_log_growth_per_bar_net_of_costs(meta, data):
    task = meta._meta_test[0]
    start, stop = task.window.query
    flat = edge_model(PLAN, follow=0.0)
    assert task.query_growth(flat.weights) == 0.0
    followed = task.query_growth(PARENT.weights)
    # By hand: long or short by the sign of the scaled edge, each bar's return on the whole equity, 0.1 bp a side.
    edge = np.sign(data.market.features[start : stop - 1, 0])
    close = data.bars.close[start:stop]
    moves = np.diff(close) / close[:-1]
    assert followed == pytest.approx(np.mean(edge * moves), abs=3e-5)
    assert task.query_growth(edge_model(PLAN, follow=-1.0).weights) < 0 < followed


def test_rollouts_of_a_task_stay_in_its_own_stretch(meta):
    task = meta._meta_test[0]
    assert task._support.window == task.window.support
    assert task._query.window == task.window.query


# --- the model ------------------------------------------------------------------------------------------------------


def test_the_model_carries_meta_weights_and_one_step_size_for_each_tensor_that_adapts(meta, data):
    fresh = MetaTraining(data, PLAN, PARENT, [], seed=3)
    model = fresh.train(1, silent)
    assert (model.stage, model.episodes) == ("maml", 1)
    np.testing.assert_array_equal(model.extra[META_WEIGHTS], fresh.policy.flat_parameters())
    sizes = {name.removeprefix(STEP_SIZE_PREFIX) for name in model.extra if name != META_WEIGHTS}
    # The shipped plan adapts the head: the second of this small network's two layers.
    assert sizes == {"actor.weight_1", "actor.bias_1"}
    # What acts are the weights adapted to the bars before validation, not the meta-parameters themselves.
    assert (model.weights != model.extra[META_WEIGHTS].numpy()).any()
    assert fresh.support_before("validation") == (
        data.window("validation")[0] - FEWEST_SUPPORT_BARS,
        data.window("validation")[0],
    )


def test_meta_training_leaves_the_parent_as_it_was(data):
    parent = edge_model(PLAN)
    before = parent.weights.copy()
    MetaTraining(data, PLAN, parent, [], seed=3).train(1, silent)
    np.testing.assert_array_equal(parent.weights, before)


def test_meta_training_twice_with_one_seed_gives_equal_weights(data, longer):
    models = [MetaTraining(data, PLAN, PARENT, [longer], seed=seed).train(2, silent) for seed in (3, 3, 4)]
    assert models[0].fingerprint() == models[1].fingerprint() != models[2].fingerprint()


# --- another symbol -------------------------------------------------------------------------------------------------


def test_across_symbols_the_same_policy_is_worth_as_much_as_the_symbols_own(data, longer):
    plan = small_plan("training_params.maml.inner_step_size=0.001")
    training = MetaTraining(data, plan, PARENT, [], seed=3)
    found = training.across(longer, edge_model(PLAN, stage="moe"))
    assert found.symbol == "OTHER_15"
    # Both follow the sign of the same edge; their scalers put zero at a slightly different place, and the smallest
    # step size allowed hardly moves the adapted one.
    assert found.ratio == pytest.approx(1.0, abs=0.1)


def test_a_held_out_symbol_is_not_judged_on_days_that_meta_training_saw_of_others(data):
    """Its history is half as long, so its validation window lies inside the target's training window."""
    short = symbol_of(edge_bars("SHORT_15", sessions=60, seed=2), PLAN)
    base = edge_model(PLAN, stage="moe")
    found = MetaTraining(data, PLAN, PARENT, [], seed=3).across(short, base)
    assert (found.ratio, found.adapted) == (None, ())
    assert "no query window of SHORT_15's validation lies after the training window of EDGE_15" in found.note
    # Of one that is 130 sessions long validation is sessions 78 to 97: all of it lies after session 72.
    later = symbol_of(edge_bars("LATER_15", sessions=130, seed=2), PLAN)
    # Of one of 110 it is 66 to 82: what lies after session 72 counts, 250 bars of 32 a query.
    partly = symbol_of(edge_bars("PARTLY_15", sessions=110, seed=2), PLAN)
    counts = [
        len(MetaTraining(data, PLAN, PARENT, [], seed=3).across(each, base).adapted)
        for each in (later, partly)
    ]
    assert counts[0] == (later.window("validation")[1] - later.window("validation")[0]) // 32
    assert 0 < counts[1] < (partly.window("validation")[1] - partly.window("validation")[0]) // 32


def test_bars_after_the_validation_window_of_a_held_out_symbol_change_nothing_those_in_it_do(data, longer):
    base = edge_model(PLAN, stage="moe")
    start, stop = longer.window("validation")
    found = [
        MetaTraining(data, PLAN, PARENT, [], seed=3).across(symbol_of(bars, PLAN), base)
        for bars in (
            longer.bars,
            with_bars_changed_from(longer.bars, stop),
            with_bars_changed_from(longer.bars, start, until=stop),
        )
    ]
    assert found[0].adapted == found[1].adapted
    assert found[0].own_model == found[1].own_model
    assert found[0].adapted != found[2].adapted


def test_across_symbols_the_base_may_be_another_network(data, longer):
    training = MetaTraining(data, PLAN, PARENT, [], seed=3)
    base = edge_model(PLAN, stage="moe")
    assert base.policy_spec == mlp_spec(PLAN)
    wider = replace(base, policy_spec={**base.policy_spec, "hidden": [2]}, weights=_widened(base))
    one, two = training.across(longer, base), training.across(longer, wider)
    assert one.ratio == two.ratio


def _widened(model: StageModel) -> np.ndarray:
    """Return the weights of `edge_model` with a second hidden unit that does nothing."""
    small = model.policy()
    wide = build_policy({**model.policy_spec, "hidden": [2]}, seed=0)
    for parameter in wide.parameters():
        parameter.data.zero_()
    wide.actor.weight_0.data[:, :1] = small.actor.weight_0.data
    wide.actor.weight_1.data[:1] = small.actor.weight_1.data
    wide.actor.bias_1.data[:] = small.actor.bias_1.data
    return wide.flat_parameters().numpy().copy()


def test_where_the_symbols_own_model_earns_nothing_no_ratio_is_made_up(data, longer):
    training = MetaTraining(data, PLAN, PARENT, [], seed=3)
    for follow in (0.0, -1.0):
        found = training.across(longer, edge_model(PLAN, follow=follow, stage="moe"))
        assert found.ratio is None
        assert "OTHER_15 itself earns nothing there" in found.note
