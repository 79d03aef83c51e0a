"""`run_training.py`: plan, data, sequences, report."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rl import __version__
from rl.apps.commands.console import Console, Look, TrainingListener, look_of
from rl.apps.commands.folders import prepare_folders
from rl.apps.commands.options import chosen_stages, wants_all
from rl.apps.commands.run_files import (
    DATA_QUALITY,
    keep_checkpoints,
    words_that_see,
    write_data_quality,
    write_environment,
)
from rl.apps.commands.runs import NEVER, Asked, TrainingRun, refusal, training_run
from rl.apps.commands.symbols import (
    KnownSymbols,
    bring_up_to_date,
    chosen_symbols,
    instrument_of,
    symbols_of,
)
from rl.apps.commands.tracking import tracking
from rl.apps.commands.workers import share_work
from rl.checkpoints.checkpoint import library_versions, stage_file
from rl.common.atomic_files import require_writable, sha256_of, write_text
from rl.common.compiled import source_hash
from rl.common.errors import (
    DATA,
    GATE_STOPPED,
    OK,
    CheckpointError,
    ConfigError,
    DataError,
    StagegateError,
    TrainingDivergedError,
    UsageError,
    nearest,
)
from rl.common.interpreter import command_line
from rl.common.locks import symbol_lock, worker_lock
from rl.common.runlog import PLAN, RunLog
from rl.common.stopping import stops_come_out
from rl.features.processed_store import ProcessOutcome
from rl.market.checks import counted
from rl.market.instruments import InstrumentBook, load_instruments
from rl.reporting.console_lines import clock, joined, windows_table
from rl.reporting.metrics_table import MetricsTable
from rl.reporting.training_report import (
    promotion_table,
    rolled_back_warnings,
    summary_table,
    training_json,
    write_training_report,
)
from rl.stages.evidence import LEDGER_NAME, EvidenceLedger
from rl.stages.null_bank import Calibration, refuse_if_nulls_pass
from rl.stages.outcomes import SymbolOutcome
from rl.stages.plan import STAGES, Plan, load_plan
from rl.stages.promotion import PROMOTIONS, settle_promotions
from rl.stages.run_state import SymbolJournal
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
    state: Path
    """Folder of its journal."""
    log: Path
    as_json: bool
    quiet: bool
    bars: bool
    look: Look = field(default_factory=Look)
    named: bool = False
    """True where its lines come mixed with those of other symbols."""


def train(options: argparse.Namespace) -> int:
    """Train what the options ask for; return the exit code."""
    plan = load_plan(options.config, overrides=options.overrides, profile=options.profile, seed=options.seed)
    stages = chosen_stages(options.stages)
    for symbol in (None, *plan.symbols):
        check_learners(plan.for_symbol(symbol) if symbol else plan, stages)
    calibration = refuse_if_nulls_pass(plan)
    book = load_instruments(*options.instruments)
    known = symbols_of(options)
    symbols = chosen_symbols(options.symbols, known, options.raw_data_dir)
    work = _Work(
        plan=plan, stages=stages, book=book, known=known, symbols=tuple(symbols), calibration=calibration
    )
    asked = Asked(symbols=tuple(symbols), stages=stages, models_dir=options.models_dir)
    label = f"{options.profile}-s{plan.seed}"
    prepare_folders(options, "reports_dir", *([] if options.dry_run else ["models_dir"]))
    resume = NEVER if options.dry_run else options.resume
    try:
        with training_run(options.reports_dir, resume, asked, label) as run:
            return _train_in(run, work, asked, options)
    except _BegunUnderOtherSettingsError as other:
        with training_run(options.reports_dir, NEVER, asked, label) as run:
            run.notes.append(str(other))
            return _train_in(run, work, asked, options)


class _BegunUnderOtherSettingsError(Exception):
    """The run to go on with was begun under something else, and nothing of it is finished; says so in a sentence."""


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What a command is to do, read and checked."""

    plan: Plan
    stages: tuple[str, ...]
    book: InstrumentBook
    known: KnownSymbols
    symbols: tuple[str, ...]
    calibration: Calibration


def _train_in(run: TrainingRun, work: _Work, asked: Asked, options: argparse.Namespace) -> int:
    """Train in a run's folder, from its beginning or from where it stands; return the exit code."""
    plan = work.plan
    with RunLog(run.log) as log, ExitStack() as locks:
        shown_on = sys.stderr if options.json else sys.stdout
        look = look_of(shown_on, no_color=options.no_color, verbose=options.verbose)
        console = Console(log, as_json=options.json, quiet=options.quiet, look=look)
        locks.callback(console.close)
        began = "run_resumed" if run.record else "run_started"
        console.event(began, run=run.name, version=__version__, command=sys.argv, symbols=list(work.symbols))
        for line in _header(run, plan, options, look.width):
            console.say(line)
        for note in run.notes:
            console.say(note)
        for text in _blocks_of_nobody(plan, work.known):
            console.warn(f"warning: {text}")
        write_text(run.folder / PLAN, plan.resolved_yaml())
        if wants_all(options.symbols):
            for name, error in work.known.unusable.items():
                console.problem(name, error)
            for note in work.known.notes():
                console.say(note)
        ready = _processed(work.symbols, work.known, work.book, options, console)
        data = _prepared(ready, plan, work.book, work.known.raw, options.processed_data_dir, console)
        write_environment(run.folder, data, sys.argv)
        _show_data(run, data, options, console)
        console.event("null_bank", notes=work.calibration.notes())
        for note in work.calibration.notes():
            console.say(note)
        if options.dry_run:
            return _after_dry_run(console, data, work.stages)
        identity = _identity(work, data, options)
        _require_the_same_run(run, identity, console, options)
        ours = _locked(data, options.models_dir, run.name, locks, console)
        if not ours:
            # Nothing was begun, so there is no run to go on with.
            return _exit_code([], console.problems, strict=options.strict)
        # Of a run that is gone on with those of its beginning: some files are its own by now.
        forgotten = run.record["forgotten"] if run.record else _forgotten(data, options, console)
        run.begin(asked, identity, command=sys.argv, forgotten=forgotten)
        with tracking(options.track, run.folder, options.reports_dir, console.warn):
            try:
                outcomes = _trained(run, work, data, ours, options, console)
                if outcomes:
                    _report(outcomes, plan, work.calibration, forgotten, run.folder, options, console)
            except BaseException as error:
                run.stopped()
                error.add_note(_how_to_go_on(run, options))
                error.add_note(f"  Everything that was shown: {console.text_log}")
                raise
            if _may_succeed_another_time(console.problems):
                run.stopped()
                console.remark(_how_to_go_on(run, options))
            else:
                run.ended()
        if console.problems:
            console.remark(f"Everything that was shown: {console.text_log}")
        return _exit_code(outcomes, console.problems, strict=options.strict)


def _blocks_of_nobody(plan: Plan, known: KnownSymbols) -> list[str]:
    """Say which blocks under `symbols` change nothing, for no raw or processed file has their name."""
    found = []
    for name in plan.symbols:
        if name not in known.names():
            close = nearest(name, known.names(), count=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            found.append(
                f"the plan has settings of {name} under `symbols`, and there is no such symbol{hint}"
            )
    return found


def _header(run: TrainingRun, plan: Plan, options: argparse.Namespace, width: int) -> list[str]:
    """Return what this run is: program, seed, plan with what was changed of it, and where everything goes."""
    torch = library_versions()["torch"]
    what = [
        f"Stagegate {__version__}",
        f"torch {torch} on the CPU (1 thread)",
        f"seed {plan.seed}",
        f"run {run.name}",
    ]
    given = [f"--profile {options.profile}"] if options.profile != "full" else []
    given += [f"--seed {options.seed}"] if options.seed is not None else []
    given += [f"--set {override}" for override in options.overrides]
    shown = given[:_OVERRIDES_SHOWN]
    if len(given) > len(shown):
        shown.append(f"and {len(given) - len(shown)} more, all in {PLAN}")
    pieces = [*(f"{words}," for words in shown[:-1]), *(f"{words})" for words in shown[-1:])]
    changed = f"({counted(len(given), 'override')}: {pieces.pop(0)}" if pieces else "(no overrides)"
    return [
        *joined(what, width, rest="  "),
        *joined([f"config {options.config} {changed}", *pieces], width, rest="  "),
        f"folder {run.folder}",
    ]


_OVERRIDES_SHOWN = 3


def _show_data(
    run: TrainingRun, data: dict[str, SymbolData], options: argparse.Namespace, console: Console
) -> None:
    """Show which bars are for what, and what is known of the raw files; before anything is trained on them."""
    for line in windows_table(list(data.values()), console.look.width):
        console.say(line)
    for symbol, each in data.items():
        for note in each.notes:
            console.say(f"{symbol}: {note}")
    instruments = {symbol: each.found.instrument for symbol, each in data.items()}
    for symbol, found in write_data_quality(run.folder, instruments, options.processed_data_dir).items():
        if found:
            told = ", ".join(f"{name} {count:,}" for name, count in found.items())
            console.warn(
                f"warning: {symbol}: checks of its raw file found {told} (list: {run.folder / DATA_QUALITY})"
            )


def _identity(work: _Work, data: dict[str, SymbolData], options: argparse.Namespace) -> dict[str, Any]:
    """Return everything that what a run comes to depends on, by name."""
    before = STAGES[: STAGES.index(work.stages[0])]
    return {
        "symbols": list(data),
        "plan": work.plan.as_dict(),
        "instruments": {
            symbol: each.found.instrument.model_dump(mode="json") for symbol, each in data.items()
        },
        "data": {symbol: each.data_hash for symbol, each in data.items()},
        "starts_from": {
            symbol: {
                stage: sha256_of(path)
                for stage in before
                if (path := options.models_dir / stage_file(symbol, stage)).is_file()
            }
            for symbol in data
        },
        "code": source_hash(),
        "libraries": library_versions(),
    }


def _require_the_same_run(
    run: TrainingRun, identity: dict[str, Any], console: Console, options: argparse.Namespace
) -> None:
    """Go on with a run only if it comes to what the uninterrupted one would have come to.

    Raises:
        UsageError: It has finished something under other settings, data or code.
        _BegunUnderOtherSettingsError: It has finished nothing, so that a new run loses nothing.
    """
    if run.record is None:
        return
    finished = run.finished()
    if changes := run.changes(identity):
        if finished or options.resume == run.name:
            raise refusal(run, changes, finished)
        raise _BegunUnderOtherSettingsError(
            f"run {run.name} did not end, but has finished nothing and was begun under another {changes[0]}"
            + (f" and {len(changes) - 1} more" if len(changes) > 1 else "")
            + "; this is a new run"
        )
    done = "; ".join(f"{symbol}: {', '.join(parts)}" for symbol, parts in finished.items())
    console.say(f"going on with run {run.name}, which did not end; finished so far: {done or 'no stage'}")


def _how_to_go_on(run: TrainingRun, options: argparse.Namespace) -> str:
    words = list(sys.argv)
    if options.resume == NEVER:
        # What was typed would begin another run.
        words = [word for word in words if word != f"--resume={NEVER}"]
        if "--resume" in words:
            place = words.index("--resume")
            del words[place : place + 2]
    done = "; ".join(f"{symbol}: {', '.join(parts)}" for symbol, parts in run.finished().items())
    return (
        f"  Finished so far: {done or 'no stage'}; of the stage at hand, what it had come to is kept.\n"
        f"  Run {run.name} is saved and goes on with: {command_line(words)}"
    )


def _may_succeed_another_time(problems: dict[str, StagegateError]) -> bool:
    """Return True where something failed that the same data and plan do not make fail again: a full disk, a crash."""
    decided = (DataError, ConfigError, UsageError, CheckpointError, TrainingDivergedError)
    return any(name == PROMOTIONS or not isinstance(error, decided) for name, error in problems.items())


def _trained(
    run: TrainingRun,
    work: _Work,
    data: dict[str, SymbolData],
    ours: Sequence[str],
    options: argparse.Namespace,
    console: Console,
) -> list[SymbolOutcome]:
    """Train the symbols that are ours and settle the promotions."""
    kept_out = {symbol: _held_out(symbol, data) for symbol in data}
    jobs = [
        _Job(
            symbol=symbol,
            others=tuple(name for name in _comparable(symbol, data) if name != kept_out[symbol]),
            held_out=kept_out[symbol],
            plan=work.plan,
            book=work.book,
            raw=work.known.raw,
            processed_dir=options.processed_data_dir,
            models_dir=options.models_dir,
            ledger=options.reports_dir / LEDGER_NAME,
            run_name=run.name,
            stages=work.stages,
            state=run.state_of(symbol),
            log=run.log,
            as_json=options.json,
            quiet=options.quiet,
            bars=sys.stderr.isatty() and options.jobs == 1 and not options.quiet,
            look=console.look,
            named=options.jobs > 1,
        )
        for symbol in ours
    ]
    first = [job for job in jobs if job.symbol in kept_out.values()]
    rest = [job for job in jobs if job.symbol not in kept_out.values()]
    found = _run(first, options.jobs, data, console, numbers=(1, len(jobs)))
    found |= _run(rest, options.jobs, data, console, numbers=(1 + len(first), len(jobs)))
    return _settled([(job, found[job.symbol]) for job in jobs if job.symbol in found], console)


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
    *,
    numbers: tuple[int, int],
) -> dict[str, SymbolOutcome]:
    """Train symbols one after the other or side by side; `numbers`: of the first one, and how many the run has."""
    outcomes: dict[str, SymbolOutcome] = {}
    start, total = numbers
    if workers == 1 or len(jobs) <= 1:
        for number, job in enumerate(jobs, start=start):
            console.say(f"[{number}/{total}] {job.symbol}" if total > 1 else job.symbol)
            try:
                with stops_come_out():
                    outcomes[job.symbol] = _sequence(job, data, console)
            except Exception as error:  # noqa: BLE001 - one symbol's fault must not cost the others' results
                console.problem(job.symbol, _told(error, job.symbol, job.log))
    else:
        share_work(
            _in_worker,
            jobs,
            min(workers, len(jobs)),
            on_result=lambda job, outcome: outcomes.update({job.symbol: outcome}),
            on_error=lambda job, error: console.problem(job.symbol, _told(error, job.symbol, job.log)),
            on_restart=lambda job, text: _restarted(job, text, console),
        )
    return outcomes


def _restarted(job: _Job, text: str, console: Console) -> None:
    console.event("worker_died", symbol=job.symbol, text=text)
    console.warn(f"{job.symbol}: {text}")


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
        console = Console(log, as_json=job.as_json, quiet=job.quiet, look=job.look)
        try:
            return _sequence(job, data, console)
        finally:
            console.close()


def _sequence(job: _Job, data: dict[str, SymbolData], console: Console) -> SymbolOutcome:
    # A disk that filled up under the symbols before would otherwise be noticed after the first stage's training.
    require_writable(job.models_dir, "--models-dir")

    def saved(generation: int, entries: Sequence[str]) -> None:
        console.event("state_saved", symbol=job.symbol, generation=generation, entries=list(entries))

    metrics = MetricsTable(job.log.parent)
    listener = TrainingListener(console, bars=job.bars, named=job.named, metrics=metrics)
    with ExitStack() as until_over:
        until_over.callback(metrics.close)
        until_over.callback(listener.close)
        return _run_sequence(job, data, listener, SymbolJournal(job.state, saved))


def _run_sequence(
    job: _Job, data: dict[str, SymbolData], listener: TrainingListener, journal: SymbolJournal
) -> SymbolOutcome:
    return run_sequence(
        data[job.symbol],
        job.plan.for_symbol(job.symbol),
        others=[data[name] for name in job.others],
        held_out=data[job.held_out] if job.held_out else None,
        stages=job.stages,
        models_dir=job.models_dir,
        ledger=EvidenceLedger(job.ledger),
        listener=listener,
        run_name=job.run_name,
        journal=journal,
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
        listener=TrainingListener(console, bars=False, named=True),
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
    width = console.look.width
    console.result("")
    for line in [*summary_table(outcomes, width), "", *promotion_table(outcomes, width)]:
        console.result(line, may_wrap=False)
    for line in rolled_back_warnings(outcomes):
        console.warn(line)
    console.result(_production(outcomes))
    kept = keep_checkpoints(folder, outcomes)
    console.detail(f"copies of this run's models: {kept}")
    if plan.monitoring.generate_reports:
        for path in write_training_report(outcomes, plan, folder, calibration, forgotten):
            console.result(f"report: {path}", may_wrap=False)
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
    if console.warnings:
        again = [f"  {text}".replace("\n", "\n  ") for text in console.warnings]
        console.remark("\n".join([f"{counted(len(again), 'warning')} in this run:", *again]))
    words = ["run_backtest.py", "--symbols", *(outcome.symbol for outcome in outcomes)]
    reports = ["--report-file", "backtest_report.txt", "--report-file", "backtest_report.html"]
    console.result(f"{clock(console.seconds())} total.")
    console.result(f"Next: {command_line([*words_that_see(options, words), *reports])}", may_wrap=False)


def _production(outcomes: Sequence[SymbolOutcome]) -> str:
    """Return which models a backtest would take as promoted, in a sentence."""
    written = [each for each in outcomes if each.final_file is not None]
    if not written:
        return "Production models: none; a backtest takes the best stage's model and says that it was not promoted."
    told = (
        f"{each.symbol} from {each.champion}{'' if each.promoted else ' (UNPROVEN)'}: {each.final_file}"
        for each in written
    )
    return f"Production models: {'; '.join(told)}"


def _write_pages(report: dict[str, Any], folder: Path, options: argparse.Namespace, console: Console) -> None:
    # Here, since drawing loads matplotlib, which training does without.
    from rl.reporting.html.runs_page import write_runs_page
    from rl.reporting.html.training_page import write_training_page

    page = write_training_page(report, folder, command_line(sys.argv))
    console.result(f"report: {page}", may_wrap=False)
    console.result(f"all runs: {write_runs_page(options.reports_dir)}", may_wrap=False)


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
