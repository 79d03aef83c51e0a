"""What a walk-forward comes to, fold by fold and in all, as plain values for every report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rl.backtest.result import SymbolResult
from rl.backtest.walk_forward import Stitched, WalkForward
from rl.market.bars import Bars, readable_label
from rl.stages.evidence import intercept_against, session_clustered_t
from rl.stages.fold_training import TrainedFold
from rl.trading import metrics
from rl.trading.kernel import COSTS

Row = dict[str, Any]


def fold_facts(bars: Bars, stitches: Stitched, held: np.ndarray, trained: Sequence[TrainedFold]) -> list[Row]:
    """Return one entry per fold: dates, what trades and how it was judged, and what its stretch made.

    Results of stretches multiply to the whole account's: what closing at a seam costs belongs to the stretch before it.

    Args:
        bars: All bars of the symbol.
        stitches: The account.
        held: Equity of buy-and-hold on the same bars. (n,)
        trained: The folds, oldest first.
    """
    replay = stitches.replay
    rows = []
    for place, each in enumerate(trained):
        fold, checkpoint = each.fold, each.found.checkpoint
        first = fold.start - replay.start
        end = min(fold.stop - replay.start, len(replay.equity) - 1)
        inside = (replay.trades.exit_bar > fold.start) & (replay.trades.exit_bar <= replay.start + end)
        won = replay.trades.net_pnl[inside]
        rows.append(
            {
                "number": fold.number,
                "window_from": readable_label(bars, fold.begin),
                "window_to": readable_label(bars, fold.start - 1),
                "from": readable_label(bars, fold.start),
                "to": readable_label(bars, fold.stop - 1),
                "sessions": len(np.unique(bars.session[fold.start : fold.stop])),
                "bars": fold.stop - fold.start,
                "stage": checkpoint.champion_of or checkpoint.stage,
                "verdict": checkpoint.verdict.get("outcome"),
                "gates": each.record["stages"],
                "promotion": each.record["promotion"],
                "promoted": checkpoint.stage == "final" and checkpoint.passed,
                "trades": int(np.sum(inside)),
                "win_rate": _known(metrics.win_rate(won)),
                "total_return": _growth(replay.equity, first, end),
                "buy_and_hold": _growth(held, first, end),
                "cost_of_seam": stitches.seams[place] if place < len(stitches.seams) else 0.0,
                "impossible": each.record["impossible"],
                "weights": checkpoint.sha256,
            }
        )
    return rows


def walk_forward_facts(
    result: SymbolResult,
    stitches: Stitched,
    rows: list[Row],
    asked: WalkForward,
    *,
    promoted_only: float,
    held_returns: np.ndarray,
    spent: dict[str, Any] | None,
    note: str | None,
) -> dict[str, Any]:
    """Return everything a report says of a walk-forward beside the account's own figures.

    Args:
        result: Of the stitched account.
        stitches: The account.
        rows: Of `fold_facts`.
        asked: Window and stretch.
        promoted_only: Return where only promoted models trade.
        held_returns: Buy-and-hold's return in every session. (S,)
        spent: Which windows of the plan the stretches lie in; None where in none.
        note: What was left out.
    """
    trades = result.replay.trades
    mean = session_clustered_t(trades.net_pnl, trades.session, result.confidence)
    beyond = intercept_against(result.session_returns, held_returns, result.confidence)
    return {
        "asked": str(asked),
        "window": asked.window.in_words(),
        "step": asked.step.in_words(),
        "folds": rows,
        "promoted": sum(row["promoted"] for row in rows),
        "won": sum(row["total_return"] > 0 for row in rows),
        "beat_holding": sum(row["total_return"] > row["buy_and_hold"] for row in rows),
        "promoted_only_return": promoted_only,
        "closed_at_seams": stitches.held_at_seams,
        "cost_of_seams": math.fsum(stitches.seams),
        "share_of_costs": _share(math.fsum(stitches.seams), float(result.replay.account[COSTS])),
        "mean_trade": {
            "value": _known(mean.mean),
            "lower": _known(mean.lower),
            "upper": _known(mean.upper),
            "sessions": mean.sessions,
        },
        "beyond_holding": {
            "value": _known(beyond.alpha),
            "lower": _known(beyond.lower),
            "upper": _known(beyond.upper),
            "sessions": beyond.sessions,
        },
        "spent": spent,
        "note": note,
    }


def _growth(equity: np.ndarray, first: int, end: int) -> float:
    return float(equity[end] / equity[first] - 1.0)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0.0 else None


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
