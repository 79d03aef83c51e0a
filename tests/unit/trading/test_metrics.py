"""Figures of a trading record: values by hand, empty input, and agreement with an independent library."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rl.trading import metrics

# Two wins (30, 10), one loss (-20), one trade of exactly zero.
TRADES = np.array([30.0, -20.0, 0.0, 10.0])
NO_TRADES = np.empty(0)
DAILY = 252.0


def returns_of(seed: int, sessions: int = 500, drift: float = 0.0005, spread: float = 0.01) -> np.ndarray:
    return np.random.default_rng(seed).normal(drift, spread, sessions)


# --- trades -------------------------------------------------------------------------------------------------


def test_a_trade_of_exactly_zero_is_not_a_win():
    assert metrics.win_rate(TRADES) == 2 / 4


def test_profit_factor_is_money_won_over_money_lost():
    assert metrics.profit_factor(TRADES) == (30 + 10) / 20


def test_expectancy_is_the_mean_trade():
    assert metrics.expectancy(TRADES) == (30 - 20 + 0 + 10) / 4


def test_payoff_ratio_is_the_average_win_over_the_average_trade_that_was_not_won():
    assert metrics.payoff_ratio(TRADES) == ((30 + 10) / 2) / ((20 + 0) / 2)


def test_break_even_win_rate_makes_the_expectancy_zero():
    # Average win 20, average loss 10: a third of wins pays for two thirds of losses.
    assert metrics.break_even_win_rate(TRADES) == pytest.approx(10 / 30)


@pytest.mark.parametrize("seed", range(5))
def test_the_win_rate_lies_above_break_even_exactly_when_the_expectancy_is_positive(seed):
    rng = np.random.default_rng(seed)
    for _ in range(100):
        net = np.round(rng.normal(0.0, 1.5, 12))  # whole numbers, so zeros occur
        if (net > 0).any() and (net < 0).any():
            above = metrics.win_rate(net) > metrics.break_even_win_rate(net) + 1e-12
            assert above == (metrics.expectancy(net) > 1e-12)


@pytest.mark.parametrize(
    "figure",
    [
        metrics.win_rate,
        metrics.profit_factor,
        metrics.expectancy,
        metrics.payoff_ratio,
        metrics.break_even_win_rate,
    ],
)
def test_a_figure_of_no_trades_is_nan(figure):
    assert math.isnan(figure(NO_TRADES))


def test_profit_factor_without_a_loss_is_infinite_and_without_any_money_is_nan():
    assert metrics.profit_factor(np.array([1.0, 2.0])) == math.inf
    assert math.isnan(metrics.profit_factor(np.array([0.0, 0.0])))


def test_profit_factor_without_a_win_is_zero():
    assert metrics.profit_factor(np.array([-1.0])) == 0.0


def test_payoff_ratio_without_a_loss_is_infinite_and_without_a_win_is_nan():
    assert metrics.payoff_ratio(np.array([1.0])) == math.inf
    assert math.isnan(metrics.payoff_ratio(np.array([-1.0])))


def test_average_holding_counts_bars_between_first_and_last_fill():
    assert metrics.average_holding_bars(np.array([3, 10]), np.array([5, 11])) == (2 + 1) / 2
    assert math.isnan(metrics.average_holding_bars(NO_TRADES, NO_TRADES))


def test_cost_share_is_costs_over_gross_winnings():
    assert metrics.cost_share(np.array([3.0, 3.0]), np.array([40.0, -10.0])) == 6 / 40
    assert metrics.cost_share(np.array([3.0]), np.array([-10.0])) == math.inf
    assert math.isnan(metrics.cost_share(NO_TRADES, NO_TRADES))


def test_raising_any_trade_never_lowers_win_rate_profit_factor_or_expectancy():
    rng = np.random.default_rng(1)
    for _ in range(200):
        net = rng.normal(size=20)
        better = net.copy()
        better[rng.integers(20)] += rng.exponential()
        for figure in (metrics.win_rate, metrics.profit_factor, metrics.expectancy):
            assert figure(better) >= figure(net)


# --- position -----------------------------------------------------------------------------------------------


def test_exposure_counts_bars_with_a_position_of_either_sign():
    assert metrics.exposure(np.array([0.0, 2.0, -1.0, 0.0])) == 2 / 4
    assert math.isnan(metrics.exposure(NO_TRADES))


def test_turnover_is_traded_value_over_average_equity_per_year():
    # 400 traded on an average equity of 100 in 2 sessions of a 250-session year.
    assert metrics.turnover(np.array([200.0, -200.0]), np.array([90.0, 110.0]), 2, 250.0) == 400 / 100 * 125
    assert math.isnan(metrics.turnover(np.array([1.0]), NO_TRADES, 0, 250.0))
    assert math.isnan(metrics.turnover(np.array([1.0]), np.array([-5.0]), 1, 250.0))


# --- session returns ----------------------------------------------------------------------------------------


def test_session_returns_compare_the_last_equity_of_each_session_with_that_of_the_one_before():
    equity = np.array([101.0, 110.0, 120.0, 99.0, 99.0])
    session = np.array([0, 0, 3, 3, 4])
    np.testing.assert_allclose(
        metrics.session_returns(equity, session, 100.0), [110 / 100 - 1, 99 / 110 - 1, 0.0], atol=1e-15
    )


def test_session_returns_multiply_to_the_whole_return():
    rng = np.random.default_rng(3)
    equity = 1000.0 * np.cumprod(1 + rng.normal(0, 0.01, 60))
    returns = metrics.session_returns(equity, np.repeat(np.arange(12), 5), 1000.0)
    assert len(returns) == 12
    assert np.prod(1 + returns) == pytest.approx(equity[-1] / 1000.0)


def test_session_returns_of_no_bars_are_empty():
    assert metrics.session_returns(NO_TRADES, NO_TRADES, 100.0).shape == (0,)


def test_an_account_without_money_earns_zero_while_it_stands_still_and_nan_when_it_moves():
    returns = metrics.session_returns(np.array([50.0, 0.0, 0.0, 5.0]), np.arange(4), 100.0)
    np.testing.assert_array_equal(returns, [-0.5, -1.0, 0.0, np.nan])


def test_session_returns_refuse_sessions_that_run_backwards_or_do_not_match():
    with pytest.raises(ValueError, match="backwards after bar 1"):
        metrics.session_returns(np.ones(3), np.array([1, 2, 1]), 1.0)
    with pytest.raises(ValueError, match="one session per bar"):
        metrics.session_returns(np.ones(3), np.array([1, 2]), 1.0)


# --- ratios -------------------------------------------------------------------------------------------------


def test_sharpe_by_hand():
    # Mean 0.01, deviations -0.01 and 0.01, so the standard deviation over n - 1 is sqrt(0.0002).
    assert metrics.sharpe_ratio(np.array([0.0, 0.02]), 252.0) == pytest.approx(
        0.01 / math.sqrt(0.0002) * math.sqrt(252)
    )


def test_sortino_takes_the_root_mean_square_loss_over_all_sessions():
    # One loss of 0.02 in four sessions: sqrt(0.0004 / 4) = 0.01; mean 0.01.
    assert metrics.sortino_ratio(np.array([0.02, 0.02, 0.02, -0.02]), 100.0) == pytest.approx(
        0.01 / 0.01 * 10
    )


def test_drawdown_counts_from_the_peak_and_from_the_start():
    assert metrics.max_drawdown(np.array([100.0, 120.0, 90.0, 130.0, 117.0])) == pytest.approx(30 / 120)
    assert metrics.max_drawdown(np.array([100.0, 95.0, 97.0])) == pytest.approx(0.05)
    assert metrics.max_drawdown(np.array([100.0, 101.0])) == 0.0
    assert metrics.max_drawdown(np.array([100.0, -20.0])) == pytest.approx(1.2)
    assert math.isnan(metrics.max_drawdown(NO_TRADES))


def test_growth_is_yearly_and_calmar_divides_it_by_the_drawdown():
    assert metrics.cagr(100.0, 121.0, 504, 252.0) == pytest.approx(0.1)
    assert metrics.cagr(100.0, 0.0, 10, 252.0) == -1.0
    assert math.isnan(metrics.cagr(100.0, 110.0, 0, 252.0))
    assert metrics.calmar(0.1, 0.2) == pytest.approx(0.5)
    assert metrics.calmar(0.1, 0.0) == math.inf
    assert math.isnan(metrics.calmar(0.0, 0.0))


@pytest.mark.parametrize("level", [0.0, 0.01, 0.1, 1 / 3])
def test_returns_that_do_not_vary_have_no_sharpe_ratio_however_they_are_rounded(level):
    assert math.isnan(metrics.sharpe_ratio(np.full(7, level), DAILY))


def test_ratios_of_too_few_sessions_are_nan():
    assert math.isnan(metrics.sharpe_ratio(np.array([0.01]), DAILY))
    assert math.isnan(metrics.sharpe_ratio(NO_TRADES, DAILY))
    assert math.isnan(metrics.sortino_ratio(NO_TRADES, DAILY))
    assert math.isnan(metrics.sortino_ratio(np.zeros(5), DAILY))
    assert metrics.sortino_ratio(np.array([0.01, 0.0]), DAILY) == math.inf


def test_the_sharpe_ratio_is_about_the_same_from_sessions_and_from_bars():
    """A wrong period shows as a factor of the root of the bars per session."""
    bars_per_session, sessions = 20, 2000
    steps = np.random.default_rng(5).normal(2e-5, 6e-4, bars_per_session * sessions)
    equity = np.cumprod(1 + steps)
    by_session = metrics.session_returns(equity, np.repeat(np.arange(sessions), bars_per_session), 1.0)
    per_session = metrics.sharpe_ratio(by_session, 250.0)
    assert per_session == pytest.approx(metrics.sharpe_ratio(steps, 250.0 * bars_per_session), rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_return_figures_agree_with_quantstats(seed):
    quantstats = pytest.importorskip("quantstats", reason="the independent library; install the dev extra")
    pandas = pytest.importorskip("pandas", reason="quantstats needs it; install the dev extra")
    returns = returns_of(seed)
    equity = 1000.0 * np.concatenate([[1.0], np.cumprod(1 + returns)])
    series = pandas.Series(returns, index=pandas.bdate_range("2020-01-01", periods=len(returns)))
    stats = quantstats.stats
    drawdown = metrics.max_drawdown(equity)
    growth = metrics.cagr(equity[0], equity[-1], len(returns), DAILY)
    assert metrics.sharpe_ratio(returns, DAILY) == pytest.approx(stats.sharpe(series, periods=252), rel=1e-12)
    assert metrics.sortino_ratio(returns, DAILY) == pytest.approx(
        stats.sortino(series, periods=252), rel=1e-12
    )
    assert drawdown == pytest.approx(-stats.max_drawdown(series), rel=1e-12)
    assert growth == pytest.approx(stats.cagr(series, periods=252), rel=1e-10)
    assert metrics.calmar(growth, drawdown) == pytest.approx(stats.calmar(series, periods=252), rel=1e-10)


# --- intervals and luck -------------------------------------------------------------------------------------


def test_wilson_interval_by_hand():
    # 8 of 10: centre (0.8 + z^2/20) / (1 + z^2/10), half width z sqrt(0.016 + z^2/400) / (1 + z^2/10).
    z = 1.959964
    scale = 1 + z * z / 10
    centre, half = (0.8 + z * z / 20) / scale, z * math.sqrt(0.8 * 0.2 / 10 + z * z / 400) / scale
    assert metrics.wilson_interval(8, 10) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_wilson_interval_has_a_width_where_everything_was_won():
    lower, upper = metrics.wilson_interval(20, 20)
    assert 0.8 < lower < 0.9
    assert upper == pytest.approx(1.0)


def test_wilson_interval_of_no_trades_is_nan():
    assert all(math.isnan(end) for end in metrics.wilson_interval(0, 0))


def test_wilson_interval_shrinks_with_more_trades_and_widens_with_confidence():
    widths = [np.ptp(metrics.wilson_interval(0.4 * n, n)) for n in (10, 50, 250)]
    assert widths[0] > widths[1] > widths[2]
    assert np.ptp(metrics.wilson_interval(4, 10, 0.99)) > np.ptp(metrics.wilson_interval(4, 10, 0.9))


def test_the_deflated_sharpe_ratio_reproduces_the_published_example():
    # 100 trials, variance of their annual ratios 1/2, 1250 days, annual ratio 2.5, skewness -3, kurtosis 10.
    variance = 0.5 / 250
    assert metrics.best_sharpe_by_luck(100, variance) == pytest.approx(0.1132, abs=5e-5)
    found = metrics.deflated_sharpe(2.5 / math.sqrt(250), 1250, -3.0, 10.0, 100, variance)
    assert found == pytest.approx(0.9004, abs=5e-5)


def test_the_deflated_sharpe_ratio_falls_with_the_number_of_trials():
    returns = returns_of(4)
    found = [metrics.deflated_sharpe_of(returns, trials, 0.002) for trials in (1, 2, 10, 100)]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]


def test_one_trial_of_a_normal_series_without_edge_deflates_to_a_half():
    assert metrics.deflated_sharpe(0.0, 100, 0.0, 3.0, 1, 0.002) == pytest.approx(0.5)


def test_luck_needs_at_least_one_trial():
    with pytest.raises(ValueError, match="at least 1"):
        metrics.best_sharpe_by_luck(0, 0.1)


def test_the_deflated_sharpe_ratio_of_a_flat_line_is_nan():
    assert math.isnan(metrics.deflated_sharpe_of(np.zeros(50), 3, 0.1))


def test_the_sharpe_interval_covers_the_true_ratio_about_as_often_as_it_says():
    true_annual = 0.0005 / 0.01 * math.sqrt(DAILY)
    covered = 0
    for seed in range(1000):
        lower, upper = metrics.sharpe_interval(returns_of(seed, sessions=120), DAILY, 0.9)
        covered += lower <= true_annual <= upper
    # Binomial spread of 1000 draws at 0.9 is 0.0095.
    assert 0.87 <= covered / 1000 <= 0.93


def test_the_sharpe_interval_of_noise_over_60_sessions_is_about_two_wide_to_each_side():
    """A quarter of data cannot show a Sharpe ratio of 1; the report has to say so."""
    lower, upper = metrics.sharpe_interval(returns_of(0, sessions=60), DAILY, 0.6827)
    assert 1.8 < (upper - lower) / 2 < 2.3


# --- what is written ----------------------------------------------------------------------------------------


def test_figures_that_cannot_be_computed_are_null_with_a_reason():
    numbers, not_computed = metrics.figures(
        win_rate=math.nan,
        profit_factor=math.inf,
        trades=np.int64(7),
        sharpe_ratio=np.float64(1.5),
        other=None,
    )
    assert numbers == {
        "win_rate": None,
        "profit_factor": None,
        "trades": 7,
        "sharpe_ratio": 1.5,
        "other": None,
    }
    assert not_computed == {
        "win_rate": "no trade was closed",
        "profit_factor": "no trade lost money",
        "other": "not measured",
    }
    assert json.loads(json.dumps({**numbers, "not_computed": not_computed}, allow_nan=False))["trades"] == 7


def test_a_table_instead_of_a_row_is_refused():
    with pytest.raises(ValueError, match="one-dimensional"):
        metrics.win_rate(np.zeros((2, 2)))
