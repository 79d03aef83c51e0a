"""The evidence beside the ledger: everything a verdict was computed from, and nothing that cannot be checked."""

from __future__ import annotations

import gzip
import os
import time
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest

from rl.backtest.engine import Replay, replay_actions
from rl.common.atomic_files import sha256_of
from rl.common.errors import DataError
from rl.stages.adaptation_proof import AdaptationProof, CrossSymbol, Placebo, PlainSteps, measured_across
from rl.stages.evaluation import benchmark_on, packed, replay_on, trade_record
from rl.stages.evidence_log import (
    log_path,
    read_action_log,
    read_windows_log,
    write_action_log,
    write_windows_log,
)
from rl.stages.symbol_data import SymbolData
from tests.unit.stages.small_symbol import edge_model, small_plan, small_symbol

PLAN = small_plan()
STOPS = small_plan(
    "environment.stops.unit=rate",
    "environment.stops.stop_loss=0.002",
    "environment.stops.take_profit=0.002",
)


def logged(data: SymbolData, replay: Replay, path: Path, window: str = "validation") -> str:
    held = benchmark_on(data, replay, window)
    return write_action_log(path, replay, held, data.bars.close_time, data.market.session).sha256


def traded(data: SymbolData, follow: float = 1.0, window: str = "validation") -> Replay:
    return replay_on(
        data, packed(edge_model(PLAN, follow=follow)), window, scheme="target", capital=100_000.0
    )


@pytest.mark.parametrize("plan", [PLAN, STOPS], ids=["flips", "stops"])
@pytest.mark.parametrize("follow", [1.0, -1.0, 0.0])
def test_the_record_read_back_is_the_record_judged_bit_for_bit(plan, follow, tmp_path):
    data = small_symbol(plan, sessions=80, seed=2)
    replay = traded(data, follow)
    logged(data, replay, tmp_path / "log.csv.gz")
    judged, read = (
        trade_record(data, replay, "validation", 7),
        read_action_log(tmp_path / "log.csv.gz").record(7),
    )
    for name in ("net_pnl", "trade_session", "session_returns", "benchmark_session_returns"):
        np.testing.assert_array_equal(getattr(read, name), getattr(judged, name), err_msg=name)
    assert (read.max_drawdown, read.episodes) == (judged.max_drawdown, 7)
    assert (len(read.net_pnl) > 20) is (follow != 0.0)


def test_a_bar_with_several_fills_has_a_row_for_each(tmp_path):
    """A flip is a closing and an opening leg; both happen at one open."""
    data = small_symbol(PLAN, sessions=80)
    replay = traded(data)
    logged(data, replay, tmp_path / "log.csv.gz")
    rows = gzip.decompress((tmp_path / "log.csv.gz").read_bytes()).decode().splitlines()[1:]
    further = [row for row in rows if row.startswith(",,,,")]
    assert len(further) > 50
    assert len(rows) - len(further) == len(replay.equity)
    assert sum(not row.endswith(",,,,,") for row in rows) == len(replay.fill_log)


def test_a_ruined_account_can_be_logged_and_read(tmp_path):
    plan = small_plan("environment.exposure=5.0", "environment.ruin_level=0.97")
    data = small_symbol(plan, sessions=80)
    replay = traded(data, -1.0)
    assert replay.was_ruined
    logged(data, replay, tmp_path / "log.csv.gz")
    read = read_action_log(tmp_path / "log.csv.gz").record(None)
    np.testing.assert_array_equal(read.net_pnl, replay.trades.net_pnl)


def test_the_log_by_hand(tmp_path):
    """Two trades: 10 bought at 100 and sold at 101 for 1 each time, then 5 sold at 101 and bought back at 103."""
    text = (
        "close_time_ns,session,equity,buy_and_hold_equity,units,price,charges,slippage,reason\n"
        "100,1,1000.0,1000.0,,,,,\n"
        "200,1,1004.0,1010.0,10.0,100.0,1.0,0.0,order\n"
        "300,1,1004.0,1020.0,-10.0,101.0,1.0,0.0,order\n"
        ",,,,-5.0,101.0,0.0,0.0,order\n"
        "400,2,998.0,990.0,5.0,103.0,0.0,0.0,order\n"
    )
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(text.encode()))
    record = read_action_log(tmp_path / "log.csv.gz").record(None)
    assert record.net_pnl.tolist() == [8.0, -10.0]
    assert record.trade_session.tolist() == [1, 2]
    assert record.session_returns.tolist() == pytest.approx([0.004, 998 / 1004 - 1])
    assert record.benchmark_session_returns.tolist() == pytest.approx([0.02, 990 / 1020 - 1])
    assert record.max_drawdown == pytest.approx(6 / 1004)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("400,2,998.0", "400,2,999.0", "contradicts itself at bar 3"),
        ("-10.0,101.0,1.0", "-10.0,101.0,1.5", "contradicts itself at bar 3"),
        ("100,1,1000.0", "100,1,nan", "holds nan"),
        ("100,1,1000.0", ",,", "does not begin with a bar"),
        ("300,1,1004.0,1020.0,", "300,1,1004.0,", "line 4 has not 9 columns"),
        ("session,equity", "equity,session", "its columns are"),
        ("100,1,", "x,1,", "invalid literal"),
    ],
)
def test_a_log_that_cannot_be_true_is_refused(old, new, says, tmp_path):
    path = tmp_path / "log.csv.gz"
    test_the_log_by_hand(tmp_path)
    text = gzip.decompress(path.read_bytes()).decode()
    assert old in text
    path.write_bytes(gzip.compress(text.replace(old, new).encode()))
    with pytest.raises(DataError, match=says):
        read_action_log(path).record(None)


def test_a_cut_off_or_missing_log_is_refused(tmp_path):
    path = tmp_path / "log.csv.gz"
    with pytest.raises(DataError, match="cannot be read as an action log"):
        read_action_log(path)
    test_the_log_by_hand(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read as an action log"):
        read_action_log(path)


def test_a_log_that_is_larger_than_any_window_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    path = tmp_path / "log.csv.gz"
    test_the_log_by_hand(tmp_path)
    monkeypatch.setattr("rl.stages.evidence_log.LARGEST_LOG_BYTES", 4096)
    assert len(read_action_log(path).close_time) > 0
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"1,1,1.0,1.0,,,,,\n" * 1000))
    assert path.stat().st_size < 4096
    with pytest.raises(DataError, match="cannot be read as an action log: is too large: it unpacks to more"):
        read_action_log(path)
    for big in (path, tmp_path / "w.json"):
        big.write_bytes(b" " * 5000)
    with pytest.raises(DataError, match="cannot be read as an action log: is too large"):
        read_action_log(path)
    with pytest.raises(DataError, match="cannot be read as a log of query windows: is too large"):
        read_windows_log(tmp_path / "w.json")


def test_a_pipe_in_place_of_a_log_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "log.csv.gz")
    os.mkfifo(tmp_path / "w.json")
    for read, name in ((read_action_log, "log.csv.gz"), (read_windows_log, "w.json")):
        with pytest.raises(DataError, match="is not an ordinary file"):
            read(tmp_path / name)


def test_no_flipped_byte_of_a_log_is_more_than_a_refusal(tmp_path):
    """Damage inside the compressed stream is told by zlib, in an error of its own."""
    path = tmp_path / "log.csv.gz"
    test_the_log_by_hand(tmp_path)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_action_log(path)
        except DataError:
            refused += 1
    # A header byte or two (time, system) means nothing; all the rest is covered by gzip's checksum.
    assert refused >= len(whole) - 8


def test_the_same_actions_give_the_same_bytes_whenever_and_wherever_they_are_written(tmp_path, monkeypatch):
    data = small_symbol(PLAN, sessions=40)
    first = logged(data, traded(data), tmp_path / "one" / "log.csv.gz")
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    assert logged(data, traded(data), tmp_path / "other" / "another name.csv.gz") == first
    assert first == sha256_of(tmp_path / "one" / "log.csv.gz")
    assert logged(data, traded(data, -1.0), tmp_path / "third" / "log.csv.gz") != first


def test_evidence_never_takes_the_place_of_other_evidence(tmp_path):
    """A ledger begun anew counts from one again; what an earlier verdict rests on has to stay."""
    data = small_symbol(PLAN, sessions=40)
    path = tmp_path / "promotion-0123456789ab-1.csv.gz"
    first = logged(data, traded(data), path)
    held = benchmark_on(data, traded(data), "validation")
    other = write_action_log(path, traded(data, -1.0), held, data.bars.close_time, data.market.session)
    assert other.path == tmp_path / f"promotion-0123456789ab-1-{other.sha256[:8]}.csv.gz"
    assert (sha256_of(path), sha256_of(other.path)) == (first, other.sha256)
    # The same once more is the same file.
    assert logged(data, traded(data), path) == first
    assert len(list(tmp_path.iterdir())) == 2


def test_a_window_of_seventy_thousand_bars_is_written_and_read_whole(tmp_path):
    data = small_symbol(PLAN, sessions=3000)
    window = (0, 70_000)
    # A flip every other bar: as many fills as there can be.
    replay = replay_actions(data.market, window, data.rules, np.arange(69_999) // 2 % 2 * 2)
    assert len(replay.fill_log) > 60_000
    write_action_log(tmp_path / "log.csv.gz", replay, replay, data.bars.close_time, data.market.session)
    np.testing.assert_array_equal(read_action_log(tmp_path / "log.csv.gz").equity, replay.equity)


def a_proof(tasks: int, *, controls: bool = True) -> AdaptationProof:
    rng = np.random.default_rng(1)
    placebo = Placebo(**{field.name: rng.normal(size=tasks) for field in fields(Placebo)})
    return AdaptationProof(
        steps=2,
        curve_steps=(0, 1, 2, 5),
        adapted=rng.normal(size=(tasks, 4)),
        parent=rng.normal(size=tasks),
        fine_tuned=rng.normal(size=tasks),
        fine_tune=PlainSteps(size=0.3, adapt="all"),
        random_start=rng.normal(size=tasks),
        random_start_steps=PlainSteps(size=3.0, adapt="heads"),
        buy_and_hold=rng.normal(size=tasks),
        other_support=rng.normal(size=tasks) if controls else None,
        placebo=placebo if controls else None,
    )


def same(one: object, two: object) -> bool:
    """Return whether two records hold equal values, arrays bit for bit."""
    if is_dataclass(one):
        return all(same(value, vars(two)[name]) for name, value in vars(one).items())
    return np.array_equal(one, two) if isinstance(one, np.ndarray) else one == two


@pytest.mark.parametrize("controls", [True, False])
def test_growths_of_query_windows_come_back_bit_for_bit(controls, tmp_path):
    """Every array that the verdict is computed from, or it could not be recomputed."""
    proof = a_proof(5, controls=controls)
    across = measured_across("B_2", [0.1, 0.3], [0.2, 0.2])
    assert across.ratio == pytest.approx(1.0)
    write_windows_log(tmp_path / "w.json", proof, across)
    read, read_across = read_windows_log(tmp_path / "w.json")
    assert same(proof, read)
    assert read_across == across


@pytest.mark.parametrize(
    "across",
    [
        CrossSymbol(ratio=None, symbol=None, note="there is one symbol only"),
        measured_across("B_2", [0.1], [-0.2]),
    ],
    ids=["not measured", "own model earns nothing"],
)
def test_no_query_window_and_nothing_measured_across_symbols_come_back_too(across, tmp_path):
    write_windows_log(tmp_path / "w.json", a_proof(0, controls=False), across)
    read, read_across = read_windows_log(tmp_path / "w.json")
    assert read.adapted.shape == (0, 4)
    assert read_across == across


def test_something_else_is_no_log_of_query_windows(tmp_path):
    (tmp_path / "w.json").write_text('{"adapted": [[1.0]]}')
    with pytest.raises(DataError, match="cannot be read as a log of query windows"):
        read_windows_log(tmp_path / "w.json")


def test_evidence_lies_beside_the_ledger_under_symbol_purpose_window_and_look():
    path = log_path(Path("reports"), "Nifty_2", "promotion", "0123456789abcdef", 3, ".csv.gz")
    assert path == Path("reports/evidence/Nifty_2/promotion-0123456789ab-3.csv.gz")
