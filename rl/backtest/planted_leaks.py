"""Mistakes that let a backtest see the future, each one small, common and put into one step of the chain.

They exist to be caught: a check that has never found anything proves nothing. `python -m rl doctor` and the tests run
the look-ahead check on every one of them, and it has to name the step that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from rl.backtest.engine import Replay
from rl.backtest.lookahead_chain import (
    Chain,
    Model,
    gate_inputs,
    ingested,
    observed,
    traded,
    window_rows,
)
from rl.common.seeding import generator
from rl.envs.scaled_market import chosen_columns, scaled_market
from rl.features.pipeline import FeatureTable, compute_features
from rl.features.scaler import FeatureScaler
from rl.market.bars import Bars
from rl.market.instruments import Instrument
from rl.market.raw_table import RawTable
from rl.policies.forward import PackedPolicy
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

CENTRED_HALF_WIDTH = 5
SLOW_BARS = 4
"""Bars in one bar of the slower series that the resampling leak joins."""

EXTRA_BARS_JUDGED = 20


@dataclass(frozen=True, kw_only=True)
class PlantedLeak:
    """One mistake, and where the check has to find it."""

    mistake: str
    """What was done wrong, as a sentence."""
    piece: str
    """Name of the step the check has to blame, as in `lookahead.PIECES`."""
    chain: Chain = field(default_factory=Chain)
    """The chain with the wrong step in it."""
    spoil: Callable[[RawTable], RawTable] | None = None
    """For a mistake in the user's own file: what was done to the file."""


# ---- ingest ------------------------------------------------------------------------------------------------


def daily_value_joined_to_its_own_session(
    table: RawTable, path: Path, symbol: str, instrument: Instrument
) -> Bars:
    """Every bar of a session carries the session's whole move, known only at its end."""
    bars = ingested(table, path, symbol, instrument)
    return replace(bars, extra={**bars.extra, "x_day_move": _group_move(bars, bars.session)})


def slow_bar_joined_at_its_start(table: RawTable, path: Path, symbol: str, instrument: Instrument) -> Bars:
    """Bars of SLOW_BARS bars each, stamped with their start, so that the first one knows the last one's close."""
    bars = ingested(table, path, symbol, instrument)
    return replace(
        bars, extra={**bars.extra, "x_slow_move": _group_move(bars, np.arange(len(bars)) // SLOW_BARS)}
    )


def session_end_guessed_from_the_next_bar(
    table: RawTable, path: Path, symbol: str, instrument: Instrument
) -> Bars:
    """A bar is called its session's last because the next one belongs to another."""
    bars = ingested(table, path, symbol, instrument)
    return replace(bars, session_end=np.append(np.diff(bars.session) != 0, True))


def _group_move(bars: Bars, group: np.ndarray) -> np.ndarray:
    """Return the move from the first open to the last close of each bar's group. (T,)"""
    first = np.searchsorted(group, group, side="left")
    last = np.searchsorted(group, group, side="right") - 1
    return bars.close[last] / bars.open[first] - 1.0


# ---- features ----------------------------------------------------------------------------------------------


def centred_window(bars: Bars, instrument: Instrument) -> FeatureTable:
    """The moving average has as many bars after the bar as before it."""
    table = compute_features(bars, instrument)
    padded = np.pad(bars.close, CENTRED_HALF_WIDTH, mode="edge")
    width = 2 * CENTRED_HALF_WIDTH + 1
    mean = np.lib.stride_tricks.sliding_window_view(padded, width).mean(axis=1)
    values = table.values.copy()
    rows = table.usable
    values[rows, table.names.index("distance_sma_10")] = (bars.close[rows] - mean[rows]) / table.atr[rows]
    return replace(table, values=values)


def filled_backwards(bars: Bars, instrument: Instrument) -> FeatureTable:
    """Rows in which features are not defined yet are filled from the first row in which they are."""
    table = compute_features(bars, instrument)
    rows = np.flatnonzero(table.usable)
    if not len(rows):
        return table
    place = np.minimum(np.searchsorted(rows, np.arange(len(table))), len(rows) - 1)
    source = rows[place]
    return replace(
        table, values=table.values[source], atr=table.atr[source], usable=np.ones(len(table), dtype=np.bool_)
    )


# ---- windows, scaler, scaling ------------------------------------------------------------------------------


def random_split(bars: Bars, embargo_bars: int) -> dict[str, np.ndarray]:
    """Sessions are dealt to the windows at random instead of in order of time."""
    ordered = window_rows(bars, embargo_bars)
    sessions = np.unique(bars.session)
    shuffled = generator(0, "planted leak", "random split").permutation(sessions)
    shares = np.cumsum([len(rows) for rows in ordered.values()])
    edges = (shares[:-1] / shares[-1] * len(sessions)).astype(int)
    parts = np.split(shuffled, edges)
    return {
        name: np.flatnonzero(np.isin(bars.session, part)) for name, part in zip(ordered, parts, strict=True)
    }


def scaler_of_the_full_sample(
    table: FeatureTable, names: Sequence[str], rows: np.ndarray, symbol: str
) -> FeatureScaler:
    """Center and scale come from all rows, those of the test window too."""
    del rows
    return FeatureScaler.fit(chosen_columns(table, names, symbol)[table.usable], names)


def normaliser_refitted_on_test(
    bars: Bars, table: FeatureTable, names: Sequence[str], scaler: FeatureScaler
) -> MarketArrays:
    """The stored scaler is thrown away and a new one fitted to the rows that are to be traded."""
    del scaler
    values = chosen_columns(table, names, bars.symbol)[table.usable]
    if not len(values):
        values = np.zeros((1, len(names)), dtype=np.float32)
    return scaled_market(bars, table, names, FeatureScaler.fit(values, names))


# ---- observations, decisions, fills, gate ------------------------------------------------------------------


def next_bars_features(
    market: MarketArrays, window: tuple[int, int], rules: TradingRules, actions: np.ndarray, *, scheme: str
) -> dict[str, np.ndarray]:
    """The environment shows the features of the bar the order will be filled in."""
    features = np.concatenate([market.features[1:], market.features[-1:]])
    return observed(replace(market, features=features), window, rules, actions, scheme=scheme)


def policy_chosen_on_the_span_it_trades(model: Model, market: MarketArrays, span_start: int) -> PackedPolicy:
    """Of two policies, the one that earns more on the very bars to be traded."""
    packed = model.prepare(market, span_start)
    window = (span_start, len(market))
    opposite = replace(packed, net=-packed.net)
    results = [
        traded(market, window, model.rules, policy, scheme=model.scheme, capital=model.capital).equity[-1]
        for policy in (packed, opposite)
    ]
    return packed if results[0] >= results[1] else opposite


def filled_at_the_close_decided_on(
    market: MarketArrays,
    window: tuple[int, int],
    rules: TradingRules,
    decisions: PackedPolicy | np.ndarray,
    *,
    scheme: str,
    capital: float,
) -> Replay:
    """An order is filled at the close that it was decided on, which nobody can trade at any more."""
    ohlc = market.ohlc.copy()
    ohlc[1:, 0] = ohlc[:-1, 3]
    return traded(replace(market, ohlc=ohlc), window, rules, decisions, scheme=scheme, capital=capital)


def trades_followed_beyond_the_window(
    market: MarketArrays, window: tuple[int, int], rules: TradingRules, replay: Replay
) -> dict[str, np.ndarray]:
    """A gate counts how trades still open at its window's end turned out later."""
    stop = min(window[1] + EXTRA_BARS_JUDGED, len(market))
    flat_afterwards = np.ones(stop - window[1], dtype=np.int8)
    actions = np.concatenate([replay.actions, flat_afterwards])
    longer = traded(market, (window[0], stop), rules, actions, scheme="target", capital=replay.capital)
    return gate_inputs(market, (window[0], stop), rules, longer)


# ---- the user's own file -----------------------------------------------------------------------------------


def column_of_the_next_return(table: RawTable) -> RawTable:
    """A column of the file holds the next bar's return, half hidden in noise."""
    close = table.numbers["close"]
    following = np.append(np.diff(np.log(close)), 0.0)
    noise = generator(0, "planted leak", "own column").standard_normal(len(close)) * following.std()
    return replace(table, numbers={**table.numbers, "x_signal": following + noise})


def column_of_the_days_close(table: RawTable) -> RawTable:
    """A daily series of closes was joined by date, so that the morning knows the evening."""
    day = np.array([label[:10] for label in table.label])
    last = np.searchsorted(day, day, side="right") - 1
    return replace(table, numbers={**table.numbers, "x_daily_close": table.numbers["close"][last]})


LEAKS: Mapping[str, PlantedLeak] = MappingProxyType(
    {
        "full-sample scaler": PlantedLeak(
            mistake="the scaler is fitted on all rows",
            piece="scaler",
            chain=Chain(fit_scaler=scaler_of_the_full_sample),
        ),
        "centred window": PlantedLeak(
            mistake="a moving average is centred on its bar",
            piece="features",
            chain=Chain(features=centred_window),
        ),
        "backfill": PlantedLeak(
            mistake="undefined features are filled from later rows",
            piece="features",
            chain=Chain(features=filled_backwards),
        ),
        "same-bar fill": PlantedLeak(
            mistake="orders fill at the close they were decided on",
            piece="fills",
            chain=Chain(trade=filled_at_the_close_decided_on),
        ),
        "right-stamped resample": PlantedLeak(
            mistake="a slower bar is joined at its start",
            piece="ingest",
            chain=Chain(read=slow_bar_joined_at_its_start),
        ),
        "daily value joined to its own session": PlantedLeak(
            mistake="every bar of a day knows the day's move",
            piece="ingest",
            chain=Chain(read=daily_value_joined_to_its_own_session),
        ),
        "session end guessed": PlantedLeak(
            mistake="a session's last bar is told by the bar after it",
            piece="ingest",
            chain=Chain(read=session_end_guessed_from_the_next_bar),
        ),
        "random split": PlantedLeak(
            mistake="sessions are dealt to train and test at random",
            piece="windows",
            chain=Chain(split=random_split),
        ),
        "normaliser refitted on test": PlantedLeak(
            mistake="the rows to be traded are scaled by themselves",
            piece="scaling",
            chain=Chain(scale=normaliser_refitted_on_test),
        ),
        "observation one bar early": PlantedLeak(
            mistake="the environment shows the next bar's features",
            piece="observations",
            chain=Chain(observe=next_bars_features),
        ),
        "policy chosen on its own span": PlantedLeak(
            mistake="the better of two policies on the bars to be traded",
            piece="decisions",
            chain=Chain(prepare=policy_chosen_on_the_span_it_trades),
        ),
        "trades followed beyond the window": PlantedLeak(
            mistake="a gate counts how open trades turned out later",
            piece="gate inputs",
            chain=Chain(judge=trades_followed_beyond_the_window),
        ),
        "own column of the next return": PlantedLeak(
            mistake="an x_ column holds the next bar's return",
            piece="own columns",
            spoil=column_of_the_next_return,
        ),
        "own column of the day's close": PlantedLeak(
            mistake="an x_ column of daily closes was joined by date",
            piece="own columns",
            spoil=column_of_the_days_close,
        ),
    }
)
"""Every planted mistake by name."""
