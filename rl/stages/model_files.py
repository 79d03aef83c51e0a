"""A stage's model as a file: what goes into it, when it is written, what becomes of older files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from rl.checkpoints.checkpoint import (
    STAGES as FILE_STAGES,
)
from rl.checkpoints.checkpoint import (
    Checkpoint,
    library_versions,
    load_checkpoint,
    save_checkpoint,
    sidecar_of,
    stage_file,
    timestamped_name,
)
from rl.checkpoints.registry import RETIRED
from rl.common.atomic_files import sha256_of, writing
from rl.common.errors import CheckpointError
from rl.stages.evaluation import iso_utc
from rl.stages.family import what_is_wrong
from rl.stages.gates import Verdict
from rl.stages.plan import STAGE_KEYS, Plan
from rl.stages.stage_model import StageModel
from rl.stages.symbol_data import SymbolData

IN_TRAINING = "in_training"
"""Folder for the best model so far of a stage that is still being trained."""


def checkpoint_of(
    data: SymbolData,
    plan: Plan,
    model: StageModel,
    verdict: Verdict | None,
    *,
    lineage: list[str],
    run_name: str,
    adaptation: dict[str, Any] | None = None,
    champion_of: str | None = None,
) -> Checkpoint:
    """Return everything a model needs to be used and judged again.

    Args:
        data: The symbol it was trained on.
        plan: The plan it was trained under.
        model: The model.
        verdict: What its gate (or, for a final model, its promotion) said; None while it is in training.
        lineage: Fingerprints of the models it grew out of, oldest first.
        run_name: The run that made it.
        adaptation: How a stage-3 model is adapted before use.
        champion_of: For the final model, the stage it comes from.
    """
    return Checkpoint(
        stage="final" if champion_of else model.stage,
        symbol=data.symbol,
        policy_spec=model.policy_spec,
        weights=torch.from_numpy(model.weights.copy()),
        extra_tensors=dict(model.extra),
        scaler=data.scaler.to_dict(),
        feature_names=list(data.feature_names),
        action_scheme=plan.environment.action_scheme,
        instrument={**data.found.instrument.model_dump(mode="json"), "matched": data.found.matched},
        trading={
            "rules": data.rules.as_dict(),
            "capital": plan.environment.initial_capital,
            "sessions_per_year": data.sessions_per_year,
            "adaptation": adaptation,
            "run": run_name,
            "promotion_rule": plan.model_management.promotion,
        },
        splits={
            **data.splits.boundaries,
            "embargo_bars": data.embargo_bars,
            "data_end": iso_utc(int(data.bars.close_time[-1])),
        },
        data_hash=data.data_hash,
        seed=plan.seed,
        plan=plan.as_dict(),
        versions=library_versions(),
        lineage=list(lineage),
        metrics={**model.metrics, "episodes": model.episodes},
        verdict=verdict.to_dict() if verdict else {},
        champion_of=champion_of,
    )


def write_model(
    models_dir: Path, checkpoint: Checkpoint, on_kept: Callable[[Path], None] | None = None
) -> Path:
    """Write a checkpoint under its stage's name; complete or absent.

    A model of another run that lies there is kept below `retired` first.

    Args:
        models_dir: Where models are.
        checkpoint: What to write.
        on_kept: Told where the model it replaces is kept, if there was one.
    """
    path = models_dir / stage_file(checkpoint.symbol, checkpoint.stage)
    if _is_plain_file(path) and _origin(path)[0] != checkpoint.trading.get("run"):
        kept = _kept_aside(models_dir, path)
        if on_kept is not None:
            on_kept(kept)
    save_checkpoint(path, checkpoint)
    return path


def write_unjudged(models_dir: Path, checkpoint: Checkpoint) -> Path:
    """Write the best model so far of a stage in training, where an interrupted run leaves it for a look.

    It has no verdict and lies in a folder of its own, so that nothing takes it for a finished stage; see what it does
    with `run_backtest.py --models-dir models/in_training`.
    """
    path = models_dir / IN_TRAINING / stage_file(checkpoint.symbol, checkpoint.stage)
    save_checkpoint(path, checkpoint)
    return path


def forget_unjudged(models_dir: Path, symbol: str, stage: str) -> None:
    """Remove what `write_unjudged` wrote, once the stage is done."""
    remove_model(models_dir / IN_TRAINING / stage_file(symbol, stage))


def remove_model(path: Path) -> None:
    """Remove a model file and its sidecar, where they are there."""
    # The weights first: a sidecar alone is no model, but weights without one are taken for a damaged model.
    for file in (path, sidecar_of(path)):
        file.unlink(missing_ok=True)


def keep_dated_copy(models_dir: Path, checkpoint: Checkpoint, plan: Plan, time: datetime) -> Path:
    """Write the same checkpoint once more under the plan's naming convention, dated as given."""
    stage = checkpoint.champion_of or checkpoint.stage
    name = timestamped_name(
        plan.model_management.model_naming_convention,
        checkpoint.symbol,
        STAGE_KEYS[stage],  # ty: ignore[invalid-argument-type]
        plan.stage(stage).algorithm,
        time,
    )
    save_checkpoint(models_dir / name, checkpoint)
    return models_dir / name


def model_from(checkpoint: Checkpoint) -> StageModel:
    """Return the stage model a checkpoint holds."""
    return StageModel(
        stage=checkpoint.champion_of or checkpoint.stage,
        policy_spec=dict(checkpoint.policy_spec),
        weights=checkpoint.weights.numpy().copy(),
        extra=dict(checkpoint.extra_tensors),
        episodes=int(checkpoint.metrics.get("episodes", 0)),
        metrics=dict(checkpoint.metrics),
    )


_SHAPE = TypeAdapter(Verdict)


def verdict_of(path: Path, checkpoint: Checkpoint) -> Verdict:
    """Return the verdict a checkpoint carries.

    Raises:
        CheckpointError: It is none that a gate writes.
    """
    try:
        verdict = Verdict.from_dict(checkpoint.verdict)
        _SHAPE.validate_json(json.dumps(checkpoint.verdict), strict=True)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is refused: its verdict cannot be read ({what_is_wrong(error)}).\n"
            "  Restore file and sidecar together from a copy, or train the stage again."
        ) from error
    return verdict


def differences(checkpoint: Checkpoint, data: SymbolData, plan: Plan) -> list[str]:
    """Return in what a stored model does not fit this run: going on from it would leak or fail."""
    boundaries = {name: span for name, span in checkpoint.splits.items() if isinstance(span, dict)}
    compared = {
        "data": checkpoint.data_hash == data.data_hash,
        "features": tuple(checkpoint.feature_names) == data.feature_names,
        "windows": boundaries == data.splits.boundaries
        and checkpoint.splits.get("embargo_bars") == data.embargo_bars,
        "scaling": checkpoint.scaler == data.scaler.to_dict(),
        "actions": checkpoint.action_scheme == plan.environment.action_scheme,
        "costs or limits": checkpoint.trading.get("rules") == data.rules.as_dict(),
    }
    return [what for what, is_equal in compared.items() if not is_equal]


def retire_older_files(models_dir: Path, symbol: str, run_name: str, *, first_stage: str) -> list[str]:
    """Move model files of this symbol that an earlier run made, from the first stage trained now on, aside.

    They grew out of a model that no longer exists; left in place, the backtest would go on preferring them to what was
    just trained. A final model that passed its promotion stays: only a promoted one may take its place. Nothing is
    deleted.

    Returns:
        What was moved or left, in sentences.
    """
    order = list(FILE_STAGES)
    said = []
    for stage in order[order.index(first_stage) :]:
        path = models_dir / stage_file(symbol, stage)
        if not os.path.lexists(path):
            continue
        made_by, passed = _origin(path)
        if made_by == run_name:
            continue
        if stage == "final" and passed:
            said.append(f"the model promoted by run {made_by} stays in use: {path}")
            continue
        said.append(f"model of an earlier run moved to {_moved_aside(models_dir, path)}")
    return said


def _moved_aside(models_dir: Path, path: Path) -> Path:
    if not _is_plain_file(path):
        # A link or a folder under the name of a model: nothing of it is read.
        folder = _retired_folder(models_dir, path)
        folder.mkdir(parents=True)
        return path.replace(folder / path.name)
    # Copied whole before the first of the two files goes: whenever this stops, one place has both.
    kept = _kept_aside(models_dir, path)
    remove_model(path)
    return kept


def _kept_aside(models_dir: Path, path: Path) -> Path:
    """Copy a model file and its sidecar below `retired`, unless that was done already; return the copy."""
    pair = {each.name: each for each in (sidecar_of(path), path) if _is_plain_file(each)}
    for earlier in sorted((models_dir / RETIRED).glob(f"*/{path.name}")):
        # A run that was killed between keeping and replacing comes by a second time.
        copies = [earlier.with_name(name) for name in pair]
        if all(copy.is_file() for copy in copies) and all(
            sha256_of(copy) == sha256_of(pair[copy.name]) for copy in copies
        ):
            return earlier
    folder = _retired_folder(models_dir, path)
    for name, file in pair.items():
        with writing(folder / name) as temporary:
            shutil.copyfile(file, temporary)
    return folder / path.name


def _is_plain_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _retired_folder(models_dir: Path, path: Path) -> Path:
    """Return a folder below `retired`, named for the time, that holds no file of this name yet."""
    top, name = models_dir / RETIRED, datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder, number = top / name, 1
    while any(os.path.lexists(folder / each.name) for each in (path, sidecar_of(path))):
        number += 1
        folder = top / f"{name}-{number}"
    return folder


def withdraw_overruled(models_dir: Path, verdict: Verdict) -> str | None:
    """Move a final model aside whose own look, judged now among more symbols, is no longer a PASS.

    Another model that shows nothing is no reason to stop using one that did. But the same weights on the same window
    are the same evidence, and whether it is enough may not depend on which symbols were trained first.

    Args:
        models_dir: Where final models are.
        verdict: Of promotion, as settled in this run.

    Returns:
        What was moved, in a sentence; None where nothing was.
    """
    path = models_dir / stage_file(verdict.symbol, "final")
    if verdict.passed or not os.path.lexists(path):
        return None
    try:
        final = load_checkpoint(path)
    except CheckpointError:
        return None  # nobody can use it, and `retire_older_files` moves it
    was = final.verdict
    same_look = (
        was.get("attempt") == verdict.attempt
        and was.get("window", {}).get("hash") == verdict.window["hash"]
        and was.get("context", {}).get("weights") == verdict.context["weights"]
    )
    if not (final.passed and same_look):
        return None
    made_by = final.trading.get("run")
    return (
        f"the model promoted by run {made_by} is not promoted among the symbols judged since; moved to "
        f"{_moved_aside(models_dir, path)}"
    )


def promoted_earlier(models_dir: Path, symbol: str) -> bool:
    """Return True where a final model that passed its promotion exists; an unproven one may not take its place."""
    path = models_dir / stage_file(symbol, "final")
    return os.path.lexists(path) and _origin(path)[1]


def _origin(path: Path) -> tuple[str | None, bool]:
    """Return which run made a file and whether it passed; a damaged one is nobody's."""
    try:
        checkpoint = load_checkpoint(path)
    except CheckpointError:
        return None, False
    return str(checkpoint.trading.get("run")), checkpoint.passed
