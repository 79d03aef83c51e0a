"""Backtests to make pages of: actions drawn at random on a random walk, and all that a command gathers beside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rl.backtest.engine import replay_actions
from rl.backtest.result import SymbolResult, portfolio_figures, symbol_result
from rl.reporting.backtest_report import HowMade, json_report
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules
from tests.builders import random_bars

RULES = TradingRules(margin_rate=0.2, commission_rate=1e-4, square_off=True)
HOW = HowMade(command="python run_backtest.py --symbols Nifty_15", config={"split": "test"})


def a_verdict(**changes: Any) -> dict[str, Any]:
    """Return a verdict as a checkpoint holds it."""
    criteria = [
        {"name": "win_rate", "value": 0.4182, "threshold": 0.35, "direction": "at least", "met": True,
         "lower": 0.337, "upper": 0.505, "p_below": 0.94, "note": ""},
        {"name": "profit_factor", "value": None, "threshold": 0.8, "direction": "at least", "met": None,
         "lower": None, "upper": None, "p_below": None, "note": "no trade lost money"},
    ]  # fmt: skip
    verdict = {
        "outcome": "FAIL", "level": "progress", "symbol": "Nifty_15", "stage": "ppo", "criteria": criteria,
        "trades": 129, "sessions": 122, "alpha_used": 0.025, "attempt": 1,
        "reasons": ["profit_factor is missed."], "metrics": {},
        "sessions_needed": 31,
        "window": {"name": "validation", "from": "2020-05-28T04:00:00Z", "to": "2021-04-26T10:00:00Z"},
        "context": {"null_bank": {"flat": "INCONCLUSIVE", "buy_and_hold": "FAIL"},
                    "family": {"symbols": ["A", "B"], "q": 0.05, "corrected_p": 0.4, "rank_threshold": None}},
    }  # fmt: skip
    return verdict | changes


def a_background(first_rows: tuple[int, int]) -> dict[str, Any]:
    """Return what the backtest command gathers beside the replay."""
    train, test = first_rows
    curve = [
        {"episodes": 50 * place, "mean_session_return": 1e-4 * place - 2e-4, "win_rate": 0.4, "profit_factor": None,
         "trades": 30 + place}
        for place in range(5)
    ]  # fmt: skip
    record = {
        "gate_weight": 0.5, "leads": 0.5, "short": None, "flat": None, "long": None, "return_contribution": 0.012,
        "mean_holding_bars": None,
    }  # fmt: skip
    meta = [{"iteration": place, "adapted": 1e-5 * place, "unadapted": -1e-5} for place in range(3)]
    adaptation = {
        "tasks": 31, "inner_loop_steps": 2, "fine_tune": {}, "random_start_steps": {}, "placebo": [],
        "not_computed": {},
        "adaptation_curve": [
            {"steps": steps, "mean": 1e-5 * steps, "lower": -2e-5, "upper": None} for steps in (0, 1, 2)
        ],
        "comparisons": [
            {"name": "over_stage_2", "baseline": 1e-5, "difference": 2e-5, "interquartile_mean": 1e-5, "lower": -1e-5,
             "upper": 5e-5, "p": 0.07, "decides": True},
        ],
    }  # fmt: skip
    return {
        "windows": {
            "train": {"from": "a", "to": "b", "first_row": train, "bars": test - train},
            "test": {"from": "c", "to": "d", "first_row": test, "bars": 10_000},
        },
        "stages": [
            {"stage": "ppo", "file": "Nifty_15_ppo_stage1.pth", "champion_of": None, "episodes": 250,
             "training": {"validation_curve": curve, "best_episodes": 200, "episodes": 250}, "verdict": a_verdict()},
            {"stage": "moe", "file": "Nifty_15_moe_stage2.pth", "left_out": "made by another run, 2020"},
            {"stage": "maml", "file": "Nifty_15_maml_stage3_final.pth", "champion_of": None, "episodes": 3,
             "training": {"meta_validation_curve": meta, "best_iteration": 1, "episodes": 3},
             "verdict": a_verdict(level="adaptation", outcome="INCONCLUSIVE", stage="maml", metrics=adaptation)},
        ],
        "experts": {
            "window": "test", "regime_source": "thirds of volatility_level", "regimes": ["low", "high"],
            "regime_bars": [100, 120],
            "use": {"effective_experts": 1.9, "divergence": 0.11, "switching_rate": 0.2},
            "information": {"nats": 0.1, "normalised": 0.05, "p": 0.001, "shifts": 1000},
            "experts": [record, record], "by_regime": [[record, record], [record, record]],
        },
        "data_quality": {
            "raw_file": "Nifty_15.csv", "features": 39, "bars": 59528, "first_bar": "2012-11-01",
            "last_bar": "2022-09-30", "sessions": 2384, "usable_bars": 58763, "counts": {},
            "notes": ["hole: 16 bars missing"], "data_hash": "350e",
        },
        "plan": {"seed": 0},
    }  # fmt: skip


def a_backtest(
    symbol: str = "Nifty_15",
    *,
    count: int = 600,
    seed: int = 0,
    background: dict[str, Any] | None = None,
    **changes: Any,
) -> SymbolResult:
    """Return a backtest; `changes` go into the model's and the span's facts, and into what is listed last."""
    bars = random_bars(count, seed, symbol=symbol)
    market = MarketArrays(
        ohlc=np.column_stack([bars.open, bars.high, bars.low, bars.close]),
        features=np.zeros((count, 1), dtype=np.float32),
        session=bars.session,
        session_end=bars.session_end,
        tradable=np.ones(count, dtype=bool),
        atr=np.ones(count),
    )
    window = (count // 10, count)
    stays = np.random.default_rng(seed).integers(0, 3, count // 6 + 1)
    actions = changes.get("actions", np.repeat(stays, 6)[: window[1] - window[0] - 1])
    replay = replay_actions(market, window, RULES, actions, capital=100_000.0)
    model = {
        "file": f"models/{symbol}_final_model.pth", "stage": "ppo", "verdict": "FAIL",
        "verdict_text": "promotion FAIL, not promoted", "promoted": False, "headline": "",
    }  # fmt: skip
    span = {
        "from": "2024-01-05", "to": "2024-02-02", "split": "test", "bars": count - count // 10, "sessions": 22,
        "seen_in_training_or_choosing": False, "looks": 2, "ruined_on": None,
    }  # fmt: skip
    result = symbol_result(
        bars=bars,
        market=market,
        window=window,
        rules=RULES,
        scheme="target",
        replay=replay,
        model={name: changes.get(name, value) for name, value in model.items()},
        span={name: changes.get(name, value) for name, value in span.items()},
        instrument={
            "name": "Nifty", "asset_class": "index", "currency": "INR", "matched": "Nifty (instrument)",
            "rules": RULES.as_dict(),
        },
        sessions_per_year=252,
        generator=np.random.default_rng(0),
        random_draws=3,
        frontier_bp=[0.0, 5.0, 10.0],
        confidence=0.95,
        listed_trades=200,
        trials=changes.get("trials", 0),
        trial_variance=changes.get("trial_variance"),
        notes=changes.get("notes", ()),
        background=a_background((0, count // 2)) if background is None else background,
    )  # fmt: skip
    return replace(result, **changes.get("replaced", {}))


def a_report(*results: SymbolResult) -> dict[str, Any]:
    """Return the JSON report of some backtests, with a time that stays."""
    return {**json_report(results, portfolio_figures(results), HOW), "generated": "2026-11-21 12:00:00 UTC"}
