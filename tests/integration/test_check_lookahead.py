"""`run_backtest.py --check-lookahead` as a user runs it: with and without a model, clean and not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rl.backtest.lookahead import PIECES, check_lookahead
from rl.backtest.lookahead_chain import model_of
from rl.checkpoints.registry import best_available
from rl.common.atomic_files import sha256_of
from rl.features.pipeline import compute_features
from rl.features.scaler import FeatureScaler
from rl.market.ingest import read_raw
from rl.market.instruments import load_instruments
from rl.market.raw_table import read_table
from rl.stages.backtest_looks import todays_rules
from tests.integration.command_line import Finished, Workplace

SYMBOL = "SYN_planted_2"
UNTRAINED = "SYN_momrev_2"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workplace:
    workplace = Workplace(tmp_path_factory.mktemp("user"))
    workplace.synth(SYMBOL)
    done = workplace.train("--symbols", SYMBOL)
    assert done.code == 0, done.err
    workplace.synth(UNTRAINED, "momrev")
    return workplace


@pytest.fixture(scope="module")
def checked(place) -> Finished:
    return place.backtest(
        "--check-lookahead", "--symbols", SYMBOL, "--report-file", str(place.root / "out" / "look.json")
    )


def model_and_data(place: Workplace, stage: str = "maml"):
    """Return the stage's checkpoint, its costs, the raw file and the instrument."""
    checkpoint = best_available(place.models, SYMBOL, stage).checkpoint
    found = load_instruments().find(SYMBOL, "raw")
    return checkpoint, todays_rules(checkpoint, found)[0], place.raw / f"{SYMBOL}.csv", found.instrument


# --- clean ----------------------------------------------------------------------------------------------------------


def test_a_trained_model_is_checked_from_its_file_to_its_actions(place, checked):
    assert checked.code == 0, checked.out + checked.err
    assert f"{SYMBOL}: no step sees the future; 2 own columns are taken on trust" in checked.out
    assert "1 of 1 symbols clean" in checked.out
    report = json.loads((place.root / "out" / "look.json").read_text())
    assert report["sees_the_future"] is False
    (symbol,) = report["symbols"]
    assert symbol["model"].endswith(f"model of {SYMBOL}")
    assert {finding["piece"] for finding in symbol["findings"]} == set(PIECES)
    assert {finding["verdict"] for finding in symbol["findings"]} == {"clean"}
    stored = next(f for f in symbol["findings"] if f["item"] == "the one in the model's file")
    assert stored["tests"] == 1


def test_there_is_a_verdict_for_every_feature_and_every_step(place, checked):
    bars = read_raw(place.raw / f"{SYMBOL}.csv", SYMBOL, load_instruments().find(SYMBOL).instrument).bars
    names = compute_features(bars, load_instruments().find(SYMBOL).instrument).names
    for word in (*names, *(piece for piece in PIECES if piece != "features")):
        assert any(line.startswith(word) for line in checked.out.splitlines()), word


def test_a_model_that_adapts_is_adapted_on_the_past_alone(place):
    checkpoint, rules, path, instrument = model_and_data(place)
    model = model_of(checkpoint, rules, capital=100_000.0, adapts=True)
    report = check_lookahead(read_table(path), path, SYMBOL, instrument, model=model, cuts=5)
    assert report.faults == ()
    weights = next(finding for finding in report.findings if finding.item == "weights that act")
    assert weights.tests == 15


def test_all_means_every_raw_file_and_random_weights_act_where_there_is_no_model(place):
    done = place.backtest("--check-lookahead")
    assert done.code == 0, done.out + done.err
    assert done.out.count("what acts: random weights (no trained model)") == 1
    assert f"model of {SYMBOL}" in done.out
    assert done.out.splitlines()[-1] == (
        f"2 of 2 symbols clean; own columns taken on trust: {', '.join(sorted([SYMBOL, UNTRAINED]))}"
    )


def test_nothing_is_backtested_and_no_look_at_the_test_window_is_counted(place, checked):
    lines = (place.reports / "evidence_ledger.jsonl").read_text().splitlines()
    assert lines
    assert not [line for line in lines if json.loads(line).get("purpose") == "test"]


# --- not clean ------------------------------------------------------------------------------------------------------


def test_a_column_that_sees_the_future_ends_with_exit_code_4(tmp_path):
    workplace = Workplace(tmp_path)
    path = workplace.synth(SYMBOL)
    table = pd.read_csv(path)
    table["x_tomorrow"] = np.append(np.diff(np.log(table["close"])), 0.0)
    table.to_csv(path, index=False)
    report_file = tmp_path / "look.txt"
    done = workplace.backtest("--check-lookahead", "--symbols", SYMBOL, "--report-file", str(report_file))
    assert done.code == 4
    assert f"{SYMBOL}: SOMETHING SEES THE FUTURE: own columns" in done.out
    assert "SUSPICIOUS: own columns, x_tomorrow: given by the file, cannot be recomputed" in done.out
    assert (
        f"0 of 1 symbols clean; sees the future: {SYMBOL}; own columns taken on trust: {SYMBOL}" in done.out
    )
    assert "x_tomorrow" in report_file.read_text()


def test_a_model_whose_scaler_saw_more_than_its_training_rows_is_noticed(place):
    """The weights of such a model are of no use either: they were trained on numbers that knew the test window."""
    checkpoint, rules, path, instrument = model_and_data(place, "ppo")
    bars = read_raw(path, SYMBOL, instrument).bars
    table = compute_features(bars, instrument)
    all_rows = FeatureScaler.fit(table.values[table.usable], table.names)
    model = model_of(replace(checkpoint, scaler=all_rows.to_dict()), rules, capital=100_000.0, adapts=False)
    report = check_lookahead(
        read_table(path), path, SYMBOL, instrument, model=model, data_hash=sha256_of(path), cuts=2
    )
    assert report.guilty_pieces == ("scaler",)
    assert [fault.item for fault in report.faults] == ["the one in the model's file"]
    assert "not what the training rows give" in report.faults[0].remark


def test_the_scaler_of_a_changed_file_is_not_judged(place):
    checkpoint, rules, path, instrument = model_and_data(place, "ppo")
    model = model_of(checkpoint, rules, capital=100_000.0, adapts=False)
    report = check_lookahead(
        read_table(path), path, SYMBOL, instrument, model=model, data_hash="another", cuts=2
    )
    stored = next(finding for finding in report.findings if finding.item == "the one in the model's file")
    assert (stored.verdict, stored.is_fault) == ("not tested", False)


# --- what cannot be checked -----------------------------------------------------------------------------------------


def test_a_symbol_without_a_raw_file_says_what_is_missing(place, tmp_path):
    empty = tmp_path / "raw"
    empty.mkdir()
    done = place.backtest("--check-lookahead", "--symbols", SYMBOL, "--raw-data-dir", str(empty))
    assert done.code == 4
    assert "the look-ahead check starts from the raw file" in done.err
    assert "--raw-data-dir" in done.err


def test_a_stage_that_was_asked_for_and_does_not_exist_is_refused(place):
    done = place.backtest("--check-lookahead", "--symbols", UNTRAINED, "--stage", "ppo")
    assert done.code == 4
    assert "No checkpoint for SYN_momrev_2" in done.err


def test_an_actions_file_makes_no_sense_here(place):
    done = place.backtest("--check-lookahead", "--symbols", SYMBOL, "--actions-file", "a.csv")
    assert done.code == 2
    assert "backtests nothing" in done.err
