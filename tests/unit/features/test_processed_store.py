from __future__ import annotations

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from rl.common.atomic_files import sha256_of
from rl.common.errors import DataError, UsageError
from rl.features import processed_store
from rl.features.pipeline import compute_features
from rl.features.processed_store import fingerprint, is_current, load_processed, process
from rl.market.ingest import read_raw
from tests.builders import an_instrument, random_bars, with_later_bars_changed

INDEX = an_instrument()
SYMBOL = "Nifty_15"
COUNT = 325
SECOND_NS = 10**9


def write_raw(path, bars):
    """Write bars as a user's file would hold them: labelled with their start on the wall clock of Kolkata."""
    starts = bars.close_time - bars.bar_seconds * SECOND_NS + 5 * 3600 * SECOND_NS + 1800 * SECOND_NS
    labels = [
        text.replace("T", " ") for text in np.datetime_as_string(starts.astype("datetime64[ns]"), unit="s")
    ]
    own = ["open", "high", "low", "close"]
    columns = [getattr(bars, name) for name in own]
    if bars.volume is not None:
        own, columns = [*own, "volume"], [*columns, bars.volume]
    own, columns = [*own, *bars.extra], [*columns, *bars.extra.values()]
    lines = [",".join(["datetime", *own])]
    lines += [
        ",".join([label, *map(repr, map(float, row))])
        for label, row in zip(labels, zip(*columns, strict=True), strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def some_bars(seed=1, count=COUNT):
    return random_bars(count, seed, with_volume=True, extra_names=("x_f1", "x_regime"))


@pytest.fixture
def raw(tmp_path):
    return write_raw(tmp_path / f"{SYMBOL}.csv", some_bars())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "processed"


def state_of(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())}


# ---- what is stored --------------------------------------------------------------------------------


def test_stored_bars_and_features_come_back_byte_for_byte(raw, folder):
    outcome = process(SYMBOL, raw, INDEX, folder)
    assert (outcome.symbol, outcome.action, outcome.bars) == (SYMBOL, "processed", COUNT)
    stored = load_processed(SYMBOL, folder)
    bars = read_raw(raw, SYMBOL, INDEX).bars
    table = compute_features(bars, INDEX)

    for name in ("close_time", "session", "session_end", "open", "high", "low", "close", "volume"):
        was, now = getattr(bars, name), getattr(stored.bars, name)
        assert was.dtype == now.dtype, name
        assert was.tobytes() == now.tobytes(), name
        assert now.flags.c_contiguous, name
        assert now.flags.writeable or name == "label", name
    assert stored.bars.label.tolist() == bars.label.tolist()
    assert (stored.bars.symbol, stored.bars.bar_seconds) == (SYMBOL, 900)
    assert {name: own.tobytes() for name, own in stored.bars.extra.items()} == {
        name: own.tobytes() for name, own in bars.extra.items()
    }
    assert stored.features.values.tobytes() == table.values.tobytes()
    assert stored.features.values.flags.c_contiguous
    assert stored.features.usable.tobytes() == table.usable.tobytes()
    assert stored.features.atr.tobytes() == table.atr.tobytes()
    assert stored.features.names == table.names
    assert stored.features.regime_names == table.regime_names
    assert table.usable.sum() == COUNT - 255


def test_bars_without_volume_and_own_columns_come_back_without(tmp_path, folder):
    raw = write_raw(tmp_path / f"{SYMBOL}.csv", random_bars(50, 1))
    process(SYMBOL, raw, INDEX, folder)
    stored = load_processed(SYMBOL, folder).bars
    assert stored.volume is None
    assert stored.extra == {}


def test_the_account_says_where_the_numbers_come_from(raw, folder):
    process(SYMBOL, raw, INDEX, folder)
    text = (folder / f"{SYMBOL}.json").read_text()
    meta = json.loads(text)
    assert meta["raw"]["file"] == f"{SYMBOL}.csv"
    assert str(raw.parent) not in text
    assert meta["data_hash"] == meta["raw"]["sha256"] == sha256_of(raw)
    assert meta["raw"]["bytes"] == raw.stat().st_size
    assert meta["bars"] == COUNT
    assert meta["usable_bars"] == COUNT - 255
    assert meta["warm_up_bars"] == 256
    assert meta["features"][-2:] == ["x_f1", "x_regime"]
    assert meta["counts"]["rows"] == COUNT
    assert meta["processed_version"] == processed_store.PROCESSED_VERSION
    assert load_processed(SYMBOL, folder).meta == meta


def test_the_stored_prices_are_float64_and_the_features_float32(raw, folder):
    process(SYMBOL, raw, INDEX, folder)
    schema = pq.read_schema(folder / f"{SYMBOL}.parquet")
    assert str(schema.field("close").type) == "double"
    assert str(schema.field("x_f1").type) == "double"
    assert str(schema.field("feature.rsi").type) == "float"
    assert str(schema.field("feature.x_f1").type) == "float"


def test_stored_features_do_not_change_when_later_rows_of_the_raw_file_change(tmp_path):
    """The round trip through files may not let the future in either."""
    cut = 300
    bars = some_bars()
    files = {"before": bars, "altered": with_later_bars_changed(bars, cut, seed=4), "cut": bars.slice(0, cut)}
    stored = {}
    for name, given in files.items():
        raw = write_raw(tmp_path / name, given).rename(tmp_path / f"{SYMBOL}.csv")
        process(
            SYMBOL,
            raw,
            an_instrument(checks={"outside_session": "warn", "mostly_outside_session": "warn"}),
            tmp_path,
        )
        stored[name] = load_processed(SYMBOL, tmp_path)
    expected = stored["before"]
    assert expected.features.usable[cut - 1]
    for name in ("altered", "cut"):
        other = stored[name]
        assert other.meta["data_hash"] != expected.meta["data_hash"]
        assert other.features.values[:cut].tobytes() == expected.features.values[:cut].tobytes()
        assert other.features.usable[:cut].tobytes() == expected.features.usable[:cut].tobytes()
        assert other.features.atr[:cut].tobytes() == expected.features.atr[:cut].tobytes()
        assert other.bars.close[:cut].tobytes() == expected.bars.close[:cut].tobytes()


# ---- doing nothing twice ---------------------------------------------------------------------------


def test_an_unchanged_file_is_not_processed_again(raw, folder):
    process(SYMBOL, raw, INDEX, folder)
    before = state_of(folder)
    outcome = process(SYMBOL, raw, INDEX, folder)
    assert outcome.action == "unchanged"
    assert outcome.bars == COUNT
    assert state_of(folder) == before
    assert is_current(SYMBOL, raw, folder, INDEX)


def test_an_unchanged_file_is_known_by_size_and_time_without_reading_it(raw, folder, monkeypatch):
    process(SYMBOL, raw, INDEX, folder)
    hashed = []
    monkeypatch.setattr(processed_store, "sha256_of", lambda path: hashed.append(path) or sha256_of(path))
    assert process(SYMBOL, raw, INDEX, folder).action == "unchanged"
    assert raw not in hashed


def test_a_file_with_a_new_time_and_the_same_bytes_is_unchanged_and_its_time_noted(raw, folder):
    process(SYMBOL, raw, INDEX, folder)
    parquet = (folder / f"{SYMBOL}.parquet").stat().st_mtime_ns
    os.utime(raw, ns=(1, 1))
    assert process(SYMBOL, raw, INDEX, folder).action == "unchanged"
    assert json.loads((folder / f"{SYMBOL}.json").read_text())["raw"]["mtime_ns"] == 1
    assert (folder / f"{SYMBOL}.parquet").stat().st_mtime_ns == parquet


def test_a_longer_file_is_processed_again_and_says_so(raw, folder):
    process(SYMBOL, raw, INDEX, folder)
    write_raw(raw, some_bars(count=COUNT + 1))
    assert not is_current(SYMBOL, raw, folder)
    outcome = process(SYMBOL, raw, INDEX, folder)
    assert outcome.action.startswith("reprocessed: raw file changed")
    assert len(load_processed(SYMBOL, folder).bars) == COUNT + 1


def test_one_changed_digit_of_the_same_length_is_noticed(raw, folder):
    process(SYMBOL, raw, INDEX, folder)
    data = bytearray(raw.read_bytes())
    at = len(data) - 3
    data[at] = ord("1") if data[at] != ord("1") else ord("2")
    raw.write_bytes(bytes(data))
    os.utime(raw, ns=(1, 1))
    assert process(SYMBOL, raw, INDEX, folder).action.startswith("reprocessed: raw file changed")


def test_force_processes_an_unchanged_file_again(raw, folder):
    process(SYMBOL, raw, INDEX, folder)
    assert process(SYMBOL, raw, INDEX, folder, force=True).action == "reprocessed: asked for"


def test_processing_twice_gives_the_same_bytes(raw, folder):
    process(SYMBOL, raw, INDEX, folder)
    first = {name: data for name, (data, _) in state_of(folder).items()}
    process(SYMBOL, raw, INDEX, folder, force=True)
    assert {name: data for name, (data, _) in state_of(folder).items()} == first


# ---- what makes a processed file stale -------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"calendar": "NONE"},
        {"label": "end", "checks": {"outside_session": "warn", "mostly_outside_session": "warn"}},
        {"checks": {"jump": "error"}},
        {"max_hole_days": 3.0},
        {"price_may_be_negative": True},
    ],
)
def test_an_instrument_that_would_be_processed_otherwise_makes_the_file_stale(raw, folder, change):
    process(SYMBOL, raw, INDEX, folder)
    changed = an_instrument(**change)
    assert is_current(SYMBOL, raw, folder)
    assert not is_current(SYMBOL, raw, folder, changed)
    outcome = process(SYMBOL, raw, changed, folder)
    assert outcome.action.startswith("reprocessed: instrument changed: ")
    assert all(key in outcome.action for key in change)
    assert process(SYMBOL, raw, changed, folder).action == "unchanged"


def test_costs_and_margin_do_not_make_the_file_stale(raw, folder):
    process(SYMBOL, raw, INDEX, folder)
    dear = an_instrument(commission={"rate": 0.01}, margin_rate=0.5, square_off=True, lot_size=25)
    assert fingerprint(dear) == fingerprint(INDEX)
    assert process(SYMBOL, raw, dear, folder).action == "unchanged"


def test_a_new_version_of_processing_makes_the_file_stale(raw, folder, monkeypatch):
    process(SYMBOL, raw, INDEX, folder)
    monkeypatch.setattr(processed_store, "PROCESSED_VERSION", processed_store.PROCESSED_VERSION + 1)
    with pytest.raises(DataError, match="processing changed"):
        load_processed(SYMBOL, folder)
    before = processed_store.PROCESSED_VERSION - 1
    assert process(SYMBOL, raw, INDEX, folder).action.startswith(
        f"reprocessed: processing changed (version {before} → {before + 1}"
    )


@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_a_pair_that_lost_one_half_is_made_again(raw, folder, ending):
    process(SYMBOL, raw, INDEX, folder)
    (folder / f"{SYMBOL}.{ending}").unlink()
    assert not is_current(SYMBOL, raw, folder)
    with pytest.raises(DataError, match=rf"{SYMBOL}\.{ending} is missing"):
        load_processed(SYMBOL, folder)
    assert process(SYMBOL, raw, INDEX, folder).action.startswith(f"reprocessed: {SYMBOL}.{ending} is missing")
    assert len(load_processed(SYMBOL, folder).bars) == COUNT


@pytest.mark.parametrize("damage", ["flipped", "cut", "other"])
def test_a_parquet_file_that_is_not_the_one_described_is_refused_and_made_again(raw, folder, damage):
    process(SYMBOL, raw, INDEX, folder)
    parquet = folder / f"{SYMBOL}.parquet"
    data = bytearray(parquet.read_bytes())
    data[len(data) // 2] ^= 1
    parquet.write_bytes({"flipped": bytes(data), "cut": bytes(data[:-100]), "other": b"PAR1"}[damage])
    with pytest.raises(DataError, match=r"is not the file that .* describes"):
        load_processed(SYMBOL, folder)
    assert process(SYMBOL, raw, INDEX, folder).action.startswith("reprocessed: ")
    assert len(load_processed(SYMBOL, folder).bars) == COUNT


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"processed_version": 1}'])
def test_an_account_that_cannot_be_read_counts_as_missing(raw, folder, text):
    process(SYMBOL, raw, INDEX, folder)
    (folder / f"{SYMBOL}.json").write_text(text)
    assert not is_current(SYMBOL, raw, folder)
    with pytest.raises(DataError, match="is missing, cannot be read or was altered"):
        load_processed(SYMBOL, folder)
    assert process(SYMBOL, raw, INDEX, folder).action.startswith("reprocessed: ")


# ---- nothing half-written --------------------------------------------------------------------------


def test_a_stop_between_the_two_files_leaves_nothing_that_passes_for_current(raw, folder, monkeypatch):
    process(SYMBOL, raw, INDEX, folder)
    write_raw(raw, some_bars(seed=2))

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(processed_store, "write_json", stopped)
    with pytest.raises(KeyboardInterrupt):
        process(SYMBOL, raw, INDEX, folder)
    monkeypatch.undo()
    assert not is_current(SYMBOL, raw, folder)
    with pytest.raises(DataError, match="is not the file"):
        load_processed(SYMBOL, folder)
    process(SYMBOL, raw, INDEX, folder)
    assert load_processed(SYMBOL, folder).bars.close[0] == some_bars(seed=2).close[0]


def test_a_stop_while_writing_leaves_the_earlier_files_as_they_were(raw, folder, monkeypatch):
    process(SYMBOL, raw, INDEX, folder)
    before = state_of(folder)
    write_raw(raw, some_bars(seed=2))

    def stopped(path, *_):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(processed_store, "_write_parquet", stopped)
    with pytest.raises(KeyboardInterrupt):
        process(SYMBOL, raw, INDEX, folder)
    assert state_of(folder) == before


def test_a_raw_file_that_fails_its_checks_leaves_no_processed_file(raw, folder):
    raw.write_text(raw.read_text().replace("datetime", "whenever"))
    with pytest.raises(DataError):
        process(SYMBOL, raw, INDEX, folder)
    assert not folder.exists()


def test_a_raw_file_that_changes_while_it_is_read_is_refused(raw, folder, monkeypatch):
    def read_and_disturb(path, symbol, instrument):
        result = read_raw(path, symbol, instrument)
        write_raw(path, some_bars(count=COUNT + 5))
        return result

    monkeypatch.setattr(processed_store, "read_raw", read_and_disturb)
    with pytest.raises(DataError, match="changed while it was being read"):
        process(SYMBOL, raw, INDEX, folder)
    assert not folder.exists()


# ---- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".parquet", ".json"])
def test_no_flipped_bit_and_no_cut_passes_for_what_was_written(raw, folder, ending):
    """Parquet notices few flipped bits by itself, and a digit of the account would simply be believed."""
    process(SYMBOL, raw, INDEX, folder)
    path = folder / f"{SYMBOL}{ending}"
    whole = path.read_bytes()
    random = np.random.default_rng(5)
    damaged = []
    for place in random.integers(len(whole) * 8, size=150).tolist():
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        damaged.append(bytes(flipped))
    # Without the last byte alone, the line end of the account, nothing would be missing.
    damaged += [whole[:length] for length in random.integers(len(whole) - 1, size=25).tolist()]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"is not the file|altered"):
            load_processed(SYMBOL, folder)
    assert process(SYMBOL, raw, INDEX, folder).action.startswith("reprocessed: ")
    assert path.read_bytes() == whole
    load_processed(SYMBOL, folder)


# ---- politeness ------------------------------------------------------------------------------------


def test_a_symbol_that_was_never_processed_is_answered_with_the_command(folder):
    with pytest.raises(DataError, match=r"no processed file of SPY.*\n.*--process-data --symbols SPY"):
        load_processed("SPY", folder)


def test_a_missing_raw_file_is_named(tmp_path, folder):
    with pytest.raises(DataError, match=r"Nifty_15\.csv does not exist"):
        process(SYMBOL, tmp_path / f"{SYMBOL}.csv", INDEX, folder)


def test_a_symbol_that_would_leave_the_folder_is_refused(folder):
    with pytest.raises(UsageError):
        load_processed("../secrets", folder)


def test_a_symbol_with_a_dot_keeps_it(tmp_path, folder):
    raw = write_raw(tmp_path / "BHP.AX_15.csv", some_bars())
    process("BHP.AX_15", raw, INDEX, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["BHP.AX_15.json", "BHP.AX_15.parquet"]


def test_flipped_bits_and_lost_ends_of_account_and_table_are_noticed(raw, folder):
    """The table is held by its hash in the account; the account by a hash of itself."""
    process(SYMBOL, raw, INDEX, folder)
    rng = np.random.default_rng(4)
    for file in (folder / f"{SYMBOL}.json", folder / f"{SYMBOL}.parquet"):
        data = file.read_bytes()
        damaged = [data[: int(length)] for length in (0, len(data) - 1, *rng.choice(len(data), 8))]
        for place in rng.choice(len(data) * 8, size=40, replace=False):
            flipped = bytearray(data)
            flipped[place // 8] ^= 1 << (place % 8)
            damaged.append(bytes(flipped))
        for content in damaged:
            file.write_bytes(content)
            with pytest.raises(DataError, match="--process-data"):
                load_processed(SYMBOL, folder)
        file.write_bytes(data)
        load_processed(SYMBOL, folder)


def test_a_pair_that_was_given_another_name_is_refused(raw, folder):
    process(SYMBOL, raw, INDEX, folder)
    for end in (".json", ".parquet"):
        (folder / f"{SYMBOL}{end}").rename(folder / f"Other_15{end}")
    with pytest.raises(DataError, match="is the account of another symbol, 'Nifty_15'"):
        load_processed("Other_15", folder)


@pytest.mark.parametrize(
    "change",
    [
        {"bars": 10**12},
        {"features": ["nothing"]},
        {"own_columns": 3},
        {"features": None},
        {"has_volume": "x"},
    ],
)
def test_an_account_that_vouches_for_what_is_not_there_is_refused(raw, folder, change):
    """A pair somebody else made holds every hash it needs."""
    process(SYMBOL, raw, INDEX, folder)
    sidecar = folder / f"{SYMBOL}.json"
    meta = processed_store._sealed(json.loads(sidecar.read_text()) | change)
    sidecar.write_text(json.dumps(meta, indent=2, ensure_ascii=False) + "\n")
    with pytest.raises(DataError, match="--process-data"):
        load_processed(SYMBOL, folder)


def test_an_account_that_is_a_pipe_is_not_waited_for(raw, folder):
    process(SYMBOL, raw, INDEX, folder)
    (folder / f"{SYMBOL}.json").unlink()
    os.mkfifo(folder / f"{SYMBOL}.json")
    with pytest.raises(DataError, match="cannot be read"):
        load_processed(SYMBOL, folder)
