"""Reasons as they are shown: sessions with thousands marked and in years, and nothing else changed."""

from __future__ import annotations

import pytest

from rl.stages.reasons import readable_reasons

# 61 sessions in 12 weeks and a half: five a week, 261 a year.
WINDOW = {"from": "2024-01-01T09:15:00Z", "to": "2024-03-25T09:15:00Z"}
METRICS = {"window_sessions": 61}


@pytest.mark.parametrize(
    ("kept", "shown"),
    [
        (
            "About 46371 more sessions are needed before anything can be decided.",
            "About 46,371 more sessions (about 178 years) are needed before anything can be decided.",
        ),
        (
            "p 0.4, needed 0.02 or less; about 521 more sessions would be needed if trades go on as observed.",
            "p 0.4, needed 0.02 or less; about 521 more sessions (about 2.0 years) would be needed if trades go on as "
            "observed.",
        ),
        ("About 260 more sessions are needed.", "About 260 more sessions are needed."),
        ("win_rate is 12345, asked at least 0.4.", "win_rate is 12345, asked at least 0.4."),
    ],
)
def test_wanted_sessions_are_shown_with_thousands_and_years(kept, shown):
    assert readable_reasons([kept], WINDOW, METRICS) == [shown]


@pytest.mark.parametrize(
    ("window", "metrics"),
    [
        (WINDOW, {}),
        (WINDOW, {"window_sessions": 19}),
        ({}, METRICS),
        ({"from": "first", "to": "last"}, METRICS),
        ({"from": None, "to": None}, METRICS),
    ],
)
def test_no_years_are_told_where_the_window_does_not_say_how_many_sessions_one_has(window, metrics):
    assert readable_reasons(["About 46371 more sessions are needed."], window, metrics) == [
        "About 46,371 more sessions are needed."
    ]
