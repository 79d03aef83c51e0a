"""A walk-forward in words: its headline, what it shows and what not, and its table of folds."""

from __future__ import annotations

from typing import Any

from rl.market.checks import counted
from rl.reporting.tables import number, percent, table_lines

Told = dict[str, Any]


def spent_in_words(told: Told) -> str:
    """Return which windows the walk-forward has used up; this stands in the headline."""
    spent = told["spent"]
    if spent is None:
        return "Its stretches end before the windows that the plan keeps for promotion and test."
    return (
        f"It SPENDS the test window: {spent['sessions']:,} of {spent['of_sessions']:,} sessions it trades lie in what "
        f"the plan keeps for promotion and test (from {spent['from']}), and later folds train on them. Any later claim "
        "on those bars is judged as a further look."
    )


def headline_of(told: Told) -> str:
    """Return the sentences a headline has for a walk-forward."""
    folds = len(told["folds"])
    return (
        f"WALK-FORWARD {told['asked']}: {counted(folds, 'model')}, each trained on the {told['window']} before it "
        f"traded; {told['promoted']} of {folds} were promoted. {spent_in_words(told)}"
    )


def what_it_shows(told: Told) -> list[str]:
    """Return what a walk-forward shows."""
    folds = len(told["folds"])
    return [
        f"What training anew every {told['step']} by this plan would have made: each stretch is traded by a model that "
        "was trained, chosen and judged on earlier bars only, after costs, in one account.",
        f"{told['won']} of {folds} stretches earned money; {told['beat_holding']} beat buy-and-hold.",
        _mean_in_words(told["mean_trade"]),
        _beyond_in_words(told["beyond_holding"]),
        f"Had only promoted models traded, the account would have made {percent(told['promoted_only_return'], 2)}.",
        f"At {told['closed_at_seams']} of {max(folds - 1, 0)} seams a position was closed, for "
        f"{number(told['cost_of_seams'])} ({percent(told['share_of_costs'])} of all costs); the next "
        "model begins without one.",
    ]


def what_it_does_not_show(told: Told) -> list[str]:
    """Return what a walk-forward does not show."""
    lines = [
        "It judges a way of making models, not the model in the models folder, which no fold used.",
        "Whoever chose the plan, the features and this WINDOW/STEP may have seen these bars. Every other setting tried "
        "on them is a further trial: the one with the best account is partly the luckiest.",
        "Models that failed their gate trade as well, as a backtest would let them; see the verdicts.",
    ]
    if any(row["impossible"] for row in told["folds"]):
        lines.append(
            "In some folds a stage was not possible: "
            + next(row["impossible"] for row in told["folds"] if row["impossible"])
        )
    if told["note"]:
        lines.append(f"Of the bars, {told['note']}.")
    return lines


def _mean_in_words(mean: Told) -> str:
    if mean["lower"] is None:
        return "Whether the mean trade is above zero cannot be said: trades were closed in fewer than two sessions."
    return (
        f"The mean trade made {number(mean['value'])}, interval {number(mean['lower'])} to {number(mean['upper'])} by "
        f"sums of {mean['sessions']:,} sessions: {_side(mean)}"
    )


def _beyond_in_words(beyond: Told) -> str:
    if beyond["lower"] is None:
        return "What it made beyond its share of buy-and-hold cannot be computed."
    return (
        f"Beyond its share of buy-and-hold it made {percent(beyond['value'], 3)} a session, interval "
        f"{percent(beyond['lower'], 3)} to {percent(beyond['upper'], 3)}: {_side(beyond)}"
    )


def _side(found: Told) -> str:
    if found["lower"] > 0:
        return "above zero."
    return "below zero." if found["upper"] < 0 else "it holds zero, so chance can explain it."


def fold_lines(told: Told) -> list[str]:
    """Return the table of folds as text."""
    rows = [
        [
            str(row["number"]),
            row["window_from"][:10],
            row["from"][:10],
            row["to"][:10],
            row["stage"],
            verdict_in_words(row),
            f"{row['trades']:,}",
            percent(row["total_return"], 2),
            percent(row["buy_and_hold"], 2),
        ]
        for row in told["folds"]
    ]
    headings = ["fold", "window from", "trades from", "to", "stage", "verdict", "trades", "return", "holding"]
    return table_lines(headings, rows, left=6, width=108)


def days_of(row: Told) -> dict[str, str]:
    """Return the days a fold's window and stretch begin and end, without times."""
    return {
        "trained": f"{row['window_from'][:10]} to {row['window_to'][:10]}",
        "traded": f"{row['from'][:10]} to {row['to'][:10]}",
    }


def verdict_in_words(row: Told) -> str:
    """Return how a fold's model was judged: promoted, or what its gate said."""
    return "promoted" if row["promoted"] else f"gate {row['verdict']}"


def section(told: Told) -> list[str]:
    """Return a walk-forward's part of the text report."""
    lines = [
        f"  WALK-FORWARD {told['asked']}",
        *("  " + line for line in fold_lines(told)),
        "",
        "  It shows:",
    ]
    lines += [f"    {line}" for line in what_it_shows(told)]
    lines += ["  It does not show:", *(f"    {line}" for line in what_it_does_not_show(told))]
    return lines
