"""Adaptation tasks: support before query, never overlapping, never past the window."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from rl.envs.tasks import TaskWindow, last_support, task_windows

LENGTHS = st.integers(1, 60)


def test_a_window_is_cut_into_tasks_one_after_the_other():
    # 10 support + 2 purge bars come first, so the first query begins at 112; whole queries of 5 fit up to 130.
    tasks = task_windows("A", (100, 130), support_bars=10, query_bars=5, purge_bars=2)
    assert tasks == [
        TaskWindow(symbol="A", support=(100, 110), query=(112, 117)),
        TaskWindow(symbol="A", support=(105, 115), query=(117, 122)),
        TaskWindow(symbol="A", support=(110, 120), query=(122, 127)),
    ]


def test_a_support_may_reach_back_before_the_window_where_that_is_allowed():
    tasks = task_windows(
        "A", (100, 110), support_bars=10, query_bars=5, purge_bars=2, support_may_reach_back_to=50
    )
    assert [task.query for task in tasks] == [(100, 105), (105, 110)]
    assert [task.support for task in tasks] == [(88, 98), (93, 103)]


def test_a_window_too_short_for_one_task_has_none():
    assert task_windows("A", (100, 116), support_bars=10, query_bars=5, purge_bars=2) == []
    assert len(task_windows("A", (100, 117), support_bars=10, query_bars=5, purge_bars=2)) == 1


@given(
    start=st.integers(0, 200),
    length=st.integers(0, 400),
    support=LENGTHS,
    query=LENGTHS,
    purge=st.integers(0, 30),
    reach=st.one_of(st.none(), st.integers(0, 200)),
)
def test_whatever_the_lengths_no_task_learns_from_what_it_is_judged_on(
    start, length, support, query, purge, reach
):
    earliest = None if reach is None else max(0, start - reach)
    window = (start, start + length)
    tasks = task_windows(
        "A",
        window,
        support_bars=support,
        query_bars=query,
        purge_bars=purge,
        support_may_reach_back_to=earliest,
    )
    for task in tasks:
        assert task.support[1] - task.support[0] == support
        assert task.query[1] - task.query[0] == query
        assert task.query[0] - task.support[1] == purge
        assert window[0] <= task.query[0] < task.query[1] <= window[1]
        assert task.support[0] >= (start if earliest is None else earliest)
    for one, two in itertools.pairwise(tasks):
        assert one.query[1] == two.query[0]
    # None is left out at the end: another query would not fit.
    if tasks:
        assert tasks[-1].query[1] + query > window[1]


def test_the_last_support_ends_where_the_window_begins():
    assert last_support(100, support_bars=30, purge_bars=0, earliest=0) == (70, 100)
    assert last_support(100, support_bars=30, purge_bars=5, earliest=65) == (65, 95)


def test_there_is_no_last_support_where_history_is_too_short():
    assert last_support(100, support_bars=30, purge_bars=5, earliest=66) is None
