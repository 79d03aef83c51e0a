"""What a backtest of one symbol shows and what it does not, in sentences."""

from __future__ import annotations

from rl.backtest.result import SymbolResult
from rl.reporting.tables import SYNTHETIC_PREFIX, number, percent

WALK_FORWARD = "walk-forward"
"""What the span of a walk-forward is called."""


def what_is_shown(result: SymbolResult) -> list[str]:
    """Return the verdict on one symbol: promoted or not, what it earned beside holding, what chance can explain."""
    told = result.background.get("walk_forward")
    return [
        *_warnings(result),
        *([] if told else [_promotion(result)]),
        _earned(result),
        _beyond_chance(result),
        *_cost_it_bears(result),
    ]


def _warnings(result: SymbolResult) -> list[str]:
    found = []
    if result.symbol.startswith(SYNTHETIC_PREFIX):
        found.append("SYNTHETIC data: nothing follows for any real market.")
    if result.span["seen_in_training_or_choosing"]:
        found.append(
            f"IN-SAMPLE: bars of this span ({result.span['split']}) were seen in training or choosing; its figures "
            "prove nothing."
        )
    if result.replay.was_ruined:
        found.append(f"RUINED on {result.span['ruined_on']}: the account stands still from there.")
    if result.model["headline"]:
        found.append(result.model["headline"])
    return found


def _promotion(result: SymbolResult) -> str:
    if result.model["promoted"]:
        return "Promoted: the model showed an edge after costs on a window kept closed until then."
    return f"Not promoted: no edge is shown for this model ({result.model['verdict_text']})."


def _earned(result: SymbolResult) -> str:
    figures, span = result.figures.values, result.span
    held = result.baselines["buy_and_hold"]["total_return"]
    whole = span["split"] == "all"
    window = "all windows together" if whole else f"{span['split']} window"
    if span["split"] == WALK_FORWARD:
        window = "all stretches together"
    look = (
        f" (look {span['looks']} at {'the test window inside' if whole else 'it'})" if span["looks"] else ""
    )
    earned = figures["total_return"]
    assert earned is not None
    verb = "earned" if earned > 0 else "lost" if earned < 0 else "made"
    return (
        f"From {span['from']} to {span['to']}, {window}{look}, it {verb} {percent(abs(earned), 2)} after "
        f"costs; buy-and-hold made {percent(held, 2)}, doing nothing 0.00 %."
    )


def _beyond_chance(result: SymbolResult) -> str:
    figures = result.figures.values
    low, high = figures["sharpe_low"], figures["sharpe_high"]
    if low is None or high is None:
        return (
            f"Whether that is more than chance cannot be said: {result.figures.not_computed['sharpe_low']}."
        )
    interval = (
        f"The Sharpe ratio is {number(figures['sharpe_ratio'])}, its {percent(result.confidence, 0)} interval "
        f"{number(low)} to {number(high)}"
    )
    if low > 0.0:
        return f"{interval}: above zero on this span."
    if high < 0.0:
        return f"{interval}: below zero on this span."
    return f"{interval}: it holds zero, so this span alone shows neither gain nor loss beyond chance."


def _cost_it_bears(result: SymbolResult) -> list[str]:
    found = result.break_even_cost
    if found.cost_bp_per_side is None:
        return [f"What cost it bears cannot be computed: {found.reason}."]
    return [
        f"It bears {number(found.cost_bp_per_side)} bp of cost per side before it earns nothing; "
        f"{number(found.paid_bp_per_side)} bp were paid."
    ]
