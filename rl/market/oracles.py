"""The best policy of each synthetic market, by dynamic programming on the true state.

Undiscounted: what is maximised is the mean gain per bar over an endless run, in bp (1e-4). A state is
(signal, own position); costs are charged per unit of position change, so the own position matters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.special import ndtr

from rl.common.errors import StagegateError, UsageError
from rl.market.synthetic import SIGMA, SyntheticMarket, resolved_params

BP = 1e-4
GRID_POINTS = 241
GRID_REACH = 4.5
"""A standard normal signal lies outside ±4.5 seven times in a million bars; the end cells take that share."""

LONG_SHORT = (-1, 0, 1)
LONG_ONLY = (0, 1)

GAIN_TOLERANCE_BP = 1e-8
TIE_TOLERANCE_BP = 1e-7
"""Actions closer than this count as equal; of equals the policy keeps its position."""

MAX_SWEEPS = 20_000
"""Three times what the slowest signal the grid can follow needs."""


@dataclass(frozen=True)
class SignalChain:
    """A market reduced to what its best policy needs. S signal states.

    Attributes:
        transition: Probability of the next state, rows sum to 1. (S, S)
        mean_return_bp: Expected return of the next bar in each state, in bp. (S,)
        state_of: Maps the market's signal columns, each (T,), to state numbers. int (T,)
    """

    transition: np.ndarray
    mean_return_bp: np.ndarray
    state_of: Callable[[Mapping[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """The best policy of a market at one cost.

    Attributes:
        market: Name of the market.
        params: Every number of its formula.
        cost_bp: Cost per unit of position change and side, in bp.
        allowed: Positions the policy may take, in the order of `choice`'s columns.
        gain_bp: Mean gain per bar after costs, in bp.
        choice: Column of `allowed` to take in each signal state when holding each position. int8 (S, K)
        state_of: As in `SignalChain`.
    """

    market: str
    params: Mapping[str, float]
    cost_bp: float
    allowed: tuple[int, ...]
    gain_bp: float
    choice: np.ndarray
    state_of: Callable[[Mapping[str, np.ndarray]], np.ndarray]

    def positions(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """Follow the policy along a path, starting flat.

        Args:
            signals: The market's signal columns. Each (T,)

        Returns:
            Position taken at the close of each bar, decided from that bar's signals. int8 (T,)
        """
        held = self.allowed.index(0)
        columns = []
        for row in self.choice[self.state_of(signals)].tolist():
            held = row[held]
            columns.append(held)
        return np.array(self.allowed, dtype=np.int8)[columns]


def solve(market: str, *, cost_bp: float, allowed: Sequence[int] = LONG_SHORT, **params: float) -> Oracle:
    """Return the best policy of a market and what it earns per bar.

    Args:
        market: Name of a row of `rl.market.synthetic.MARKETS`.
        cost_bp: Cost per unit of position change and side, in bp; 0 or more.
        allowed: Positions the policy may take; 0 has to be among them, because it starts flat.
        params: Numbers of the formula that differ from its defaults.

    Raises:
        UsageError: Unknown market or parameter, a negative cost, positions without 0, or a signal that moves
            so little per bar that the grid cannot follow it.
    """
    settings = resolved_params(market, **params)
    if not cost_bp >= 0.0:
        raise UsageError(f"Oracle of {market}: cost_bp has to be 0 or more, but is {cost_bp}.")
    if 0 not in allowed:
        raise UsageError(
            f"Oracle of {market}: the allowed positions have to hold 0, but are {list(allowed)}."
        )
    chain = CHAINS[market](**settings)
    gain, choice = best_policy(chain.transition, chain.mean_return_bp, cost_bp, allowed)
    return Oracle(
        market=market,
        params=settings,
        cost_bp=cost_bp,
        allowed=tuple(allowed),
        gain_bp=gain,
        choice=choice,
        state_of=chain.state_of,
    )


def oracle_of(market: SyntheticMarket, *, cost_bp: float, allowed: Sequence[int] = LONG_SHORT) -> Oracle:
    """Return the best policy of a market that was drawn, with the numbers it was drawn from."""
    return solve(market.name, cost_bp=cost_bp, allowed=allowed, **market.params)


def evaluate_positions(positions: np.ndarray, returns: np.ndarray, cost_bp: float) -> float:
    """Return what a sequence of positions earns per bar after costs, in bp.

    positions[t] is decided at the close of bar t and earns returns[t+1]; every change costs cost_bp per unit,
    the first from flat. The last position earns nothing, because the bar after it is not there, and is not
    charged.

    Args:
        positions: Signed exposure after each close. (T,)
        returns: Simple return of each bar. (T,)
        cost_bp: Cost per unit of change, in bp.
    """
    if len(positions) != len(returns) or len(returns) < 2:
        raise UsageError(
            f"evaluate_positions needs as many positions as returns, and at least 2; "
            f"got {len(positions)} and {len(returns)}."
        )
    held = np.asarray(positions, dtype=np.float64)[:-1]
    changes = np.abs(np.diff(held, prepend=0.0))
    return float(np.mean(held * returns[1:] / BP - cost_bp * changes))


def best_policy(
    transition: np.ndarray, mean_return_bp: np.ndarray, cost_bp: float, allowed: Sequence[int]
) -> tuple[float, np.ndarray]:
    """Solve one chain by relative value iteration (Puterman 1994, Markov Decision Processes, section 8.5).

    Axes: S signal states, K allowed positions. The smallest and the largest change of the values in one sweep
    enclose the optimal gain, so the result is certified to GAIN_TOLERANCE_BP.

    Args:
        transition: Probability of the next state; has to be aperiodic. (S, S)
        mean_return_bp: Expected return of the next bar, in bp. (S,)
        cost_bp: Cost per unit of change, in bp.
        allowed: Positions.

    Returns:
        Gain in bp per bar, and the column of `allowed` to take by state and position held. int8 (S, K)

    Raises:
        StagegateError: The sweeps did not settle, which a periodic chain never does.
    """
    held = np.asarray(allowed, dtype=np.float64)
    move_cost = cost_bp * np.abs(held[:, None] - held[None, :])
    earned = mean_return_bp[:, None] * held[None, :]
    values = np.zeros((len(transition), len(held)))
    for _ in range(MAX_SWEEPS):
        by_target = earned + transition @ values
        swept = (by_target[:, None, :] - move_cost[None, :, :]).max(axis=2)
        change = swept - values
        low, high = change.min(), change.max()
        # Only differences between values matter; anchoring one keeps them from growing without end.
        values = swept - swept[0, 0]
        if high - low < GAIN_TOLERANCE_BP:
            break
    else:
        raise StagegateError(
            f"The oracle's values still differ by {high - low:.3g} bp after {MAX_SWEEPS} sweeps; the "
            f"chain of {len(transition)} states is periodic or mixes too slowly. Choose parameters "
            "further from their limits."
        )
    options = (earned + transition @ values)[:, None, :] - move_cost[None, :, :]
    best = options.argmax(axis=2)
    stay = np.broadcast_to(np.arange(len(held)), best.shape)
    stay_loses = options.max(axis=2) - np.take_along_axis(options, stay[:, :, None], axis=2)[:, :, 0]
    choice = np.where(stay_loses < TIE_TOLERANCE_BP, stay, best)
    return float(low + high) / 2.0, choice.astype(np.int8)


# ---- the markets as chains -----------------------------------------------------------------------


def _noise_chain(**_formula: float) -> SignalChain:
    """Nothing that can be seen says anything about the next return: one state, mean zero."""

    def state_of(signals: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.zeros(len(next(iter(signals.values()))), dtype=np.int64)

    return SignalChain(np.ones((1, 1)), np.zeros(1), state_of)


def _ar1_chain(*, phi: float) -> SignalChain:
    return SignalChain(
        _ar1_transition(phi), SIGMA / BP * phi * _grid(), lambda signals: _cell_of(signals["x_return"])
    )


def _ou_chain(*, a: float) -> SignalChain:
    log_price = _grid() * SIGMA / np.sqrt(1.0 - a**2)
    # A simple return of a price that is log-normal: half the variance comes on top of the pull to the mean.
    mean_return = np.expm1((a - 1.0) * log_price + SIGMA**2 / 2.0)
    return SignalChain(_ar1_transition(a), mean_return / BP, lambda signals: _cell_of(signals["x_level"]))


def _planted_chain(*, r2: float, rho: float) -> SignalChain:
    mean_return = SIGMA * np.sqrt(r2) * _grid()
    return SignalChain(_ar1_transition(rho), mean_return / BP, lambda signals: _cell_of(signals["x_f1"]))


def _momrev_chain(*, phi: float, stay: float) -> SignalChain:
    """States are (regime, return): number = regime * GRID_POINTS + cell."""
    by_regime = [_ar1_transition(phi), _ar1_transition(-phi)]
    regime_change = np.array([[stay, 1.0 - stay], [1.0 - stay, stay]])
    transition = np.block(
        [[regime_change[old, new] * by_regime[old] for new in range(2)] for old in range(2)]
    )
    mean_return_bp = SIGMA / BP * np.concatenate([phi * _grid(), -phi * _grid()])

    def state_of(signals: Mapping[str, np.ndarray]) -> np.ndarray:
        return signals["x_regime"].astype(np.int64) * GRID_POINTS + _cell_of(signals["x_return"])

    return SignalChain(transition, mean_return_bp, state_of)


CHAINS: Mapping[str, Callable[..., SignalChain]] = MappingProxyType(
    {
        "noise_garch": _noise_chain,
        "ar1": _ar1_chain,
        "ou": _ou_chain,
        "planted": _planted_chain,
        "momrev": _momrev_chain,
    }
)


# ---- a standard normal signal on a grid ----------------------------------------------------------


def _grid() -> np.ndarray:
    """Centres of the cells of a standard normal signal. (GRID_POINTS,)"""
    return np.linspace(-GRID_REACH, GRID_REACH, GRID_POINTS)


def _cell_of(signal: np.ndarray) -> np.ndarray:
    """Return the cell each value falls into, the outermost ones taking everything beyond. int (T,)"""
    width = 2.0 * GRID_REACH / (GRID_POINTS - 1)
    return np.clip(np.rint((signal + GRID_REACH) / width), 0, GRID_POINTS - 1).astype(np.int64)


def _ar1_transition(coefficient: float) -> np.ndarray:
    """Return the chance that a unit-variance AR(1) signal at a cell's centre is next in each cell. (S, S)"""
    grid = _grid()
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
