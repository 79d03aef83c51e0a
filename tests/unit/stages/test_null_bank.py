"""Trading without an edge, put through the gates: which plans are refused, and what stands beside a verdict."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import stdtr

from rl.common.errors import ConfigError
from rl.stages import gates, null_bank
from rl.stages.evaluation import packed, replay_on, trade_record
from rl.stages.evidence import ClusteredTest
from rl.stages.gates import TradeRecord, Verdict, promotion_verdict
from rl.stages.null_bank import (
    MOST_PROMOTED,
    Calibration,
    NullOutcome,
    beside_nulls,
    calibrate,
    gates_of,
    judge_nulls,
    null_replays,
    refuse_if_nulls_pass,
)
from rl.stages.null_markets import MARKETS, MOST_AMOUNT, SESSIONS, calibration_records
from rl.stages.plan import Plan, load_plan
from rl.stages.symbol_data import SymbolData
from tests.unit.stages.small_symbol import PLAN_FILE, edge_model, small_plan, small_symbol

LOOSEST = ("evidence.min_trades=1", "evidence.min_sessions=2")
NULL_BANK = ["flat", "buy_and_hold", "always_short", "random", "sign_flipped", "last_bar_sign"]


def shipped(*overrides: str, profile: str = "full") -> Plan:
    return load_plan(PLAN_FILE, overrides=list(overrides), profile=profile)


def promoted(found: Calibration, policy: str, stage: str = "maml") -> int:
    (count,) = (
        each.passed
        for each in found.passes
        if (each.level, each.stage, each.policy, each.symbol) == ("promotion", stage, policy, None)
    )
    return count


def counted_anew(plan: Plan) -> Calibration:
    """Return the counts without those remembered from before: the gate may have been replaced."""
    return calibrate(gates_of(plan))


@pytest.fixture
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(null_bank, "cache_for_this_code", lambda name: None)


# --- the calibration bank -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records():
    return calibration_records()


def test_every_policy_trades_every_market_of_its_kind(records):
    assert {policy for kind, policy in records if kind == "noise"} == set(NULL_BANK)
    assert all(len(own) == MARKETS for own in records.values())
    assert all(len(each.session_returns) == SESSIONS for own in records.values() for each in own)


def test_the_bank_is_large_enough_for_what_the_shipped_gates_ask(records):
    plan = shipped()
    most = max(plan.criteria(stage).min_trades for stage in ("ppo", "moe", "maml"))
    assert most <= MOST_AMOUNT
    for (_, policy), own in records.items():
        if policy in ("flat", "buy_and_hold", "always_short"):
            # Held from the first bar to the last: never a closed trade.
            assert {len(each.net_pnl) for each in own} == {0}
            continue
        enough = [len(each.net_pnl) >= most and each.trading_sessions >= MOST_AMOUNT for each in own]
        assert np.mean(enough) > 0.95, policy


def test_nobody_earns_on_the_bank_but_by_its_drift(records):
    """Mean session return of all markets together, within three standard errors of zero (of the drift)."""
    for (kind, policy), own in records.items():
        returns = np.concatenate([each.session_returns for each in own])
        benchmark = np.concatenate([each.benchmark_session_returns for each in own])
        left = returns - benchmark * {"long_by_day": 1.0, "random_long": 0.5}.get(policy, 0.0)
        if policy == "buy_and_hold":
            left = returns - benchmark
        assert abs(left.mean()) <= 3 * left.std() / math.sqrt(len(left)) + 1e-12, (kind, policy)


def test_a_market_is_the_same_whenever_and_for_whomever_it_is_drawn(records):
    again = calibration_records.__wrapped__()
    for key, own in records.items():
        for one, other in zip(own, again[key], strict=True):
            np.testing.assert_array_equal(one.net_pnl, other.net_pnl)
            np.testing.assert_array_equal(one.session_returns, other.session_returns)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["full", "quick"])
def test_the_shipped_plan_promotes_no_null_policy_more_often_than_promised(profile):
    found = refuse_if_nulls_pass(shipped(profile=profile))
    own = [each for each in found.passes if each.level == "promotion"]
    assert {each.stage for each in own} == {"ppo", "moe", "maml"}
    assert len(own) == 3 * 9
    assert max(each.passed for each in own) <= MOST_PROMOTED
    # Were nothing promoted ever, the bank would say nothing about the level of the test.
    assert sum(each.passed for each in own if each.stage == "maml") > 0


def test_the_usual_alpha_keeps_the_promise_however_little_else_is_asked():
    """So no plan with that alpha is refused: whatever else it asks for only takes promotions away."""
    nothing_asked = [
        f"{block}.{name}=null"
        for block, names in {
            "training_sequence.stage_1_ppo.success_criteria": ("min_win_rate", "min_profit_factor"),
            "training_sequence.stage_2_moe.success_criteria": ("min_win_rate", "min_profit_factor"),
            "progression_rules.advancement_criteria.stage_1_to_2": ("min_win_rate", "min_profit_factor"),
            "progression_rules.advancement_criteria.stage_2_to_3": ("min_win_rate", "min_profit_factor"),
        }.items()
        for name in names
    ]
    found = refuse_if_nulls_pass(shipped(*LOOSEST, *nothing_asked))
    assert max(each.passed for each in found.passes if each.level == "promotion") <= MOST_PROMOTED


def test_a_gate_that_asks_for_little_at_a_high_alpha_is_refused_naming_policy_and_key():
    with pytest.raises(ConfigError) as refused:
        refuse_if_nulls_pass(shipped("evidence.alpha=0.5", *LOOSEST))
    text = str(refused.value)
    assert "evidence.alpha is 0.5. Promoted after stage 1 (ppo), stage 2 (moe), stage 3 (maml):" in text
    (times,) = re.findall(r"random in (\d+) of 100 noise markets", text)
    assert int(times) > 2 * MOST_PROMOTED
    assert "Write evidence.alpha: 0.05, or less" in text


def test_a_symbol_that_changes_no_gate_is_not_judged_again():
    plain = gates_of(shipped())
    assert gates_of(shipped("symbols={SYN_noise_2: {environment: {exposure: 0.5}}}")) == plain
    looser = gates_of(shipped("symbols={SYN_noise_2: {evidence: {min_trades: 20}}}"))
    assert len(looser) == 2 * len(plain)


def test_asking_for_more_data_than_the_bank_has_does_not_hide_a_gate_from_it():
    """With `min_trades: 100000` nothing on the bank would ever be promoted, and any alpha would look safe."""
    with pytest.raises(ConfigError, match=r"evidence\.alpha is 0\.5"):
        refuse_if_nulls_pass(
            shipped("evidence.alpha=0.5", "evidence.min_trades=100000", "evidence.min_sessions=5000")
        )


def test_the_plans_seed_does_not_move_the_counts(nothing_remembered):
    assert refuse_if_nulls_pass(shipped("seed=1")) == refuse_if_nulls_pass(shipped("seed=2"))


def test_counts_are_remembered_for_this_code_and_this_plan_only(tmp_path, monkeypatch):
    monkeypatch.setattr(null_bank, "cache_for_this_code", lambda name: tmp_path)
    first = refuse_if_nulls_pass(shipped())
    (file,) = tmp_path.iterdir()
    monkeypatch.setattr(null_bank, "calibrate", lambda asked: pytest.fail("counted again"))
    assert refuse_if_nulls_pass(shipped()) == first
    with pytest.raises(pytest.fail.Exception, match="counted again"):
        refuse_if_nulls_pass(shipped("evidence.alpha=0.04"))
    # A plan that is refused is refused from memory as well.
    content = json.loads(file.read_text())
    for each in content["passes"]:
        each["passed"] = 6
    content["sha256"] = null_bank._digest(content["passes"])
    file.write_text(json.dumps(content))
    monkeypatch.undo()
    monkeypatch.setattr(null_bank, "cache_for_this_code", lambda name: tmp_path)
    with pytest.raises(ConfigError, match="in 6 of 100"):
        refuse_if_nulls_pass(shipped())


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"\xff" + content,
        lambda content: b"[]",
        lambda content: b'{"passes": []}',
        lambda content: content.replace(b'"passed": 0', b'"passed": 1', 1),
    ],
    ids=["truncated", "empty", "no text", "a list", "no counts", "another digit"],
)
def test_counts_that_were_damaged_are_counted_anew_and_written_again(damage, tmp_path, monkeypatch):
    monkeypatch.setattr(null_bank, "cache_for_this_code", lambda name: tmp_path)
    first = refuse_if_nulls_pass(shipped())
    (file,) = tmp_path.iterdir()
    written = file.read_bytes()
    file.write_bytes(damage(written))
    assert file.read_bytes() != written
    # The bank itself takes a second or two; that it is asked is what matters here.
    asked = []
    monkeypatch.setattr(null_bank, "calibrate", lambda gates: asked.append(gates) or first)
    assert refuse_if_nulls_pass(shipped()) == first
    assert len(asked) == 1
    assert file.read_bytes() == written


# --- gates that are wrong are refused -------------------------------------------------------------------------------


def refused_whatever_the_plan(monkeypatch) -> str:
    monkeypatch.setattr(null_bank, "cache_for_this_code", lambda name: None)
    with pytest.raises(ConfigError) as refused:
        refuse_if_nulls_pass(shipped())
    assert "No setting of the plan accounts for it" in str(refused.value)
    return str(refused.value)


def without_benchmark_test(record: TradeRecord, *args: Any, **keywords: Any) -> Verdict:
    """A gate that forgets buy-and-hold: it compares with something unrelated instead."""
    unrelated = np.random.default_rng(0).normal(0.0, 1e-9, len(record.session_returns))
    return promotion_verdict(replace(record, benchmark_session_returns=unrelated), *args, **keywords)


def test_a_gate_that_forgets_buy_and_hold_promotes_whoever_was_long(monkeypatch):
    monkeypatch.setattr(gates, "promotion_verdict", without_benchmark_test)
    assert promoted(counted_anew(shipped()), "long_by_day") > 40
    told = refused_whatever_the_plan(monkeypatch)
    assert "always long, flat in the evening in" in told
    assert "markets that only drift upwards" in told


def test_a_gate_that_asks_for_the_intercepts_sign_alone_promotes_being_long_at_random(monkeypatch):
    """As this project's did: such an intercept is above zero every other time."""
    monkeypatch.setattr(gates, "_p_no_edge", lambda edge, beyond: edge.p_above_zero)
    assert promoted(counted_anew(shipped()), "random_long") > 20
    assert "long at random times in" in refused_whatever_the_plan(monkeypatch)


def test_a_t_test_of_trades_instead_of_sessions_is_refused(monkeypatch):
    def of_trades(values: np.ndarray, sessions: np.ndarray, confidence: float = 0.95) -> ClusteredTest:
        clustered = CLUSTERED(values, sessions, confidence)
        if len(values) < 2:
            return clustered
        t = float(values.mean() / values.std(ddof=1) * math.sqrt(len(values)))
        above = float(stdtr(len(values) - 1, -t))
        return replace(clustered, p_above_zero=above, p_below_zero=1.0 - above)

    monkeypatch.setattr(gates, "session_clustered_t", of_trades)
    # Sessions also guard the intercept; here only the mean trade is tested.
    monkeypatch.setattr(gates, "_p_no_edge", lambda edge, beyond: edge.p_above_zero)
    assert promoted(counted_anew(shipped()), "random_side_by_session") > 2 * MOST_PROMOTED
    assert "a random side each session in" in refused_whatever_the_plan(monkeypatch)


CLUSTERED = gates.session_clustered_t


def test_a_gate_that_takes_both_tails_for_evidence_is_refused(monkeypatch):
    """A loss as large as that is as unlikely by luck, and no reason to trade."""

    def two_sided(record: TradeRecord, *args: Any, **keywords: Any) -> Verdict:
        gained = promotion_verdict(record, *args, **keywords)
        mirrored = replace(record, net_pnl=-record.net_pnl, session_returns=-record.session_returns)
        return gained if gained.passed else promotion_verdict(mirrored, *args, **keywords)

    monkeypatch.setattr(gates, "promotion_verdict", two_sided)
    refused_whatever_the_plan(monkeypatch)


def test_a_gate_that_spends_eight_times_what_a_look_may_is_refused(monkeypatch):
    monkeypatch.setattr(gates, "alpha_for_attempt", lambda attempt, alpha: 4 * alpha)
    refused_whatever_the_plan(monkeypatch)


# --- what a reader is told --------------------------------------------------------------------------------------------


def test_a_progress_gate_that_noise_passes_is_said_to_be_no_evidence():
    promoted_line, *others = refuse_if_nulls_pass(shipped()).notes()
    assert re.search(r"lets trading without an edge through at most in [1-5] of 100 markets", promoted_line)
    assert [line.split(" is passed by ")[0] for line in others] == [
        "Null bank: the gate after stage 1 (ppo)",
        "Null bank: the gate after stage 2 (moe)",
    ]
    assert re.search(r"in [89]\d of 100 noise markets; it is permission to go on, not evidence\.$", others[0])


def test_a_progress_gate_that_noise_does_not_pass_is_not_mentioned():
    strict = shipped(
        "training_sequence.stage_1_ppo.success_criteria.min_profit_factor=3.0",
        "training_sequence.stage_2_moe.success_criteria.min_profit_factor=3.0",
    )
    assert len(refuse_if_nulls_pass(strict).notes()) == 1


def test_an_outcome_of_one_draw_is_named_and_of_several_counted():
    assert NullOutcome(policy="flat", outcomes=("INCONCLUSIVE",)).text() == "INCONCLUSIVE"
    assert NullOutcome(policy="random", outcomes=("PASS", "FAIL", "PASS")).text() == "2 of 3 PASS"
    missing = NullOutcome(policy="always_short", outcomes=(), unavailable="may not be sold short")
    assert missing.text() == "not tried: may not be sold short"
    assert missing.passes == 0


# --- at a gate --------------------------------------------------------------------------------------------------------

PLAN = small_plan()


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return small_symbol(PLAN, sessions=240)


def candidate(data: SymbolData, follow: float = 1.0, window: str = "promotion"):
    model = edge_model(PLAN, follow=follow)
    return replay_on(data, packed(model), window, scheme="target", capital=100_000.0)


def verdict_on(data: SymbolData, replay, attempt: int = 1) -> Verdict:
    return promotion_verdict(
        trade_record(data, replay, "promotion", None),
        replace(PLAN.criteria("ppo"), min_episodes=None),
        symbol=data.symbol,
        stage="ppo",
        window={"name": "promotion"},
        attempt=attempt,
    )


def test_the_null_bank_trades_the_candidates_window_under_its_rules(data):
    replay = candidate(data)
    nulls = null_replays(data, replay, "promotion", draws=4)
    assert [null.name for null in nulls] == NULL_BANK
    assert [len(null.replays) for null in nulls] == [1, 1, 1, 4, 1, 1]
    for null in nulls:
        for each in null.replays:
            assert (each.start, each.stop, each.capital) == (replay.start, replay.stop, replay.capital)
    by_name = {null.name: null for null in nulls}
    (flipped,) = by_name["sign_flipped"].replays
    np.testing.assert_array_equal(np.sign(flipped.decided), -np.sign(replay.decided))
    for drawn in by_name["random"].replays:
        assert np.sort(np.sign(drawn.decided)).tolist() == np.sort(np.sign(replay.decided)).tolist()
        assert (drawn.decided != replay.decided).any()


def test_the_draws_are_the_same_in_every_run(data):
    replay = candidate(data)
    first, again = (null_replays(data, replay, "promotion")[3] for _ in range(2))
    for one, other in zip(first.replays, again.replays, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)


def test_an_edge_is_promoted_and_the_null_bank_beside_it_is_not(data):
    replay = candidate(data)
    verdict = verdict_on(data, replay)
    shown = beside_nulls(verdict, data, replay, PLAN.criteria("ppo"), alpha=0.05)
    assert verdict.passed
    assert replace(shown, context={}) == replace(verdict, context={})
    assert list(shown.context["null_bank"]) == NULL_BANK
    assert shown.context["null_bank"] | {"random": ""} == {
        "flat": "INCONCLUSIVE",
        "buy_and_hold": "INCONCLUSIVE",
        "always_short": "INCONCLUSIVE",
        "random": "",
        "sign_flipped": "FAIL",
        "last_bar_sign": "FAIL",
    }
    assert shown.context["null_bank"]["random"] in ("0 of 20 PASS", "1 of 20 PASS")
    assert "null_bank_caution" not in shown.context
    (line,) = (line for line in shown.lines() if "null bank" in line)
    assert line.startswith(
        "  null bank: flat INCONCLUSIVE, buy-and-hold INCONCLUSIVE, always-short INCONCLUSIVE, "
    )
    assert "sign-flipped FAIL, last-bar-sign FAIL" in line
    json.dumps(shown.to_dict(), allow_nan=False)


def test_a_candidate_that_bets_against_the_edge_has_a_flipped_twin_that_is_promoted(data):
    """The candidate fails; that its mirror image would pass is shown, and no caution is due."""
    replay = candidate(data, follow=-1.0)
    shown = beside_nulls(verdict_on(data, replay), data, replay, PLAN.criteria("ppo"), alpha=0.05)
    assert shown.outcome == "FAIL"
    assert shown.context["null_bank"]["sign_flipped"] == "PASS"
    assert "null_bank_caution" not in shown.context


def test_where_a_null_policy_would_be_promoted_too_the_verdict_says_so_loudly(data):
    """A pass beside which worthless trading passes; here the candidate is given the twin that has the edge."""
    passed = verdict_on(data, candidate(data))
    against = candidate(data, follow=-1.0)
    shown = beside_nulls(passed, data, against, PLAN.criteria("ppo"), alpha=0.05)
    assert shown.outcome == "PASS"
    assert any(
        line.startswith(
            "  CAUTION: on this very window the gate would also promote trading that has no edge: "
        )
        and "sign-flipped (PASS)" in line
        for line in shown.lines()
    )
    # Once the run's other symbols took the promotion away there is nothing to be cautious about.
    assert not any("CAUTION" in line for line in replace(shown, outcome="INCONCLUSIVE").lines())


def test_null_policies_are_judged_at_the_candidates_attempt(data):
    seen = []

    def judge(record: TradeRecord) -> Verdict:
        verdict = verdict_on(data, candidate(data), attempt=3)
        seen.append((len(record.net_pnl), verdict.alpha_used))
        return verdict

    nulls = null_replays(data, candidate(data), "promotion", draws=2)
    outcomes = judge_nulls(data, nulls, "promotion", judge)
    assert [len(each.outcomes) for each in outcomes] == [1, 1, 1, 2, 1, 1]
    assert seen[0][0] == 0
    assert {alpha for _, alpha in seen} == {0.05 / 12}


def test_where_shorts_are_not_allowed_the_mirror_image_and_always_short_are_left_out_with_the_reason():
    data = small_symbol(PLAN, sessions=120)
    data = replace(data, rules=replace(data.rules, allow_short=False))
    replay = candidate(data)
    shown = beside_nulls(verdict_on(data, replay), data, replay, PLAN.criteria("ppo"), alpha=0.05)
    for policy in ("always_short", "sign_flipped"):
        assert shown.context["null_bank"][policy] == "not tried: this instrument may not be sold short"
