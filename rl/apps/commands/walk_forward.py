"""`run_backtest.py --walk-forward WINDOW/STEP`: train, trade the next stretch, move on; one account of it all."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rl.apps.commands.backtest import backtest_config, brought_up_to_date, report
from rl.apps.commands.console import Console, TrainingListener, console_of
from rl.apps.commands.folders import prepare_files, prepare_folders
from rl.apps.commands.options import PLAN_FILE, chosen_stages, wants_all
from rl.apps.commands.symbols import chosen_symbols, instrument_of, symbols_of
from rl.backtest.config import BacktestConfig
from rl.backtest.configured_result import configured_result, data_quality
from rl.backtest.engine import Replay
from rl.backtest.result import SymbolResult
from rl.backtest.walk_forward import Fold, WalkForward, folds_of, only_in, parse_walk_forward, stitched
from rl.checkpoints.predictor import Predictor
from rl.common.errors import DATA, GATE_STOPPED, OK, StagegateError, UsageError
from rl.common.interpreter import command_line
from rl.common.locks import symbol_lock
from rl.features.processed_store import Processed, load_processed
from rl.market.bars import Bars, readable_label
from rl.market.checks import counted
from rl.market.instruments import FoundInstrument, load_instruments
from rl.market.splits import split_bars
from rl.reporting.backtest_report import checked_report_files
from rl.reporting.walk_forward_words import headline_of
from rl.stages.backtest_looks import conclude_look, count_look, todays_rules
from rl.stages.evidence import LEDGER_NAME, EvidenceLedger
from rl.stages.fold_training import (
    FoldWork,
    TrainedFold,
    fold_data,
    is_finished,
    trade_stretch,
    train_fold,
    works_of,
)
from rl.stages.null_bank import refuse_if_nulls_pass
from rl.stages.plan import FULL, STAGES, Plan, load_plan
from rl.stages.sequence import check_learners
from rl.stages.symbol_data import embargo_for, split_plan
from rl.stages.trials import trials_of
from rl.stages.walk_forward_facts import fold_facts, walk_forward_facts
from rl.trading.metrics import session_returns
from rl.trading.rules import TradingRules

SPLIT = "walk-forward"
"""What a report calls the span."""

FOLDS = "walk_forward"
"""Folder of the reports folder that holds every fold."""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the command is to do, read and checked."""

    lengths: WalkForward
    plan: Plan
    stages: tuple[str, ...]
    config: BacktestConfig
    root: Path
    ledger: EvidenceLedger
    adapts: bool
    bars: bool
    """Whether progress is drawn as a bar."""


def walk_forward(options: argparse.Namespace) -> int:
    """Walk every symbol forward; return the exit code."""
    lengths = parse_walk_forward(options.walk_forward)
    _refuse_what_has_no_meaning(options)
    config = backtest_config(options)
    checked_report_files(options.report_file, options.actions_file)
    plan = load_plan(
        options.plan or PLAN_FILE, overrides=options.plan_overrides, profile=options.profile or FULL
    )
    stages = chosen_stages(options.stages)
    if stages[0] != STAGES[0]:
        raise UsageError(
            f"--stages {' '.join(stages)}: a fold has no model to start from, so its stages begin with {STAGES[0]}"
        )
    for symbol in (None, *plan.symbols):
        check_learners(plan.for_symbol(symbol) if symbol else plan, stages)
    refuse_if_nulls_pass(plan)
    book, known = load_instruments(*options.instruments), symbols_of(options)
    symbols = chosen_symbols(options.symbols, known, options.raw_data_dir)
    prepare_folders(options, "reports_dir")
    prepare_files(options.report_file, "--report-file")
    prepare_files([options.actions_file] if options.actions_file else [], "--actions-file")
    asked = _Asked(
        lengths=lengths,
        plan=plan,
        stages=stages,
        config=config,
        root=options.reports_dir / FOLDS,
        ledger=EvidenceLedger(options.reports_dir / LEDGER_NAME),
        adapts=not options.no_adapt,
        bars=sys.stderr.isatty() and not (options.json or options.quiet),
    )
    with console_of(options, "walk-forward") as console:
        if wants_all(options.symbols):
            for name, error in known.unusable.items():
                console.problem(name, error)
            for note in known.notes():
                console.say(note)
        done: list[tuple[SymbolResult, Bars]] = []
        for symbol in brought_up_to_date(symbols, known, book, options, console):
            try:
                processed = load_processed(symbol, options.processed_data_dir)
                instrument = instrument_of(symbol, book, known.raw)
                result = _walked(processed, instrument, asked, console, is_dry=options.dry_run)
                if result is not None:
                    done.append((result, processed.bars))
            except StagegateError as error:
                console.problem(symbol, error)
        if options.dry_run:
            console.result("Dry run: nothing was trained, traded or counted as a look.")
        elif done:
            report(done, config, options, console)
    if console.problems:
        return max(error.exit_code for error in console.problems.values())
    if options.strict and not all(result.model["promoted"] for result, _ in done):
        return GATE_STOPPED
    return OK if options.dry_run or done else DATA


def _refuse_what_has_no_meaning(options: argparse.Namespace) -> None:
    given = {
        "--check-lookahead": options.check_lookahead,
        "--stage": options.stage != "best",
        "--split": options.split is not None,
    }
    if wrong := [name for name, is_given in given.items() if is_given]:
        raise UsageError(
            f"{wrong[0]} does not go with --walk-forward, which trains its own models and trades its own stretches; "
            "leave one of them out"
        )


def _walked(
    processed: Processed, instrument: FoundInstrument, asked: _Asked, console: Console, *, is_dry: bool
) -> SymbolResult | None:
    """Train the folds of a symbol and let them trade; None for a dry run."""
    bars, table = processed.bars, processed.features
    plan = asked.plan.for_symbol(bars.symbol)
    folds, note = folds_of(bars, table.usable, asked.lengths)
    works = works_of(bars, table, folds, plan, stages=asked.stages, instrument=instrument, root=asked.root)
    spent = _spent(bars, plan, folds)
    for line in _announced(bars, works, asked.lengths, spent, note):
        console.say(line)
    for work in works:
        with _named(work, len(works)):
            fold_data(work)
    if is_dry:
        return None
    span, capital = (folds[0].start, folds[-1].stop), asked.config.initial_capital
    # Before anything is trained: the gates of later folds look at bars of earlier folds' stretches.
    subject = f"walk-forward {works[-1].identity} {capital!r}" + ("" if asked.adapts else " not adapted")
    look = count_look(asked.ledger, bars, "test", span, subject=subject, stage=SPLIT)
    trained = _trained(works, asked.root, TrainingListener(console, bars=asked.bars), console)
    rules, notes = todays_rules(trained[0].found.checkpoint, instrument)
    market = Predictor(trained[0].found.checkpoint).market(bars, table)
    scheme = plan.environment.action_scheme
    models = {each.fold.number: each for each in trained}

    def act(fold: Fold, rows: tuple[int, int], money: float, own: TradingRules) -> Replay:
        return trade_stretch(
            bars, table, models[fold.number], instrument, rows, money, own, adapts=asked.adapts
        )

    stitches = stitched(market, rules, folds, act, scheme=scheme, capital=capital)
    conclude_look(asked.ledger, bars.symbol, look, stitches.replay, market, by_itself=True)
    trials = trials_of(asked.ledger, bars.symbol)
    result = configured_result(
        stitches.replay,
        bars=bars,
        market=market,
        rules=rules,
        scheme=scheme,
        config=asked.config,
        instrument=instrument,
        model={},
        split=SPLIT,
        seen=False,
        looks=look.attempt,
        trials=trials.count,
        trial_variance=trials.sharpe_variance,
        notes=notes,
        background={},
    )
    rows = fold_facts(bars, stitches, result.held_equity, trained)
    session = market.session[span[0] : span[1]]
    promoted = [row["number"] for row in rows if row["promoted"]]
    only = only_in(stitches, folds, promoted, market, rules, scheme)
    told = walk_forward_facts(
        result,
        stitches,
        rows,
        asked.lengths,
        promoted_only=float(only.equity[-1] / capital - 1.0),
        held_returns=session_returns(result.held_equity, session, capital),
        spent=spent,
        note=note,
    )
    return replace(
        result,
        model=_model_facts(told, asked.root / bars.symbol, processed.meta["data_hash"]),
        background={
            "walk_forward": told,
            "windows": _stretches(rows, folds),
            "data_quality": data_quality(processed.meta),
            "plan": plan.as_dict(),
        },
    )


def _trained(
    works: Sequence[FoldWork], root: Path, listener: TrainingListener, console: Console
) -> list[TrainedFold]:
    """Train every fold that is not finished, one after the other."""
    symbol = works[0].bars.symbol
    with symbol_lock(root, symbol, run=works[-1].identity[:16]) as left_behind, _told_how_to_go_on(works):
        if left_behind:
            console.say(f"{symbol}: {left_behind}")
        found = []
        for work in works:
            was_finished = is_finished(work)
            what = "is finished" if was_finished else "is trained"
            console.say(f"[{work.fold.number}/{len(works)}] {symbol}: fold {work.fold.number} {what}")
            with _named(work, len(works)):
                found.append(train_fold(work, listener))
            console.event("fold_done", symbol=symbol, fold=work.fold.number, **found[-1].record)
        return found


@contextmanager
def _named(work: FoldWork, count: int) -> Generator[None]:
    """Say of an error which fold it came from."""
    try:
        yield
    except StagegateError as error:
        raise type(error)(f"fold {work.fold.number} of {count}: {error}") from error


@contextmanager
def _told_how_to_go_on(works: Sequence[FoldWork]) -> Generator[None]:
    try:
        yield
    except BaseException as error:
        finished = sum(is_finished(work) for work in works)
        error.add_note(
            f"  {finished} of {counted(len(works), 'fold')} are finished and will not be trained again; go on with: "
            f"{command_line(sys.argv)}"
        )
        raise


def _spent(bars: Bars, plan: Plan, folds: Sequence[Fold]) -> dict[str, Any] | None:
    """Return how much of what is traded the plan keeps closed: its promotion and test windows; None for nothing."""
    closed = split_bars(bars, split_plan(plan), embargo_for(plan, bars)[0]).promotion.start
    start, stop = folds[0].start, folds[-1].stop
    if stop <= closed:
        return None
    inside = bars.session[max(start, closed) : stop]
    return {
        "from": readable_label(bars, closed),
        "sessions": len(np.unique(inside)),
        "of_sessions": len(np.unique(bars.session[start:stop])),
    }


def _announced(
    bars: Bars,
    works: Sequence[FoldWork],
    lengths: WalkForward,
    spent: dict[str, Any] | None,
    note: str | None,
) -> list[str]:
    """Return what is about to be done, before anything is."""
    lines = [f"{bars.symbol}: walk-forward {lengths}, {counted(len(works), 'fold')}"]
    for work in works:
        fold = work.fold
        lines.append(
            f"  fold {fold.number}: trains on {readable_label(bars, fold.begin)} .. "
            f"{readable_label(bars, fold.start - 1)}, trades {readable_label(bars, fold.start)} .. "
            f"{readable_label(bars, fold.stop - 1)}" + ("  (finished before)" if is_finished(work) else "")
        )
    if note:
        lines.append(f"  {note}")
    if spent is not None:
        lines.append(
            f"  this opens bars the plan keeps for promotion and test, from {spent['from']} on: "
            "it is counted as a look at the test window"
        )
    return lines


def _stretches(rows: Sequence[dict[str, Any]], folds: Sequence[Fold]) -> dict[str, dict[str, Any]]:
    """Return the stretches as a report draws windows."""
    return {
        str(fold.number): {
            "from": row["from"],
            "to": row["to"],
            "first_row": fold.start,
            "bars": fold.stop - fold.start,
        }
        for row, fold in zip(rows, folds, strict=True)
    }


def _model_facts(told: dict[str, Any], folder: Path, data_hash: str) -> dict[str, Any]:
    count = len(told["folds"])
    return {
        "file": f"{counted(count, 'model')} in {folder}",
        "stage": SPLIT,
        "verdict": None,
        "verdict_text": f"{told['promoted']} of {count} promoted",
        "promoted": told["promoted"] == count,
        "headline": headline_of(told),
        "data_hash": data_hash,
    }
