"""Verdicts: when a model may go on, when it may be used, and what a gate says about it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from rl.common.errors import ConfigError
from rl.stages.evidence import intercept_against
from rl.stages.gates import (
    CriterionResult,
    TradeRecord,
    Verdict,
    champion_keeps,
    progress_verdict,
    promotion_verdict,
)

WINDOW = {
    "name": "validation",
    "from": "2024-01-02T00:00:00Z",
    "to": "2024-03-29T00:00:00Z",
    "data_hash": "abc",
}


@dataclass(frozen=True)
class Asked:
    min_win_rate: float | None = 0.4
    min_profit_factor: float | None = 1.0
    max_drawdown: float | None = 0.35
    min_trades: int | None = 100
    min_sessions: int | None = 20
    min_episodes: int | None = None


NOTHING = Asked(None, None, None, None, None, None)


def record_of(net: np.ndarray, sessions: int, **changes) -> TradeRecord:
    """Return a record with the trades spread evenly over the sessions, and returns that follow from them."""
    session = np.arange(len(net)) % sessions
    returns = np.bincount(session, weights=net, minlength=sessions) / 10_000.0
    benchmark = np.random.default_rng(99).normal(0.0, 0.01, sessions)
    fields: dict[str, Any] = {
        "net_pnl": net,
        "trade_session": session,
        "session_returns": returns,
        "benchmark_session_returns": benchmark,
        "max_drawdown": 0.1,
    }
    return TradeRecord(**{**fields, **changes})


def trades(mean: float, count: int = 240, seed: int = 0) -> np.ndarray:
    """Return trades of spread 1 whose mean is exactly `mean`."""
    net = np.random.default_rng(seed).normal(size=count)
    return net - net.mean() + mean


def value_of(verdict: Verdict, name: str) -> float:
    value = verdict.criterion(name).value
    assert value is not None
    return value


def p_below_of(verdict: Verdict, name: str) -> float:
    p = verdict.criterion(name).p_below
    assert p is not None
    return p


def judged(record: TradeRecord, asked: Asked | None = None, **changes) -> Verdict:
    return progress_verdict(record, asked or Asked(), symbol="Nifty_2", stage="moe", window=WINDOW, **changes)


def promoted(record: TradeRecord, asked: Asked | None = None, **changes) -> Verdict:
    return promotion_verdict(
        record, asked or Asked(), symbol="Nifty_2", stage="moe", window=WINDOW, **changes
    )


# --- progress -----------------------------------------------------------------------------------------------


def test_a_record_that_meets_every_criterion_passes():
    verdict = judged(record_of(trades(0.3), 60))
    assert verdict.outcome == "PASS"
    assert verdict.passed
    assert verdict.reasons == ()
    assert [result.name for result in verdict.criteria] == [
        "win_rate",
        "profit_factor",
        "max_drawdown",
        "trades",
        "sessions",
    ]
    assert (verdict.trades, verdict.sessions) == (240, 60)


def test_a_criterion_missed_with_enough_data_fails():
    verdict = judged(record_of(trades(-0.05), 60))
    assert verdict.outcome == "FAIL"
    assert not verdict.passed
    assert verdict.criterion("profit_factor").met is False
    assert "profit_factor" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("trade_count", "sessions", "short"), [(99, 60, "99 trades"), (240, 19, "19 sessions")]
)
def test_too_little_data_is_inconclusive_however_good_it_looks(trade_count, sessions, short):
    verdict = judged(record_of(trades(0.5, trade_count), sessions))
    assert verdict.outcome == "INCONCLUSIVE"
    assert short in verdict.reasons[0]


def test_too_little_data_says_how_many_more_sessions_would_do():
    # 60 trades in 30 sessions: 100 trades take 50 sessions, 20 more.
    verdict = judged(record_of(trades(0.5, 60), 30))
    assert verdict.sessions_needed == 20
    assert "20 more sessions" in verdict.reasons[-1]


@pytest.mark.parametrize("mean", [-0.01, 0.0])
@pytest.mark.parametrize("decide", [judged, promoted])
def test_more_sessions_of_a_record_that_earns_nothing_are_not_said_to_show_an_edge(decide, mean):
    # As above, 20 more sessions; but what has been seen would show nothing however long it went on.
    net = trades(mean, 60) if mean else np.tile([1.0, 1.0, -1.0, -1.0], 15)
    verdict = decide(record_of(net, 30))
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.sessions_needed == 20
    assert verdict.reasons[-1] == "About 20 more sessions are needed before anything can be decided."
    assert not any("would be needed" in reason for reason in verdict.reasons)


def test_more_sessions_of_a_record_that_earns_less_than_its_benchmark_are_not_said_to_show_an_edge():
    net = trades(0.02, 60)
    held = np.random.default_rng(99).normal(0.0, 0.01, 30)
    behind = record_of(
        net,
        30,
        session_returns=held + np.random.default_rng(3).normal(-0.0005, 0.004, 30),
        benchmark_session_returns=held,
    )
    verdict = promoted(behind)
    assert value_of(verdict, "mean_trade") > 0.0 > value_of(verdict, "intercept")
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.sessions_needed == 20
    assert verdict.reasons[-1] == "About 20 more sessions are needed before anything can be decided."


def test_sessions_without_trades_count_neither_for_the_minimum_nor_against_the_time_it_takes():
    # 240 trades in 10 of 40 sessions: 20 trading sessions take 80 sessions at this rate, 40 more.
    quiet = record_of(
        trades(0.5), 10, session_returns=np.zeros(40), benchmark_session_returns=np.linspace(-0.01, 0.01, 40)
    )
    verdict = judged(quiet)
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.sessions == 10
    assert verdict.sessions_needed == 40


def test_a_win_rate_significantly_below_its_threshold_fails_on_little_data():
    # A fifth of the trades win, four are asked for in ten; the money is right.
    net = np.where(np.random.default_rng(2).permutation(60) < 12, 9.0, -1.0)
    verdict = judged(record_of(net, 30))
    assert verdict.criterion("profit_factor").met is True
    assert p_below_of(verdict, "win_rate") < 0.01
    assert verdict.outcome == "FAIL"
    assert verdict.reasons[0].startswith("win_rate is 0.2, asked at least 0.4; significantly so")
    # The same record is nowhere near significantly below a fifth.
    assert p_below_of(judged(record_of(net, 30), Asked(min_win_rate=0.2)), "win_rate") == pytest.approx(0.5)


def test_a_record_significantly_below_a_criterion_fails_even_on_little_data():
    verdict = judged(record_of(trades(-1.5, 60), 30))
    assert verdict.outcome == "FAIL"
    assert "significantly" in verdict.reasons[0]
    assert p_below_of(verdict, "profit_factor") < 0.025


def test_a_record_slightly_below_a_criterion_on_little_data_is_inconclusive():
    verdict = judged(record_of(trades(-0.02, 60), 30))
    assert verdict.criterion("profit_factor").met is False
    assert verdict.outcome == "INCONCLUSIVE"


def test_a_drawdown_over_the_limit_fails_on_any_amount_of_data():
    """More data cannot lower a maximum."""
    assert judged(record_of(trades(0.5, 60), 30, max_drawdown=0.36)).outcome == "FAIL"
    assert judged(record_of(trades(0.5), 60, max_drawdown=0.35)).outcome == "PASS"


def test_too_few_training_episodes_fail():
    record = record_of(trades(0.3), 60, episodes=49)
    assert judged(record, Asked(min_episodes=50)).outcome == "FAIL"
    assert judged(replace(record, episodes=50), Asked(min_episodes=50)).outcome == "PASS"
    # Nobody counted them: that does not pass either.
    assert judged(replace(record, episodes=None), Asked(min_episodes=50)).outcome == "INCONCLUSIVE"


@pytest.mark.parametrize("judge", [judged, promoted])
@pytest.mark.parametrize("amounts", [(100, 20), (None, None)])
def test_profit_factor_of_no_trades_is_nan_and_fails_every_gate(judge, amounts):
    record = record_of(np.empty(0), 60)
    verdict = judge(record, Asked(min_trades=amounts[0], min_sessions=amounts[1]))
    assert not verdict.passed
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.criterion("win_rate").value is None
    assert verdict.criterion("profit_factor").met is None
    assert verdict.sessions_needed is None


@pytest.mark.parametrize("judge", [judged, promoted])
def test_a_record_without_a_losing_trade_passes_no_gate(judge):
    verdict = judge(record_of(np.full(200, 2.0) + np.arange(200) % 7, 50))
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.criterion("profit_factor").value is None
    assert verdict.metrics["not_computed"]["profit_factor"] == "no trade lost money"


def test_an_unknown_drawdown_does_not_pass():
    assert judged(record_of(trades(0.3), 60, max_drawdown=math.nan)).outcome == "INCONCLUSIVE"


def test_a_gate_without_a_criterion_is_refused():
    with pytest.raises(ConfigError, match="stage 2 \\(moe\\) names no criterion"):
        judged(record_of(trades(0.3), 60), replace(NOTHING, min_trades=100))


def test_a_criterion_that_is_not_asked_is_not_judged():
    verdict = judged(record_of(trades(-0.5), 60), replace(NOTHING, max_drawdown=0.2))
    assert [result.name for result in verdict.criteria] == ["max_drawdown"]
    assert verdict.outcome == "PASS"


def test_looking_again_does_not_make_a_significant_miss_count_less():
    record = record_of(trades(-0.35, 60, seed=3), 30)
    p = p_below_of(judged(record), "profit_factor")
    # Significant at the whole level, no longer so at the third look's share of it.
    assert 0.05 / 12 < p <= 0.05
    assert judged(record, attempt=1).outcome == "FAIL"
    assert judged(record, attempt=3).outcome == "FAIL"
    assert judged(record, attempt=3).alpha_used == pytest.approx(0.05 / 12)


def test_raising_a_threshold_never_turns_another_verdict_into_a_pass():
    rng = np.random.default_rng(1)
    for seed in range(60):
        record = record_of(trades(rng.normal(0.0, 0.15), seed=seed), 60)
        low, high = np.sort(rng.uniform(0.2, 0.6, 2))
        if not judged(record, Asked(min_win_rate=low)).passed:
            assert not judged(record, Asked(min_win_rate=high)).passed


def test_the_interval_of_the_win_rate_counts_trades_of_a_session_as_the_few_they_are():
    # All ten trades of a session end alike, so 200 trades say as much as 20.
    ends = np.where(np.arange(20) % 2, 1.0, -1.0)
    alike = record_of(np.tile(ends, 10), 20)
    verdict = judged(alike)
    assert verdict.metrics["effective_trades"] == pytest.approx(19.0)  # 20 sessions, one spent on the mean
    result = verdict.criterion("win_rate")
    # Wilson's interval of 9.5 wins in 19.
    assert (result.lower, result.upper) == pytest.approx((0.2945, 0.7055), abs=5e-4)


def test_independent_trades_count_fully():
    verdict = judged(record_of(np.where(np.arange(200) % 2, 1.0, -1.0), 50))
    assert verdict.metrics["effective_trades"] <= 200.0


# --- promotion ----------------------------------------------------------------------------------------------


def test_a_clear_edge_is_promoted():
    verdict = promoted(record_of(trades(0.4), 60))
    assert verdict.outcome == "PASS"
    assert value_of(verdict, "p_no_edge") <= verdict.alpha_used == 0.025
    assert value_of(verdict, "intercept") > 0.0
    assert verdict.sessions_needed is None


def without_exposure(record: TradeRecord, seed: int = 5) -> TradeRecord:
    """Return the record beside a benchmark of mean zero that its returns have nothing to do with."""
    returns = record.session_returns
    axes = np.column_stack([np.ones(len(returns)), returns - returns.mean()])
    drawn = np.random.default_rng(seed).normal(0.0, 0.01, len(returns))
    fitted = axes @ np.linalg.lstsq(axes, drawn, rcond=None)[0]
    return replace(record, benchmark_session_returns=drawn - fitted)


def test_a_positive_mean_that_is_not_shown_is_inconclusive_with_the_sessions_it_would_take():
    record = without_exposure(record_of(trades(0.08), 60))
    verdict = promoted(record)
    assert judged(record).outcome == "PASS"
    assert verdict.outcome == "INCONCLUSIVE"
    assert "not shown" in verdict.reasons[0]
    needed = verdict.sessions_needed or 0
    # t grows with the root of the sessions: t(60 + needed) has to reach about 1.96 to 2.
    t = verdict.metrics["mean_trade_t"]
    assert 1.96 <= t * math.sqrt((60 + needed) / 60) <= 2.05


def test_sessions_without_trades_stretch_what_is_needed():
    busy = without_exposure(record_of(trades(0.08), 60))
    idle = without_exposure(
        replace(
            busy,
            session_returns=np.concatenate([busy.session_returns, np.zeros(60)]),
            benchmark_session_returns=np.zeros(120),
        )
    )
    assert promoted(idle).sessions_needed == pytest.approx(2 * (promoted(busy).sessions_needed or 0), rel=0.1)


def test_a_negative_mean_fails_promotion():
    verdict = promoted(record_of(trades(-0.05), 60), NOTHING)
    assert verdict.outcome == "FAIL"
    assert "mean_trade" in verdict.reasons[0]


def test_a_share_of_buy_and_hold_is_not_an_edge():
    """Always long in a rising market wins significantly and adds nothing."""
    benchmark = np.random.default_rng(2).normal(0.004, 0.01, 120)
    net = benchmark * 10_000 - 1.0
    record = TradeRecord(
        net_pnl=net,
        trade_session=np.arange(120),
        session_returns=benchmark - 1e-4,
        benchmark_session_returns=benchmark,
        max_drawdown=0.1,
    )
    verdict = promoted(record)
    assert verdict.metrics["mean_trade_p"] < 1e-4
    assert verdict.criterion("intercept").value == pytest.approx(-1e-4)
    assert verdict.outcome == "FAIL"
    assert any("intercept" in reason for reason in verdict.reasons)


def test_an_intercept_above_zero_by_luck_is_no_evidence():
    """Long at random times of a market that only rises: every other such record has an intercept above zero."""
    rng = np.random.default_rng(3)
    runs, above, passed = 300, 0, 0
    for _ in range(runs):
        session = np.repeat(np.arange(120), 4)
        quarters = rng.normal(0.4, 1.0, session.size)
        net = quarters * rng.integers(0, 2, session.size)
        by_session = np.bincount(session, weights=quarters) / 10_000.0
        held = np.bincount(session, weights=net) / 10_000.0
        traded = net != 0.0
        verdict = promoted(
            TradeRecord(
                net_pnl=net[traded],
                trade_session=session[traded],
                session_returns=held,
                benchmark_session_returns=by_session,
                max_drawdown=0.1,
            ),
            NOTHING,
        )
        assert verdict.metrics["mean_trade_p"] < 0.025
        above += value_of(verdict, "intercept") > 0.0
        passed += verdict.passed
    assert above / runs > 0.4
    assert passed / runs <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / runs)


def test_a_positive_intercept_that_is_not_shown_says_so_and_how_long_it_would_take():
    # A third of the benchmark, which rises, and a little of its own: the mean is shown, the intercept is not.
    benchmark = np.random.default_rng(2).normal(0.004, 0.01, 120)
    own = np.random.default_rng(8).normal(0.0, 0.002, 120)
    own += 1e-4 - intercept_against(benchmark / 3 + own, benchmark).alpha
    record = TradeRecord(
        net_pnl=1e4 * (benchmark / 3 + own),
        trade_session=np.arange(120),
        session_returns=benchmark / 3 + own,
        benchmark_session_returns=benchmark,
        max_drawdown=0.1,
    )
    verdict = promoted(record)
    assert verdict.metrics["mean_trade_p"] < 0.025
    assert verdict.criterion("intercept").value == pytest.approx(1e-4)
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.criterion("p_no_edge").note == "chance of such an intercept without any edge"
    # 1 bp a session at a spread of 20 bp: t of 2 takes about (2 * 20 / 1)^2 sessions, a little more beside a trend.
    assert 1_400 <= (verdict.sessions_needed or 0) <= 2_200


def test_without_buy_and_hold_nothing_is_promoted():
    verdict = promoted(record_of(trades(0.4), 60, benchmark_session_returns=None))
    assert verdict.outcome == "INCONCLUSIVE"
    assert "no buy-and-hold" in verdict.reasons[0]


def test_promotion_asks_for_the_progress_criteria_too():
    # Rare large wins: a clear edge with a win rate of 25 %.
    net = np.where(np.arange(240) % 4 == 0, 8.0, -1.0) + trades(0.0) * 0.1
    session = np.arange(240) // 4
    record = record_of(net, 60, trade_session=session)
    verdict = promoted(record)
    assert verdict.criterion("p_no_edge").met is True
    assert verdict.outcome == "FAIL"
    assert promoted(record, Asked(min_win_rate=0.2)).outcome == "PASS"


def test_later_attempts_need_a_smaller_p():
    record = record_of(trades(0.16), 60)
    p = value_of(promoted(record), "p_no_edge")
    assert 0.05 / 30 < p < 0.05 / 2
    assert promoted(record, attempt=1).outcome == "PASS"
    assert promoted(record, attempt=5).outcome == "INCONCLUSIVE"


@pytest.mark.parametrize("sessions", [20, 60])
def test_records_without_an_edge_are_rarely_promoted(sessions):
    """At most 2.5 % on a first attempt, with trades of a session sharing its news."""
    rng = np.random.default_rng(4)
    runs, passed = 600, 0
    for _ in range(runs):
        session = np.repeat(np.arange(sessions), 6)
        net = rng.normal(size=session.size) + 0.7 * rng.normal(size=sessions)[session]
        record = record_of(
            net,
            sessions,
            trade_session=session,
            session_returns=np.bincount(session, weights=net) / 10_000.0,
        )
        passed += promoted(record).passed
    # Three standard deviations above 2.5 % of 600.
    assert passed / runs <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / runs)


def test_a_planted_edge_of_annual_sharpe_7_is_promoted_in_nine_of_ten_windows_of_60_sessions():
    rng = np.random.default_rng(6)
    per_session = 7.0 / math.sqrt(250)
    runs, passed = 200, 0
    for _ in range(runs):
        session = np.repeat(np.arange(60), 4)
        # Four independent trades a session: their sum has mean 4 m and spread 2, so m is half its ratio.
        net = rng.normal(per_session / 2, 1.0, session.size)
        record = record_of(
            net, 60, trade_session=session, session_returns=np.bincount(session, weights=net) / 10_000.0
        )
        passed += promoted(record).passed
    assert passed / runs >= 0.9


# --- what a verdict says ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verdict",
    [
        judged(record_of(trades(0.3), 60), context={"seed": 7}),
        judged(record_of(trades(-0.3), 60)),
        promoted(record_of(np.empty(0), 60)),
        promoted(record_of(trades(0.08), 60), attempt=3),
    ],
    ids=["pass", "fail", "empty", "inconclusive"],
)
def test_a_verdict_survives_being_written_as_json(verdict):
    text = json.dumps(verdict.to_dict(), allow_nan=False)
    assert Verdict.from_dict(json.loads(text)) == verdict


def test_a_verdict_with_an_unknown_key_is_refused():
    plain = judged(record_of(trades(0.3), 60)).to_dict()
    with pytest.raises(TypeError, match="surprise"):
        Verdict.from_dict({**plain, "surprise": 1})


def test_the_text_shows_each_figure_beside_its_threshold():
    net = np.array([1.0, -1.0, -1.0, 0.9, -0.5] * 24)  # win rate 0.4, profit factor 1.9 / 2.5
    lines = judged(record_of(net, 24), Asked(min_win_rate=0.35, min_profit_factor=0.8)).lines()
    assert lines[0] == "Gate after stage 2 (moe) for Nifty_2: FAIL"
    assert lines[1].split()[:2] == ["win_rate", "0.4"]
    assert "at least 0.35" in lines[1]
    assert lines[1].endswith("ok")
    assert lines[2].split()[:2] == ["profit_factor", "0.76"]
    assert lines[2].endswith("at least 0.8   short by 0.04")
    assert lines[1].index("at least") == lines[2].index("at least")
    assert lines[-1] == (
        "  Judged on the validation window, 2024-01-02T00:00:00Z to 2024-03-29T00:00:00Z, "
        "look 1 at it; alpha 0.025."
    )


def test_the_text_of_a_promotion_spells_out_its_outcome():
    lines = promoted(record_of(trades(0.08), 60)).lines()
    assert lines[0] == "Promotion of Nifty_2 after stage 2 (moe): INCONCLUSIVE"
    assert any("more sessions would be needed" in line for line in lines)


def test_a_figure_that_cannot_be_computed_is_shown_as_such():
    lines = judged(record_of(np.empty(0), 60)).lines()
    assert "cannot be computed; no trade was closed" in lines[1]


def test_a_value_over_its_limit_says_by_how_much():
    result = CriterionResult(name="max_drawdown", value=0.5, threshold=0.4, direction="at most", met=False)
    assert result.cells() == ("max_drawdown", "0.5", "", "at most 0.4", "over by 0.1")


def test_asking_for_a_criterion_that_was_not_judged_is_an_error():
    with pytest.raises(KeyError):
        judged(record_of(trades(0.3), 60)).criterion("sharpe")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trade_session": np.arange(5)}, "240 trades have 5 sessions"),
        ({"session_returns": np.zeros(10)}, "trades lie in 60 sessions, but the window has 10"),
        ({"benchmark_session_returns": np.zeros(59)}, "the benchmark has 59 sessions, the record 60"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        record_of(trades(0.1), 60, **changes)


# --- champion -----------------------------------------------------------------------------------------------


def test_a_later_model_replaces_an_earlier_one_only_beyond_luck():
    rng = np.random.default_rng(7)
    earlier = rng.normal(0, 0.01, 60)
    better = champion_keeps(earlier + 0.002 + rng.normal(0, 0.002, 60), earlier, 0.05, later_name="moe")
    assert better.replaces
    assert better.lower > 0.0
    assert better.p < 0.05
    assert better.text.startswith("moe replaces the earlier model")
    slightly = champion_keeps(earlier + 0.0001 + rng.normal(0, 0.002, 60), earlier, 0.05)
    assert not slightly.replaces
    assert slightly.text.startswith("the earlier model stays")


def test_a_later_model_that_earned_less_is_said_to_have_earned_less():
    earlier = np.random.default_rng(7).normal(0, 0.01, 60)
    worse = champion_keeps(earlier - 0.0005, earlier, 0.05, later_name="maml", earlier_name="ppo")
    assert worse.text.startswith("ppo stays: maml earned 5.00 bp per session less than ppo over 60 sessions")


def test_a_model_does_not_replace_its_equal():
    returns = np.random.default_rng(8).normal(0, 0.01, 60)
    decision = champion_keeps(returns, returns, 0.05)
    assert not decision.replaces
    assert decision.mean_difference == 0.0


def test_the_lower_bound_is_one_sided_at_alpha():
    rng = np.random.default_rng(9)
    later, earlier = rng.normal(0.001, 0.01, 50), rng.normal(0, 0.01, 50)
    p = champion_keeps(later, earlier, 0.05).p
    assert champion_keeps(later, earlier, p + 1e-6).replaces
    assert not champion_keeps(later, earlier, p - 1e-6).replaces


def test_one_session_replaces_no_champion():
    decision = champion_keeps(np.array([0.1]), np.array([0.0]), 0.05)
    assert not decision.replaces
    assert "too few" in decision.text


def test_models_without_an_edge_replace_each_other_as_rarely_as_alpha_says():
    rng = np.random.default_rng(10)
    replaced = sum(champion_keeps(*rng.normal(0, 0.01, (2, 40)), 0.05).replaces for _ in range(1000))
    assert 0.03 <= replaced / 1000 <= 0.07


def test_a_verdict_keeps_its_reasons_as_they_were_decided_and_shows_them_readable():
    # The ledger's sentences are compared letter by letter with recomputed ones; older ledgers hold the plain number.
    verdict = replace(
        promoted(record_of(trades(0.08), 60)), reasons=("About 46371 more sessions would be needed.",)
    )
    assert verdict.to_dict()["reasons"] == ["About 46371 more sessions would be needed."]
    assert "  About 46,371 more sessions (about 187 years) would be needed." in verdict.lines()
