"""`run_backtest.py`: models, data, replays, report."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from rl.apps.commands.console import Console, look_of
from rl.apps.commands.folders import prepare_files, prepare_folders
from rl.apps.commands.options import wants_all
from rl.apps.commands.symbols import (
    KnownSymbols,
    bring_up_to_date,
    chosen_symbols,
    instrument_of,
    symbols_of,
)
from rl.backtest.config import BacktestConfig, load_backtest_config
from rl.backtest.engine import Replay, replay_policy
from rl.backtest.result import SymbolResult, portfolio_figures, symbol_result
from rl.checkpoints.checkpoint import Checkpoint
from rl.checkpoints.predictor import Predictor
from rl.checkpoints.registry import Found, best_available, has_model
from rl.common.errors import DATA, GATE_STOPPED, OK, CheckpointError, DataError, StagegateError
from rl.common.runlog import EVENTS, RunLog
from rl.common.seeding import generator
from rl.features.processed_store import Processed, ProcessOutcome, load_processed
from rl.features.scaler import FeatureScaler
from rl.market.bars import Bars, readable_label
from rl.market.calendars import calendar
from rl.market.checks import counted
from rl.market.instruments import FoundInstrument, InstrumentBook, load_instruments
from rl.market.splits import WINDOW_NAMES, Splits
from rl.reporting.backtest_report import (
    HowMade,
    checked_report_files,
    text_report,
    write_actions,
    write_reports,
)
from rl.stages.evaluation import look_subject, named_window
from rl.stages.evidence import LEDGER_NAME, EvidenceLedger
from rl.stages.expert_usage import expert_usage
from rl.stages.model_files import model_from
from rl.stages.model_history import stage_history
from rl.stages.symbol_data import SymbolData
from rl.stages.trials import conclusions, forgotten_looks, trials_of
from rl.trading.market_arrays import MarketArrays
from rl.trading.metrics import session_returns, sharpe_ratio
from rl.trading.rules import TradingRules, rules_for


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
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    with RunLog(options.reports_dir / "runs" / f"{stamp}-backtest" / EVENTS) as log:
        console = Console(
            log,
            as_json=options.json,
            quiet=options.quiet,
            look=look_of(sys.stdout, no_color=options.no_color),
        )
        if wants_all(options.symbols):
            for name, error in known.unusable.items():
                console.problem(name, error)
        if options.process_data:
            symbols = _process(symbols, known, book, options, console)
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
            _report(done, config, options, console)
    if console.problems:
        return max(error.exit_code for error in console.problems.values())
    if options.strict and not all(result.model["promoted"] for result, _ in done):
        return GATE_STOPPED
    return OK if options.dry_run or done else DATA


def backtest_config(options: argparse.Namespace) -> BacktestConfig:
    """Return the settings of the file, with what the options say laid over them."""
    config = load_backtest_config(options.config, overrides=options.overrides)
    given = {
        name: value
        for name, value in (("initial_capital", options.initial_capital), ("split", options.split))
        if value is not None
    }
    return config.model_copy(update=given)


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
            "  Train first: python run_training.py --symbols all"
        )
    return with_model


def _process(
    symbols: list[str],
    known: KnownSymbols,
    book: InstrumentBook,
    options: argparse.Namespace,
    console: Console,
) -> list[str]:
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
    window, seen = _usable_window(checkpoint, bars, market, config.split)
    ledger = EvidenceLedger(options.reports_dir / LEDGER_NAME)
    looks: dict[str, _Look] = {}
    for name in _COUNTED_WINDOWS.get(config.split, ()):
        opened, _ = _usable_window(checkpoint, bars, market, name)
        looks[name] = _count_look(
            ledger, checkpoint, bars, name, opened, rules, config.initial_capital, adapts=not options.no_adapt
        )
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
        _conclude_look(ledger, symbol, shown, replay, market, by_itself=name == config.split)
    trials = trials_of(ledger, symbol)
    notes += forgotten_looks(ledger, options.models_dir, symbol)
    if prepared.note:
        notes.append(f"stage-3 model {prepared.note}")
    if processed.meta["data_hash"] != checkpoint.data_hash:
        notes.append(
            "the raw file has changed since this model was trained; windows are found by their dates"
        )
    return (
        symbol_result(
            bars=bars,
            market=market,
            window=window,
            rules=rules,
            scheme=checkpoint.action_scheme,
            replay=replay,
            model=_model_facts(found),
            span={
                "from": readable_label(bars, window[0]),
                "to": readable_label(bars, replay.stop - 1),
                "ruined_on": readable_label(bars, window[0] + replay.decisions)
                if replay.was_ruined
                else None,
                "split": config.split,
                "bars": replay.stop - window[0],
                "sessions": len(np.unique(bars.session[window[0] : replay.stop])),
                "seen_in_training_or_choosing": seen,
                "looks": look.attempt if look else None,
            },
            instrument={
                "name": instrument.instrument.name,
                "asset_class": instrument.instrument.asset_class,
                "currency": instrument.instrument.currency,
                "matched": instrument.matched,
                "rules": rules.as_dict(),
            },
            sessions_per_year=calendar(instrument.instrument.calendar).sessions_per_year,
            generator=generator(config.seed, "random baseline", symbol),
            random_draws=config.random_baseline_seeds,
            frontier_bp=config.cost_frontier_bp,
            confidence=config.report.interval_confidence,
            listed_trades=config.report.listed_trades,
            trials=trials.count,
            trial_variance=trials.sharpe_variance,
            notes=notes,
            price_stretch=config.report.price_stretch,
            price_stretch_bars=config.report.price_stretch_bars,
            background={
                "windows": _windows(checkpoint, bars),
                "stages": stage_history(options.models_dir, checkpoint),
                "experts": expert_usage(
                    _symbol_data(checkpoint, processed, market, rules, instrument),
                    checkpoint.policy_spec,
                    prepared.weights,
                    replay,
                    split=config.split,
                    seed=config.seed,
                ),
                "data_quality": _data_quality(processed),
                "plan": checkpoint.plan,
            },
        ),
        bars,
    )


def _windows(checkpoint: Checkpoint, bars: Bars) -> dict[str, dict[str, Any]]:
    """Return the dates of the model's windows, the test window as far as the bars go."""
    found = {}
    for name in WINDOW_NAMES:
        (start, stop), _ = _window(checkpoint, bars, name)
        found[name] = {
            "from": readable_label(bars, start),
            "to": readable_label(bars, stop - 1),
            "first_row": start,
            "bars": stop - start,
        }
    return found


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


def _data_quality(processed: Processed) -> dict[str, Any]:
    """Return what processing the raw file found, without the places of this machine."""
    meta = processed.meta
    kept = ("bars", "first_bar", "last_bar", "sessions", "usable_bars", "counts", "notes", "data_hash")
    return {
        "raw_file": meta["raw"]["file"],
        "features": len(meta["features"]),
        **{name: meta.get(name) for name in kept},
    }


_COUNTED_WINDOWS = {"promotion": ("promotion",), "test": ("test",), "all": ("promotion", "test")}
"""Windows nobody may have seen, by the split that opens them: what was seen there can be chosen by."""


@dataclass(frozen=True, kw_only=True)
class _Look:
    """One counted look at a window."""

    purpose: str
    """promotion or test, as the window."""
    window: tuple[int, int]
    """Its first row and the row after its last."""
    window_hash: str
    attempt: int


def _count_look(
    ledger: EvidenceLedger,
    checkpoint: Checkpoint,
    bars: Bars,
    name: str,
    window: tuple[int, int],
    rules: TradingRules,
    capital: float,
    *,
    adapts: bool,
) -> _Look:
    """Write down that a window is about to be opened; return which look at it this is.

    The same weights under the same costs and capital show nothing new and are not counted again, whichever file they
    lie in and whichever run made it; nor is a champion whose promotion has looked at the window before.
    """
    subject = look_subject(model_from(checkpoint), rules, capital)
    # Only a stage-3 model has a recipe to adapt by; to any other, the choice makes no difference.
    if not adapts and checkpoint.trading.get("adaptation") is not None:
        subject += " not adapted"
    window_hash, span = named_window(bars, *window)
    attempt = ledger.record(
        checkpoint.symbol, window_hash, name, subject=subject, span=span, stage=checkpoint.stage
    )
    return _Look(purpose=name, window=window, window_hash=window_hash, attempt=attempt)


def _conclude_look(
    ledger: EvidenceLedger,
    symbol: str,
    look: _Look,
    replay: Replay,
    market: MarketArrays,
    *,
    by_itself: bool,
) -> None:
    """Write down the Sharpe ratio of the window's sessions that was seen: what looked at a window is a trial.

    A look that a gate has judged is a trial already. So is one that a backtest has concluded, where the window is now
    only a part of what was replayed: there the account enters it with what it made of the bars before, and shows
    another ratio than the window by itself.
    """
    if any(
        not by_itself or "sharpe_per_session" not in line
        for line in conclusions(ledger, symbol, look.purpose, look.window_hash, look.attempt)
    ):
        return
    session = market.session[replay.start : replay.stop]
    inside = np.isin(np.unique(session), market.session[slice(*look.window)])
    returns = session_returns(replay.equity, session, replay.capital)[inside]
    ratio = sharpe_ratio(returns, 1.0)
    ledger.conclude(
        symbol,
        look.window_hash,
        look.purpose,
        look.attempt,
        sharpe_per_session=ratio if math.isfinite(ratio) else None,
        sessions=len(returns),
    )


def todays_rules(checkpoint: Checkpoint, instrument: FoundInstrument) -> tuple[TradingRules, list[str]]:
    """Return today's costs with the model's own exits and sizing, and a note on every cost that differs now."""
    trained = TradingRules(**checkpoint.trading["rules"])
    now = rules_for(instrument.instrument, exposure=trained.exposure, bar_volatility=trained.bar_volatility)
    own = {
        name: getattr(trained, name)
        for name in (
            "ruin_level",
            "stop_loss",
            "take_profit",
            "trailing_stop",
            "exits_in_atr",
            "weight_log_equity",
            "weight_drawdown",
            "weight_turnover",
        )
    }
    rules = replace(now, **own)
    changed = [
        f"{name} {getattr(trained, name):g} -> {getattr(rules, name):g}"
        for name in TradingRules.__dataclass_fields__
        if getattr(trained, name) != getattr(rules, name)
    ]
    return rules, ([f"costs or limits differ from training: {', '.join(changed)}"] if changed else [])


def _window(checkpoint: Checkpoint, bars: Bars, split: str) -> tuple[tuple[int, int], bool]:
    """Return the rows of a split as the checkpoint dates it, and whether training or choosing has seen them.

    Bars later than the file the model was trained on belong to the test window: nobody has seen them.
    """
    splits = Splits.from_boundaries(bars, checkpoint.splits)
    if split == "all":
        return (0, len(bars)), True
    window = getattr(splits, split)
    stop = window.stop
    if split == "test" and _ended_with_the_data(checkpoint):
        stop = len(bars)
    return (window.start, stop), split != "test"


def _usable_window(
    checkpoint: Checkpoint, bars: Bars, market: MarketArrays, split: str
) -> tuple[tuple[int, int], bool]:
    """Return `_window`, begun at the first bar with all features defined."""
    (start, stop), seen = _window(checkpoint, bars, split)
    usable = start + np.flatnonzero(market.tradable[start:stop])
    if len(usable) < 2:
        raise DataError(f"{checkpoint.symbol}: the {split} window has no bar with all features defined")
    return (int(usable[0]), stop), seen


def _ended_with_the_data(checkpoint: Checkpoint) -> bool:
    """Return True where the test window ran to the last bar there was, so that later bars belong to it."""
    last, end = checkpoint.splits["test"]["last"], checkpoint.splits.get("data_end")
    return end is not None and datetime.fromisoformat(last) == datetime.fromisoformat(end)


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


def _report(
    done: list[tuple[SymbolResult, Bars]],
    config: BacktestConfig,
    options: argparse.Namespace,
    console: Console,
) -> None:
    results = [result for result, _ in done]
    portfolio = portfolio_figures(results)
    how = HowMade(command=shlex.join(["python", *sys.argv]), config=config.model_dump(mode="json"))
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
