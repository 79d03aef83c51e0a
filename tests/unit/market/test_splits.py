"""Splits: window arithmetic by hand."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from rl.common.errors import ConfigError, DataError
from rl.market.splits import SplitPlan, Splits, split_bars
from tests.builders import rising_bars

DAILY = 1440


def spans(splits: Splits) -> list[tuple[str, int, int]]:
    return [(window.name, window.start, window.stop) for window in splits.windows]


def test_daily_bars_are_divided_by_share_and_every_bar_belongs_somewhere():
    splits = split_bars(rising_bars(200, minutes=DAILY), SplitPlan(), 0)
    # 0.60, 0.15, 0.10 and 0.15 of 200.
    assert spans(splits) == [
        ("train", 0, 120),
        ("validation", 120, 150),
        ("promotion", 150, 170),
        ("test", 170, 200),
    ]
    assert [len(window) for window in splits.windows] == [120, 30, 20, 30]


def test_the_embargo_is_taken_from_the_beginning_of_every_window_but_the_first():
    splits = split_bars(rising_bars(400, minutes=DAILY), SplitPlan(), 7)
    # Cuts at 240, 300, 340.
    assert spans(splits) == [
        ("train", 0, 240),
        ("validation", 247, 300),
        ("promotion", 307, 340),
        ("test", 347, 400),
    ]


def test_windows_of_intraday_bars_begin_with_a_session():
    # 43 sessions of 10 bars. Cuts at 258, 322.5 -> 322 and 365.5 -> 365 move on to 260, 330 and 370.
    bars = rising_bars(430, minutes=15, bars_per_session=10)
    splits = split_bars(bars, SplitPlan(), 0)
    assert spans(splits) == [
        ("train", 0, 260),
        ("validation", 260, 330),
        ("promotion", 330, 370),
        ("test", 370, 430),
    ]
    for window in splits.windows[1:]:
        assert bars.session[window.start] != bars.session[window.start - 1]


def test_an_embargo_inside_a_session_runs_on_to_the_next_one():
    # Cuts as above; 13 bars after 260 is 273, and the next session begins at 280.
    splits = split_bars(rising_bars(430, minutes=15, bars_per_session=10), SplitPlan(), 13)
    assert spans(splits) == [
        ("train", 0, 260),
        ("validation", 280, 330),
        ("promotion", 350, 370),
        ("test", 390, 430),
    ]


def test_shares_that_fall_a_hair_short_in_binary_cost_no_bar():
    # 0.7 + 0.1 is 0.7999999999999999 in binary; 80 % of 1000 is 800 all the same.
    plan = SplitPlan(train=0.7, validation=0.1, promotion=0.1, test=0.1)
    splits = split_bars(rising_bars(1000, minutes=DAILY), plan, 0)
    assert [window.start for window in splits.windows] == [0, 700, 800, 900]


def test_dates_name_the_first_day_of_each_window():
    # Weekdays from Monday 2024-01-01: bar 40 is Monday 2024-02-26, bar 70 2024-04-08, bar 100 2024-05-20.
    bars = rising_bars(130, minutes=DAILY)
    dates = {"validation": "2024-02-26", "promotion": "2024-04-07", "test": "2024-05-20"}
    splits = split_bars(bars, SplitPlan(dates=dates), 2)
    assert spans(splits) == [
        ("train", 0, 40),
        ("validation", 42, 70),
        ("promotion", 72, 100),
        ("test", 102, 130),
    ]


def test_dates_may_also_say_where_the_data_begin_and_end():
    bars = rising_bars(150, minutes=DAILY)
    dates = {
        "train": "2024-01-08",  # bar 5
        "validation": "2024-02-26",
        "promotion": "2024-04-08",
        "test": "2024-05-20",
        "end": "2024-07-01",  # bar 130
    }
    splits = split_bars(bars, SplitPlan(dates=dates), 0)
    assert spans(splits) == [
        ("train", 5, 40),
        ("validation", 40, 70),
        ("promotion", 70, 100),
        ("test", 100, 130),
    ]


def test_a_date_cuts_between_sessions_of_intraday_bars():
    # 25 bars a day; day 20 of the weekdays is Monday 2024-01-29, day 25 2024-02-05, day 30 2024-02-12.
    bars = rising_bars(40 * 25, minutes=15)
    dates = {"validation": "2024-01-29", "promotion": "2024-02-05", "test": "2024-02-12"}
    assert [window.start for window in split_bars(bars, SplitPlan(dates=dates), 0).windows] == [
        0,
        500,
        625,
        750,
    ]


def test_a_session_that_closes_at_midnight_belongs_to_the_day_that_ends():
    # Crypto days of 2024-01-01 on, each closing when the next date begins: bar 31 is 2024-02-01.
    bars = rising_bars(150, minutes=DAILY)
    midnights = np.datetime64("2024-01-02", "ns").astype(np.int64) + np.arange(150) * 86_400 * 10**9
    dates = {"validation": "2024-02-01", "promotion": "2024-03-01", "test": "2024-04-01"}
    splits = split_bars(replace(bars, close_time=midnights), SplitPlan(dates=dates), 0)
    assert [window.start for window in splits.windows] == [0, 31, 60, 91]


def test_boundaries_are_the_closes_of_the_first_and_last_bar_and_can_be_stored():
    bars = rising_bars(200, minutes=DAILY)
    splits = split_bars(bars, SplitPlan(), 0)
    assert splits.boundaries["train"]["first"] == "2024-01-01T10:00:00+00:00"
    # Bar 119 is 23 weeks and 5 days after Monday 2024-01-01 began: Friday 2024-06-14.
    assert splits.boundaries["train"]["last"] == "2024-06-14T10:00:00+00:00"
    assert json.loads(json.dumps(splits.boundaries)) == splits.boundaries


def test_stored_boundaries_find_the_same_windows_in_a_longer_file():
    """A model must not be tested on other bars because somebody added some at the end."""
    splits = split_bars(rising_bars(400, minutes=DAILY), SplitPlan(), 7)
    stored = {**splits.boundaries, "embargo_bars": 7}
    again = Splits.from_boundaries(rising_bars(500, minutes=DAILY), stored)
    assert spans(again) == spans(splits)
    assert again.boundaries == splits.boundaries


def test_stored_boundaries_find_the_same_bars_where_the_oldest_are_gone():
    bars = rising_bars(400, minutes=DAILY)
    splits = split_bars(bars, SplitPlan(), 0)
    again = Splits.from_boundaries(bars.slice(100, 400), splits.boundaries)
    assert spans(again)[0] == ("train", 0, 140)
    assert spans(again)[3] == ("test", splits.test.start - 100, 300)


def test_boundaries_of_other_data_are_refused():
    splits = split_bars(rising_bars(200, minutes=DAILY), SplitPlan(), 0)
    later = rising_bars(200, minutes=DAILY, first_day="2030-01-01")
    with pytest.raises(DataError, match=r"TEST: the data \(2030-01-01.* hold nothing of the train window"):
        Splits.from_boundaries(later, splits.boundaries)


def test_boundaries_without_a_window_are_refused():
    with pytest.raises(DataError, match="name no promotion window"):
        stored = dict(split_bars(rising_bars(200, minutes=DAILY), SplitPlan(), 0).boundaries)
        del stored["promotion"]
        Splits.from_boundaries(rising_bars(200, minutes=DAILY), stored)


def test_windows_too_short_to_judge_anything_are_refused_with_their_sizes():
    with pytest.raises(DataError) as caught:
        split_bars(rising_bars(100, minutes=DAILY), SplitPlan(), 5)
    message = str(caught.value)
    # Cuts at 60, 75, 85; 5 bars each go to the embargo.
    assert "validation: 10 bars in 10 sessions" in message
    assert "promotion: 5 bars in 5 sessions" in message
    assert "test: 10 bars in 10 sessions" in message
    assert "train" not in message
    assert "at least 2 sessions and 20 bars" in message


def test_many_bars_of_one_session_are_no_window():
    # 4 sessions of 100 bars. The cuts 240, 300 and 340 move on to 300, 300 and 400.
    with pytest.raises(DataError) as caught:
        split_bars(rising_bars(400, minutes=1, bars_per_session=100), SplitPlan(), 0)
    assert "validation: 0 bars in 0 sessions" in str(caught.value)
    assert "promotion: 100 bars in 1 session\n" in str(caught.value)


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (SplitPlan(train=0.7), "has to be 1, but is 1.1"),
        (SplitPlan(train=0.75, promotion=-0.05), "promotion has to be above 0, but is -0.05"),
        (SplitPlan(train=float("nan")), "train has to be above 0, but is nan"),
        (SplitPlan(dates={"validation": "2024-02-26"}), "dates.promotion is missing"),
        (
            SplitPlan(dates={"validation": "2024-02-26", "promotion": "2024-02-26", "test": "2024-05-20"}),
            "has to come after dates.validation",
        ),
        (
            SplitPlan(dates={"validation": "26.02.2024", "promotion": "2024-03-01", "test": "2024-05-20"}),
            "has to be a date such as 2024-03-28, but is '26.02.2024'",
        ),
        (
            SplitPlan(
                dates={
                    "validation": "2024-02-26",
                    "promotion": "2024-03-01",
                    "test": "2024-05-20",
                    "tests": "x",
                }
            ),
            "dates.tests is no window",
        ),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(plan, says):
    with pytest.raises(ConfigError) as caught:
        split_bars(rising_bars(200, minutes=DAILY), plan, 0)
    assert says in str(caught.value)


def test_a_negative_embargo_is_refused():
    with pytest.raises(ConfigError, match="embargo has to be at least 0"):
        split_bars(rising_bars(200, minutes=DAILY), SplitPlan(), -1)


def test_no_bars_cannot_be_split():
    with pytest.raises(DataError, match="no bars to split"):
        split_bars(rising_bars(0, minutes=DAILY), SplitPlan(), 0)


@pytest.mark.parametrize("seed", range(20))
def test_windows_never_share_a_bar_and_keep_the_embargo_between_them(seed):
    """Overlap would let the gate see what training saw."""
    rng = np.random.default_rng(seed)
    bars = rising_bars(int(rng.integers(900, 3000)), minutes=15, bars_per_session=int(rng.integers(1, 26)))
    embargo = int(rng.integers(0, 60))
    windows = split_bars(bars, SplitPlan(), embargo).windows
    for before, after in itertools.pairwise(windows):
        assert before.start < before.stop
        assert after.start - before.stop >= embargo
    assert windows[-1].stop == len(bars)
