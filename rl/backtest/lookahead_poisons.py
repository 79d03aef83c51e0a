"""Other futures for the look-ahead check: the same raw file up to a bar, and something else after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from rl.market import raw_times
from rl.market.bars import Bars
from rl.market.raw_table import PRICES, RawTable

DROPPED_SHARE = 0.1
"""Share of the later rows that the altered file leaves out, so that holes and session ends fall elsewhere."""

PRICE_SPREAD = 0.02
"""Standard deviation of the factor on each later row's prices; the level moves by twice as much."""

DAY_NS = 86_400 * 10**9


@dataclass(frozen=True)
class RawSeries:
    """A raw file and which bar each of its rows became."""

    table: RawTable
    bar_of_row: np.ndarray
    """Bar of each row; a row left out by a check belongs to the first bar after it. (R,) int64"""
    session_of_row: np.ndarray
    """Session of that bar. (R,) int64"""
    first_of_row: np.ndarray
    """Row this one repeats in time and every number; its own where it repeats none. (R,) int64"""

    @classmethod
    def of(cls, table: RawTable, bars: Bars) -> RawSeries:
        """Find the rows of a file again in the bars read from it, by their labels."""
        place = {label: bar for bar, label in enumerate(bars.label)}
        bar = np.array([place.get(label, -1) for label in table.label], dtype=np.int64)
        kept = bar >= 0
        if not kept.all():
            wall = raw_times.parse_times(table.label, naive_is_utc=table.naive_is_utc).wall
            order = np.argsort(bar[kept], kind="stable")
            after = np.searchsorted(np.maximum.accumulate(wall[kept][order]), wall[~kept], side="left")
            bar[~kept] = np.append(bar[kept][order], len(bars))[after]
        session = np.append(bars.session, bars.session[-1] + 1)[bar].astype(np.int64)
        return cls(table, bar, session, _first_of_row(table))

    def fresh_table(self) -> RawTable:
        """Return a copy that may be used up."""
        return replace(self.table.rows(np.arange(len(self.table))), notes=[])


def _first_of_row(table: RawTable) -> np.ndarray:
    _, first, group = np.unique(table.label.astype(str), return_index=True, return_inverse=True)
    original = first[group]
    is_same = np.all([values == values[original] for values in table.numbers.values()], axis=0)
    return np.where(is_same, original, np.arange(len(table)))


def altered(series: RawSeries, cut: int, rng: np.random.Generator) -> RawTable:
    """Return the file with other numbers after bar `cut`: shuffled, then moved; the session's rest is missing."""
    table = shuffled(series, cut, rng)
    later = series.bar_of_row > cut
    count = int(later.sum())
    factor = np.exp(rng.normal(2.0 * PRICE_SPREAD, PRICE_SPREAD, count))
    for name, values in table.numbers.items():
        if name in PRICES:
            values[later] *= factor
        elif name == "volume":
            values[later] *= np.exp(rng.standard_normal(count))
        else:
            finite = values[np.isfinite(values)]
            values[later] += (float(np.std(finite)) or 1.0) * rng.standard_normal(count)
    _repeat(table, series)
    cut_rows = np.flatnonzero(series.bar_of_row == cut)
    is_rest_of_session = later & (series.session_of_row == series.session_of_row[cut_rows[0]])
    is_dropped = later & (is_rest_of_session | (rng.random(len(later)) < DROPPED_SHARE))
    return table.rows(~is_dropped)


def shuffled(series: RawSeries, cut: int, rng: np.random.Generator) -> RawTable:
    """Return the file with the numbers of all rows after bar `cut` in another order; times stay."""
    table = series.fresh_table()
    movable = series.bar_of_row > cut
    for found in table.texts.values():
        movable[list(found)] = False
    rows = np.flatnonzero(movable)
    order = rng.permutation(rows)
    for values in table.numbers.values():
        values[rows] = values[order]
    _repeat(table, series)
    return table


def _repeat(table: RawTable, series: RawSeries) -> None:
    """Let rows that repeated another one do so again; as two different bars of one time they would be refused."""
    for values in table.numbers.values():
        values[:] = values[series.first_of_row]


def deleted(series: RawSeries, cut: int, rng: np.random.Generator) -> RawTable:  # noqa: ARG001 - one signature for all
    """Return the file as it was at bar `cut`: what was known then, and nothing else."""
    return series.table.rows(series.bar_of_row <= cut)


Poison = Callable[[RawSeries, int, np.random.Generator], RawTable]

POISONS: Mapping[str, Poison] = MappingProxyType(
    {"altered": altered, "shuffled": shuffled, "deleted": deleted}
)
"""What may happen to the bars after a cut. `deleted` is the prefix: everything is computed anew from the first
bars alone."""


def chosen_cuts(
    bars: Bars, count: int, rng: np.random.Generator, *, first: int, warm_up_bars: int
) -> list[int]:
    """Return bars to cut after: spread over the data, and where faults like to hide.

    Those places are the warm-up, the last bar of a session, the first of one, and the last bar before a hole.

    Args:
        bars: The symbol. (T,)
        count: How many cuts; fewer only where there are not so many bars.
        rng: Decides the places.
        first: Earliest bar to cut after.
        warm_up_bars: Bars before the features are defined.
    """
    last = len(bars) - 2
    candidates = np.arange(first, last + 1)
    if len(candidates) <= count:
        return candidates.tolist()
    ends = candidates[bars.session[candidates] != bars.session[candidates + 1]]
    step = np.diff(bars.close_time)[candidates]
    same_session = bars.session[candidates] == bars.session[candidates + 1]
    longer = np.where(same_session, step > np.median(step), step > 5 * DAY_NS)
    kinds = [
        candidates[candidates < warm_up_bars - 1],
        ends,
        ends[ends + 1 <= last] + 1,
        candidates[longer],
    ]
    special = [int(rng.choice(places)) for places in kinds if len(places)][: max(0, count // 2)]
    chosen = set(special)
    for part in np.array_split(candidates, count - len(chosen)):
        free = np.setdiff1d(part, list(chosen))
        if len(free):
            chosen.add(int(rng.choice(free)))
    return sorted(chosen)
