"""How much has been tried on a symbol: every judged look in the evidence ledger is one trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rl.stages.evidence import EvidenceLedger


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The judged trials of one symbol."""

    count: int
    """Trials with a Sharpe ratio. One that never traded, or whose returns did not vary, has none; luck cannot make it
    look good either."""
    sharpe_variance: float | None
    """Variance of their Sharpe ratios per session, dividing by count - 1; None for fewer than two."""


def trials_of(ledger: EvidenceLedger, symbol: str) -> Trials:
    """Return how many trials of a symbol the ledger holds, and how widely their Sharpe ratios spread.

    A trial is one purpose, window and attempt: the same weights judged again on the same window under the same costs
    keep their attempt and stay one trial, while the same weights on another window are another. That counts more
    trials than there were models, which errs on the strict side. Lines of older versions without a Sharpe ratio are
    left out.

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


def _sharpe_per_session(entry: dict[str, Any]) -> float | None:
    """Return the ratio a verdict line holds: a gate's inside its verdict, a backtest's in the line itself."""
    verdict = entry.get("verdict", {})
    ratio = verdict.get("metrics", {}).get("sharpe_per_session", entry.get("sharpe_per_session"))
    return None if ratio is None else float(ratio)
