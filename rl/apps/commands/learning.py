"""`python -m rl doctor --full`: the learning table, measured cell by cell in as many processes as asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rl import __version__
from rl.apps.commands.folders import prepare_files
from rl.apps.commands.options import LEARNING_FILE
from rl.apps.commands.workers import share_work
from rl.common.atomic_files import sweep_stray_files, write_json
from rl.common.errors import OK, UNEXPECTED, UsageError
from rl.reporting.learning_table import learning_table, missed_marks
from rl.reporting.tables import number
from rl.stages.known_answer_cells import CellStore, code_that_learns, measure_row
from rl.stages.known_answer_table import COLUMNS, ROWS, SEEDS, Cell, Row, chosen_rows, judged
from rl.stages.plan import STAGES, Plan, stage_name

STEP_EFFORT = {"ppo": 1, "start": 1, "dense": 3, "moe": 5, "maml": 40_000}
"""What a step, or an iteration, takes, in steps of PPO; decides nothing but the order of work."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One row with one seed, complete enough to be measured in another process."""

    row: str
    seed: int
    stages: tuple[str, ...]
    folder: Path


def measure_learning(options: argparse.Namespace) -> int:
    """Measure what was asked for, print and write the table, and return OK only if every mark is met."""
    stages = _columns(options.stages)
    rows = _rows_with(stages, chosen_rows(options.markets))
    seeds = range(options.seeds or SEEDS)
    out = options.out or LEARNING_FILE
    folder = out.with_suffix(".cells")
    prepare_files([out], "--out")
    sweep_stray_files(folder)
    print(
        f"Stagegate {__version__}: {len(rows)} markets, {len(seeds)} seeds; cells are kept in {folder}",
        flush=True,
    )
    jobs = [
        _Job(row=row.name, seed=seed, stages=stages, folder=folder)
        # The longest first, or one process would work on alone at the end.
        for row in sorted(rows, key=_effort, reverse=True)
        for seed in seeds
    ]
    cells = _measured(jobs, options.jobs or 1)
    found = _account(rows, stages, seeds, cells)
    write_json(out, found)
    print("", *learning_table(found), "", sep="\n")
    print(f"written to {out}")
    missed = [f"{row['row']}: {text}" for row in found["rows"] for text in missed_marks(row)]
    if missed:
        print(f"MISSED: {'; '.join(missed)}", file=sys.stderr)
        return UNEXPECTED
    print("every mark is met")
    return OK


def _columns(asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return the columns of the stages asked for; the dense network belongs to the mixture it is compared with."""
    chosen = {stage_name(text) for text in asked} if asked else set(STAGES)
    return tuple(name for name in COLUMNS if ("moe" if name == "dense" else name) in chosen)


def _rows_with(stages: Sequence[str], rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows that have one of these columns: of the others nothing is measured, so no mark is met.

    Raises:
        UsageError: None has.
    """
    found = tuple(row for row in rows if set(row.stages) & set(stages))
    if not found:
        have = "; ".join(f"{row.name} has {', '.join(row.stages)}" for row in rows)
        raise UsageError(f"--stages: nothing is left to measure ({have}); name another market or stage")
    return found


def _effort(row: Row) -> int:
    """Return about how long a row takes, in steps of PPO."""
    return sum(length * STEP_EFFORT[stage] for stage, length in row.steps.items())


def _account(
    rows: Sequence[Row], stages: Sequence[str], seeds: Sequence[int], cells: Sequence[Cell]
) -> dict[str, Any]:
    """Return what `--out` holds."""
    ordered = sorted(cells, key=lambda cell: (list(ROWS).index(cell.row), cell.stage, cell.seed))
    by_row = {
        row.name: {
            stage: [cell for cell in ordered if (cell.row, cell.stage) == (row.name, stage)]
            for stage in row.stages
        }
        for row in rows
    }
    finished = [judged(row, by_row[row.name]) for row in rows]
    return {
        "version": __version__,
        "code": code_that_learns("maml"),
        "seeds": list(seeds),
        "stages": list(stages),
        "passed": all(row.passed for row in finished),
        "cpu_seconds": sum(cell.cpu_seconds for cell in ordered),
        "rows": [row.as_dict() for row in finished],
        "cells": [cell.as_dict() for cell in ordered],
        "plan": Plan().as_dict(),
    }


def _measured(jobs: Sequence[_Job], workers: int) -> list[Cell]:
    if workers == 1 or len(jobs) <= 1:
        return [cell for job in jobs for cell in _measure(job)]
    cells: list[Cell] = []

    def failed(_: _Job, error: Exception) -> NoReturn:
        raise error

    share_work(
        _measure,
        jobs,
        min(workers, len(jobs)),
        on_result=lambda _, found: cells.extend(found),
        on_error=failed,
        on_restart=lambda job, text: print(f"{job.row} seed {job.seed}: {text}", file=sys.stderr, flush=True),
    )
    return cells


def _measure(job: _Job) -> list[Cell]:
    plan = Plan()
    row = ROWS[job.row]
    return measure_row(row, job.stages, job.seed, plan=plan, store=CellStore(job.folder, plan), on_cell=_say)


def _trades(cell: Cell) -> str:
    return "" if cell.trades_per_session is None else f"{cell.trades_per_session:5.1f} trades a session  "


def _say(cell: Cell, was_measured_before: bool) -> None:
    row = ROWS[cell.row]
    unit = "of the best" if row.measure == "share" else "bp a bar"
    source = "reused" if was_measured_before else f"{cell.cpu_seconds:.1f} s of processor time"
    # In one piece, because several processes write to one screen.
    sys.stdout.write(
        f"{cell.row:<17}{cell.stage:<6}seed {cell.seed}  {number(row.figure(cell), 3):>7} {unit:<12} "
        f"earned {number(cell.earned, 3):>7} bp, best {number(cell.oracle, 3):>6}  "
        f"{_trades(cell)}({source})\n"
    )
    sys.stdout.flush()
