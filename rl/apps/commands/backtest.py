"""`run_backtest.py`: models, data, replays, report."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rl.apps.commands.console import Console, console_of
from rl.apps.commands.folders import prepare_files, prepare_folders
from rl.apps.commands.options import given_settings, wants_all
from rl.apps.commands.symbols import (
    KnownSymbols,
    bring_up_to_date,
    chosen_symbols,
    instrument_of,
    symbols_of,
)
from rl.backtest.config import BacktestConfig, load_backtest_config
from rl.backtest.configured_result import configured_result, data_quality
from rl.backtest.engine import replay_policy
from rl.backtest.result import SymbolResult, portfolio_figures
from rl.checkpoints.checkpoint import Checkpoint
from rl.checkpoints.predictor import Predictor
from rl.checkpoints.registry import Found, best_available, has_model
from rl.common.errors import DATA, GATE_STOPPED, OK, CheckpointError, StagegateError
from rl.common.interpreter import command_line, interpreter
from rl.features.processed_store import Processed, ProcessOutcome, load_processed
from rl.features.scaler import FeatureScaler
from rl.market.bars import Bars
from rl.market.calendars import calendar
from rl.market.checks import counted
from rl.market.instruments import FoundInstrument, InstrumentBook, load_instruments
from rl.market.splits import Splits
from rl.reporting.backtest_report import (
    HowMade,
    checked_report_files,
    text_report,
    write_actions,
    write_reports,
)
from rl.stages.backtest_looks import (
    COUNTED_WINDOWS,
    WindowLook,
    conclude_look,
    count_look,
    dated_windows,
    todays_rules,
    usable_window,
)
from rl.stages.evaluation import look_subject
from rl.stages.evidence import LEDGER_NAME, EvidenceLedger
from rl.stages.expert_usage import expert_usage
from rl.stages.model_files import model_from
from rl.stages.model_history import stage_history
from rl.stages.symbol_data import SymbolData
from rl.stages.trials import forgotten_looks, trials_of
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules


def backtest(options: argparse.Namespace) -> int:
    """Backtest what the options ask for; return the exit code."""
    config = backtest_config(options)
    checked_report_files(options.report_file, options.actions_file)
    book = load_instruments(*options.instruments)
    known = symbols_of(options)
    symbols = _symbols_with_models(options, known)
    prepare_folders(options, "reports_dir")
    prepare_files(options.report_file, "--report-file")
    prepare_files([options.actions_file] if options.actions_file else [], "--actions-file")
    with console_of(options, "backtest") as console:
        if wants_all(options.symbols):
            for name, error in known.unusable.items():
                console.problem(name, error)
            for note in known.notes():
                console.say(note)
        if options.process_data:
            symbols = brought_up_to_date(symbols, known, book, options, console)
        done: list[tuple[SymbolResult, Bars]] = []
        with_model = 0
        for symbol in symbols:
            try:
                found = best_available(
                    options.models_dir,
                    symbol,
                    options.stage,
                    on_refused=lambda error, symbol=symbol: console.problem(symbol, error),
                )
                with_model += 1
                instrument = instrument_of(symbol, book, known.raw)
                if not options.dry_run:
                    done.append(_backtest_symbol(symbol, found, instrument, options, config))
            except StagegateError as error:
                console.problem(symbol, error)
        if options.dry_run:
            console.result(f"Dry run: {counted(with_model, 'symbol')} would be tested; nothing was.")
        elif done:
            report(done, config, options, console)
    if console.problems:
        return max(error.exit_code for error in console.problems.values())
    if options.strict and not all(result.model["promoted"] for result, _ in done):
        return GATE_STOPPED
    return OK if options.dry_run or done else DATA


def backtest_config(options: argparse.Namespace) -> BacktestConfig:
    """Return the settings of the file, with what the options say laid over them."""
    return load_backtest_config(options.config, overrides=options.overrides, given=given_settings(options))


def _symbols_with_models(options: argparse.Namespace, known: KnownSymbols) -> list[str]:
    """Return the symbols asked for; `all` means every known symbol that has a model."""
    symbols = chosen_symbols(options.symbols, known, options.raw_data_dir)
    if not wants_all(options.symbols):
        return symbols
    with_model = [symbol for symbol in symbols if has_model(options.models_dir, symbol)]
    if not with_model:
        raise CheckpointError(
            f"no symbol of {options.raw_data_dir} or {options.processed_data_dir} has a model in "
            f"{options.models_dir}.\n"
            f"  Train first: {interpreter()} run_training.py --symbols all"
        )
    return with_model


def brought_up_to_date(
    symbols: list[str],
    known: KnownSymbols,
    book: InstrumentBook,
    options: argparse.Namespace,
    console: Console,
) -> list[str]:
    """Process raw files that are new or changed, and say so; return the symbols that are ready."""

    def told(outcome: ProcessOutcome) -> None:
        console.event("processed", symbol=outcome.symbol, action=outcome.action, seconds=outcome.seconds)
        if outcome.action != "unchanged":
            console.say(
                f"{outcome.symbol}: {outcome.action}, {outcome.bars:,} bars in {outcome.seconds:.1f} s"
            )

    return bring_up_to_date(
        symbols,
        known,
        book,
        options.processed_data_dir,
        on_outcome=told,
        on_problem=console.problem,
    )


def _backtest_symbol(
    symbol: str,
    found: Found,
    instrument: FoundInstrument,
    options: argparse.Namespace,
    config: BacktestConfig,
) -> tuple[SymbolResult, Bars]:
    checkpoint = found.checkpoint
    processed = load_processed(symbol, options.processed_data_dir)
    bars = processed.bars
    predictor = Predictor(checkpoint)
    market = predictor.market(bars, processed.features)
    rules, notes = todays_rules(checkpoint, instrument)
    window, seen = usable_window(checkpoint, bars, market, config.split)
    ledger = EvidenceLedger(options.reports_dir / LEDGER_NAME)
    looks: dict[str, WindowLook] = {}
    for name in COUNTED_WINDOWS.get(config.split, ()):
        opened, _ = usable_window(checkpoint, bars, market, name)
        subject = _subject(checkpoint, rules, config.initial_capital, adapts=not options.no_adapt)
        looks[name] = count_look(ledger, bars, name, opened, subject=subject, stage=checkpoint.stage)
    look = looks.get(config.split) or looks.get("test")
    prepared = predictor.policy_for(
        market,
        rules,
        span_start=window[0],
        capital=config.initial_capital,
        adapt_before_use=not options.no_adapt,
    )
    replay = replay_policy(
        market,
        window,
        rules,
        prepared.packed,
        scheme=checkpoint.action_scheme,
        capital=config.initial_capital,
    )
    for name, shown in looks.items():
        conclude_look(ledger, symbol, shown, replay, market, by_itself=name == config.split)
    trials = trials_of(ledger, symbol)
    notes += forgotten_looks(ledger, options.models_dir, symbol)
    if prepared.note:
        notes.append(f"stage-3 model {prepared.note}")
    if processed.meta["data_hash"] != checkpoint.data_hash:
        notes.append(
            "the raw file has changed since this model was trained; windows are found by their dates"
        )
    return (
        configured_result(
            replay,
            bars=bars,
            market=market,
            rules=rules,
            scheme=checkpoint.action_scheme,
            config=config,
            instrument=instrument,
            model=_model_facts(found),
            split=config.split,
            seen=seen,
            looks=look.attempt if look else None,
            trials=trials.count,
            trial_variance=trials.sharpe_variance,
            notes=notes,
            background={
                "windows": dated_windows(checkpoint, bars),
                "stages": stage_history(options.models_dir, checkpoint),
                "experts": expert_usage(
                    _symbol_data(checkpoint, processed, market, rules, instrument),
                    checkpoint.policy_spec,
                    prepared.weights,
                    replay,
                    split=config.split,
                    seed=config.seed,
                ),
                "data_quality": data_quality(processed.meta),
                "plan": checkpoint.plan,
            },
        ),
        bars,
    )


def _symbol_data(
    checkpoint: Checkpoint,
    processed: Processed,
    market: MarketArrays,
    rules: TradingRules,
    instrument: FoundInstrument,
) -> SymbolData:
    """Return the symbol as the stages see it, with the model's own windows and scaler."""
    return SymbolData(
        symbol=checkpoint.symbol,
        found=instrument,
        bars=processed.bars,
        table=processed.features,
        feature_names=tuple(checkpoint.feature_names),
        gate_columns=tuple(checkpoint.policy_spec.get("gate_inputs", ())),
        scaler=FeatureScaler.from_dict(checkpoint.scaler),
        market=market,
        splits=Splits.from_boundaries(processed.bars, checkpoint.splits),
        embargo_bars=int(checkpoint.splits.get("embargo_bars", 0)),
        rules=rules,
        data_hash=processed.meta["data_hash"],
        sessions_per_year=calendar(instrument.instrument.calendar).sessions_per_year,
        notes=(),
    )


def _subject(checkpoint: Checkpoint, rules: TradingRules, capital: float, *, adapts: bool) -> str:
    """Return what a look is at: whichever file the weights lie in and whichever run made them.

    A champion whose promotion has looked at the window before is not counted again either.
    """
    subject = look_subject(model_from(checkpoint), rules, capital)
    # Only a stage-3 model has a recipe to adapt by; to any other, the choice makes no difference.
    if not adapts and checkpoint.trading.get("adaptation") is not None:
        subject += " not adapted"
    return subject


def _model_facts(found: Found) -> dict[str, Any]:
    checkpoint = found.checkpoint
    verdict = checkpoint.verdict
    promoted = checkpoint.stage == "final" and checkpoint.passed
    level = verdict.get("level", "gate")
    text = f"{level} {verdict.get('outcome', 'not judged')}"
    if not promoted:
        text += ", not promoted" if checkpoint.stage != "final" else ", UNPROVEN"
    return {
        "file": str(found.path),
        "stage": checkpoint.champion_of or checkpoint.stage,
        "verdict": verdict.get("outcome"),
        "verdict_text": text,
        "promoted": promoted,
        "headline": found.headline,
        "data_hash": checkpoint.data_hash,
    }


def report(
    done: list[tuple[SymbolResult, Bars]],
    config: BacktestConfig,
    options: argparse.Namespace,
    console: Console,
) -> None:
    """Print the report, and write every file the options ask for."""
    results = [result for result, _ in done]
    portfolio = portfolio_figures(results)
    how = HowMade(command=command_line(sys.argv), config=config.model_dump(mode="json"))
    console.say(text_report(results, portfolio))
    written = write_reports(options.report_file, results, portfolio, how)
    if options.actions_file:
        write_actions(options.actions_file, done)
    console.event("reports_written", files=[str(path.absolute()) for path in written])
    for result in results:
        console.event(
            "symbol_done",
            symbol=result.symbol,
            model=result.model,
            span=result.span,
            metrics=result.figures.as_dict(),
            buy_and_hold=result.baselines["buy_and_hold"],
        )
    for path in [*options.report_file, *([options.actions_file] if options.actions_file else [])]:
        console.result(f"written: {path}")
    if any(path.suffix.lower() == ".html" for path in options.report_file):
        # Here, since its templates load jinja2, which no other report needs.
        from rl.reporting.html.runs_page import write_runs_page

        console.result(f"all runs: {write_runs_page(options.reports_dir)}")
