"""A feature that sees tomorrow turns every backtest into fiction."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.features import pipeline
from rl.features.indicators import FEATURES, RECURSIVE_BARS, Feature, Stretch
from rl.features.pipeline import FeatureTable, compute_features
from rl.market.bars import Bars
from rl.market.instruments import Instrument
from tests.builders import an_instrument, random_bars, with_later_bars_changed, with_later_bars_shuffled

COUNT = 900
CUTS = (256, 257, 400, 401, 575, 640, 777, 898)


@dataclass(frozen=True)
class Market:
    """One kind of market, with features the others do not have."""

    bars: Bars
    instrument: Instrument


def below_zero(bars: Bars) -> Bars:
    prices = {name: getattr(bars, name) - 100.0 for name in ("open", "high", "low", "close")}
    return replace(bars, **prices)


MARKETS = {
    "index by quarter hours": Market(
        random_bars(COUNT, 1, with_volume=True, extra_names=("x_f1", "x_regime")), an_instrument()
    ),
    "days": Market(random_bars(COUNT, 2, minutes=1440, with_volume=True), an_instrument()),
    "crypto": Market(
        random_bars(COUNT, 3, minutes=5), an_instrument(calendar="CRYPTO", asset_class="crypto")
    ),
    "oil around zero": Market(
        below_zero(random_bars(COUNT, 4, minutes=1440)), an_instrument(price_may_be_negative=True)
    ),
}

ALTERATIONS = {
    "changed": with_later_bars_changed,
    "shuffled": with_later_bars_shuffled,
    "deleted": lambda bars, start, seed: bars.slice(0, start),
}


def check_that_later_bars_do_not_show(table: FeatureTable, altered: FeatureTable, cut: int) -> None:
    """Compare everything known at the bars before `cut`, byte by byte."""
    assert table.names == altered.names
    for column, name in enumerate(table.names):
        before = table.values[:cut, column].tobytes()
        assert before == altered.values[:cut, column].tobytes(), f"{name} saw bar {cut} or later"
    assert table.usable[:cut].tobytes() == altered.usable[:cut].tobytes(), f"usable saw bar {cut} or later"
    assert table.atr[:cut].tobytes() == altered.atr[:cut].tobytes(), f"atr saw bar {cut} or later"


@pytest.mark.parametrize("alteration", ALTERATIONS)
@pytest.mark.parametrize("kind", MARKETS)
def test_features_do_not_change_when_later_bars_change(kind, alteration):
    market = MARKETS[kind]
    table = compute_features(market.bars, market.instrument)
    for cut in CUTS:
        altered = ALTERATIONS[alteration](market.bars, cut, cut)
        check_that_later_bars_do_not_show(table, compute_features(altered, market.instrument), cut)


def test_the_cuts_lie_where_features_are_usable():
    for market in MARKETS.values():
        usable = compute_features(market.bars, market.instrument).usable
        assert usable[min(CUTS) - 1 :].all()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cut=st.integers(1, 599),
    sigma=st.sampled_from([0.0, 1e-6, 1e-3, 0.05]),
    minutes=st.sampled_from([1, 15, 60, 1440]),
    alteration=st.sampled_from(sorted(ALTERATIONS)),
)
def test_no_market_shows_its_later_bars(seed, cut, sigma, minutes, alteration):
    bars = random_bars(600, seed, minutes=minutes, sigma=sigma, with_volume=True)
    altered = ALTERATIONS[alteration](bars, cut, seed)
    instrument = an_instrument()
    check_that_later_bars_do_not_show(
        compute_features(bars, instrument), compute_features(altered, instrument), cut
    )


# ---- cases that have to fail -----------------------------------------------------------------------


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
def test_the_look_ahead_check_catches_a_planted_leak(monkeypatch, leak):
    planted = Feature(name=leak.__name__, compute=leak, lookback_bars=RECURSIVE_BARS)
    monkeypatch.setattr(pipeline, "FEATURES", (*FEATURES, planted))
    market = MARKETS["index by quarter hours"]
    table = compute_features(market.bars, market.instrument)
    cut = 640
    altered = compute_features(with_later_bars_changed(market.bars, cut, seed=9), market.instrument)
    with pytest.raises(AssertionError, match=f"{leak.__name__} saw bar {cut} or later"):
        check_that_later_bars_do_not_show(table, altered, cut)
