"""How much cost a strategy's actions bear: what they earn at given costs, and the cost at which they earn nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.optimize import brentq

from rl.backtest.engine import Replay, replay_actions
from rl.trading.kernel import COSTS, TURNOVER
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

HIGHEST_COST_BP = 1000.0
"""A tenth of the notional per side. No market charges that; what still earns money there has another fault."""

_NEARLY_FREE = 1e-8
_TOLERANCE = 1e-12
"""Both as fractions of the notional: 0.0001 bp and 0.00000001 bp."""


@dataclass(frozen=True, kw_only=True)
class BreakEvenCost:
    """The all-in cost per side at which the same actions earn nothing."""

    cost_bp_per_side: float | None
    """In basis points of the notional; None where there is no such cost."""
    reason: str | None
    """Why there is none."""
    paid_bp_per_side: float | None
    """What was paid per side on average, slippage included; None where nothing was traded."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures with the reasons beside them, ready for JSON."""
        missing = {} if self.reason is None else {"cost_bp_per_side": self.reason}
        if self.paid_bp_per_side is None:
            missing["paid_bp_per_side"] = "nothing was traded"
        return {
            "cost_bp_per_side": self.cost_bp_per_side,
            "paid_bp_per_side": self.paid_bp_per_side,
            "not_computed": missing,
        }


def cost_frontier(
    market: MarketArrays,
    window: tuple[int, int],
    rules: TradingRules,
    strategy: Replay,
    *,
    scheme: str,
    basis_points: Sequence[float],
) -> list[dict[str, float | None]]:
    """Return what the same actions would have earned at other all-in costs per side.

    The policy is not asked again: the line says how much cost this behaviour bears, not what a policy trained for
    that cost would do.
    """
    final_at = _final_equity_at(market, window, rules, strategy, scheme)
    frontier: list[dict[str, float | None]] = []
    for points in basis_points:
        final = final_at(points * 1e-4)
        frontier.append(
            {
                "cost_bp_per_side": float(points),
                "total_pnl": final - strategy.capital,
                "total_return": final / strategy.capital - 1.0,
            }
        )
    return frontier


def break_even_cost(
    market: MarketArrays,
    window: tuple[int, int],
    rules: TradingRules,
    strategy: Replay,
    *,
    scheme: str,
) -> BreakEvenCost:
    """Return the all-in cost per side at which the strategy's actions earn nothing.

    Found by trading the actions again at other costs until the result falls through zero (Brent's method), so that
    compounding, whole lots, margin and ruin count as they do in the backtest. Where lots make the result jump over
    zero, the cost is that of the jump. A position still open at the end counts at its last mark.
    """
    final_at = _final_equity_at(market, window, rules, strategy, scheme)
    turnover = float(strategy.account[TURNOVER])
    paid = 1e4 * float(strategy.account[COSTS]) / turnover if turnover > 0.0 else None

    def found(cost: float | None, reason: str | None = None) -> BreakEvenCost:
        points = None if cost is None else 1e4 * cost
        return BreakEvenCost(cost_bp_per_side=points, reason=reason, paid_bp_per_side=paid)

    def earned_at(cost: float) -> float:
        return final_at(cost) - strategy.capital

    if turnover == 0.0:
        return found(None, "nothing was traded, so no cost changes the result")
    gross = earned_at(0.0)
    if gross < 0.0:
        return found(None, "it loses money even at no cost")
    if gross == 0.0:
        return found(0.0)
    # What a fixed position would bear; compounding and lots move it, so it is only where the search begins.
    high = min(max(gross / turnover, _NEARLY_FREE), 1e-4 * HIGHEST_COST_BP)
    low = 0.0
    while earned_at(high) > 0.0:
        if high >= 1e-4 * HIGHEST_COST_BP:
            return found(None, f"it still earns money at {HIGHEST_COST_BP:g} bp per side")
        low, high = high, min(2.0 * high, 1e-4 * HIGHEST_COST_BP)
    return found(float(brentq(earned_at, low, high, xtol=_TOLERANCE)))


def _final_equity_at(
    market: MarketArrays, window: tuple[int, int], rules: TradingRules, strategy: Replay, scheme: str
) -> Callable[[float], float]:
    """Return the function from an all-in cost per side, a fraction, to the equity the same actions then end with."""
    actions = strategy.actions.copy()
    # A ruined account acts no more: flat, or hold what is not there.
    actions[strategy.decisions :] = 1 if scheme == "target" else 4

    def final_equity(rate: float) -> float:
        replay = replay_actions(
            market, window, rules.without_costs(rate), actions, scheme=scheme, capital=strategy.capital
        )
        return float(replay.equity[-1])

    return final_equity
