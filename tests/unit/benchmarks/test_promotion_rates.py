"""The count of promotions: its markets, its sums, and that it really trains and judges."""

from __future__ import annotations

import json

import pytest

from benchmarks import promotion_rates
from benchmarks.promotion_rates import (
    NOISE,
    PLAN,
    SESSIONS,
    finished,
    identity,
    main,
    markets,
    missed_goals,
    promoted_together,
    summary,
    train_market,
)
from rl.stages.gates import CriterionResult, Verdict
from rl.stages.plan import Plan, load_plan


def verdict(symbol: str, p: float, attempt: int) -> Verdict:
    """Return a promotion verdict in which everything is met but perhaps p."""
    bar = 0.05 / (attempt * (attempt + 1))
    edge = CriterionResult(name="p_no_edge", value=p, threshold=bar, direction="at most", met=p <= bar)
    beyond = CriterionResult(name="intercept", value=1e-4, threshold=0.0, direction="at least", met=True)
    return Verdict(
        outcome="PASS" if p <= bar else "INCONCLUSIVE",
        level="promotion",
        symbol=symbol,
        stage="ppo",
        criteria=(edge, beyond),
        trades=200,
        sessions=60,
        alpha_used=bar,
        attempt=attempt,
        window={},
        reasons=(),
        metrics={"expectancy": 1.0, "mean_trade_t": 2.0, "intercept_t": 2.0, "window_sessions": 60},
    )


def result(symbol: str, kind: str, *, p: float | None, attempt: int = 1) -> dict:
    found = None if p is None else verdict(symbol, p, attempt)
    return {
        "symbol": symbol,
        "kind": kind,
        "stages": {"ppo": "PASS", "moe": "FAIL"},
        "promoted": bool(found and found.passed),
        "promotion": found.to_dict() if found else None,
        "cpu_seconds": 2.0,
    }


def test_noise_comes_in_equal_parts_and_no_two_markets_share_a_seed():
    found = markets(8, 3)
    assert [market.kind for market in found] == [*NOISE, *NOISE, "planted", "planted", "planted"]
    assert len({market.seed for market in found}) == len({market.symbol for market in found}) == 11
    assert found[4].symbol == "SYN_noise_gauss_002_2"
    assert found[-1].params == {"r2": 0.02, "rho": 0.95}
    assert [market.is_noise for market in found] == 8 * [True] + 3 * [False]
    # More of one kind leave the others as they are.
    assert markets(4, 3)[-1] == found[-1]


def test_the_small_plan_changes_budgets_and_never_a_gate():
    plan, usual = load_plan(PLAN), Plan()
    assert plan.evidence == usual.evidence
    assert [plan.criteria(stage) for stage in ("ppo", "moe", "maml")] == [
        usual.criteria(stage) for stage in ("ppo", "moe", "maml")
    ]
    assert plan.progression_rules.on_inconclusive == usual.progression_rules.on_inconclusive
    assert plan.model_management == usual.model_management
    assert plan.splits.promotion * SESSIONS >= 60


def test_one_run_of_all_markets_promotes_by_benjamini_hochberg():
    results = [
        result("a", "planted", p=0.004),  # 0.008 after its attempt, at most 0.05 * 1 / 4
        result("b", "planted", p=0.02),  # 0.04, above 0.05 * 2 / 4
        result("c", "noise_garch", p=0.9),
        result("d", "noise_garch", p=0.4),
        result("e", "noise_garch", p=None),
    ]
    assert [each["promoted"] for each in results] == [True, True, False, False, False]
    assert promoted_together(results) == {"a"}
    # A second look multiplies by 6 instead of 2: 0.024 is too much for the smallest of four.
    assert promoted_together([result("a", "planted", p=0.004, attempt=2), *results[1:]]) == set()


def test_the_goals_are_five_per_cent_of_noise_and_ninety_of_planted():
    noise = [result(f"n{n}", NOISE[n % 4], p=0.01 if n < 5 else 0.5) for n in range(100)]
    planted = [result(f"p{n}", "planted", p=0.001 if n < 18 else 0.3) for n in range(20)]
    assert missed_goals([*noise, *planted]) == []
    noise[5]["promoted"] = True
    planted[17]["promoted"] = False
    assert missed_goals([*noise, *planted]) == [
        "6 of 100 noise markets were promoted, at most 5 % may be",
        "17 of 20 planted edges were promoted, at least 90 % have to be",
    ]


def test_the_table_counts_by_kind_and_over_all_noise():
    results = [
        result("a", "noise_gauss", p=0.001),
        result("b", "bounce", p=None),
        result("c", "planted", p=0.0001),
    ]
    rows = [line.split() for line in summary(results)[2:]]
    assert rows == [
        ["noise_gauss", "1", "1", "0", "0", "1", "1", "1", "2.0"],
        ["bounce", "1", "1", "0", "0", "0", "0", "0", "2.0"],
        ["all", "noise", "2", "2", "0", "0", "1", "1", "1", "2.0"],
        ["planted", "1", "1", "0", "0", "1", "1", "1", "2.0"],
    ]


def test_a_result_of_other_code_is_not_taken_for_one_of_this(tmp_path):
    market = markets(1, 0)[0]
    file = tmp_path / market.symbol / "result.json"
    assert finished(market, tmp_path) is None
    file.parent.mkdir()
    file.write_text(json.dumps({"identity": identity(market)}))
    assert finished(market, tmp_path) == {"identity": identity(market)}
    file.write_text(json.dumps({"identity": "of yesterday"}))
    assert finished(market, tmp_path) is None


def test_an_unknown_market_is_a_usage_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--out", str(tmp_path), "--only", "noise_gaus"])
    assert stopped.value.code == 2
    assert "--only noise_gaus: no such market" in capsys.readouterr().err


def test_a_market_is_trained_by_the_command_in_folders_of_its_own(tmp_path, monkeypatch):
    """With next to no budget, and a limit no trader keeps at gate 1, so that the sequence has to stop there."""
    plan = tmp_path / "tiny.yaml"
    plan.write_text(
        "training_sequence: {stage_1_ppo: {episodes: 2, success_criteria: {max_drawdown: 0.000001}}}\n"
        "training_params: {ppo: {num_envs: 8, batch_size: 64}}\n"
        "progression_rules:\n"
        "  advancement_criteria: {stage_1_to_2: {min_episodes: 1}}\n"
        "  fallback_strategies: {extend_training: false, hyperparameter_tuning: false}\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(promotion_rates, "PLAN", plan)
    monkeypatch.setattr(promotion_rates, "SESSIONS", 60)
    market = markets(1, 0)[0]
    found = train_market(market, tmp_path)
    assert found["stages"] == {"ppo": "FAIL"}
    assert (found["exit_code"], found["champion"], found["promoted"], found["p"]) == (5, None, False, None)
    assert found["cpu_seconds"] > 0.0
    folder = tmp_path / market.symbol
    assert finished(market, tmp_path) == json.loads((folder / "result.json").read_text(encoding="utf-8"))
    # The ledger counts this market's looks alone; the market itself can be drawn again.
    assert (folder / "reports" / "evidence_ledger.jsonl").exists()
    assert not (folder / "raw").exists()


def test_a_command_that_fails_is_an_error_and_no_result(tmp_path, monkeypatch):
    plan = tmp_path / "wrong.yaml"
    plan.write_text("training_sequense: {}\n", encoding="utf-8")
    monkeypatch.setattr(promotion_rates, "PLAN", plan)
    monkeypatch.setattr(promotion_rates, "SESSIONS", 3)
    market = markets(1, 0)[0]
    with pytest.raises(RuntimeError, match="ended with 2; see"):
        train_market(market, tmp_path)
    assert "training_sequense" in (tmp_path / market.symbol / "output.txt").read_text(encoding="utf-8")
    assert finished(market, tmp_path) is None
