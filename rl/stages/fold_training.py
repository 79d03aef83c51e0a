"""One fold of a walk-forward: the product's own sequence on the bars before a stretch, kept so that it is done once.

A fold has a folder of its own with models, evidence ledger and, while it goes on, the state to go on from. Its name is
a hash of everything its models depend on, the folds before it included: with other bars, another plan or other code it
is another folder, and with the same it is found finished.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rl.backtest.engine import Replay, replay_policy
from rl.backtest.walk_forward import Fold
from rl.checkpoints.checkpoint import library_versions
from rl.checkpoints.predictor import Predictor
from rl.checkpoints.registry import Found, best_available
from rl.common.atomic_files import sha256_of, write_json, write_text
from rl.common.compiled import source_hash
from rl.common.errors import CheckpointError
from rl.features.pipeline import FeatureTable
from rl.market.bars import Bars
from rl.market.instruments import FoundInstrument
from rl.market.splits import split_before
from rl.stages.backtest_looks import todays_rules
from rl.stages.evidence import LEDGER_NAME, EvidenceLedger
from rl.stages.outcomes import Listener, SymbolOutcome
from rl.stages.plan import Plan
from rl.stages.promotion import settle_promotions
from rl.stages.run_state import SymbolJournal
from rl.stages.sequence import run_sequence
from rl.stages.symbol_data import SymbolData, embargo_before, prepared_with, split_plan
from rl.trading.rules import TradingRules

RECORD = "fold.json"
"""What a finished fold came to; written last."""

STATE = "state"
MODELS = "models"


@dataclass(frozen=True, kw_only=True)
class FoldWork:
    """One fold, complete enough to be trained."""

    fold: Fold
    bars: Bars
    """From the window's first bar to the stretch's last; nothing later exists for it."""
    table: FeatureTable
    plan: Plan
    """With the symbol's own overrides applied."""
    stages: tuple[str, ...]
    instrument: FoundInstrument
    identity: str
    """Hash of everything its models depend on. 64 hexadecimal digits"""
    folder: Path
    before: Path | None
    """Folder of the fold before, whose ledger it goes on with."""


@dataclass(frozen=True, kw_only=True)
class TrainedFold:
    """What a fold came to."""

    fold: Fold
    found: Found
    """The model that trades, chosen as a backtest chooses."""
    record: dict[str, Any]
    """Stages with their verdicts, champion, promotion."""


def works_of(
    bars: Bars,
    table: FeatureTable,
    folds: Sequence[Fold],
    plan: Plan,
    *,
    stages: tuple[str, ...],
    instrument: FoundInstrument,
    root: Path,
) -> list[FoldWork]:
    """Return the folds of a symbol, each with the bars it may know.

    Args:
        bars: All bars of the symbol.
        table: All their features.
        folds: Oldest first.
        plan: With the symbol's own overrides applied.
        stages: To be trained.
        instrument: The symbol's.
        root: Where folders of folds lie.
    """
    shared = {
        "symbol": bars.symbol,
        "plan": plan.as_dict(),
        "stages": list(stages),
        "instrument": instrument.instrument.model_dump(mode="json"),
        "code": source_hash(),
        "libraries": library_versions(),
    }
    found: list[FoldWork] = []
    for fold in folds:
        earlier = found[-1] if found else None
        own = {
            **shared,
            "bars": _digest(bars, table, fold),
            "before": earlier.identity if earlier else None,
        }
        identity = hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode()).hexdigest()
        rows = slice(fold.begin, fold.stop)
        found.append(
            FoldWork(
                fold=fold,
                bars=bars.slice(fold.begin, fold.stop),
                table=FeatureTable(
                    table.values[rows], table.names, table.usable[rows], table.atr[rows], table.regime_names
                ),
                plan=plan,
                stages=stages,
                instrument=instrument,
                identity=identity,
                folder=root / bars.symbol / identity[:16],
                before=earlier.folder if earlier else None,
            )
        )
    return found


def is_finished(work: FoldWork) -> bool:
    """Return True where a fold has been trained before and everything of it is there."""
    return _record(work) is not None


def train_fold(work: FoldWork, listener: Listener) -> TrainedFold:
    """Train a fold through its stages, gates and promotion, or find it finished.

    Interrupted, it goes on where it stopped; see `run_sequence`.

    Args:
        work: The fold; the one before it is finished.
        listener: Who is told.

    Raises:
        DataError: The window is too short to be cut.
        CheckpointError: No stage left a model that can be used.
    """
    record = _record(work)
    if record is None:
        record = _trained(work, listener)
    return TrainedFold(
        fold=work.fold, found=best_available(work.folder / MODELS, work.bars.symbol), record=record
    )


def trade_stretch(
    bars: Bars,
    table: FeatureTable,
    trained: TrainedFold,
    instrument: FoundInstrument,
    rows: tuple[int, int],
    capital: float,
    account: TradingRules,
    *,
    adapts: bool,
) -> Replay:
    """Let a fold's model trade rows of the bars, knowing none before its window and none after them.

    Args:
        bars: All bars of the symbol.
        table: All their features.
        trained: The fold.
        instrument: The symbol's, with today's costs.
        rows: First decision bar and the row after the last, of the whole bars.
        capital: What the account begins with here.
        account: Rules of the whole account; its ruin level counts.
        adapts: Whether a stage-3 model is adapted on the bars just before.
    """
    begin, checkpoint = trained.fold.begin, trained.found.checkpoint
    part = slice(begin, rows[1])
    known = FeatureTable(
        table.values[part], table.names, table.usable[part], table.atr[part], table.regime_names
    )
    predictor = Predictor(checkpoint)
    market = predictor.market(bars.slice(begin, rows[1]), known)
    rules = replace(todays_rules(checkpoint, instrument)[0], ruin_level=account.ruin_level)
    window = (rows[0] - begin, rows[1] - begin)
    prepared = predictor.policy_for(
        market, rules, span_start=window[0], capital=capital, adapt_before_use=adapts
    )
    return replay_policy(
        market, window, rules, prepared.packed, scheme=checkpoint.action_scheme, capital=capital
    )


def _trained(work: FoldWork, listener: Listener) -> dict[str, Any]:
    symbol, models, ledger_file = work.bars.symbol, work.folder / MODELS, work.folder / LEDGER_NAME
    if work.before is not None and not ledger_file.exists():
        # Whoever retrains every stretch has looked at what the folds before it looked at.
        write_text(ledger_file, (work.before / LEDGER_NAME).read_text(encoding="utf-8"))
    models.mkdir(parents=True, exist_ok=True)
    ledger, run_name = EvidenceLedger(ledger_file), f"walk-forward-{work.identity[:16]}"
    outcome = run_sequence(
        fold_data(work),
        work.plan,
        stages=work.stages,
        models_dir=models,
        ledger=ledger,
        listener=listener,
        run_name=run_name,
        journal=SymbolJournal(work.folder / STATE),
    )
    (outcome,) = settle_promotions(
        [outcome],
        work.plan,
        models_dir=models,
        ledger=ledger,
        listener=listener,
        run_name=run_name,
        first_stage=work.stages[0],
    )
    record = {"identity": work.identity, **_told(outcome), "files": _files(models, symbol)}
    write_json(work.folder / RECORD, record)
    shutil.rmtree(work.folder / STATE, ignore_errors=True)
    return record


def fold_data(work: FoldWork) -> SymbolData:
    """Return a fold's bars cut into windows, the stretch as the test window, scaled by the training window."""
    plan, stretch = work.plan, work.fold.start - work.fold.begin
    embargo, note = embargo_before(plan, work.bars, stretch)
    splits = split_before(work.bars, split_plan(plan), embargo, stretch)
    return prepared_with(
        work.bars,
        work.table,
        plan,
        work.instrument,
        splits=splits,
        embargo=embargo,
        notes=[note] if note else [],
        data_hash=work.identity,
    )


def _told(outcome: SymbolOutcome) -> dict[str, Any]:
    return {
        "stages": {stage.stage: stage.verdict.outcome for stage in outcome.stages},
        "champion": outcome.champion,
        "promotion": outcome.promotion.outcome if outcome.promotion else None,
        "promoted": outcome.promoted,
        "stopped": outcome.stopped,
        "impossible": outcome.impossible,
        "windows": {name: list(window) for name, window in outcome.windows.items() if name != "test"},
        "notes": list(outcome.notes),
    }


def _files(models: Path, symbol: str) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(models.glob(f"{symbol}_*.pth"))}


def _record(work: FoldWork) -> dict[str, Any] | None:
    """Return what a finished fold came to; None where it has to be trained, or trained again."""
    path = work.folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # None yet, or one that cannot be read: its fold is trained again, to the same models.
        return None
    if not isinstance(record, dict) or record.get("identity") != work.identity:
        return None
    if record.get("files") != _files(work.folder / MODELS, work.bars.symbol):
        raise CheckpointError(
            f"{work.folder}: its model files are not those the fold was finished with; one was changed or is missing.\n"
            f"  Remove the folder {work.folder} and run the command again: the fold is trained anew."
        )
    return record


def _digest(bars: Bars, table: FeatureTable, fold: Fold) -> str:
    """Return a hash of everything a fold's models may depend on: all of its window, of its stretch the times alone."""
    digest = hashlib.sha256()
    known, timed = slice(fold.begin, fold.start), slice(fold.begin, fold.stop)
    for column in (bars.open, bars.high, bars.low, bars.close, table.values, table.atr):
        digest.update(np.ascontiguousarray(column[known]).tobytes())
    for column in (bars.close_time, bars.session, bars.session_end, table.usable):
        digest.update(np.ascontiguousarray(column[timed]).tobytes())
    digest.update(repr((table.names, table.regime_names, bars.bar_seconds)).encode())
    return digest.hexdigest()
