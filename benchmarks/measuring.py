"""Interleaved measurement: every contender in every round, ratios round by round.

Other programs on the machine stretch wall time several times over and processor time hardly at all, so the
rate that counts is work per second of processor time. A ratio is taken within each round, between runs that
lie seconds apart; the median over rounds and the lowest and highest are shown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

Work = Callable[[], float]
"""Does a piece of work and returns how many units it was."""


@dataclass(frozen=True)
class Contender:
    """One way of doing the work."""

    name: str
    work: Work


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Contenders measured together. The first one is what the others are compared with."""

    title: str
    unit: str
    """What is counted, in the plural: steps, bars."""
    contenders: tuple[Contender, ...]
    notes: tuple[str, ...] = ()
    """What a reader has to know to compare fairly."""


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of one number over the rounds."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Return the spread of at least one value."""
        return Spread(median(values), min(values), max(values))


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one contender reached."""

    name: str
    per_cpu_second: Spread
    per_wall_second: Spread
    ratio: Spread
    """Rate by processor time over the first contender's of the same round."""


@dataclass(frozen=True)
class Clocks:
    """Where time is read; replaced in tests. Processor time covers this process and its finished children."""

    wall: Callable[[], float] = time.perf_counter
    cpu: Callable[[], float] = field(default=lambda: time.process_time() + _children_seconds())


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def measure(
    comparison: Comparison, *, rounds: int, least_seconds: float = 0.2, clocks: Clocks | None = None
) -> list[Row]:
    """Run every contender in every round and return one row each, in their order.

    Everybody runs once before the first round, uncounted: compiling and filling caches is not the work.

    Args:
        comparison: Who is measured.
        rounds: Rounds, at least 1. Every round starts with another contender.
        least_seconds: Work is repeated within a round until this much processor time has passed, because
            shorter spans measure the clock.
        clocks: Where time is read.
    """
    clocks = clocks or Clocks()
    contenders = comparison.contenders
    for contender in contenders:
        contender.work()
    rates: list[list[tuple[float, float]]] = [[] for _ in contenders]
    for turn in range(rounds):
        for place in _turned(range(len(contenders)), turn):
            rates[place].append(_rates(contenders[place].work, least_seconds, clocks))
    first = [cpu for cpu, _ in rates[0]]
    return [
        Row(
            name=contender.name,
            per_cpu_second=Spread.of([cpu for cpu, _ in reached]),
            per_wall_second=Spread.of([wall for _, wall in reached]),
            ratio=Spread.of([cpu / base for (cpu, _), base in zip(reached, first, strict=True)]),
        )
        for contender, reached in zip(contenders, rates, strict=True)
    ]


def _turned(places: Iterable[int], turn: int) -> list[int]:
    order = list(places)
    start = turn % len(order)
    return order[start:] + order[:start]


def _rates(work: Work, least_seconds: float, clocks: Clocks) -> tuple[float, float]:
    """Return units per second of processor time and of wall time."""
    units = 0.0
    wall, cpu = clocks.wall(), clocks.cpu()
    while True:
        units += work()
        spent = clocks.cpu() - cpu
        if spent >= least_seconds:
            return units / spent, units / (clocks.wall() - wall)


def table(comparison: Comparison, rows: Sequence[Row]) -> str:
    """Return a comparison's result as text."""
    heads = (comparison.title, f"{comparison.unit} per CPU-s", "lo .. hi", "per wall-s", "ratio", "lo .. hi")
    lines = [heads]
    for row in rows:
        rate, ratio = row.per_cpu_second, row.ratio
        lines.append(
            (
                row.name,
                quantity(rate.median),
                f"{quantity(rate.low)} .. {quantity(rate.high)}",
                quantity(row.per_wall_second.median),
                f"{ratio.median:.3g}x",
                f"{ratio.low:.3g} .. {ratio.high:.3g}",
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    text = []
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        text.append("  ".join(cells).rstrip())
    text.insert(1, "-" * max(map(len, text)))
    return "\n".join([*text, *(f"  {note}" for note in comparison.notes)])


def quantity(value: float) -> str:
    """Return a rate in three digits: 0.52, 9.31, 46.2k, 1.70M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999.5 and above would be written as 1000 of the smaller unit.
        if value >= 0.9995 * size:
            return _three_digits(value / size) + suffix
    return _three_digits(value)


def _three_digits(value: float) -> str:
    for limit, digits in ((9.995, 2), (99.95, 1)):
        if value < limit:
            return f"{value:.{digits}f}"
    return f"{value:.0f}"
