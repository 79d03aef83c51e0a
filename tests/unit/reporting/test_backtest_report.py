"""What a backtest report says, and the log of decisions from which it can be recomputed."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl.backtest.engine import replay_actions
from rl.backtest.result import SymbolResult, portfolio_figures, symbol_result
from rl.common.errors import UsageError
from rl.market.bars import Bars
from rl.reporting.backtest_report import (
    checked_report_files,
    headline,
    json_report,
    text_report,
    write_actions,
    write_reports,
)
from rl.reporting.backtest_words import what_is_shown
from rl.trading.rules import TradingRules
from tests.builders import bars_from_closes
from tests.unit.backtest.small_markets import FLAT, FREE, LONG, SHORT, market_of_closes

CAPITAL = 1000.0
CLOSES = [100.0, 110.0, 121.0, 99.0, 99.0, 132.0]
SESSIONS = [0, 0, 1, 1, 2, 2]


def a_result(
    symbol: str = "Nifty_15",
    actions: tuple[int, ...] = (LONG, FLAT, SHORT, FLAT, LONG),
    *,
    rules: TradingRules = FREE,
    market=None,
    window: tuple[int, int] = (0, 6),
    scheme: str = "target",
    **changes: Any,
) -> tuple[SymbolResult, Bars]:
    """Return a backtest of the six bars above; `changes` go into the model's and the span's facts."""
    arrays = market or market_of_closes(CLOSES, session=SESSIONS)
    bars = bars_from_closes(arrays.ohlc[:, 3], symbol=symbol, bars_per_session=2)
    replay = replay_actions(arrays, window, rules, actions, capital=CAPITAL, scheme=scheme)
    model = {
        "file": f"models/{symbol}_final_model.pth",
        "stage": "ppo",
        "verdict": "PASS",
        "verdict_text": "promotion PASS",
        "promoted": True,
        "headline": "",
    }
    span = {
        "from": "first",
        "to": "last",
        "split": "test",
        "bars": 6,
        "sessions": 3,
        "seen_in_training_or_choosing": False,
        "looks": 1,
        "ruined_on": None,
    }
    result = symbol_result(
        bars=bars,
        market=arrays,
        window=window,
        rules=rules,
        scheme=scheme,
        replay=replay,
        model={name: changes.get(name, value) for name, value in model.items()},
        span={name: changes.get(name, value) for name, value in span.items()},
        instrument={
            "name": "Nifty",
            "asset_class": "index",
            "currency": "INR",
            "matched": "Nifty (instrument)",
            "rules": rules.as_dict(),
        },
        sessions_per_year=252,
        generator=np.random.default_rng(0),
        random_draws=3,
        frontier_bp=[0.0, 10.0],
        confidence=0.95,
        listed_trades=10,
        trials=changes.get("trials", 0),
        trial_variance=changes.get("trial_variance"),
        notes=changes.get("notes", ()),
    )
    return result, bars


def report_of(**changes: Any) -> str:
    results = [a_result(**changes)[0]]
    return text_report(results, portfolio_figures(results))


# --- the headline ---------------------------------------------------------------------------------------------------


def test_the_headline_counts_what_was_promoted_and_what_earned_more_than_holding():
    winner, _ = a_result("A", (LONG, LONG, SHORT, FLAT, LONG))
    loser, _ = a_result("B", (SHORT, SHORT, LONG, FLAT, SHORT), promoted=False)
    text = headline([winner, loser])
    assert text.startswith("1 of 2 models were promoted on evidence (A).")
    assert "1 of 2 earned money and beat buy-and-hold here, after costs (A)." in text
    assert "IN-SAMPLE" not in text
    assert "SYNTHETIC" not in text


def test_the_headline_on_one_model_counts_it_as_one():
    assert headline([a_result("A")[0]]).startswith("1 of 1 model was promoted on evidence (A).")
    alone, _ = a_result("A", promoted=False)
    assert headline([alone]).startswith("0 of 1 model was promoted on evidence.")


def test_the_text_begins_with_the_verdict_sentences_of_the_page():
    one, _ = a_result("A", promoted=False, verdict_text="promotion FAIL")
    other, _ = a_result("B")
    top = text_report([one, other], portfolio_figures([one, other])).partition("PORTFOLIO")[0]
    plain = " ".join(top.split())
    assert " ".join(["A", *what_is_shown(one), "B", *what_is_shown(other)]) in plain
    assert plain.index("of 2 models were promoted") < plain.index("Not promoted: no edge is shown")
    assert max(map(len, top.splitlines()[4:])) <= 110
    alone = text_report([one], portfolio_figures([one])).partition("PORTFOLIO")[0]
    assert " ".join(what_is_shown(one)) in " ".join(alone.split())
    assert "\nA\n" in top
    assert "\nA\n" not in alone


def test_earning_less_than_holding_is_not_called_beating_it():
    # Buy-and-hold makes 32 %, this 10 %.
    modest, _ = a_result("A", (LONG, FLAT, FLAT, FLAT, FLAT))
    assert "0 of 1 earned money and beat buy-and-hold" in headline([modest])


def test_a_span_that_was_seen_proves_nothing_and_the_headline_says_so():
    seen, _ = a_result(split="validation", seen_in_training_or_choosing=True)
    assert (
        "IN-SAMPLE: the validation window was seen in training or choosing; these figures prove nothing."
        in (headline([seen]))
    )


def test_made_up_data_are_named_in_the_headline():
    made_up, _ = a_result("SYN_planted_2")
    assert "SYNTHETIC data: SYN_planted_2; nothing follows for any real market." in headline([made_up])


# --- the text -------------------------------------------------------------------------------------------------------


def test_the_text_has_a_row_for_the_strategy_and_for_every_baseline():
    text = report_of()
    for row in ("strategy", "flat", "buy and hold", "always short", "random", "last bar sign"):
        assert any(line.strip().startswith(row) for line in text.splitlines()), row
    assert "models/Nifty_15_final_model.pth (stage ppo; promotion PASS)" in text
    assert "test: first .. last, 3 sessions, 6 bars" in text


def test_costs_are_said_in_words_with_their_units():
    rules = replace(
        FREE,
        commission_rate=0.5e-4,
        commission_per_entry=20.0,
        commission_per_exit=10.0,
        commission_per_unit=0.02,
        slippage_rate=1e-4,
        slippage_price=0.05,
        tax_on_sale_rate=5e-4,
        square_off=True,
    )
    line = next(line for line in report_of(rules=rules).splitlines() if line.startswith("  costs    "))
    for words in (
        "Nifty (instrument)",
        "0.5 bp per side",
        "20 per entry, 10 per exit",
        "0.02 per unit",
        "slippage 1 bp",
        "slippage 0.05 in price",
        "tax on sale 5 bp",
        "shorts allowed",
        "flat at each session's end",
    ):
        assert words in line


def test_a_model_that_passed_no_gate_is_a_warning():
    text = report_of(headline="NO GATE WAS PASSED: this is the ppo model", promoted=False)
    assert "WARNING  NO GATE WAS PASSED: this is the ppo model" in text


def test_notes_and_reasons_for_missing_figures_are_shown():
    text = report_of(actions=(FLAT,) * 5, notes=["stage-3 model adapted"])
    assert "note     stage-3 model adapted" in text
    assert "win_rate cannot be computed: no trade was closed" in text


def test_a_short_that_is_forbidden_is_no_figure_in_the_table():
    result, _ = a_result(rules=replace(FREE, allow_short=False), actions=(LONG, FLAT, LONG, FLAT, LONG))
    text = text_report([result], portfolio_figures([result]))
    line = next(line for line in text.splitlines() if line.strip().startswith("always"))
    assert "%" not in line
    assert result.baselines["always_short"]["unavailable"] == "this instrument may not be sold short"
    assert "no shorts" in text


def test_percent_and_money_are_those_of_the_figures():
    # Long over bar 1, short over bar 3, long over bar 5: 1000, 1100, then a fall by 18.2 %, then 33.3 %.
    text = report_of()
    strategy = next(line for line in text.splitlines() if line.strip().startswith("strategy"))
    final = 1100 * (1 + 22 / 121) * (132 / 99)
    assert f"{100 * (final / 1000 - 1):.1f} %" in strategy
    assert f"final {final:,.2f}" in text


def test_the_cost_the_actions_bear_is_said_beside_what_was_paid():
    # 10 units from 100 to 110 win 100 on 2100 traded.
    text = report_of(actions=(LONG, FLAT, FLAT, FLAT, FLAT), rules=replace(FREE, commission_rate=0.001))
    assert (
        "break-even cost 476.19 bp per side: at it the same actions earn nothing (paid here 10.00 bp)" in text
    )
    losing = report_of(actions=(SHORT, FLAT, FLAT, FLAT, FLAT))
    assert "break-even cost cannot be computed: it loses money even at no cost" in losing


def test_the_deflated_sharpe_is_said_with_its_trials_and_that_it_decides_nothing():
    result, _ = a_result(trials=7, trial_variance=0.04)
    value = result.sharpe_after_trials.values["deflated_sharpe"]
    assert (
        f"deflated Sharpe {value:.2f} (1 minus the chance that luck alone shows such a ratio as the best of 7 trials; "
        "not the chance that there is an edge; shown, not used to decide)"
    ) in report_of(trials=7, trial_variance=0.04)
    alone = report_of(trials=1)
    assert "deflated Sharpe cannot be computed: the evidence ledger holds one judged trial" in alone
    assert (
        "(1 minus the chance that luck alone shows such a ratio, as if this were the only trial; "
        "not the chance that there is an edge; shown, not used to decide)"
    ) in alone


def test_a_record_that_never_moved_has_neither_sharpe_chance():
    text = report_of(actions=(FLAT,) * 5, trials=7, trial_variance=0.04)
    assert "deflated Sharpe cannot be computed: fewer than two sessions" in text
    assert "probabilistic" not in text


# --- JSON -----------------------------------------------------------------------------------------------------------


def test_json_has_the_same_figures_unrounded_and_null_with_a_reason():
    result, _ = a_result(actions=(LONG, FLAT, FLAT, FLAT, FLAT))
    found = json.loads(json.dumps(json_report([result], portfolio_figures([result])), allow_nan=False))
    symbol = found["symbols"]["Nifty_15"]
    assert found["schema_version"] == 1
    assert symbol["metrics"]["total_return"] == result.figures.values["total_return"] == pytest.approx(0.1)
    assert symbol["metrics"]["profit_factor"] is None
    assert symbol["metrics"]["not_computed"]["profit_factor"] == "no trade lost money"
    assert symbol["synthetic"] is False
    assert symbol["model"]["verdict"] == "PASS"
    assert symbol["span"]["split"] == "test"
    assert symbol["exits"] == {"order": 1}
    assert len(symbol["latest_trades"]) == 1
    assert symbol["interval_confidence"] == 0.95
    assert symbol["break_even_cost"]["cost_bp_per_side"] == pytest.approx(1e4 * 100 / 2100)
    assert symbol["sharpe_after_trials"]["deflated_sharpe"] is None
    assert symbol["sharpe_after_trials"]["not_computed"]["deflated_sharpe"]


def test_reports_are_written_by_their_endings_into_new_folders(tmp_path):
    result, _ = a_result()
    paths = [tmp_path / "new" / "r.txt", tmp_path / "other" / "R.JSON"]
    write_reports(paths, [result], portfolio_figures([result]))
    assert paths[0].read_text().startswith("STAGEGATE BACKTEST REPORT")
    assert json.loads(paths[1].read_text())["schema_version"] == 1


@pytest.mark.parametrize("name", ["r.pdf", "r", "r.json.gz", "r.html2", ".txt"])
def test_an_ending_no_report_has_is_refused(name):
    with pytest.raises(UsageError, match=r"has to be one of \.txt, \.json"):
        checked_report_files([Path("good.txt"), Path(name)])


def test_endings_are_read_without_regard_to_case():
    checked_report_files([Path("a.TXT"), Path("b.Json")])


# --- the actions file -----------------------------------------------------------------------------------------------


def actions_of(tmp_path: Path, *results: tuple[SymbolResult, Bars]) -> list[dict[str, str]]:
    path = tmp_path / "new folder" / "a.csv"
    write_actions(path, results)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


FORMULAS = ["=cmd|' /C calc'!A0", "+1+cmd", "-1+cmd", "@SUM(A1)", "\t=1", "\r=1"]


@pytest.mark.parametrize("symbol", FORMULAS)
def test_no_cell_of_the_actions_file_is_a_formula_to_a_spreadsheet(tmp_path, symbol):
    market = market_of_closes(CLOSES, session=SESSIONS, session_end=[False, True] * 3)
    result, bars = a_result(market=market, rules=replace(FREE, square_off=True))
    result, bars = replace(result, symbol=symbol), replace(bars, label=np.array(FORMULAS, dtype=object))
    rows = actions_of(tmp_path, (result, bars))
    # As text, whatever they begin with; the apostrophe is not shown by a spreadsheet.
    shown = ["'" + text for text in FORMULAS[:5]] + ["\\x0d=1"]
    assert [row["symbol"] for row in rows] == [shown[FORMULAS.index(symbol)]] * 5
    assert [row["datetime"] for row in rows] == shown[:5]
    assert {row["exit_reason"] for row in rows} == {"", "session end"}
    begins = [
        (name, cell)
        for row in rows
        for name, cell in row.items()
        if cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    ]
    # What begins with a sign otherwise is a number: a short position.
    assert {name for name, _ in begins} == {"position"}
    assert all(float(cell) < 0 for _, cell in begins)


def test_every_decision_is_a_line_with_exposure_and_fill(tmp_path):
    result, bars = a_result()
    rows = actions_of(tmp_path, (result, bars))
    assert [row["datetime"] for row in rows] == list(bars.label[:5])
    # Long: all of 1000 at the close of 100. Then flat; then short and long with all there is.
    assert [float(row["position"]) for row in rows] == pytest.approx([1.0, 0.0, -1.0, 0.0, 1.0])
    # Each open is the close before.
    assert [float(row["fill_price"]) for row in rows] == [100.0, 110.0, 121.0, 99.0, 99.0]
    assert {row["exit_price"] + row["exit_reason"] for row in rows} == {""}


def test_exposure_is_units_at_the_decisions_close_over_its_equity(tmp_path):
    result, bars = a_result(actions=(LONG, LONG, LONG, FLAT, FLAT), rules=replace(FREE, exposure=0.5))
    rows = actions_of(tmp_path, (result, bars))
    # 5 units held at 110 on an equity of 1050, then at 121 on 1105.
    assert [float(row["position"]) for row in rows[:3]] == pytest.approx([0.5, 550 / 1050, 605 / 1105])
    assert [row["fill_price"] for row in rows] == ["100.0", "", "", "99.0", ""]


def test_where_the_session_closed_the_position_both_the_fill_and_the_exit_are_written(tmp_path):
    market = market_of_closes(CLOSES, session=SESSIONS, session_end=[False, True] * 3)
    result, bars = a_result(
        actions=(LONG, FLAT, FLAT, FLAT, SHORT), rules=replace(FREE, square_off=True), market=market
    )
    rows = actions_of(tmp_path, (result, bars))
    assert (rows[0]["fill_price"], rows[0]["exit_price"], rows[0]["exit_reason"]) == (
        "100.0",
        "110.0",
        "session end",
    )
    assert (rows[4]["fill_price"], rows[4]["exit_price"], rows[4]["exit_reason"]) == (
        "99.0",
        "132.0",
        "session end",
    )
    # What was decided, not what the evening left of it.
    assert float(rows[0]["position"]) == 1.0


def test_a_ruin_is_said_in_the_text_with_its_day():
    market = market_of_closes([100, 195, 195, 195, 195, 195], session=SESSIONS)
    text = report_of(actions=(SHORT,) * 5, market=market, ruined_on="2024-01-02")
    assert "RUINED   on 2024-01-02: equity fell to the ruin level" in text
    assert "RUINED" not in report_of()


def test_the_looks_taken_at_the_test_window_are_said():
    assert "6 bars, look 3 at it" in report_of(looks=3)
    assert "look" not in next(
        line for line in report_of(looks=None).splitlines() if line.startswith("  span")
    )


def test_a_ruined_account_has_no_lines_after_its_ruin(tmp_path):
    market = market_of_closes([100, 195, 195, 195, 195, 195], session=SESSIONS)
    result, bars = a_result(actions=(SHORT,) * 5, market=market)
    assert len(actions_of(tmp_path, (result, bars))) == 1


def test_an_account_ruined_later_has_the_lines_up_to_its_ruin(tmp_path):
    # Two bars of standing still, then a short loses 95 %.
    market = market_of_closes([100, 100, 100, 195, 195, 195], session=SESSIONS)
    result, bars = a_result(actions=(SHORT,) * 5, market=market)
    rows = actions_of(tmp_path, (result, bars))
    assert [float(row["position"]) for row in rows] == [-1.0, -1.0, -1.0]


def test_several_symbols_share_one_file(tmp_path):
    rows = actions_of(tmp_path, a_result("A"), a_result("B"))
    assert [row["symbol"] for row in rows] == ["A"] * 5 + ["B"] * 5


def test_prices_are_written_with_every_digit(tmp_path):
    closes = [100.0, 100.1 + 1e-13, 100.3, 100.7, 100.9, 101.1]
    market = market_of_closes(closes, session=SESSIONS)
    result, bars = a_result(actions=(FLAT, LONG, FLAT, FLAT, FLAT), market=market)
    rows = actions_of(tmp_path, (result, bars))
    assert float(rows[1]["fill_price"]) == closes[1]
