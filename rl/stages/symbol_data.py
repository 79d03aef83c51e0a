"""Everything the stages need of one symbol: bars, windows, fitted scaler, kernel arrays and rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from rl.common.errors import ConfigError, DataError
from rl.envs.scaled_market import bar_volatility, fitted_scaler, scaled_market
from rl.features.pipeline import FeatureTable, longest_lookback_bars
from rl.features.processed_store import load_processed
from rl.features.scaler import FeatureScaler
from rl.market.bars import Bars, readable_label
from rl.market.calendars import calendar
from rl.market.instruments import FoundInstrument
from rl.market.splits import SplitPlan, Splits, longest_embargo, longest_embargo_before, split_bars
from rl.stages.plan import Plan
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules, rules_for


@dataclass(frozen=True, kw_only=True)
class SymbolData:
    """One symbol, ready to be trained on."""

    symbol: str
    found: FoundInstrument
    bars: Bars
    table: FeatureTable
    """All features, unscaled; meta-learning scales other symbols' with this one's scaler."""
    feature_names: tuple[str, ...]
    gate_columns: tuple[int, ...]
    """Columns of the observation that hold slow regime features."""
    scaler: FeatureScaler
    market: MarketArrays
    splits: Splits
    embargo_bars: int
    rules: TradingRules
    data_hash: str
    sessions_per_year: float
    notes: tuple[str, ...]

    def window(self, name: str) -> tuple[int, int]:
        """Return first row and row after the last of a window, from the first bar with features on."""
        window = getattr(self.splits, name)
        return first_usable(self.table.usable, window.start, window.stop, self.symbol, name), window.stop

    def dates(self, name: str) -> tuple[str, str]:
        """Return the labels of a window's first and last bar."""
        start, stop = self.window(name)
        return readable_label(self.bars, start), readable_label(self.bars, stop - 1)

    def times(self, name: str) -> tuple[int, int]:
        """Return the closing times of a window's first and last bar, UTC ns."""
        start, stop = self.window(name)
        return int(self.bars.close_time[start]), int(self.bars.close_time[stop - 1])

    def sessions_in(self, name: str) -> int:
        """Return how many sessions a window holds."""
        start, stop = self.window(name)
        return len(np.unique(self.bars.session[start:stop]))

    def bars_per_session(self) -> float:
        """Return the median number of bars of a session of the training window."""
        start, stop = self.window("train")
        return float(np.median(np.unique(self.bars.session[start:stop], return_counts=True)[1]))


def first_usable(usable: np.ndarray, start: int, stop: int, symbol: str, name: str) -> int:
    """Return the first row of [start, stop) whose features are defined.

    Raises:
        DataError: There is none, or too few follow it.
    """
    rows = np.flatnonzero(usable[start:stop])
    if len(rows) < 20:
        raise DataError(
            f"{symbol}: only {len(rows)} bars of the {name} window have all features defined; at least 20 are needed. "
            f"The longest look-back is {longest_lookback_bars()} bars; give the symbol a longer history."
        )
    return start + int(rows[0])


def chosen_features(table: FeatureTable, include: Any, exclude: list[str], symbol: str) -> tuple[str, ...]:
    """Return the names of the features a plan asks for; patterns such as `x_*` are allowed.

    Raises:
        ConfigError: A pattern matches nothing, or nothing is left.
    """
    patterns = ["*"] if include == "all" else list(include)
    for pattern in [*patterns, *exclude]:
        if not any(fnmatchcase(name, pattern) for name in table.names):
            raise ConfigError(
                f"features: '{pattern}' matches no feature of {symbol}; they are: {', '.join(table.names)}"
            )
    names = tuple(
        name
        for name in table.names
        if any(fnmatchcase(name, pattern) for pattern in patterns)
        and not any(fnmatchcase(name, pattern) for pattern in exclude)
    )
    if not names:
        raise ConfigError(f"features: include and exclude leave no feature of {symbol}")
    return names


def embargo_for(plan: Plan, bars: Bars) -> tuple[int, str | None]:
    """Return the embargo in bars and, where it had to be cut, a note saying so.

    `auto` is the longest feature look-back: the first feature window of a split then shares no bar with the split
    before. On a short series that would eat the split itself, so it is cut to a fifth of the shortest one.
    """
    return _embargo(plan, lambda: longest_embargo(bars, split_plan(plan)))


def embargo_before(plan: Plan, bars: Bars, test_start: int) -> tuple[int, str | None]:
    """Return the embargo of a walk-forward's fold, whose stretch begins at a bar; as `embargo_for`."""
    return _embargo(plan, lambda: longest_embargo_before(bars, split_plan(plan), test_start))


def _embargo(plan: Plan, longest: Callable[[], int]) -> tuple[int, str | None]:
    asked = plan.embargo_bars
    if asked != "auto":
        return int(asked), None
    wanted, most = longest_lookback_bars(), longest()
    if wanted <= most:
        return wanted, None
    return most, (
        f"embargo cut from {wanted} to {most} bars, a fifth of the shortest window: the series is short. Features of "
        "a window's first bars look back into the window before it (never forward)."
    )


def symbol_rules(plan: Plan, found: FoundInstrument, volatility: float) -> TradingRules:
    """Return the kernel's rules for one symbol under a plan."""
    environment = plan.environment
    return rules_for(
        found.instrument,
        exposure=environment.exposure,
        ruin_level=environment.ruin_level,
        stop_loss=environment.stops.stop_loss,
        take_profit=environment.stops.take_profit,
        trailing_stop=environment.stops.trailing_stop,
        exits_in_atr=environment.stops.unit == "atr",
        weight_log_equity=environment.reward.log_equity,
        weight_drawdown=environment.reward.drawdown,
        weight_turnover=environment.reward.turnover,
        bar_volatility=volatility,
    )


def prepare(symbol: str, plan: Plan, found: FoundInstrument, processed_dir: Path) -> SymbolData:
    """Load one processed symbol, split it by time and fit its scaler on the training window alone."""
    processed = load_processed(symbol, processed_dir)
    return prepared(processed.bars, processed.features, plan, found, data_hash=processed.meta["data_hash"])


def prepared(
    bars: Bars, table: FeatureTable, plan: Plan, found: FoundInstrument, *, data_hash: str
) -> SymbolData:
    """Split a symbol's bars by time and fit its scaler on the training window alone.

    Args:
        bars: All bars of the symbol.
        table: All their features.
        plan: The plan with the symbol's own overrides applied.
        found: Its instrument.
        data_hash: Names what the bars were read from.

    Raises:
        ConfigError: The plan's windows or features do not fit the bars.
        DataError: A window is too short.
    """
    embargo, note = embargo_for(plan, bars)
    splits = split_bars(bars, split_plan(plan), embargo)
    notes = [note] if note else []
    return prepared_with(
        bars, table, plan, found, splits=splits, embargo=embargo, notes=notes, data_hash=data_hash
    )


def prepared_with(
    bars: Bars,
    table: FeatureTable,
    plan: Plan,
    found: FoundInstrument,
    *,
    splits: Splits,
    embargo: int,
    notes: Sequence[str],
    data_hash: str,
) -> SymbolData:
    """Return `prepared` for windows that are cut already.

    Args:
        bars: All bars of the symbol.
        table: All their features.
        plan: The plan with the symbol's own overrides applied.
        found: Its instrument.
        splits: The windows.
        embargo: Bars left out between them.
        notes: What is to be said of them.
        data_hash: Names what the bars were read from.

    Raises:
        ConfigError: The plan's features do not fit the bars.
        DataError: The training window has too few bars with features.
    """
    symbol = bars.symbol
    names = chosen_features(table, plan.features.include, list(plan.features.exclude), symbol)
    start = first_usable(table.usable, splits.train.start, splits.train.stop, symbol, "train")
    scaler = fitted_scaler(table, names, np.arange(start, splits.train.stop), symbol)
    return SymbolData(
        symbol=symbol,
        found=found,
        bars=bars,
        table=table,
        feature_names=names,
        gate_columns=gate_columns(scaler.feature_of_columns(), table),
        scaler=scaler,
        market=scaled_market(bars, table, names, scaler),
        splits=splits,
        embargo_bars=embargo,
        rules=symbol_rules(plan, found, bar_volatility(bars, (start, splits.train.stop))),
        data_hash=data_hash,
        sessions_per_year=calendar(found.instrument.calendar).sessions_per_year,
        notes=(f"instrument: {found.matched}", *notes),
    )


def split_plan(plan: Plan) -> SplitPlan:
    """Return the market layer's split plan of a plan."""
    splits = plan.splits
    return SplitPlan(
        train=splits.train,
        validation=splits.validation,
        promotion=splits.promotion,
        test=splits.test,
        dates={str(name): day for name, day in splits.dates.items()} if splits.dates else None,
    )


def gate_columns(features: tuple[str, ...], table: FeatureTable) -> tuple[int, ...]:
    """Return the observation columns a mixture's gate may see: slow regime features only.

    A gate that sees fast signals or the position splits by action (one expert always long), not by regime.

    Args:
        features: The feature that each column of the observation was made of, market columns only.
        table: Says which features describe regimes.

    Raises:
        ConfigError: The plan's features leave none.
    """
    columns = tuple(place for place, name in enumerate(features) if name in table.regime_names)
    if not columns:
        raise ConfigError(
            "features: no regime feature is left for the mixture's gate; include at least one of "
            + ", ".join(table.regime_names)
        )
    return columns
