"""Sessions: which day a bar belongs to, and which bar ends it, by the clock on the wall of each market."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from rl.common.errors import ConfigError
from rl.market.calendars import (
    CALENDARS,
    Sessions,
    calendar,
    sessions_of_daily_bars,
    sessions_of_intraday_bars,
)
from rl.market.instruments import CalendarName


def utc(*times: str) -> np.ndarray:
    return np.array(times, dtype="datetime64[ns]").astype(np.int64)


def days(*dates: str) -> np.ndarray:
    return np.array(dates, dtype="datetime64[D]").astype(np.int64)


def closes(sessions: Sessions) -> list[str]:
    return [str(time) for time in sessions.close_time.astype("datetime64[ns]").astype("datetime64[m]")]


def test_every_calendar_of_the_table_may_be_written_in_an_instruments_file():
    assert set(get_args(CalendarName)) == set(CALENDARS)


def test_an_unknown_calendar_is_refused_with_a_guess():
    with pytest.raises(ConfigError, match=r"'nse' is not a calendar\. Did you mean NSE\?"):
        calendar("nse")


def test_a_bar_ends_its_session_where_it_reaches_the_close_and_not_where_the_next_bar_is_missing():
    # 09:15, 09:30 and 15:15 in Kolkata. The first day breaks off after 09:30.
    start = utc("2024-01-01T03:45", "2024-01-01T04:00", "2024-01-02T03:45", "2024-01-02T09:45")
    sessions = sessions_of_intraday_bars(calendar("NSE"), start, 900)
    assert sessions.number.tolist() == [0, 0, 1, 1]
    assert sessions.is_last.tolist() == [False, False, False, True]


def test_the_last_bar_is_cut_at_the_close():
    # 15:29 in Kolkata begins a two-minute bar of which one minute trades.
    sessions = sessions_of_intraday_bars(calendar("NSE"), utc("2024-01-01T09:57", "2024-01-01T09:59"), 120)
    assert closes(sessions) == ["2024-01-01T09:59", "2024-01-01T10:00"]
    assert sessions.is_last.tolist() == [False, True]


def test_bars_before_the_open_and_from_the_close_on_are_outside():
    # 09:08, 09:14, 09:15, 15:29, 15:30 in Kolkata, one minute each.
    start = utc(
        "2024-01-01T03:38", "2024-01-01T03:44", "2024-01-01T03:45", "2024-01-01T09:59", "2024-01-01T10:00"
    )
    sessions = sessions_of_intraday_bars(calendar("NSE"), start, 60)
    assert sessions.is_outside.tolist() == [True, True, False, False, True]
    assert sessions.is_last.tolist() == [False, False, False, True, False]


def test_an_hourly_bar_that_begins_before_the_open_but_holds_trading_is_inside():
    # 09:00 to 10:00 in Kolkata holds 45 minutes of the session.
    assert not sessions_of_intraday_bars(calendar("NSE"), utc("2024-01-01T03:30"), 3600).is_outside[0]


def test_special_sessions_on_a_saturday_are_inside_in_india_and_outside_in_new_york():
    saturday = utc("2015-02-28T05:00")
    assert not sessions_of_intraday_bars(calendar("NSE"), saturday, 60).is_outside[0]
    assert sessions_of_intraday_bars(calendar("NYSE"), utc("2015-02-28T16:00"), 60).is_outside[0]


def test_new_york_closes_an_hour_earlier_in_utc_in_summer():
    # 15:59 in New York is 20:59 UTC on Friday 2024-03-08, 19:59 UTC on Monday 2024-03-11.
    start = utc("2024-03-08T20:59", "2024-03-11T19:59", "2024-03-11T20:59")
    sessions = sessions_of_intraday_bars(calendar("NYSE"), start, 60)
    assert sessions.is_last.tolist() == [True, True, False]
    assert sessions.is_outside.tolist() == [False, False, True]


def test_a_currency_day_runs_from_five_to_five_in_new_york_across_midnight():
    # Winter: 17:00 in New York is 22:00 UTC. Sunday evening belongs to Monday.
    start = utc("2024-01-07T22:00", "2024-01-08T00:00", "2024-01-08T21:00", "2024-01-08T22:00")
    sessions = sessions_of_intraday_bars(calendar("FX"), start, 3600)
    assert sessions.number.tolist() == [0, 0, 0, 1]
    assert sessions.is_last.tolist() == [False, False, True, False]
    assert not sessions.is_outside.any()


def test_the_currency_market_is_closed_from_friday_to_sunday_evening():
    # Friday 21:00 UTC is 16:00 in New York, 22:00 the close; Sunday 21:00 is an hour before the open.
    start = utc(
        "2024-01-12T21:00", "2024-01-12T22:00", "2024-01-13T12:00", "2024-01-14T21:00", "2024-01-14T22:00"
    )
    sessions = sessions_of_intraday_bars(calendar("FX"), start, 3600)
    assert sessions.is_outside.tolist() == [False, True, True, True, False]


def test_a_chicago_session_begins_the_evening_before_and_pauses_for_an_hour():
    # Winter: 17:00 in Chicago is 23:00 UTC, 16:00 is 22:00 UTC.
    start = utc("2024-01-08T23:00", "2024-01-09T21:00", "2024-01-09T22:00", "2024-01-09T23:00")
    sessions = sessions_of_intraday_bars(calendar("CME"), start, 3600)
    assert sessions.number.tolist() == [0, 0, 0, 1]
    assert sessions.is_last.tolist() == [False, True, False, False]
    assert sessions.is_outside.tolist() == [False, False, True, False]


def test_a_crypto_day_is_the_utc_day_on_every_day_of_the_week():
    start = utc("2024-01-06T22:00", "2024-01-06T23:00", "2024-01-07T00:00")
    sessions = sessions_of_intraday_bars(calendar("CRYPTO"), start, 3600)
    assert sessions.number.tolist() == [0, 0, 1]
    assert sessions.is_last.tolist() == [False, True, False]
    assert closes(sessions)[1] == "2024-01-07T00:00"


def test_without_a_calendar_a_night_of_silence_begins_a_session_and_no_bar_is_known_to_be_the_last():
    start = utc("2024-01-01T22:00", "2024-01-02T00:00", "2024-01-02T01:00", "2024-01-02T08:00")
    sessions = sessions_of_intraday_bars(calendar("NONE"), start, 3600)
    # Silences: 1 h, none, 6 h.
    assert sessions.number.tolist() == [0, 0, 0, 1]
    assert not sessions.is_last.any()
    assert not sessions.is_outside.any()


def test_without_a_calendar_and_without_silences_a_session_is_24_hours_long():
    start = utc("2024-01-01T06:00") + np.arange(50) * 3600 * 10**9
    sessions = sessions_of_intraday_bars(calendar("NONE"), start, 3600)
    assert sessions.number.tolist() == [0] * 24 + [1] * 24 + [2] * 2


@pytest.mark.parametrize("name", CALENDARS)
def test_a_bars_session_does_not_depend_on_later_bars(name):
    """Whatever comes after a bar was not known at it."""
    start = utc("2024-01-01T03:45") + np.cumsum(np.random.default_rng(3).integers(1, 40, 400)) * 900 * 10**9
    whole = sessions_of_intraday_bars(calendar(name), start, 900)
    part = sessions_of_intraday_bars(calendar(name), start[:150], 900)
    np.testing.assert_array_equal(whole.number[:150], part.number)
    np.testing.assert_array_equal(whole.is_last[:150], part.is_last)
    np.testing.assert_array_equal(whole.close_time[:150], part.close_time)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NSE", "2024-07-01T10:00"),
        ("ASX", "2024-07-01T06:12"),
        ("NYSE", "2024-07-01T20:00"),
        ("CME", "2024-07-01T21:00"),
        ("FX", "2024-07-01T21:00"),
        ("CRYPTO", "2024-07-02T00:00"),
        ("NONE", "2024-07-02T00:00"),
    ],
)
def test_a_daily_bar_is_known_at_its_markets_close(name, expected):
    sessions = sessions_of_daily_bars(calendar(name), days("2024-07-01"))
    assert closes(sessions) == [expected]
    assert sessions.is_last.tolist() == [True]


def test_every_daily_bar_is_a_session_and_a_weekend_date_is_outside():
    sessions = sessions_of_daily_bars(calendar("NYSE"), days("2024-03-08", "2024-03-09", "2024-03-11"))
    assert sessions.number.tolist() == [0, 1, 2]
    assert sessions.is_outside.tolist() == [False, True, False]
    # Summer time began on the 10th.
    assert closes(sessions)[0] == "2024-03-08T21:00"
    assert closes(sessions)[2] == "2024-03-11T20:00"


def test_sessions_left_after_dropping_one_are_counted_anew():
    sessions = sessions_of_daily_bars(calendar("NYSE"), days("2024-03-08", "2024-03-09", "2024-03-11"))
    assert sessions.rows(~sessions.is_outside).number.tolist() == [0, 1]


def test_hours_are_described_as_a_message_needs_them():
    assert calendar("NSE").described() == "09:15 to 15:30 Asia/Kolkata"
    assert calendar("CRYPTO").described() == "00:00 to 24:00 UTC"
    assert (
        calendar("CME").described() == "17:00 the evening before to 16:00 America/Chicago, Monday to Friday"
    )
