"""What the model files of one symbol say of its training: how each stage learned and how its gate judged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rl.checkpoints.checkpoint import STAGES, Checkpoint, load_checkpoint, stage_file
from rl.common.errors import CheckpointError

_META_TRAINING = ("iteration", "support_reward", "query_reward")
"""What a report draws of each iteration of meta-training; the checkpoint has more."""


def stage_history(models_dir: Path, used: Checkpoint) -> list[dict[str, Any]]:
    """Return one entry per model file of the same symbol and run, in the order of training; ready for JSON.

    An entry has `stage`, `file`, `episodes`, `training` (curves) and `verdict`; the final model's verdict is that of
    promotion. A file of another run says nothing of how the used model came about: its entry has `left_out` instead,
    as has that of a file that cannot be read.

    Args:
        models_dir: Folder of the models.
        used: The model a report is about.
    """
    found = []
    for stage in STAGES:
        path = Path(models_dir) / stage_file(used.symbol, stage)
        if not os.path.lexists(path):
            continue
        entry: dict[str, Any] = {"stage": stage, "file": path.name}
        try:
            checkpoint = load_checkpoint(path)
        except CheckpointError:
            found.append(
                {**entry, "left_out": "the file cannot be read; backtest it with --stage to see why"}
            )
            continue
        if checkpoint.trading.get("run") != used.trading.get("run"):
            found.append({**entry, "left_out": f"made by another run, {checkpoint.trading.get('run')}"})
            continue
        found.append({**entry, **_told(checkpoint)})
    return found


def _told(checkpoint: Checkpoint) -> dict[str, Any]:
    metrics = dict(checkpoint.metrics)
    # The adaptation stands in the verdict too.
    metrics.pop("adaptation", None)
    if "meta_training" in metrics:
        metrics["meta_training"] = [
            {name: line[name] for name in _META_TRAINING if name in line} for line in metrics["meta_training"]
        ]
    return {
        "champion_of": checkpoint.champion_of,
        "episodes": metrics.get("episodes"),
        "training": metrics,
        "verdict": checkpoint.verdict,
    }
