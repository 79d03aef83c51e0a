"""Measuring the cells of the learning table, and keeping each on disk as soon as it is measured.

A cell is used again where everything it follows from is as it was: the row's market, cost and instrument, the lengths
of its own training and of those it grows out of, the plan, the seed, the code that learns, and the libraries below it.
Marks follow from cells and are judged anew each time.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from rl.common.atomic_files import write_json, writing
from rl.stages.known_answer_stages import KnownAnswer, Trained, adapted_to_family
from rl.stages.known_answer_table import Cell, Row
from rl.stages.plan import Plan
from rl.stages.stage_model import StageModel

LEARNERS = ("rl.stages.known_answer_stages",)
"""Modules that train and judge; the code that learns is what they import, directly or not."""

META_LEARNING = ("rl.stages.maml_stage", "rl.stages.task_family", "rl.algorithms.maml")
"""What stages before the third do not follow from."""

LIBRARIES = ("torch", "numpy", "numba", "pandas", "TA-Lib")

_PACKAGE = Path(__file__).resolve().parents[1]


@functools.cache
def code_that_learns(stage: str) -> str:
    """Return a hash of the sources of `LEARNERS` and of every module of the package behind a stage. 16 digits"""
    digest = hashlib.sha256()
    for name, path in sorted(modules_behind(LEARNERS, () if stage == "maml" else META_LEARNING).items()):
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def modules_behind(roots: Sequence[str], without: Sequence[str] = ()) -> dict[str, Path]:
    """Return modules of the package and all they import of it, wherever in the file: name and source.

    Args:
        roots: Names of the modules to begin with.
        without: Names of modules to leave out, with all that only they import.
    """
    found: dict[str, Path] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        source = _source_of(name)
        if source is None or name in found or name in without:
            continue
        found[name] = source
        waiting += _imported(ast.parse(source.read_bytes()))
    return found


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from rl.stages import plan` names a module, `from rl.stages.plan import Plan` does not.
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def _source_of(module: str) -> Path | None:
    parts = module.split(".")
    if parts[0] != _PACKAGE.name:
        return None
    place = _PACKAGE.joinpath(*parts[1:])
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


class CellStore:
    """A folder of measured cells, one JSON file each, with the weights of those that others grow out of.

    Args:
        folder: Where they lie; made when the first is kept.
        plan: The plan cells are measured under.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder
        self._plan = plan

    def find(self, row: Row, stage: str, seed: int) -> Cell | None:
        """Return the cell, or None where it was not measured under these circumstances."""
        path = self._path(row, stage, seed)
        if not path.is_file():
            return None
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["policy_spec"] is not None and not _weights_beside(path).is_file():
            return None
        return Cell(**kept["cell"])

    def model(self, row: Row, stage: str, seed: int) -> StageModel:
        """Return the model of a cell that `find` found, for a later stage to grow out of."""
        path = self._path(row, stage, seed)
        spec = json.loads(path.read_text(encoding="utf-8"))["policy_spec"]
        weights = np.load(_weights_beside(path), allow_pickle=False)
        return StageModel(stage=stage, policy_spec=spec, weights=weights)

    def keep(self, row: Row, cell: Cell, model: StageModel | None) -> None:
        """Write a measured cell and the weights of its model, where it has one; a cell is there only when both are."""
        path = self._path(row, cell.stage, cell.seed)
        if model is not None:
            with writing(_weights_beside(path)) as unfinished, unfinished.open("wb") as file:
                np.save(file, model.weights, allow_pickle=False)
        write_json(path, {"cell": cell.as_dict(), "policy_spec": model.policy_spec if model else None})

    def _path(self, row: Row, stage: str, seed: int) -> Path:
        instrument = row.known.instrument().instrument.model_dump(mode="json")
        follows_from = {
            "plan": _plan_of(stage, plan_for(row, self._plan)),
            "code": code_that_learns(stage),
            "libraries": {name: version(name) for name in LIBRARIES},
            "market": row.known.kind,
            "params": dict(row.known.params),
            "instrument": instrument,
            "shuffle_features": row.shuffle_features,
            "sessions": [row.sessions, row.unseen_sessions],
            "line": row.line(stage),
            "support_bars": row.support_bars,
            "seed": seed,
        }
        text = json.dumps(follows_from, sort_keys=True, allow_nan=False)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._folder / f"{row.name}-{stage}-seed{seed}-{key}.json"


def plan_for(row: Row, plan: Plan) -> Plan:
    """Return the plan a row is trained under."""
    return plan if row.passes is None else plan.with_ppo(k_epochs=row.passes)


def _plan_of(stage: str, plan: Plan) -> dict[str, Any]:
    """Return the plan as plain values, as far as a stage follows from it; the seed is the cell's own."""
    values = plan.as_dict()
    values["seed"] = None
    if stage != "maml":
        values["training_params"] = dict(values["training_params"]) | {"maml": None}
    return values


def _weights_beside(path: Path) -> Path:
    return path.with_suffix(".npy")


OnCell = Callable[[Cell, bool], None]
"""Told of each cell when it is there, and whether it was measured before."""


def measure_row(
    row: Row, stages: Sequence[str], seed: int, *, plan: Plan, store: CellStore, on_cell: OnCell
) -> list[Cell]:
    """Measure the stages of one row with one seed, and what they grow out of; what was measured before is not again.

    Args:
        row: The row.
        stages: Columns asked for; those the row does not have are left out.
        seed: The seed.
        plan: The plan the stages are trained under.
        store: Where cells are kept.
        on_cell: Told of each.

    Returns:
        The cells of the stages asked for.
    """
    work = _RowAndSeed(row, seed, plan, store, on_cell)
    return [work.cell(stage) for stage in row.stages if stage in stages]


class _RowAndSeed:
    """One row with one seed; the market is drawn only if something has to be measured."""

    def __init__(self, row: Row, seed: int, plan: Plan, store: CellStore, on_cell: OnCell) -> None:
        self._row = row
        self._seed = seed
        self._plan = plan_for(row, plan)
        self._store = store
        self._on_cell = on_cell
        self._cells: dict[str, Cell] = {}
        self._models: dict[str, StageModel] = {}

    @functools.cached_property
    def _trial(self) -> KnownAnswer:
        return KnownAnswer(
            self._row.known,
            self._plan,
            seed=self._seed,
            shuffle_features=self._row.shuffle_features,
            sessions=self._row.sessions,
            unseen_sessions=self._row.unseen_sessions,
        )

    def cell(self, stage: str) -> Cell:
        """Return a cell, measured now unless it was before."""
        if stage not in self._cells:
            stored = self._store.find(self._row, stage, self._seed)
            self._cells[stage] = stored or self._measured_and_kept(stage)
            self._on_cell(self._cells[stage], stored is not None)
        return self._cells[stage]

    def _model(self, stage: str) -> StageModel:
        self.cell(stage)
        if stage not in self._models:
            self._models[stage] = self._store.model(self._row, stage, self._seed)
        return self._models[stage]

    def _measured_and_kept(self, stage: str) -> Cell:
        # What a stage grows out of has a cell, and processor time, of its own.
        above = self._row.parent(stage)
        parent = self._model(above) if above else None
        begun = time.process_time()
        model = None
        if self._row.support_bars is None:
            cell, model = self._on_one_market(stage, parent)
            self._models[stage] = model
        else:
            cell = self._on_the_family(stage, self._row.support_bars)
        cell = replace(cell, cpu_seconds=time.process_time() - begun)
        self._store.keep(self._row, cell, model)
        return cell

    def _on_one_market(self, stage: str, parent: StageModel | None) -> tuple[Cell, StageModel]:
        trained = self._trained(stage, parent)
        learned = self._trial.learned(trained)
        cell = Cell(
            row=self._row.name,
            stage=stage,
            seed=self._seed,
            steps=_length(self._row, stage),
            earned=learned.earned,
            oracle=learned.oracle,
            error=learned.error,
            earned_error=learned.earned_error,
            momentum=learned.momentum,
            trades_per_session=learned.trades_per_session,
            unadapted=self._trial.unadapted(trained).earned if stage == "maml" else None,
            experts=self._trial.experts(trained) if stage == "moe" else None,
        )
        return cell, trained.model

    def _on_the_family(self, stage: str, support_bars: int) -> Cell:
        found = adapted_to_family(
            self._seed, self._plan, support_bars=support_bars, iterations=self._row.steps[stage]
        )
        last = found.after(found.steps[-1])
        return Cell(
            row=self._row.name,
            stage=stage,
            seed=self._seed,
            steps=_length(self._row, stage),
            earned=float(last.mean()),
            oracle=float(found.oracle.mean()),
            error=_error(last - found.oracle),
            earned_error=_error(last),
            unadapted=float(found.after(0).mean()),
            after_steps={str(steps): float(found.after(steps).mean()) for steps in found.steps},
            random_start=float(found.random_start.mean()),
        )

    def _trained(self, stage: str, parent: StageModel | None) -> Trained:
        length = self._row.steps[stage]
        if stage in ("ppo", "start"):
            return self._trial.ppo(length)
        if stage == "moe":
            return self._trial.moe(parent, length)
        if stage == "dense":
            return self._trial.dense(parent, length)
        assert parent is not None
        return self._trial.maml(parent, length)


def _length(row: Row, stage: str) -> int:
    """Return the steps of a stage and of those it grows out of; of stage 3 its iterations alone."""
    if stage == "maml":
        return row.steps[stage]
    return sum(steps for _, steps in row.line(stage))


def _error(by_market: np.ndarray) -> float:
    """Return the standard error of a mean over markets. (W,)"""
    return float(np.std(by_market) / np.sqrt(len(by_market)))
