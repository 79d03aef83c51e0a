"""`run_training.py`: plan, data, sequences, report."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Iterable, Sequence
from concurrent.futures import as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rl import __version__
from rl.apps.commands.console import Console, TrainingListener
from rl.apps.commands.folders import prepare_folders
from rl.apps.commands.options import chosen_stages, wants_all
from rl.apps.commands.symbols import (
    KnownSymbols,
    bring_up_to_date,
    chosen_symbols,
    instrument_of,
    symbols_of,
)
from rl.apps.commands.workers import worker_pool
from rl.common.atomic_files import require_writable, write_text
from rl.common.errors import DATA, GATE_STOPPED, OK, StagegateError
from rl.common.locks import symbol_lock, worker_lock
from rl.common.runlog import RunLog
from rl.features.processed_store import ProcessOutcome
from rl.market.checks import counted
from rl.market.instruments import InstrumentBook, load_instruments
from rl.reporting.training_report import (
    promotion_table,
    summary_table,
    training_json,
    windows_table,
    write_training_report,
)
from rl.stages.evidence import LEDGER_NAME, EvidenceLedger
from rl.stages.null_bank import Calibration, refuse_if_nulls_pass
from rl.stages.outcomes import SymbolOutcome
from rl.stages.plan import Plan, load_plan, plan_settings
from rl.stages.promotion import settle_promotions
from rl.stages.sequence import check_learners, run_sequence
from rl.stages.symbol_data import SymbolData, prepare
from rl.stages.trials import forgotten_looks


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One symbol's work, complete enough to be done in another process."""

    symbol: str
    others: tuple[str, ...]
    held_out: str | None
    plan: Plan
    book: InstrumentBook
    raw: dict[str, Path]
    processed_dir: Path
    models_dir: Path
    ledger: Path
    run_name: str
    stages: tuple[str, ...]
    log: Path
    as_json: bool
    quiet: bool
    bars: bool


def train(options: argparse.Namespace) -> int:
    """Train what the options ask for; return the exit code."""
    overrides = [*options.overrides, *([f"seed={options.seed}"] if options.seed is not None else [])]
    if options.print_config:
        for setting in plan_settings(options.config, overrides=overrides, profile=options.profile):
            print(setting.line())
        return OK
    plan = load_plan(options.config, overrides=overrides, profile=options.profile)
    stages = chosen_stages(options.stages)
    for symbol in (None, *plan.symbols):
        check_learners(plan.for_symbol(symbol) if symbol else plan, stages)
    calibration = refuse_if_nulls_pass(plan)
    book = load_instruments(*options.instruments)
    known = symbols_of(options)
    symbols = chosen_symbols(options.symbols, known, options.raw_data_dir)
    run_name = datetime.now(UTC).strftime("%Y%m%d-%H%M%S") + f"-{options.profile}-s{plan.seed}"
    folder = options.reports_dir / "runs" / run_name
    prepare_folders(options, "reports_dir", *([] if options.dry_run else ["models_dir"]))
    with RunLog(folder / "run.jsonl") as log, ExitStack() as locks:
        console = Console(log, as_json=options.json, quiet=options.quiet)
        console.event("run_started", run=run_name, version=__version__, command=sys.argv, symbols=symbols)
        console.say(
            f"Stagegate {__version__}   seed {plan.seed}   plan {options.config} ({options.profile})   run {folder}"
        )
        console.event("null_bank", notes=calibration.notes())
        for note in calibration.notes():
            console.say(note)
        write_text(folder / "config.resolved.yaml", plan.resolved_yaml())
        if wants_all(options.symbols):
            for name, error in known.unusable.items():
                console.problem(name, error)
        ready = _processed(symbols, known, book, options, console)
        data = _prepared(ready, plan, book, known.raw, options.processed_data_dir, console)
        for table_line in windows_table(list(data.values())):
            console.say(table_line)
        if options.dry_run:
            return _after_dry_run(console, data, stages)
        ours = _locked(data, options.models_dir, run_name, locks, console)
        forgotten = _forgotten(data, options, console)
        kept_out = {symbol: _held_out(symbol, data) for symbol in data}
        jobs = [
            _Job(
                symbol=symbol,
                others=tuple(name for name in _comparable(symbol, data) if name != kept_out[symbol]),
                held_out=kept_out[symbol],
                plan=plan,
                book=book,
                raw=known.raw,
                processed_dir=options.processed_data_dir,
                models_dir=options.models_dir,
                ledger=options.reports_dir / LEDGER_NAME,
                run_name=run_name,
                stages=stages,
                log=folder / "run.jsonl",
                as_json=options.json,
                quiet=options.quiet,
                bars=sys.stderr.isatty() and options.jobs == 1 and not (options.json or options.quiet),
            )
            for symbol in ours
        ]
        first = [job for job in jobs if job.symbol in kept_out.values()]
        rest = [job for job in jobs if job.symbol not in kept_out.values()]
        found = _run(first, options.jobs, data, console)
        found |= _run(rest, options.jobs, data, console)
        outcomes = _settled([(job, found[job.symbol]) for job in jobs if job.symbol in found], console)
        if outcomes:
            _report(outcomes, plan, calibration, forgotten, folder, options, console)
        return _exit_code(outcomes, console.problems, strict=options.strict)


def _processed(
    symbols: Sequence[str],
    known: KnownSymbols,
    book: InstrumentBook,
    options: argparse.Namespace,
    console: Console,
) -> list[str]:
    def told(outcome: ProcessOutcome) -> None:
        console.event(
            "processed",
            symbol=outcome.symbol,
            action=outcome.action,
            bars=outcome.bars,
            seconds=outcome.seconds,
            notes=list(outcome.notes),
        )
        if outcome.action != "unchanged":
            console.say(
                f"{outcome.symbol}: {outcome.action}, {outcome.bars:,} bars in {outcome.seconds:.1f} s"
            )
            for note in outcome.notes:
                console.say(f"  note: {note}")

    return bring_up_to_date(
        symbols,
        known,
        book,
        options.processed_data_dir,
        on_outcome=told,
        on_problem=console.problem,
    )


def _prepared(
    symbols: Sequence[str],
    plan: Plan,
    book: InstrumentBook,
    raw: dict[str, Path],
    processed_dir: Path,
    console: Console,
) -> dict[str, SymbolData]:
    data = {}
    for symbol in symbols:
        try:
            data[symbol] = prepare(
                symbol, plan.for_symbol(symbol), instrument_of(symbol, book, raw), processed_dir
            )
        except StagegateError as error:
            console.problem(symbol, error)
    return data


def _locked(
    symbols: Iterable[str], models_dir: Path, run_name: str, locks: ExitStack, console: Console
) -> list[str]:
    """Return the symbols nobody else is training, held until the run ends; the others are problems."""
    ours = []
    for symbol in symbols:
        try:
            left_behind = locks.enter_context(symbol_lock(models_dir, symbol, run=run_name))
        except StagegateError as error:
            console.problem(symbol, error)
            continue
        if left_behind:
            console.say(f"{symbol}: {left_behind}")
        ours.append(symbol)
    return ours


def _forgotten(symbols: Iterable[str], options: argparse.Namespace, console: Console) -> list[str]:
    """Say which models' looks the ledger does not know; before training, which replaces their files."""
    ledger = EvidenceLedger(options.reports_dir / LEDGER_NAME)
    said = [text for symbol in symbols for text in forgotten_looks(ledger, options.models_dir, symbol)]
    console.event("forgotten_looks", notes=said)
    for text in said:
        console.warn(f"warning: {text}")
    return said


def _after_dry_run(
    console: Console,
    data: dict[str, SymbolData],
    stages: Sequence[str],
) -> int:
    console.result(
        f"Dry run: {counted(len(data), 'symbol')} would be trained through {', '.join(stages)}; nothing was trained."
    )
    return DATA if console.problems else OK


def _comparable(symbol: str, data: dict[str, SymbolData]) -> list[str]:
    """Return the other symbols that have every feature of this one, so that its policy can act on them."""
    needed = set(data[symbol].feature_names)
    return [name for name, other in data.items() if name != symbol and needed <= set(other.table.names)]


def _held_out(symbol: str, data: dict[str, SymbolData]) -> str | None:
    """Return the symbol kept out of meta-training: the last of those that compare, where there are at least three.

    It is trained first, so that its stage-2 model is there when the others measure themselves by it; for itself there
    is none, or who is compared with whom would depend on the order of work.
    """
    others = _comparable(symbol, data)
    order = list(data)
    if len(others) < 2 or order.index(others[-1]) < order.index(symbol):
        return None
    return others[-1]


def _run(
    jobs: Sequence[_Job],
    workers: int,
    data: dict[str, SymbolData],
    console: Console,
) -> dict[str, SymbolOutcome]:
    outcomes: dict[str, SymbolOutcome] = {}
    if workers == 1 or len(jobs) <= 1:
        for number, job in enumerate(jobs, start=1):
            console.say(f"[{number}/{len(jobs)}] {job.symbol}" if len(jobs) > 1 else job.symbol)
            try:
                outcomes[job.symbol] = _sequence(job, data, console)
            except Exception as error:  # noqa: BLE001 - one symbol's fault must not cost the others' results
                console.problem(job.symbol, _told(error, job.symbol, job.log))
    else:
        with worker_pool(min(workers, len(jobs))) as pool:
            waiting = {pool.submit(_in_worker, job): job for job in jobs}
            for future in as_completed(waiting):
                job = waiting[future]
                try:
                    outcomes[job.symbol] = future.result()
                except Exception as error:  # noqa: BLE001 - as above
                    console.problem(job.symbol, _told(error, job.symbol, job.log))
    return outcomes


def _told(error: Exception, name: str, log: Path) -> StagegateError:
    """Return an expected error as it is, and any other as one sentence with the place of its traceback."""
    if isinstance(error, StagegateError):
        return error
    path = log.with_name(f"{name}.traceback.txt")
    try:
        write_text(path, "".join(traceback.format_exception(error)))
        place = str(path)
    except OSError as unwritten:
        # The disk that is full may be this one too.
        place = f"could not be written to {path}: {unwritten.strerror}"
    return StagegateError(f"unexpected error: {type(error).__name__}: {error}\n  traceback: {place}")


def _in_worker(job: _Job) -> SymbolOutcome:
    names = [job.symbol, *job.others, *([job.held_out] if job.held_out else [])]
    data = {
        name: prepare(
            name, job.plan.for_symbol(name), instrument_of(name, job.book, job.raw), job.processed_dir
        )
        for name in names
    }
    with worker_lock(job.models_dir, job.symbol, holder=os.getppid()), RunLog(job.log) as log:
        return _sequence(job, data, Console(log, as_json=job.as_json, quiet=job.quiet))


def _sequence(job: _Job, data: dict[str, SymbolData], console: Console) -> SymbolOutcome:
    # A disk that filled up under the symbols before would otherwise be noticed after the first stage's training.
    require_writable(job.models_dir, "--models-dir")
    return run_sequence(
        data[job.symbol],
        job.plan.for_symbol(job.symbol),
        others=[data[name] for name in job.others],
        held_out=data[job.held_out] if job.held_out else None,
        stages=job.stages,
        models_dir=job.models_dir,
        ledger=EvidenceLedger(job.ledger),
        listener=TrainingListener(console, bars=job.bars),
        run_name=job.run_name,
    )


def _settled(ended: Sequence[tuple[_Job, SymbolOutcome]], console: Console) -> list[SymbolOutcome]:
    """Decide all promotions of the run together, in this process, however many trained."""
    if not ended:
        return []
    first = ended[0][0]
    return settle_promotions(
        [outcome for _, outcome in ended],
        first.plan,
        models_dir=first.models_dir,
        ledger=EvidenceLedger(first.ledger),
        listener=TrainingListener(console, bars=False),
        run_name=first.run_name,
        first_stage=first.stages[0],
        on_problem=lambda name, error: console.problem(name, _told(error, name, first.log)),
    )


def _report(
    outcomes: Sequence[SymbolOutcome],
    plan: Plan,
    calibration: Calibration,
    forgotten: Sequence[str],
    folder: Path,
    options: argparse.Namespace,
    console: Console,
) -> None:
    console.result("")
    for line in [*summary_table(outcomes), "", *promotion_table(outcomes)]:
        console.result(line)
    if plan.monitoring.generate_reports:
        for path in write_training_report(outcomes, plan, folder, calibration, forgotten):
            console.result(f"report: {path}")
        _write_pages(training_json(outcomes, plan, calibration, forgotten), folder, options, console)
    for outcome in outcomes:
        console.event(
            "symbol_done",
            symbol=outcome.symbol,
            champion=outcome.champion,
            # What it was judged on its own is no decision; that is in the ledger and in the report.
            promotion=outcome.promotion.outcome if outcome.promotion and outcome.settled else None,
            settled=outcome.settled,
            promoted=outcome.promoted,
            final_model=str(outcome.final_file) if outcome.final_file else None,
            stopped=outcome.stopped,
            seconds=outcome.seconds,
        )
    words = ["python", "run_backtest.py", "--symbols", *(outcome.symbol for outcome in outcomes)]
    for flag, value, usual in (
        ("--raw-data-dir", options.raw_data_dir, "data/raw"),
        ("--processed-data-dir", options.processed_data_dir, "data/processed"),
        ("--models-dir", options.models_dir, "models"),
        ("--reports-dir", options.reports_dir, "reports"),
    ):
        if value != Path(usual):
            words += [flag, str(value)]
    for file in options.instruments:
        words += ["--instruments", str(file)]
    console.result(f"Next: {shlex.join([*words, '--report-file', 'backtest_report.txt'])}")


def _write_pages(report: dict[str, Any], folder: Path, options: argparse.Namespace, console: Console) -> None:
    # Here, since drawing loads matplotlib, which training does without.
    from rl.reporting.html.runs_page import write_runs_page
    from rl.reporting.html.training_page import write_training_page

    page = write_training_page(report, folder, shlex.join(["python", *sys.argv]))
    console.result(f"report: {page}")
    console.result(f"all runs: {write_runs_page(options.reports_dir)}")


def _exit_code(
    outcomes: Sequence[SymbolOutcome], problems: dict[str, StagegateError], *, strict: bool
) -> int:
    if problems:
        return max(error.exit_code for error in problems.values())
    if any(outcome.impossible for outcome in outcomes):
        return DATA
    if any(outcome.gate_stopped for outcome in outcomes):
        return GATE_STOPPED
    if strict and not all(outcome.everything_passed for outcome in outcomes):
        return GATE_STOPPED
    return OK
