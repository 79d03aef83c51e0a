"""`python -m rl models` and `compare` on what a small training leaves behind, whole, damaged or changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rl.__main__
from rl.common.errors import DATA, OK, USAGE
from rl.common.interpreter import interpreter
from tests.integration.command_line import Finished, Workplace, finished

SYMBOL = "SYN_planted_2"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("trained"))
    place.synth(SYMBOL, sessions=30)
    done = place.train(
        "--symbols", SYMBOL, "--stages", "ppo", "moe", settings=("model_management.keep_best_models=true",)
    )
    assert done.code == OK, done.err
    return place


@pytest.fixture
def copy(trained, tmp_path) -> Workplace:
    shutil.copytree(trained.models, tmp_path / "models")
    shutil.copytree(trained.reports, tmp_path / "reports")
    return Workplace(tmp_path)


def models(place: Workplace, *arguments: str) -> Finished:
    return finished(rl.__main__.main, ["models", *place.folders()[4:], *arguments])


def compare(place: Workplace, *arguments: str) -> Finished:
    return finished(rl.__main__.main, ["compare", *arguments, "--reports-dir", str(place.reports)])


def the_run(place: Workplace) -> Path:
    (run,) = [folder for folder in (place.reports / "runs").iterdir() if (folder / "run.json").exists()]
    return run


def another(place: Workplace, name: str, change: Callable[[dict[str, Any]], None]) -> str:
    """Make a run that differs from the trained one by a change of its report; return its name."""
    folder = place.reports / "runs" / name
    shutil.copytree(the_run(place), folder)
    (folder / "run.json").unlink()
    report = json.loads((folder / "training_report.json").read_text())
    change(report)
    (folder / "training_report.json").write_text(json.dumps(report))
    return name


# --- models -------------------------------------------------------------------------------------------------


def test_models_are_listed_with_verdict_window_run_and_whether_they_are_whole(trained):
    done = models(trained)
    assert done.code == OK, done.err
    lines = [line.split() for line in done.out.splitlines() if line.startswith(SYMBOL)]
    run = the_run(trained).name
    assert [line[:2] for line in lines] == [[SYMBOL, "ppo"], [SYMBOL, "moe"]]
    assert all(line[-2:] == ["whole", run] for line in lines)
    listed = json.loads(models(trained, "--json").out)
    report = json.loads((the_run(trained) / "training_report.json").read_text())["symbols"][SYMBOL]
    for found in listed:
        stage = report["stages"][found["stage"]]
        assert found["verdict"] == stage["verdict"]["outcome"]
        assert found["window"] == "validation"
        assert (found["window_from"], found["window_to"]) == (
            stage["verdict"]["window"]["from"],
            stage["verdict"]["window"]["to"],
        )
        assert found["is_whole"]
        judged = found["stage"] == report["champion"]
        assert found["promotion"] == (f"no ({report['promotion']['outcome']})" if judged else "-")


def test_a_damaged_model_is_listed_as_damaged_with_the_reason_and_exit_code_4(copy):
    path = copy.models / f"{SYMBOL}_ppo_stage1.pth"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = models(copy)
    assert done.code == DATA
    (line,) = [line for line in done.out.splitlines() if "DAMAGED" in line]
    assert line.split()[:3] == [SYMBOL, "ppo", "-"]
    assert f"{path} is refused: it was altered" in done.out.replace("\n", " ")
    assert "whole" in next(line for line in done.out.splitlines() if line.startswith(f"{SYMBOL}   moe"))
    # Its weights gone altogether, the model is still in the list.
    path.unlink()
    assert "DAMAGED" in models(copy).out


def test_a_model_under_another_symbols_name_is_not_taken_for_it(copy):
    for ending in ("", ".json"):
        shutil.copy(
            copy.models / f"{SYMBOL}_ppo_stage1.pth{ending}", copy.models / f"Gold_ppo_stage1.pth{ending}"
        )
    done = models(copy, "--symbols", "Gold")
    assert done.code == DATA
    assert f"its name says symbol Gold, but it holds symbol {SYMBOL}" in done.out


def test_dated_copies_are_listed_where_asked_for(copy):
    copies = [path for path in copy.models.glob("*.pth") if "_stage_" in path.name]
    if not copies:
        for ending in ("", ".json"):
            shutil.copy(
                copy.models / f"{SYMBOL}_ppo_stage1.pth{ending}",
                copy.models / f"{SYMBOL}_stage_1_ppo_PPO_20260101T000000Z.pth{ending}",
            )
    (named,) = [path.name for path in copy.models.glob("*_stage_1_*.pth")]
    assert named not in models(copy).out
    listed = json.loads(models(copy, "--all", "--json").out)
    assert [
        (each["symbol"], each["stage"], each["is_whole"]) for each in listed if each["file"] == named
    ] == [(SYMBOL, "ppo", True)]
    assert named in models(copy, "--all").out


def test_models_of_an_unknown_symbol_suggest_the_nearest_and_an_empty_folder_what_to_do(trained, tmp_path):
    done = models(trained, "--symbols", "SYN_plantd_2")
    assert (done.code, done.out) == (USAGE, "")
    assert f"did you mean {SYMBOL}?" in done.err
    empty = models(Workplace(tmp_path))
    assert empty.code == DATA
    assert f"Train with: {interpreter()} run_training.py --symbols all" in empty.err


def test_without_a_ledger_promotions_are_not_made_up(copy):
    (copy.reports / "evidence_ledger.jsonl").unlink()
    done = models(copy)
    assert done.code == OK
    assert "what became of promotions is not known" in done.err
    assert {each["promotion"] for each in json.loads(models(copy, "--json").out)} == {None}


# --- compare ------------------------------------------------------------------------------------------------


def test_runs_that_differ_in_a_setting_are_comparable_and_show_figures_with_thresholds(copy):
    def changed(report: dict[str, Any]) -> None:
        report["plan"]["training_params"]["ppo"]["gamma"] = 0.9
        stage = report["symbols"][SYMBOL]["stages"]["ppo"]
        stage["validation"]["total_return"] = 0.123
        criterion = next(each for each in stage["verdict"]["criteria"] if each["name"] == "win_rate")
        criterion |= {"value": 0.25, "threshold": 0.5, "met": False}

    run, other = the_run(copy).name, another(copy, "20990101-000000-full-s1", changed)
    done = compare(copy, run, other)
    assert done.code == OK, done.err
    (setting,) = [line.split() for line in done.out.splitlines() if "training_params.ppo.gamma" in line]
    assert setting == ["plan", "training_params.ppo.gamma", "0.99", "0.9"]
    assert "NOT COMPARABLE" not in done.out
    assert "12.3 %" in done.out
    (win,) = [line for line in done.out.splitlines() if line.split()[:2] == ["win_rate", "differs"]]
    assert ", at least 0.35" in win
    assert win.endswith("0.25 short, at least 0.5")
    assert "Versions of libraries were not noted by B." in done.out
    found = json.loads(compare(copy, run, other, "--json").out)
    assert found["differences"] == [
        {"what": "plan", "key": "training_params.ppo.gamma", "values": {"A": 0.99, "B": 0.9}}
    ]
    assert found["not_comparable"] == {}
    assert found["symbols"][SYMBOL]["B"]["stages"]["ppo"]["criteria"]["win_rate"]["met"] is False
    assert "win_rate" not in compare(copy, run, other, "--quiet").out


@pytest.mark.parametrize("what", ["window", "data", "costs", "missing"])
def test_where_windows_data_or_costs_differ_figures_are_called_not_comparable(copy, what):
    def changed(report: dict[str, Any]) -> None:
        found = report["symbols"][SYMBOL]
        if what == "window":
            found["windows"]["validation"]["to"] = "2099-01-01"
        elif what == "missing":
            report["symbols"]["Gold"] = report["symbols"].pop(SYMBOL)
        for stage in found["stages"].values():
            if what == "data":
                stage["verdict"]["window"]["data_hash"] = "f" * 64
            elif what == "costs":
                stage["verdict"]["context"]["rules"]["commission_rate"] = 0.5

    other = another(copy, "20990101-000000-full-s1", changed)
    done = compare(copy, the_run(copy).name, other, "--symbols", SYMBOL)
    assert done.code == OK, done.err
    says = {
        "window": "other validation windows: A ",
        "data": "other raw data (its hash differs)",
        "costs": "other costs or trading rules: commission_rate",
        "missing": "only A trained it",
    }
    (line,) = [line for line in done.out.splitlines() if line.startswith(f"  {SYMBOL}: ")]
    assert says[what] in line
    assert f"{SYMBOL}   NOT COMPARABLE, see above" in done.out


def test_compare_names_the_nearest_run_or_symbol_and_refuses_what_has_no_report(copy, tmp_path):
    run = the_run(copy).name
    other = another(copy, "20990101-000000-full-s1", lambda report: None)
    for arguments, code, says in (
        ([run, "20990101-000000-full-s2"], USAGE, f"did you mean {other}"),
        ([run, "qqq"], USAGE, f"the newest in {copy.reports / 'runs'}: {other}, {run}"),
        ([run], USAGE, "compare needs two runs or more (got 1)"),
        ([run, str(copy.reports / "runs" / run)], USAGE, "the same run is named twice"),
        ([run, other, "--symbols", "SYN_plantd_2"], USAGE, f"did you mean {SYMBOL}?"),
        ([run, str(copy.models)], DATA, "has no training_report.json"),
    ):
        done = compare(copy, *arguments)
        assert (done.code, done.out) == (code, ""), arguments
        assert says in done.err
    report = copy.reports / "runs" / other / "training_report.json"
    for text, says in (
        ("{", "cannot be read"),
        ("{}", "is not a report of this program"),
        ("[]", "is not a report"),
    ):
        report.write_text(text)
        done = compare(copy, run, other)
        assert done.code == DATA
        assert says in done.err
    assert compare(copy, run, other).out == ""


def test_equal_runs_differ_in_nothing(copy):
    done = compare(copy, the_run(copy).name, another(copy, "20990101-000000-full-s1", lambda report: None))
    assert "  nothing in plan, data and code\n" in done.out
