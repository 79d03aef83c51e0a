"""Figures of a trading record: values by hand, empty input, and agreement with an independent library."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

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


def quantstats_of(values: np.ndarray):
    """Return the independent library and the values as it wants them."""
    quantstats = pytest.importorskip("quantstats", reason="the independent library; install the dev extra")
    pandas = pytest.importorskip("pandas", reason="quantstats needs it; install the dev extra")
    index = pandas.bdate_range("2020-01-01", periods=len(values))
    return quantstats.stats, pandas.Series(values, index=index)


@pytest.mark.parametrize("seed", range(3))
def test_trade_figures_agree_with_quantstats_where_it_is_given_trades(seed):
    """It counts periods; a ledger's trades, one a period and none of them zero, are the same to it."""
    net = returns_of(seed, sessions=60, drift=1.0, spread=30.0)
    stats, series = quantstats_of(net)
    given = {"prepare_returns": False}
    assert metrics.win_rate(net) == pytest.approx(stats.win_rate(series, **given), rel=1e-12)
    assert metrics.profit_factor(net) == pytest.approx(stats.profit_factor(series, **given), rel=1e-12)
    assert metrics.payoff_ratio(net) == pytest.approx(stats.payoff_ratio(series, **given), rel=1e-12)
    assert metrics.expectancy(net) == pytest.approx(stats.avg_return(series, **given), rel=1e-12)


def test_a_trade_over_many_periods_counts_once_where_quantstats_counts_each_period():
    """Why its win rate and profit factor of session returns may never reach a gate."""
    # Two trades: 100 -> 102, 101, 104, and 104 -> 103, 105, 102. By session 3 of 6 won, by trade 1 of 2.
    by_session = np.array([2.0, -1.0, 3.0, -1.0, 2.0, -3.0])
    by_trade = np.array([by_session[:3].sum(), by_session[3:].sum()])
    stats, series = quantstats_of(by_session)
    assert metrics.win_rate(by_trade) == 0.5
    assert metrics.profit_factor(by_trade) == 4.0 / 2.0
    assert stats.profit_factor(series, prepare_returns=False) == pytest.approx(7.0 / 5.0)


# Ledgers worked out by hand: net results, then won, lost and the figures that follow.
LEDGERS = [
    # net results, win rate, profit factor, payoff ratio, expectancy, break-even win rate
    ([50.0, -25.0], 1 / 2, 2.0, 2.0, 12.5, 1 / 3),
    ([10.0, 10.0, 10.0, -60.0], 3 / 4, 0.5, 1 / 6, -7.5, 6 / 7),
    ([-1.0, -1.0, -1.0, 12.0], 1 / 4, 4.0, 12.0, 2.25, 1 / 13),
    ([0.0, 0.0, 8.0, -4.0], 1 / 4, 2.0, 6.0, 1.0, (4 / 3) / (8 + 4 / 3)),
    ([1e-9, -1e9], 1 / 2, 1e-18, 1e-18, -5e8, 1.0),
]


@pytest.mark.parametrize(("net", "won", "factor", "payoff", "mean", "even"), LEDGERS)
def test_figures_of_ledgers_worked_out_by_hand(net, won, factor, payoff, mean, even):
    net = np.array(net)
    assert metrics.win_rate(net) == won
    assert metrics.profit_factor(net) == pytest.approx(factor, rel=1e-12)
    assert metrics.payoff_ratio(net) == pytest.approx(payoff, rel=1e-12)
    assert metrics.expectancy(net) == pytest.approx(mean, rel=1e-12)
    assert metrics.break_even_win_rate(net) == pytest.approx(even, rel=1e-12)


def test_return_figures_are_those_of_empyricals_formulae():
    """Written out from its source, since the package itself would bring an old peewee along.

    sharpe_ratio: mean / std(ddof=1) * sqrt(p). downside_risk: sqrt(mean(min(r, 0)^2)) * sqrt(p), and sortino_ratio:
    mean * p over it. max_drawdown: min of cum / running maximum - 1, the start counted. annual_return: final value to
    the power of 1 / years, less 1. calmar_ratio: that over the drawdown.
    """
    returns, p = returns_of(9, sessions=300), 365.0
    value = np.concatenate([[1.0], np.cumprod(1.0 + returns)])
    drawdown = np.min(value / np.maximum.accumulate(value) - 1.0)
    yearly = value[-1] ** (1.0 / (len(returns) / p)) - 1.0
    downside = np.sqrt(np.mean(np.clip(returns, -np.inf, 0.0) ** 2)) * np.sqrt(p)
    assert metrics.sharpe_ratio(returns, p) == pytest.approx(
        np.mean(returns) / np.std(returns, ddof=1) * np.sqrt(p), rel=1e-12
    )
    assert metrics.sortino_ratio(returns, p) == pytest.approx(np.mean(returns) * p / downside, rel=1e-12)
    assert metrics.max_drawdown(value) == pytest.approx(-drawdown, rel=1e-12)
    found = metrics.cagr(1.0, value[-1], len(returns), p)
    assert found == pytest.approx(yearly, rel=1e-9)
    assert metrics.calmar(found, metrics.max_drawdown(value)) == pytest.approx(yearly / -drawdown, rel=1e-9)


def test_one_trial_deflates_to_the_probabilistic_sharpe_ratio_of_quantstats():
    """It estimates skewness and kurtosis in another way than we do, so it is compared on its own estimates."""
    returns = returns_of(6, sessions=250) ** 3 * 1e4  # fat tails
    stats, series = quantstats_of(returns)
    skew, kurtosis = (
        stats.skew(series, prepare_returns=False),
        stats.kurtosis(series, prepare_returns=False) + 3,
    )
    ratio = stats.sharpe(series, annualize=False)
    found = metrics.deflated_sharpe(ratio, len(returns), skew, kurtosis, trials=1, trial_variance=0.0)
    assert found == pytest.approx(stats.probabilistic_sharpe_ratio(series), rel=1e-9)
    assert 0.01 < found < 0.99


# --- intervals and luck -------------------------------------------------------------------------------------


def test_wilson_interval_by_hand():
    # 8 of 10: centre (0.8 + z^2/20) / (1 + z^2/10), half width z sqrt(0.016 + z^2/400) / (1 + z^2/10).
    z = 1.959964
    scale = 1 + z * z / 10
    centre, half = (0.8 + z * z / 20) / scale, z * math.sqrt(0.8 * 0.2 / 10 + z * z / 400) / scale
    assert metrics.wilson_interval(8, 10) == pytest.approx((centre - half, centre + half), abs=1e-6)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(("wins", "trades"), [(0, 5), (5, 5), (3, 7), (400, 1000)])
def test_wilson_interval_is_that_of_scipy(wins, trades, confidence):
    theirs = scipy_stats.binomtest(wins, trades).proportion_ci(confidence, method="wilson")
    assert metrics.wilson_interval(wins, trades, confidence) == pytest.approx(
        (theirs.low, theirs.high), abs=1e-12
    )


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


@pytest.mark.parametrize("trials", [2, 10, 100])
def test_the_best_of_several_worthless_trials_is_as_good_as_said(trials):
    """Against 20,000 draws; the formula is an approximation, a few per cent off for few trials."""
    drawn = np.random.default_rng(trials).normal(0.0, 0.05, (20_000, trials)).max(axis=1)
    assert metrics.best_sharpe_by_luck(trials, 0.05**2) == pytest.approx(
        drawn.mean(), rel=0.1 if trials < 5 else 0.03
    )


def test_the_deflated_sharpe_ratio_of_a_series_uses_its_own_moments():
    returns = returns_of(8, sessions=200) ** 3 * 1e4
    ratio = np.mean(returns) / np.std(returns, ddof=1)
    skew, kurtosis = scipy_stats.skew(returns), scipy_stats.kurtosis(returns, fisher=False)
    spread = math.sqrt(1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2)
    by_hand = scipy_stats.norm.cdf(
        (ratio - metrics.best_sharpe_by_luck(7, 0.003)) * math.sqrt(len(returns) - 1) / spread
    )
    assert metrics.deflated_sharpe_of(returns, 7, 0.003) == pytest.approx(by_hand, rel=1e-9)
    half = scipy_stats.norm.ppf(0.95) * spread / math.sqrt(len(returns) - 1)
    assert metrics.sharpe_interval(returns, DAILY, 0.9) == pytest.approx(
        ((ratio - half) * math.sqrt(DAILY), (ratio + half) * math.sqrt(DAILY)), rel=1e-9
    )


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


def test_every_reason_is_one_of_its_own_figure():
    """A figure under a name without reasons of its own says only that it is not defined."""
    assert metrics.reason_not_computed("sharpe_low", math.nan).startswith("fewer than two sessions")
    assert metrics.reason_not_computed("annual_return", math.inf) == "growth too large for a number"
    assert metrics.reason_not_computed("calmar_ratio", math.inf) == "the equity never fell below its peak"
    assert metrics.reason_not_computed("unheard_of", math.nan) == "it is not defined for this record"
    assert metrics.reason_not_computed("unheard_of", math.inf) == "it is not bounded for this record"


def test_a_table_instead_of_a_row_is_refused():
    with pytest.raises(ValueError, match="one-dimensional"):
        metrics.win_rate(np.zeros((2, 2)))
