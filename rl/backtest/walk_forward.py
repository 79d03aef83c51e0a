"""Walk-forward: which bars each model is trained on and trades, and the one account all stretches make together.

A fold is a window to train on and, right after it, a stretch its model trades. The next fold lies one stretch later, so
the stretches follow one another without a gap.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from rl.backtest.engine import Replay, replay_actions
from rl.common.errors import DataError, UsageError
from rl.market.bars import Bars, readable_label
from rl.market.checks import counted
from rl.market.splits import FEWEST_BARS, FEWEST_SESSIONS
from rl.trading.kernel import CLOSE_LONG, CLOSE_SHORT, HOLD
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

DAY_NS = 86_400 * 10**9

MOST_FOLDS = 500
"""Each is a whole training; more is a slip of the keyboard."""

FLAT = 1
"""Of the action scheme `target`."""

_LENGTH = re.compile(r"([0-9]{1,6})([a-z%])")
_CALENDAR = {"y": (12, 0), "m": (1, 0), "w": (0, 7), "d": (0, 1)}
"""Months and days of a unit."""

_NAMES = {"y": "year", "m": "month", "w": "week", "d": "day", "s": "session"}

_UNITS = "y, m, w, d (calendar years, months, weeks, days), s (sessions) or % (of all sessions)"


@dataclass(frozen=True)
class Length:
    """A length of time as it was written: `2y`, `250s`, `60%`."""

    count: int
    unit: str

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"

    def in_words(self) -> str:
        """Return it as a reader would say it: `2 years`, `250 sessions`."""
        if self.unit == "%":
            return f"{self.count} % of all sessions"
        return counted(self.count, _NAMES[self.unit])

    @property
    def kind(self) -> str:
        """What it is counted in: `calendar`, `s` or `%`."""
        return "calendar" if self.unit in _CALENDAR else self.unit


@dataclass(frozen=True, kw_only=True)
class WalkForward:
    """How long each model is trained on and how long it then trades."""

    window: Length
    step: Length

    def __str__(self) -> str:
        return f"{self.window}/{self.step}"


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One window and the stretch after it, as rows of the bars."""

    number: int
    """From 1."""
    begin: int
    """First row of the window."""
    start: int
    """First row of the stretch; the window ends before it."""
    stop: int
    """Row after the stretch's last bar."""


def parse_walk_forward(text: str) -> WalkForward:
    """Return what `WINDOW/STEP` says.

    Raises:
        UsageError: It cannot be read, is zero, counts its two lengths in different units, or leaves nothing to trade.
    """
    example = f"write WINDOW/STEP such as 2y/3m, 250s/60s or 50%/10%; units are {_UNITS}"
    parts = [_LENGTH.fullmatch(part.strip()) for part in text.lower().split("/")]
    if len(parts) != 2 or not all(parts):
        raise UsageError(f"--walk-forward {text}: {example}")
    window, step = (Length(int(part[1]), part[2]) for part in parts if part)
    if unknown := [each for each in (window, step) if each.unit not in (*_CALENDAR, "s", "%")]:
        raise UsageError(f"--walk-forward {text}: '{unknown[0].unit}' is no unit; {example}")
    if not (window.count and step.count):
        raise UsageError(f"--walk-forward {text}: WINDOW and STEP have to be above 0; {example}")
    if window.kind != step.kind:
        raise UsageError(
            f"--walk-forward {text}: WINDOW and STEP have to be counted alike: both in calendar units, both in "
            "sessions, or both in percent"
        )
    if window.unit == "%" and window.count + step.count > 100:
        raise UsageError(
            f"--walk-forward {text}: a window of {window} and a stretch of {step} are more than all there is; "
            "their sum may be 100% at most"
        )
    return WalkForward(window=window, step=step)


def folds_of(bars: Bars, usable: np.ndarray, asked: WalkForward) -> tuple[list[Fold], str | None]:
    """Cut bars into folds that begin with whole sessions, oldest first.

    The first window begins with the first session after all features are defined. The last stretch may be shorter than
    the others; too short to judge (2 sessions, 20 bars), it is left out.

    Args:
        bars: All bars of a symbol.
        usable: True where all features are defined. (T,)
        asked: Window and stretch.

    Returns:
        The folds, and a note where bars at the end are left out.

    Raises:
        DataError: The bars hold no window with a stretch after it.
        UsageError: There are more folds than anybody would train.
    """
    session_starts = np.append(0, np.flatnonzero(np.diff(bars.session)) + 1)
    first = int(np.searchsorted(session_starts, np.argmax(usable))) if usable.any() else len(session_starts)
    starts = session_starts[first:]
    window_at, stretch_at = (
        _calendar_cuts(bars, starts, asked)
        if asked.window.kind == "calendar"
        else _counted_cuts(starts, asked)
    )
    found, note = [], None
    for number, (begin, start) in enumerate(zip(window_at, stretch_at, strict=True), start=1):
        if number > MOST_FOLDS:
            raise UsageError(
                f"--walk-forward {asked}: that is more than {MOST_FOLDS} folds of {bars.symbol}, each a whole "
                "training; give a longer STEP"
            )
        stop = stretch_at[number] if number < len(stretch_at) else len(bars)
        if _is_too_short(bars, start, stop):
            note = f"the last {counted(stop - start, 'bar')} are left out: too few for a stretch"
            break
        found.append(Fold(number=number, begin=begin, start=start, stop=stop))
    if not found:
        raise DataError(_nothing_to_trade(bars, starts, asked))
    return found, note


def _nothing_to_trade(bars: Bars, starts: np.ndarray, asked: WalkForward) -> str:
    sessions, since = len(starts), ""
    if sessions:
        since = f", from {readable_label(bars, int(starts[0]))} to {readable_label(bars, len(bars) - 1)}"
    return (
        f"{bars.symbol}: --walk-forward {asked} leaves no stretch to trade. There are {counted(sessions, 'session')} "
        f"with all features{since}; a stretch takes at least {FEWEST_SESSIONS} sessions and {FEWEST_BARS} bars.\n"
        f"  Give a shorter WINDOW, for example {max(1, sessions // 2)}s/{max(2, sessions // 8)}s, or a longer history"
    )


def _counted_cuts(starts: np.ndarray, asked: WalkForward) -> tuple[list[int], list[int]]:
    """Return first rows of windows and of stretches, counted in sessions."""
    sessions = len(starts)
    share = sessions / 100 if asked.window.unit == "%" else 1.0
    # A share falls a hair short of the number meant now and then; the hair must not cost a session.
    window, step = (max(1, int(length.count * share + 1e-9)) for length in (asked.window, asked.step))
    places = range(window, sessions, step)
    return [int(starts[place - window]) for place in places], [int(starts[place]) for place in places]


def _calendar_cuts(bars: Bars, starts: np.ndarray, asked: WalkForward) -> tuple[list[int], list[int]]:
    """Return first rows of windows and of stretches that begin on calendar days (UTC).

    A session belongs to the date it closes on, as in dated splits.
    """
    if not len(starts):
        return [], []
    closes = bars.close_time[np.append(starts[1:], len(bars)) - 1]
    base: Any = pd.Timestamp(np.datetime64(int(closes[0]) // DAY_NS, "D"))
    windows, stretches = [], []
    for number in range(MOST_FOLDS + 1):
        begin = _row_of(base + _offset(asked.step, number), closes, starts)
        start = _row_of(base + _offset(asked.window) + _offset(asked.step, number), closes, starts)
        if begin is None or start is None:
            break
        # Two days without a session between them begin the same stretch; the earlier one had no bar.
        if not stretches or start > stretches[-1]:
            windows.append(begin)
            stretches.append(start)
    return windows, stretches


def _offset(length: Length, times: int = 1) -> pd.DateOffset:
    months, days = _CALENDAR[length.unit]
    return pd.DateOffset(months=months * length.count * times, days=days * length.count * times)


def _row_of(day: pd.Timestamp, closes: np.ndarray, starts: np.ndarray) -> int | None:
    place = int(np.searchsorted(closes, day.as_unit("ns").value, side="right"))
    return int(starts[place]) if place < len(starts) else None


def _is_too_short(bars: Bars, start: int, stop: int) -> bool:
    return stop - start < FEWEST_BARS or len(np.unique(bars.session[start:stop])) < FEWEST_SESSIONS


Act = Callable[[Fold, tuple[int, int], float, TradingRules], Replay]
"""Lets a fold's model trade rows of the whole bars with capital and rules of its own; it starts without a position."""


@dataclass(frozen=True, kw_only=True)
class Stitched:
    """One account over all stretches."""

    replay: Replay
    seams: tuple[float, ...]
    """Money it cost to close what was held at the end of each stretch but the last; 0 where nothing was."""
    held_at_seams: int
    """Seams at which a position was closed."""


def stitched(
    market: MarketArrays,
    rules: TradingRules,
    folds: Sequence[Fold],
    act: Act,
    *,
    scheme: str,
    capital: float,
) -> Stitched:
    """Let every fold's model trade its stretch, and carry the money from one to the next.

    At a seam the position is closed: the last decision of a stretch is to hold nothing, it fills at the open of the
    next stretch's first bar and pays for it, and the next model decides for the first time at that bar's close. A model
    so begins without a position, as in training. Once all decisions are known, one replay of them is the account.

    Args:
        market: Arrays of the whole bars; only prices and where features are defined are used.
        rules: Costs and limits.
        folds: Oldest first, without gaps.
        act: Asks a fold's model.
        scheme: The action scheme.
        capital: Starting capital.
    """
    first, last = folds[0].start, folds[-1].stop
    actions = np.full(last - first - 1, FLAT if scheme == "target" else HOLD, dtype=np.int8)
    money, held_at_seams = capital, 0
    for fold in folds:
        is_last = fold is folds[-1]
        window = (fold.start, fold.stop if is_last else fold.stop + 1)
        # Ruin is a share of what the whole account began with, not of what this stretch begins with.
        own = replace(rules, ruin_level=min(rules.ruin_level * capital / money, 1.0 - 1e-12))
        replay = act(fold, window, money, own)
        decided = replay.actions.copy()
        decided[replay.decisions :] = FLAT if scheme == "target" else HOLD
        if not is_last:
            units = replay.held[-2]
            decided[-1] = _closing(scheme, units)
            held_at_seams += int(units != 0.0)
        actions[fold.start - first : window[1] - 1 - first] = decided
        so_far = _replayed(market, rules, (first, window[1]), actions, scheme, capital)
        money = float(so_far.equity[-1])
        if so_far.was_ruined:
            break
    whole = _replayed(market, rules, (first, last), actions, scheme, capital)
    paid = tuple(float(whole.costs[fold.stop - 1 - first]) for fold in folds[:-1])
    return Stitched(replay=whole, seams=paid, held_at_seams=held_at_seams)


def _closing(scheme: str, units: float) -> int:
    if scheme == "target":
        return FLAT
    return HOLD if units == 0.0 else CLOSE_LONG if units > 0.0 else CLOSE_SHORT


def _replayed(
    market: MarketArrays,
    rules: TradingRules,
    window: tuple[int, int],
    actions: np.ndarray,
    scheme: str,
    capital: float,
) -> Replay:
    steps = window[1] - window[0] - 1
    return replay_actions(market, window, rules, actions[:steps], scheme=scheme, capital=capital)


def only_in(
    stitches: Stitched,
    folds: Sequence[Fold],
    numbers: Sequence[int],
    market: MarketArrays,
    rules: TradingRules,
    scheme: str,
) -> Replay:
    """Return the same decisions in the stretches of some folds, and no position in the others."""
    replay = stitches.replay
    actions = replay.actions.copy()
    for fold in folds:
        if fold.number not in numbers:
            part = slice(fold.start - replay.start, fold.stop - replay.start)
            actions[part] = FLAT if scheme == "target" else HOLD
    return _replayed(market, rules, (replay.start, replay.stop), actions, scheme, replay.capital)
