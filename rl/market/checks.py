"""The checks a raw file goes through: what each one means, what happens by default, and what to do about it.

A policy is `error` (refuse the file), `drop` (leave the rows out, count them) or `warn` (keep them, say so).
Where a bar would be meaningless if kept, `warn` is not offered; where leaving rows out would not help, `drop`
is not. An instrument chooses its own policy with `checks: {name: policy}`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rl.common.errors import DataError, nearest

ROWS_LISTED = 3
"""How many offending rows a message shows; it always gives the count of all."""

ROWS_LISTED_IN_NOTES = 2


@dataclass(frozen=True)
class Check:
    """One thing that can be wrong with a raw file."""

    default: str
    """Policy where the instrument names none."""
    allowed: tuple[str, ...]
    """Policies that make sense for it."""
    rule: str
    """What has to hold, as one sentence."""
    correction: str
    """What the owner of the file can do about it, as the start of a sentence."""


_ROWS = ("error", "drop")
_ROWS_OR_KEEP = ("error", "drop", "warn")
_SERIES = ("error", "warn")

CHECKS: dict[str, Check] = {
    "unfinished_line": Check(
        "drop",
        _ROWS_OR_KEEP,
        "Every line ends with a line end; a last line without one may lack the end of its last number.",
        "Fetch the file again when it is complete",
    ),
    "repeated_header": Check(
        "drop",
        _ROWS,
        "A header stands above the bars once; files joined end to end repeat it.",
        "Remove the line",
    ),
    "field_count": Check(
        "error",
        _ROWS,
        "Every line has as many fields as the header; else numbers stand under the names of others.",
        "Correct the rows",
    ),
    "unparseable_time": Check(
        "error",
        _ROWS,
        "A time is ISO text with the year first, or a count of s, ms, us or ns since 1970.",
        "Correct the rows",
    ),
    "time_columns": Check(
        "error",
        _ROWS_OR_KEEP,
        "Where a second column names the time too, the two are equally far apart in every row.",
        "Correct the rows or remove the wrong column",
    ),
    "text_value": Check(
        "error",
        _ROWS,
        "Prices, volumes and x_ columns are plain numbers: a decimal point, no currency or thousands signs.",
        "Correct the rows",
    ),
    "missing_value": Check(
        "error",
        _ROWS,
        "Every bar needs a finite open, high, low, close and value of each x_ column; nothing is filled in.",
        "Correct the rows",
    ),
    "non_positive_price": Check(
        "error",
        _ROWS,
        "A price has to be above zero, unless the instrument says price_may_be_negative: true.",
        "Correct the rows",
    ),
    "ohlc": Check("error", _ROWS, "A bar needs low <= open, close <= high.", "Correct the rows"),
    "ohlc_rounding": Check(
        "warn",
        _ROWS_OR_KEEP,
        "Adjusting prices rounds each of the four on its own, which may put a high a hair below a close.",
        "Correct the rows",
    ),
    "negative_volume": Check("error", _ROWS, "A traded volume cannot be negative.", "Correct the rows"),
    "missing_volume": Check(
        "warn",
        _ROWS_OR_KEEP,
        "Volume is used only where every bar has one; else it is left out for the whole file.",
        "Complete the column or remove it",
    ),
    "several_symbols": Check(
        "error",
        _SERIES,
        "A file holds the bars of one symbol.",
        "Write one file for each",
    ),
    "identical_duplicate": Check(
        "drop",
        _ROWS,
        "A bar occurs once; rows that repeat an earlier one in every value are left out.",
        "Remove the repeated rows",
    ),
    "duplicate_time": Check(
        "error",
        _ROWS,
        "A time occurs once; which of two different bars is right cannot be told from the file.",
        "Correct the rows",
    ),
    "backward_time": Check(
        "error",
        _ROWS,
        "Times have to increase from row to row, or to decrease through the whole file.",
        "Sort the file by time",
    ),
    "spacing": Check(
        "error",
        _SERIES,
        "The time between bars has to be the bar length that the symbol's name ends with.",
        "Rename the file after its bar length in minutes, such as Nifty_5",
    ),
    "overlap": Check(
        "error",
        _ROWS,
        "A bar may not begin before the one before it has ended.",
        "Correct the rows",
    ),
    "outside_session": Check(
        "drop",
        _ROWS_OR_KEEP,
        "Bars wholly outside the instrument's trading hours (pre-open and closing prints) are left out.",
        "Correct the rows or the instrument's calendar",
    ),
    "mostly_outside_session": Check(
        "error",
        _SERIES,
        "Few bars may lie outside the trading hours; many mean that the hours or the time zone are wrong.",
        "Say what it is, by asset_class or by a folder such as crypto or forex, if it is no stock; else set"
        " label_timezone (zone of times without an offset), label (start or end of the bar) or calendar",
    ),
    "unfinished_session": Check(
        "warn",
        _SERIES,
        "Where no bar reaches the regular close, none is marked as its session's last; positions stay open.",
        "Complete the sessions",
    ),
    "jump": Check(
        "warn",
        _SERIES,
        "A move this large is a split, a roll, a bad print or history.",
        "Adjust the prices for splits",
    ),
    "stale_run": Check(
        "warn",
        _SERIES,
        "Prices that do not change at all for long are usually a feed that stood still.",
        "Remove the rows",
    ),
    "flat_bars": Check(
        "warn",
        _SERIES,
        "A bar with one price only (high = low) says nothing of the range; a few are normal.",
        "Use a source with real highs and lows",
    ),
    "stray_bars": Check(
        "error",
        _SERIES,
        "A few bars months before all others or after them are misread or mistyped dates.",
        "Correct the rows",
    ),
    "volume_unit": Check(
        "warn",
        _SERIES,
        "A volume that becomes a hundred times as large or small for good is counted in another unit from there on.",
        "Bring the column into one unit or remove it",
    ),
    "hole": Check(
        "warn", _SERIES, "Missing bars are left missing; nothing is filled in.", "Complete the file"
    ),
}
"""Every check by name, in the order they run."""


def policy_problems(policies: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (name, sentence) for each entry of an instrument's `checks` that cannot be obeyed."""
    for name, policy in policies.items():
        if name not in CHECKS:
            close = nearest(name, CHECKS, count=1)
            guess = f"did you mean {close[0]}?" if close else f"known are {', '.join(CHECKS)}"
            yield name, f"is not a check; {guess}"
        elif policy not in CHECKS[name].allowed:
            yield name, f"must be {' or '.join(CHECKS[name].allowed)} for this check (got '{policy}')"


class Findings:
    """What the checks of one file found, and what is to be done about each."""

    def __init__(self, path: Path, instrument_name: str, policies: Mapping[str, str]) -> None:
        self.counts: dict[str, int] = {}
        """How many rows or places each check caught, for those that caught any."""
        self.notes: list[str] = []
        """What was dropped or let through, as sentences."""
        self.path = path
        self._instrument_name = instrument_name
        self._policies = policies
        self._errors: list[str] = []

    def policy(self, name: str) -> str:
        """Return what this instrument wants done about a check."""
        return self._policies.get(name, CHECKS[name].default)

    def rows(
        self,
        name: str,
        caught: np.ndarray,
        line: np.ndarray,
        label: np.ndarray,
        describe: Callable[[int], str],
    ) -> np.ndarray:
        """Settle a check of single rows.

        Args:
            name: The check.
            caught: True where a row fails it. (R,) bool
            line: Line number of each row in its file. (R,) int64
            label: The time of each row as the file writes it. (R,) object
            describe: Says what is wrong with row r of these arrays.

        Returns:
            True where a row goes on to the next check. (R,) bool
        """
        found = np.flatnonzero(caught)
        if not len(found):
            return ~caught
        # One check may look twice, at the text of a time and at the clock it is of.
        self.counts[name] = self.counts.get(name, 0) + len(found)
        places = [f"row {line[r]} ({label[r]}): {describe(int(r))}" for r in found[:ROWS_LISTED]]
        policy = self.policy(name)
        if policy == "error":
            more = [f"\n  {place}." for place in places[1:]]
            rest = len(found) - len(places)
            more += [f"\n  and {rest:,} more, {len(found):,} in all."] if rest else []
            self._errors.append(f"{self.path}, {places[0]}.{''.join(more)}\n  {self._remedy(name)}")
            return ~caught
        shown = "; ".join(places[:ROWS_LISTED_IN_NOTES])
        did = "dropped" if policy == "drop" else "kept"
        self.notes.append(f"{name}: {did} {counted(len(found), 'row')}, for example {shown}")
        return np.ones(len(caught), dtype=bool) if policy == "warn" else ~caught

    def series(self, name: str, count: int, says: str) -> bool:
        """Settle a check of the whole series; return True where it was let through with a note."""
        self.counts[name] = count
        if self.policy(name) == "error":
            self._errors.append(f"{self.path}: {says}.\n  {self._remedy(name)}")
            return False
        self.notes.append(f"{name}: {says}")
        return True

    def raise_errors(self) -> None:
        """Refuse the file if a check with policy `error` caught anything.

        Raises:
            DataError: Every such check with its first rows, what has to hold, and the remedy.
        """
        if self._errors:
            raise DataError("\n".join(self._errors))

    def _remedy(self, name: str) -> str:
        check = CHECKS[name]
        others = [policy for policy in check.allowed if policy != "error"]
        return (
            f"{check.rule} {check.correction}, or set checks: {{{name}: {' or '.join(others)}}} for "
            f"{self._instrument_name} in an instruments file passed with --instruments."
        )


def counted(count: int, noun: str) -> str:
    """Return `1 row` or `1,234 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
