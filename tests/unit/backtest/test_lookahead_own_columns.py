"""How much of the future a user's own column may know before it is suspected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rl.backtest.lookahead_own_columns import NEXT_BAR_LIMIT, OWN_SESSION_LIMIT, foreknowledge
from rl.market.bars import Bars
from rl.market.synthetic import MARKETS, generate, to_bars
from tests.builders import random_bars

BARS = random_bars(2500, 11, sigma=1e-3)
"""100 sessions of 25 bars without any edge."""

MOVE = np.diff(np.log(BARS.close), append=np.log(BARS.close[-1]))
"""The move from each close to the next: what nobody knows at the bar. (2500,)"""


def noise(seed: int = 0, count: int = len(BARS)) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count)


def of_next_bar(column: np.ndarray, bars: Bars = BARS):
    return foreknowledge(bars, column)[0]


def of_own_session(column: np.ndarray, bars: Bars = BARS):
    return foreknowledge(bars, column)[1]


def by_session(values: np.ndarray) -> np.ndarray:
    return values[BARS.session]


def day_closes() -> np.ndarray:
    return BARS.close[np.append(np.flatnonzero(np.diff(BARS.session)), len(BARS) - 1)]


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_signals_of_markets_with_a_known_edge_are_believed(market, seed):
    bars = to_bars(generate(market, 60, seed), f"SYN_{market}_2")
    assert bars.extra
    for name, column in bars.extra.items():
        assert not any(found.is_suspicious for found in foreknowledge(bars, column)), name


def test_an_edge_three_times_the_strongest_planted_one_is_still_believed():
    bars = to_bars(generate("planted", 200, 5, r2=0.06), "SYN_planted_2")
    found = of_next_bar(bars.extra["x_f1"], bars)
    assert found.correlation == pytest.approx(np.sqrt(0.06), abs=0.05)
    assert not any(each.is_suspicious for each in foreknowledge(bars, bars.extra["x_f1"]))


@pytest.mark.parametrize("ahead", [3, 5, 12, 20, 35, 60, 120])
def test_a_label_of_many_bars_is_suspected_though_it_says_little_of_the_next_one(ahead):
    """The return over the next so many bars, left in the file as a column: the commonest leak of all."""
    bars = random_bars(12_000, 4, sigma=1e-3)
    label = np.zeros(len(bars))
    label[:-ahead] = np.log(bars.close[ahead:] / bars.close[:-ahead])
    assert any(found.is_suspicious for found in foreknowledge(bars, label))


def test_a_slow_column_that_has_nothing_to_do_with_the_prices_is_believed():
    """Of two wanderers, few independent stretches are seen: they look alike by chance."""
    for seed in range(20):
        wanderer = np.cumsum(noise(seed))
        assert not any(found.is_suspicious for found in foreknowledge(BARS, wanderer)), seed


@pytest.mark.parametrize(
    ("column", "share"),
    [
        (MOVE, 1.0),
        (MOVE / MOVE.std() + noise(), 1 / np.sqrt(2)),
        (np.append(BARS.close[1:], BARS.close[-1]), 1.0),
    ],
    ids=["the next return", "half of it noise", "the next close"],
)
def test_a_column_that_holds_the_next_bar_is_suspected(column, share):
    found = of_next_bar(column)
    assert found.is_suspicious
    assert found.limit == NEXT_BAR_LIMIT
    assert found.correlation == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_direction_of_the_knowledge_makes_no_difference(sign):
    assert of_next_bar(sign * MOVE).is_suspicious


def test_a_centred_average_is_suspected_and_a_trailing_one_is_not():
    centred = np.convolve(BARS.close, np.ones(11) / 11, "same")
    trailing = np.convolve(BARS.close, np.ones(11) / 11, "full")[: len(BARS)]
    assert of_next_bar(centred).is_suspicious
    assert not of_next_bar(trailing).is_suspicious


def test_what_the_prices_say_themselves_is_no_foreknowledge():
    """The last return of a market that reverts goes together with the next one, and everybody knows it."""
    bars = to_bars(generate("ar1", 100, 3, phi=-0.6), "SYN_ar1_2")
    last = np.diff(np.log(bars.close), prepend=np.log(bars.open[0]))
    following = np.append(last[1:], 0.0)
    assert np.corrcoef(last, following)[0, 1] < -0.5
    found = of_next_bar(last, bars)
    assert found.correlation is None
    assert found.described() == f"next bar: says nothing beyond the prices ({len(bars) - 21:,})"


def test_a_daily_value_of_its_own_session_is_suspected():
    first_open = BARS.open[np.append(0, np.flatnonzero(np.diff(BARS.session)) + 1)]
    for values in (day_closes(), day_closes() / first_open - 1.0, np.cumsum(day_closes())):
        found = of_own_session(by_session(values))
        assert found.is_suspicious
        assert found.limit == pytest.approx(OWN_SESSION_LIMIT, abs=0.01)


def test_a_daily_value_of_the_day_before_is_not():
    before = np.concatenate([[100.0], day_closes()[:-1]])
    for values in (before, np.append(0.0, np.diff(before))):
        assert not of_own_session(by_session(values)).is_suspicious


def test_a_daily_signal_with_a_true_edge_is_believed():
    last, first = day_closes(), BARS.close[np.append(0, np.flatnonzero(np.diff(BARS.session)) + 1)]
    rest = np.log(last / first)
    signal = 0.25 * rest / rest.std() + np.sqrt(1 - 0.25**2) * noise(4, 100)
    assert not of_own_session(by_session(signal)).is_suspicious


def test_only_a_column_with_one_value_a_session_is_compared_with_its_session():
    assert len(foreknowledge(BARS, noise())) == 1
    assert len(foreknowledge(BARS, np.ones(len(BARS)))) == 1
    assert len(foreknowledge(BARS, by_session(noise(1, 100)))) == 2


def test_days_have_no_session_of_their_own_to_look_into():
    days = random_bars(400, 5, minutes=1440)
    assert len(foreknowledge(days, noise(2, 400))) == 1


def test_too_few_bars_say_nothing():
    few = BARS.slice(0, 60)
    found = of_next_bar(MOVE[:60], few)
    assert found.correlation is None
    assert not found.is_suspicious
    assert "too few to tell" in found.described()


def test_a_constant_column_says_nothing():
    assert of_next_bar(np.full(len(BARS), 7.0)).correlation is None


def test_few_bars_have_to_show_more_before_anything_is_suspected():
    """120 bars correlate with chance by up to 0.3; the limit grows with the chance."""
    for seed in range(200):
        assert not of_next_bar(noise(seed, 120), BARS.slice(0, 120)).is_suspicious


def test_the_figure_stands_beside_its_limit():
    assert of_next_bar(MOVE).described().startswith("next bar: correlation +1.000, above ±0.30 (2,4")


def test_prices_below_zero_are_compared_by_their_differences():
    below = replace(BARS, **{name: getattr(BARS, name) - 100.0 for name in ("open", "high", "low", "close")})
    assert of_next_bar(np.append(np.diff(below.close), 0.0), below).is_suspicious
