"""The calibration's policies and rules, by hand; and that a gate on fresh data is worth having."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.cheap_policies import (
    BARS_PER_SESSION,
    CAPITAL,
    LinearRules,
    arrays_of,
    best_by_cost,
    earned,
    inputs_of,
    oracle_actions,
    random_actions,
    random_rules,
    replay_sessions,
    rules_at,
)
from benchmarks.gate_calibration import (
    EDGES,
    FRESH_SESSIONS,
    POWER_SESSIONS,
    SYMBOL_RULES,
    Rate,
    RunSymbol,
    Stretch,
    Table,
    calibration,
    family_verdict,
    main,
    noise_run,
    promotion,
    retry_run,
    sessions_for_power,
    spread_over,
)
from rl.common.seeding import generator
from rl.market.synthetic import generate
from rl.stages.gates import Outcome, TradeRecord, across_symbols


def rule(weight: float, threshold: float) -> LinearRules:
    one = [np.full((1, 1), number, dtype=np.float32) for number in (weight, 0.0, threshold)]
    return LinearRules(*one)


def run_symbol(place: int, *, p: float, outcome: Outcome, naive: bool = False, attempt: int = 1) -> RunSymbol:
    """Return a symbol with this p value: a real verdict with the figures that decide replaced."""
    daily = np.tile([30.0, -10.0], 30)
    record = TradeRecord(
        net_pnl=np.repeat(daily, 4),
        trade_session=np.repeat(np.arange(60), 4),
        session_returns=4.0 * daily / CAPITAL,
        benchmark_session_returns=np.tile([0.01, 0.01, -0.01, -0.01], 15),
        max_drawdown=0.01,
    )
    alone = promotion(record, "moe", symbol=f"S{place}", attempt=attempt)
    criteria = tuple(
        replace(one, value=p, met=p <= alone.alpha_used) if one.name == "p_no_edge" else one
        for one in alone.criteria
    )
    verdict = replace(alone, outcome=outcome, criteria=criteria, reasons=())
    return RunSymbol(naive=naive, five_percent=p <= 0.05, verdict=verdict)


def test_a_rule_goes_in_beyond_its_threshold_and_out_where_the_score_crosses_zero():
    scores = np.array([[0.5, 1.5, 0.2, 0.9, -0.1, -0.9, -1.2, -0.3, 0.4, 2.0]], dtype=np.float32)
    assert rule(1.0, 1.0).sides(scores)[0].tolist() == [0, 1, 1, 1, 0, 0, -1, -1, 0, 1]


def test_a_side_is_held_from_the_next_bar_and_closed_every_evening():
    sides = np.zeros((1, 2 * BARS_PER_SESSION), dtype=np.float32)
    returns = np.zeros(2 * BARS_PER_SESSION)
    last = BARS_PER_SESSION - 1
    sides[0, 10:] = 1.0
    returns[10], returns[11], returns[last], returns[last + 1] = 0.08, 0.04, 0.02, 0.01
    gross, units = earned(sides, returns)
    # Decided at the close of bar 10, so that bar's own 8 % are not earned.
    assert gross.tolist() == pytest.approx([0.07])
    assert units.tolist() == [4.0]  # in and out, twice


def test_the_fast_count_of_what_a_rule_earns_agrees_with_the_kernel():
    """Training chooses by the fast count and the gate judges by the kernel: they have to mean the same."""
    market = generate("noise_garch", 10, seed=5)
    inputs = inputs_of(market)
    rules = random_rules(len(inputs), generator(5, "rules"), count=20)
    sides = rules.sides(inputs)
    gross, units = earned(sides, market.returns)
    busiest = int(np.argmax(units))
    replay = replay_sessions(arrays_of(market), (0, 10), rules_at(1.0), (sides[busiest] + 1).astype(np.int8))
    assert units[busiest] > 100
    # A position is sized by the equity of the moment, so the account's growth is compared as a logarithm.
    assert replay.costs.sum() / CAPITAL == pytest.approx(1e-4 * units[busiest], rel=0.05)
    growth = np.log(replay.equity[-1] / CAPITAL)
    assert growth == pytest.approx(gross[busiest] - 1e-4 * units[busiest], abs=0.0005)


def test_training_takes_the_rule_that_earned_most_after_costs():
    inputs = np.zeros((1, BARS_PER_SESSION), dtype=np.float32)
    inputs[0, ::2], inputs[0, 1::2] = 1.0, -1.0
    returns = np.zeros(BARS_PER_SESSION)
    # The first rule is always right by 1 bp, trading two units a bar; the second never trades.
    returns[1:] = 1e-4 * inputs[0, :-1]
    both = LinearRules(
        *(np.array([[one], [two]], dtype=np.float32) for one, two in ((1, 1), (0, 0), (0.5, 9.0)))
    )
    chosen = best_by_cost(both, inputs, returns, (0.4, 0.6))
    assert chosen[0.4].threshold[0, 0] == 0.5
    assert chosen[0.6].threshold[0, 0] == 9.0


def test_the_random_policy_redraws_its_side_about_every_fifteen_bars():
    actions = random_actions(30_000, generator(1, "random"))
    assert set(actions.tolist()) == {0, 1, 2}
    # Two thirds of the redraws change the side.
    assert np.mean(np.diff(actions) != 0) == pytest.approx(2 / 3 / 15, rel=0.1)


def test_the_oracle_earns_what_it_should_on_a_planted_edge():
    """A weak edge that is not promoted must not be a mistake in how the oracle is followed."""
    market = generate("planted", 100, seed=3, r2=0.02, rho=0.95)
    replay = replay_sessions(arrays_of(market), (0, 100), rules_at(0.5), oracle_actions(market, 0.5))
    # An endless run earns 0.618 bp a bar (docs/why/markets-with-known-answers.md); closing every evening costs a
    # per cent or two of that, and the standard error over 18,700 bars is 0.044.
    assert np.log(replay.equity[-1] / CAPITAL) / len(market) / 1e-4 == pytest.approx(0.608, abs=0.13)
    last_bars = np.arange(BARS_PER_SESSION - 1, 100 * BARS_PER_SESSION, BARS_PER_SESSION)
    assert not replay.held[last_bars].any()


def test_the_record_of_a_short_window_is_the_beginning_of_a_long_ones():
    market = generate("noise_garch", 12, seed=9)
    stretch = Stretch(arrays_of(market), rules_at(0.5))
    actions = random_actions(len(market), generator(9, "random"))
    short = stretch.record(actions, (2, 5))
    cut = stretch.records(actions, 2, (3, 10))[3]
    assert len(short.net_pnl) > 10
    for name in ("net_pnl", "trade_session", "session_returns", "benchmark_session_returns"):
        np.testing.assert_array_equal(getattr(short, name), getattr(cut, name))
    assert short.max_drawdown == cut.max_drawdown


def test_a_rule_judged_on_its_own_training_data_shines_and_is_not_promoted_on_fresh_data():
    """Why gates have windows of their own: the naive gate on training data passes nearly everybody."""
    runs = [noise_run("noise_garch", run) for run in range(12)]
    in_sample = [run["trained 0.5 in-sample"].naive for run in runs]
    fresh = [
        run[f"trained 0.5 {sessions}"].promotion == "PASS" for run in runs for sessions in FRESH_SESSIONS
    ]
    assert np.mean(in_sample) >= 0.6
    assert np.mean(fresh) <= 0.05
    assert np.mean([run["trained 0.5 20"].naive for run in runs]) < np.mean(in_sample)


def test_retrying_opens_the_naive_gate_and_not_the_one_that_counts_attempts():
    first = [retry_run(20, run) for run in range(10)]
    naive = [each["naive"] for each in first]
    assert sum(attempt is not None for attempt in naive) >= 8
    assert sum(each["spent"] is not None for each in first) <= 2


def test_a_family_of_symbols_promotes_whoever_survives_benjamini_hochberg():
    # Of ten p values doubled for the first attempt, the smallest has to be at most 0.5 %, the second at most 1 %;
    # with q 10 %, at most 1 % and 2 %.
    family = [
        run_symbol(0, p=0.002, outcome="PASS"),
        run_symbol(1, p=0.009, outcome="PASS", naive=True),
        run_symbol(2, p=0.04, outcome="INCONCLUSIVE"),
    ]
    family += [run_symbol(place, p=0.5, outcome="FAIL") for place in range(3, 10)]
    chosen = {name: np.flatnonzero(rule(family)).tolist() for name, rule in SYMBOL_RULES.items()}
    assert list(chosen.values()) == [[1], [0, 1, 2], [0, 1], [0], [0, 1]]


def test_the_rule_for_a_family_is_the_products_own():
    # At a second look a p value counts six times, not twice: 0.012, where the first of ten has to be at most 0.005.
    family = [run_symbol(0, p=0.002, outcome="PASS", attempt=2)]
    family += [run_symbol(place, p=0.5, outcome="FAIL", attempt=2) for place in range(1, 10)]
    settled = across_symbols([each.verdict for each in family], 0.05)
    assert family_verdict(family) == [one.passed for one in settled] == 10 * [False]
    # Alone in its run, a symbol has only its own test to pass, whatever the rate of false discoveries.
    assert family_verdict(family[:1], q=0.001) == [True]


def test_sessions_needed_agree_with_the_textbook_where_there_are_many():
    # n = ((z_.975 + z_.8) / Sharpe per session)^2, plus 2 for the t distribution's tails.
    assert sessions_for_power(2 / np.sqrt(250), 0.8) == pytest.approx(
        (1.95996 + 0.84162) ** 2 / 4 * 250, rel=0.01
    )
    # Never fewer than the gate asks for.
    assert sessions_for_power(50 / np.sqrt(250), 0.9) == 20


def test_a_rate_is_shown_in_percent_with_its_wilson_interval():
    # Wilson 1927 for 1 of 20: (0.05 + 1.96^2/40 ± 1.96 sqrt(0.0475/20 + 1.96^2/1600)) / (1 + 1.96^2/20).
    assert Rate.of([True] + 19 * [False]).text() == "5.0 (0.9–23.6)"
    table = Table(title="t", headings=("a", "b"), rows=(("x", Rate(1, 20)),))
    assert table.markdown().splitlines() == ["t", "", "| a | b |", "| --- | --- |", "| x | 5.0 (0.9–23.6) |"]


def test_runs_shared_out_come_back_in_their_order():
    with ThreadPoolExecutor(2) as pool:
        assert spread_over(pool, divmod, [(7, 2), (9, 4), (5, 5)]) == [(3, 1), (2, 1), (1, 0)]
    table, *none = calibration("clusters", 2)
    assert not none
    assert table == calibration("clusters", 2)[0]


def test_the_command_prints_its_tables_and_writes_their_numbers(tmp_path, capsys):
    file = tmp_path / "gates.json"
    assert main(["--runs", "2", "--table", "power", "--table", "sessions", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    found = json.loads(file.read_text(encoding="utf-8"))
    (power,) = found["tables"]["power"]
    assert list(found["tables"]) == ["power", "sessions"]
    assert len(power["rows"]) == len(EDGES) * len(POWER_SESSIONS)
    strongest = next(row for row in power["rows"] if row[0].startswith("planted r2 0.02") and row[2] == "60")
    assert strongest[power["headings"].index("promotion PASS")]["share"] == 1.0
    assert printed.count("\n| planted r2 0.02 ") == len(POWER_SESSIONS)
    assert "s of processor time" in printed


@pytest.mark.parametrize("option", ["--runs", "--jobs"])
def test_nothing_to_do_is_a_usage_error(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([option, "0"])
    assert stopped.value.code == 2
    assert f"{option} has to be at least 1" in capsys.readouterr().err
