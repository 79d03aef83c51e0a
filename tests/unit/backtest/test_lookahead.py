"""Verdicts of the look-ahead check in cases of their own; that leaks are caught is tested under properties."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from rl.backtest import lookahead_own_columns
from rl.backtest.engine import replay_policy
from rl.backtest.lookahead import (
    CLEAN,
    FORGETS_TOO_SLOWLY,
    NOT_TESTED,
    LookaheadReport,
    check_lookahead,
)
from rl.backtest.lookahead_chain import Chain, ingested, random_model, traded, window_rows
from rl.common.errors import DataError
from rl.envs.scaled_market import fitted_scaler, scaled_market
from rl.features import pipeline
from rl.features.indicators import FEATURES
from rl.features.pipeline import compute_features
from rl.market.ingest import read_raw
from rl.market.raw_table import read_table
from rl.reporting.lookahead_report import lookahead_text
from rl.trading.ledger import LOG_BAR
from rl.trading.rules import TradingRules
from tests.builders import an_instrument, random_bars
from tests.raw_files import flawed_intraday_file

INSTRUMENT = an_instrument()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return flawed_intraday_file(tmp_path_factory.mktemp("raw"))


def checked(path, *, spoil=None, **options) -> LookaheadReport:
    table = read_table(path)
    if spoil:
        table = replace(table, numbers=spoil(table.numbers))
    return check_lookahead(table, path, path.stem, INSTRUMENT, **({"cuts": 4} | options))


def finding(report: LookaheadReport, item: str):
    (found,) = (one for one in report.findings if one.item == item)
    return found


# ---- warm-up ---------------------------------------------------------------------------------------------------


def test_a_feature_that_remembers_longer_than_it_says_is_named_but_sees_no_future(monkeypatch, path):
    hasty = tuple(
        replace(feature, lookback_bars=60) if feature.name == "rsi" else feature for feature in FEATURES
    )
    monkeypatch.setattr(pipeline, "FEATURES", hasty)
    report = checked(path)
    rsi = finding(report, "rsi")
    assert (rsi.verdict, rsi.warm_up_bars, rsi.is_fault) == (FORGETS_TOO_SLOWLY, 60, False)
    # (13/14)^46: what is left of the average's start after 60 bars.
    assert 1e-4 < rsi.warm_start_error < (13 / 14) ** 46
    assert "older bars than its last 60 still count" in rsi.remark
    assert report.faults == ()
    assert finding(report, "adx").verdict == CLEAN


def test_a_feature_without_a_value_from_the_bars_it_names_is_no_clean_one(monkeypatch, path):
    """A mean over 240 bars has none after 100; that it is not a number must not pass for no difference."""
    hasty = tuple(
        replace(feature, lookback_bars=100) if feature.name == "range_position_240" else feature
        for feature in FEATURES
    )
    monkeypatch.setattr(pipeline, "FEATURES", hasty)
    report = checked(path)
    found = finding(report, "range_position_240")
    assert (found.verdict, found.warm_up_bars, found.is_fault) == (FORGETS_TOO_SLOWLY, 100, False)
    assert "its last 100 bars alone give no value" in found.remark
    assert finding(report, "range_position_60").verdict == CLEAN


# ---- what a file decides as a whole ----------------------------------------------------------------------------


def test_a_volume_that_begins_later_is_a_note_and_no_fault(path):
    """Of the first half alone, whose volumes are all zero, none would be used."""

    def silent_at_first(numbers):
        later = np.arange(len(numbers["volume"])) >= len(numbers["volume"]) // 2
        return {**numbers, "volume": numbers["volume"] * later}

    report = checked(path, spoil=silent_at_first)
    assert report.faults == ()
    assert any("whether the volume is used is decided for the whole file" in note for note in report.notes)


def test_a_column_of_regimes_is_followed_from_the_file_to_the_decisions_of_a_policy(path):
    """It leaves the scaler as four columns, so the policy sees more numbers than there are features."""

    def with_regimes(numbers):
        # From the bar's own numbers, for the file repeats some bars.
        return {**numbers, "x_regime": np.floor(1000.0 * numbers["close"]) % 4}

    report = checked(path, spoil=with_regimes)
    assert report.faults == ()
    assert finding(report, "scaled features").verdict == CLEAN


def test_a_future_whose_file_is_refused_is_a_note_and_the_rest_is_checked(path):
    def fussy(table, path, symbol, instrument):
        if len(table) < 1400:
            raise DataError(f"{symbol}: too short for me\n  and a second line")
        return ingested(table, path, symbol, instrument)

    report = checked(path, chain=Chain(read=fussy))
    assert report.faults == ()
    refused = [note for note in report.notes if "the file is refused" in note]
    assert refused
    assert all(note.endswith("FLAWED_15: too short for me") for note in refused)
    assert finding(report, "number of bars").tests < 12
    assert finding(report, "session returns").tests == 12


def test_checks_a_user_made_stricter_do_not_refuse_other_futures(path):
    strict = an_instrument(checks={"jump": "error"})
    gaps = read_raw(path, path.stem, strict).counts
    assert "jump" not in gaps
    report = check_lookahead(read_table(path), path, path.stem, strict, cuts=4)
    assert report.faults == ()
    assert report.notes == ()


def test_a_file_too_short_to_be_split_is_refused(tmp_path):
    short = flawed_intraday_file(tmp_path)
    short.write_text("\n".join(short.read_text().splitlines()[:120]) + "\n")
    with pytest.raises(DataError, match="too few to split"):
        checked(short)


# ---- windows ---------------------------------------------------------------------------------------------------


def test_windows_that_touch_are_closer_than_the_embargo(path):
    report = checked(path, chain=Chain(split=lambda bars, embargo: window_rows(bars, 0)), cuts=1)
    assert report.guilty_pieces == ("windows",)
    assert [fault.item for fault in report.faults] == [
        "train to validation",
        "validation to promotion",
        "promotion to test",
    ]
    assert "bars have to lie between" in report.faults[0].remark


# ---- fills -----------------------------------------------------------------------------------------------------


def test_an_order_logged_in_the_bar_it_was_decided_on_is_told(path):
    def early(*arguments, **options):
        replay = traded(*arguments, **options)
        log = replay.fill_log.copy()
        log[:, LOG_BAR] -= 1
        return replace(replay, fill_log=log)

    report = checked(path, chain=Chain(trade=early), cuts=12)
    assert report.guilty_pieces == ("fills",)
    remark = finding(report, "order fills at a price not known yet").remark
    assert "was filled in that very bar" in remark


# ---- what acts -------------------------------------------------------------------------------------------------


def test_random_weights_act_on_what_they_see():
    """A policy that did the same whatever it saw could not show that it sees too much."""
    bars = random_bars(1500, 3)
    table = compute_features(bars, INSTRUMENT)
    market = scaled_market(
        bars, table, table.names, fitted_scaler(table, table.names, np.arange(1500), "TEST")
    )
    for seed in range(5):
        model = random_model(table, TradingRules(), capital=1e5, seed=seed)
        replay = replay_policy(market, (300, 1500), model.rules, model.prepare(market, 300))
        shares = np.bincount(replay.actions, minlength=3) / len(replay.actions)
        assert np.sum(shares > 0.05) >= 2, shares
        assert np.sum(np.diff(replay.actions) != 0) > 100


# ---- the report ------------------------------------------------------------------------------------------------


def test_the_seed_decides_everything(path):
    first, again, other = (checked(path, seed=seed).to_dict() for seed in (1, 1, 2))
    assert first == again
    assert first["cuts"] != other["cuts"]


def test_own_columns_with_too_little_data_are_not_tested_and_the_headline_says_so(monkeypatch, path):
    assert {column.verdict for column in checked(path, cuts=1).on_trust} == {CLEAN}
    # As if the file were shorter than what a correlation needs.
    monkeypatch.setattr(lookahead_own_columns, "FEWEST_OBSERVATIONS", 10_000)
    report = checked(path, cuts=1)
    assert report.faults == ()
    for column in report.on_trust:
        assert (column.verdict, column.tests) == (NOT_TESTED, 0)
        assert "too few to tell" in column.remark
    assert report.to_dict()["own_columns_on_trust"] == ["x_news", "x_mood"]
    trusted = "FLAWED_15: no step sees the future; 2 own columns are taken on trust"
    assert lookahead_text(report).splitlines()[0] == f"{trusted} (NOT TESTED: too little data)"
    one_tested = tuple(
        replace(each, verdict=CLEAN) if each == report.on_trust[0] else each for each in report.findings
    )
    headline = lookahead_text(replace(report, findings=one_tested)).splitlines()[0]
    assert headline == f"{trusted} (1 NOT TESTED: too little data)"


def test_a_file_without_own_columns_takes_nothing_on_trust(path):
    def without(numbers):
        return {name: values for name, values in numbers.items() if not name.startswith("x_")}

    report = checked(path, spoil=without, cuts=1)
    assert report.to_dict()["own_columns_on_trust"] == []
    assert lookahead_text(report).startswith("FLAWED_15: nothing sees the future\n")


def test_a_report_is_plain_json_and_readable_text(path):
    report = checked(path)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False)) == report.to_dict()
    text = lookahead_text(report)
    assert text.startswith("FLAWED_15: no step sees the future; 2 own columns are taken on trust\n")
    assert "own columns, x_news: given by the file, cannot be recomputed; next bar: correlation" in text
    assert "own columns, x_mood: given by the file, cannot be recomputed" in text
    assert "own session: correlation" in text
