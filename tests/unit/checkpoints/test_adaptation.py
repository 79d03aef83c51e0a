"""Adapting to a stretch of history: rollouts that stay in it, the same bits every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rl.algorithms.adaptation import AdaptationConfig
from rl.checkpoints.adaptation import (
    ROLLOUT_LANES,
    AdaptationRecipe,
    TradingStretch,
    adapted_weights,
    flat_weights,
)
from rl.envs.scaled_market import scaled_market
from rl.policies.actor_critic import ActorCritic, build_policy
from rl.stages.symbol_data import SymbolData
from rl.trading.market_arrays import MarketArrays
from tests.unit.stages.small_symbol import (
    edge_model,
    mlp_spec,
    small_plan,
    small_symbol,
    symbol_of,
    with_bars_changed_from,
)

PLAN = small_plan()
WINDOW = (300, 428)
RECIPE = AdaptationRecipe(config=AdaptationConfig(inner_loop_steps=2), support_bars=128, support_steps=64)


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return small_symbol(PLAN, sessions=40)


@pytest.fixture
def policy() -> ActorCritic:
    return build_policy(mlp_spec(PLAN, (4,)), seed=2)


def stretch(data: SymbolData, window: tuple[int, int] = WINDOW, scheme: str = "target") -> TradingStretch:
    return TradingStretch(
        market=data.market, rules=data.rules, window=window, scheme=scheme, capital=100_000.0
    )


def parameters(policy: ActorCritic) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in policy.named_parameters()}


def step_sizes(policy: ActorCritic, size: float = 0.1) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(size) for name in parameters(policy) if name.startswith("actor.")}


def test_a_rollout_has_as_many_rows_as_steps_over_lanes(data, policy):
    rollout = stretch(data).rollout(policy.spec, parameters(policy), 64, np.random.default_rng(0))
    assert rollout.rewards.shape == (64 // ROLLOUT_LANES, ROLLOUT_LANES)
    assert rollout.obs.shape == (64, 7)
    assert rollout.actions.shape == rollout.log_probs.shape == (64,)
    assert rollout.action_mask.shape == (64, 3)


def test_fewer_steps_than_lanes_use_fewer_lanes_and_at_least_two_rows(data, policy):
    rollout = stretch(data).rollout(policy.spec, parameters(policy), 8, np.random.default_rng(0))
    assert rollout.rewards.shape == (2, 8)


def test_a_rollout_sees_bars_of_its_stretch_only(data, policy):
    """Every market observation is that of a bar inside the window; the last bar is seen, the one after it is not."""
    known = {tuple(row): t for t, row in enumerate(data.market.features.tolist())}
    seen = set()
    for seed in range(30):
        rollout = stretch(data).rollout(policy.spec, parameters(policy), 256, np.random.default_rng(seed))
        for rows in (rollout.obs, rollout.next_obs):
            seen |= {known[tuple(row)] for row in rows[:, :2].tolist()}
    assert min(seen) == WINDOW[0]
    assert max(seen) == WINDOW[1] - 1


def test_the_newest_bars_of_a_stretch_are_seen_as_often_as_those_in_its_middle(data, policy):
    """Bars are what an adaptation learns from, and the newest ones are nearest to where it is used."""
    known = {tuple(row): t for t, row in enumerate(data.market.features.tolist())}
    visits = np.zeros(WINDOW[1] - WINDOW[0] - 1)
    for seed in range(40):
        # 40 decisions in a row, in a stretch with room for 127.
        rollout = stretch(data).rollout(policy.spec, parameters(policy), 640, np.random.default_rng(seed))
        rows = [known[tuple(row)] - WINDOW[0] for row in rollout.obs[:, :2].tolist()]
        visits += np.bincount(rows, minlength=len(visits))
    assert visits.min() > 0.6 * visits.mean()
    assert visits.max() < 1.5 * visits.mean()


def test_the_end_of_a_rollout_is_no_ruin(data, policy):
    rollout = stretch(data).rollout(policy.spec, parameters(policy), 64, np.random.default_rng(0))
    assert rollout.truncated[-1].all()
    assert not rollout.terminated.any()


def test_the_log_probabilities_are_those_of_the_policy_that_acted(data, policy):
    rollout = stretch(data).rollout(policy.spec, parameters(policy), 64, np.random.default_rng(0))
    with torch.no_grad():
        expected = torch.log_softmax(policy.logits(rollout.obs), -1)
    chosen = expected.gather(1, rollout.actions[:, None])[:, 0]
    torch.testing.assert_close(rollout.log_probs, chosen, atol=1e-5, rtol=0)


def test_no_forbidden_action_is_ever_taken(data):
    policy = build_policy({**mlp_spec(PLAN, (4,)), "actions": 5}, seed=2)
    rollout = stretch(data, scheme="orders").rollout(
        policy.spec, parameters(policy), 512, np.random.default_rng(0)
    )
    allowed = rollout.action_mask.gather(1, rollout.actions[:, None])
    assert allowed.all()
    assert not rollout.action_mask.all()


def test_adapting_twice_gives_the_same_bits_and_leaves_the_policy_alone(data, policy):
    before = policy.flat_parameters().clone()
    one, two = (
        adapted_weights(policy, step_sizes(policy), stretch(data), RECIPE, name="EDGE_15") for _ in range(2)
    )
    np.testing.assert_array_equal(one, two)
    torch.testing.assert_close(policy.flat_parameters(), before, atol=0, rtol=0)
    assert (one != before.numpy()).any()


def test_another_symbols_name_draws_other_random_numbers(data, policy):
    one, two = (
        adapted_weights(policy, step_sizes(policy), stretch(data), RECIPE, name=name) for name in ("A", "B")
    )
    assert (one != two).any()


def test_only_the_actor_adapts(data, policy):
    after = adapted_weights(policy, step_sizes(policy), stretch(data), RECIPE, name="EDGE_15")
    critic = sum(value.numel() for name, value in policy.named_parameters() if name.startswith("critic."))
    np.testing.assert_array_equal(after[-critic:], policy.flat_parameters().numpy()[-critic:])


def test_bars_outside_the_stretch_change_no_bit(data, policy):
    """What comes after the support is the span it is adapted for."""
    expected = adapted_weights(policy, step_sizes(policy), stretch(data), RECIPE, name="EDGE_15")
    for changed in (
        with_bars_changed_from(data.bars, WINDOW[1]),
        with_bars_changed_from(data.bars, 1, until=WINDOW[0]),
    ):
        # Scaled as before: what a checkpoint stores does not change with new bars.
        other = symbol_of(changed, PLAN)
        market = TradingStretch(
            market=_scaled_as(data, other),
            rules=data.rules,
            window=WINDOW,
            scheme="target",
            capital=100_000.0,
        )
        np.testing.assert_array_equal(
            adapted_weights(policy, step_sizes(policy), market, RECIPE, name="EDGE_15"), expected
        )


def test_bars_inside_the_stretch_do_change_what_is_learned(data, policy):
    changed = symbol_of(with_bars_changed_from(data.bars, WINDOW[0], until=WINDOW[1]), PLAN)
    other = TradingStretch(
        market=_scaled_as(data, changed), rules=data.rules, window=WINDOW, scheme="target", capital=100_000.0
    )
    one = adapted_weights(policy, step_sizes(policy), stretch(data), RECIPE, name="EDGE_15")
    two = adapted_weights(policy, step_sizes(policy), other, RECIPE, name="EDGE_15")
    assert (one != two).any()


def _scaled_as(data: SymbolData, other: SymbolData) -> MarketArrays:
    return scaled_market(other.bars, other.table, data.feature_names, data.scaler)


def test_a_recipe_written_down_is_the_recipe_read_back():
    recipe = AdaptationRecipe(
        config=AdaptationConfig(inner_loop_steps=3, inner_step_size=0.05, adapt="heads"),
        support_bars=200,
        support_steps=96,
    )
    assert AdaptationRecipe.from_dict(recipe.to_dict()) == recipe


def test_flat_weights_are_the_parameters_laid_end_to_end():
    flat = flat_weights(
        {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.tensor([5.0], dtype=torch.float64)}
    )
    assert flat.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert flat.dtype == np.float32


def test_the_flat_order_is_the_one_a_policy_loads(policy):
    np.testing.assert_array_equal(flat_weights(parameters(policy)), policy.flat_parameters().numpy())
    assert edge_model(PLAN).policy().flat_parameters().numpy().tolist() == edge_model(PLAN).weights.tolist()
