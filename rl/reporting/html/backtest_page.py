"""A backtest as pages: one for each symbol, and an index where there are several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rl.backtest.result import SymbolResult
from rl.common.strict_yaml import dump_yaml
from rl.reporting.adaptation_report import COMPARED_WITH
from rl.reporting.html.figures import Figures
from rl.reporting.html.pages import render
from rl.reporting.html.small_charts import (
    adaptation_chart,
    cost_chart,
    experts_chart,
    groups_chart,
    learning_chart,
    results_chart,
)
from rl.reporting.html.svg import WIDE
from rl.reporting.html.time_charts import COLUMNS_PER_INCH, equity_chart, price_chart
from rl.stages.stage_model import STAGE_TITLES

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
TITLES = {**STAGE_TITLES, "final": "promotion"}

BASELINES = (
    ("flat", "doing nothing"),
    ("buy_and_hold", "buy-and-hold"),
    ("always_short", "always short"),
    ("random", "random, mean"),
    ("last_bar_sign", "last bar's sign"),
)

FIGURES = (
    ("total_return", "return", "percent2", None, None),
    ("annual_return", "return a year", "percent2", None, None),
    ("total_pnl", "result, money", "number0", None, None),
    ("sharpe_ratio", "Sharpe, annual", "number", "sharpe_low", "sharpe_high"),
    ("sortino_ratio", "Sortino, annual", "number", None, None),
    ("max_drawdown", "worst drawdown", "percent", None, None),
    ("calmar_ratio", "Calmar", "number", None, None),
    ("total_trades", "trades", "whole", None, None),
    ("win_rate", "win rate", "percent", "win_rate_low", "win_rate_high"),
    ("break_even_win_rate", "break-even win rate", "percent", None, None),
    ("profit_factor", "profit factor", "number", None, None),
    ("payoff_ratio", "average win / average loss", "number", None, None),
    ("expectancy", "mean trade, money", "number", None, None),
    ("average_holding_bars", "bars held", "number1", None, None),
    ("exposure", "bars in the market", "percent", None, None),
    ("turnover_per_year", "turnover a year, x capital", "number0", None, None),
    ("total_costs", "costs, money", "number0", None, None),
    ("cost_share", "costs of gross winnings", "percent", None, None),
)
"""Key, words, form, and the keys of its interval, of every line of the table."""

INDEX_COLUMNS = (
    ("total_return", "return", "percent"),
    ("sharpe_ratio", "Sharpe", "number"),
    ("max_drawdown", "drawdown", "percent"),
    ("total_trades", "trades", "whole"),
    ("win_rate", "win rate", "percent"),
    ("profit_factor", "profit factor", "number"),
    ("cost_share", "cost share", "percent"),
)


def symbol_page(report: dict[str, Any], result: SymbolResult, index: str | None = None) -> str:
    """Return the page of one symbol.

    Args:
        report: What `json_report` returned; every figure of the page is one of its.
        result: The symbol's result, whose series are drawn.
        index: Where the page of all symbols lies, as seen from this one; None where there is none.
    """
    symbol, found = result.symbol, report["symbols"][result.symbol]
    # With the report's own words beside, so that one page needs one object.
    figures = Figures({**found, "command": report["command"]})
    plan = found.get("plan")
    return render(
        "symbol.html",
        symbol=symbol,
        s=found,
        r=figures,
        report=report,
        index=index,
        currency=found["instrument"]["currency"],
        charts=_charts(result, found),
        columns=int(WIDE * COLUMNS_PER_INCH),
        others=[
            (name, told if name != "random" else f"{told} of {found['baselines']['random']['draws']}")
            for name, told in BASELINES
        ],
        figures=FIGURES,
        months=_months(found["months"]),
        month_names=MONTHS,
        titles=TITLES,
        words=COMPARED_WITH,
        config=dump_yaml(report["config"]),
        plan=dump_yaml(plan) if plan else "",
    )


def _charts(result: SymbolResult, found: dict[str, Any]) -> dict[str, Any]:
    cost = found["break_even_cost"]
    currency = found["instrument"]["currency"]
    hours, experts = found["by_hour"], found["experts"]
    traded = found["trade_results"]["trades"] > 0
    told = [
        (f"stages/{place}", stage) for place, stage in enumerate(found["stages"]) if not stage.get("left_out")
    ]
    learning = [
        # The final model is a copy of a stage's, and its curve with it.
        (stage, at, learning_chart(f"learning-{stage['stage']}", stage["training"]))
        for at, stage in told
        if stage["stage"] != "final"
    ]
    return {
        "equity": equity_chart(result),
        "price": price_chart(result),
        "results": results_chart(found["trade_results"]) if traded else None,
        "hours": groups_chart(hours, "hour of entry", currency) if traded and len(hours) > 1 else None,
        "costs": cost_chart(found["cost_frontier"], cost["cost_bp_per_side"], cost["paid_bp_per_side"]),
        "learning": [each for each in learning if each[2] is not None],
        "experts": experts_chart("experts", experts) if experts else None,
        "adaptation": [
            (stage, f"{at}/adaptation", adaptation_chart("adaptation", stage["adaptation"]["curve"]))
            for at, stage in told
            if stage["stage"] == "maml" and stage.get("adaptation")
        ],
    }


_Cell = tuple[int | None, str]
"""Place of a month in the report, None outside the span, and the class of its colour."""


def _months(months: Sequence[dict[str, Any]]) -> list[tuple[int, list[_Cell]]]:
    """Return each year with its twelve cells."""
    largest = max((abs(each["strategy"]) for each in months if each["strategy"] is not None), default=0.0)
    years: dict[int, list[_Cell]] = {}
    for place, each in enumerate(months):
        row = years.setdefault(each["year"], [(None, "")] * 12)
        row[each["month"] - 1] = (place, _heat(each["strategy"], largest))
    return sorted(years.items())


def _heat(value: float | None, largest: float) -> str:
    """Return the class of a cell: gain or loss in three strengths; nothing for zero and for what is missing."""
    if value is None or value == 0.0 or largest == 0.0:
        return ""
    strength = min(3, 1 + int(3 * abs(value) / largest))
    return f"{'g' if value > 0 else 'l'}{strength}"


def index_page(report: dict[str, Any], links: dict[str, str]) -> str:
    """Return the page that compares the symbols of a backtest and leads to each.

    Args:
        report: What `json_report` returned.
        links: Where each symbol's page lies, as seen from this one.
    """
    symbols = report["symbols"]
    return render(
        "index.html",
        report=report,
        r=Figures(report),
        symbols=symbols,
        links=links,
        columns=INDEX_COLUMNS,
        synthetic=any(each["synthetic"] for each in symbols.values()),
        in_sample=any(each["span"]["seen_in_training_or_choosing"] for each in symbols.values()),
        config=dump_yaml(report["config"]),
    )
