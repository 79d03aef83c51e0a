"""The best policy of each synthetic market, by dynamic programming on the true state.

Undiscounted: what is maximised is the mean gain per bar over an endless run, in bp (1e-4). A state is
(signal, own position); costs are charged per unit of position change, so the own position matters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rl.common.errors import StagegateError, UsageError
from rl.market.oracle_chains import CHAINS, SignalChain, Signals, Transition
from rl.market.synthetic import SyntheticMarket, resolved_params
from rl.market.synthetic_formulas import BP

LONG_SHORT = (-1, 0, 1)
LONG_ONLY = (0, 1)

GAIN_TOLERANCE_BP = 1e-8
TIE_TOLERANCE_BP = 1e-7
"""Actions closer than this count as equal; of equals the policy keeps its position."""

MAX_SWEEPS = 20_000
"""Three times what the slowest signal the grid can follow needs."""


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
    state_of: Callable[[Signals], np.ndarray]

    def positions(self, signals: Signals) -> np.ndarray:
        """Follow the policy along a path, starting flat.

        Args:
            signals: The market's signal columns. Each (T,)

        Returns:
            Position taken at the close of each bar, decided from that bar's signals. int8 (T,)
        """
        return _followed(self.choice[self.state_of(signals)], self.allowed)


@dataclass(frozen=True, kw_only=True)
class SessionOracle:
    """The best policy of a market at one cost for a trader who is flat at the close of every session.

    The first decision is made at the close of a session's first bar and the position of its last bar is flat, so of
    B bars B - 1 can earn. The market itself runs on from one session to the next.

    Attributes:
        market: Name of the market.
        params: Every number of its formula.
        cost_bp: Cost per unit of position change and side, in bp.
        allowed: Positions the policy may take, in the order of `choice`'s last axis.
        bars_per_session: Bars of a session, B.
        gain_bp: Mean gain per bar after costs, over all B bars of a session, in bp.
        choice: Column of `allowed` to take at each bar of a session, in each signal state, when holding each
            position. int8 (B, S, K)
        state_of: As in `SignalChain`.
    """

    market: str
    params: Mapping[str, float]
    cost_bp: float
    allowed: tuple[int, ...]
    bars_per_session: int
    gain_bp: float
    choice: np.ndarray
    state_of: Callable[[Signals], np.ndarray]

    def positions(self, signals: Signals) -> np.ndarray:
        """Follow the policy along a path that begins with the first bar of a session, starting flat.

        Args:
            signals: The market's signal columns. Each (T,)

        Returns:
            Position taken at the close of each bar, 0 at the last of each session. int8 (T,)
        """
        states = self.state_of(signals)
        return _followed(self.choice[np.arange(len(states)) % self.bars_per_session, states], self.allowed)


def _followed(columns: np.ndarray, allowed: tuple[int, ...]) -> np.ndarray:
    """Return the positions taken, starting flat.

    Args:
        columns: Column of `allowed` to take at each bar when holding each position. (T, K)
        allowed: Positions.
    """
    held = allowed.index(0)
    taken = []
    for row in columns.tolist():
        held = row[held]
        taken.append(held)
    return np.array(allowed, dtype=np.int8)[taken]


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
    chain = _checked_chain(market, settings, cost_bp, allowed)
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


def solve_sessions(
    market: str,
    *,
    cost_bp: float,
    allowed: Sequence[int] = LONG_SHORT,
    bars_per_session: int = 187,
    **params: float,
) -> SessionOracle:
    """Return the best policy of a market for a trader who is flat at every close of a session.

    Args:
        market: Name of a row of `rl.market.synthetic.MARKETS`.
        cost_bp: Cost per unit of position change and side, in bp; 0 or more.
        allowed: Positions the policy may take; 0 has to be among them.
        bars_per_session: Bars of a session, at least 2.
        params: Numbers of the formula that differ from its defaults.

    Raises:
        UsageError: As `solve`, or a session of fewer than 2 bars.
    """
    settings = resolved_params(market, **params)
    if bars_per_session < 2:
        raise UsageError(
            f"Oracle of {market}: a session has to have at least 2 bars, one to decide at and one to earn, "
            f"but has {bars_per_session}."
        )
    chain = _checked_chain(market, settings, cost_bp, allowed)
    gain, choice = best_session_policy(
        chain.transition, chain.mean_return_bp, cost_bp, allowed, bars_per_session
    )
    return SessionOracle(
        market=market,
        params=settings,
        cost_bp=cost_bp,
        allowed=tuple(allowed),
        bars_per_session=bars_per_session,
        gain_bp=gain,
        choice=choice,
        state_of=chain.state_of,
    )


def _checked_chain(
    market: str, settings: Mapping[str, float], cost_bp: float, allowed: Sequence[int]
) -> SignalChain:
    if not cost_bp >= 0.0:
        raise UsageError(f"Oracle of {market}: cost_bp has to be 0 or more, but is {cost_bp}.")
    if 0 not in allowed:
        raise UsageError(
            f"Oracle of {market}: the allowed positions have to hold 0, but are {list(allowed)}."
        )
    return CHAINS[market](**settings)


def oracle_of(market: SyntheticMarket, *, cost_bp: float, allowed: Sequence[int] = LONG_SHORT) -> Oracle:
    """Return the best policy of a market that was drawn, with the numbers it was drawn from."""
    return solve(market.name, cost_bp=cost_bp, allowed=allowed, **market.params)


def session_oracle_of(
    market: SyntheticMarket, *, cost_bp: float, allowed: Sequence[int] = LONG_SHORT
) -> SessionOracle:
    """Return the best policy that is flat at every close of a session, for a market that was drawn."""
    return solve_sessions(
        market.name,
        cost_bp=cost_bp,
        allowed=allowed,
        bars_per_session=market.bars_per_session,
        **market.params,
    )


def evaluate_positions(positions: np.ndarray, returns: np.ndarray, cost_bp: float) -> float:
    """Return what a sequence of positions earns per bar after costs, in bp; the mean of `earned_by_bar`."""
    return float(np.mean(earned_by_bar(positions, returns, cost_bp)))


def earned_by_bar(positions: np.ndarray, returns: np.ndarray, cost_bp: float) -> np.ndarray:
    """Return what a sequence of positions earns in each bar after costs, in bp. (T - 1,)

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
    return held * returns[1:] / BP - cost_bp * changes


def best_policy(
    transition: Transition, mean_return_bp: np.ndarray, cost_bp: float, allowed: Sequence[int]
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
    values = np.zeros((len(mean_return_bp), len(held)))
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
            f"chain of {len(mean_return_bp)} states is periodic or mixes too slowly. Choose parameters "
            "further from their limits."
        )
    options = (earned + transition @ values)[:, None, :] - move_cost[None, :, :]
    return float(low + high) / 2.0, _best_or_keep(options)


def best_session_policy(
    transition: Transition,
    mean_return_bp: np.ndarray,
    cost_bp: float,
    allowed: Sequence[int],
    bars_per_session: int,
) -> tuple[float, np.ndarray]:
    """Solve one chain for sessions that begin and end flat, backwards from the last bar (Puterman 1994, section 4.5).

    A session starts in whatever state the chain happens to be in: its value is weighed by the chain's stationary law.
    Axes: B bars of a session, S signal states, K allowed positions.

    Args:
        transition: Probability of the next state; has to be aperiodic. (S, S)
        mean_return_bp: Expected return of the next bar, in bp. (S,)
        cost_bp: Cost per unit of change, in bp.
        allowed: Positions, 0 among them.
        bars_per_session: B, at least 2.

    Returns:
        Gain in bp per bar, over all B bars, and the column of `allowed` to take by bar, state and position held.
        int8 (B, S, K)
    """
    held = np.asarray(allowed, dtype=np.float64)
    flat = list(allowed).index(0)
    move_cost = cost_bp * np.abs(held[:, None] - held[None, :])
    earned = mean_return_bp[:, None] * held[None, :]
    # At the last close there is one choice, and what it costs depends on the position only.
    values = np.broadcast_to(-move_cost[:, flat], earned.shape)
    choices = [np.full(earned.shape, flat, dtype=np.int8)]
    for _ in range(bars_per_session - 1):
        options = (earned + transition @ values)[:, None, :] - move_cost[None, :, :]
        choices.append(_best_or_keep(options))
        values = options.max(axis=2)
    return _stationary_mean(transition, values[:, flat]) / bars_per_session, np.stack(choices[::-1])


def _best_or_keep(options: np.ndarray) -> np.ndarray:
    """Return the best column by state and position held; of columns as good as keeping the position, that one.

    Args:
        options: Value by state, position held and position taken. (S, K, K)
    """
    best = options.argmax(axis=2)
    stay = np.broadcast_to(np.arange(options.shape[2]), best.shape)
    stay_loses = options.max(axis=2) - np.take_along_axis(options, stay[:, :, None], axis=2)[:, :, 0]
    return np.where(stay_loses < TIE_TOLERANCE_BP, stay, best).astype(np.int8)


def _stationary_mean(transition: Transition, values: np.ndarray) -> float:
    """Return the mean of `values` (S,) over the chain's stationary law.

    What is expected of a state far ahead no longer depends on where one starts; then it is that mean.
    """
    for _ in range(MAX_SWEEPS):
        if values.max() - values.min() < GAIN_TOLERANCE_BP:
            return float(values.max() + values.min()) / 2.0
        values = transition @ values
    raise StagegateError(
        f"After {MAX_SWEEPS} bars the chain of {len(values)} states still remembers where it started; it is "
        "periodic or mixes too slowly. Choose parameters further from their limits."
    )
