"""The reasons of a verdict as a person reads them.

Ledger and model files keep the sentences as they were decided, and `gate --explain` compares them letter by letter. So
what only makes them easier to read is done here, where they are shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

_WANTED = re.compile(r"\b([Aa]bout) ([0-9]+) more sessions\b")

_FEWEST_SESSIONS = 20
"""Fewer, and weekends within the window or at its ends decide how many sessions a year seems to have."""

_DAYS_PER_YEAR = 365.25


def readable_reasons(
    reasons: Sequence[str], window: Mapping[str, Any], metrics: Mapping[str, Any]
) -> list[str]:
    """Return reasons with the thousands of wanted sessions marked, and in years where they are more than one.

    Args:
        reasons: As the verdict keeps them.
        window: Of the verdict: `from` and `to`, ISO dates.
        metrics: Of the verdict; its `window_sessions` in that time say how many sessions a year has.
    """
    years = _years_per_session(window, metrics)

    def shown(found: re.Match[str]) -> str:
        wanted = int(found[2])
        text = f"{found[1]} {wanted:,} more sessions"
        if years is None or wanted * years <= 1.0:
            return text
        return f"{text} (about {wanted * years:,.{0 if wanted * years >= 9.95 else 1}f} years)"

    return [_WANTED.sub(shown, reason) for reason in reasons]


def _years_per_session(window: Mapping[str, Any], metrics: Mapping[str, Any]) -> float | None:
    """Return the time from one session to the next, in years; None where the window does not tell it."""
    sessions = metrics.get("window_sessions")
    if sessions is None or sessions < _FEWEST_SESSIONS:
        return None
    try:
        first, last = (datetime.fromisoformat(window[end]) for end in ("from", "to"))
    except (KeyError, TypeError, ValueError):
        return None  # a verdict on windows that are no stretch of time
    return (last - first).total_seconds() / 86400 / _DAYS_PER_YEAR / (sessions - 1)
