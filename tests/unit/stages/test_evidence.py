"""One test for every criterion, its false positives, and the ledger that counts looks."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student_t

from rl.common.errors import DataError
from rl.stages.evidence import (
    EvidenceLedger,
    alpha_for_attempt,
    benjamini_hochberg,
    counted_attempt,
    intercept_against,
    paired_test,
    profit_factor_excess,
    profit_factor_interval,
    session_clustered_t,
    sessions_needed,
    win_rate_excess,
    window_hash,
)

WINDOW = window_hash("Nifty_2", 0, 1_000, "abc")


def shocked_trades(rng: np.random.Generator, sessions: int, per_session: int, shared: float = 1.0):
    """Trades without any edge; those of one session share a shock."""
    shocks = np.repeat(rng.normal(size=sessions), per_session) * shared
    return shocks + rng.normal(size=sessions * per_session), np.repeat(np.arange(sessions), per_session)


# --- the clustered test -------------------------------------------------------------------------------------


def test_the_test_by_hand():
    # Sums by session: 3, 5, 1. Mean sum 3, their standard deviation 2, so t = 3 / (2 / sqrt(3)).
    values = np.array([1.0, 2.0, 5.0, 4.0, -3.0])
    found = session_clustered_t(values, np.array([7, 7, 8, 9, 9]))
    assert found.mean == pytest.approx(9 / 5)
    assert found.t == pytest.approx(3 / (2 / math.sqrt(3)))
    assert found.standard_error == pytest.approx(found.mean / found.t)
    assert (found.sessions, found.trades) == (3, 5)
    # Student's t with two degrees of freedom has the distribution function 1/2 + t / (2 sqrt(2 + t^2)).
    t = found.t
    assert found.p_above_zero == pytest.approx(0.5 - t / (2 * math.sqrt(2 + t * t)))
    assert found.p_above_zero + found.p_below_zero == pytest.approx(1.0)
    # 4.302653 is the two-sided 95 % point with two degrees of freedom.
    assert found.upper - found.mean == pytest.approx(4.302653 * found.standard_error, rel=1e-6)
    assert found.mean - found.lower == pytest.approx(4.302653 * found.standard_error, rel=1e-6)


def test_the_order_of_trades_and_the_names_of_sessions_do_not_matter():
    rng = np.random.default_rng(0)
    values, sessions = shocked_trades(rng, 10, 4)
    order = rng.permutation(len(values))
    first = session_clustered_t(values, sessions)
    second = session_clustered_t(values[order], 1000 - 3 * sessions[order])
    assert second.p_above_zero == pytest.approx(first.p_above_zero, rel=1e-9)


def test_one_trade_a_session_is_the_plain_t_test():
    values = np.random.default_rng(1).normal(0.3, 1.0, 25)
    found = session_clustered_t(values, np.arange(25))
    assert found.t == pytest.approx(values.mean() / (values.std(ddof=1) / 5))


def test_sessions_without_trades_do_not_count():
    """Three sessions of trading in a quiet year are three observations, not 250."""
    values, sessions = np.array([1.0, 2.0, 1.5]), np.array([3, 90, 200])
    assert session_clustered_t(values, sessions).sessions == 3


@pytest.mark.parametrize(("values", "sessions"), [([], []), ([1.0, 2.0], [4, 4])])
def test_fewer_than_two_sessions_prove_nothing(values, sessions):
    found = session_clustered_t(np.array(values), np.array(sessions))
    assert math.isnan(found.p_above_zero)
    assert math.isnan(found.p_below_zero)
    assert math.isnan(found.lower)


def test_equal_sums_are_judged_by_their_sign_alone_and_never_prove_everything():
    # 0.1 + 0.2 and 0.3 are equal in truth but not in binary.
    found = session_clustered_t(np.array([0.1, 0.2, 0.3, 0.3]), np.array([0, 0, 1, 2]))
    assert found.t == math.inf
    assert found.p_above_zero == 0.5**3
    assert session_clustered_t(np.full(3, -2.0), np.arange(3)).p_below_zero == 0.5**3
    assert math.isnan(session_clustered_t(np.zeros(3), np.arange(3)).p_above_zero)


def test_a_value_that_is_not_finite_is_refused_with_its_place():
    with pytest.raises(ValueError, match=r"values\[1\] is nan"):
        session_clustered_t(np.array([1.0, math.nan]), np.array([0, 1]))
    with pytest.raises(ValueError, match="one session each"):
        session_clustered_t(np.array([1.0]), np.array([0, 1]))


@pytest.mark.parametrize(("sessions", "per_session"), [(20, 5), (20, 20), (60, 20)])
def test_trades_that_share_a_shock_do_not_make_a_false_edge(sessions, per_session):
    """A nominal 5 % test of trades instead of sessions is wrong here in 7 to 14 % of cases."""
    rng = np.random.default_rng(2)
    # 0.55 gives the shared part a quarter of the variance, as news of a day has in intraday trades.
    false = sum(
        session_clustered_t(*shocked_trades(rng, sessions, per_session, 0.55)).p_above_zero <= 0.05
        for _ in range(2000)
    )
    assert 0.03 <= false / 2000 <= 0.07


def test_the_same_check_catches_a_test_that_counts_trades():
    rng = np.random.default_rng(2)
    false = 0
    for _ in range(2000):
        values, _ = shocked_trades(rng, 20, 20, 0.55)
        false += session_clustered_t(values, np.arange(len(values))).p_above_zero <= 0.05
    assert false / 2000 > 0.10


def test_an_uneven_number_of_trades_a_session_does_not_make_a_false_edge():
    rng = np.random.default_rng(3)
    false = 0
    for _ in range(2000):
        counts = rng.poisson(3.0, 40)  # some sessions have none
        sessions = np.repeat(np.arange(40), counts)
        values = np.repeat(rng.normal(size=40), counts) + rng.standard_t(4, counts.sum())
        false += session_clustered_t(values, sessions).p_above_zero <= 0.05
    assert 0.03 <= false / 2000 <= 0.07


def test_a_few_trading_sessions_in_a_long_window_do_not_make_a_false_edge():
    rng = np.random.default_rng(4)
    false = 0
    for _ in range(2000):
        sessions = np.repeat(rng.choice(250, 4, replace=False), 5)
        values = np.repeat(rng.normal(size=4), 5) + rng.normal(size=20)
        false += session_clustered_t(values, sessions).p_above_zero <= 0.05
    assert false / 2000 <= 0.07


def test_a_real_edge_is_found():
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(300):
        values, sessions = shocked_trades(rng, 60, 5, 0.55)
        found += session_clustered_t(values + 0.4, sessions).p_above_zero <= 0.025
    assert found / 300 > 0.9


def test_adding_to_every_trade_lowers_p_where_sessions_are_even():
    values, sessions = shocked_trades(np.random.default_rng(6), 15, 4)
    p = [session_clustered_t(values + added, sessions).p_above_zero for added in (-1.0, -0.2, 0.0, 0.3, 2.0)]
    assert p == sorted(p, reverse=True)


def test_p_does_not_depend_on_the_currency():
    values, sessions = shocked_trades(np.random.default_rng(7), 15, 4)
    assert session_clustered_t(values * 1e6, sessions).p_above_zero == pytest.approx(
        session_clustered_t(values, sessions).p_above_zero
    )


# --- criteria as means --------------------------------------------------------------------------------------


def test_a_criterion_is_met_exactly_where_its_mean_is_not_negative():
    net = np.array([30.0, -20.0, 0.0, 10.0])  # win rate 0.5, profit factor 2
    assert win_rate_excess(net, 0.5).mean() == 0.0
    assert win_rate_excess(net, 0.51).mean() < 0.0 < win_rate_excess(net, 0.49).mean()
    assert profit_factor_excess(net, 2.0).mean() == 0.0
    assert profit_factor_excess(net, 2.1).mean() < 0.0 < profit_factor_excess(net, 1.9).mean()
    np.testing.assert_array_equal(profit_factor_excess(net, 0.5), [30.0, -10.0, 0.0, 10.0])


@pytest.mark.parametrize("seed", range(6))
def test_the_interval_of_the_profit_factor_ends_where_the_test_begins_to_reject(seed):
    net, sessions = shocked_trades(np.random.default_rng(seed), 40, 5, 0.5)
    lower, upper = profit_factor_interval(net, sessions, confidence=0.9)
    assert 0.0 < lower < net[net > 0].sum() / -net[net < 0].sum() < upper < math.inf
    # A two-sided 90 % interval leaves 5 % on either side.
    assert session_clustered_t(profit_factor_excess(net, lower), sessions).p_above_zero == pytest.approx(0.05)
    assert session_clustered_t(profit_factor_excess(net, upper), sessions).p_below_zero == pytest.approx(0.05)


def test_the_interval_of_the_profit_factor_is_open_where_losses_are_too_few_to_bound_it():
    net = np.array([1.0, 2.0, 1.0, 3.0, -0.5, 2.0])
    lower, upper = profit_factor_interval(net, np.arange(6))
    assert lower > 0.0
    assert upper == math.inf
    # Just above the lower end nothing is rejected, however large the factor.
    assert session_clustered_t(profit_factor_excess(net, 1e9), np.arange(6)).p_below_zero > 0.025


@pytest.mark.parametrize("seed", range(200))
def test_the_interval_of_the_profit_factor_holds_what_was_observed(seed):
    rng = np.random.default_rng(seed)
    net = rng.standard_t(2, 12)
    sessions = rng.integers(0, 5, 12)
    lower, upper = profit_factor_interval(net, sessions)
    observed = net[net > 0].sum() / -net[net < 0].sum()
    assert lower <= observed <= upper


def test_a_record_without_losses_has_no_interval():
    assert all(math.isnan(end) for end in profit_factor_interval(np.ones(4), np.arange(4)))
    assert all(math.isnan(end) for end in profit_factor_interval(np.array([1.0, -1.0]), np.array([0, 0])))


# --- comparisons --------------------------------------------------------------------------------------------


def test_a_paired_test_sees_a_small_lead_under_a_large_common_swing():
    rng = np.random.default_rng(8)
    market = rng.normal(0, 0.05, 60)
    earlier, later = market + rng.normal(0, 0.001, 60), market + 0.001 + rng.normal(0, 0.001, 60)
    found = paired_test(later, earlier)
    assert found.p_above_zero < 0.001
    assert found.lower < 0.001 < found.upper
    assert found.sessions == found.trades == 60


def test_a_paired_test_needs_the_same_sessions():
    with pytest.raises(ValueError, match="same sessions"):
        paired_test(np.zeros(3), np.zeros(4))


def test_the_intercept_by_hand():
    # Benchmark -1, 0, 1 has the mean 0, so alpha is the mean 2 and beta (-1 * 1 + 1 * 3) / 2 = 1.
    found = intercept_against(np.array([1.0, 2.0, 3.0]), np.array([-1.0, 0.0, 1.0]))
    assert (found.alpha, found.beta) == (pytest.approx(2.0), pytest.approx(1.0))
    assert found.sessions == 3


def test_the_intercept_agrees_with_statsmodels():
    api = pytest.importorskip("statsmodels.api", reason="the independent library; comes with arch")
    rng = np.random.default_rng(9)
    benchmark = rng.normal(0.0005, 0.01, 80)
    strategy = 0.0004 + 0.6 * benchmark + rng.normal(0, 0.005, 80) * (1 + 50 * np.abs(benchmark))
    fit = api.OLS(strategy, api.add_constant(benchmark)).fit(cov_type="HC3", use_t=True)
    found = intercept_against(strategy, benchmark, confidence=0.9)
    assert found.alpha == pytest.approx(fit.params[0], rel=1e-9)
    assert found.beta == pytest.approx(fit.params[1], rel=1e-9)
    assert found.standard_error == pytest.approx(fit.bse[0], rel=1e-9)
    assert (found.lower, found.upper) == pytest.approx(tuple(fit.conf_int(0.1)[0]), rel=1e-8)
    assert 2 * min(found.p_above_zero, found.p_below_zero) == pytest.approx(fit.pvalues[0], rel=1e-8)


def test_half_of_buy_and_hold_has_no_intercept_in_a_rising_market():
    """Always long makes money where everything rises; that is not an edge."""
    benchmark = np.random.default_rng(10).normal(0.002, 0.01, 60)
    found = intercept_against(0.5 * benchmark, benchmark)
    assert found.alpha == 0.0
    assert found.beta == pytest.approx(0.5)


@pytest.mark.parametrize(
    "benchmark",
    [np.zeros(10), np.full(10, 0.1), np.concatenate([np.zeros(9), [0.05]])],
    ids=["still", "constant", "one move"],
)
def test_without_a_moving_benchmark_there_is_no_intercept(benchmark):
    assert math.isnan(intercept_against(np.linspace(0, 1, 10), benchmark).alpha)


def test_two_sessions_have_no_intercept():
    assert math.isnan(intercept_against(np.array([0.1, 0.2]), np.array([0.0, 0.1])).alpha)


# --- several looks ------------------------------------------------------------------------------------------


def test_all_attempts_together_spend_no_more_than_alpha():
    spent = [alpha_for_attempt(attempt, 0.05) for attempt in range(1, 10_001)]
    assert spent[:3] == pytest.approx([0.05 / 2, 0.05 / 6, 0.05 / 12])
    assert spent == sorted(spent, reverse=True)
    assert 0.0499 < sum(spent) < 0.05
    with pytest.raises(ValueError, match="from 1"):
        alpha_for_attempt(0, 0.05)


def test_twenty_retries_on_one_window_rarely_succeed_on_noise():
    rng = np.random.default_rng(11)
    runs, passed = 400, 0
    for _ in range(runs):
        passed += any(
            session_clustered_t(rng.normal(size=20), np.arange(20)).p_above_zero <= alpha_for_attempt(k, 0.05)
            for k in range(1, 21)
        )
    # Three standard deviations above 5 % of 400 runs.
    assert passed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_benjamini_hochberg_by_hand():
    # Limits q k / n at q = 0.05: 0.01, 0.02, 0.03, 0.04, 0.05. The last p under its own limit is the third.
    p = np.array([0.2, 0.025, 0.001, 0.045, 0.021])
    np.testing.assert_array_equal(benjamini_hochberg(p, 0.05), [False, True, True, False, True])


def test_benjamini_hochberg_never_rejects_what_was_not_tested_but_counts_it():
    assert benjamini_hochberg(np.array([0.04]), 0.05).tolist() == [True]
    assert benjamini_hochberg(np.array([0.04, math.nan]), 0.05).tolist() == [False, False]
    assert benjamini_hochberg(np.array([]), 0.05).tolist() == []


def test_lowering_a_p_value_never_loses_a_discovery():
    rng = np.random.default_rng(12)
    for _ in range(300):
        p = rng.random(8) ** 2
        before = benjamini_hochberg(p, 0.2)
        p[rng.integers(8)] *= rng.random()
        assert np.all(benjamini_hochberg(p, 0.2) >= before)


def test_sessions_needed_are_the_fewest_that_would_show_the_observed_mean():
    rng = np.random.default_rng(13)
    values, sessions = shocked_trades(rng, 20, 3, 0.5)
    values += 0.2 - values.mean()
    found = session_clustered_t(values, sessions)
    assert found.p_above_zero > 0.025
    needed = sessions_needed(found, 0.025)
    assert needed is not None

    def p_at(count: int) -> float:
        return float(student_t.sf(found.t * math.sqrt(count / 20), count - 1))

    assert p_at(needed) <= 0.025 < p_at(needed - 1)


def test_sessions_needed_for_what_is_shown_are_those_observed():
    found = session_clustered_t(np.random.default_rng(14).normal(2, 1, 30), np.arange(30))
    assert sessions_needed(found, 0.05) == 30


def test_no_number_of_sessions_shows_a_mean_that_is_not_positive():
    assert sessions_needed(session_clustered_t(np.array([-1.0, -2.0, 1.0]), np.arange(3)), 0.05) is None
    assert sessions_needed(session_clustered_t(np.array([1.0]), np.arange(1)), 0.05) is None


def test_sessions_needed_grow_with_the_strictness():
    found = session_clustered_t(np.random.default_rng(15).normal(0.2, 1, 20), np.arange(20))
    needed = [sessions_needed(found, alpha) or 0 for alpha in (0.1, 0.05, 0.01, 0.001)]
    assert needed == sorted(needed)
    assert 0 < needed[0] < needed[-1]


# --- the ledger ---------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> EvidenceLedger:
    return EvidenceLedger(tmp_path / "runs" / "evidence.jsonl")


def test_attempts_are_counted_by_symbol_window_and_purpose(ledger):
    other_window = window_hash("Nifty_2", 0, 1_001, "abc")
    assert ledger.attempts("Nifty_2", WINDOW, "promotion") == 0
    assert [ledger.record("Nifty_2", WINDOW, "promotion") for _ in range(3)] == [1, 2, 3]
    assert ledger.record("Nifty_2", WINDOW, "progress") == 1
    assert ledger.record("Nifty_5", WINDOW, "promotion") == 1
    assert ledger.record("Nifty_2", other_window, "promotion") == 1
    assert ledger.attempts("Nifty_2", WINDOW, "promotion") == 3


def test_a_new_ledger_object_goes_on_counting(ledger):
    ledger.record("Nifty_2", WINDOW, "promotion", seed=7)
    again = EvidenceLedger(ledger.path)
    assert again.record("Nifty_2", WINDOW, "promotion") == 2
    assert again.entries()[0]["seed"] == 7


def test_looking_at_the_same_model_again_is_not_another_attempt(ledger):
    """A run killed between look and verdict has to come back to the alpha it had."""
    assert ledger.record("Nifty_2", WINDOW, "promotion", subject="weights A") == 1
    assert ledger.record("Nifty_2", WINDOW, "promotion", subject="weights B") == 2
    assert ledger.record("Nifty_2", WINDOW, "promotion", subject="weights A") == 1
    assert ledger.attempts("Nifty_2", WINDOW, "promotion") == 2


def test_a_window_that_overlaps_an_earlier_one_is_not_fresh(ledger):
    later, far = window_hash("Nifty_2", 500, 1_500, "abc"), window_hash("Nifty_2", 2_000, 3_000, "abc")
    assert ledger.record("Nifty_2", WINDOW, "promotion", span=(0, 1_000)) == 1
    assert ledger.record("Nifty_2", later, "promotion", span=(500, 1_500)) == 2
    assert ledger.record("Nifty_2", far, "promotion", span=(2_000, 3_000)) == 1
    assert ledger.attempts("Nifty_2", far, "promotion", span=(1_200, 3_000)) == 2


def test_a_verdict_is_kept_beside_its_look_and_written_once(ledger):
    attempt = ledger.record("Nifty_2", WINDOW, "promotion")
    ledger.conclude("Nifty_2", WINDOW, "promotion", attempt, outcome="FAIL", p=0.4)
    ledger.conclude("Nifty_2", WINDOW, "promotion", attempt, outcome="FAIL", p=0.4)
    assert [entry["kind"] for entry in ledger.entries()] == ["look", "verdict"]
    assert ledger.attempts("Nifty_2", WINDOW, "promotion") == 1
    with pytest.raises(DataError, match="holds no look number 2"):
        ledger.conclude("Nifty_2", WINDOW, "promotion", 2, outcome="PASS")


def test_lines_are_only_ever_added(ledger):
    ledger.record("Nifty_2", WINDOW, "progress")
    before = ledger.path.read_bytes()
    ledger.record("Nifty_2", WINDOW, "progress")
    assert ledger.path.read_bytes().startswith(before)


def test_every_cut_of_the_last_line_leaves_a_ledger_that_counts(ledger):
    for _ in range(2):
        ledger.record("Nifty_2", WINDOW, "progress", note={"a": {"b": 1}})
    whole = ledger.path.read_bytes()
    first_line = whole.index(b"\n") + 1
    for cut in range(first_line, len(whole)):
        ledger.path.write_bytes(whole[:cut])
        fresh = EvidenceLedger(ledger.path)
        if cut == first_line:
            assert fresh.record("Nifty_2", WINDOW, "progress") == 2
            assert fresh.notes == []
            continue
        with pytest.warns(UserWarning, match="line 2: cut off"):
            assert fresh.record("Nifty_2", WINDOW, "progress") == 2
        assert "not counted" in fresh.notes[0]
        # Whoever reads on is told as well, and counts on; a line that lacks its end only is readable by then.
        reader = EvidenceLedger(ledger.path)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert reader.attempts("Nifty_2", WINDOW, "progress") == 2
        assert len(said) == len(reader.notes) == (cut < len(whole) - 1)
        assert ledger.path.read_bytes().startswith(whole[:cut])


@pytest.mark.filterwarnings("ignore:.*cut off")
def test_two_crashes_in_a_row_leave_a_ledger_that_counts(ledger):
    ledger.record("Nifty_2", WINDOW, "progress")
    for _ in range(2):
        length = len(ledger.path.read_bytes())
        EvidenceLedger(ledger.path).record("Nifty_2", WINDOW, "progress")
        ledger.path.write_bytes(ledger.path.read_bytes()[: length + 30])
    survivor = EvidenceLedger(ledger.path)
    assert survivor.record("Nifty_2", WINDOW, "progress") == 2
    assert len(survivor.notes) == 2


@pytest.mark.parametrize("line", [1, 2, 3])
def test_a_changed_line_is_refused_by_number(ledger, line):
    """A count with a hole proves nothing."""
    for _ in range(3):
        ledger.record("Nifty_2", WINDOW, "progress")
    lines = ledger.path.read_text().splitlines()
    lines[line - 1] = lines[line - 1].replace('"attempt"', '"attempts"')
    ledger.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=f"line {line}: is not a line"):
        ledger.record("Nifty_2", WINDOW, "progress")


# --- lines that are chained -----------------------------------------------------------------------------------------


@pytest.fixture
def chained(ledger) -> EvidenceLedger:
    """Two looks and what came of the first."""
    ledger.record("Nifty_2", WINDOW, "promotion", subject="weights")
    ledger.conclude("Nifty_2", WINDOW, "promotion", 1, outcome="FAIL", p=0.25)
    ledger.record("Nifty_2", WINDOW, "promotion", subject="others")
    return ledger


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        (1, '"attempt": 1', '"attempt": 2'),
        (1, '"subject": "weights"', '"subject": "weight"'),
        (2, '"p": 0.25', '"p": 0.05'),
        (2, '"outcome": "FAIL"', '"outcome": "PASS"'),
        (3, '"attempt": 2', '"attempt": 1'),
        (3, '"time": "2', '"time": "1'),
        (2, ', "p"', ',  "p"'),
    ],
)
def test_one_changed_figure_is_refused_with_its_line(chained, line, old, new):
    lines = chained.path.read_text().splitlines()
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    chained.path.write_text("\n".join(lines) + "\n")
    for ask in (chained.entries, chained.how_sealed, lambda: chained.record("Nifty_2", WINDOW, "promotion")):
        with pytest.raises(DataError, match=f"line {line}: is not as it was written"):
            ask()


@pytest.mark.parametrize(("gone", "told"), [(1, 1), (2, 2)])
def test_a_line_that_was_taken_out_is_noticed_at_the_next(chained, gone, told):
    lines = chained.path.read_text().splitlines()
    del lines[gone - 1]
    chained.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=f"line {told}: is not as it was written"):
        chained.entries()


def test_lines_in_another_order_or_put_between_are_noticed(chained):
    one, two, three = chained.path.read_text().splitlines()
    own = json.dumps({"kind": "look", "symbol": "A", "window_hash": "w", "purpose": "p", "attempt": 1})
    for lines, told in (([two, one, three], 1), ([one, three, two], 2), ([one, own, two, three], 2)):
        chained.path.write_text("\n".join(lines) + "\n")
        with pytest.raises(DataError, match=f"line {told}: is not as it was written"):
            chained.entries()


@pytest.mark.filterwarnings("ignore:.*cut off")
def test_no_flipped_bit_of_a_ledger_passes_for_what_was_written(chained):
    whole, entries = chained.path.read_bytes(), chained.entries()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        chained.path.write_bytes(bytes(changed))
        found = EvidenceLedger(chained.path)
        try:
            read = found.entries()
        except DataError:
            continue
        # The end of the last line: as if it had been cut off, which is said.
        assert found.notes, place
        assert read == entries[:-1]


def test_a_ledger_without_hashes_is_read_and_said_to_be_unverified_and_sealed_by_the_next_line(chained):
    old = [json.dumps(entry) for entry in chained.entries()]
    chained.path.write_text("\n".join(old) + "\n")
    assert chained.how_sealed().startswith("3 of 3 lines of the ledger are of an earlier version")
    assert chained.record("Nifty_2", WINDOW, "promotion") == 3
    assert chained.how_sealed().startswith("3 of 4 lines")
    text = chained.path.read_text()
    chained.path.write_text(text.replace('"p": 0.25', '"p": 0.05'))
    with pytest.raises(DataError, match="line 4: is not as it was written, or a line before it"):
        chained.entries()


def test_a_whole_ledger_says_so(chained):
    said = "All 3 lines of the ledger are as they were written, and none between them is missing"
    assert chained.how_sealed().startswith(said)


def test_a_field_that_cannot_be_written_leaves_the_ledger_as_it_was(ledger):
    ledger.record("Nifty_2", WINDOW, "progress")
    before = ledger.path.read_bytes()
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        ledger.record("Nifty_2", WINDOW, "progress", sharpe=math.nan)
    with pytest.raises(ValueError, match="cannot be given as a field"):
        ledger.record("Nifty_2", WINDOW, "progress", attempt=1)
    with pytest.raises(ValueError, match="non-empty"):
        ledger.record("", WINDOW, "progress")
    assert ledger.path.read_bytes() == before


def _record_many(path: Path, count: int) -> None:
    for _ in range(count):
        EvidenceLedger(path).record("Nifty_2", WINDOW, "progress")


def test_processes_that_record_at_the_same_time_never_share_a_number(ledger):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_record_many, args=(ledger.path, 25)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert sorted(entry["attempt"] for entry in ledger.entries()) == list(range(1, 101))


def test_a_killed_writer_neither_locks_nor_damages_the_ledger(ledger):
    context = multiprocessing.get_context("fork")
    writer = context.Process(target=_record_many, args=(ledger.path, 100_000))
    writer.start()
    deadline = time.monotonic() + 30
    while not ledger.path.exists() or ledger.path.stat().st_size < 2_000:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    writer.kill()
    writer.join()
    counted = ledger.attempts("Nifty_2", WINDOW, "progress")
    assert counted >= 1
    assert ledger.record("Nifty_2", WINDOW, "progress") == counted + 1


def test_every_line_says_when_and_what(ledger):
    ledger.record("Nifty_2", WINDOW, "promotion", subject="s", span=(1, 2), seed=3)
    entry = json.loads(ledger.path.read_text())
    assert entry.pop("time").endswith("+00:00")
    written = ledger.path.read_text().partition(', "chain": ')[0]
    assert entry.pop("chain") == hashlib.sha256(written.encode()).hexdigest()
    assert entry == {
        "kind": "look",
        "symbol": "Nifty_2",
        "window_hash": WINDOW,
        "purpose": "promotion",
        "attempt": 1,
        "subject": "s",
        "span": [1, 2],
        "seed": 3,
    }


def test_the_name_of_a_window_depends_on_symbol_bounds_and_data():
    names = {
        window_hash("Nifty_2", 0, 1_000, "abc"),
        window_hash("Nifty_5", 0, 1_000, "abc"),
        window_hash("Nifty_2", 1, 1_000, "abc"),
        window_hash("Nifty_2", 0, 1_001, "abc"),
        window_hash("Nifty_2", 0, 1_000, "abd"),
    }
    assert len(names) == 5
    assert window_hash("Nifty_2", np.int64(0), np.int64(1_000), "abc") == WINDOW


def test_a_promotion_window_that_moved_into_an_opened_test_window_is_not_fresh(tmp_path):
    """With windows as shares, a longer file moves promotion over bars that backtests of the last models have shown."""
    ledger = EvidenceLedger(tmp_path / "ledger.jsonl")
    for model in ("a", "b", "c"):
        ledger.record("SPY", "old test", "test", subject=model, span=(100, 200))
    assert ledger.record("SPY", "new promotion", "promotion", subject="d", span=(150, 250)) == 4
    # The same once more is the same look; bars nobody has opened, and another symbol's, are fresh.
    assert ledger.record("SPY", "new promotion", "promotion", subject="d", span=(150, 250)) == 4
    assert ledger.record("SPY", "later", "promotion", subject="d", span=(300, 400)) == 1
    assert ledger.record("QQQ", "new promotion", "promotion", subject="d", span=(150, 250)) == 1
    # Promotion does not make backtests or progress dearer.
    assert ledger.record("SPY", "test", "test", subject="d", span=(180, 260)) == 4
    assert ledger.record("SPY", "validation", "progress", subject="d", span=(150, 250)) == 1
    ledger.conclude("SPY", "new promotion", "promotion", 4, outcome="FAIL")
    entries = ledger.entries()
    assert counted_attempt(entries, entries[3]) == 4


FULL_DISK = """
import resource, sys
from rl.common.errors import StorageError
from rl.stages.evidence import EvidenceLedger
ledger = EvidenceLedger(sys.argv[1])
print(ledger.record("Nifty_2", "w", "promotion", subject="a"))
size = ledger.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    ledger.record("Nifty_2", "w", "promotion", subject="b")
except StorageError as error:
    print(error)
assert ledger.path.stat().st_size == size
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(ledger.record("Nifty_2", "w", "promotion", subject="b"), ledger.notes)
"""


@pytest.mark.parametrize("taken", [0, 40])
def test_a_disk_without_room_leaves_the_ledger_as_it_was_and_the_look_uncounted(tmp_path, taken):
    """Part of a line would be told from a crash for ever after; and a look nobody was told of was none."""
    path = tmp_path / "ledger.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), str(taken)],
        cwd=Path(__file__).resolve().parents[3], capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, refused, _, second = done.stdout.splitlines()
    assert (first, second) == ("1", "2 []")
    assert refused == f"{path} cannot be written: File too large."
    assert len(path.read_text().splitlines()) == 2
