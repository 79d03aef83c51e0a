"""`run_backtest.py --walk-forward` as a user runs it: one account, counted as a look, told in every report."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from rl.common.interpreter import interpreter
from tests.browser import PHONE, a_browser, opened
from tests.integration.command_line import TINY, Finished, Workplace
from tests.page_reading import disagreement, read_page

SYMBOL = "SYN_planted_2"
PLAN = [word for setting in (*TINY, "embargo_bars=0") for word in ("--plan-set", setting)]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workplace:
    workplace = Workplace(tmp_path_factory.mktemp("user"))
    workplace.synth(SYMBOL)
    return workplace


def walk(place: Workplace, *arguments: str) -> Finished:
    """Walk two folds of 24 sessions and the 7 after them, stage 1 alone."""
    files = [place.root / "out" / f"w.{ending}" for ending in ("txt", "json", "html")]
    words = [word for file in files for word in ("--report-file", str(file))]
    return place.backtest(
        "--symbols", SYMBOL, "--walk-forward", "24s/7s", "--stages", "ppo", *PLAN, *words, *arguments
    )


@pytest.fixture(scope="module")
def walked(place) -> Finished:
    done = walk(place, "--actions-file", str(place.root / "a.csv"))
    assert done.code == 0, done.err
    return done


@pytest.fixture(scope="module")
def told(place, walked) -> dict[str, Any]:
    return json.loads((place.root / "out" / "w.json").read_text())["symbols"][SYMBOL]


def lines_of(place: Workplace, kind: str) -> list[dict[str, Any]]:
    lines = (place.reports / "evidence_ledger.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


def test_a_dry_run_shows_the_folds_and_counts_no_look(place, tmp_path):
    done = walk(place, "--dry-run", "--reports-dir", str(tmp_path))
    assert done.code == 0, done.err
    assert f"{SYMBOL}: walk-forward 24s/7s, 2 folds" in done.out
    assert "this opens bars the plan keeps for promotion and test" in done.out
    assert not (tmp_path / "evidence_ledger.jsonl").exists()
    assert not (tmp_path / "walk_forward").exists()


def test_stretches_follow_one_another_and_multiply_to_the_account(told):
    folds = told["walk_forward"]["folds"]
    assert [fold["sessions"] for fold in folds] == [7, 7]
    assert folds[0]["window_to"] < folds[0]["from"] < folds[0]["to"] < folds[1]["from"]
    assert told["span"]["from"] == folds[0]["from"]
    assert told["span"]["to"] == folds[1]["to"]
    made = math.prod(1 + fold["total_return"] for fold in folds) - 1
    assert made == pytest.approx(told["metrics"]["total_return"], abs=1e-12)
    held = math.prod(1 + fold["buy_and_hold"] for fold in folds) - 1
    assert held == pytest.approx(told["baselines"]["buy_and_hold"]["total_return"], abs=1e-12)
    assert sum(fold["trades"] for fold in folds) == told["metrics"]["total_trades"]


def test_it_is_one_look_at_the_test_window_and_one_trial(place, told):
    looks, verdicts = lines_of(place, "look"), lines_of(place, "verdict")
    assert [(look["purpose"], look["attempt"], look["stage"]) for look in looks] == [
        ("test", 1, "walk-forward")
    ]
    assert len(verdicts) == 1
    assert told["span"]["looks"] == 1
    assert told["sharpe_after_trials"]["trials"] == 1


def test_every_report_says_in_its_headline_what_was_spent(place, walked, told):
    report = json.loads((place.root / "out" / "w.json").read_text())
    text = (place.root / "out" / "w.txt").read_text()
    assert report["headline"].startswith("WALK-FORWARD 24s/7s: 2 models")
    assert "It SPENDS the test window" in report["headline"]
    assert "It SPENDS the test window" in text
    assert "It SPENDS the test window" in walked.out
    for sentence in (*told["walk_forward"]["shows"], *told["walk_forward"]["does_not_show"]):
        assert sentence in text
    spent = told["walk_forward"]["spent"]
    assert 0 < spent["sessions"] <= spent["of_sessions"] == 14


def test_the_page_shows_the_folds_with_the_numbers_of_the_json_and_fits_a_phone(place, told):
    path = place.root / "out" / "w.html"
    report = json.loads((place.root / "out" / "w.json").read_text())
    page = read_page(path.read_text(encoding="utf-8"))
    assert [wrong for each in page.figures if (wrong := disagreement(each, report["symbols"][SYMBOL]))] == []
    assert sum("walk_forward/folds" in each.at for each in page.figures) >= 2 * 6
    assert page.loose_numbers == []
    with a_browser() as browser, opened(browser, path, PHONE) as seen:
        assert seen.page.locator("#walk-forward").count() == 1
        assert (seen.overflow(), seen.complaints, seen.asked_for) == (0, [], [])


def test_nothing_reaches_the_models_folder_and_a_second_run_trains_nothing(place, walked, told):
    kept = {path: path.read_bytes() for path in (place.reports / "walk_forward").rglob("*.pth")}
    assert len(kept) >= 2
    again = walk(place)
    assert again.code == 0, again.err
    assert again.out.count("is finished") == 2
    assert "training done" not in again.out
    assert {path: path.read_bytes() for path in kept} == kept
    assert json.loads((place.root / "out" / "w.json").read_text())["symbols"][SYMBOL] == told
    assert len(lines_of(place, "look")) == 1
    assert not list(place.models.glob("*.pth")) if place.models.exists() else True


def test_later_bars_change_nothing_of_a_finished_fold_nor_of_its_stretch(place, walked, told, tmp_path):
    """Every price after the first stretch is another, in a raw file of its own."""
    other = Workplace(tmp_path)
    lines = place.raw.joinpath(f"{SYMBOL}.csv").read_text().splitlines()
    end = told["walk_forward"]["folds"][0]["to"]
    cut = next(number for number, line in enumerate(lines) if line.startswith(end)) + 1
    heads = lines[0].lower().split(",")
    prices = [heads.index(name) for name in ("open", "high", "low", "close")]
    rng = np.random.default_rng(0)
    for number in range(cut, len(lines)):
        cells = lines[number].split(",")
        factor = math.exp(0.2 * math.sin(number / 40) + 0.001 * rng.normal())
        for column in prices:
            cells[column] = repr(float(cells[column]) * factor)
        lines[number] = ",".join(cells)
    other.raw.mkdir(parents=True)
    other.raw.joinpath(f"{SYMBOL}.csv").write_text("\n".join(lines) + "\n")
    done = walk(other, "--actions-file", str(tmp_path / "a.csv"))
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "out" / "w.json").read_text())["symbols"][SYMBOL]["walk_forward"]["folds"]
    mine = told["walk_forward"]["folds"]
    # The second window ends where the first stretch does: both models are made of bars that are the same.
    assert [fold["weights"] for fold in found] == [fold["weights"] for fold in mine]
    assert found[1]["buy_and_hold"] != mine[1]["buy_and_hold"]
    # The position is closed at the first bar that differs, so the result there may; what led up to it may not.
    one, two = ((folder / "a.csv").read_text().splitlines() for folder in (place.root, tmp_path))
    stretch = next(number for number, line in enumerate(one) if end in line)
    assert one[:stretch] == two[:stretch]
    assert stretch > 1000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--walk-forward", "2y"), "WINDOW/STEP such as 2y/3m"),
        (("--walk-forward", "24s/7s", "--split", "test"), "--split does not go with --walk-forward"),
        (("--walk-forward", "24s/7s", "--check-lookahead"), "--check-lookahead does not go with"),
        (("--walk-forward", "24s/7s", "--stages", "moe"), "begin with ppo"),
        (("--plan-set", "seed=1"), "--plan-set belongs to --walk-forward"),
        (("--profile", "quick"), "--profile belongs to --walk-forward"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_done(tmp_path, arguments, says):
    done = Workplace(tmp_path).backtest(*arguments)
    assert done.code == 2
    assert says in done.err
    assert not (tmp_path / "reports").exists()


def test_windows_too_short_for_the_plan_name_the_fold_before_any_look_is_counted(place, tmp_path):
    reports = ("--reports-dir", str(tmp_path))
    done = place.backtest("--symbols", SYMBOL, "--walk-forward", "4s/4s", "--stages", "ppo", *PLAN, *reports)
    assert done.code == 4
    assert "fold 1 of" in done.err
    assert not (tmp_path / "evidence_ledger.jsonl").exists()


def test_an_interruption_says_what_is_finished_and_how_to_go_on(place, walked, monkeypatch):
    """Ctrl-C where the second fold begins: the first is kept, and the same command trains only the second."""
    from rl.apps.commands import walk_forward as command

    kept = next(iter((place.reports / "walk_forward" / SYMBOL).iterdir()))
    whole = command.train_fold

    def interrupted(work, listener):
        if work.fold.number == 2:
            raise KeyboardInterrupt
        return whole(work, listener)

    monkeypatch.setattr(command, "train_fold", interrupted)
    monkeypatch.setattr(command, "is_finished", lambda work: work.fold.number == 1)
    done = walk(place)
    assert done.code == 130
    assert (
        f"1 of 2 folds are finished and will not be trained again; go on with: {interpreter()} " in done.err
    )
    assert kept.is_dir()
