"""How many trials of a symbol the evidence ledger holds, and how widely their Sharpe ratios spread."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rl.checkpoints.checkpoint import load_checkpoint
from rl.stages.evidence import LEDGER_NAME, EvidenceLedger
from rl.stages.model_files import write_model
from rl.stages.promotion import settle_promotions
from rl.stages.trials import forgotten_looks, trials_of
from tests.unit.stages.promotions import WINDOW, Heard, judged_outcome
from tests.unit.stages.small_symbol import edge_bars, small_plan, symbol_of


@pytest.fixture
def ledger(tmp_path: Path) -> EvidenceLedger:
    return EvidenceLedger(tmp_path / LEDGER_NAME)


def judged(
    ledger: EvidenceLedger,
    ratio: float | None,
    *,
    symbol: str = "Nifty_2",
    window: str = "w",
    purpose: str = "progress",
    subject: str = "a",
) -> None:
    attempt = ledger.record(symbol, window, purpose, subject=subject)
    verdict = {"outcome": "PASS", "metrics": {"sharpe_per_session": ratio}}
    ledger.conclude(symbol, window, purpose, attempt, outcome="PASS", verdict=verdict)


def test_every_judged_model_is_a_trial_and_their_ratios_spread(ledger):
    for subject, ratio in zip("abc", (0.1, 0.3, -0.1), strict=True):
        judged(ledger, ratio, subject=subject)
    found = trials_of(ledger, "Nifty_2")
    # Mean 0.1; squares of 0, 0.2 and -0.2 over two.
    assert (found.count, found.sharpe_variance) == (3, pytest.approx(0.04))


def test_the_same_model_judged_again_is_no_new_trial(ledger):
    for _ in range(3):
        judged(ledger, 0.1, subject="a")
    judged(ledger, 0.2, subject="b")
    assert trials_of(ledger, "Nifty_2").count == 2


def test_another_window_and_another_purpose_are_other_trials(ledger):
    judged(ledger, 0.1)
    judged(ledger, 0.2, window="v")
    judged(ledger, 0.3, purpose="promotion")
    assert trials_of(ledger, "Nifty_2").count == 3


def test_a_backtest_that_wrote_its_ratio_down_is_a_trial(ledger):
    judged(ledger, 0.1)
    attempt = ledger.record("Nifty_2", "t", "test", subject="a")
    assert trials_of(ledger, "Nifty_2").count == 1
    ledger.conclude("Nifty_2", "t", "test", attempt, sharpe_per_session=0.3, sessions=20)
    found = trials_of(ledger, "Nifty_2")
    assert (found.count, found.sharpe_variance) == (2, pytest.approx(np.var([0.1, 0.3], ddof=1)))


def test_other_symbols_looks_without_verdict_and_ratios_that_do_not_exist_are_no_trials(ledger):
    judged(ledger, 0.1, symbol="Bank_Nifty_5")
    judged(ledger, None)
    ledger.record("Nifty_2", "w", "progress", subject="not judged yet")
    attempt = ledger.record("Nifty_2", "w", "progress", subject="of an older version")
    ledger.conclude("Nifty_2", "w", "progress", attempt, outcome="FAIL")
    found = trials_of(ledger, "Nifty_2")
    assert (found.count, found.sharpe_variance) == (0, None)


def test_one_trial_has_no_spread_and_no_ledger_no_trial(ledger, tmp_path):
    judged(ledger, 0.1)
    assert (trials_of(ledger, "Nifty_2").count, trials_of(ledger, "Nifty_2").sharpe_variance) == (1, None)
    assert trials_of(EvidenceLedger(tmp_path / "none.jsonl"), "Nifty_2").count == 0


# --- models whose looks the ledger does not know ----------------------------------------------------------------------

PLAN = small_plan()


@pytest.fixture
def promoted(tmp_path: Path, ledger: EvidenceLedger) -> Path:
    """Return a models folder with a promoted model of AAA_15; its stage file carries the promotion's verdict too."""
    models = tmp_path / "models"
    data = symbol_of(edge_bars("AAA_15", sessions=40), PLAN)
    outcome = judged_outcome(data, PLAN, 5.0, models=models, ledger=ledger)
    (settled,) = settle_promotions(
        [outcome],
        PLAN,
        models_dir=models,
        ledger=ledger,
        listener=Heard(),
        run_name="run-1",
        first_stage="ppo",
    )
    stage = load_checkpoint(settled.champion_file)
    write_model(models, replace(stage, verdict=settled.promotion.to_dict()))
    return models


def test_a_ledger_that_has_the_verdicts_of_all_models_forgot_nothing(promoted, ledger):
    assert len(list(promoted.glob("*.pth"))) == 2
    assert forgotten_looks(ledger, promoted, "AAA_15") == []
    assert forgotten_looks(ledger, promoted, "BBB_15") == []


def test_a_deleted_ledger_and_one_elsewhere_know_nothing_of_the_looks_behind_a_model(
    promoted, ledger, tmp_path
):
    elsewhere = EvidenceLedger(tmp_path / "other" / LEDGER_NAME)
    said = forgotten_looks(elsewhere, promoted, "AAA_15")
    assert said == [
        f"the ledger {elsewhere.path} knows nothing of the looks behind {promoted / name}; counting began anew"
        for name in ("AAA_15_ppo_stage1.pth", "AAA_15_final_model.pth")
    ]
    ledger.path.unlink()
    assert len(forgotten_looks(ledger, promoted, "AAA_15")) == 2


def test_the_same_number_given_to_another_model_afterwards_hides_nothing(promoted, ledger):
    ledger.path.unlink()
    assert ledger.record("AAA_15", WINDOW["hash"], "promotion", subject="other weights") == 1
    verdict = {"context": {"weights": "other weights"}}
    ledger.conclude("AAA_15", WINDOW["hash"], "promotion", 1, verdict=verdict)
    assert len(forgotten_looks(ledger, promoted, "AAA_15")) == 2


def test_a_backtest_under_a_new_ledger_does_not_stand_for_the_verdict_that_was_lost(promoted, ledger):
    ledger.path.unlink()
    assert ledger.record("AAA_15", WINDOW["hash"], "promotion", subject="the same weights") == 1
    ledger.conclude("AAA_15", WINDOW["hash"], "promotion", 1, sharpe_per_session=0.2, sessions=9)
    assert len(forgotten_looks(ledger, promoted, "AAA_15")) == 2


def test_a_model_without_a_verdict_or_one_that_cannot_be_read_is_not_accused(promoted, ledger):
    ledger.path.unlink()
    final = promoted / "AAA_15_final_model.pth"
    final.write_bytes(b"not a model")
    stage = load_checkpoint(promoted / "AAA_15_ppo_stage1.pth")
    write_model(promoted, replace(stage, verdict={}))
    assert forgotten_looks(ledger, promoted, "AAA_15") == []
