"""A symbol's result under the settings of a backtest: what every caller that replays something has to say of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rl.backtest.config import BacktestConfig
from rl.backtest.engine import Replay
from rl.backtest.result import SymbolResult, symbol_result
from rl.common.seeding import generator
from rl.market.bars import Bars, readable_label
from rl.market.calendars import calendar
from rl.market.instruments import FoundInstrument
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules


def configured_result(
    replay: Replay,
    *,
    bars: Bars,
    market: MarketArrays,
    rules: TradingRules,
    scheme: str,
    config: BacktestConfig,
    instrument: FoundInstrument,
    model: dict[str, Any],
    split: str,
    seen: bool,
    looks: int | None,
    trials: int,
    trial_variance: float | None,
    notes: Sequence[str],
    background: dict[str, Any],
) -> SymbolResult:
    """Put a replay together with baselines, costs and intervals as the settings ask for them.

    Args:
        replay: What the account did.
        bars: Of the symbol.
        market: Their arrays.
        rules: Costs and limits of the replay.
        scheme: The action scheme of its actions.
        config: Settings of the backtest.
        instrument: The symbol's.
        model: What the report says of the model; see `SymbolResult.model`.
        split: What the report calls the span.
        seen: Whether training or choosing has seen bars of it.
        looks: Which counted look this was; None where none is counted.
        trials: Things tried on this symbol so far.
        trial_variance: Variance of their Sharpe ratios per session.
        notes: For the reader.
        background: See `SymbolResult.background`.
    """
    start, stop = replay.start, replay.stop
    return symbol_result(
        bars=bars,
        market=market,
        window=(start, stop),
        rules=rules,
        scheme=scheme,
        replay=replay,
        model=model,
        span={
            "from": readable_label(bars, start),
            "to": readable_label(bars, stop - 1),
            "ruined_on": readable_label(bars, start + replay.decisions) if replay.was_ruined else None,
            "split": split,
            "bars": stop - start,
            "sessions": len(np.unique(bars.session[start:stop])),
            "seen_in_training_or_choosing": seen,
            "looks": looks,
        },
        instrument={
            "name": instrument.instrument.name,
            "asset_class": instrument.instrument.asset_class,
            "currency": instrument.instrument.currency,
            "matched": instrument.matched,
            "rules": rules.as_dict(),
        },
        sessions_per_year=calendar(instrument.instrument.calendar).sessions_per_year,
        generator=generator(config.seed, "random baseline", bars.symbol),
        random_draws=config.random_baseline_seeds,
        frontier_bp=config.cost_frontier_bp,
        confidence=config.report.interval_confidence,
        listed_trades=config.report.listed_trades,
        trials=trials,
        trial_variance=trial_variance,
        notes=notes,
        price_stretch=config.report.price_stretch,
        price_stretch_bars=config.report.price_stretch_bars,
        background=background,
    )


def data_quality(meta: dict[str, Any]) -> dict[str, Any]:
    """Return what processing the raw file found, without the places of this machine.

    Args:
        meta: The account beside the processed file.
    """
    kept = ("bars", "first_bar", "last_bar", "sessions", "usable_bars", "counts", "notes", "data_hash")
    return {
        "raw_file": meta["raw"]["file"],
        "features": len(meta["features"]),
        **{name: meta.get(name) for name in kept},
    }
