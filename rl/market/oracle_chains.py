"""Each synthetic market as a Markov chain: all that its best policy needs to know.

A chain has a finite number of states, the expected return of the next bar in each, and a map from the columns a
policy sees to the state. Signals that are normal lie on a grid of cells; a hidden state is replaced by the belief
about it, filtered from the returns so far (Bayes' rule), so no chain knows more than the columns say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.special import ndtr

from rl.common.errors import UsageError
from rl.market.synthetic_formulas import (
    BP,
    MOE4_DIRECTIONS,
    SIGMA,
    bounce_steps,
    drift_per_bar,
    moe_wide_directions,
    task_direction,
)

GRID_POINTS = 241
GRID_REACH = 4.5
"""A standard normal signal lies outside ±4.5 seven times in a million bars; the end cells take that share."""

PLANE_POINTS = 81
"""Cells per feature where two of them have to be followed at once."""

BELIEF_POINTS = 301
QUADRATURE_POINTS = 321

Signals = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class IndependentMoves:
    """Transition of a state made of parts that move independently of each other.

    It stands for the Kronecker product of its parts, which would be too large to write down. States are numbered
    with the last part running fastest.

    Attributes:
        parts: Transition of each part. Each (S_i, S_i)
    """

    parts: tuple[np.ndarray, ...]

    def __matmul__(self, values: np.ndarray) -> np.ndarray:
        """Return the expected value one bar later. (S, K) or (S,), S the product of all S_i"""
        moved = values.reshape(*(len(part) for part in self.parts), -1)
        for axis, part in enumerate(self.parts):
            moved = np.moveaxis(np.tensordot(part, moved, axes=(1, axis)), 0, axis)
        return moved.reshape(values.shape)


Transition = np.ndarray | IndependentMoves


@dataclass(frozen=True)
class SignalChain:
    """A market reduced to what its best policy needs. S signal states.

    Attributes:
        transition: Probability of the next state, rows sum to 1; only ever multiplied from the left. (S, S)
        mean_return_bp: Expected return of the next bar in each state, in bp. (S,)
        state_of: Maps the market's signal columns, each (T,), to state numbers. int (T,)
    """

    transition: Transition
    mean_return_bp: np.ndarray
    state_of: Callable[[Signals], np.ndarray]


# ---- the markets ---------------------------------------------------------------------------------


def _noise_chain(**_formula: float) -> SignalChain:
    """Nothing that can be seen says anything about the next return: one state, mean zero."""
    return _one_state(0.0)


def _noise_drift_chain(*, yearly_drift: float) -> SignalChain:
    """The same with a mean that is not zero: whoever holds on earns it, and costs are paid once."""
    return _one_state(drift_per_bar(yearly_drift) / BP)


def _one_state(mean_return_bp: float) -> SignalChain:
    def state_of(signals: Signals) -> np.ndarray:
        return np.zeros(len(next(iter(signals.values()))), dtype=np.int64)

    return SignalChain(np.ones((1, 1)), np.array([mean_return_bp]), state_of)


def _bounce_chain(*, half_spread_bp: float) -> SignalChain:
    """States are the belief that the last close was at the bid, filtered from the closes.

    The oracle sees the closes only, as a policy does. Whoever knew the side would go long at every bid and short
    at every ask: half the spread h is earned each bar, and half of the bars cost a turn of two units. That is
    max(0, h - cost) a bar, and no policy earns more. So at a cost of h or more, flat is best whatever is seen.
    """
    step = bounce_steps(half_spread_bp)
    # A side is drawn anew whatever it was; the return holds the step from the old side to the new one.
    return _belief_chain(HiddenPair(change=np.full((2, 2), 0.5), mean=step - 1.0, deviation=SIGMA * step))


def _ar1_chain(*, phi: float) -> SignalChain:
    return SignalChain(
        _ar1_transition(phi), SIGMA / BP * phi * _grid(), lambda signals: _cell_of(signals["x_return"])
    )


def _ou_chain(*, a: float) -> SignalChain:
    log_price = _grid() * SIGMA / np.sqrt(1.0 - a**2)
    # A simple return of a price that is log-normal: half the variance comes on top of the pull to the mean.
    mean_return = np.expm1((a - 1.0) * log_price + SIGMA**2 / 2.0)
    return SignalChain(_ar1_transition(a), mean_return / BP, lambda signals: _cell_of(signals["x_level"]))


def _hamilton_chain(*, mu_bp: float, stay: float) -> SignalChain:
    """States are the belief that the hidden drift of the next bar is the positive one."""
    step = 1.0 / (BELIEF_POINTS - 1)
    if not step <= stay <= 1.0 - step:
        raise UsageError(
            f"Oracle of hamilton: with stay {stay:g} the belief comes nearer to certainty than the oracle's grid has "
            f"steps of {step:.4f}: its gain would be wrong. Use a stay between {step:.4f} and {1.0 - step:.4f}."
        )
    drift = mu_bp * BP * np.array([1.0, -1.0])
    return _belief_chain(
        HiddenPair(
            change=np.array([[stay, 1.0 - stay], [1.0 - stay, stay]]),
            mean=np.repeat(drift[:, None], 2, axis=1),
            deviation=np.full((2, 2), SIGMA),
        )
    )


def _planted_chain(*, r2: float, rho: float) -> SignalChain:
    mean_return = SIGMA * np.sqrt(r2) * _grid()
    return SignalChain(_ar1_transition(rho), mean_return / BP, lambda signals: _cell_of(signals["x_f1"]))


def _momrev_chain(*, phi: float, stay: float) -> SignalChain:
    """States are (regime, return): number = regime * GRID_POINTS + cell."""
    by_regime = [_ar1_transition(phi), _ar1_transition(-phi)]
    regime_change = _regime_transition(2, stay)
    transition = np.block(
        [[regime_change[old, new] * by_regime[old] for new in range(2)] for old in range(2)]
    )
    mean_return_bp = SIGMA / BP * np.concatenate([phi * _grid(), -phi * _grid()])

    def state_of(signals: Signals) -> np.ndarray:
        return signals["x_regime"].astype(np.int64) * GRID_POINTS + _cell_of(signals["x_return"])

    return SignalChain(transition, mean_return_bp, state_of)


def _task_chain(*, r2: float, rho: float, theta: float) -> SignalChain:
    """The oracle knows theta. The features along theta are again an AR(1) series of unit variance."""
    return _projected_chain(task_direction(theta), r2=r2, rho=rho)


def _moe_wide_chain(*, r2: float, stay: float) -> SignalChain:
    """White features: the next signal is a new standard normal number, whichever regime is next.

    So neither the regime nor its persistence has any value beyond telling what the signal is now.
    """
    del stay
    return _projected_chain(moe_wide_directions(), r2=r2, rho=0.0)


def _moe4_chain(*, r2: float, rho: float, stay: float) -> SignalChain:
    """White features as in `_moe_wide_chain`; else states are (regime, f1, f2), because after a change of regime
    the feature that did not count until now decides."""
    if rho == 0.0:
        return _projected_chain(MOE4_DIRECTIONS, r2=r2, rho=0.0)
    feature = _ar1_transition(rho, PLANE_POINTS)
    cells = _grid(PLANE_POINTS)
    f1, f2 = np.meshgrid(cells, cells, indexing="ij")
    signal = np.array([first * f1 + second * f2 for first, second in MOE4_DIRECTIONS])

    def state_of(signals: Signals) -> np.ndarray:
        place = (
            signals["x_regime"].astype(np.int64),
            _cell_of(signals["x_f1"], PLANE_POINTS),
            _cell_of(signals["x_f2"], PLANE_POINTS),
        )
        return np.ravel_multi_index(place, signal.shape)

    return SignalChain(
        IndependentMoves((_regime_transition(len(MOE4_DIRECTIONS), stay), feature, feature)),
        SIGMA / BP * np.sqrt(r2) * signal.ravel(),
        state_of,
    )


CHAINS: Mapping[str, Callable[..., SignalChain]] = MappingProxyType(
    {
        "noise_gauss": _noise_chain,
        "noise_garch": _noise_chain,
        "noise_drift": _noise_drift_chain,
        "bounce": _bounce_chain,
        "ar1": _ar1_chain,
        "ou": _ou_chain,
        "hamilton": _hamilton_chain,
        "planted": _planted_chain,
        "momrev": _momrev_chain,
        "moe4": _moe4_chain,
        "moe_wide": _moe_wide_chain,
        "task": _task_chain,
    }
)


# ---- a standard normal signal on a grid ----------------------------------------------------------


def _projected_chain(directions: np.ndarray, *, r2: float, rho: float) -> SignalChain:
    """States are the features along the direction of the present regime: a signal of unit variance.

    Args:
        directions: Unit vector of each regime; more than one only where rho is 0. (G, D)
        r2: Share of the variance the signal explains.
        rho: Coefficient of each feature, and so of the signal.
    """

    def state_of(signals: Signals) -> np.ndarray:
        features = np.column_stack([signals[f"x_f{place}"] for place in range(1, directions.shape[1] + 1)])
        regime = signals["x_regime"].astype(np.int64) if len(directions) > 1 else np.zeros(len(features), int)
        return _cell_of((directions[regime] * features).sum(axis=1))

    return SignalChain(_ar1_transition(rho), SIGMA / BP * np.sqrt(r2) * _grid(), state_of)


def _regime_transition(regimes: int, stay: float) -> np.ndarray:
    """Return the chain of a regime that stays with probability `stay`, else moves to any other alike. (G, G)"""
    others = (1.0 - stay) / (regimes - 1)
    return np.full((regimes, regimes), others) + (stay - others) * np.eye(regimes)


def _grid(points: int = GRID_POINTS) -> np.ndarray:
    """Centres of the cells of a standard normal signal. (points,)"""
    return np.linspace(-GRID_REACH, GRID_REACH, points)


def _cell_of(signal: np.ndarray, points: int = GRID_POINTS) -> np.ndarray:
    """Return the cell each value falls into, the outermost ones taking everything beyond. int (T,)"""
    width = 2.0 * GRID_REACH / (points - 1)
    return np.clip(np.rint((signal + GRID_REACH) / width), 0, points - 1).astype(np.int64)


def _ar1_transition(coefficient: float, points: int = GRID_POINTS) -> np.ndarray:
    """Return the chance that a unit-variance AR(1) signal at a cell's centre is next in each cell. (S, S)"""
    grid = _grid(points)
    width = grid[1] - grid[0]
    innovation = np.sqrt(1.0 - coefficient**2)
    if innovation < 2.0 * width:
        raise UsageError(
            f"A signal with AR(1) coefficient {coefficient:g} moves {innovation:.3g} a bar, but the oracle's "
            f"grid has steps of {width:.3g}: its gain would be wrong. Use a coefficient of at most "
            f"{np.sqrt(1.0 - 4.0 * width**2):.4f}."
        )
    edges = (grid[:-1] + grid[1:]) / 2.0
    below = ndtr((edges[None, :] - coefficient * grid[:, None]) / innovation)
    return np.diff(below, axis=1, prepend=0.0, append=1.0)


# ---- a hidden state, known by its returns --------------------------------------------------------


@dataclass(frozen=True)
class HiddenPair:
    """Two hidden states behind normal returns. Axes: old state, new state; all (2, 2).

    At the close of a bar the market is in the old state; the next return is drawn and the new state is taken.
    Before the first bar both are equally likely, which is their stationary law in every market here.

    Attributes:
        change: Probability of the new state given the old one.
        mean: Mean of the simple return on the way.
        deviation: Its standard deviation.
    """

    change: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    def likelihood(self, returns: np.ndarray) -> np.ndarray:
        """Return how likely each way of change is with each return, up to a factor per return. (T, 2, 2)"""
        distance = (returns[:, None, None] - self.mean) / self.deviation
        log_density = -0.5 * distance**2 - np.log(self.deviation)
        # Only ratios count; measured against the likeliest way, a return far out does not make all of them 0.
        log_density -= log_density.max(axis=(1, 2), keepdims=True)
        return self.change * np.exp(log_density)

    def beliefs(self, returns: np.ndarray) -> np.ndarray:
        """Return the probability of state 0 at each close, given the returns up to and including that bar. (T,)"""
        belief = 0.5
        found = []
        for stay_0, leave_0, leave_1, stay_1 in self.likelihood(returns).reshape(-1, 4).tolist():
            state_0 = belief * stay_0 + (1.0 - belief) * leave_1
            state_1 = belief * leave_0 + (1.0 - belief) * stay_1
            belief = state_0 / (state_0 + state_1)
            found.append(belief)
        return np.array(found)


def _belief_chain(hidden: HiddenPair) -> SignalChain:
    """States are the belief in hidden state 0, on a grid from 0 to 1.

    From each belief the next return is integrated over on each way of change, Bayes' rule gives the next belief, and
    its probability is shared between the two grid points beside it. Equal steps far into both tails integrate a
    normal law to the last digit, so that beliefs are neither gained nor lost, and corners well. (41 Gauss-Hermite
    nodes agree to a hundred-thousandth on hamilton but miss bounce by half a percent: where a new side is drawn
    every bar, nothing smooths the corner that the best action puts into the values.)
    """
    grid = np.linspace(0.0, 1.0, BELIEF_POINTS)
    nodes = np.linspace(-8.0, 8.0, QUADRATURE_POINTS)
    weights = np.exp(-0.5 * nodes**2)
    weights /= weights.sum()
    now = np.stack([grid, 1.0 - grid])  # (2, S)
    transition = np.zeros((BELIEF_POINTS, BELIEF_POINTS))
    for old in range(2):
        for new in range(2):
            likelihood = hidden.likelihood(hidden.mean[old, new] + hidden.deviation[old, new] * nodes)
            after = np.einsum("is,nij->jsn", now, likelihood)  # (2, S, nodes)
            place = after[0] / after.sum(axis=0) * (BELIEF_POINTS - 1)
            below = np.minimum(place.astype(np.int64), BELIEF_POINTS - 2)
            chance = now[old, :, None] * hidden.change[old, new] * weights
            rows = np.broadcast_to(np.arange(BELIEF_POINTS)[:, None], below.shape)
            np.add.at(transition, (rows, below), chance * (below + 1 - place))
            np.add.at(transition, (rows, below + 1), chance * (place - below))
    mean_return_bp = now.T @ (hidden.change * hidden.mean).sum(axis=1) / BP

    def state_of(signals: Signals) -> np.ndarray:
        beliefs = hidden.beliefs(signals["x_return"] * SIGMA)
        return np.rint(beliefs * (BELIEF_POINTS - 1)).astype(np.int64)

    return SignalChain(transition, mean_return_bp, state_of)
