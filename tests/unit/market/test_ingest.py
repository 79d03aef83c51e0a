"""Raw files: every way of writing bars that is read, and every fault that is refused, dropped or reported."""

from __future__ import annotations

import gzip
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rl.common.errors import DataError
from rl.market import raw_table
from rl.market.ingest import IngestResult, discover, read_raw
from tests.builders import an_instrument

HEADER = "datetime,open,high,low,close"
GOOD = "10,12,9,11"
"""A bar without fault: open, high, low, close."""


def a_stock(**changes: Any):
    """Return a US share, whose file names its dates or New York's clock."""
    return an_instrument(
        **{"asset_class": "stock", "calendar": "NYSE", "currency": "USD", "name": "SHARE"} | changes
    )


def a_coin(**changes: Any):
    """Return a market that never closes, on UTC."""
    return an_instrument(
        **{"asset_class": "crypto", "calendar": "CRYPTO", "currency": "USD", "name": "COIN"} | changes
    )


def written(folder: Path, *lines: str, name: str = "X_15.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def rows(*times: str, bar: str = GOOD) -> list[str]:
    return [f"{time},{bar}" for time in times]


def read(path: Path, instrument=None) -> IngestResult:
    symbol = path.name.removesuffix(".gz").removesuffix(".csv").removesuffix(".parquet")
    return read_raw(path, symbol, instrument or an_instrument())


def refused(path: Path, instrument=None) -> str:
    with pytest.raises(DataError) as caught:
        read(path, instrument)
    return str(caught.value)


def utc(text: str) -> int:
    return int(np.datetime64(text, "ns").astype(np.int64))


def close_times(result: IngestResult) -> list[str]:
    return [str(time) for time in result.bars.close_time.astype("datetime64[ns]").astype("datetime64[s]")]


MONDAY = ("2024-01-01 09:15:00", "2024-01-01 09:30:00", "2024-01-01 09:45:00")


# --- finding files ------------------------------------------------------------------------------------------


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: there is no such folder\. Put bar files"):
        discover(tmp_path / "nowhere")


def test_files_are_found_by_symbol_in_every_sub_folder_but_as_found_and_hidden_ones(tmp_path):
    for name in ("Nifty_5.csv", "stocks/BHP.AX.csv.gz", "crypto/BTC-USD.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("as_found/OLD.csv", ".cache/A.csv", "stocks/.B.csv", "notes.txt", "prices.csv.bak"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert discover(tmp_path) == {
        "BHP.AX": tmp_path / "stocks/BHP.AX.csv.gz",
        "BTC-USD": tmp_path / "crypto/BTC-USD.parquet",
        "Nifty_5": tmp_path / "Nifty_5.csv",
    }


def test_two_files_of_one_symbol_are_refused_by_name(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "SPY.csv").touch()
    (tmp_path / "SPY.parquet").touch()
    with pytest.raises(DataError) as caught:
        discover(tmp_path)
    assert str(tmp_path / "a" / "SPY.csv") in str(caught.value)
    assert str(tmp_path / "SPY.parquet") in str(caught.value)


def test_a_file_whose_name_cannot_be_a_symbol_is_refused(tmp_path):
    (tmp_path / "Copy of SPY.csv").touch()
    with pytest.raises(DataError, match=r"Copy of SPY\.csv: 'Copy of SPY' cannot be a symbol"):
        discover(tmp_path)


def test_a_linked_folder_is_searched_once_however_its_links_lead(tmp_path):
    """It used to be passed over, and its symbols were missing without a word."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "SPY.csv").touch()
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "etfs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "raw" / "funds").symlink_to(tmp_path / "elsewhere")
    assert discover(tmp_path / "raw") == {"SPY": tmp_path / "raw" / "etfs" / "SPY.csv"}


def test_a_folder_that_is_named_like_a_bar_file_is_told(tmp_path):
    (tmp_path / "SPY.parquet").mkdir()
    (tmp_path / "SPY.parquet" / "part-0.parquet").touch()
    with pytest.raises(
        DataError, match=r"SPY\.parquet: is a folder, but is named like a bar file\. Rename it\."
    ):
        discover(tmp_path)


def test_a_folder_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    """It used to be passed over; a superuser may read everything, so the refusal is put in by hand."""
    (tmp_path / "stocks").mkdir()
    scan = os.scandir

    def refusing(folder):
        if str(folder).endswith("stocks"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    problems = {}
    assert discover(tmp_path, problems.__setitem__) == {}
    assert "stocks: cannot be read (Permission denied). Give this user the right" in str(problems["stocks"])


# --- files that hold no bars --------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    assert "there is no such file" in refused(tmp_path / "X_15.csv")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf\n"])
def test_an_empty_file_is_refused(tmp_path, content):
    path = tmp_path / "X_15.csv"
    path.write_bytes(content)
    assert "the file is empty" in refused(path)


def test_a_header_without_bars_is_refused(tmp_path):
    assert "has a header but no bars" in refused(written(tmp_path, HEADER))


def test_a_damaged_archive_is_refused(tmp_path):
    path = tmp_path / "X_15.csv.gz"
    path.write_bytes(gzip.compress("\n".join([HEADER, *rows(*MONDAY)]).encode())[:-12])
    assert "cannot be read (" in refused(path)
    path.write_bytes(b"not an archive")
    assert "cannot be read (" in refused(path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    path = tmp_path / "X_15.parquet"
    path.write_bytes(b"PAR1 nothing of the kind")
    assert "Export it again" in refused(path) or "cannot be read" in refused(path)


def test_text_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "X_15.csv"
    path.write_bytes(f"{HEADER}\n2024-01-01 09:15:00,10,12,9,11\xa0\n".encode("latin-1"))
    assert "is not UTF-8 text" in refused(path)


def test_missing_columns_are_named_beside_those_found(tmp_path):
    message = refused(written(tmp_path, "timestamp,ltp,volume", "2024-01-01 09:15:00,10,0"))
    assert "no column for open, high, low, close. Found: timestamp, ltp, volume." in message
    assert message.endswith("are optional. Rename the columns.")


def test_a_missing_time_column_is_named(tmp_path):
    message = refused(written(tmp_path, "open,high,low,close", GOOD))
    assert "no column for a time (datetime, timestamp, date, …)." in message


def test_an_adjusted_close_is_not_taken_for_the_close(tmp_path):
    message = refused(written(tmp_path, "Date,Open,High,Low,Adj Close", f"2024-01-01,{GOOD}", name="X.csv"))
    assert "no column for close" in message
    assert "An adjusted close is not the close" in message


def test_a_file_without_a_header_is_told_to_get_one(tmp_path):
    message = refused(written(tmp_path, *rows(*MONDAY)))
    assert "The first line looks like a bar; put a header line above it." in message
    assert "Rename" not in message


def test_a_title_above_the_header_is_told_to_go(tmp_path):
    message = refused(written(tmp_path, "https://example.org/data", HEADER, *rows(*MONDAY)))
    assert "Line 2 looks like the header; remove the lines above it." in message
    assert "Rename" not in message


def test_two_columns_for_one_price_are_refused(tmp_path):
    message = refused(written(tmp_path, f"{HEADER},Close", *[f"{row},11" for row in rows(*MONDAY)]))
    assert "'close' and 'Close' both say close" in message


def test_a_line_with_too_many_fields_is_refused_with_its_number(tmp_path):
    message = refused(written(tmp_path, HEADER, *rows(*MONDAY[:2]), f"{MONDAY[2]},{GOOD},7,8"))
    assert "X_15.csv, row 4 (2024-01-01 09:45:00): has 7 fields, but the header has 5; a number" in message


def test_a_separator_inside_quotes_or_at_the_end_of_a_line_is_no_field(tmp_path):
    lines = [f"{HEADER},name", *[f'{row},"a,b",' for row in rows(*MONDAY)]]
    assert len(read(written(tmp_path, *lines)).bars) == 3


def test_a_parquet_file_of_more_rows_than_memory_holds_is_refused_before_it_is_unpacked(
    tmp_path, monkeypatch
):
    path = tmp_path / "X_15.parquet"
    pd.DataFrame(
        {"datetime": list(MONDAY), "open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0}
    ).to_parquet(path)
    monkeypatch.setattr(raw_table, "LARGEST_ROW_COUNT", 2)
    assert "holds 3 rows in" in refused(path)
    assert "Split the file." in refused(path)


# --- columns ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "datetime,open,high,low,close",
        "DATE,OPEN,HIGH,LOW,CLOSE",
        "date,1. open,2. high,3. low,4. close",
        "Timestamp, Open ,High,Low,Close",
        "<DATE>,<OPEN>,<HIGH>,<LOW>,<CLOSE>",
        "﻿Date,Open Price,High Price,Low Price,Close Price",
        "time,o,h,l,c",
    ],
)
def test_columns_are_found_by_name_in_any_case_and_by_common_aliases(tmp_path, header):
    bars = read(written(tmp_path, header, *rows(*MONDAY))).bars
    assert (bars.open[0], bars.high[0], bars.low[0], bars.close[0]) == (10, 12, 9, 11)
    assert bars.label.tolist() == list(MONDAY)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_columns_may_be_separated_by_other_characters(tmp_path, separator):
    lines = [line.replace(",", separator) for line in [HEADER, *rows(*MONDAY)]]
    assert len(read(written(tmp_path, *lines)).bars) == 3


def test_date_and_time_may_stand_in_two_columns(tmp_path):
    lines = ["Instrument,Date,Time,Open,High,Low,Close"]
    lines += [f"NIFTY,20240101,09:{minute},{GOOD}" for minute in (15, 30, 45)]
    bars = read(written(tmp_path, *lines)).bars
    assert bars.close_time[0] == utc("2024-01-01T04:00")  # 09:30 in Kolkata
    assert bars.label[0] == "20240101 09:15"


def test_row_numbers_are_ignored_and_unknown_columns_are_ignored_and_named(tmp_path):
    lines = [",datetime,open,high,low,close,oi,Dividends"]
    lines += [f"{number},{time},{GOOD},5,0" for number, time in enumerate(MONDAY)]
    result = read(written(tmp_path, *lines))
    assert result.notes == ["2 columns not used: oi, Dividends"]
    assert result.bars.extra == {}


def test_the_close_is_the_close_where_an_adjusted_one_stands_beside_it(tmp_path):
    lines = ["Date,Open,High,Low,Adj Close,Close", "2024-01-02,10,12,9,5,11", "2024-01-03,10,12,9,5,11"]
    assert read(written(tmp_path, *lines, name="SHARE.csv"), a_stock()).bars.close.tolist() == [11, 11]


def test_users_columns_go_along_in_lower_case(tmp_path):
    lines = [f"{HEADER},X_Mood", *[f"{row},0.5" for row in rows(*MONDAY)]]
    bars = read(written(tmp_path, *lines)).bars
    assert bars.extra["x_mood"].tolist() == [0.5, 0.5, 0.5]
    assert bars.extra["x_mood"].dtype == np.float64


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("x_a\x1b[2Jb", "holds characters that are not seen"),
        ("x_\u202eb", "holds characters that are not seen"),
        ("x_\x9b2J", "holds characters that are not seen"),
        ("x_" + 199 * "a", "has a name of 201 characters, and at most 200 are read"),
    ],
)
def test_a_users_column_that_no_model_could_name_is_refused_before_anything_is_trained(tmp_path, name, says):
    """It was trained on, and refused when the first model was to be written."""
    lines = [f"{HEADER},{name}", *[f"{row},1" for row in rows(*MONDAY)]]
    message = refused(written(tmp_path, *lines))
    assert ", row 1: " in message
    assert says in message
    assert "Rename the column" in message


def test_a_hole_in_a_users_column_is_refused(tmp_path):
    message = refused(written(tmp_path, f"{HEADER},x_a", f"{MONDAY[0]},{GOOD},1", f"{MONDAY[1]},{GOOD},"))
    assert "row 3 (2024-01-01 09:30:00): x_a nan is missing or not finite" in message


@pytest.mark.parametrize("column", ["volume", "Volume", "tick_volume", "<TICKVOL>", "5. volume"])
def test_a_volume_is_read_under_common_names(tmp_path, column):
    lines = [f"{HEADER},{column}", *[f"{row},{n}" for n, row in enumerate(rows(*MONDAY))]]
    volume = read(written(tmp_path, *lines)).bars.volume
    assert volume is not None
    assert volume.tolist() == [0, 1, 2]


def test_a_volume_that_is_always_zero_is_none(tmp_path):
    result = read(written(tmp_path, f"{HEADER},volume", *[f"{row},0" for row in rows(*MONDAY)]))
    assert result.bars.volume is None
    assert any("volume is not used" in note for note in result.notes)


def test_a_volume_missing_somewhere_is_left_out_everywhere_and_reported(tmp_path):
    lines = [f"{HEADER},volume", f"{MONDAY[0]},{GOOD},5", f"{MONDAY[1]},{GOOD},", f"{MONDAY[2]},{GOOD},7"]
    result = read(written(tmp_path, *lines))
    assert result.bars.volume is None
    assert result.counts["missing_volume"] == 1
    dropped = read(written(tmp_path, *lines), an_instrument(checks={"missing_volume": "drop"}))
    assert dropped.bars.volume is not None
    assert dropped.bars.volume.tolist() == [5, 7]


def test_prices_are_read_to_the_last_bit(tmp_path):
    price = 0.1 + 0.2
    bar = f"{price!r},{price!r},{price!r},{price!r}"
    assert read(written(tmp_path, HEADER, *rows(*MONDAY, bar=bar))).bars.open[0] == price


def test_an_archive_and_a_parquet_file_give_the_same_bars_as_the_text(tmp_path):
    lines = [f"{HEADER},volume,x_a", *[f"{row},3,0.25" for row in rows(*MONDAY)]]
    text = read(written(tmp_path, *lines)).bars
    archive = tmp_path / "X_15.csv.gz"
    archive.write_bytes(gzip.compress((tmp_path / "X_15.csv").read_bytes()))
    table = tmp_path / "X_15.parquet"
    frame = pd.read_csv(tmp_path / "X_15.csv", parse_dates=["datetime"])
    frame.to_parquet(table)
    for path in (archive, table):
        bars = read(path).bars
        for name in (
            "open",
            "high",
            "low",
            "close",
            "close_time",
            "session",
            "session_end",
            "volume",
            "label",
        ):
            np.testing.assert_array_equal(getattr(bars, name), getattr(text, name), err_msg=f"{path} {name}")
        assert bars.extra["x_a"].tolist() == [0.25] * 3


def test_a_parquet_file_may_keep_its_times_in_the_index(tmp_path):
    index = pd.DatetimeIndex(MONDAY, tz="Asia/Kolkata", name="when")
    frame = pd.DataFrame({"Open": 10.0, "High": 12.0, "Low": 9.0, "Close": 11.0}, index=index.rename(None))
    frame.to_parquet(tmp_path / "X_15.parquet")
    bars = read(tmp_path / "X_15.parquet").bars
    assert bars.close_time[0] == utc("2024-01-01T04:00")
    assert bars.label[0] == "2024-01-01 09:15:00+05:30"


# --- times --------------------------------------------------------------------------------------------------


def test_intraday_times_without_an_offset_are_the_markets_own_clock(tmp_path):
    assert close_times(read(written(tmp_path, HEADER, *rows(*MONDAY))))[0] == "2024-01-01T04:00:00"


def test_the_zone_of_times_without_an_offset_can_be_given(tmp_path):
    path = written(tmp_path, HEADER, *rows("2024-01-01 03:45:00", "2024-01-01 04:00:00"))
    assert close_times(read(path, an_instrument(label_timezone="UTC")))[0] == "2024-01-01T04:00:00"


def test_a_column_that_says_utc_is_utc(tmp_path):
    lines = ["date_utc,open,high,low,close", *rows("2024-01-01 03:45:00", "2024-01-01 04:00:00")]
    assert close_times(read(written(tmp_path, *lines)))[0] == "2024-01-01T04:00:00"


@pytest.mark.parametrize(
    "label",
    [
        "2024-01-01 03:45:00Z",
        "2024-01-01T03:45Z",
        "2024-01-01 03:45:00+00:00",
        "2024-01-01 03:45:00 UTC",
        "2024-01-01 09:15:00+05:30",
        "2024-01-01 09:15:00+0530",
        "2023-12-31 22:45:00-05",
        "2024-01-01 03:45:00.000000+00:00",
        "1704080700",
        "1704080700.0",
        "1704080700000",
        "1704080700000000",
        "1704080700000000000",
        "2024.01.01 09:15",
        "2024/1/1 9:15",
        "20240101091500",
        "20240101 09:15",
        "2024-01-01T09:15",
    ],
)
def test_one_instant_may_be_written_in_many_ways(tmp_path, label):
    path = written(tmp_path, HEADER, *rows(label))
    bars = read(path).bars
    assert bars.close_time[0] == utc("2024-01-01T04:00")
    assert bars.label[0] == label


def test_seconds_and_milliseconds_may_stand_in_one_column(tmp_path):
    """An exchange's history changed its unit half way; reading one as the other lands in 1970."""
    lines = ["unix,open,high,low,close", *rows("1704067200.0", "1704070800000", "1704074400000")]
    bars = read(written(tmp_path, *lines, name="COIN.csv"), a_coin()).bars
    assert bars.bar_seconds == 3600
    assert np.diff(bars.close_time).tolist() == [3600 * 10**9] * 2


@pytest.mark.parametrize(("label", "hour"), [("12-AM", 0), ("01-AM", 1), ("12-PM", 12), ("11-PM", 23)])
def test_an_hour_with_am_or_pm_is_read(tmp_path, label, hour):
    path = written(tmp_path, HEADER, *rows(f"2017-08-17 {label}"), name="COIN_60.csv")
    assert read(path, a_coin()).bars.close_time[0] == utc(f"2017-08-17T{hour:02}") + 3600 * 10**9


def test_two_columns_for_the_time_have_to_agree(tmp_path):
    """In a real file they are four hours apart in 91 of 36,062 rows, and nothing said so."""
    seconds = [1704067200 + 3600 * k for k in range(30)]
    texts = [str(pd.Timestamp(second, unit="s")) for second in seconds]
    texts[20] = "2024-01-01 04-PM"
    lines = [f"{second},{text},{GOOD}" for second, text in zip(seconds, texts, strict=True)]
    path = written(tmp_path, "unix,date,open,high,low,close", *lines, name="COIN_60.csv")
    message = refused(path, a_coin())
    assert (
        f"row 22 ({seconds[20]}): another column says '2024-01-01 04-PM', 4 h off from most rows" in message
    )
    assert len(read(path, a_coin(checks={"time_columns": "drop"})).bars) == 29
    assert len(read(path, a_coin(checks={"time_columns": "warn"})).bars) == 30


def test_a_second_column_for_the_time_may_be_of_another_clock_or_hold_dates_only(tmp_path):
    seconds = [1711756800 + 3600 * k for k in range(48)]  # British clocks go forward on 2024-03-31 at 01:00
    there = [pd.Timestamp(second, unit="s", tz="UTC").tz_convert("Europe/London") for second in seconds]
    for pattern in ("%Y-%m-%d %H:%M", "%Y-%m-%d"):
        lines = [f"{second},{time:{pattern}},{GOOD}" for second, time in zip(seconds, there, strict=True)]
        path = written(tmp_path, "unix,date,open,high,low,close", *lines, name="COIN_60.csv")
        assert "time_columns" not in read(path, a_coin()).counts


def test_nanoseconds_keep_their_last_digit(tmp_path):
    path = written(tmp_path, HEADER, *rows("1704067200000000001"), name="COIN_1.csv")
    assert read(path, a_coin()).bars.close_time[0] == 1704067200000000001 + 60 * 10**9


@pytest.mark.parametrize(
    "label",
    [
        "01-02-2024 09:15",
        "13/01/2024",
        "7",
        "soon",
        "",
        "2024-13-01 09:15",
        "2017-08-17 00-AM",
        "2017-08-17 13-PM",
        "9999-12-31",
        "99999999999",
    ],
)
def test_what_is_no_time_for_certain_is_refused_with_its_row(tmp_path, label):
    message = refused(written(tmp_path, HEADER, *rows(MONDAY[0], label)))
    assert f"X_15.csv, row 3 ({label}): '{label}' is no time." in message
    assert "set checks: {unparseable_time: drop} for TEST" in message


def test_twelve_digits_are_a_written_time_and_not_milliseconds_of_1976(tmp_path):
    lines = ["time,open,high,low,close", *rows("202401010915", "202401010930", "202401010945")]
    assert close_times(read(written(tmp_path, *lines)))[0] == "2024-01-01T04:00:00"
    message = refused(written(tmp_path, HEADER, *rows("202401010915", "202401019930")))
    assert "'202401019930' is no time" in message


@pytest.mark.parametrize(("first", "step"), [(1501020900, 1), (2024010200, 1)])
def test_ten_digits_that_may_be_a_written_time_or_seconds_are_refused(tmp_path, first, step):
    """YYMMDDhhmm or YYYYMMDDhh: as seconds they were bars of one second in 2017 or 2034."""
    labels = [str(first + step * k) for k in range(12)]
    message = refused(written(tmp_path, HEADER, *rows(*labels), name="COIN.csv"), a_coin())
    assert f"row 2 ({first}): '{first}' may be a written time or a count of seconds" in message


def test_seconds_since_1970_are_no_written_times_where_one_of_them_cannot_be(tmp_path):
    labels = [str(1501020900 + 60 * k) for k in range(12)]
    assert read(written(tmp_path, HEADER, *rows(*labels), name="COIN.csv"), a_coin()).bars.bar_seconds == 60


@pytest.mark.parametrize("label", ["2024", "2024-01", "202401", "2024-01 09:15"])
def test_a_time_without_a_day_is_none(tmp_path, label):
    """ISO text may leave out the day, and the first of the month is then made up."""
    assert f"'{label}' is no time" in refused(written(tmp_path, HEADER, *rows(MONDAY[0], label)))


@pytest.mark.parametrize("offset", ["+99:99", "+15:00", "-05:75"])
def test_an_offset_that_no_clock_has_is_no_time(tmp_path, offset):
    label = f"2024-01-01 09:30:00{offset}"
    assert f"'{label}' is no time" in refused(written(tmp_path, HEADER, *rows(f"{MONDAY[0]}+05:30", label)))


def test_a_time_that_says_no_offset_among_others_that_do_is_refused(tmp_path):
    labels = [f"{MONDAY[0]}+05:30", f"{MONDAY[1]}+05:30", MONDAY[2]]
    message = refused(written(tmp_path, HEADER, *rows(*labels)))
    assert f"row 4 ({MONDAY[2]}): says no offset from UTC, unlike most rows" in message
    labels = [MONDAY[0], MONDAY[1], f"{MONDAY[2]}+05:30"]
    message = refused(written(tmp_path, HEADER, *rows(*labels)))
    assert "row 4" in message
    assert "says its offset from UTC, unlike most rows, which would be read as Asia/Kolkata" in message


def test_what_is_caught_twice_by_one_check_is_counted_twice(tmp_path):
    labels = [*(f"{time}+05:30" for time in MONDAY), "soon", "2024-01-01 10:00:00"]
    result = read(
        written(tmp_path, HEADER, *rows(*labels)), an_instrument(checks={"unparseable_time": "drop"})
    )
    assert result.counts == {"rows": 5, "bars": 3, "unparseable_time": 2}


def test_a_time_that_the_clock_shows_twice_is_refused(tmp_path):
    # New York put its clocks back at 02:00 on 2024-11-03.
    instrument = a_coin(label_timezone="America/New_York")
    path = written(
        tmp_path, HEADER, *rows("2024-11-03 00:30", "2024-11-03 01:30", "2024-11-03 02:30"), name="C_60.csv"
    )
    assert "row 3 (2024-11-03 01:30): the clock in America/New_York is put forward or back" in refused(
        path, instrument
    )


def test_the_date_of_a_daily_bar_is_the_date_as_written_whatever_its_offset(tmp_path):
    # British summer time: 00:00+01:00 is the evening before in UTC, and still the bar of the 2nd.
    lines = ["Date,Open,High,Low,Close"]
    lines += [
        f"2024-0{month} 00:00:00+0{hour}:00,{GOOD}" for month, hour in (("3-28", 0), ("3-29", 0), ("4-02", 1))
    ]
    bars = read(written(tmp_path, *lines, name="EURUSD=X.csv"), a_stock()).bars
    days = bars.close_time.astype("datetime64[ns]").astype("datetime64[D]").astype(str).tolist()
    assert days == ["2024-03-28", "2024-03-29", "2024-04-02"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1704153600, 1704240000),  # 2024-01-02 and -03, 00:00 UTC
        (1704171600, 1704258000),  # the same days, 00:00 in New York
        (1704205800, 1704292200),  # the same days, the open in New York
    ],
)
def test_a_daily_count_of_seconds_means_the_same_date_at_utc_midnight_and_at_the_local_one(
    tmp_path, first, second
):
    path = written(tmp_path, HEADER, *rows(str(first), str(second)), name="SHARE.csv")
    assert close_times(read(path, a_stock())) == ["2024-01-02T21:00:00", "2024-01-03T21:00:00"]


def test_a_daily_count_of_seconds_at_midnight_in_india_is_not_the_day_before(tmp_path):
    # 00:00 in Kolkata is 18:30 UTC of the evening before: 2024-01-01 and -02 there.
    path = written(tmp_path, HEADER, *rows("1704047400", "1704133800"), name="X.csv")
    assert close_times(read(path)) == ["2024-01-01T10:00:00", "2024-01-02T10:00:00"]


def test_daily_bars_close_when_their_market_does(tmp_path):
    path = written(tmp_path, HEADER, *rows("2024-01-02", "2024-07-02"), name="SHARE_1440.csv")
    result = read(path, a_stock())
    assert close_times(result) == ["2024-01-02T21:00:00", "2024-07-02T20:00:00"]
    assert result.bars.is_daily
    assert result.bars.session.tolist() == [0, 1]
    assert result.bars.session_end.all()


def test_the_length_of_bars_without_minutes_in_their_name_is_the_most_frequent_spacing(tmp_path):
    times = ["2024-01-01 00:00", "2024-01-01 01:00", "2024-01-01 02:00", "2024-01-01 05:00"]
    bars = read(written(tmp_path, HEADER, *rows(*times), name="BTC_USD-Hourly.csv"), a_coin()).bars
    assert bars.bar_seconds == 3600


def test_one_bar_without_minutes_in_its_name_is_refused(tmp_path):
    message = refused(written(tmp_path, HEADER, *rows(MONDAY[0]), name="SPY.csv"))
    assert "has one bar, so the length of its bars cannot be told" in message


def test_ticks_are_refused(tmp_path):
    path = written(tmp_path, HEADER, *rows("2024-01-01 00:00:00.1", "2024-01-01 00:00:00.2"), name="T.csv")
    assert "0.1 s apart, so these are ticks" in refused(path, a_coin())


def test_labels_may_name_the_end_of_a_bar(tmp_path):
    times = ("2024-01-01 09:16:00", "2024-01-01 15:30:00")
    path = written(tmp_path, HEADER, *rows(*times), name="X_1.csv")
    bars = read(path, an_instrument(label="end")).bars
    assert bars.close_time.tolist() == [utc("2024-01-01T03:46"), utc("2024-01-01T10:00")]
    assert bars.session_end.tolist() == [False, True]


# --- sessions -----------------------------------------------------------------------------------------------


def test_sessions_and_their_ends_come_from_the_calendar(tmp_path):
    # The first day breaks off at 09:45; only the second reaches 15:30.
    times = ("2024-01-01 09:15", "2024-01-01 09:30", "2024-01-02 15:00", "2024-01-02 15:15")
    result = read(written(tmp_path, HEADER, *rows(*times)))
    assert result.bars.session.tolist() == [0, 0, 1, 1]
    assert result.bars.session_end.tolist() == [False, False, False, True]
    assert result.counts["unfinished_session"] == 1
    assert "1 of 2 sessions without a bar that reaches the close" in result.notes[0]
    assert "ends with 2024-01-01 09:30" in result.notes[0]


def test_a_last_bar_shorter_than_the_others_closes_with_its_session(tmp_path):
    path = written(tmp_path, HEADER, *rows("2024-01-01 15:27", "2024-01-01 15:29"), name="X_2.csv")
    result = read(path)
    assert close_times(result) == ["2024-01-01T09:59:00", "2024-01-01T10:00:00"]
    assert result.bars.session_end.tolist() == [False, True]


def test_a_currency_session_goes_on_across_midnight_and_summer_time(tmp_path):
    # UTC hours around 17:00 in New York: 22:00 before, 21:00 after the change of 2024-03-10.
    times = (
        "2024-03-08 20:00",
        "2024-03-08 21:00",
        "2024-03-10 21:00",
        "2024-03-10 22:00",
        "2024-03-11 00:00",
    )
    instrument = an_instrument(asset_class="forex", calendar="FX", currency="USD", label_timezone="UTC")
    bars = read(written(tmp_path, HEADER, *rows(*times), name="EURUSD_60.csv"), instrument).bars
    assert bars.session.tolist() == [0, 0, 1, 1, 1]
    assert bars.session_end.tolist() == [False, True, False, False, False]


def full_day(day: str, *, minutes: int = 5) -> list[str]:
    start = pd.Timestamp(f"{day} 09:15")
    return [str(start + pd.Timedelta(minutes=minutes * bar)) for bar in range(375 // minutes)]


def test_a_few_prints_outside_the_session_are_dropped_and_counted(tmp_path):
    times = ["2024-01-01 09:08:00", *full_day("2024-01-01"), "2024-01-01 15:40:00"]
    result = read(written(tmp_path, HEADER, *rows(*times), name="X_5.csv"))
    assert len(result.bars) == 75
    assert (result.counts["rows"], result.counts["bars"], result.counts["outside_session"]) == (77, 75, 2)
    assert (
        "dropped 2 rows, for example row 2 (2024-01-01 09:08:00): outside 09:15 to 15:30" in result.notes[0]
    )


def test_prints_outside_the_session_can_be_refused_or_kept(tmp_path):
    times = [*full_day("2024-01-01"), "2024-01-01 15:40:00"]
    path = written(tmp_path, HEADER, *rows(*times), name="X_5.csv")
    assert "row 77 (2024-01-01 15:40:00): outside" in refused(
        path, an_instrument(checks={"outside_session": "error"})
    )
    bars = read(path, an_instrument(checks={"outside_session": "warn"})).bars
    assert len(bars) == 76
    # The session ended with the bar before.
    assert bars.session_end[-2:].tolist() == [True, False]


def test_a_file_in_another_time_zone_is_refused_instead_of_losing_most_of_its_bars(tmp_path):
    # A whole day in UTC: 03:45 to 10:00. Read as Kolkata's clock, only 09:15 to 10:00 would be left.
    start = pd.Timestamp("2024-01-01 03:45")
    times = [str(start + pd.Timedelta(minutes=15 * bar)) for bar in range(25)]
    message = refused(written(tmp_path, HEADER, *rows(*times)))
    assert "22 of 25 bars (88.0%) lie outside the hours of NSE" in message
    assert "times without an offset were read as Asia/Kolkata" in message
    # Mostly a file of another kind that nothing says so of: it was taken for a stock.
    assert "by asset_class or by a folder such as crypto" in message
    assert "set label_timezone" in message


# --- order --------------------------------------------------------------------------------------------------


def test_a_file_that_is_newest_first_throughout_is_reversed_and_says_so(tmp_path):
    lines = [HEADER, f"{MONDAY[2]},3,3,3,3", f"{MONDAY[1]},2,2,2,2", f"{MONDAY[0]},1,1,1,1"]
    result = read(written(tmp_path, *lines))
    assert result.bars.close.tolist() == [1, 2, 3]
    assert result.bars.label.tolist() == list(MONDAY)
    assert "rows were newest first; the whole file was reversed" in result.notes


def test_a_time_that_goes_back_is_refused_with_its_row(tmp_path):
    message = refused(written(tmp_path, HEADER, *rows(MONDAY[0], MONDAY[2], MONDAY[1])))
    assert "X_15.csv, row 4 (2024-01-01 09:30:00): is earlier than a row before, row 3" in message
    assert "Sort the file by time, or set checks: {backward_time: drop} for TEST" in message


def test_rows_that_go_back_can_be_dropped(tmp_path):
    path = written(tmp_path, HEADER, *rows(MONDAY[0], MONDAY[2], MONDAY[1]))
    result = read(path, an_instrument(checks={"backward_time": "drop"}))
    assert result.bars.label.tolist() == [MONDAY[0], MONDAY[2]]
    assert result.counts["backward_time"] == 1


def test_the_row_that_the_later_ones_are_earlier_than_is_named(tmp_path):
    times = full_day("2024-01-01", minutes=15)[:12]
    times[3] = "2024-01-01 14:00:00"
    message = refused(written(tmp_path, HEADER, *rows(*times)))
    assert "row 7 (2024-01-01 10:30:00): is earlier than a row before, row 5 (2024-01-01 14:00:00)" in message


def test_one_time_mistyped_into_the_future_does_not_cost_the_rows_after_it(tmp_path):
    times = full_day("2024-01-01")
    times[3] = "2025-01-01 09:30:00"
    message = refused(
        written(tmp_path, HEADER, *rows(*times), name="X_5.csv"),
        an_instrument(checks={"backward_time": "drop"}),
    )
    assert (
        "row 5 (2025-01-01 09:30:00): rows after it are earlier, and 71 of 75 rows would be dropped"
        in message
    )


def test_dropping_all_but_one_bar_ends_in_a_message(tmp_path):
    path = written(
        tmp_path, HEADER, *rows("2024-01-02 00:00", "2024-01-01 22:00", "2024-01-01 23:00"), name="C.csv"
    )
    assert "has one bar" in refused(path, a_coin(checks={"backward_time": "drop"}))


@pytest.mark.parametrize("place", [0, -1])
def test_a_bar_years_away_from_all_others_is_refused_with_its_row(tmp_path, place):
    """A mistyped year at either end breaks no order; only a note on a hole told of it."""
    times = full_day("2024-01-01")
    times[place] = times[place].replace("2024", "2013" if place == 0 else "2035")
    path = written(tmp_path, HEADER, *rows(*times), name="X_5.csv")
    message = refused(path)
    row, days = (2, 4017) if place == 0 else (76, 4018)
    assert f"row {row} ({times[place]}): is {days} days away from row" in message
    assert len(read(path, an_instrument(checks={"stray_bars": "warn"})).bars) == 75


def test_a_row_that_repeats_another_in_every_value_is_dropped_and_counted(tmp_path):
    # The whole file occurs twice, as a month of a real one does.
    result = read(written(tmp_path, HEADER, *rows(*MONDAY), *rows(*MONDAY)))
    assert result.bars.label.tolist() == list(MONDAY)
    assert result.counts["identical_duplicate"] == 3


def test_two_different_bars_of_one_time_are_refused(tmp_path):
    lines = [HEADER, *rows(*MONDAY[:2]), f"{MONDAY[1]},10,12,9,10.5"]
    message = refused(written(tmp_path, *lines))
    assert "row 4 (2024-01-01 09:30:00): repeats the time of row 3" in message
    assert "with close 10.5 instead of 11.0" in message
    assert "set checks: {duplicate_time: drop}" in message


def test_of_two_different_bars_of_one_time_the_first_can_be_kept(tmp_path):
    lines = [HEADER, *rows(*MONDAY[:2]), f"{MONDAY[1]},10,12,9,10.5", *rows(MONDAY[2])]
    result = read(written(tmp_path, *lines), an_instrument(checks={"duplicate_time": "drop"}))
    assert result.bars.close.tolist() == [11, 11, 11]
    assert result.counts["duplicate_time"] == 1


def test_two_bars_of_one_date_are_a_duplicate_though_their_hours_differ(tmp_path):
    lines = ["Date,Open,High,Low,Close", "2024-01-02,1,1,1,1", "2024-01-03 00:00:00-05:00,2,2,2,2"]
    lines += ["2024-01-04 00:00:00-05:00,2,2,2,2", "2024-01-04 16:00:00-05:00,3,3,3,3"]
    message = refused(written(tmp_path, *lines, name="SHARE.csv"), a_stock())
    assert "repeats the time of row 4" in message


def test_a_file_with_several_symbols_is_refused(tmp_path):
    lines = [f"symbol,{HEADER}", *[f"{name},{row}" for name, row in zip("AAB", rows(*MONDAY), strict=True)]]
    assert "holds 2 symbols: A (first in row 2), B (first in row 4)." in refused(written(tmp_path, *lines))


# --- bar length ---------------------------------------------------------------------------------------------


def test_bars_of_another_length_than_the_name_says_are_refused(tmp_path):
    times = [f"2024-01-01 09:{minute}:00" for minute in range(15, 25)]
    message = refused(written(tmp_path, HEADER, *rows(*times)))
    assert "most bars (9 of 9) are 1 min apart, but the name X_15 says 15 min" in message


def test_daily_bars_under_an_intraday_name_are_refused(tmp_path):
    times = [f"2024-01-{day:02} 09:15" for day in range(1, 13)]
    message = refused(written(tmp_path, HEADER, *rows(*times)))
    assert "most bars (11 of 11) are 1 day apart, but the name X_15 says 15 min" in message


def test_a_few_missing_bars_in_a_short_file_do_not_make_another_bar_length(tmp_path):
    result = read(written(tmp_path, HEADER, *rows(MONDAY[0], MONDAY[2])))
    assert result.bars.bar_seconds == 900
    assert result.counts["hole"] == 1


def test_weekly_bars_are_refused(tmp_path):
    mondays = pd.date_range("2024-01-01", periods=11, freq="7D").strftime("%Y-%m-%d")
    path = written(tmp_path, HEADER, *rows(*mondays), name="SHARE.csv")
    assert "bars are 7 days apart, which is not daily" in refused(path, a_stock())


def test_one_long_bar_a_session_is_no_fault_of_spacing(tmp_path):
    # 375 minutes from 09:15 to 15:30.
    path = written(tmp_path, HEADER, *rows("2024-01-01 09:15", "2024-01-02 09:15"), name="X_375.csv")
    assert read(path).bars.session_end.all()


def test_a_bar_that_begins_before_the_last_has_ended_is_refused_or_dropped(tmp_path):
    times = ("2024-01-01 09:15", "2024-01-01 09:30", "2024-01-01 09:40", "2024-01-01 09:45")
    path = written(tmp_path, HEADER, *rows(*times))
    assert "row 4 (2024-01-01 09:40): begins before the bar before it has ended" in refused(path)
    kept = read(path, an_instrument(checks={"overlap": "drop"})).bars
    assert kept.label.tolist() == [times[0], times[1], times[3]]


# --- prices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bar", "says"),
    [
        ("10,12,10.5,11", "low 10.5 is above open 10.0"),
        ("11,12,10.5,10", "low 10.5 is above close 10.0"),
        ("10,9.5,9,9.2", "high 9.5 is below open 10.0"),
        ("10,10.5,9,11", "high 10.5 is below close 11.0"),
        ("10,9,12,11", "low 12.0 is above open 10.0"),
    ],
)
def test_a_bar_that_contradicts_itself_is_refused_with_its_values_and_the_remedy(tmp_path, bar, says):
    path = written(tmp_path, HEADER, *rows(*MONDAY[:2]), f"{MONDAY[2]},{bar}")
    message = refused(path)
    assert message == (
        f"{path}, row 4 (2024-01-01 09:45:00): {says}.\n"
        "  A bar needs low <= open, close <= high. Correct the rows, or set checks: {ohlc: drop} for TEST"
        " in an instruments file passed with --instruments."
    )


def test_bars_that_contradict_themselves_can_be_dropped_and_are_counted(tmp_path):
    path = written(tmp_path, HEADER, *rows(*MONDAY[:2]), f"{MONDAY[2]},10,12,10.5,11")
    result = read(path, an_instrument(checks={"ohlc": "drop"}))
    assert len(result.bars) == 2
    assert result.counts == {"rows": 3, "bars": 2, "ohlc": 1}
    assert result.notes[0].startswith(
        "ohlc: dropped 1 row, for example row 4 (2024-01-01 09:45:00): low 10.5"
    )


def test_a_high_below_the_close_by_rounding_only_is_kept_and_reported(tmp_path):
    # As adjusted prices come: the sixteenth digit differs.
    bar = "29.0,29.22210884094238,28.9,29.222108840942383"
    result = read(written(tmp_path, HEADER, *rows(*MONDAY, bar=bar)))
    assert result.counts["ohlc_rounding"] == 3
    assert "ohlc" not in result.counts
    assert result.bars.high[0] == 29.22210884094238  # as written
    message = refused(
        written(tmp_path, HEADER, *rows(*MONDAY, bar=bar)), an_instrument(checks={"ohlc_rounding": "error"})
    )
    assert "is below close" in message


def test_text_in_a_price_column_is_refused_with_its_row_and_words(tmp_path):
    """One such cell turns the whole column to text when read without care."""
    message = refused(written(tmp_path, HEADER, *rows(MONDAY[0]), f"{MONDAY[1]},10,12,9,closed"))
    assert "row 3 (2024-01-01 09:30:00): close is the text 'closed'" in message


def test_a_thousands_separator_is_refused(tmp_path):
    message = refused(written(tmp_path, HEADER, f'{MONDAY[0]},"1,000.5","1,001",999,"1,000"'))
    assert "open is the text '1,000.5'" in message


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "null", "inf", "-inf", "N/A"])
def test_a_price_that_is_missing_or_infinite_is_refused(tmp_path, cell):
    message = refused(written(tmp_path, HEADER, *rows(MONDAY[0]), f"{MONDAY[1]},10,12,9,{cell}"))
    assert "row 3 (2024-01-01 09:30:00): close" in message
    assert "is missing or not finite" in message
    assert "set checks: {missing_value: drop}" in message


@pytest.mark.parametrize("cell", ["0", "-37.63"])
def test_a_price_that_is_not_above_zero_is_refused_unless_the_instrument_says_it_may(tmp_path, cell):
    path = written(tmp_path, HEADER, *rows(MONDAY[0]), f"{MONDAY[1]},{cell},12,-40,11")
    assert f"row 3 (2024-01-01 09:30:00): open {float(cell)} is not above zero" in refused(path)
    assert read(path, an_instrument(price_may_be_negative=True)).bars.open[1] == float(cell)


def test_a_bar_of_nothing_but_zeros_is_refused_also_where_prices_may_be_negative(tmp_path):
    path = written(tmp_path, HEADER, *rows(MONDAY[0]), f"{MONDAY[1]},0,0,0,0")
    message = refused(path, an_instrument(price_may_be_negative=True))
    assert "row 3 (2024-01-01 09:30:00): all four prices are exactly 0" in message


def test_a_negative_volume_is_refused(tmp_path):
    message = refused(
        written(tmp_path, f"{HEADER},volume", f"{MONDAY[0]},{GOOD},5", f"{MONDAY[1]},{GOOD},-1")
    )
    assert "row 3 (2024-01-01 09:30:00): volume is -1.0" in message


def test_text_in_the_volume_is_refused(tmp_path):
    message = refused(written(tmp_path, f"{HEADER},volume", f"{MONDAY[0]},{GOOD},1.2M"))
    assert "volume is the text '1.2M'" in message


def test_only_the_first_few_rows_are_listed_with_the_count_of_all(tmp_path):
    times = full_day("2024-01-01", minutes=15)
    message = refused(written(tmp_path, HEADER, *rows(*times, bar="10,12,10.5,11")))
    assert message.count("is above open") == 3
    assert "and 22 more, 25 in all." in message


def test_lines_that_are_no_rows_are_refused_or_dropped_and_counted(tmp_path):
    lines = [HEADER, *rows(*MONDAY[:2]), HEADER, f"{MONDAY[2]},10,12,9", *rows("2024-01-01 10:00:00")]
    path = written(tmp_path, *lines)
    assert "row 5 (2024-01-01 09:45:00): has 4 fields, but the header has 5" in refused(path)
    result = read(path, an_instrument(checks={"field_count": "drop"}))
    assert result.bars.label.tolist() == [*MONDAY[:2], "2024-01-01 10:00:00"]
    assert (result.counts["repeated_header"], result.counts["field_count"]) == (1, 1)


def test_a_last_line_without_its_end_is_dropped_and_counted_unless_it_is_to_be_kept(tmp_path):
    path = tmp_path / "X_15.csv"
    path.write_text("\n".join([HEADER, *rows(*MONDAY)]))
    result = read(path)
    assert result.bars.label.tolist() == list(MONDAY[:2])
    assert "unfinished_line: dropped 1 row, for example row 4 (2024-01-01 09:45:00)" in result.notes[0]
    assert len(read(path, an_instrument(checks={"unfinished_line": "warn"})).bars) == 3
    assert "Fetch the file again when it is complete" in refused(
        path, an_instrument(checks={"unfinished_line": "error"})
    )


def test_all_faults_of_rows_are_reported_at_once(tmp_path):
    lines = [HEADER, f"{MONDAY[0]},10,12,9,x", f"{MONDAY[1]},10,12,10.5,11", f"{MONDAY[2]},0,12,0,11"]
    message = refused(written(tmp_path, *lines))
    assert f"row 2 ({MONDAY[0]}): close is the text 'x'" in message
    assert f"row 3 ({MONDAY[1]}): low 10.5 is above open 10.0" in message
    assert f"row 4 ({MONDAY[2]}): open 0.0 is not above zero" in message


def test_blank_lines_do_not_shift_the_row_numbers(tmp_path):
    message = refused(written(tmp_path, HEADER, *rows(MONDAY[0]), "", "", f"{MONDAY[1]},10,12,10.5,11"))
    assert "row 5 (2024-01-01 09:30:00)" in message


def test_a_file_of_which_nothing_is_left_is_refused(tmp_path):
    path = written(tmp_path, HEADER, *rows(*MONDAY, bar="10,12,10.5,11"))
    message = refused(path, an_instrument(checks={"ohlc": "drop"}))
    assert "no bar is left. ohlc: dropped 3 rows" in message


# --- the series as a whole ----------------------------------------------------------------------------------


def daily(folder: Path, prices: list[str], first: str = "2024-01-01") -> Path:
    dates = pd.bdate_range(first, periods=len(prices)).strftime("%Y-%m-%d")
    lines = [f"{date},{price}" for date, price in zip(dates, prices, strict=True)]
    return written(folder, HEADER, *lines, name="SHARE.csv")


def wave(count: int, price: float = 100.0) -> list[str]:
    """Return bars that move by one or two per cent and never stand still."""
    closes = [price * (1.0 + 0.01 * (day % 3)) for day in range(count)]
    return [f"{close},{close + 1},{close - 1},{close}" for close in closes]


def test_a_split_is_reported_as_a_jump_with_row_and_ratio(tmp_path):
    result = read(daily(tmp_path, wave(30) + wave(30, price=50.0)), a_stock())
    # Bar 29 closes at 102, bar 30 opens at 50; the header is row 1.
    assert result.counts["jump"] == 1
    assert "row 32 (2024-02-12) open 50 after close 102 (x 0.49)" in result.notes[0]


def test_an_open_far_off_is_a_jump_though_the_close_is_near_again(tmp_path):
    # Bar 29 closes at 102; the next bar opens at 170 and is back at 101 at its close.
    result = read(daily(tmp_path, [*wave(30), "170,171,100,101", *wave(10)]), a_stock())
    assert result.counts["jump"] == 1
    assert "row 32 (2024-02-12) open 170 after close 102 (x 1.67)" in result.notes[0]


def test_a_jump_can_be_refused(tmp_path):
    message = refused(daily(tmp_path, wave(30) + wave(30, price=50.0)), a_stock(checks={"jump": "error"}))
    assert "Adjust the prices for splits, or set checks: {jump: warn} for SHARE" in message


def test_moves_of_a_wild_market_are_not_called_jumps(tmp_path):
    closes = [100.0 if day % 2 else 130.0 for day in range(40)]
    bars = [f"{close},{close},{close - 1},{close}" for close in closes]
    assert "jump" not in read(daily(tmp_path, bars), a_stock()).counts


def test_a_feed_that_stands_still_is_reported(tmp_path):
    still = ["100,101,99,100"] * 10
    result = read(daily(tmp_path, wave(20, price=90.0) + still + wave(20, price=90.0)), a_stock())
    assert result.counts["stale_run"] == 1
    # Twenty bars before: the first still bar is row 22.
    assert "1 run of 10 or more bars without any change, the longest 10 from row 22" in result.notes[0]
    assert "stale_run" not in read(daily(tmp_path, wave(20, price=90.0) + still[:9]), a_stock()).counts


def test_many_bars_with_one_price_only_are_reported(tmp_path):
    bars = [f"{price},{price},{price},{price}" for price in (100.0, 101.0, 102.0, 101.0)]
    assert read(daily(tmp_path, bars), a_stock()).counts["flat_bars"] == 4


def test_missing_bars_inside_a_session_are_counted_and_never_filled(tmp_path):
    times = full_day("2024-01-01")
    result = read(
        written(tmp_path, HEADER, *rows(*times[:10], *times[13:], bar="10,12,9,11"), name="X_5.csv")
    )
    assert len(result.bars) == 72
    hole = next(note for note in result.notes if note.startswith("hole"))
    # Bar 9 starts 45 minutes after 09:15.
    assert (
        hole
        == "hole: 3 bars missing in 1 place inside sessions, the most in a row 3 after 2024-01-01 10:00:00"
    )


def test_bars_missing_around_midnight_are_a_hole_where_trading_never_stops(tmp_path):
    times = ("2024-01-01 22:00", "2024-01-02 02:00", "2024-01-02 03:00")
    result = read(written(tmp_path, HEADER, *rows(*times), name="COIN_60.csv"), a_coin())
    assert result.counts["hole"] == 1
    assert any("3 bars missing in 1 place" in note for note in result.notes)


def test_a_long_silence_is_reported_with_its_length(tmp_path):
    lines = rows("2024-01-02", "2024-01-03", "2024-01-04", "2024-01-22", "2024-01-23", "2024-01-24")
    result = read(written(tmp_path, HEADER, *lines, name="SHARE.csv"), a_stock())
    # From the end of the 4th to the beginning of the 22nd.
    assert "1 silence of more than 7 days, the longest 17 days after 2024-01-04" in result.notes[0]
    assert result.counts["hole"] == 1


def test_a_weekend_is_no_hole(tmp_path):
    lines = rows("2024-01-04", "2024-01-05", "2024-01-08", "2024-01-09", bar="10,12,9,11")
    assert read(written(tmp_path, HEADER, *lines, name="SHARE.csv"), a_stock()).counts == {
        "rows": 4,
        "bars": 4,
    }


@pytest.mark.parametrize("sessions", [False, True])
def test_a_volume_that_is_counted_in_another_unit_from_some_row_on_is_told(tmp_path, sessions):
    """As in a real file of a coin, whose columns for coins and dollars change places half way."""
    count = 60
    times = (
        pd.bdate_range("2024-01-01", periods=count).strftime("%Y-%m-%d").tolist()
        if sessions
        else full_day("2024-01-01")[:count]
    )
    volumes = [500 + 7 * k if k < 40 else 1_000_000 + 900 * k for k in range(count)]
    lines = [f"{time},{GOOD},{volume}" for time, volume in zip(times, volumes, strict=True)]
    path = written(tmp_path, f"{HEADER},volume", *lines, name="SHARE.csv" if sessions else "X_5.csv")
    result = read(path, a_stock() if sessions else None)
    note = next(note for note in result.notes if note.startswith("volume_unit"))
    assert f"near row 42 ({times[40]})" in note
    steady = [f"{time},{GOOD},{500 + 7 * k}" for k, time in enumerate(times)]
    path = written(tmp_path, f"{HEADER},volume", *steady, name=path.name)
    assert "volume_unit" not in read(path, a_stock() if sessions else None).counts


# --- speed --------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_bars_are_read_in_a_few_seconds(tmp_path):
    """The real one-minute file is nine times as long; a loop over rows would take minutes."""
    count = 100_000
    start = pd.date_range("2020-01-01", periods=count, freq="min").strftime("%Y-%m-%d %H:%M:%S")
    path = tmp_path / "COIN_1.csv"
    pd.DataFrame({"datetime": start, "open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0}).to_csv(
        path, index=False
    )
    begun = time.perf_counter()
    assert len(read(path, a_coin()).bars) == count
    assert time.perf_counter() - begun < 5.0
