"""The tables of a run say what its report says, and do not fall over what a run may lack."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.stage_table import adaptation, cost, experts, main, stages


def _verdict(outcome: str, **metrics: Any) -> dict[str, Any]:
    criteria = [{"name": "win_rate", "lower": 0.4, "upper": 0.6}]
    return {"outcome": outcome, "criteria": criteria, "metrics": metrics}


def _stage(outcome: str, **more: Any) -> dict[str, Any]:
    validation = {
        "win_rate": 0.5,
        "profit_factor": 1.25,
        "max_drawdown": 0.1,
        "total_trades": 1234,
        "sharpe_ratio": None,
        "sharpe_low": None,
        "sharpe_high": None,
    }
    verdict = _verdict(outcome)
    return {"verdict": verdict, "attempts": [verdict], "validation": validation, "cpu_seconds": 12.4, **more}


def _symbol(**stages: Any) -> dict[str, Any]:
    return {"stages": stages, "champion": "ppo", "promotion": None, "final_model": None}


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_stage_has_a_row_with_its_figures_and_intervals():
    rows = stages({"A": _symbol(ppo=_stage("PASS"), moe=_stage("FAIL"))})[2:]
    assert [_cells(row)[:3] for row in rows] == [["A", "ppo", "PASS (1)"], ["A", "moe", "FAIL (1)"]]
    assert _cells(rows[0])[3:] == ["0.50 [0.40, 0.60]", "1.25", "0.10", "1,234", "-", "champion"]


def test_promotion_has_a_row_of_its_own():
    figures = {"win_rate": 0.45, "profit_factor": 1.1, "p_no_edge": 0.2, "max_drawdown": 0.05, "trades": 200}
    symbol = _symbol(ppo=_stage("PASS")) | {"promotion": _verdict("FAIL", **figures)}
    assert _cells(stages({"A": symbol})[-1])[:5] == [
        "A",
        "promotion",
        "FAIL",
        "0.45 [0.40, 0.60]",
        "1.10, p 0.200",
    ]


def test_a_symbol_without_a_stage_is_left_out_of_what_that_stage_did():
    symbols = {"A": _symbol(ppo=_stage("PASS"))}
    assert len(experts(symbols)) == 2
    assert len(adaptation(symbols)) == 2
    assert _cells(cost(symbols)[-1]) == ["A", "12", "-", "-"]


def test_experts_stand_beside_one_network_of_their_size():
    use = {"effective_experts": 3.9, "gate_entropy": 0.35, "divergence": 0.28, "switching_rate": 0.02}
    found = {
        "use": use,
        "information": {"nats": 1.38, "p": 0.001},
        "assignment": {"p": 0.0333},
        "knock_outs": [{"return_change": -0.25}, None],
        "collapses": [],
    }
    control = {"mixture_against_network": {"mean": 0.00021, "lower": -0.0001, "upper": 0.0005}}
    stage = _stage("PASS", dense_control=control)
    stage["validation"]["experts"] = found
    alone = _stage("PASS")
    alone["validation"]["experts"] = found
    heads, _, *rows = [_cells(row) for row in experts({"A": _symbol(moe=stage), "B": _symbol(moe=alone)})]
    assert rows[0] == [
        "A", "3.90", "0.35", "0.28", "2 %", "1.38 (p 0.001)", "0.033", "-25.0 %, -", "2.10 [-1.00, 5.00]", "none",
    ]  # fmt: skip
    assert rows[1][heads.index("mixture less one network of its size, bp a session")] == "-"


def test_growth_is_shown_in_basis_points_a_bar():
    compared = [{"name": "over_stage_2", "difference": -3.4e-5, "lower": -1e-4}]
    found = {"query_windows": 69, "curve": [{"steps": 7, "mean": 2e-5}], "comparisons": compared}
    row = _cells(adaptation({"A": _symbol(maml=_stage("FAIL", adaptation=found))})[-1])
    assert row[:4] == ["A", "69", "7: +0.20", "-0.34 (from -1.00)"]


def test_the_command_prints_all_tables(tmp_path, capsys):
    report = tmp_path / "training_report.json"
    report.write_text(json.dumps({"symbols": {"A": _symbol(ppo=_stage("PASS"))}}), encoding="utf-8")
    assert main([str(report)]) == 0
    assert capsys.readouterr().out.count("|---") >= 4


def test_a_missing_report_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "training_report.json")])
    assert ended.value.code == 2
    assert "training_report.json" in capsys.readouterr().err
