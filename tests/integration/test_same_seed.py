"""Same seed, same bytes: two runs of the same thing, one after the other or side by side, write the same files.

What may differ is named in `comparing.py`: times, durations, and the run's name, which is the second it began in and
stands in every model file, verdict and ledger line. Everything else is compared byte for byte.
"""

from __future__ import annotations

import json
import shutil
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from tests.integration.command_line import Workplace
from tests.integration.comparing import (
    CLOCK,
    backtest_text_of,
    evidence_of,
    ledger_of,
    models_of,
    progress_of,
    run_folder,
    training_report_of,
    training_text_of,
    without,
)

MARKETS = {"SYN_planted_2": "planted", "SYN_ou_2": "ou", "SYN_ar1_2": "ar1"}
SETTINGS = ("features.exclude=['x_*']", "training_sequence.stage_1_ppo.episodes=3")
"""Without own columns the symbols have the same features, so that they learn from each other."""
REPORTS = [
    word
    for name in ("r.txt", "r.json")
    for word in ("--report-file", f"out/{name}")
]  # fmt: skip


def whole_run(folder: Path, *arguments: str) -> Workplace:
    """Make three markets, train and backtest them in a folder of its own; all paths in what is written are relative."""
    folder.mkdir()
    with chdir(folder):
        place = Workplace(Path())
        for symbol, market in MARKETS.items():
            place.synth(symbol, market, sessions=30)
        done = place.train("--symbols", "all", *arguments, settings=SETTINGS)
        assert done.code == 0, done.err
        done = place.backtest("--symbols", "all", *REPORTS, "--actions-file", "out/a.csv")
        assert done.code == 0, done.err
    return Workplace(folder)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Workplace:
    return whole_run(tmp_path_factory.mktemp("one") / "w")


@pytest.fixture(scope="module")
def side_by_side(tmp_path_factory) -> Workplace:
    return whole_run(tmp_path_factory.mktemp("two") / "w", "--jobs", "2")


def backtest_json_of(path: Path) -> dict[str, Any]:
    return without(json.loads(path.read_text()), CLOCK)


def test_raw_and_processed_files_are_the_same_bytes(one, side_by_side):
    for folder in ("raw", "processed"):
        names = sorted(path.name for path in (one.root / folder).iterdir())
        assert names
        for name in names:
            if name.endswith(".json"):
                continue  # says when the raw file was written; compared through the Parquet file's hash in it
            assert (one.root / folder / name).read_bytes() == (side_by_side.root / folder / name).read_bytes()


def test_models_are_the_same_files_but_for_the_name_of_their_run(one, side_by_side):
    found = models_of(one, *CLOCK)
    assert len(found) == 9
    assert found == models_of(side_by_side, *CLOCK)


def test_a_model_file_is_decided_by_what_is_in_it(one, side_by_side, tmp_path):
    """No time, process or memory address goes in: written again, here, each is the file its process wrote."""
    for place in (one, side_by_side):
        for path in place.models.glob("*.pth"):
            checkpoint = load_checkpoint(path)
            assert save_checkpoint(tmp_path / path.name, checkpoint) == checkpoint.sha256
            assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_the_comparison_of_models_tells_one_whose_last_weight_is_a_hair_off(one, tmp_path):
    other = Workplace(tmp_path / "w")
    shutil.copytree(one.models, other.models)
    assert models_of(other, *CLOCK) == models_of(one, *CLOCK)
    path = other.models / "SYN_ou_2_ppo_stage1.pth"
    checkpoint = load_checkpoint(path)
    weights = checkpoint.weights.clone()
    weights[-1] = float(np.nextafter(np.float32(weights[-1]), np.float32(1)))
    save_checkpoint(path, replace(checkpoint, weights=weights))
    assert models_of(other, *CLOCK) != models_of(one, *CLOCK)


def test_training_reports_and_plans_are_the_same(one, side_by_side):
    assert training_report_of(one, *CLOCK) == training_report_of(side_by_side, *CLOCK)
    assert training_text_of(one) == training_text_of(side_by_side)
    plans = [(run_folder(place) / "config.resolved.yaml").read_bytes() for place in (one, side_by_side)]
    assert plans[0] == plans[1]


def test_every_update_on_the_way_is_the_same(one, side_by_side):
    for stage in ("ppo", "moe", "maml"):
        first, second = (
            sorted(progress_of(place, stage), key=lambda event: event["symbol"])
            for place in (one, side_by_side)
        )
        assert first == second


def test_the_evidence_is_the_same(one, side_by_side):
    assert ledger_of(one, *CLOCK) == ledger_of(side_by_side, *CLOCK)
    assert evidence_of(one) == evidence_of(side_by_side)


def test_promotions_are_settled_together_wherever_their_symbols_were_trained(one, side_by_side):
    for place in (one, side_by_side):
        lines = [line for each in ledger_of(place).values() for line in each if line["kind"] == "settlement"]
        assert [line["symbol"] for line in lines] == sorted(MARKETS)
        for symbol in training_report_of(place)["symbols"].values():
            assert symbol["promotion"]["context"]["family"]["symbols"] == sorted(MARKETS)


def test_the_held_out_symbol_was_measured_by(one):
    """Who is held out depends on the symbols of the run, and this comparison has to have run into it."""
    reasons = [
        " ".join(symbol["stages"]["maml"]["verdict"]["reasons"])
        for symbol in training_report_of(one)["symbols"].values()
    ]
    assert sum("SYN_planted_2" in reason for reason in reasons) == 2


def test_backtests_and_their_actions_are_the_same(one, side_by_side):
    files = [place.root / "out" for place in (one, side_by_side)]
    assert backtest_text_of(files[0] / "r.txt") == backtest_text_of(files[1] / "r.txt")
    assert backtest_json_of(files[0] / "r.json") == backtest_json_of(files[1] / "r.json")
    assert (files[0] / "a.csv").read_bytes() == (files[1] / "a.csv").read_bytes()


def test_a_backtest_made_again_is_the_same_report(one):
    """The look is not counted anew, and what it showed is not one more trial."""
    with chdir(one.root):
        again = Workplace(Path())
        reports = [word.replace("out/", "again/") for word in REPORTS]
        done = again.backtest("--symbols", "all", *reports, "--actions-file", "again/a.csv")
        assert done.code == 0, done.err
    was, now = one.root / "out", one.root / "again"
    assert backtest_text_of(now / "r.txt") == backtest_text_of(was / "r.txt")
    assert backtest_json_of(now / "r.json") == backtest_json_of(was / "r.json")
    assert (now / "a.csv").read_bytes() == (was / "a.csv").read_bytes()


def test_another_seed_gives_other_weights(one, tmp_path):
    other = Workplace(tmp_path)
    name = "SYN_ou_2"
    other.synth(name, MARKETS[name], sessions=30)
    done = other.train("--symbols", name, "--stages", "ppo", "--seed", "1", settings=SETTINGS)
    assert done.code == 0, done.err
    weights = [
        load_checkpoint(place.models / f"{name}_ppo_stage1.pth").weights.numpy() for place in (one, other)
    ]
    assert weights[0].tobytes() != weights[1].tobytes()
