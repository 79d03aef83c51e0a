"""The forward pass for acting, compiled: rollout, evaluation, backtest and service all go through it.

Every output number is one chain of additions: the bias first, then one product per input in the order of
the inputs. The loop over inputs is outside and the loop over outputs inside, so the compiler fills vector
registers with outputs and never reorders a sum. Hence a row alone, the same row in a batch, and a row whose
first layer was begun elsewhere (`first_layer`) agree bit for bit; matrix libraries do not promise that.
Arithmetic is strict float32 (no fast-math): fused multiply-adds would gain 5 % and depend on what the
compiler chose to fuse.

A policy is two arrays, so that one compiled signature serves every policy:
    net    float32, the flat parameters (`spec.parameter_shapes`), then a mixture's temperature
    shape  int64, the header below, then layer widths of actor and critic, then the gate's input columns
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from rl.common.compiled import njit
from rl.common.errors import ConfigError, TrainingDivergedError
from rl.policies.spec import checked_spec, parameter_count, value_hidden

MLP = 0
MIXTURE = 1

# Header of `shape`.
KIND = 0
OBSERVATIONS = 1
ACTIONS = 2
EXPERTS = 3  # 1 for an mlp
LAYERS = 4  # layers of the actor (of each expert), the head counted
WIDTHS = 5  # where the actor's widths begin in `shape`: inputs, then each layer's outputs
CRITIC_LAYERS = 6
CRITIC_WIDTHS = 7
CRITIC = 8  # where the critic begins in `net`
WIDEST = 9  # the widest layer of all
GATE = 10  # where the gate begins in `net`
GATE_HIDDEN = 11
GATE_COUNT = 12  # number of the gate's inputs
GATE_COLUMNS = 13  # where they are listed in `shape`
TEMPERATURE = 14  # where it stands in `net`
HEADER = 15

# Scratch: two layers in turn, then a mixture's gate (E,) and expert log-probabilities (E, A).
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


class HasFlatParameters(Protocol):
    """What `pack` needs of a policy."""

    spec: dict[str, Any]

    def flat_parameters(self) -> Any:
        """Return a copy of every parameter in one float32 tensor."""


@dataclass(frozen=True)
class PackedPolicy:
    """A copy of a policy's weights, ready for the compiled forward pass."""

    shape: np.ndarray
    """Layout, int64; see the module's header."""

    net: np.ndarray
    """Weights, float32."""

    scratch_size: int
    """Least length of the float32 work space a call needs."""

    observations: int
    """Numbers in an observation, D."""

    actions: int
    """Number of actions, A."""

    def scratch(self) -> np.ndarray:
        """Return a new work space; one per thread."""
        return np.empty(self.scratch_size, dtype=np.float32)


def pack(policy: HasFlatParameters) -> PackedPolicy:
    """Return a copy of a policy's weights for the compiled forward pass; training on leaves it as it is."""
    return pack_weights(policy.spec, policy.flat_parameters().numpy())


def pack_weights(spec: dict[str, Any], weights: np.ndarray) -> PackedPolicy:
    """Return what `pack` does, from a spec and its flat parameters, without a torch module.

    Args:
        spec: See `rl.policies.spec`.
        weights: Flat parameters. (P,)

    Raises:
        ConfigError: If the spec is not sound or the number of weights is not its own.
        TrainingDivergedError: If a weight is not finite.
    """
    spec = checked_spec(spec)
    weights = np.ascontiguousarray(weights, dtype=np.float32)
    if weights.shape != (parameter_count(spec),):
        raise ConfigError(
            f"The policy spec asks for {parameter_count(spec)} weights, but {weights.shape} were given."
        )
    # An infinite weight would drive a hidden unit to 1 and leave logits that look sound.
    if not np.isfinite(weights).all():
        bad = np.flatnonzero(~np.isfinite(weights))
        raise TrainingDivergedError(
            f"{len(bad)} of {len(weights)} weights are not finite, the first at position {bad[0]}; nothing can act by "
            "them. Go back to the model before."
        )
    inputs, actions = spec["observations"], spec["actions"]
    is_mixture = spec["encoder"] == "mixture"
    widths = [inputs, *spec["expert_hidden" if is_mixture else "hidden"], actions]
    critic_widths = [inputs, *value_hidden(spec), 1]
    critic_size = sum((a + 1) * b for a, b in pairwise(critic_widths))
    columns = list(spec["gate_inputs"]) if is_mixture else []
    experts = spec["experts"] if is_mixture else 1
    gate_hidden = spec["gate_hidden"] if is_mixture else 0
    actor_size = experts * sum((a + 1) * b for a, b in pairwise(widths))
    widest = max(*widths[1:], *critic_widths[1:], gate_hidden, experts)

    shape = np.zeros(HEADER + len(widths) + len(critic_widths) + len(columns), dtype=np.int64)
    shape[KIND] = MIXTURE if is_mixture else MLP
    shape[OBSERVATIONS] = inputs
    shape[ACTIONS] = actions
    shape[EXPERTS] = experts
    shape[LAYERS] = len(widths) - 1
    shape[WIDTHS] = HEADER
    shape[CRITIC_LAYERS] = len(critic_widths) - 1
    shape[CRITIC_WIDTHS] = HEADER + len(widths)
    shape[CRITIC] = len(weights) - critic_size
    shape[WIDEST] = widest
    shape[GATE] = actor_size
    shape[GATE_HIDDEN] = gate_hidden
    shape[GATE_COUNT] = len(columns)
    shape[GATE_COLUMNS] = HEADER + len(widths) + len(critic_widths)
    shape[TEMPERATURE] = len(weights)
    shape[HEADER:] = [*widths, *critic_widths, *columns]
    temperature = [spec["temperature"]] if is_mixture else []
    return PackedPolicy(
        shape=shape,
        net=np.concatenate([weights, np.array(temperature, dtype=np.float32)]),
        scratch_size=2 * widest + (experts * (1 + actions) if is_mixture else 0),
        observations=inputs,
        actions=actions,
    )


@njit(**_OPTIONS)
def fast_tanh(values, start, count):
    """Replace `count` float32 numbers from `start` on by their tanh, within 4e-7 of the true value.

    An odd rational function of degree 9 over 8, fitted by us to the smallest greatest error on [-9, 9]
    (1.9e-8 before rounding). Beyond 9 the float32 answer is ±1. Not-a-number stays not-a-number.

    Args:
        values: float32, changed in place.
        start: First position.
        count: How many.
    """
    one = np.float32(1.0)
    limit = np.float32(9.0)
    # Unsigned positions: with signed ones numba allows for negative indices, and the loop is not vectorised.
    for i in range(np.uint64(start), np.uint64(start) + np.uint64(count)):
        x = values[i]
        square = x * x
        above = np.float32(1.3184230069116892e-08)
        above = above * square + np.float32(2.0471835893871435e-05)
        above = above * square + np.float32(0.00348658225478055)
        above = above * square + np.float32(0.1337319801204955)
        above = above * square + one
        below = np.float32(7.702666292826744e-07)
        below = below * square + np.float32(0.0003271385953607195)
        below = below * square + np.float32(0.025841980602822116)
        below = below * square + np.float32(0.46706494876276383)
        below = below * square + one
        y = x * above / below
        # Each comparison is false for not-a-number, which therefore passes through.
        y = one if (y > one or x > limit) else y
        y = -one if (y < -one or x < -limit) else y
        values[i] = y


@njit(**_OPTIONS)
def _add_products(net, weight, inputs, first, last, width, out, out_start):
    """Add inputs[first:last] times their rows of weights to out, one input after the other.

    Eight rows a turn only saves reads and writes of `out`; each sum keeps its order.
    """
    u = np.uint64
    n = u(width)
    base = u(weight) + u(first) * n
    o = u(out_start)
    k = u(first)
    stop = u(last)
    while k + u(8) <= stop:
        x0, x1, x2, x3 = inputs[k], inputs[k + u(1)], inputs[k + u(2)], inputs[k + u(3)]
        x4, x5, x6, x7 = inputs[k + u(4)], inputs[k + u(5)], inputs[k + u(6)], inputs[k + u(7)]
        r1 = base + n
        r2 = r1 + n
        r3 = r2 + n
        r4 = r3 + n
        r5 = r4 + n
        r6 = r5 + n
        r7 = r6 + n
        for j in range(n):
            total = out[o + j]
            total += x0 * net[base + j]
            total += x1 * net[r1 + j]
            total += x2 * net[r2 + j]
            total += x3 * net[r3 + j]
            total += x4 * net[r4 + j]
            total += x5 * net[r5 + j]
            total += x6 * net[r6 + j]
            total += x7 * net[r7 + j]
            out[o + j] = total
        base = r7 + n
        k += u(8)
    while k < stop:
        x = inputs[k]
        for j in range(n):
            out[o + j] += x * net[base + j]
        base += n
        k += u(1)


@njit(**_OPTIONS)
def _copy(source, start, count, out, out_start):
    for j in range(np.uint64(count)):
        out[np.uint64(out_start) + j] = source[np.uint64(start) + j]


@njit(**_OPTIONS)
def _finish_layers(shape, net, widths, layers, weight, experts, expert, scratch):
    """Run layers 1, 2, … on the first layer's sums in scratch[0:]; return where the last layer's sums lie.

    Args:
        shape: Layout.
        net: Weights.
        widths: Where the widths begin in `shape`.
        layers: Number of layers, the first counted.
        weight: Where the first layer of all experts begins in `net`.
        experts: Experts that share each layer's block of weights.
        expert: Which of them to run.
        scratch: Work space; its first two blocks of WIDEST numbers are used.
    """
    here = 0
    there = shape[WIDEST]
    for layer in range(1, layers):
        inputs = shape[widths + layer - 1]
        middle = shape[widths + layer]
        outputs = shape[widths + layer + 1]
        fast_tanh(scratch, here, middle)
        weight += experts * (inputs + 1) * middle
        bias = weight + experts * middle * outputs + expert * outputs
        _copy(net, bias, outputs, scratch, there)
        own = weight + expert * middle * outputs
        if here == 0:
            _add_products(net, own, scratch, 0, middle, outputs, scratch, there)
        else:
            _add_products(net, own, scratch[here:], 0, middle, outputs, scratch, there)
        here, there = there, here
    return here


@njit(**_OPTIONS)
def _log_softmax(values, start, count):
    """Replace scores by logarithms of their softmax, in place."""
    highest = values[start]
    for j in range(start + 1, start + count):
        if values[j] > highest:
            highest = values[j]
    total = np.float32(0.0)
    for j in range(start, start + count):
        total += math.exp(values[j] - highest)
    shift = highest + math.log(total)
    for j in range(start, start + count):
        values[j] -= shift


@njit(**_OPTIONS)
def _gate(shape, net, obs_row, scratch, out):
    """Write the logarithm of each expert's weight to scratch[out:]."""
    hidden = shape[GATE_HIDDEN]
    count = shape[GATE_COUNT]
    experts = shape[EXPERTS]
    weight = shape[GATE]
    _copy(net, weight + count * hidden, hidden, scratch, 0)
    for k in range(count):
        column = shape[shape[GATE_COLUMNS] + k]
        _add_products(net, weight + k * hidden, obs_row[column:], 0, 1, hidden, scratch, 0)
    fast_tanh(scratch, 0, hidden)
    weight += (count + 1) * hidden
    _copy(net, weight + hidden * experts, experts, scratch, out)
    _add_products(net, weight, scratch, 0, hidden, experts, scratch, out)
    temperature = net[shape[TEMPERATURE]]
    for e in range(out, out + experts):
        scratch[e] /= temperature
    _log_softmax(scratch, out, experts)


@njit(**_OPTIONS)
def _mix(shape, scratch, logits_out):
    """Write log Σ_e w_e π_e(a) from the logarithms that lie in scratch."""
    experts = shape[EXPERTS]
    actions = shape[ACTIONS]
    gate = 2 * shape[WIDEST]
    proposals = gate + experts
    for a in range(actions):
        highest = scratch[gate] + scratch[proposals + a]
        for e in range(1, experts):
            value = scratch[gate + e] + scratch[proposals + e * actions + a]
            if value > highest:
                highest = value
        total = np.float32(0.0)
        for e in range(experts):
            total += math.exp(scratch[gate + e] + scratch[proposals + e * actions + a] - highest)
        logits_out[a] = highest + math.log(total)


@njit(**_OPTIONS)
def policy_logits_from_prefix(shape, net, prefix_row, prefix_count, obs_row, logits_out, scratch):
    """Write the logits of one observation whose first layer was begun by `first_layer`.

    Args:
        shape: Layout of the packed policy.
        net: Its weights.
        prefix_row: This row of `first_layer`'s result. (E · H,)
        prefix_count: How many leading inputs that result holds. 0: only the bias.
        obs_row: The observation. An mlp reads it from `prefix_count` on; a mixture's gate reads its own
            columns too. (D,)
        logits_out: Where to write; log π(a|s) of a mixture. (A,)
        scratch: Work space of at least `scratch_size`.
    """
    width = shape[shape[WIDTHS] + 1]
    inputs = shape[OBSERVATIONS]
    experts = shape[EXPERTS]
    actions = shape[ACTIONS]
    proposals = 2 * shape[WIDEST] + experts
    for expert in range(experts):
        _copy(prefix_row, expert * width, width, scratch, 0)
        _add_products(net, expert * inputs * width, obs_row, prefix_count, inputs, width, scratch, 0)
        last = _finish_layers(shape, net, shape[WIDTHS], shape[LAYERS], 0, experts, expert, scratch)
        if shape[KIND] == MLP:
            _copy(scratch, last, actions, logits_out, 0)
        else:
            own = proposals + expert * actions
            _copy(scratch, last, actions, scratch, own)
            _log_softmax(scratch, own, actions)
    if shape[KIND] == MIXTURE:
        _gate(shape, net, obs_row, scratch, 2 * shape[WIDEST])
        _mix(shape, scratch, logits_out)


@njit(**_OPTIONS)
def policy_logits(shape, net, obs_row, logits_out, scratch):
    """Write the logits of one observation.

    Args:
        shape: Layout of the packed policy.
        net: Its weights.
        obs_row: The observation, float32. (D,)
        logits_out: Where to write, float32; log π(a|s) of a mixture. (A,)
        scratch: Work space of at least `scratch_size`, float32.
    """
    width = shape[shape[WIDTHS] + 1]
    # The first layer's biases of all experts lie together: they are the prefix of no inputs.
    biases = net[shape[EXPERTS] * shape[OBSERVATIONS] * width :]
    policy_logits_from_prefix(shape, net, biases, 0, obs_row, logits_out, scratch)


@njit(**_OPTIONS)
def policy_value(shape, net, obs_row, scratch):
    """Return the critic's value of one observation, float32.

    Args:
        shape: Layout of the packed policy.
        net: Its weights.
        obs_row: The observation, float32. (D,)
        scratch: Work space of at least `scratch_size`, float32.
    """
    inputs = shape[OBSERVATIONS]
    width = shape[shape[CRITIC_WIDTHS] + 1]
    weight = shape[CRITIC]
    _copy(net, weight + inputs * width, width, scratch, 0)
    _add_products(net, weight, obs_row, 0, inputs, width, scratch, 0)
    widths, layers = shape[CRITIC_WIDTHS], shape[CRITIC_LAYERS]
    return scratch[_finish_layers(shape, net, widths, layers, weight, 1, 0, scratch)]


@njit(**_OPTIONS)
def first_layer(shape, net, features):
    """Return the actor's first layer over the leading inputs only: bias plus one product per given column.

    The market's part of an observation is known for every bar beforehand, the account's part is not. What is
    computed here need not be computed again in a scan over bars.

    Args:
        shape: Layout of the packed policy.
        net: Its weights.
        features: The first F inputs of each observation, float32. (T, F)

    Returns:
        Sums before tanh; a mixture's experts lie side by side. (T, E · H)
    """
    width = shape[shape[WIDTHS] + 1]
    inputs = shape[OBSERVATIONS]
    experts = shape[EXPERTS]
    count = features.shape[1]
    sums = np.empty((features.shape[0], experts * width), dtype=np.float32)
    for t in range(features.shape[0]):
        _copy(net, experts * inputs * width, experts * width, sums[t], 0)
        for expert in range(experts):
            start = expert * width
            _add_products(net, expert * inputs * width, features[t], 0, count, width, sums[t], start)
    return sums


def no_prefix(packed: PackedPolicy) -> np.ndarray:
    """Return what `policy_logits_from_prefix` begins with where nothing is known beforehand: biases. (1, E · H)"""
    shape = packed.shape
    width, experts = shape[shape[WIDTHS] + 1], shape[EXPERTS]
    start = experts * shape[OBSERVATIONS] * width
    return packed.net[start : start + experts * width].reshape(1, -1)


mlp_first_layer = first_layer
"""The name for it where the policy is known to be an mlp."""


@njit(**_OPTIONS)
def _batch(shape, net, obs, logits, values, scratch):
    for i in range(obs.shape[0]):
        policy_logits(shape, net, obs[i], logits[i], scratch)
        values[i] = policy_value(shape, net, obs[i], scratch)


@njit(**_OPTIONS)
def _batch_logits(shape, net, obs, logits, scratch):
    for i in range(obs.shape[0]):
        policy_logits(shape, net, obs[i], logits[i], scratch)


@njit(**_OPTIONS)
def _batch_values(shape, net, obs, values, scratch):
    for i in range(obs.shape[0]):
        values[i] = policy_value(shape, net, obs[i], scratch)


def _checked_observations(packed: PackedPolicy, obs: np.ndarray) -> np.ndarray:
    obs = np.ascontiguousarray(obs, dtype=np.float32)
    if obs.ndim != 2 or obs.shape[1] != packed.observations:
        raise ConfigError(
            f"This policy reads observations of shape (N, {packed.observations}), but was given {obs.shape}."
        )
    return obs


def forward_batch(packed: PackedPolicy, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (N, A) and values (N,) of observations (N, D), float32."""
    obs = _checked_observations(packed, obs)
    logits = np.empty((len(obs), packed.actions), dtype=np.float32)
    values = np.empty(len(obs), dtype=np.float32)
    _batch(packed.shape, packed.net, obs, logits, values, packed.scratch())
    return logits, values


def logits_batch(packed: PackedPolicy, obs: np.ndarray) -> np.ndarray:
    """Return only the logits (N, A) of observations (N, D), float32."""
    obs = _checked_observations(packed, obs)
    logits = np.empty((len(obs), packed.actions), dtype=np.float32)
    _batch_logits(packed.shape, packed.net, obs, logits, packed.scratch())
    return logits


def values_batch(packed: PackedPolicy, obs: np.ndarray) -> np.ndarray:
    """Return only the values (N,) of observations (N, D), float32."""
    obs = _checked_observations(packed, obs)
    values = np.empty(len(obs), dtype=np.float32)
    _batch_values(packed.shape, packed.net, obs, values, packed.scratch())
    return values


@njit(**_OPTIONS)
def _is_allowed(mask, action):
    if mask is None:
        return True
    return mask[action]


@njit(**_OPTIONS)
def _mask_row(mask, row):
    if mask is None:
        return None
    return mask[row]


@njit(**_OPTIONS)
def greedy(logits, mask=None):
    """Return the allowed action with the highest logit, the lowest number among equals.

    Args:
        logits: (A,)
        mask: True where an action is allowed, or None where all are. (A,)

    Returns:
        The action, or -1 if any logit is not finite or no action is allowed: a damaged policy must not
        look like one that chose action 0. The caller raises.
    """
    best = -1
    for a in range(logits.shape[0]):
        if not math.isfinite(logits[a]):
            return -1
        if _is_allowed(mask, a) and (best < 0 or logits[a] > logits[best]):
            best = a
    return best


@njit(**_OPTIONS)
def sample_action(logits, uniform, mask=None):
    """Draw one action from softmax(logits), restricted to allowed actions, by inverse distribution.

    Args:
        logits: float32 (A,)
        uniform: A number in [0, 1).
        mask: True where an action is allowed, or None where all are. (A,)

    Returns:
        The action and its log-probability among the allowed ones. -1 and nan if any logit is not finite or
        no action is allowed; the caller raises.
    """
    likeliest = greedy(logits, mask)
    if likeliest < 0:
        return likeliest, np.nan
    # float64 inside: the sum is over few numbers, and its rounding would show in the ratio of a first epoch.
    highest = np.float64(logits[likeliest])
    total = 0.0
    for a in range(logits.shape[0]):
        if _is_allowed(mask, a):
            total += math.exp(logits[a] - highest)
    threshold = uniform * total
    reached = 0.0
    chosen = likeliest
    for a in range(logits.shape[0]):
        if _is_allowed(mask, a):
            weight = math.exp(logits[a] - highest)
            reached += weight
            # If rounding leaves the last sum a hair below the threshold, the last possible action stands.
            if weight > 0.0:
                chosen = a
                if reached > threshold:
                    break
    return chosen, logits[chosen] - highest - math.log(total)


@njit(**_OPTIONS)
def sample_actions(logits, uniforms, mask=None):
    """Draw one action per row; see `sample_action`.

    Args:
        logits: float32 (N, A)
        uniforms: One number in [0, 1) per row. (N,)
        mask: True where an action is allowed, or None where all are. (N, A)

    Returns:
        Actions, int64 (N,), -1 where none could be drawn, and their log-probabilities, float32 (N,).
    """
    actions = np.empty(logits.shape[0], dtype=np.int64)
    log_probs = np.empty(logits.shape[0], dtype=np.float32)
    for i in range(logits.shape[0]):
        actions[i], log_probs[i] = sample_action(logits[i], uniforms[i], _mask_row(mask, i))
    return actions, log_probs
