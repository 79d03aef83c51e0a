"""A number that sees tomorrow turns every backtest into fiction; here every step from file to verdict is asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.backtest.lookahead import CUTS, NOT_TESTED, PIECES, LookaheadReport, check_lookahead
from rl.backtest.lookahead_poisons import POISONS
from rl.backtest.planted_leaks import LEAKS
from rl.common.errors import DataError
from rl.features import pipeline
from rl.features.indicators import FEATURES, RECURSIVE_BARS, Feature, Stretch
from rl.features.pipeline import compute_features
from rl.market.ingest import discover
from rl.market.instruments import Instrument, load_instruments
from rl.market.raw_table import read_table
from rl.market.synthetic import generate, write_raw_csv
from tests.builders import an_instrument, random_bars, with_later_bars_changed, with_later_bars_shuffled
from tests.raw_files import crypto_file, daily_file, flawed_intraday_file, oil_file

REAL_DATA = "STAGEGATE_REAL_DATA"
"""Environment variable: a folder of raw files to be checked too."""

FILES: dict[str, tuple[Callable[[Path], Path], Instrument]] = {
    "quarter hours with every fault": (flawed_intraday_file, an_instrument(square_off=True)),
    "days, newest first": (
        daily_file,
        an_instrument(calendar="NYSE", asset_class="stock", allow_short=False),
    ),
    "a market that never closes": (crypto_file, an_instrument(calendar="CRYPTO", asset_class="crypto")),
    "oil below zero": (oil_file, an_instrument(price_may_be_negative=True)),
}


def checked(path: Path, instrument: Instrument, **options) -> LookaheadReport:
    return check_lookahead(read_table(path), path, path.stem, instrument, **options)


def told(report: LookaheadReport) -> list[tuple[str, str, str]]:
    return [(fault.piece, fault.item, fault.remark) for fault in report.faults]


# ---- what has to be clean --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_nothing_from_a_flawed_file_to_the_verdict_sees_the_future(tmp_path, name):
    write, instrument = FILES[name]
    report = checked(write(tmp_path), instrument)
    assert told(report) == []
    assert len(report.cuts) == CUTS
    assert {finding.verdict for finding in report.findings} == {"clean"}
    # Each cut with each future, in every step that is not asked once for all.
    for piece in ("ingest", "features", "scaling", "observations", "decisions", "fills", "gate inputs"):
        tests = [f.tests for f in report.findings if f.piece == piece and "not known yet" not in f.item]
        assert min(tests) >= CUTS * len(POISONS), piece


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("market") / "SYN_planted_2.csv"
    write_raw_csv(generate("planted", 40, 3), path)
    return path


MADE_UP = load_instruments().find("SYN_planted_2").instrument


def test_nothing_from_a_made_up_market_to_the_verdict_sees_the_future(planted):
    report = checked(planted, MADE_UP)
    assert told(report) == []
    assert {finding.piece for finding in report.findings} == set(PIECES)
    assert NOT_TESTED not in {finding.verdict for finding in report.findings}


def real_files() -> dict[str, Path]:
    folder = os.environ.get(REAL_DATA)
    return discover(Path(folder), lambda _symbol, _error: None) if folder else {}


NO_REAL_DATA = pytest.mark.skipif(
    not os.environ.get(REAL_DATA), reason=f"set {REAL_DATA} to a folder of raw files to check them too"
)


@NO_REAL_DATA
def test_the_real_files_were_found():
    assert real_files()


@NO_REAL_DATA
@pytest.mark.parametrize("symbol", sorted(real_files()) or ["none"])
def test_nothing_from_a_real_file_to_the_verdict_sees_the_future(symbol):
    path = real_files()[symbol]
    instrument = load_instruments().find(symbol, path.parent.name).instrument
    try:
        report = check_lookahead(read_table(path), path, symbol, instrument)
    except DataError as error:
        pytest.skip(f"this file cannot be used as it is: {error}")
    assert told(report) == []
    assert len(report.cuts) == CUTS


# ---- what has to be caught -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_leak_is_caught_in_the_step_that_makes_it_and_in_no_other(planted, name):
    leak = LEAKS[name]
    table = read_table(planted)
    spoiled = leak.spoil(table) if leak.spoil else table
    report = check_lookahead(spoiled, planted, planted.stem, MADE_UP, chain=leak.chain, cuts=6)
    assert report.guilty_pieces == (leak.piece,)


def test_every_step_has_a_planted_leak():
    assert {leak.piece for leak in LEAKS.values()} == set(PIECES)
    assert len(LEAKS) >= 8


def return_scaled_over_all_bars(stretch: Stretch) -> np.ndarray:
    return stretch.move / np.nanstd(stretch.move)


def close_of_the_next_bar(stretch: Stretch) -> np.ndarray:
    ahead = np.append(stretch.bars.close[1:], stretch.bars.close[-1])
    return ahead / stretch.bars.close - 1.0


def share_of_the_sessions_bars(stretch: Stretch) -> np.ndarray:
    """Session progress by counting the session's bars, of which the later ones are not known yet."""
    _, position, lengths = np.unique(stretch.bars.session, return_inverse=True, return_counts=True)
    return (np.arange(len(stretch.bars)) - stretch.session_first + 1) / lengths[position]


@pytest.mark.parametrize(
    "leak", [return_scaled_over_all_bars, close_of_the_next_bar, share_of_the_sessions_bars]
)
def test_a_feature_that_sees_later_bars_is_named(monkeypatch, tmp_path, leak):
    feature = Feature(name=leak.__name__, compute=leak, lookback_bars=RECURSIVE_BARS)
    monkeypatch.setattr(pipeline, "FEATURES", (*FEATURES, feature))
    write, instrument = FILES["quarter hours with every fault"]
    report = checked(write(tmp_path), instrument, cuts=6)
    assert [(fault.piece, fault.item) for fault in report.faults] == [("features", leak.__name__)]


# ---- features of any market ------------------------------------------------------------------------------------

ALTERATIONS = {
    "changed": with_later_bars_changed,
    "shuffled": with_later_bars_shuffled,
    "deleted": lambda bars, start, seed: bars.slice(0, start),
}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cut=st.integers(1, 599),
    sigma=st.sampled_from([0.0, 1e-6, 1e-3, 0.05]),
    minutes=st.sampled_from([1, 15, 60, 1440]),
    alteration=st.sampled_from(sorted(ALTERATIONS)),
)
def test_no_market_shows_its_later_bars(seed, cut, sigma, minutes, alteration):
    """Also markets that stand still, and times and sessions that go on differently after the cut."""
    bars = random_bars(600, seed, minutes=minutes, sigma=sigma, with_volume=True)
    altered = ALTERATIONS[alteration](bars, cut, seed)
    before, after = (compute_features(one, an_instrument()) for one in (bars, altered))
    assert before.names == after.names
    for column, name in enumerate(before.names):
        known, again = before.values[:cut, column], after.values[:cut, column]
        assert known.tobytes() == again.tobytes(), f"{name} saw bar {cut} or later"
    assert before.usable[:cut].tobytes() == after.usable[:cut].tobytes()
    assert before.atr[:cut].tobytes() == after.atr[:cut].tobytes()
