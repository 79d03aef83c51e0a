"""Stretches of history cut into adaptation tasks: learn on the support bars, be judged on the query bars after them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TaskWindow:
    """One task of one symbol, as rows of its arrays: `support` lies wholly before `query`."""

    symbol: str
    support: tuple[int, int]
    query: tuple[int, int]


def task_windows(
    symbol: str,
    window: tuple[int, int],
    *,
    support_bars: int,
    query_bars: int,
    purge_bars: int,
    support_may_reach_back_to: int | None = None,
) -> list[TaskWindow]:
    """Cut a window into tasks whose query stretches never overlap and never reach past its end.

    The anchors step by `query_bars`. Between support and query lie `purge_bars` that belong to neither, so that no
    position or label of the support reaches into the query.

    Args:
        symbol: Name of the symbol.
        window: First row and row after the last that a query may use.
        support_bars: Bars to adapt on.
        query_bars: Bars to be judged on.
        purge_bars: Bars between the two.
        support_may_reach_back_to: Earliest row a support may use; the window's own start where None.
    """
    start, stop = window
    earliest = start if support_may_reach_back_to is None else support_may_reach_back_to
    first_query = max(start, earliest + support_bars + purge_bars)
    tasks = []
    for query_start in range(first_query, stop - query_bars + 1, query_bars):
        support_stop = query_start - purge_bars
        tasks.append(
            TaskWindow(
                symbol=symbol,
                support=(support_stop - support_bars, support_stop),
                query=(query_start, query_start + query_bars),
            )
        )
    return tasks


def last_support(
    window_start: int, *, support_bars: int, purge_bars: int, earliest: int
) -> tuple[int, int] | None:
    """Return the support stretch that ends just before `window_start`, or None where history is too short."""
    stop = window_start - purge_bars
    start = stop - support_bars
    return (start, stop) if start >= earliest else None
