"""Other futures leave the past of a raw file alone, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from rl.backtest.lookahead_poisons import POISONS, RawSeries, altered, chosen_cuts
from rl.market.ingest import bars_of_table, read_raw
from rl.market.raw_table import read_table
from tests.builders import an_instrument, random_bars, with_a_hole
from tests.raw_files import daily_file, flawed_intraday_file

CUT = 700


def series_of(path, instrument) -> tuple[RawSeries, object]:
    bars = read_raw(path, path.stem, instrument).bars
    return RawSeries.of(read_table(path), bars), bars


@pytest.fixture(scope="module")
def flawed(tmp_path_factory):
    path = flawed_intraday_file(tmp_path_factory.mktemp("raw"))
    return path, *series_of(path, an_instrument())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", POISONS)
def test_bars_up_to_the_cut_are_those_of_the_file(flawed, name):
    path, series, bars = flawed
    other = bars_of_table(POISONS[name](series, CUT, rng()), path, path.stem, an_instrument()).bars
    for column in ("close_time", "session", "session_end", "open", "high", "low", "close", "volume"):
        assert getattr(other, column)[: CUT + 1].tobytes() == getattr(bars, column)[: CUT + 1].tobytes()
    assert other.label[: CUT + 1].tolist() == bars.label[: CUT + 1].tolist()


@pytest.mark.parametrize("name", ["altered", "shuffled"])
def test_bars_after_the_cut_are_others(flawed, name):
    path, series, bars = flawed
    other = bars_of_table(POISONS[name](series, CUT, rng()), path, path.stem, an_instrument()).bars
    later = other.close_time > bars.close_time[CUT]
    same = np.isin(other.close_time[later], bars.close_time)
    assert same.all()
    places = np.searchsorted(bars.close_time, other.close_time[later])
    for column in ("open", "high", "low", "close", "volume"):
        assert np.mean(getattr(other, column)[later] == getattr(bars, column)[places]) < 0.05
    for own in bars.extra:
        assert np.mean(other.extra[own][later] == bars.extra[own][places]) < 0.1


def test_the_prefix_holds_nothing_after_the_cut(flawed):
    path, series, _ = flawed
    table = POISONS["deleted"](series, CUT, rng())
    assert len(bars_of_table(table, path, path.stem, an_instrument()).bars) == CUT + 1


def test_shuffled_numbers_are_those_of_the_file(flawed):
    _, series, _ = flawed
    for name, values in POISONS["shuffled"](series, CUT, rng()).numbers.items():
        # The repeated row lies before the cut, so that nothing is written over.
        assert sorted(values) == sorted(series.table.numbers[name])


def test_the_rest_of_the_cuts_session_is_missing_from_the_altered_file(flawed):
    path, series, bars = flawed
    for cut in (700, 703, 711):
        other = bars_of_table(altered(series, cut, rng()), path, path.stem, an_instrument()).bars
        assert other.session[cut + 1] == bars.session[cut] + 1


def test_the_file_itself_is_left_alone(flawed):
    _, series, _ = flawed
    before = {name: values.tobytes() for name, values in series.table.numbers.items()}
    for poison in POISONS.values():
        poison(series, CUT, rng())
    assert {name: values.tobytes() for name, values in series.table.numbers.items()} == before


def test_rows_that_a_check_leaves_out_belong_to_the_bar_after_them(flawed):
    _, series, bars = flawed
    labels = series.table.label.tolist()
    early = next(place for place, label in enumerate(labels) if label.endswith("09:00:00"))
    assert series.bar_of_row[early] == series.bar_of_row[early + 1]
    assert str(bars.label[series.bar_of_row[early]]).endswith("09:15:00")


def test_a_repeated_row_repeats_the_other_numbers_too(flawed):
    path, series, _ = flawed
    assert np.sum(series.first_of_row != np.arange(len(series.table))) == 1
    result = bars_of_table(POISONS["shuffled"](series, 100, rng()), path, path.stem, an_instrument())
    assert result.counts["identical_duplicate"] == 1


def test_a_file_that_is_newest_first_is_cut_by_time(tmp_path):
    instrument = an_instrument(calendar="NYSE", asset_class="stock")
    path = daily_file(tmp_path)
    series, bars = series_of(path, instrument)
    table = POISONS["deleted"](series, CUT, rng())
    assert table.label[0] == bars.label[CUT]
    assert table.label[-1] == bars.label[0]


# ---- where to cut ----------------------------------------------------------------------------------------------


def cuts_of(bars, count: int = 20, seed: int = 0) -> list[int]:
    return chosen_cuts(bars, count, rng(seed), first=64, warm_up_bars=256)


def test_cuts_are_spread_over_the_data_and_leave_a_bar_after_them():
    bars = random_bars(3000, 1)
    cuts = cuts_of(bars)
    assert len(set(cuts)) == 20
    assert cuts == sorted(cuts)
    assert min(cuts) >= 64
    assert max(cuts) <= 2998
    assert max(np.diff(cuts)) < 3000 / 16 * 2.2


@pytest.mark.parametrize("seed", range(5))
def test_some_cuts_lie_where_faults_hide(seed):
    bars = with_a_hole(random_bars(3000, 1), 1510, 14)
    cuts = np.array(cuts_of(bars, seed=seed))
    ends = bars.session[cuts] != bars.session[cuts + 1]
    starts = bars.session[cuts] != bars.session[cuts - 1]
    assert (cuts < 255).any()
    assert ends.any()
    assert starts.any()
    assert 1509 in cuts


def test_the_seed_decides_the_cuts():
    bars = random_bars(3000, 1)
    assert cuts_of(bars, seed=1) == cuts_of(bars, seed=1)
    assert cuts_of(bars, seed=1) != cuts_of(bars, seed=2)


def test_a_short_file_is_cut_at_every_bar():
    assert cuts_of(random_bars(70, 1)) == [64, 65, 66, 67, 68]
