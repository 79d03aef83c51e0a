"""Divide one symbol's bars by time: train, then validation, then promotion, then test."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pandas as pd

from rl.common.errors import ConfigError, DataError
from rl.market.bars import Bars
from rl.market.checks import counted

WINDOW_NAMES = ("train", "validation", "promotion", "test")
"""The windows, oldest first."""

FEWEST_SESSIONS = 2
"""A window's evidence is counted by session, and one session has no spread."""

FEWEST_BARS = 20

LARGEST_EMBARGO_SHARE = 0.2
"""A daily series is short beside the longest look-back; an embargo may take this much of its shortest window."""


@dataclass(frozen=True)
class Window:
    """A run of bars: bar `start` is in it, bar `stop` is not."""

    name: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class SplitPlan:
    """How to divide the bars: by shares, or by the dates at which windows begin."""

    train: float = 0.60
    """Share of the bars that learning uses."""
    validation: float = 0.15
    """Share that stage gates and early stopping look at."""
    promotion: float = 0.10
    """Share that only the promotion of a champion looks at."""
    test: float = 0.15
    """Share that only the backtester looks at."""
    dates: Mapping[str, str] | None = None
    """First day of `validation`, `promotion` and `test`, as 2024-03-28; the shares are then not used. `train`
    may say where the first window begins, `end` the first day that is in no window any more."""

    def problems(self) -> list[str]:
        """Return everything wrong with these values, worded for whoever wrote them."""
        if self.dates is not None:
            return _date_problems(self.dates)
        shares = {name: getattr(self, name) for name in WINDOW_NAMES}
        found = [
            f"{name} has to be above 0, but is {share}" for name, share in shares.items() if not share > 0
        ]
        total = math.fsum(shares.values())
        if not abs(total - 1.0) < 1e-9:
            found.append(f"train + validation + promotion + test has to be 1, but is {total:g}")
        return found


def _date_problems(dates: Mapping[str, str]) -> list[str]:
    found = [f"dates.{name} is missing" for name in WINDOW_NAMES[1:] if name not in dates]
    known = (*WINDOW_NAMES, "end")
    found += [
        f"dates.{name} is no window; windows are {', '.join(known)}" for name in dates if name not in known
    ]
    days: list[tuple[str, date]] = []
    for name in (name for name in known if name in dates):
        try:
            days.append((name, date.fromisoformat(str(dates[name]))))
        except ValueError:
            found.append(f"dates.{name} has to be a date such as 2024-03-28, but is '{dates[name]}'")
    for (earlier, before), (later, after) in itertools.pairwise(days):
        if after <= before:
            found.append(f"dates.{later} ({after}) has to come after dates.{earlier} ({before})")
    return found


@dataclass(frozen=True)
class Splits:
    """The four windows of one symbol. No bar is in two of them, and each is later than the one before."""

    train: Window
    validation: Window
    promotion: Window
    test: Window
    boundaries: dict[str, dict[str, str]]
    """Close of each window's first and last bar: {"train": {"first": ISO UTC, "last": ISO UTC}, …}."""

    @property
    def windows(self) -> tuple[Window, ...]:
        """The four windows, oldest first."""
        return self.train, self.validation, self.promotion, self.test

    @classmethod
    def from_boundaries(cls, bars: Bars, boundaries: Mapping[str, object]) -> Splits:
        """Find stored windows again in bars that may have grown, or lost their oldest part, since.

        Bars that came later belong to no window: the stored ones were all there when the model was judged.

        Args:
            bars: Bars of the same symbol.
            boundaries: `Splits.boundaries`, possibly with other keys beside the windows.

        Raises:
            DataError: A window is not stored, or the bars hold nothing of it.
        """
        windows = []
        for name in WINDOW_NAMES:
            span = boundaries.get(name)
            if not isinstance(span, Mapping) or not {"first", "last"} <= set(span):
                raise DataError(f"{bars.symbol}: the stored split boundaries name no {name} window.")
            first, last = (_nanoseconds(str(span[key])) for key in ("first", "last"))
            start = int(np.searchsorted(bars.close_time, first, side="left"))
            stop = int(np.searchsorted(bars.close_time, last, side="right"))
            if stop <= start:
                raise DataError(
                    f"{bars.symbol}: the data ({_span(bars)}) hold nothing of the {name} window"
                    f" ({span['first']} to {span['last']}). Put the file back that the model was trained on,"
                    " or train again."
                )
            windows.append(Window(name, start, stop))
        return cls(*windows, boundaries=_boundaries(bars, windows))


def split_bars(bars: Bars, plan: SplitPlan, embargo_bars: int) -> Splits:
    """Divide bars into four windows that begin with a session each, with an embargo between them.

    The embargo takes at least `embargo_bars` bars from the beginning of every window but the first, and runs
    on to the next start of a session, so that no feature of a window's bars and no position reaches across.

    Args:
        bars: All bars of the symbol.
        plan: Shares or dates.
        embargo_bars: Bars to leave out; the longest look-back of a feature plus the longest holding time.

    Raises:
        ConfigError: The plan contradicts itself.
        DataError: A window would have fewer than 2 sessions or 20 bars.
    """
    problems = plan.problems()
    if embargo_bars < 0:
        problems.append(f"the embargo has to be at least 0 bars, but is {embargo_bars}")
    if problems:
        raise ConfigError("The data cannot be split as configured:\n  " + "\n  ".join(problems))
    if not len(bars):
        raise DataError(f"{bars.symbol}: there are no bars to split.")
    session_starts = np.append(0, np.flatnonzero(np.diff(bars.session)) + 1)
    cuts = [
        _next_start(session_starts, cut, len(bars))
        for cut in (
            _cuts_by_share(plan, len(bars)) if plan.dates is None else _cuts_by_date(plan.dates, bars)
        )
    ]
    windows = []
    for place, name in enumerate(WINDOW_NAMES):
        start, stop = cuts[place], cuts[place + 1]
        if place:
            start = _next_start(session_starts, start + embargo_bars, len(bars))
        windows.append(Window(name, start, max(start, stop)))
    _require_enough(bars, windows, embargo_bars)
    return Splits(*windows, boundaries=_boundaries(bars, windows))


def split_before(bars: Bars, plan: SplitPlan, embargo_bars: int, test_start: int) -> Splits:
    """Divide the bars before a stretch into train, validation and promotion; the stretch itself is the test window.

    For walk-forward, where stretches follow one another without a gap: the embargo before the stretch is therefore
    taken from the end of promotion, and not from the stretch.

    Args:
        bars: Window and stretch, nothing later.
        plan: Shares of the first three windows, to one another; its share of test and its dates have no part.
        embargo_bars: Bars to leave out between windows.
        test_start: First bar of the stretch, which begins a session.

    Raises:
        ConfigError: The plan contradicts itself.
        DataError: A window would have fewer than 2 sessions or 20 bars.
    """
    if problems := replace(plan, dates=None).problems():
        raise ConfigError("The data cannot be split as configured:\n  " + "\n  ".join(problems))
    session_starts = np.append(0, np.flatnonzero(np.diff(bars.session)) + 1)
    known = math.fsum((plan.train, plan.validation, plan.promotion))
    shares = (plan.train / known, (plan.train + plan.validation) / known)
    cuts = [0, *(int(test_start * share + 1e-6) for share in shares), test_start]
    cuts = [_next_start(session_starts, cut, test_start) for cut in cuts]
    windows = []
    for place, name in enumerate(WINDOW_NAMES[:3]):
        start, stop = cuts[place], cuts[place + 1]
        if place:
            start = _next_start(session_starts, start + embargo_bars, test_start)
        if place == 2:
            whole = int(np.searchsorted(session_starts, stop - embargo_bars, side="right")) - 1
            stop = int(session_starts[max(whole, 0)])
        windows.append(Window(name, start, max(start, stop)))
    windows.append(Window("test", test_start, len(bars)))
    _require_enough(bars, windows, embargo_bars)
    return Splits(*windows, boundaries=_boundaries(bars, windows))


def longest_embargo_before(bars: Bars, plan: SplitPlan, test_start: int) -> int:
    """Return the longest embargo `split_before` can afford, as `longest_embargo` does."""
    windows = split_before(bars, plan, 0, test_start).windows[1:3]
    return int(LARGEST_EMBARGO_SHARE * min(len(window) for window in windows))


def longest_embargo(bars: Bars, plan: SplitPlan) -> int:
    """Return the longest embargo these bars can afford: LARGEST_EMBARGO_SHARE of the shortest later window."""
    windows = split_bars(bars, plan, 0).windows[1:]
    return int(LARGEST_EMBARGO_SHARE * min(len(window) for window in windows))


def _cuts_by_share(plan: SplitPlan, count: int) -> list[int]:
    """Return the bar at which each window would begin, and the end of the last."""
    shares = [plan.train, plan.validation, plan.promotion]
    # Sums such as 0.6 + 0.15 fall a hair short of the number meant; the hair must not cost a bar.
    return [0, *(int(count * math.fsum(shares[:number]) + 1e-6) for number in (1, 2, 3)), count]


def _cuts_by_date(dates: Mapping[str, str], bars: Bars) -> list[int]:
    """Return the first bar of the first session that closes after each date has begun (UTC), and the end.

    A session that opens the evening before, or in Sydney's morning, belongs to the date it closes on.
    """
    last_of_session = np.append(np.flatnonzero(np.diff(bars.session)), len(bars) - 1)
    first_of_session = np.append(0, last_of_session + 1)
    cuts = {"train": 0, "end": len(bars)}
    for name, day in dates.items():
        session = np.searchsorted(bars.close_time[last_of_session], _nanoseconds(str(day)), side="right")
        cuts[name] = int(first_of_session[session])
    return [cuts[name] for name in (*WINDOW_NAMES, "end")]


def _next_start(session_starts: np.ndarray, bar: int, count: int) -> int:
    """Return the first start of a session at or after a bar; the number of bars where there is none."""
    place = int(np.searchsorted(session_starts, bar))
    return int(session_starts[place]) if place < len(session_starts) else count


def _require_enough(bars: Bars, windows: list[Window], embargo_bars: int) -> None:
    """Refuse windows in which nothing could be learned or judged."""
    short = []
    for window in windows:
        sessions = len(np.unique(bars.session[window.start : window.stop]))
        if sessions < FEWEST_SESSIONS or len(window) < FEWEST_BARS:
            short.append(f"{window.name}: {counted(len(window), 'bar')} in {counted(sessions, 'session')}")
    if short:
        raise DataError(
            f"{bars.symbol}: {len(bars):,} bars are too few to split with an embargo of {embargo_bars:,}.\n  "
            + "\n  ".join(short)
            + f"\n  Each window needs at least {FEWEST_SESSIONS} sessions and {FEWEST_BARS} bars."
            " Add data, use shorter bars, change the shares or dates, or set a shorter embargo."
        )


def _boundaries(bars: Bars, windows: list[Window]) -> dict[str, dict[str, str]]:
    return {
        window.name: {
            "first": _iso(bars.close_time[window.start]),
            "last": _iso(bars.close_time[window.stop - 1]),
        }
        for window in windows
    }


def _span(bars: Bars) -> str:
    return f"{_iso(bars.close_time[0])} to {_iso(bars.close_time[-1])}" if len(bars) else "no bars"


def _iso(close_time: np.int64) -> str:
    """Return UTC nanoseconds as text, to the nanosecond where needed: `2022-09-30T10:00:00+00:00`."""
    return pd.Timestamp(int(close_time), unit="ns", tz="UTC").isoformat()


def _nanoseconds(text: str) -> int:
    """Return the instant of an ISO text in UTC nanoseconds; a bare date is its midnight."""
    instant = pd.Timestamp(text)
    return (
        (instant.tz_localize("UTC") if instant.tz is None else instant.tz_convert("UTC")).as_unit("ns").value
    )
