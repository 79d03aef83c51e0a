"""The backtest report as text, JSON and HTML, and the log of every decision."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from textwrap import wrap
from typing import Any
from urllib.parse import quote

import numpy as np

from rl import __version__
from rl.backtest.result import SymbolResult
from rl.common.atomic_files import write_json, write_text
from rl.common.errors import UsageError
from rl.common.printable import printable
from rl.market.bars import Bars
from rl.reporting.adaptation_report import adaptation_figures
from rl.reporting.backtest_words import what_is_shown
from rl.reporting.tables import SYNTHETIC_PREFIX, WIDTH, csv_text, number, percent, table_lines, whole
from rl.reporting.walk_forward_words import (
    days_of,
    headline_of,
    section,
    verdict_in_words,
    what_it_does_not_show,
    what_it_shows,
)
from rl.stages.gates import Verdict
from rl.trading.kernel import LATE_SESSION_END, NO_FEATURES, ORDER, REASONS
from rl.trading.ledger import LOG_BAR, LOG_PRICE, LOG_REASON

SCHEMA_VERSION = 1
ENDINGS = (".txt", ".json", ".html")
_NOT_THE_CHANCE = "not the chance that there is an edge; shown, not used to decide"
_AT_OPEN = (ORDER, LATE_SESSION_END, NO_FEATURES)


@dataclass(frozen=True, kw_only=True)
class HowMade:
    """By which command and settings a report came about, so that it can be made again."""

    command: str = ""
    """The whole command line; empty where it is not known."""
    config: dict[str, Any] = field(default_factory=dict)
    """Every setting of the backtest, defaults included."""


def checked_report_files(paths: Sequence[Path], actions_file: Path | None = None) -> None:
    """Refuse a report file whose ending says no known format, before any work is done.

    Raises:
        UsageError: Names the file and the endings there are.
    """
    for path in paths:
        if path.suffix.lower() not in ENDINGS:
            raise UsageError(f"--report-file {path}: the ending has to be one of {', '.join(ENDINGS)}")
        if path.is_dir():
            raise UsageError(f"--report-file {path}: there is a folder of that name")
        if path.suffix.lower() == ".html" and pages_folder(path).is_file():
            raise UsageError(
                f"--report-file {path}: the pages of single symbols go into {pages_folder(path)}, but that is a file"
            )
    if actions_file is not None and actions_file.is_dir():
        raise UsageError(f"--actions-file {actions_file}: there is a folder of that name")


def pages_folder(path: Path) -> Path:
    """Return the folder beside an HTML report of several symbols that holds a page for each."""
    return path.with_name(f"{path.stem}_pages")


def headline(results: Sequence[SymbolResult]) -> str:
    """Return in a sentence what was shown and what was not."""
    made_up = [result.symbol for result in results if result.symbol.startswith(SYNTHETIC_PREFIX)]
    promoted = [result.symbol for result in results if result.model["promoted"]]
    beating = [
        result.symbol
        for result in results
        if result.replay.equity[-1] > result.replay.capital
        and result.replay.equity[-1] > (result.baselines["buy_and_hold"].get("final_equity") or 0.0)
    ]
    seen = sorted({result.span["split"] for result in results if result.span["seen_in_training_or_choosing"]})
    walked = [result for result in results if result.background.get("walk_forward")]
    parts = [
        f"{result.symbol}: {headline_of(result.background['walk_forward'])}"
        if len(results) > 1
        else headline_of(result.background["walk_forward"])
        for result in walked
    ]
    if not walked:
        models = "model was" if len(results) == 1 else "models were"
        parts.append(
            f"{len(promoted)} of {len(results)} {models} promoted on evidence"
            + (f" ({', '.join(promoted)})" if promoted else "")
            + "."
        )
    if seen:
        parts.append(
            f"IN-SAMPLE: the {', '.join(seen)} window was seen in training or choosing; these figures prove nothing."
        )
    parts.append(
        f"{len(beating)} of {len(results)} earned money and beat buy-and-hold here, after costs"
        + (f" ({', '.join(beating)})" if beating else "")
        + "."
    )
    if made_up:
        parts.append(f"SYNTHETIC data: {', '.join(made_up)}; nothing follows for any real market.")
    return " ".join(parts)


def text_report(results: Sequence[SymbolResult], portfolio: dict[str, Any]) -> str:
    """Return the whole report as text."""
    lines = ["STAGEGATE BACKTEST REPORT", f"stagegate {__version__}   {_now()}", "", headline(results), ""]
    for result in results:
        lines += [*_verdict_text(result, is_named=len(results) > 1), ""]
    currency = " and ".join(portfolio["currencies"])
    lines += [f"PORTFOLIO (each symbol its own account in {currency}, no money moved between them)"]
    lines += [
        f"  initial {number(portfolio['initial_capital'])}   final {number(portfolio['final_equity'])}   "
        f"P&L {number(portfolio['total_pnl'])}   return {percent(portfolio['total_return'], 2)}",
        f"  Sharpe {number(portfolio['sharpe_ratio'])}   max drawdown {percent(portfolio['max_drawdown'])}   trades "
        f"{whole(portfolio['total_trades'])}   win rate {percent(portfolio['win_rate'])}   profit factor "
        f"{number(portfolio['profit_factor'])}   costs {number(portfolio['total_costs'])}",
    ]
    for result in results:
        lines += ["", "=" * 100, *_symbol_text(result)]
    return printable("\n".join(lines) + "\n")


def _verdict_text(result: SymbolResult, *, is_named: bool) -> list[str]:
    """Return what is shown of a symbol, a sentence to a line, as the page has it at its top."""
    sentences = [
        line
        for sentence in what_is_shown(result)
        for line in wrap(sentence, WIDTH - 4, subsequent_indent="  ", break_long_words=False)
    ]
    return [*([result.symbol] if is_named else []), *(f"  {line}" for line in sentences)]


def _symbol_text(result: SymbolResult) -> list[str]:
    model, span, figures = result.model, result.span, result.figures.values
    synthetic = "   SYNTHETIC DATA" if result.symbol.startswith(SYNTHETIC_PREFIX) else ""
    lines = [
        f"{result.symbol}{synthetic}",
        f"  model    {model['file']} (stage {model['stage']}; {model['verdict_text']})",
        f"  span     {span['split']}: {span['from']} .. {span['to']}, {span['sessions']:,} sessions, "
        f"{span['bars']:,} bars"
        + (f", look {span['looks']} at {_looked_at(span)}" if span["looks"] else "")
        + ("   SEEN IN TRAINING OR CHOOSING" if span["seen_in_training_or_choosing"] else ""),
        f"  costs    {result.instrument['matched']}: {_costs_in_words(result.instrument)}",
    ]
    if result.replay.was_ruined:
        lines.append(
            f"  RUINED   on {span['ruined_on']}: equity fell to the ruin level; the account stands still from there"
        )
    if model["headline"] and not result.background.get("walk_forward"):
        lines.append(f"  WARNING  {model['headline']}")
    lines += [f"  note     {note}" for note in result.notes]
    lines += ["", *_comparison(result), ""]
    if told := result.background.get("walk_forward"):
        lines += [*section(told), ""]
    lines += [
        f"  Sharpe {number(figures['sharpe_ratio'])}, {percent(result.confidence, 0)} interval "
        f"{number(figures['sharpe_low'])} to {number(figures['sharpe_high'])}; "
        f"win rate {percent(figures['win_rate'])}, interval {percent(figures['win_rate_low'])} to "
        f"{percent(figures['win_rate_high'])}, break-even {percent(figures['break_even_win_rate'])}",
        f"  expectancy {number(figures['expectancy'])} a trade, payoff {number(figures['payoff_ratio'])}, held "
        f"{number(figures['average_holding_bars'], 1)} bars, in the market {percent(figures['exposure'])} of the time, "
        f"turnover {number(figures['turnover_per_year'], 0)} a year",
        f"  costs {number(figures['total_costs'])}, {percent(figures['cost_share'])} of gross winnings; refused orders "
        f"{whole(figures['refused_orders'])}; bars touching stop and target "
        f"{whole(figures['bars_touching_stop_and_target'])}",
    ]
    random = result.baselines["random"]
    lines.append(
        f"  beats {random['draws_beaten']} of {random['draws']} random traders with its own holding times and turnover"
    )
    if result.exits:
        lines.append("  exits    " + ", ".join(f"{count:,} {name}" for name, count in result.exits.items()))
    frontier = "   ".join(
        f"{line['cost_bp_per_side']:g} bp {percent(line['total_return'], 2)}" for line in result.cost_frontier
    )
    lines.append(f"  cost frontier (same actions, all-in cost per side): {frontier}")
    lines += [_break_even_text(result), *_trials_text(result)]
    lines += [
        f"  {name} cannot be computed: {reason}" for name, reason in result.figures.not_computed.items()
    ]
    return lines


def _break_even_text(result: SymbolResult) -> str:
    found = result.break_even_cost
    if found.cost_bp_per_side is None:
        return f"  break-even cost cannot be computed: {found.reason}"
    return (
        f"  break-even cost {number(found.cost_bp_per_side)} bp per side: at it the same actions earn nothing "
        f"(paid here {number(found.paid_bp_per_side)} bp)"
    )


def _trials_text(result: SymbolResult) -> list[str]:
    found, reasons = result.sharpe_after_trials.values, result.sharpe_after_trials.not_computed
    if found["deflated_sharpe"] is not None:
        return [
            f"  deflated Sharpe {number(found['deflated_sharpe'])} (1 minus the chance that luck alone shows such a "
            f"ratio as the best of {whole(found['trials'])} trials; {_NOT_THE_CHANCE})"
        ]
    lines = [f"  deflated Sharpe cannot be computed: {reasons['deflated_sharpe']}"]
    if found["probabilistic_sharpe"] is not None:
        lines.append(
            f"  probabilistic Sharpe {number(found['probabilistic_sharpe'])} (1 minus the chance that luck alone shows "
            f"such a ratio, as if this were the only trial; {_NOT_THE_CHANCE})"
        )
    return lines


def _looked_at(span: dict[str, Any]) -> str:
    return "the test window inside" if span["split"] == "all" else "it"


_COLUMNS = (
    ("return", "total_return", percent),
    ("Sharpe", "sharpe_ratio", number),
    ("Sortino", "sortino_ratio", number),
    ("max DD", "max_drawdown", percent),
    ("trades", "total_trades", whole),
    ("win rate", "win_rate", percent),
    ("PF", "profit_factor", number),
    ("costs", "total_costs", number),
)


def _comparison(result: SymbolResult) -> list[str]:
    missing: list[str] = []
    rows = [["strategy", *(form(result.figures.values[key]) for _, key, form in _COLUMNS)]]
    for name, figures in result.baselines.items():
        if figures.get("unavailable"):
            missing.append(f"  {name.replace('_', ' ')}: none, {figures['unavailable']}")
            continue
        label = name.replace("_", " ") + (f" (mean of {figures['draws']})" if "draws" in figures else "")
        rows.append([label, *(form(figures[key]) for _, key, form in _COLUMNS)])
    headings = ["", *(heading for heading, _, _ in _COLUMNS)]
    return ["  " + line for line in table_lines(headings, rows, width=108)] + missing


def _costs_in_words(instrument: dict[str, Any]) -> str:
    rules = instrument["rules"]
    parts = []
    if rules["commission_rate"]:
        parts.append(f"{1e4 * rules['commission_rate']:g} bp per side")
    if rules["commission_per_entry"] or rules["commission_per_exit"]:
        parts.append(
            f"{rules['commission_per_entry']:g} per entry, {rules['commission_per_exit']:g} per exit"
        )
    if rules["commission_per_unit"]:
        parts.append(f"{rules['commission_per_unit']:g} per unit")
    if rules["slippage_rate"]:
        parts.append(f"slippage {1e4 * rules['slippage_rate']:g} bp")
    if rules["slippage_price"]:
        parts.append(f"slippage {rules['slippage_price']:g} in price")
    if rules["tax_on_sale_rate"]:
        parts.append(f"tax on sale {1e4 * rules['tax_on_sale_rate']:g} bp")
    parts.append("shorts allowed" if rules["allow_short"] else "no shorts")
    if rules["square_off"]:
        parts.append("flat at each session's end")
    return ", ".join(parts)


def json_report(
    results: Sequence[SymbolResult], portfolio: dict[str, Any], how: HowMade | None = None
) -> dict[str, Any]:
    """Return the whole report as plain values, unrounded; null with a reason where a figure cannot be computed."""
    how = how or HowMade()
    return {
        "schema_version": SCHEMA_VERSION,
        "stagegate_version": __version__,
        "generated": _now(),
        "headline": headline(results),
        "symbols": {result.symbol: _symbol_json(result) for result in results},
        "portfolio": portfolio,
        "command": how.command,
        "config": how.config,
    }


def _symbol_json(result: SymbolResult) -> dict[str, Any]:
    background = result.background
    return {
        "synthetic": result.symbol.startswith(SYNTHETIC_PREFIX),
        "what_is_shown": what_is_shown(result),
        "model": result.model,
        "span": result.span,
        "instrument": result.instrument,
        "costs_in_words": _costs_in_words(result.instrument),
        "metrics": result.figures.as_dict(),
        "baselines": result.baselines,
        "interval_confidence": result.confidence,
        "cost_frontier": result.cost_frontier,
        "break_even_cost": result.break_even_cost.as_dict(),
        "sharpe_after_trials": result.sharpe_after_trials.as_dict(),
        "exits": result.exits,
        **result.breakdown,
        "price_stretch": result.stretch.as_dict(result.bars),
        "latest_trades": result.trades,
        "walk_forward": _walk_forward_json(background.get("walk_forward")),
        "windows": background.get("windows", {}),
        "stages": [_stage_json(stage) for stage in background.get("stages", [])],
        "experts": background.get("experts"),
        "data_quality": background.get("data_quality"),
        "plan": background.get("plan"),
        "notes": list(result.notes),
    }


def _walk_forward_json(told: dict[str, Any] | None) -> dict[str, Any] | None:
    if told is None:
        return None
    folds = [{**row, "judged": verdict_in_words(row), **days_of(row)} for row in told["folds"]]
    return {
        **told,
        "folds": folds,
        "shows": what_it_shows(told),
        "does_not_show": what_it_does_not_show(told),
    }


def _stage_json(stage: dict[str, Any]) -> dict[str, Any]:
    """Return what a model file says of its training, with the adaptation in the words of the training report."""
    verdict = stage.get("verdict") or {}
    if verdict.get("level") != "adaptation":
        return stage
    return {**stage, "adaptation": adaptation_figures(Verdict.from_dict(verdict))}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def write_reports(
    paths: Sequence[Path],
    results: Sequence[SymbolResult],
    portfolio: dict[str, Any],
    how: HowMade | None = None,
) -> list[Path]:
    """Write the report to every path, in the format its ending names; return every file written.

    An HTML report of several symbols is an index page, and a page for each in the folder `pages_folder` beside it.
    """
    written = []
    for path in paths:
        if path.suffix.lower() == ".json":
            write_json(path, json_report(results, portfolio, how))
        elif path.suffix.lower() == ".html":
            written += _write_pages(path, results, portfolio, how)
        else:
            write_text(path, text_report(results, portfolio))
        written.append(path)
    return written


def _write_pages(
    path: Path, results: Sequence[SymbolResult], portfolio: dict[str, Any], how: HowMade | None
) -> list[Path]:
    # Here, since drawing loads matplotlib, which no other report needs.
    from rl.reporting.html.backtest_page import index_page, symbol_page

    report = json_report(results, portfolio, how)
    if len(results) == 1:
        write_text(path, symbol_page(report, results[0]))
        return []
    folder = pages_folder(path)
    pages = {result.symbol: folder / f"{result.symbol}.html" for result in results}
    # Quoted, or a file named like an address (javascript:…) would be one.
    back = f"../{quote(path.name)}"
    for result in results:
        write_text(pages[result.symbol], symbol_page(report, result, index=back))
    links = {symbol: quote(f"{folder.name}/{page.name}") for symbol, page in pages.items()}
    write_text(path, index_page(report, links))
    return list(pages.values())


def write_actions(path: Path, results: Sequence[tuple[SymbolResult, Bars]]) -> None:
    """Write every decision as CSV, enough to recompute the backtest from the raw bars and the costs alone.

    symbol; datetime: label of the decision bar as the raw file writes it; position: signed exposure after the decision,
    which is units held from the next open * close of the decision bar / equity at that close; fill_price: price the
    decision was filled at on the next bar, empty where nothing was traded; exit_price and exit_reason: where a stop, a
    target or the session's end closed the position later in that bar.
    """
    buffer = io.StringIO()
    lines = csv.writer(buffer, lineterminator="\n")
    lines.writerow(["symbol", "datetime", "position", "fill_price", "exit_price", "exit_reason"])
    for result, bars in results:
        replay = result.replay
        steps = replay.decisions
        rows = slice(replay.start, replay.start + steps)
        position = replay.decided[:steps] * bars.close[rows] / replay.equity[:steps]
        filled = [""] * steps
        left: list[tuple[str, str]] = [("", "")] * steps
        for fill in replay.fill_log:
            step = int(fill[LOG_BAR]) - replay.start - 1
            reason = int(fill[LOG_REASON])
            if reason in _AT_OPEN:
                filled[step] = repr(float(fill[LOG_PRICE]))
            else:
                left[step] = (repr(float(fill[LOG_PRICE])), REASONS[reason])
        labels = bars.label[rows]
        for step in range(steps):
            value = float(position[step]) if np.isfinite(position[step]) else 0.0
            names = (csv_text(result.symbol), csv_text(str(labels[step])))
            lines.writerow([*names, repr(value), filled[step], *left[step]])
    write_text(path, buffer.getvalue())
