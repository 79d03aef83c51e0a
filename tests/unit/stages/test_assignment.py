"""Is it seen whether it pays who leads when, and is nothing claimed for a gate that has learned nothing?"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from rl.backtest.engine import Replay
from rl.policies.actor_critic import ActorCritic, build_policy
from rl.policies.forward import pack
from rl.stages.assignment import (
    ENOUGH_AS_GOOD,
    AssignmentWorth,
    assignment_worth,
    with_gate_apart,
    with_gate_shifted,
)
from rl.stages.evaluation import replay_on
from rl.stages.symbol_data import SymbolData
from tests.unit.stages.small_symbol import edge_bars, small_plan, symbol_of

PLAN = small_plan()
CAPITAL = 100_000.0
EDGE, MOOD = 0, 1


def market(seed: int = 0, *, mood_matters: bool = True, sessions: int = 200) -> SymbolData:
    """Return a symbol whose x_edge has to be followed in a good mood and opposed in a bad one (or always followed)."""
    bars = edge_bars(sessions=sessions, seed=seed)
    mood = bars.extra["x_regime_mood"]
    edge = bars.extra["x_edge"] * (np.sign(mood) if mood_matters else 1.0)
    return symbol_of(replace(bars, extra={"x_edge": edge, "x_regime_mood": mood}), PLAN)


def mixture(seed: int = 0) -> ActorCritic:
    """Return two experts, one that follows x_edge and one that opposes it, and a gate of random weights."""
    spec = {
        "encoder": "mixture",
        "observations": 7,
        "actions": 3,
        "experts": 2,
        "expert_hidden": [1],
        "gate_hidden": 4,
        "gate_inputs": [MOOD],
        "temperature": 1.0,
        "value_hidden": [1],
    }
    policy = build_policy(spec, seed)
    source = torch.Generator().manual_seed(seed)
    (first, first_bias), (head, head_bias) = policy.actor.expert_layers()
    (_, hidden_bias), (out, bias) = policy.actor.gate.layers()
    with torch.no_grad():
        first.zero_()
        first[:, EDGE, 0] = 1.0
        first_bias.zero_()
        head[0, 0] = torch.tensor([-9.0, 0.0, 9.0])
        head[1, 0] = torch.tensor([9.0, 0.0, -9.0])
        head_bias[:] = torch.tensor([0.0, -9.0, 0.0])
        hidden_bias.normal_(generator=source)
        out.normal_(0.0, 3.0, generator=source)
        bias.normal_(generator=source)
    return policy


def led_by_mood(policy: ActorCritic) -> ActorCritic:
    """Have the follower lead in a good mood, the other in a bad one."""
    (hidden, hidden_bias), (out, bias) = policy.actor.gate.layers()
    with torch.no_grad():
        hidden.fill_(100.0)
        # The scaled mood is 0 at its median, which is not quite where its sign changes; a few sessions lie between.
        hidden_bias.zero_()
        out[:, 0], out[:, 1] = 5.0, -5.0
        bias.zero_()
    return policy


def replayed(data: SymbolData, policy: ActorCritic) -> Replay:
    return replay_on(data, pack(policy), "validation", scheme="target", capital=CAPITAL)


def worth(data: SymbolData, policy: ActorCritic, seed: int = 1, most: int = 59) -> AssignmentWorth:
    rng = np.random.default_rng(seed)
    return assignment_worth(
        data, policy, "validation", replayed(data, policy), scheme="target", rng=rng, most=most
    )


def test_an_assignment_that_earns_is_seen_to_pay():
    found = worth(market(), led_by_mood(mixture()))
    assert found.pays
    assert found.p == 1 / 60
    assert found.shifts == 59
    assert found.as_chosen > found.shifted_high > found.shifted_mean > found.shifted_low
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["pays"] is True


def test_an_assignment_that_follows_the_mood_where_the_mood_does_not_matter_does_not_pay():
    """Its mutual information with the regime is as large as in the test above."""
    ps = [worth(market(seed, mood_matters=False), led_by_mood(mixture()), most=39).p for seed in range(8)]
    assert sum(p < 0.05 for p in ps) <= 1
    assert np.mean(ps) > 0.2


def test_a_gate_that_always_says_the_same_is_worth_nothing():
    policy = mixture()
    with torch.no_grad():
        policy.actor.gate.layers()[-1][0].zero_()
    found = worth(market(), policy)
    assert found.p == 1.0
    assert found.shifts == ENOUGH_AS_GOOD
    assert found.shifted_mean == found.as_chosen


def balanced(policy: ActorCritic, data: SymbolData) -> ActorCritic:
    """Have either expert lead on half the bars; a gate of random weights often has one lead throughout, and p is 1."""
    seen = torch.zeros((len(data.bars), policy.spec["observations"]))
    seen[:, :2] = torch.from_numpy(data.market.features)
    start, stop = data.window("validation")
    with torch.no_grad():
        scores = policy.actor.gate(seen[start:stop, [MOOD]])
        policy.actor.gate.layers()[-1][1][1] += (scores[:, 0] - scores[:, 1]).median()
    return policy


def test_p_is_uniform_for_gates_that_have_learned_nothing():
    """Gates of random weights on as many markets where the edge has to be followed in any mood."""
    count = 60
    ps = []
    for seed in range(count):
        data = market(seed, mood_matters=False, sessions=120)
        ps.append(worth(data, balanced(mixture(seed), data)).p)
    # Of 60 uniform numbers at most 8 lie below .05 and 20 to 40 below .5, but for 1 case in a hundred each.
    assert sum(p < 0.05 for p in ps) <= 8
    assert 20 <= sum(p <= 0.5 for p in ps) <= 40


def test_with_its_own_columns_unshifted_the_mixture_does_bit_for_bit_what_it_did():
    data, policy = market(), mixture(3)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    before = replayed(data, policy)
    rows = np.arange(before.start, before.stop - 1)
    same, moved = (
        replay_on(
            with_gate_shifted(data, policy, rows, shift),
            with_gate_apart(policy),
            "validation",
            scheme="target",
            capital=CAPITAL,
        )
        for shift in (0, 300)
    )
    assert same.equity.tobytes() == before.equity.tobytes()
    assert moved.equity.tobytes() != before.equity.tobytes()


def test_only_the_gates_columns_move_and_only_in_the_window():
    data, policy = market(), mixture()
    start, stop = data.window("validation")
    rows = np.arange(start, stop - 1)
    shifted = with_gate_shifted(data, policy, rows, 7).market.features
    features = data.market.features
    np.testing.assert_array_equal(shifted[:, :2], features)
    np.testing.assert_array_equal(shifted[start + 7 : stop - 1, 2], features[start : stop - 8, MOOD])
    np.testing.assert_array_equal(shifted[start : start + 7, 2], features[stop - 8 : stop - 1, MOOD])
    outside = np.ones(len(features), dtype=bool)
    outside[rows] = False
    np.testing.assert_array_equal(shifted[outside, 2], features[outside, MOOD])


@pytest.mark.parametrize(("p", "said"), [(0.01, True), (0.05, False), (0.3, False)])
def test_paying_needs_a_p_below_five_percent(p, said):
    known = AssignmentWorth(
        as_chosen=0.1, shifted_mean=0.0, shifted_low=-0.1, shifted_high=0.1, p=p, shifts=59
    )
    assert known.pays is said
    assert "returns 10.00 %, and 0.00 % on average" in known.in_words()
