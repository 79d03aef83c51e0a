"""`run_backtest.py --check-lookahead`: does anything from the raw file to the verdict see the future?"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rl import __version__
from rl.apps.commands.backtest import backtest_config
from rl.apps.commands.console import console_of
from rl.apps.commands.folders import prepare_files, prepare_folders
from rl.apps.commands.options import wants_all
from rl.apps.commands.symbols import KnownSymbols, chosen_symbols, instrument_of, symbols_of
from rl.backtest.lookahead import LookaheadReport, check_lookahead
from rl.backtest.lookahead_chain import Model, model_of
from rl.checkpoints.registry import best_available, has_model
from rl.common.atomic_files import sha256_of, write_json, write_text
from rl.common.errors import DATA, OK, DataError, StagegateError, UsageError
from rl.market.instruments import FoundInstrument, load_instruments
from rl.market.raw_table import read_table
from rl.reporting.backtest_report import checked_report_files
from rl.reporting.lookahead_report import lookahead_text
from rl.stages.backtest_looks import todays_rules


def check_for_lookahead(options: argparse.Namespace) -> int:
    """Check what the options ask for; return OK where nothing sees the future, else DATA."""
    checked_report_files(options.report_file)
    if options.actions_file:
        raise UsageError(
            "--actions-file: --check-lookahead backtests nothing, so there are no actions to write"
        )
    capital = backtest_config(options).initial_capital
    book = load_instruments(*options.instruments)
    known = symbols_of(options)
    symbols = chosen_symbols(options.symbols, known, options.raw_data_dir)
    if wants_all(options.symbols):
        symbols = [symbol for symbol in symbols if symbol in known.raw]
    prepare_folders(options, "reports_dir")
    prepare_files(options.report_file, "--report-file")
    reports: list[LookaheadReport] = []
    with console_of(options, "look-ahead") as console:
        for symbol in symbols:
            try:
                found = instrument_of(symbol, book, known.raw)
                begun = time.perf_counter()
                report = _checked(symbol, found, known, options, capital)
            except StagegateError as error:
                console.problem(symbol, error)
                continue
            reports.append(report)
            console.event("lookahead_checked", **report.to_dict())
            console.say(f"{lookahead_text(report)}\n  {time.perf_counter() - begun:.1f} s\n")
        seeing = [report.symbol for report in reports if report.faults]
        trusting = [report.symbol for report in reports if report.on_trust]
        clean = len(reports) - len(seeing)
        console.result(
            f"{clean} of {len(symbols)} symbols clean"
            + (f"; sees the future: {', '.join(seeing)}" if seeing else "")
            + (f"; own columns taken on trust: {', '.join(trusting)}" if trusting else "")
            + (f"; not checked: {', '.join(console.problems)}" if console.problems else "")
        )
        _write(options.report_file, reports)
        for path in options.report_file:
            console.result(f"written: {path}")
    if console.problems:
        return max(error.exit_code for error in console.problems.values())
    return DATA if seeing else OK


def _checked(
    symbol: str,
    found: FoundInstrument,
    known: KnownSymbols,
    options: argparse.Namespace,
    capital: float,
) -> LookaheadReport:
    if symbol not in known.raw:
        raise DataError(
            f"{symbol}: the look-ahead check starts from the raw file, and {options.raw_data_dir} holds none; "
            "put it back or name its folder with --raw-data-dir"
        )
    path = known.raw[symbol]
    return check_lookahead(
        read_table(path),
        path,
        symbol,
        found.instrument,
        model=_model(symbol, found, options, capital),
        data_hash=sha256_of(path),
    )


def _model(symbol: str, found: FoundInstrument, options: argparse.Namespace, capital: float) -> Model | None:
    """Return the model a backtest would use; None where the symbol has not been trained and none was asked for."""
    if options.stage == "best" and not has_model(options.models_dir, symbol):
        return None
    checkpoint = best_available(options.models_dir, symbol, options.stage).checkpoint
    rules, _ = todays_rules(checkpoint, found)
    return model_of(checkpoint, rules, capital=capital, adapts=not options.no_adapt)


def _write(paths: list[Path], reports: list[LookaheadReport]) -> None:
    for path in paths:
        if path.suffix.lower() == ".json":
            content = {
                "schema_version": 1,
                "stagegate": __version__,
                "sees_the_future": any(report.faults for report in reports),
                "symbols": [report.to_dict() for report in reports],
            }
            write_json(path, content)
        else:
            write_text(path, "\n\n".join(lookahead_text(report) for report in reports) + "\n")
