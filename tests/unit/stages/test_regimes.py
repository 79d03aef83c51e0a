"""Regimes are known at the bar's close, and their limits come from the training window alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rl.common.errors import DataError
from rl.features.pipeline import FeatureTable
from rl.market.bars import Bars
from rl.stages.regimes import regimes_of
from rl.stages.symbol_data import SymbolData
from tests.unit.stages.small_symbol import edge_bars, edge_table, small_plan, symbol_of

PLAN = small_plan()
SESSIONS = 40


def with_mood(bars: Bars, mood: np.ndarray) -> Bars:
    return replace(bars, extra={**bars.extra, "x_regime_mood": mood})


def table_of(**columns: np.ndarray) -> FeatureTable:
    """Return these columns as features, defined everywhere; the first one is the gate's."""
    table = edge_table(edge_bars(sessions=SESSIONS))
    names = tuple(columns)
    values = np.column_stack(list(columns.values())).astype(np.float32)
    return replace(table, values=values, names=names, regime_names=names[:1])


def data_of(**columns: np.ndarray) -> SymbolData:
    return symbol_of(edge_bars(sessions=SESSIONS), PLAN, table=table_of(**columns))


def test_a_column_with_few_values_names_its_regimes_itself():
    state = np.repeat(np.tile([0.0, 1.0, 3.0, 1.0], 10), 25)
    state[-1] = 7.0
    found = regimes_of(data_of(x_regime=state))
    assert found.source == "x_regime"
    assert found.names == ("x_regime 0", "x_regime 1", "x_regime 3", "another value")
    assert [found.names[place] for place in found.labels[[0, 25, 50, 75, 999]]] == [
        "x_regime 0", "x_regime 1", "x_regime 3", "x_regime 1", "another value",
    ]  # fmt: skip


def test_a_value_between_those_of_the_training_window_is_another_value_too():
    state = np.repeat(np.tile([0.0, 1.0], 20), 25)
    state[-1] = 0.5
    found = regimes_of(data_of(x_regime=state))
    assert found.names[found.labels[-1]] == "another value"


def test_a_column_of_many_values_is_cut_into_thirds_of_the_training_window():
    bars = edge_bars(sessions=SESSIONS)
    data = symbol_of(bars, PLAN)
    found = regimes_of(data)
    assert found.names == ("low x_regime_mood", "middle x_regime_mood", "high x_regime_mood")
    start, stop = data.window("train")
    moods = np.sort(np.unique(data.table.values[start:stop, 1]))
    assert len(moods) == 24
    # 24 sessions of equal length: the eight lowest are a third.
    place = np.searchsorted(moods, data.table.values[start:stop, 1])
    np.testing.assert_array_equal(found.labels[start:stop], place // 8)


def test_a_value_on_a_limit_belongs_to_the_third_above():
    mood = np.zeros(SESSIONS * 25)
    # Of the 600 bars of training 150 lie below zero, the next 250 on it, where the limit of the first third is.
    mood[:150], mood[400:600] = -np.arange(1, 151), np.arange(1, 201)
    found = regimes_of(data_of(x_regime=mood))
    assert [int((found.labels[:600] == third).sum()) for third in range(3)] == [150, 250, 200]


def test_without_such_a_column_regimes_are_thirds_of_volatility_by_thirds_of_trend():
    count = SESSIONS * 25
    rng = np.random.default_rng(1)
    volatility, trend = rng.random(count), rng.random(count)
    # The training window, the first 600 bars, holds 1 … 600 sixhundredths in some order.
    volatility[:600], trend[:600] = rng.permutation(600) / 600, rng.permutation(600) / 600
    found = regimes_of(data_of(volatility_level=volatility, adx=trend))
    assert len(found.names) == 9
    assert found.names[0] == "low volatility, weak trend"
    assert found.names[5] == "middle volatility, strong trend"
    assert found.names[7] == "high volatility, middling trend"
    thirds = [np.minimum((600 * column[:600]).round() // 200, 2) for column in (volatility, trend)]
    np.testing.assert_array_equal(found.labels[:600], 3 * thirds[0] + thirds[1])


def test_what_comes_later_changes_no_regime_before_it():
    """Thirds of the whole file would let the test window decide which regime a training bar was in."""
    bars = edge_bars(sessions=SESSIONS)
    row = symbol_of(bars, PLAN).window("validation")[0] + 10
    mood = bars.extra["x_regime_mood"].copy()
    mood[row:] += 5.0
    before, after = (regimes_of(symbol_of(each, PLAN)) for each in (bars, with_mood(bars, mood)))
    np.testing.assert_array_equal(after.labels[:row], before.labels[:row])
    assert (after.labels[row:] != before.labels[row:]).any()


def test_the_markets_own_column_needs_not_be_a_feature_of_the_plan():
    data = symbol_of(edge_bars(sessions=SESSIONS), PLAN)
    without = replace(data, feature_names=("x_edge",))
    np.testing.assert_array_equal(regimes_of(without).labels, regimes_of(data).labels)


def test_nothing_to_make_regimes_of_is_an_error_that_says_what_is_missing():
    with pytest.raises(DataError, match="adx is not there"):
        regimes_of(data_of(volatility_level=np.arange(SESSIONS * 25.0)))
