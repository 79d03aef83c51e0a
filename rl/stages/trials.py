"""How much has been tried on a symbol: every look in the evidence ledger that showed a Sharpe ratio is one trial.

A ledger that was deleted, or lies elsewhere, counts too few; the models that were judged under it tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rl.checkpoints.checkpoint import STAGES, Checkpoint, load_checkpoint, stage_file
from rl.common.errors import CheckpointError
from rl.stages.evidence import EvidenceLedger
from rl.stages.family import context_of


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The trials of one symbol."""

    count: int
    """Trials with a Sharpe ratio. One that never traded, or whose returns did not vary, has none; luck cannot make it
    look good either."""
    sharpe_variance: float | None
    """Variance of their Sharpe ratios per session, dividing by count - 1; None for fewer than two."""


def trials_of(ledger: EvidenceLedger, symbol: str) -> Trials:
    """Return how many trials of a symbol the ledger holds, and how widely their Sharpe ratios spread.

    What counts are the looks of gates and promotions, and those of backtests: at the test window, at the promotion
    window, and with `--split all` at both. A backtest of training or validation bars is no look and no trial: what
    was fitted to those is judged there by the gates. A trial is one purpose, window and attempt: the same weights
    judged again on the same window under the same costs keep their attempt and stay one trial, of which the ratio
    written last counts, while the same weights on another window are another. That counts more trials than there were
    models, which errs on the strict side. Lines of older versions without a Sharpe ratio are left out.

    Raises:
        DataError: The ledger is damaged.
    """
    found: dict[tuple[str, str, int], float] = {}
    for entry in ledger.entries():
        if entry["kind"] != "verdict" or entry["symbol"] != symbol:
            continue
        ratio = _sharpe_per_session(entry)
        if ratio is not None:
            found[entry["purpose"], entry["window_hash"], entry["attempt"]] = ratio
    ratios = np.array(list(found.values()))
    return Trials(
        count=len(ratios), sharpe_variance=float(np.var(ratios, ddof=1)) if len(ratios) > 1 else None
    )


def conclusions(
    ledger: EvidenceLedger, symbol: str, purpose: str, window_hash: str, attempt: int
) -> list[dict[str, Any]]:
    """Return what gates and backtests wrote down of one look, oldest first.

    A backtest writes `sharpe_per_session` into the line itself, a gate into its verdict.

    Raises:
        DataError: The ledger is damaged.
    """
    look = {"kind": "verdict", "symbol": symbol, "purpose": purpose, "window_hash": window_hash}
    look["attempt"] = attempt
    return [entry for entry in ledger.entries() if entry.items() >= look.items()]


def _sharpe_per_session(entry: dict[str, Any]) -> float | None:
    """Return the ratio a verdict line holds: a gate's inside its verdict, a backtest's in the line itself."""
    verdict = entry.get("verdict", {})
    ratio = verdict.get("metrics", {}).get("sharpe_per_session", entry.get("sharpe_per_session"))
    return None if ratio is None else float(ratio)


def forgotten_looks(ledger: EvidenceLedger, models_dir: Path, symbol: str) -> list[str]:
    """Return a sentence for each of a symbol's models that was judged and whose verdict the ledger has no line of.

    Then the ledger was deleted, or is another than the model was judged under, and counts fewer looks than were taken.
    A damaged model is passed over: whoever uses it is told.

    Raises:
        DataError: The ledger is damaged.
    """
    entries, said = ledger.entries(), []
    for stage in STAGES:
        path = models_dir / stage_file(symbol, stage)
        if not path.is_file():
            continue
        try:
            checkpoint = load_checkpoint(path)
        except CheckpointError:
            continue
        if not _is_known(entries, checkpoint):
            said.append(
                f"the ledger {ledger.path} knows nothing of the looks behind {path}; counting began anew"
            )
    return said


def _is_known(entries: Sequence[dict[str, Any]], checkpoint: Checkpoint) -> bool:
    """Return True where the ledger has the verdict a model carries, or the model carries none that could be found."""
    verdict = checkpoint.verdict
    window_hash = verdict.get("window", {}).get("hash")
    if window_hash is None:
        return True
    judged = (checkpoint.symbol, verdict["level"], window_hash, verdict["attempt"])
    weights = verdict["context"].get("weights")
    return any(
        entry["kind"] == "verdict"
        # A backtest writes its ratio into the line itself; that is no verdict of the gate's.
        and "sharpe_per_session" not in entry
        and (entry["symbol"], entry["purpose"], entry["window_hash"], entry["attempt"]) == judged
        # After a fresh start the same number may have been given to another model.
        and context_of(entry).get("weights", weights) == weights
        for entry in entries
    )
