"""What a backtest may open and what it costs: the windows a model was stored with, and looks at them in the ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

import numpy as np

from rl.backtest.engine import Replay
from rl.common.errors import DataError
from rl.market.bars import Bars, readable_label
from rl.market.instruments import FoundInstrument
from rl.market.splits import WINDOW_NAMES, Splits
from rl.stages.evaluation import named_window
from rl.stages.evidence import EvidenceLedger
from rl.stages.trials import conclusions
from rl.trading.market_arrays import MarketArrays
from rl.trading.metrics import session_returns, sharpe_ratio
from rl.trading.rules import TradingRules, rules_for

COUNTED_WINDOWS = {"promotion": ("promotion",), "test": ("test",), "all": ("promotion", "test")}
"""Windows nobody may have seen, by the split that opens them: what was seen there can be chosen by."""


class StoredModel(Protocol):
    """What a model says of its training, whoever trained it: a checkpoint is one."""

    @property
    def symbol(self) -> str:
        """The symbol it was trained on."""

    @property
    def trading(self) -> Mapping[str, Any]:
        """`rules` among it: those it was trained under."""

    @property
    def splits(self) -> Mapping[str, Any]:
        """First and last close of every window, and `data_end`."""


@dataclass(frozen=True, kw_only=True)
class WindowLook:
    """One counted look at a window."""

    purpose: str
    """promotion or test, as the window."""
    window: tuple[int, int]
    """Its first row and the row after its last."""
    window_hash: str
    attempt: int


def count_look(
    ledger: EvidenceLedger,
    bars: Bars,
    purpose: str,
    window: tuple[int, int],
    *,
    subject: str,
    stage: str,
) -> WindowLook:
    """Write down that a window is about to be opened; return which look at it this is.

    The same subject on the same window shows nothing new and is not counted again.
    """
    window_hash, span = named_window(bars, *window)
    attempt = ledger.record(bars.symbol, window_hash, purpose, subject=subject, span=span, stage=stage)
    return WindowLook(purpose=purpose, window=window, window_hash=window_hash, attempt=attempt)


def conclude_look(
    ledger: EvidenceLedger,
    symbol: str,
    look: WindowLook,
    replay: Replay,
    market: MarketArrays,
    *,
    by_itself: bool,
) -> None:
    """Write down the Sharpe ratio of the window's sessions that was seen: what looked at a window is a trial.

    A look that a gate has judged is a trial already. So is one that a backtest has concluded, where the window is now
    only a part of what was replayed: there the account enters it with what it made of the bars before, and shows
    another ratio than the window by itself.
    """
    if any(
        not by_itself or "sharpe_per_session" not in line
        for line in conclusions(ledger, symbol, look.purpose, look.window_hash, look.attempt)
    ):
        return
    session = market.session[replay.start : replay.stop]
    inside = np.isin(np.unique(session), market.session[slice(*look.window)])
    returns = session_returns(replay.equity, session, replay.capital)[inside]
    ratio = sharpe_ratio(returns, 1.0)
    ledger.conclude(
        symbol,
        look.window_hash,
        look.purpose,
        look.attempt,
        sharpe_per_session=ratio if math.isfinite(ratio) else None,
        sessions=len(returns),
    )


def todays_rules(model: StoredModel, instrument: FoundInstrument) -> tuple[TradingRules, list[str]]:
    """Return today's costs with the model's own exits and sizing, and a note on every cost that differs now."""
    trained = TradingRules(**model.trading["rules"])
    now = rules_for(instrument.instrument, exposure=trained.exposure, bar_volatility=trained.bar_volatility)
    own = {
        name: getattr(trained, name)
        for name in (
            "ruin_level",
            "stop_loss",
            "take_profit",
            "trailing_stop",
            "exits_in_atr",
            "weight_log_equity",
            "weight_drawdown",
            "weight_turnover",
        )
    }
    rules = replace(now, **own)
    changed = [
        f"{name} {getattr(trained, name):g} -> {getattr(rules, name):g}"
        for name in TradingRules.__dataclass_fields__
        if getattr(trained, name) != getattr(rules, name)
    ]
    return rules, ([f"costs or limits differ from training: {', '.join(changed)}"] if changed else [])


def window_of(model: StoredModel, bars: Bars, split: str) -> tuple[tuple[int, int], bool]:
    """Return the rows of a split as the model dates it, and whether training or choosing has seen them.

    Bars later than the file the model was trained on belong to the test window: nobody has seen them.
    """
    splits = Splits.from_boundaries(bars, model.splits)
    if split == "all":
        return (0, len(bars)), True
    window = getattr(splits, split)
    stop = window.stop
    if split == "test" and _ended_with_the_data(model):
        stop = len(bars)
    return (window.start, stop), split != "test"


def usable_window(
    model: StoredModel, bars: Bars, market: MarketArrays, split: str
) -> tuple[tuple[int, int], bool]:
    """Return `window_of`, begun at the first bar with all features defined."""
    (start, stop), seen = window_of(model, bars, split)
    usable = start + np.flatnonzero(market.tradable[start:stop])
    if len(usable) < 2:
        raise DataError(f"{model.symbol}: the {split} window has no bar with all features defined")
    return (int(usable[0]), stop), seen


def dated_windows(model: StoredModel, bars: Bars) -> dict[str, dict[str, Any]]:
    """Return the dates of the model's windows, the test window as far as the bars go."""
    found = {}
    for name in WINDOW_NAMES:
        (start, stop), _ = window_of(model, bars, name)
        found[name] = {
            "from": readable_label(bars, start),
            "to": readable_label(bars, stop - 1),
            "first_row": start,
            "bars": stop - start,
        }
    return found


def _ended_with_the_data(model: StoredModel) -> bool:
    """Return True where the test window ran to the last bar there was, so that later bars belong to it."""
    last, end = model.splits["test"]["last"], model.splits.get("data_end")
    return end is not None and datetime.fromisoformat(last) == datetime.fromisoformat(end)
