"""The backtest's money, counted again from its action log and the raw bars by a script that shares no code with it."""

from __future__ import annotations

import ast
import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.command_line import Workplace
from tests.integration.independent_scorer import Score, score

SYNTHETIC = "SYN_planted_2"
REAL = "Made_15"
CAPITAL = 100_000.0
EXACT = 1e-9

INSTRUMENT = """
instruments:
  Made:
    asset_class: index
    currency: INR
    calendar: NSE
    lot_size: 0
    tick_size: 0.05
    commission: {per_order_entry: 15.0, per_order_exit: 9.0, per_unit: 0.001, rate: 0.3e-4}
    slippage: {ticks: 0.5, rate: 0.2e-4}
    tax_on_sale_rate: 1.0e-4
    margin_rate: 0.2
    square_off: true
"""
COSTS = {
    REAL: {
        "commission_per_entry": 15.0,
        "commission_per_exit": 9.0,
        "commission_per_unit": 0.001,
        "commission_rate": 0.3e-4,
        "slippage_rate": 0.2e-4,
        "slippage_price": 0.5 * 0.05,
        "tax_on_sale_rate": 1.0e-4,
    },
    SYNTHETIC: {"commission_rate": 0.5e-4},
}
STOPS = (
    "environment.stops.stop_loss=3.0",
    "environment.stops.take_profit=4.0",
    "environment.stops.trailing_stop=5.0",
)


def write_made_market(path: Path, sessions: int = 160, seed: int = 3) -> None:
    """Write 15-minute bars of NSE hours with gaps, whose x_edge foretells the next bar, and some days cut short.

    Days cut short have no bar that reaches the close, so positions are closed at the next day's open.
    """
    rng = np.random.default_rng(seed)
    price = 1000.0
    edge = float(rng.normal())
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["datetime", "open", "high", "low", "close", "x_edge", "x_regime_mood"])
        for session in range(sessions):
            day = np.busday_offset("2023-01-02", session)
            mood = float(rng.normal())
            # The last fortnight is the test window; its days cut short have to be traded.
            bars = 18 if rng.random() < 0.15 else 25
            for bar in range(bars):
                opened = price * math.exp(rng.normal(0, 0.003 if bar == 0 else 0.0002))
                drift = 0.0015 * math.copysign(1.0, edge)
                price = opened * math.exp(drift + rng.normal(0, 0.001))
                top = max(opened, price) * math.exp(abs(rng.normal(0, 0.0007)))
                bottom = min(opened, price) * math.exp(-abs(rng.normal(0, 0.0007)))
                edge = float(rng.normal())
                minutes = 9 * 60 + 15 + 15 * bar
                label = f"{day} {minutes // 60:02}:{minutes % 60:02}:00"
                lines.writerow([label, *(repr(float(v)) for v in (opened, top, bottom, price, edge, mood))])


@dataclass
class Case:
    """One backtest and its score."""

    symbol: str
    report: dict[str, Any]
    raw: Path
    actions: Path
    score: Score


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workplace:
    """Two markets, trained just enough to trade both ways: one without, one with a model that uses stops."""
    workplace = Workplace(tmp_path_factory.mktemp("scorer"))
    workplace.synth(SYNTHETIC, sessions=40)
    write_made_market(workplace.raw / f"{REAL}.csv")
    file = workplace.root / "instruments.yaml"
    file.write_text(INSTRUMENT)
    common = ["--instruments", str(file), "--stages", "ppo"]
    learns = (
        "training_params.ppo.learning_rate=0.01",
        "training_sequence.stage_1_ppo.episodes=80",
        "features.include=['x_*']",
        "monitoring.checkpoint_frequency=40",
        "embargo_bars=0",
    )
    done = workplace.train("--symbols", REAL, *common, settings=learns)
    assert done.code == 0, done.err
    done = workplace.train(
        "--symbols", SYNTHETIC, *common, settings=("training_sequence.stage_1_ppo.episodes=20",)
    )
    assert done.code == 0, done.err
    stopped = Workplace(workplace.root / "stopped")
    stopped.raw.mkdir(parents=True)
    (stopped.raw / f"{REAL}.csv").write_bytes((workplace.raw / f"{REAL}.csv").read_bytes())
    done = stopped.train("--symbols", REAL, *common, settings=(*learns, *STOPS))
    assert done.code == 0, done.err
    return workplace


def case_of(place: Workplace, symbol: str, *arguments: str) -> Case:
    report, actions = place.root / f"{symbol}.json", place.root / f"{symbol}.csv"
    done = place.backtest(
        "--symbols", symbol, "--report-file", str(report), "--actions-file", str(actions), *arguments
    )
    assert done.code == 0, done.err
    raw = place.raw / f"{symbol}.csv"
    return Case(
        symbol=symbol,
        report=json.loads(report.read_text())["symbols"][symbol],
        raw=raw,
        actions=actions,
        score=score(actions, raw, symbol, CAPITAL, **COSTS[symbol]),
    )


@pytest.fixture(scope="module", params=["synthetic", "square-off and every cost", "with stops", "in sample"])
def case(request, place) -> Case:
    made = ["--instruments", str(place.root / "instruments.yaml")]
    if request.param == "synthetic":
        return case_of(place, SYNTHETIC)
    if request.param == "with stops":
        return case_of(Workplace(place.root / "stopped"), REAL, *made)
    if request.param == "in sample":
        return case_of(place, REAL, *made, "--split", "train")
    return case_of(place, REAL, *made)


def test_the_scorer_imports_nothing_of_the_program():
    source = Path(__file__).with_name("independent_scorer.py").read_text()
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported == {"__future__", "csv", "dataclasses", "itertools", "pathlib", "sys"}


def test_profit_and_final_equity_are_those_of_the_report(case):
    metrics = case.report["metrics"]
    assert case.score.total_pnl == pytest.approx(metrics["total_pnl"], rel=EXACT)
    assert case.score.final_equity == pytest.approx(metrics["final_equity"], rel=EXACT)
    assert case.score.final_equity / CAPITAL - 1 == pytest.approx(metrics["total_return"], rel=EXACT)


def test_trades_and_win_rate_are_those_of_the_report(case):
    metrics = case.report["metrics"]
    assert len(case.score.trade_pnl) == metrics["total_trades"] > 20
    assert case.score.win_rate == pytest.approx(metrics["win_rate"], rel=EXACT)
    won = sum(pnl for pnl in case.score.trade_pnl if pnl > 0)
    lost = -sum(pnl for pnl in case.score.trade_pnl if pnl < 0)
    assert won / lost == pytest.approx(metrics["profit_factor"], rel=EXACT)
    assert sum(case.score.trade_pnl) / len(case.score.trade_pnl) == pytest.approx(
        metrics["expectancy"], rel=EXACT
    )


def test_costs_are_those_of_the_report(case):
    assert case.score.costs == pytest.approx(case.report["metrics"]["total_costs"], rel=EXACT)
    assert case.score.costs > 0


def test_the_drawdown_is_that_of_the_report(case):
    peak, deepest = CAPITAL, 0.0
    for equity in case.score.equity:
        peak = max(peak, equity)
        deepest = max(deepest, 1 - equity / peak)
    assert deepest == pytest.approx(case.report["metrics"]["max_drawdown"], rel=1e-9)


def test_both_sides_were_traded(case):
    """Otherwise half of the rules, the tax on sales among them, would not have been checked."""
    with case.actions.open() as file:
        positions = [float(row["position"]) for row in csv.DictReader(file)]
    assert min(positions) < -0.5
    assert max(positions) > 0.5


def test_every_new_position_is_all_the_equity_there_was_when_it_was_decided(case):
    """At the decision's own close: a size worked out from any later price would not come to exactly one."""
    with case.actions.open() as file:
        opened = [
            abs(float(row["position"]))
            for row in csv.DictReader(file)
            if row["fill_price"] and float(row["position"])
        ]
    assert len(opened) > 20
    assert opened == pytest.approx([1.0] * len(opened), rel=EXACT)


def test_the_markets_show_every_way_a_position_can_end(place):
    made = ["--instruments", str(place.root / "instruments.yaml")]
    plain = case_of(place, REAL, *made, "--split", "train").report["exits"]
    assert {"order", "session end", "late session end"} <= set(plain)
    stopped = case_of(Workplace(place.root / "stopped"), REAL, *made, "--split", "train").report["exits"]
    assert {"stop", "target", "trailing stop"} & set(stopped)


def test_a_log_that_was_changed_by_a_hair_no_longer_agrees(case, tmp_path):
    """The agreement above is worth something only if a wrong log is noticed."""
    rows = list(csv.reader(case.actions.open()))
    traded = next(number for number, row in enumerate(rows[1:], start=1) if float(row[2]) != 0 and row[3])
    rows[traded][2] = repr(float(rows[traded][2]) * 1.001)
    changed = tmp_path / "changed.csv"
    with changed.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    found = score(changed, case.raw, case.symbol, CAPITAL, **COSTS[case.symbol])
    assert found.total_pnl != pytest.approx(case.report["metrics"]["total_pnl"], rel=EXACT)
    rows[traded][3] = repr(float(rows[traded][3]) * 1.001)
    with changed.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(ValueError, match="but the next open is"):
        score(changed, case.raw, case.symbol, CAPITAL, **COSTS[case.symbol])


def test_the_scorer_agrees_with_sums_done_by_hand(tmp_path):
    """Its own ground: 5 units long over one bar, flipped short, closed by the session's end."""
    raw, actions = tmp_path / "raw.csv", tmp_path / "actions.csv"
    raw.write_text(
        "datetime,open,high,low,close\nt0,100,100,100,100\nt1,110,120,110,120\nt2,121,121,90,99\nt3,99,99,99,99\n"
    )
    # 0.5 of 1000 at 100 are 5 units; then short 7 at 120 of the equity at t1.
    first = 1000 - 5 * 110 - 1 - 5.5
    position = -7 * 120 / (first + 5 * 120)
    actions.write_text(
        "symbol,datetime,position,fill_price,exit_price,exit_reason\n"
        f"S,t0,0.5,110.0,,\nS,t1,{position!r},121.0,99.0,session end\nS,t2,0.0,,,\n"
    )
    found = score(
        actions, raw, "S", 1000.0, commission_per_entry=1.0, commission_per_exit=2.0, commission_rate=0.01
    )
    long = 5 * (121 - 110) - 1 - 2 - 0.01 * 5 * (110 + 121)
    short = 7 * (121 - 99) - 1 - 2 - 0.01 * 7 * (121 + 99)
    assert found.trade_pnl == pytest.approx([long, short])
    assert found.total_pnl == pytest.approx(long + short)
    assert found.equity[0] == pytest.approx(1000 + 5 * (120 - 110) - 1 - 5.5)
    assert found.win_rate == 1.0
    assert found.exits == {"session end": 1}
