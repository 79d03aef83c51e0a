"""The compiled forward pass: the same numbers as torch, and the same bits whichever way a row comes in."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from rl.common.errors import ConfigError, TrainingDivergedError
from rl.policies.actor_critic import ActorCritic, build_policy
from rl.policies.forward import (
    fast_tanh,
    first_layer,
    forward_batch,
    greedy,
    logits_batch,
    pack,
    pack_weights,
    policy_logits,
    policy_logits_from_prefix,
    policy_value,
    sample_actions,
    values_batch,
)


def mlp_spec(observations: int, hidden: list[int]) -> dict:
    return {"encoder": "mlp", "observations": observations, "actions": 3, "hidden": hidden}


def mixture_spec(observations: int, hidden: list[int]) -> dict:
    return {
        "encoder": "mixture",
        "observations": observations,
        "actions": 3,
        "experts": 4,
        "expert_hidden": hidden,
        "gate_hidden": 13,
        "gate_inputs": [0, 2, observations - 1],
        "temperature": 0.8,
        "value_hidden": [9, 21],
    }


def scattered(spec: dict, seed: int = 1) -> ActorCritic:
    """Return a policy whose every weight is away from its start, biases and gate included."""
    policy = build_policy(spec, seed)
    noise = np.random.default_rng(seed).normal(0, 0.3, policy.flat_parameters().shape)
    policy.load_flat(policy.flat_parameters() + torch.tensor(noise, dtype=torch.float32))
    return policy


def rows_of(count: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).normal(0, 1.5, (count, width)).astype(np.float32)


SPECS = [
    pytest.param(spec(width, hidden), id=f"{spec.__name__}-{width}-{hidden}")
    for spec in (mlp_spec, mixture_spec)
    for width, hidden in ((41, [64, 64]), (64, [33, 17]), (7, [5, 128, 19]), (45, [8]))
]


def test_tanh_is_within_a_millionth_of_the_true_value():
    points = np.linspace(-12, 12, 200_001).astype(np.float32)
    found = points.copy()
    fast_tanh(found, 0, len(found))
    assert np.abs(found - np.tanh(points.astype(np.float64))).max() < 1e-6
    assert np.abs(found).max() <= 1.0


def test_tanh_saturates_at_one_and_keeps_what_is_no_number():
    values = np.array([9.5, -9.5, 1e30, -np.inf, 0.0, np.nan], dtype=np.float32)
    fast_tanh(values, 0, len(values))
    np.testing.assert_array_equal(values, np.array([1, -1, 1, -1, 0, np.nan], dtype=np.float32))


def test_tanh_changes_only_the_stretch_it_was_given():
    values = np.ones(5, dtype=np.float32)
    fast_tanh(values, 1, 3)
    assert values[0] == values[4] == 1.0
    assert values[1:4] == pytest.approx([math.tanh(1.0)] * 3, abs=1e-6)


@pytest.mark.parametrize("spec", SPECS)
def test_log_probabilities_and_values_are_those_of_torch(spec):
    policy, rows = scattered(spec), rows_of(200, spec["observations"])
    logits, values = forward_batch(pack(policy), rows)
    with torch.no_grad():
        torch_logits, torch_values = policy(torch.from_numpy(rows))
    found = torch.log_softmax(torch.from_numpy(logits), -1)
    assert (found - torch.log_softmax(torch_logits, -1)).abs().max() < 1e-5
    assert np.abs(values - torch_values.numpy()).max() < 1e-5


@pytest.mark.parametrize("spec", SPECS)
def test_a_row_alone_in_any_batch_and_begun_from_its_features_gives_the_same_bits(spec):
    packed, rows = pack(scattered(spec)), rows_of(67, spec["observations"])
    logits, values = forward_batch(packed, rows)
    shifted_logits, shifted_values = forward_batch(packed, np.ascontiguousarray(rows[3:40]))
    assert shifted_logits.tobytes() == logits[3:40].tobytes()
    assert shifted_values.tobytes() == values[3:40].tobytes()
    assert logits_batch(packed, rows).tobytes() == logits.tobytes()
    assert values_batch(packed, rows).tobytes() == values.tobytes()
    out, scratch = np.empty(3, dtype=np.float32), packed.scratch()
    for count in (1, 4, spec["observations"] - 1, spec["observations"]):
        prefix = first_layer(packed.shape, packed.net, np.ascontiguousarray(rows[:, :count]))
        for i in range(len(rows)):
            policy_logits_from_prefix(packed.shape, packed.net, prefix[i], count, rows[i], out, scratch)
            assert out.tobytes() == logits[i].tobytes()
    for i in range(len(rows)):
        policy_logits(packed.shape, packed.net, rows[i], out, scratch)
        assert out.tobytes() == logits[i].tobytes()
        assert policy_value(packed.shape, packed.net, rows[i], scratch) == values[i]


def test_an_mlp_begun_from_its_features_reads_only_the_rest_of_the_row():
    packed, rows = pack(scattered(mlp_spec(9, [16, 16]))), rows_of(4, 9)
    prefix = first_layer(packed.shape, packed.net, np.ascontiguousarray(rows[:, :6]))
    only_account = rows.copy()
    only_account[:, :6] = 0.0
    out, scratch = np.empty(3, dtype=np.float32), packed.scratch()
    for i, expected in enumerate(logits_batch(packed, rows)):
        policy_logits_from_prefix(packed.shape, packed.net, prefix[i], 6, only_account[i], out, scratch)
        assert out.tobytes() == expected.tobytes()


def test_packing_copies_the_weights():
    policy, rows = scattered(mlp_spec(7, [8, 8])), rows_of(5, 7)
    packed = pack(policy)
    before = logits_batch(packed, rows)
    policy.load_flat(policy.flat_parameters() * 2)
    np.testing.assert_array_equal(logits_batch(packed, rows), before)
    assert np.any(logits_batch(pack(policy), rows) != before)


def test_weights_of_another_length_are_refused():
    with pytest.raises(ConfigError, match="weights"):
        pack_weights(mlp_spec(7, [8, 8]), np.zeros(10, dtype=np.float32))


def test_observations_of_another_width_are_refused():
    packed = pack(scattered(mlp_spec(7, [8, 8])))
    with pytest.raises(ConfigError, match=r"\(N, 7\)"):
        forward_batch(packed, np.zeros((2, 8), dtype=np.float32))


@pytest.mark.parametrize("spec", [mlp_spec(7, [8, 8]), mixture_spec(7, [8, 8])])
def test_one_weight_that_is_no_number_shows_in_the_logits(spec):
    policy = scattered(spec)
    packed = pack_weights(spec, policy.flat_parameters().numpy())
    packed.net[0] = np.nan
    logits = logits_batch(packed, rows_of(3, 7))
    assert not np.isfinite(logits).any()
    assert greedy(logits[0]) == -1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_not_packed(bad):
    """An infinite weight drives a hidden unit to 1 and leaves logits that look sound."""
    weights = scattered(mlp_spec(7, [8, 8])).flat_parameters().numpy()
    weights[3] = bad
    with pytest.raises(
        TrainingDivergedError, match=r"1 of .* weights are not finite, the first at position 3"
    ):
        pack_weights(mlp_spec(7, [8, 8]), weights)


def test_greedy_takes_the_first_of_the_highest():
    assert greedy(np.array([0.1, 0.7, 0.7], dtype=np.float32)) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_greedy_refuses_logits_that_are_not_finite(bad, place):
    logits = np.array([0.1, 0.2, 0.3], dtype=np.float32)
    logits[place] = bad
    assert greedy(logits) == -1


def test_greedy_keeps_to_allowed_actions():
    logits = np.array([0.1, 0.7, 0.3], dtype=np.float32)
    assert greedy(logits, np.array([True, False, True])) == 2
    assert greedy(logits, np.array([False, False, False])) == -1


def test_actions_are_drawn_by_the_inverse_distribution():
    logits = np.log(np.array([[0.2, 0.3, 0.5]] * 6)).astype(np.float32)
    uniforms = np.array([0.0, 0.19, 0.21, 0.49, 0.51, 1.0 - 2**-53])
    actions, log_probs = sample_actions(logits, uniforms)
    assert actions.tolist() == [0, 0, 1, 1, 2, 2]
    assert log_probs == pytest.approx(np.log([0.2, 0.2, 0.3, 0.3, 0.5, 0.5]), abs=1e-6)


def test_the_bounds_between_actions_belong_to_the_upper_one_and_impossible_ones_are_skipped():
    logits = np.array([[0.0, 0.0], [-2000.0, 0.0]], dtype=np.float32)
    actions, _ = sample_actions(logits, np.array([0.5, 0.0]))
    assert actions.tolist() == [1, 1]


def test_forbidden_actions_are_never_drawn_and_their_share_goes_to_the_others():
    logits = np.log(np.array([[0.2, 0.3, 0.5]] * 3)).astype(np.float32)
    mask = np.array([[True, False, True]] * 3)
    actions, log_probs = sample_actions(logits, np.array([0.28, 0.29, 1.0 - 2**-53]), mask)
    # 0.2 / 0.7 = 0.2857 is where action 2 begins.
    assert actions.tolist() == [0, 2, 2]
    assert log_probs == pytest.approx(np.log([2 / 7, 5 / 7, 5 / 7]), abs=1e-6)


def test_the_last_possible_action_is_drawn_where_the_following_ones_cannot_occur():
    logits = np.array([[0.0, -2000.0]], dtype=np.float32)
    actions, log_probs = sample_actions(logits, np.array([1.0 - 2**-53]))
    assert actions.tolist() == [0]
    assert log_probs.tolist() == [0.0]


def test_a_row_that_allows_no_draw_is_marked():
    logits = np.array([[0.0, np.nan], [0.0, 0.0], [0.0, 0.0]], dtype=np.float32)
    actions, log_probs = sample_actions(
        logits, np.full(3, 0.9), np.array([[True, True], [False, False], [True, True]])
    )
    assert actions.tolist() == [-1, -1, 1]
    assert np.isnan(log_probs[:2]).all()
    assert log_probs[2] == pytest.approx(math.log(0.5))


def test_log_probabilities_of_drawn_actions_are_those_of_torch():
    logits = rows_of(500, 5) * 3
    mask = np.random.default_rng(2).random((500, 5)) < 0.6
    mask[:, 2] = True
    actions, log_probs = sample_actions(logits, np.random.default_rng(3).random(500), mask)
    masked = torch.from_numpy(logits).masked_fill(torch.from_numpy(~mask), -torch.inf)
    expected = torch.log_softmax(masked, -1).numpy()[np.arange(500), actions]
    assert mask[np.arange(500), actions].all()
    assert np.abs(log_probs - expected).max() < 1e-5


def test_acting_needs_no_torch():
    """The scan over bars and the service's worker should not pay for its import."""
    code = "import sys, rl.policies.forward; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
