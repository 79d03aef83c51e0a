"""Nothing reads a window before its time: the same run on a file whose later bars are others decides the same.

One symbol is trained through all three stages. Then every bar of a window is replaced, prices, volumes and the user's
own columns alike, by bars of another market at another price level that moves ten times as much, and the run is made
again. What has to be equal is compared byte for byte; the fields left out are named, with reasons, in `comparing.py`.
"""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl.checkpoints.checkpoint import load_checkpoint
from rl.features.processed_store import load_processed
from tests.integration.command_line import Workplace
from tests.integration.comparing import (
    CLOCK,
    OF_THE_FILE,
    evidence_of,
    ledger_of,
    models_of,
    progress_of,
    training_report_of,
    training_text_of,
)

SYMBOL = "SYN_planted_2"
STAGES = ("ppo", "moe", "maml")
STAGE_FILES = [f"{SYMBOL}{end}" for end in ("_ppo_stage1.pth", "_moe_stage2.pth", "_maml_stage3_final.pth")]
GATES_ASK = {"min_win_rate": 0.01, "min_profit_factor": 0.01}
ALL_FILES = (
    "model_management.promotion=best_validation",
    *(f"training_sequence.{stage}.success_criteria.{name}={least}"
      for stage in ("stage_1_ppo", "stage_2_moe") for name, least in GATES_ASK.items()),
    *(f"progression_rules.advancement_criteria.{step}.{name}={least}"
      for step in ("stage_1_to_2", "stage_2_to_3") for name, least in GATES_ASK.items()),
    "training_sequence.stage_1_ppo.success_criteria.max_drawdown=0.99",
    "training_sequence.stage_2_moe.success_criteria.max_drawdown=0.99",
)  # fmt: skip
"""So that no gate stops the run, whatever it is trained on, and there is a final model: all files can be compared."""
ONE_LOOK = (*ALL_FILES, "monitoring.checkpoint_frequency=1000")
"""Best-so-far looks at validation once, when all training of a stage is done."""

Rows = tuple[str, list[list[str]]]


def market(place: Workplace, symbol: str = SYMBOL, kind: str = "planted", sessions: int = 40) -> Rows:
    """Return header and rows of the raw file, a column of volumes added to what `synth` writes."""
    path = place.synth(symbol, kind, sessions=sessions)
    header, *lines = path.read_text().splitlines()
    volume = np.random.default_rng(1).integers(100, 10_000, len(lines))
    rows = [[*line.split(","), str(traded)] for line, traded in zip(lines, volume, strict=True)]
    return f"{header},volume", rows


def replaced(rows: list[list[str]], first: str, last: str) -> list[list[str]]:
    """Return the rows with every bar labelled from `first` to `last` drawn anew; all else as it was."""
    rng = np.random.default_rng(2)
    inside = [place for place, row in enumerate(rows) if first <= row[0] <= last]
    closes = 3.0 * float(rows[inside[0]][4]) * np.exp(np.cumsum(rng.normal(0, 0.005, len(inside) + 1)))
    found = list(rows)
    for number, place in enumerate(inside):
        opening, close = closes[number : number + 2]
        high, low = max(opening, close) * 1.002, min(opening, close) * 0.998
        own = rng.normal(0, 5, len(rows[place]) - 6)
        values = [opening, high, low, close, *own, float(rng.integers(0, 10**6))]
        found[place] = [rows[place][0], *(repr(float(value)) for value in values)]
    assert len(inside) > 500
    return found


def trained(folder: Path, table: Rows | dict[str, Rows], settings: tuple[str, ...]) -> Workplace:
    """Train through all stages in a folder of its own; all paths in what is written are relative."""
    (folder / "raw").mkdir(parents=True)
    for symbol, (header, rows) in (table if isinstance(table, dict) else {SYMBOL: table}).items():
        text = "\n".join([header, *(",".join(row) for row in rows)]) + "\n"
        (folder / "raw" / f"{symbol}.csv").write_text(text)
    with chdir(folder):
        done = Workplace(Path()).train("--symbols", "all", settings=settings)
    assert done.code == 0, done.err
    return Workplace(folder)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Rows:
    return market(Workplace(tmp_path_factory.mktemp("market")))


@pytest.fixture(scope="module")
def original(table, tmp_path_factory) -> Workplace:
    return trained(tmp_path_factory.mktemp("original") / "w", table, ALL_FILES)


def window(place: Workplace, name: str) -> tuple[str, str]:
    span = training_report_of(place)["symbols"][SYMBOL]["windows"][name]
    return span["from"], span["to"]


def with_other(table: Rows, original: Workplace, name: str) -> Rows:
    header, rows = table
    first, last = window(original, name)
    if name == "test":
        # From the bar after the promotion window on: the embargo before the test window is nobody's either.
        promoted_until = window(original, "promotion")[1]
        first = min(row[0] for row in rows if row[0] > promoted_until)
    return header, replaced(rows, first, last)


def processed_until(place: Workplace, label: str) -> dict[str, bytes]:
    """Return bars and features up to a label, as bytes."""
    processed = load_processed(SYMBOL, place.processed)
    rows = processed.bars.label <= label
    return {
        "features": processed.features.values[rows].tobytes(),
        "usable": processed.features.usable[rows].tobytes(),
        "atr": processed.features.atr[rows].tobytes(),
        "close": processed.bars.close[rows].tobytes(),
        "session": processed.bars.session[rows].tobytes(),
    }


def stage_models(place: Workplace, *names: str) -> dict[str, str]:
    return {name: digest for name, digest in models_of(place, *names).items() if name in STAGE_FILES}


def stages_of(place: Workplace) -> dict[str, Any]:
    return training_report_of(place, *CLOCK, *OF_THE_FILE)["symbols"][SYMBOL]["stages"]


def test_not_one_bar_of_the_test_window_is_read_in_training(table, original, tmp_path):
    """The only promise that makes a backtest worth reading: every bar of it is new to the model."""
    other = trained(tmp_path / "w", with_other(table, original, "test"), ALL_FILES)
    until = window(original, "promotion")[1]
    assert processed_until(other, until) == processed_until(original, until)
    # Weights, scaler, reward scaling, verdicts, validation figures, plan, seeds, lineage of all four files.
    names = (*CLOCK, *OF_THE_FILE)
    assert len(models_of(original, *names)) == 4
    assert models_of(other, *names) == models_of(original, *names)
    # Gates, champion and promotion: attempts, p values, window hashes, verdicts.
    assert ledger_of(other, *names) == ledger_of(original, *names)
    assert training_report_of(other, *names) == training_report_of(original, *names)
    assert training_text_of(other) == training_text_of(original)
    assert evidence_of(other) == evidence_of(original)
    for stage in STAGES:
        assert progress_of(other, stage) == progress_of(original, stage)


def test_nor_is_one_bar_of_any_symbols_test_window_where_symbols_learn_from_each_other(tmp_path):
    """Stage 3 takes tasks from the other symbols of a run and measures itself on one held out."""
    kinds = {SYMBOL: "planted", "SYN_ou_2": "ou", "SYN_ar1_2": "ar1"}
    tables = {
        symbol: market(Workplace(tmp_path / "market"), symbol, kind, sessions=30)
        for symbol, kind in kinds.items()
    }
    settings = (*ALL_FILES, "features.exclude=['x_*']")
    one = trained(tmp_path / "one", tables, settings)
    until = training_report_of(one)["symbols"][SYMBOL]["windows"]["promotion"]["to"]
    changed = {
        symbol: (header, replaced(rows, min(row[0] for row in rows if row[0] > until), rows[-1][0]))
        for symbol, (header, rows) in tables.items()
    }
    two = trained(tmp_path / "two", changed, settings)
    names = (*CLOCK, *OF_THE_FILE)
    assert len(models_of(one, *names)) == 12
    assert models_of(two, *names) == models_of(one, *names)
    assert ledger_of(two, *names) == ledger_of(one, *names)
    assert training_report_of(two, *names) == training_report_of(one, *names)
    notes = [
        reason
        for each in training_report_of(one)["symbols"].values()
        for reason in each["stages"]["maml"]["verdict"]["reasons"]
    ]
    assert any("held out" in note for note in notes), notes


def test_the_test_window_that_training_did_not_read_was_another_one(table, original):
    """The test above would pass on a copy of the same file."""
    header, rows = table
    changed = with_other(table, original, "test")[1]
    first, last = window(original, "test")
    inside = [place for place, row in enumerate(rows) if first <= row[0] <= last]
    columns = header.split(",")
    assert columns[:5] == ["datetime", "open", "high", "low", "close"]
    assert columns[-1] == "volume"
    assert any(name.startswith("x_") for name in columns)
    for place in inside:
        assert all(was != now for was, now in zip(rows[place][1:], changed[place][1:], strict=True))


def test_the_promotion_window_changes_nothing_before_its_look(table, original, tmp_path):
    other = trained(tmp_path / "w", with_other(table, original, "promotion"), ALL_FILES)
    until = window(original, "validation")[1]
    assert processed_until(other, until) == processed_until(original, until)
    names = (*CLOCK, *OF_THE_FILE)
    assert stage_models(other, *names) == stage_models(original, *names)
    assert list(stage_models(original, *names)) == sorted(STAGE_FILES)
    # Verdicts of the stages, and who is champion.
    assert stages_of(other) == stages_of(original)
    one, two = (training_report_of(place)["symbols"][SYMBOL] for place in (other, original))
    assert one["champion"] == two["champion"]
    one, two = (ledger_of(place, *names)[SYMBOL] for place in (other, original))
    before = [entry for entry in two if entry["purpose"] != "promotion"]
    assert len(before) == 6
    assert [entry for entry in one if entry["purpose"] != "promotion"] == before
    # The look itself is at other bars, and it is judged by them.
    verdicts = [training_report_of(place)["symbols"][SYMBOL]["promotion"] for place in (other, original)]
    assert verdicts[0]["criteria"] != verdicts[1]["criteria"]
    assert one[-2]["purpose"] == two[-2]["purpose"] == "promotion"
    assert one[-2]["window_hash"] != two[-2]["window_hash"]


def test_the_validation_window_moves_no_weight_in_training(table, original, tmp_path):
    """It chooses among weights; where there is one choice only, every stage ends with the same."""
    same = trained(tmp_path / "same", table, ONE_LOOK)
    other = trained(tmp_path / "other", with_other(table, original, "validation"), ONE_LOOK)
    for name in STAGE_FILES:
        one, two = (load_checkpoint(place.models / name) for place in (same, other))
        assert one.weights.numpy().tobytes() == two.weights.numpy().tobytes(), name
        assert one.extra_tensors.keys() == two.extra_tensors.keys()
        for extra, tensor in one.extra_tensors.items():
            assert tensor.numpy().tobytes() == two.extra_tensors[extra].numpy().tobytes(), extra
        assert one.scaler == two.scaler
        assert one.trading["rules"] == two.trading["rules"]
        # It was looked at: what was seen there differs.
        assert one.verdict["criteria"] != two.verdict["criteria"]
    for stage in STAGES:
        assert progress_of(same, stage) == progress_of(other, stage)


def test_the_first_look_at_validation_comes_after_the_updates_it_may_not_move(table, original, tmp_path):
    """With looks on the way, stage 1 takes the very same steps; only which of its weights are kept may differ."""
    other = trained(tmp_path / "w", with_other(table, original, "validation"), ALL_FILES)
    assert progress_of(other, "ppo") == progress_of(original, "ppo")
