"""One symbol made ready: windows, scaler and volatility from the training window alone."""

from __future__ import annotations

import csv
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rl.common.errors import ConfigError, DataError
from rl.features.pipeline import FeatureTable, longest_lookback_bars
from rl.features.processed_store import process
from rl.market.bars import Bars
from rl.market.instruments import FoundInstrument
from rl.stages.symbol_data import (
    SymbolData,
    chosen_features,
    embargo_for,
    first_usable,
    gate_columns,
    prepare,
    readable_label,
    symbol_rules,
)
from tests.builders import an_instrument, bars_from_closes, flat_bars
from tests.unit.stages.small_symbol import edge_bars, small_plan, small_symbol, with_bars_changed_from

FOUND = FoundInstrument(an_instrument(name="EDGE"), "EDGE (instrument)")


def write_raw(bars: Bars, folder: Path) -> Path:
    path = folder / f"{bars.symbol}.csv"
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["datetime", "open", "high", "low", "close", "x_edge", "x_regime_mood"])
        for t in range(len(bars)):
            # Labels mark the start of a bar; the builder's are its close, in UTC.
            start = np.datetime64(int(bars.close_time[t]), "ns") - np.timedelta64(bars.bar_seconds, "s")
            prices = (bars.open[t], bars.high[t], bars.low[t], bars.close[t])
            values = [*prices, bars.extra["x_edge"][t], bars.extra["x_regime_mood"][t]]
            lines.writerow([f"{np.datetime_as_string(start, unit='s')}Z", *(repr(float(v)) for v in values)])
    return path


def prepared(bars: Bars, folder: Path, *overrides: str) -> SymbolData:
    folder.mkdir(exist_ok=True)
    process(bars.symbol, write_raw(bars, folder), FOUND.instrument, folder / "processed")
    return prepare(bars.symbol, small_plan(*overrides), FOUND, folder / "processed")


@pytest.fixture(scope="module")
def bars() -> Bars:
    return edge_bars(sessions=100)


@pytest.fixture(scope="module")
def data(bars, tmp_path_factory) -> SymbolData:
    return prepared(bars, tmp_path_factory.mktemp("symbol"))


def test_the_four_windows_follow_one_another_and_the_first_begins_where_features_do(data):
    windows = [data.window(name) for name in ("train", "validation", "promotion", "test")]
    assert windows[0][0] == np.flatnonzero(data.table.usable)[0] > 0
    for before, after in itertools.pairwise(windows):
        assert before[1] <= after[0]
    assert windows[-1][1] == len(data.bars)
    # 60 % of 100 sessions of 25 bars.
    assert windows[0][1] == 1500


def test_nothing_learned_from_the_data_depends_on_bars_after_the_training_window(data, bars, tmp_path):
    """Scaler and volatility fitted on later bars would carry the future into every observation and reward."""
    stop = data.splits.train.stop
    other = prepared(with_bars_changed_from(bars, stop), tmp_path)
    assert other.data_hash != data.data_hash
    np.testing.assert_array_equal(other.scaler.center, data.scaler.center)
    np.testing.assert_array_equal(other.scaler.scale, data.scaler.scale)
    assert other.rules == data.rules
    np.testing.assert_array_equal(other.market.features[:stop], data.market.features[:stop])
    np.testing.assert_array_equal(other.market.atr[:stop], data.market.atr[:stop])
    # The change is really there.
    assert (other.market.features[stop:] != data.market.features[stop:]).any()


def test_bars_of_the_training_window_do_change_what_is_learned(data, bars, tmp_path):
    other = prepared(with_bars_changed_from(bars, 1000, until=1400), tmp_path)
    assert other.rules.bar_volatility != data.rules.bar_volatility
    assert (other.scaler.scale != data.scaler.scale).any()


def test_bar_volatility_is_that_of_the_training_window(data):
    start, stop = data.window("train")
    close = data.bars.close[start:stop]
    assert data.rules.bar_volatility == pytest.approx(np.std(np.diff(close) / close[:-1]), rel=1e-12)


def test_dates_times_and_sessions_of_a_window_are_those_of_its_bars(data):
    start, stop = data.window("test")
    assert data.dates("test") == (str(data.bars.label[start]), str(data.bars.label[stop - 1]))
    assert data.times("test") == (data.bars.close_time[start], data.bars.close_time[stop - 1])
    assert data.sessions_in("test") == 15
    assert data.bars_per_session() == 25.0


def test_the_instrument_is_named_in_the_notes(data):
    assert data.notes == ("instrument: EDGE (instrument)",)


def test_a_plans_choice_of_features_reaches_the_model(bars, tmp_path):
    chosen = prepared(bars, tmp_path, 'features.include=["x_*"]', 'features.exclude=["x_edge"]')
    assert chosen.feature_names == ("x_regime_mood",)
    assert chosen.market.feature_count == 1
    assert chosen.gate_columns == (0,)


def test_a_regime_is_one_input_for_each_value_of_the_training_window_and_the_gate_sees_them_all(
    bars, tmp_path
):
    mood = np.arange(len(bars)) // 10 % 4
    # Known to nobody while the model is trained.
    mood[2000:] = 9
    data = prepared(replace(bars, extra=bars.extra | {"x_regime_mood": mood.astype(float)}), tmp_path)
    assert data.scaler.regimes == {"x_regime_mood": (0.0, 1.0, 2.0, 3.0)}
    assert data.market.feature_count == len(data.feature_names) + 3
    flags = [place for place, name in enumerate(data.scaler.columns) if name.startswith("x_regime_mood=")]
    assert set(flags) < set(data.gate_columns)
    start, stop = data.window("train")
    seen = data.market.features[start:stop, flags] > 0
    np.testing.assert_array_equal(np.argmax(seen, axis=1), mood[start:stop])
    assert (seen.sum(axis=1) == 1).all()
    assert not (data.market.features[2000:, flags] > 0).any()


def test_a_window_with_too_few_usable_bars_is_refused():
    usable = np.zeros(200, dtype=bool)
    usable[100:119] = True
    with pytest.raises(DataError, match="only 19 bars of the validation window have all features defined"):
        first_usable(usable, 50, 200, "Nifty_15", "validation")
    usable[150] = True
    assert first_usable(usable, 50, 200, "Nifty_15", "validation") == 100


TABLE = FeatureTable(
    values=np.zeros((3, 4), dtype=np.float32),
    names=("return_1", "return_5", "slow_volatility", "x_own"),
    usable=np.ones(3, dtype=bool),
    atr=np.ones(3),
    regime_names=("slow_volatility",),
)


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        ("all", [], ("return_1", "return_5", "slow_volatility", "x_own")),
        ("all", ["return_*"], ("slow_volatility", "x_own")),
        # In the order of the table, whatever the order of the plan.
        (["x_own", "return_5"], [], ("return_5", "x_own")),
        (["return_*", "x_*"], ["return_1"], ("return_5", "x_own")),
    ],
)
def test_features_are_chosen_by_name_or_pattern(include, exclude, names):
    assert chosen_features(TABLE, include, exclude, "X") == names


def test_a_feature_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(ConfigError) as refused:
        chosen_features(TABLE, ["retrun_1"], [], "Nifty_15")
    text = str(refused.value)
    assert "'retrun_1' matches no feature of Nifty_15" in text
    assert "return_1, return_5, slow_volatility, x_own" in text
    with pytest.raises(ConfigError, match="'y_own' matches no feature"):
        chosen_features(TABLE, "all", ["y_own"], "Nifty_15")


def test_a_choice_that_leaves_nothing_is_refused():
    with pytest.raises(ConfigError, match="leave no feature of X"):
        chosen_features(TABLE, ["x_own"], ["x_*"], "X")


def test_the_gate_sees_regime_features_only():
    assert gate_columns(("x_own", "slow_volatility", "return_1"), TABLE) == (1,)


def test_without_a_regime_feature_there_is_nothing_for_the_gate_to_see():
    with pytest.raises(ConfigError, match="include at least one of slow_volatility"):
        gate_columns(("x_own", "return_1"), TABLE)


def test_the_embargo_is_the_longest_look_back_where_the_series_can_bear_it():
    long = flat_bars(30_000, bars_per_session=25)
    assert embargo_for(small_plan("embargo_bars=auto"), long) == (longest_lookback_bars(), None)


def test_a_short_series_gets_a_fifth_of_its_shortest_window_as_embargo_and_a_note():
    # The shortest window is promotion, 10 % of 1,000 bars.
    bars, note = embargo_for(small_plan("embargo_bars=auto"), flat_bars(1000, bars_per_session=25))
    assert bars == 20
    assert note.startswith(f"embargo cut from {longest_lookback_bars()} to 20 bars")


def test_an_embargo_given_as_a_number_is_kept():
    assert embargo_for(small_plan("embargo_bars=7"), flat_bars(1000, bars_per_session=25)) == (7, None)


def test_windows_given_by_date_are_measured_as_they_are():
    """The shares of the plan say nothing about them."""
    bars = flat_bars(1000, bars_per_session=25)
    days = [str(label)[:10] for label in bars.label]
    dates = {"validation": days[500], "promotion": days[900], "test": days[950]}
    plan = small_plan("embargo_bars=auto", "splits.dates=" + str(dates).replace("'", '"'))
    # Promotion and test hold two sessions of 25 bars each; a fifth of 50.
    assert embargo_for(plan, bars)[0] == 10


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("2024-01-02 09:15:00", "2024-01-02 09:15:00"),
        ("20240102", "20240102"),
        ("1704166200", "2024-01-01 04:00:00 UTC"),
        ("1704166200.5", "2024-01-01 04:00:00 UTC"),
    ],
)
def test_a_label_that_counts_seconds_is_shown_as_a_time(label, shown):
    bars = flat_bars(3)
    assert readable_label(replace(bars, label=np.array([label] * 3, dtype=object)), 0) == shown


def test_stops_exposure_and_reward_weights_of_the_plan_reach_the_rules():
    plan = small_plan(
        "environment.exposure=0.5",
        "environment.ruin_level=0.2",
        "environment.stops.stop_loss=0.02",
        "environment.stops.unit=rate",
        "environment.reward.turnover=0.25",
    )
    rules = symbol_rules(plan, FOUND, 0.01)
    assert (rules.exposure, rules.ruin_level) == (0.5, 0.2)
    assert (rules.stop_loss, rules.take_profit, rules.exits_in_atr) == (0.02, 0.0, False)
    assert (rules.weight_turnover, rules.weight_log_equity) == (0.25, 1.0)


def test_a_price_that_stands_still_in_training_cannot_be_learned_from(tmp_path):
    standing = bars_from_closes(
        np.full(1000, 100.0),
        symbol="FLAT_15",
        bars_per_session=25,
        extra={"x_edge": np.arange(1000.0), "x_regime_mood": np.arange(1000.0) % 7},
    )
    with pytest.raises(DataError, match="FLAT_15: the price does not move on the training window"):
        prepared(standing, tmp_path)


def test_the_builder_of_these_tests_agrees_with_prepare(data, bars):
    """`small_symbol` skips the files; what the stages read of it has to be what `prepare` makes."""
    plan = small_plan()
    by_hand = small_symbol(plan, sessions=100)
    assert by_hand.splits.windows == data.splits.windows
    assert by_hand.found.matched == data.found.matched
    np.testing.assert_array_equal(by_hand.bars.close, data.bars.close)
    np.testing.assert_array_equal(by_hand.bars.session_end, data.bars.session_end)
    assert replace(by_hand.rules, bar_volatility=1.0, commission_rate=0.0, margin_rate=1.0) == replace(
        data.rules, bar_volatility=1.0
    )
