"""Every backtest on the test window is counted, what it showed counts as a trial, and the report says both."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from rl.checkpoints.checkpoint import load_checkpoint
from rl.stages.evidence import LEDGER_NAME, EvidenceLedger
from tests.integration.command_line import Workplace
from tests.integration.comparing import training_report_of

SYMBOL = "SYN_planted_2"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("user"))
    place.synth(SYMBOL)
    done = place.train("--symbols", SYMBOL)
    assert done.code == 0, done.err
    return place


class Backtests:
    """Backtests of one symbol that count their looks in one reports folder."""

    def __init__(self, place: Workplace, reports: Path) -> None:
        self.place = place
        self.reports = reports

    def __call__(self, *arguments: str) -> tuple[dict[str, Any], str]:
        """Return what the JSON report says of the symbol, and the text report."""
        files = [self.reports / "r.json", self.reports / "r.txt"]
        words = [word for file in files for word in ("--report-file", str(file))]
        done = self.place.backtest(
            "--symbols", SYMBOL, "--reports-dir", str(self.reports), *words, *arguments
        )
        assert done.code == 0, done.err
        return json.loads(files[0].read_text())["symbols"][SYMBOL], files[1].read_text()

    def looks(self, *arguments: str) -> int | None:
        """Return which look this backtest was, as JSON and text say it."""
        symbol, text = self(*arguments)
        said = re.search(r"look (\d+) at", text)
        assert symbol["span"]["looks"] == (int(said[1]) if said else None)
        return symbol["span"]["looks"]


@pytest.fixture
def backtest(trained, tmp_path) -> Backtests:
    return Backtests(trained, tmp_path / "reports")


def test_every_new_model_shown_the_test_window_is_a_look(backtest):
    """The third model shown the same test window has had three chances to look good by luck."""
    assert [backtest.looks("--stage", stage) for stage in ("ppo", "ppo", "moe", "maml")] == [1, 1, 2, 3]
    assert backtest.looks("--stage", "ppo") == 1


def test_other_costs_are_another_look(backtest, tmp_path):
    dearer = tmp_path / "dearer.yaml"
    dearer.write_text("instruments:\n  SYN_planted: {commission: {rate: 5.0e-4}}\n")
    assert backtest.looks("--stage", "ppo") == 1
    assert backtest.looks("--stage", "ppo", "--instruments", str(dearer)) == 2
    assert backtest.looks("--stage", "ppo") == 1


def test_another_capital_is_another_look(backtest):
    """In whole lots it is another account."""
    assert [backtest.looks("--stage", "ppo", *more) for more in ([], ["--initial-capital", "5000"])] == [1, 2]


def test_a_model_that_adapts_and_the_same_one_that_does_not_are_two(backtest):
    assert [backtest.looks("--stage", "maml", *extra) for extra in ([], ["--no-adapt"])] == [1, 2]
    # A stage-1 model never adapts, so asking it not to changes nothing.
    assert [backtest.looks("--stage", "ppo", *extra) for extra in ([], ["--no-adapt"])] == [3, 3]


def test_other_windows_are_no_look_at_the_test_window(backtest):
    for split in ("train", "validation"):
        assert backtest.looks("--split", split) is None
    assert backtest.looks("--split", "promotion") == 1
    assert backtest.looks() == 1


def test_looking_at_the_promotion_window_makes_the_next_promotion_dearer(trained, tmp_path):
    """Who backtests there can choose by what he saw, and a promotion after that is a second attempt at the window."""
    place = Workplace(tmp_path / "user")
    shutil.copytree(trained.root, place.root)
    backtest = Backtests(place, place.reports)
    judged = training_report_of(place)["symbols"][SYMBOL]["champion"]
    other = "ppo" if judged == "moe" else "moe"
    # The one whose promotion was judged is the first look, made in training, and stays it.
    assert backtest.looks("--split", "promotion", "--stage", judged) == 1
    assert backtest.looks("--split", "promotion", "--stage", other) == 2
    assert place.train("--symbols", SYMBOL, "--seed", "1").code == 0
    promotion = training_report_of(place)["symbols"][SYMBOL]["promotion"]
    assert promotion["attempt"] == 3
    assert promotion["alpha_used"] == pytest.approx(0.05 / 12)


def test_a_backtest_of_all_bars_opens_the_test_window_too(backtest):
    """Its trades list and its equity show every bar of the test window."""
    assert backtest.looks("--split", "all", "--stage", "ppo") == 1
    assert backtest.looks("--split", "all", "--stage", "moe") == 2
    # What it showed was the same model on the same bars.
    assert backtest.looks("--stage", "moe") == 2
    assert "look 1 at the test window inside" in backtest("--split", "all", "--stage", "ppo")[1]


def test_deleting_models_and_reports_makes_nothing_fresh(trained, tmp_path):
    place = Workplace(tmp_path / "user")
    shutil.copytree(trained.root, place.root)
    backtest = Backtests(place, place.reports)
    assert [backtest.looks("--stage", stage) for stage in ("ppo", "moe")] == [1, 2]
    first = load_checkpoint(place.models / f"{SYMBOL}_ppo_stage1.pth")
    shutil.rmtree(place.models)
    for path in place.reports.glob("r.*"):
        path.unlink()
    done = place.train("--symbols", SYMBOL, "--seed", "1", "--stages", "ppo")
    assert done.code == 0, done.err
    assert backtest.looks("--stage", "ppo") == 3
    # Trained again with the first seed they are the first weights, in a new file of a new run.
    shutil.rmtree(place.models)
    assert place.train("--symbols", SYMBOL, "--stages", "ppo").code == 0
    again = load_checkpoint(place.models / f"{SYMBOL}_ppo_stage1.pth")
    assert again.sha256 != first.sha256
    assert backtest.looks("--stage", "ppo") == 1


def test_beside_another_ledger_backtest_and_training_say_that_counting_began_anew(trained, tmp_path):
    place = Workplace(tmp_path / "user")
    shutil.copytree(trained.root, place.root)
    forgot = "knows nothing of the looks behind"
    own, elsewhere = Backtests(place, place.reports), Backtests(place, tmp_path / "elsewhere")
    assert not any(forgot in note for note in own("--stage", "ppo")[0]["notes"])
    symbol, text = elsewhere("--stage", "ppo")
    assert any(
        forgot in note and note.endswith("ppo_stage1.pth; counting began anew") for note in symbol["notes"]
    )
    assert forgot in text
    for path in place.reports.glob(LEDGER_NAME):
        path.unlink()
    done = place.train("--symbols", SYMBOL, "--stages", "ppo")
    assert done.code == 0, done.err
    assert f"{forgot} " in done.err
    assert training_report_of(place)["forgotten_looks"]
    # Now the new ledger has the look behind the new stage-1 model; the others are still unknown to it.
    again = place.train("--symbols", SYMBOL, "--stages", "ppo")
    assert "ppo_stage1.pth; counting" not in again.err


def test_a_dry_run_opens_nothing(backtest):
    done = backtest.place.backtest("--symbols", SYMBOL, "--reports-dir", str(backtest.reports), "--dry-run")
    assert done.code == 0
    assert not (backtest.reports / LEDGER_NAME).exists()


# --- what was tried -------------------------------------------------------------------------------------------------


def test_a_first_backtest_says_that_there_is_nothing_to_deflate_by(backtest):
    symbol, text = backtest("--stage", "ppo")
    found = symbol["sharpe_after_trials"]
    assert (found["trials"], found["deflated_sharpe"]) == (1, None)
    assert "one judged trial" in found["not_computed"]["deflated_sharpe"]
    assert 0 < found["probabilistic_sharpe"] < 1
    assert "deflated Sharpe cannot be computed: the evidence ledger holds one judged trial" in text
    assert f"probabilistic Sharpe {found['probabilistic_sharpe']:.2f} (1 minus the chance that luck" in text


def test_every_model_tried_deflates_the_sharpe_ratio_further(backtest):
    ratios = []
    for number, stage in enumerate(("ppo", "moe", "maml"), start=1):
        symbol, text = backtest("--stage", stage)
        found = symbol["sharpe_after_trials"]
        ratios.append(symbol["metrics"]["sharpe_ratio"] / math.sqrt(252))
        assert found["trials"] == number
        assert backtest("--stage", stage)[0]["sharpe_after_trials"] == found
    variance = float(np.var(ratios, ddof=1))
    assert found["trial_sharpe_variance"] == pytest.approx(variance)
    # Bailey and Lopez de Prado (2014), eq. 1: what the best of three shows by luck.
    quantile = NormalDist().inv_cdf
    luck = math.sqrt(variance) * (
        (1 - np.euler_gamma) * quantile(1 - 1 / 3) + np.euler_gamma * quantile(1 - 1 / (3 * math.e))
    )
    # Eq. 2: both chances are of the same spread, from which the lead over luck is found.
    spread = ratios[-1] / quantile(found["probabilistic_sharpe"])
    assert found["deflated_sharpe"] == pytest.approx(NormalDist().cdf((ratios[-1] - luck) / spread))
    assert (
        f"deflated Sharpe {found['deflated_sharpe']:.2f} (1 minus the chance that luck alone shows such a ratio "
        "as the best of 3 trials; not the chance that there is an edge; shown, not used to decide)"
    ) in text


def test_gates_count_as_trials_too(backtest):
    """What was trained and thrown away was tried as well."""
    ledger = EvidenceLedger(backtest.reports / LEDGER_NAME)
    for subject, ratio in (("a", 0.1), ("b", -0.2), ("b", -0.2), ("c", None)):
        attempt = ledger.record(SYMBOL, "w", "progress", subject=subject)
        verdict = {"outcome": "FAIL", "metrics": {"sharpe_per_session": ratio}}
        ledger.conclude(SYMBOL, "w", "progress", attempt, outcome="FAIL", verdict=verdict)
    symbol, text = backtest()
    assert symbol["sharpe_after_trials"]["trials"] == 3
    assert symbol["sharpe_after_trials"]["deflated_sharpe"] is not None
    assert "the best of 3 trials" in text


def test_after_a_training_run_its_gates_and_its_promotion_are_the_trials(trained, tmp_path):
    place = Workplace(tmp_path / "user")
    shutil.copytree(trained.root, place.root)
    symbol, text = Backtests(place, place.reports)()
    # Two progress gates, one adaptation gate, one promotion, and this backtest.
    assert symbol["sharpe_after_trials"]["trials"] == 5
    assert 0 <= symbol["sharpe_after_trials"]["deflated_sharpe"] <= 1
    assert "the best of 5 trials" in text


def ratios_by_purpose(backtest: Backtests) -> dict[str, float]:
    """Return the Sharpe ratio per session of every backtest's conclusion in the ledger, by purpose, the last each."""
    lines = EvidenceLedger(backtest.reports / LEDGER_NAME).entries()
    return {line["purpose"]: line["sharpe_per_session"] for line in lines if line["kind"] == "verdict"}


def test_a_backtest_of_the_promotion_window_is_a_trial(backtest):
    """Whoever tries models there and shows the best of them on the test window has tried as many."""
    for number, stage in enumerate(("ppo", "moe"), start=1):
        symbol, _ = backtest("--split", "promotion", "--stage", stage)
        assert symbol["sharpe_after_trials"]["trials"] == number
    shown = symbol["metrics"]["sharpe_ratio"] / math.sqrt(252)
    assert ratios_by_purpose(backtest) == {"promotion": pytest.approx(shown)}
    assert backtest("--stage", "moe")[0]["sharpe_after_trials"]["trials"] == 3


def test_a_backtest_of_all_bars_is_a_trial_on_each_window_it_opened(backtest):
    symbol, _ = backtest("--split", "all", "--stage", "ppo")
    assert symbol["sharpe_after_trials"]["trials"] == 2
    part = ratios_by_purpose(backtest)
    assert len({*part.values(), symbol["metrics"]["sharpe_ratio"] / math.sqrt(252)}) == 3
    # The same weights on those windows by themselves are the same trials, and that ratio is the one that counts.
    for purpose in ("promotion", "test"):
        alone, _ = backtest("--split", purpose, "--stage", "ppo")
        assert alone["sharpe_after_trials"]["trials"] == 2
        ratio = alone["metrics"]["sharpe_ratio"] / math.sqrt(252)
        assert ratios_by_purpose(backtest)[purpose] == pytest.approx(ratio)
    # As a part of all bars a window adds nothing to what it showed by itself.
    before = ratios_by_purpose(backtest)
    backtest("--split", "all", "--stage", "ppo")
    assert ratios_by_purpose(backtest) == before


def test_backtests_of_training_and_validation_bars_are_no_trials(backtest):
    for split in ("train", "validation"):
        symbol, _ = backtest("--split", split)
        assert symbol["sharpe_after_trials"]["trials"] == 0


def test_a_champion_judged_on_the_promotion_window_is_a_trial_there_already(trained, tmp_path):
    place = Workplace(tmp_path / "user")
    shutil.copytree(trained.root, place.root)
    backtest = Backtests(place, place.reports)
    judged = training_report_of(place)["symbols"][SYMBOL]["champion"]
    before = place.gate("--looks", SYMBOL).out
    for split, trials in (("promotion", 4), ("all", 5)):
        symbol, _ = backtest("--split", split, "--stage", judged)
        assert symbol["sharpe_after_trials"]["trials"] == trials
    # What the gate said of that look still stands there.
    listed = place.gate("--looks", SYMBOL).out
    promotion = [[line for line in text.splitlines() if " promotion " in line] for text in (before, listed)]
    assert promotion[0] == promotion[1] != []


def test_the_break_even_cost_stands_beside_the_frontier(backtest):
    symbol, text = backtest("--stage", "ppo")
    assert [line["cost_bp_per_side"] for line in symbol["cost_frontier"]] == [0, 5, 10, 20, 50]
    found = symbol["break_even_cost"]
    earned = {line["cost_bp_per_side"]: line["total_pnl"] for line in symbol["cost_frontier"]}
    if found["cost_bp_per_side"] is None:
        assert earned[0] < 0
        assert f"break-even cost cannot be computed: {found['not_computed']['cost_bp_per_side']}" in text
    else:
        for cost, pnl in earned.items():
            assert (pnl > 0) == (cost < found["cost_bp_per_side"])
        assert f"break-even cost {found['cost_bp_per_side']:.2f} bp per side" in text
    # The synthetic instrument charges 0.5 bp and nothing else.
    assert found["paid_bp_per_side"] == pytest.approx(0.5)
