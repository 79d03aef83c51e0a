"""How much a user's own x_ column knows about bars that had not happened yet.

Such a column comes with the file, so it cannot be computed anew from fewer bars. What can be asked is how well it goes
together with what follows, beyond what the prices up to that bar say themselves. A column that knows far more than any
signal ever did was probably joined a bar, or a day, too early.

The figure is a partial rank correlation: column and following return are each freed, by least squares, of what the
prices so far explain (level, the last returns), and the ranks of what is left are correlated (Spearman). Without that
step a column that repeats the price (a mean-reverting level, the last return of a reverting market) would be suspected
for what everybody can see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from rl.features.trailing import lagged
from rl.market.bars import Bars

NEXT_BAR_LIMIT = 0.30
"""Largest partial rank correlation with the next bar's return that is believed: 9 % of its variance, four times what
the strongest planted market of the test suite has (0.14, r2 2 %) and far above any published signal of one bar."""

OWN_SESSION_LIMIT = 0.45
"""The same for a column with one value per session and the rest of that session: 20 % of its variance. A session is one
draw, so a true signal of a whole day may be stronger than that of a bar."""

HORIZONS = (5, 20, 60, 240)
"""Bars ahead over which moves are asked about too: a label of many bars says little of the first of them."""

HORIZON_LIMIT = 0.65
"""The same for the move of so many bars: 42 % of its variance. A label of any length up to 240 bars shows 0.6 to 1 with
one of them; a true signal that lasts adds up as well, and shows up to 0.5 (three times the strongest planted one)."""

CHANCE_DEVIATIONS = 4.5
"""Below so many standard deviations of chance (1 / sqrt(n)) nothing is suspected however large it looks."""

FEWEST_OBSERVATIONS = 30
RETURNS_KNOWN = 20
"""How many of the last returns count as known at a bar."""

OUTLIER_DEVIATIONS = 10.0
"""Rows further than so many median distances from what the prices explain are left out of the second fit."""

SHARE_CONSTANT = 0.95
"""A column with one value in at least this share of the sessions is a daily one."""


@dataclass(frozen=True)
class Foreknowledge:
    """What one column knows of the future."""

    correlation: float | None
    """Partial rank correlation with what follows; None where it cannot be told."""
    limit: float
    """Largest absolute value that is believed, for this number of observations."""
    observations: int
    of: str
    """What follows: `next bar`, `next 20 bars` or `own session`."""
    was_enough: bool = True
    """False where there were too few observations to compare."""

    @property
    def is_suspicious(self) -> bool:
        """True where it knows more than is believed."""
        return self.correlation is not None and abs(self.correlation) > self.limit

    def described(self) -> str:
        """Return the figure beside its limit, as a report says it."""
        if self.correlation is None:
            reason = "says nothing beyond the prices" if self.was_enough else "too few to tell"
            return f"{self.of}: {reason} ({self.observations:,})"
        sign = "above" if self.is_suspicious else "within"
        return f"{self.of}: correlation {self.correlation:+.3f}, {sign} ±{self.limit:.2f} ({self.observations:,})"


def foreknowledge(bars: Bars, column: np.ndarray) -> list[Foreknowledge]:
    """Return how much a column knows of the next bar and, where it is a daily one, of the rest of its own session.

    Of moves over `HORIZONS` only those are told of which it knows too much.

    Args:
        bars: The symbol. (T,)
        column: Its x_ column. (T,)
    """
    found = [_of_next_bars(bars, column, 1, NEXT_BAR_LIMIT)]
    if not bars.is_daily and _is_daily(bars, column):
        found.append(_of_own_session(bars, column))
    further = [_of_next_bars(bars, column, ahead, HORIZON_LIMIT) for ahead in HORIZONS if ahead < len(bars)]
    return found + [one for one in further if one.is_suspicious]


def _scale(bars: Bars) -> np.ndarray:
    """Return closes on a scale whose differences are moves: logs where all prices allow it. (T,)"""
    return np.log(bars.close) if bars.close.min() > 0 else bars.close


def _of_next_bars(bars: Bars, column: np.ndarray, ahead: int, limit: float) -> Foreknowledge:
    price = _scale(bars)
    move = np.diff(price, prepend=np.nan)
    known = np.column_stack([price, *(lagged(move, lag) for lag in range(RETURNS_KNOWN))])
    following = price[ahead:] - price[:-ahead]
    what = "next bar" if ahead == 1 else f"next {ahead} bars"
    return _compared(column[:-ahead], following, known[:-ahead], limit, what, bars_of_each=ahead)


def _of_own_session(bars: Bars, column: np.ndarray) -> Foreknowledge:
    """Compare each session's value with the move from its first close to its last."""
    first, last = _session_edges(bars)
    is_long = last > first
    price = _scale(bars)
    rest = price[last] - price[first]
    before = np.concatenate([[np.nan], price[last][:-1]])
    known = np.column_stack(
        [price[first], before, lagged(before, 1), np.concatenate([[np.nan], column[first][:-1]])]
    )
    return _compared(column[first][is_long], rest[is_long], known[is_long], OWN_SESSION_LIMIT, "own session")


def _session_edges(bars: Bars) -> tuple[np.ndarray, np.ndarray]:
    changes = np.flatnonzero(np.diff(bars.session))
    return np.append(0, changes + 1), np.append(changes, len(bars) - 1)


def _is_daily(bars: Bars, column: np.ndarray) -> bool:
    """Return True for one value per session, and not one value for all."""
    first, last = _session_edges(bars)
    moves_inside = np.concatenate([[0.0], np.diff(column) != 0.0])
    moves_inside[first] = 0.0
    moved = np.add.reduceat(moves_inside, first) > 0
    is_long = last > first
    if is_long.sum() < FEWEST_OBSERVATIONS or np.all(column == column[0]):
        return False
    return float(np.mean(~moved[is_long])) >= SHARE_CONSTANT


def _compared(
    column: np.ndarray,
    following: np.ndarray,
    known: np.ndarray,
    plausible: float,
    of: str,
    *,
    bars_of_each: int = 1,
) -> Foreknowledge:
    """Return the partial rank correlation of a column with what follows, over the rows that are complete.

    Args:
        column: What may know too much. (n,)
        following: What came after. (n,)
        known: What was known from the prices. (n, k)
        plausible: Largest correlation believed on many observations.
        of: What follows, in words.
        bars_of_each: Bars that each move covers; moves that overlap are so many times fewer draws.
    """
    complete = np.isfinite(column) & np.isfinite(following) & np.isfinite(known).all(axis=1)
    count = int(complete.sum())
    limit = max(plausible, CHANCE_DEVIATIONS * float(np.sqrt(bars_of_each / max(1, count))))
    if count < FEWEST_OBSERVATIONS + known.shape[1]:
        return Foreknowledge(None, limit, count, of, was_enough=False)
    left = [_freed(values[complete], known[complete]) for values in (column, following)]
    correlation = None
    if left[0] is not None and left[1] is not None:
        correlation = float(np.corrcoef(rankdata(left[0]), rankdata(left[1]))[0, 1])
    return Foreknowledge(correlation, limit, count, of)


def _freed(values: np.ndarray, known: np.ndarray) -> np.ndarray | None:
    """Return what `known` does not explain of `values`; None where that is nothing but rounding. (n,)"""
    spread = known.std(axis=0)
    useful = known[:, spread > 0]
    design = np.column_stack([np.ones(len(values)), (useful - useful.mean(axis=0)) / useful.std(axis=0)])
    centred = values - values.mean()
    size = float(np.abs(centred).max())
    if size == 0.0:
        return None
    rest = centred
    within = np.ones(len(values), dtype=np.bool_)
    # A few wild rows, such as zeros before a series begins, would decide the fit; the second one leaves them out.
    for _ in range(2):
        solution, *_ = np.linalg.lstsq(design[within], centred[within], rcond=None)
        rest = centred - design @ solution
        distance = np.abs(rest - np.median(rest))
        within = distance <= OUTLIER_DEVIATIONS * max(float(np.median(distance)), 1e-9 * size)
    # Numbers that lstsq explains to the last digits leave rounding, whose ranks mean nothing.
    return rest if float(np.median(np.abs(rest))) > 1e-9 * size or float(rest.std()) > 1e-6 * size else None
