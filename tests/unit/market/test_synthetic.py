"""Synthetic markets: do they follow their formulas, and do their files and bars carry them unchanged?"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest

from rl.common.errors import UsageError
from rl.market.ingest import read_raw
from rl.market.instruments import load_instruments
from rl.market.synthetic import (
    MARKETS,
    SIGMA,
    START_PRICE,
    SyntheticMarket,
    generate,
    kind_of,
    resolved_params,
    to_bars,
    write_raw_csv,
)
from rl.market.synthetic_formulas import moe_wide_directions

SESSIONS = 500
BARS = SESSIONS * 187
FOUR_ERRORS = 4.0 / np.sqrt(BARS)
"""Four standard errors of a correlation over this many independent bars."""


@cache
def drawn(name: str, **params: float) -> SyntheticMarket:
    return generate(name, SESSIONS, seed=7, **params)


def correlation(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.corrcoef(left, right)[0, 1])


def arrays_of(market: SyntheticMarket) -> dict[str, np.ndarray]:
    prices = {name: getattr(market, name) for name in ("returns", "opens", "highs", "lows", "closes")}
    return {**prices, **market.signals}


# ---- every market --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MARKETS)
def test_the_same_seed_draws_the_same_bytes_and_another_seed_does_not(name):
    first, again, other = (arrays_of(generate(name, 4, seed)) for seed in (3, 3, 4))
    assert {key: value.tobytes() for key, value in first.items()} == {
        key: value.tobytes() for key, value in again.items()
    }
    for key, value in first.items():
        assert value.tobytes() != other[key].tobytes(), key


@pytest.mark.parametrize("name", MARKETS)
def test_each_bar_opens_at_the_close_before_and_its_return_leads_to_its_close(name):
    market = drawn(name)
    np.testing.assert_array_equal(market.opens[1:], market.closes[:-1])
    np.testing.assert_allclose(market.closes / market.opens - 1.0, market.returns, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", MARKETS)
def test_the_range_of_each_bar_holds_its_open_and_close(name):
    market = drawn(name)
    assert np.all(market.highs >= np.maximum(market.opens, market.closes))
    assert np.all(market.lows <= np.minimum(market.opens, market.closes))
    assert np.all(market.lows > 0.0)
    # A range of nothing would leave ATR undefined.
    assert np.all(market.highs > market.lows)


@pytest.mark.parametrize("name", MARKETS)
def test_returns_have_a_standard_deviation_of_six_bp(name):
    # GARCH with t(5) shocks has no fourth moment, so its sample variance settles slowly.
    allowed = 0.06 if name == "noise_garch" else 0.015
    # Two markets move on top of their noise: by 1 bp at the old and at the new side, or by a drift of ±1.2 bp.
    on_top_bp2 = {"bounce": 1.0 + 1.0, "hamilton": 1.2**2}.get(name, 0.0)
    assert drawn(name).returns.std() == pytest.approx(np.sqrt(36.0 + on_top_bp2) * 1e-4, rel=allowed)
    assert SIGMA == 6e-4


@pytest.mark.parametrize("name", MARKETS)
def test_every_column_has_one_value_per_bar_and_is_named_as_the_users_own_feature(name):
    market = generate(name, 3, seed=0, bars_per_session=10)
    assert len(market) == 30
    for column, values in arrays_of(market).items():
        assert values.shape == (30,), column
        assert values.dtype == np.float64, column
        assert np.isfinite(values).all(), column
    assert market.signals
    assert all(column.startswith("x_") for column in market.signals)


def test_a_brownian_bar_reaches_as_far_up_and_down_as_the_reflection_principle_says():
    """The maximum of a Brownian path over a bar is distributed as |N(0, s^2)|: its mean is s sqrt(2 / pi)."""
    market = drawn("planted")  # its returns are normal with deviation SIGMA
    expected = SIGMA * np.sqrt(2.0 / np.pi)
    assert np.log(market.highs / market.opens).mean() == pytest.approx(expected, rel=0.01)
    assert np.log(market.opens / market.lows).mean() == pytest.approx(expected, rel=0.01)


def test_the_range_says_nothing_about_the_next_bar():
    market = drawn("planted", rho=0.0)
    upper = np.log(market.highs / np.maximum(market.opens, market.closes))
    lower = np.log(np.minimum(market.opens, market.closes) / market.lows)
    assert abs(correlation(upper[:-1], market.returns[1:])) < FOUR_ERRORS
    assert abs(correlation(lower[:-1], market.returns[1:])) < FOUR_ERRORS


@pytest.mark.parametrize(
    ("name", "first_returns_bp"),
    [
        ("noise_gauss", [-5.1420674094, 0.0039164394914, -5.7343066393]),
        ("noise_garch", [1.3420414968, 1.4552983382, -0.9091624139]),
        ("noise_drift", [0.22282417365, 2.5260606821, 15.645973891]),
        ("bounce", [6.9737988804, 4.2471954094, -11.821436626]),
        ("ar1", [2.2815144382, -3.1991624386, 5.4298991828]),
        ("ou", [-0.52025037842, -0.10183802312, 0.21275191598]),
        ("hamilton", [7.5424493848, 7.3120285717, -5.3152054577]),
        ("planted", [-4.9400642767, -0.34438065356, -2.1766184747]),
        ("momrev", [-0.98967778846, -5.4814290468, 3.4610576108]),
        ("moe4", [6.5835414764, -4.8825200637, -11.304487315]),
        ("moe_wide", [11.208618805, 2.5027058317, 6.3453054159]),
        ("task", [0.089010620891, 10.32566745, -5.4576607927]),
    ],
)
def test_a_seed_draws_the_market_it_always_drew(name, first_returns_bp):
    """Published figures name a seed; they are worth nothing once it draws another market."""
    returns = generate(name, 1, seed=7).returns
    np.testing.assert_allclose(returns[:3] * 1e4, first_returns_bp, rtol=1e-9)


# ---- one market each -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["noise_gauss", "noise_drift"])
def test_normal_noise_has_no_memory_no_tails_and_the_mean_it_is_given(name):
    market = drawn(name)
    # 15 % a year over 250 sessions of 187 bars.
    mean = 0.15 / (187 * 250) if name == "noise_drift" else 0.0
    noise = (market.returns - mean) / SIGMA
    assert noise.mean() == pytest.approx(0.0, abs=FOUR_ERRORS)
    assert (noise**4).mean() == pytest.approx(3.0, abs=np.sqrt(96.0) * FOUR_ERRORS)
    assert abs(correlation(noise[:-1], noise[1:])) < FOUR_ERRORS
    assert set(market.signals) == {"x_f1", "x_f2"}
    for decoy in market.signals.values():
        assert correlation(decoy[:-1], decoy[1:]) == pytest.approx(0.95, abs=0.01)
        assert abs(correlation(decoy[:-1], noise[1:])) < FOUR_ERRORS


def test_the_drift_of_noise_drift_is_the_one_asked_for():
    up, down = (drawn("noise_drift", yearly_drift=drift).returns for drift in (0.9, -0.9))
    # The same noise under both: the difference is the drift alone.
    np.testing.assert_allclose(up - down, 2 * 0.9 / (187 * 250), rtol=1e-9)


def test_bounce_closes_at_the_bid_or_the_ask_of_a_mid_without_memory():
    market = drawn("bounce", half_spread_bp=3.0)
    assert market.regime is not None
    side = np.where(market.regime == 0, -1.0, 1.0)
    mid = market.closes / (1.0 + 3e-4 * side)
    moves = mid[1:] / mid[:-1] - 1.0
    assert moves.std() == pytest.approx(SIGMA, rel=0.01)
    assert moves.mean() == pytest.approx(0.0, abs=SIGMA * FOUR_ERRORS)
    assert abs(correlation(moves[:-1], moves[1:])) < FOUR_ERRORS
    assert abs(correlation(side[:-1], side[1:])) < FOUR_ERRORS
    assert abs(correlation(side[:-1], moves)) < FOUR_ERRORS
    np.testing.assert_allclose(market.signals["x_return"] * SIGMA, market.returns, rtol=1e-12)


def test_bounce_returns_reverse_by_the_square_of_the_half_spread():
    """Roll (1984): the covariance of neighbouring price changes is minus the half spread squared."""
    returns = drawn("bounce", half_spread_bp=3.0).returns * 1e4
    covariance = np.mean(returns[:-1] * returns[1:])
    assert covariance == pytest.approx(-9.0, abs=FOUR_ERRORS * returns.var())
    assert abs(np.mean(returns[:-2] * returns[2:])) < FOUR_ERRORS * returns.var()


def test_a_bounce_return_is_the_half_spread_after_a_bid_and_minus_it_after_an_ask():
    market = drawn("bounce", half_spread_bp=20.0)
    for side, expected in ((0, 20.0), (1, -20.0)):
        following = market.returns[1:][market.regime[:-1] == side] * 1e4
        assert following.mean() == pytest.approx(
            expected, abs=4.0 * following.std() / np.sqrt(len(following))
        )


@pytest.mark.parametrize("stay", [0.99, 0.5])  # with 0.5 the regime of another bar says nothing
def test_hamilton_drifts_up_in_regime_0_and_down_in_regime_1_and_shows_neither(stay):
    market = drawn("hamilton", stay=stay)
    assert market.regime is not None
    assert set(market.signals) == {"x_return"}
    for regime, drift in ((0, 1.2), (1, -1.2)):
        following = market.returns[1:][market.regime[:-1] == regime] * 1e4
        assert following.mean() == pytest.approx(drift, abs=4.0 * 6.0 / np.sqrt(len(following)))
        assert following.std() == pytest.approx(6.0, rel=0.015)
    changes = np.mean(market.regime[1:] != market.regime[:-1])
    assert changes == pytest.approx(1.0 - stay, abs=np.sqrt(stay * (1.0 - stay)) * FOUR_ERRORS)
    np.testing.assert_allclose(market.signals["x_return"] * SIGMA, market.returns, rtol=1e-12)


@pytest.mark.parametrize("stay", [0.99, 0.25])  # with 0.25 the regime of another bar says nothing
def test_moe4_follows_the_direction_of_its_regime(stay):
    market = drawn("moe4", stay=stay)
    assert market.regime is not None
    f1, f2 = market.signals["x_f1"], market.signals["x_f2"]
    followed = {0: f1, 1: f2, 2: -f1, 3: -f2}
    unrelated = {0: f2, 1: f1, 2: f2, 3: f1}
    np.testing.assert_array_equal(market.signals["x_regime"], market.regime)
    for regime in range(4):
        inside = market.regime[:-1] == regime
        following = market.returns[1:][inside]
        errors = 4.0 / np.sqrt(inside.sum())
        # A share of .05 of the variance is a correlation of its root.
        assert correlation(followed[regime][:-1][inside], following) == pytest.approx(
            np.sqrt(0.05), abs=errors
        )
        assert abs(correlation(unrelated[regime][:-1][inside], following)) < errors


@pytest.mark.parametrize("name", ["moe4", "moe_wide"])
def test_a_regime_of_four_lasts_a_hundred_bars_and_is_followed_by_any_other_alike(name):
    regime = drawn(name).regime
    assert regime is not None
    changed = regime[1:] != regime[:-1]
    assert changed.mean() == pytest.approx(0.01, abs=np.sqrt(0.01 * 0.99) * FOUR_ERRORS)
    steps = (regime[1:] - regime[:-1])[changed] % 4
    for step in (1, 2, 3):
        assert np.mean(steps == step) == pytest.approx(1 / 3, abs=4.0 * np.sqrt(2 / 9 / changed.sum()))


def test_the_wide_directions_are_unit_vectors_that_add_up_to_zero_and_are_the_same_for_every_seed():
    directions = moe_wide_directions()
    assert directions.shape == (4, 6)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(directions.sum(axis=0), 0.0, atol=1e-12)
    # No two alike or opposite, or two experts would do for four regimes.
    products = directions @ directions.T - np.eye(4)
    assert np.abs(products).max() < 0.8
    for seed in (1, 2):
        market = generate("moe_wide", SESSIONS, seed)
        features = np.column_stack([market.signals[f"x_f{place}"] for place in range(1, 7)])
        for regime in range(4):
            inside = market.regime[:-1] == regime
            following = market.returns[1:][inside] / SIGMA
            found = features[:-1][inside].T @ following / inside.sum()
            np.testing.assert_allclose(
                found, np.sqrt(0.05) * directions[regime], atol=4.5 / np.sqrt(inside.sum())
            )


@pytest.mark.parametrize("theta", [0.0, 0.7, -2.0])
def test_a_task_follows_one_direction_from_the_first_bar_to_the_last(theta):
    market = drawn("task", theta=theta)
    assert set(market.signals) == {"x_f1", "x_f2"}
    f1, f2 = market.signals["x_f1"], market.signals["x_f2"]
    for half in (slice(0, BARS // 2), slice(BARS // 2, BARS - 1)):
        following = market.returns[1:][half]
        errors = 1.5 * FOUR_ERRORS
        along = (np.cos(theta) * f1 + np.sin(theta) * f2)[:-1][half]
        across = (-np.sin(theta) * f1 + np.cos(theta) * f2)[:-1][half]
        assert correlation(along, following) == pytest.approx(np.sqrt(0.05), abs=errors)
        assert abs(correlation(across, following)) < errors


@pytest.mark.parametrize("name", ["moe4", "moe_wide", "task"])
def test_features_are_white_unless_rho_says_otherwise(name):
    for column, feature in drawn(name).signals.items():
        if column != "x_regime":
            assert feature.std() == pytest.approx(1.0, abs=FOUR_ERRORS)
            assert abs(correlation(feature[:-1], feature[1:])) < FOUR_ERRORS
    if name != "moe_wide":
        feature = drawn(name, rho=0.9).signals["x_f1"]
        assert correlation(feature[:-1], feature[1:]) == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("phi", [-0.3, 0.3, -0.1])
def test_ar1_returns_depend_on_the_last_return_by_phi(phi):
    market = drawn("ar1", phi=phi)
    assert correlation(market.returns[:-1], market.returns[1:]) == pytest.approx(phi, abs=FOUR_ERRORS)
    np.testing.assert_allclose(market.signals["x_return"] * SIGMA, market.returns, rtol=1e-12)


def test_garch_noise_has_fat_tails_and_clustered_volatility_but_no_direction():
    returns = drawn("noise_garch").returns
    standardised = (returns - returns.mean()) / returns.std()
    assert (standardised**4).mean() > 4.0  # a normal distribution has 3
    assert correlation(returns[:-1] ** 2, returns[1:] ** 2) > 0.05
    # Clustering makes products of neighbouring returns vary more than independent ones; signs do not cluster.
    assert abs(correlation(np.sign(returns[:-1]), np.sign(returns[1:]))) < FOUR_ERRORS
    assert abs(np.sign(returns).mean()) < FOUR_ERRORS


def test_garch_decoys_are_persistent_and_mean_nothing():
    market = drawn("noise_garch")
    assert set(market.signals) == {"x_f1", "x_f2"}
    for decoy in market.signals.values():
        assert correlation(decoy[:-1], decoy[1:]) == pytest.approx(0.95, abs=0.01)
        assert abs(correlation(decoy[:-1], np.sign(market.returns[1:]))) < FOUR_ERRORS


def test_ou_prices_return_to_one_hundred_and_the_level_is_the_log_price():
    market = drawn("ou")
    log_price = np.log(market.closes / START_PRICE)
    # a = .97 and innovations of SIGMA give the level a deviation of SIGMA / sqrt(1 - .9409).
    level_deviation = 6e-4 / np.sqrt(1.0 - 0.9409)
    np.testing.assert_allclose(market.signals["x_level"] * level_deviation, log_price, atol=1e-9)
    assert log_price.std() == pytest.approx(level_deviation, rel=0.05)
    assert correlation(log_price[:-1], log_price[1:]) == pytest.approx(0.97, abs=0.005)


def test_planted_feature_explains_the_next_return_and_not_the_one_it_is_known_after():
    """A column shifted by one bar would turn the feature into a look ahead, or into nothing."""
    market = drawn("planted", r2=0.02, rho=0.0)
    feature, decoy = market.signals["x_f1"], market.signals["x_f2"]
    assert correlation(feature[:-1], market.returns[1:]) == pytest.approx(np.sqrt(0.02), abs=FOUR_ERRORS)
    assert abs(correlation(feature, market.returns)) < FOUR_ERRORS
    assert abs(correlation(decoy[:-1], market.returns[1:])) < FOUR_ERRORS


def test_planted_features_are_as_persistent_as_rho_says():
    for feature in drawn("planted").signals.values():
        assert feature.std() == pytest.approx(1.0, abs=0.05)
        assert correlation(feature[:-1], feature[1:]) == pytest.approx(0.95, abs=0.01)


def test_momrev_continues_in_regime_0_and_reverses_in_regime_1():
    market = drawn("momrev")
    now, following = market.returns[:-1], market.returns[1:]
    for regime, expected in ((0, 0.3), (1, -0.3)):
        inside = market.regime[:-1] == regime
        assert correlation(now[inside], following[inside]) == pytest.approx(
            expected, abs=4.0 / np.sqrt(inside.sum())
        )
    np.testing.assert_array_equal(market.signals["x_regime"], market.regime)


def test_momrev_regime_changes_every_two_hundred_bars_on_average():
    regime = drawn("momrev").regime
    assert set(np.unique(regime)) == {0, 1}
    changes = np.mean(regime[1:] != regime[:-1])
    # 1 - stay = .005; the deviation of a share over that many bars is sqrt(.005 * .995 / bars).
    assert changes == pytest.approx(0.005, abs=4.0 * np.sqrt(0.005 * 0.995 / BARS))


# ---- what is refused -----------------------------------------------------------------------------


def test_an_unknown_market_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match=r"no synthetic market 'plantd'.*planted"):
        generate("plantd", 1, seed=0)


def test_an_unknown_parameter_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="planted has no parameter 'phi'; it has: r2, rho"):
        generate("planted", 1, seed=0, phi=0.1)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("ar1", {"phi": 1.0}),
        ("planted", {"r2": float("nan")}),
        ("momrev", {"stay": 1.5}),
        ("bounce", {"half_spread_bp": 0.0}),
        ("task", {"theta": 7.0}),
    ],
)
def test_a_parameter_outside_its_range_is_refused(name, params):
    with pytest.raises(UsageError, match=f"{name}: {next(iter(params))} has to lie between"):
        generate(name, 1, seed=0, **params)


def test_a_garch_without_a_long_run_variance_is_refused():
    with pytest.raises(UsageError, match=r"a \+ b has to be below 1, but is 1\.02"):
        generate("noise_garch", 1, seed=0, a=0.12, b=0.90)


def test_a_market_of_no_sessions_is_refused():
    with pytest.raises(UsageError, match="at least 1, but are 0 and 187"):
        generate("ar1", 0, seed=0)


def test_params_are_the_defaults_with_what_was_given_in_their_place():
    assert resolved_params("planted", rho=0.98) == {"r2": 0.02, "rho": 0.98}
    assert generate("planted", 1, seed=0, rho=0.98).params == {"r2": 0.02, "rho": 0.98}
    assert kind_of("noise_garch").best_policy == "stay flat"


# ---- files and bars ------------------------------------------------------------------------------


def test_a_written_file_holds_the_market_to_the_last_bit(tmp_path):
    market = generate("momrev", 4, seed=5)
    path = tmp_path / "SYN_momrev_2.csv"
    write_raw_csv(market, path)
    table = pd.read_csv(path, dtype=str)  # Python's own float() below reads every digit
    assert list(table.columns) == ["datetime", "open", "high", "low", "close", "x_return", "x_regime"]
    for column, expected in {
        "open": market.opens,
        "high": market.highs,
        "low": market.lows,
        "close": market.closes,
        **market.signals,
    }.items():
        np.testing.assert_array_equal([float(text) for text in table[column]], expected)


def test_a_session_of_187_two_minute_bars_runs_from_0915_to_1529_on_business_days(tmp_path):
    path = tmp_path / "SYN_ar1_2.csv"
    write_raw_csv(generate("ar1", 3, seed=5), path)
    labels = pd.read_csv(path)["datetime"]
    assert len(labels) == 3 * 187
    # 1 January 2015 was a Thursday: the third session is a Monday. The last bar starts at 15:27.
    assert labels[0] == "2015-01-01 09:15:00"
    assert labels[1] == "2015-01-01 09:17:00"
    assert labels[186] == "2015-01-01 15:27:00"
    assert labels[187] == "2015-01-02 09:15:00"
    assert labels[374] == "2015-01-05 09:15:00"


def test_two_files_of_one_seed_are_the_same_bytes(tmp_path):
    paths = [tmp_path / folder / "SYN_planted_2.csv" for folder in ("a", "b")]
    for path in paths:
        write_raw_csv(generate("planted", 2, seed=9), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(entry.name for entry in paths[0].parent.iterdir()) == ["SYN_planted_2.csv"]


@pytest.mark.parametrize(
    "name", ["Nifty_2.csv", "SYN_planted_5.csv", "SYN_planted_2.csv.gz", "SYN_planted.csv"]
)
def test_a_file_name_that_hides_what_it_holds_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"SYN_planted_2\.csv"):
        write_raw_csv(generate("planted", 1, seed=0), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_session_that_would_run_past_midnight_is_refused(tmp_path):
    # 09:15 to 24:00 are 885 minutes: 442 whole bars.
    write_raw_csv(generate("ar1", 1, seed=0, bars_per_session=442), tmp_path / "SYN_ar1_2.csv")
    with pytest.raises(UsageError, match="may be at most 442"):
        to_bars(generate("ar1", 1, seed=0, bars_per_session=443), "SYN_ar1_2")


def test_bars_carry_the_prices_times_sessions_and_signals():
    market = generate("planted", 2, seed=5, bars_per_session=3)
    bars = to_bars(market, "SYN_planted_2")
    assert (bars.symbol, bars.bar_seconds, bars.volume, bars.is_daily) == ("SYN_planted_2", 120, None, False)
    np.testing.assert_array_equal(bars.close, market.closes)
    np.testing.assert_array_equal(bars.extra["x_f1"], market.signals["x_f1"])
    assert bars.session.tolist() == [0, 0, 0, 1, 1, 1]
    assert not bars.session_end.any()  # no calendar says which bar is a session's last
    assert bars.label[3] == "2015-01-02 09:15:00"
    # The first bar starts at 09:15 and closes at 09:17; 2015-01-01 is day 16436 since 1970.
    assert bars.close_time[0] == (16436 * 86400 + 9 * 3600 + 17 * 60) * 10**9
    assert np.all(np.diff(bars.close_time) > 0)


@pytest.mark.parametrize("name", MARKETS)
def test_bars_read_from_a_written_file_are_the_bars_made_without_one(tmp_path, name):
    """Tests use bars without files, users files: both have to be the same market."""
    symbol = f"SYN_{name}_2"
    market = generate(name, 25, seed=11)
    path = tmp_path / f"{symbol}.csv"
    write_raw_csv(market, path)
    read = read_raw(path, symbol, load_instruments().find(symbol).instrument).bars
    made = to_bars(market, symbol)
    assert (read.symbol, read.bar_seconds, read.volume) == (made.symbol, made.bar_seconds, made.volume)
    for field in ("open", "high", "low", "close", "close_time", "session", "session_end", "label"):
        np.testing.assert_array_equal(getattr(read, field), getattr(made, field), err_msg=field)
    assert set(read.extra) == set(made.extra)
    for column, values in made.extra.items():
        np.testing.assert_array_equal(read.extra[column], values, err_msg=column)
