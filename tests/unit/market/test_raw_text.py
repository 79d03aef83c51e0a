"""Text files before anyone looks at their cells: what is no text of bars is refused early, and no line goes missing."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from pathlib import Path

import pytest

from rl.common.errors import DataError
from rl.market import raw_text
from rl.market.raw_table import read_table
from rl.market.raw_text import BLOCK_BYTES, LONGEST_LINE_BYTES, read_text

HEADER = "datetime,open,high,low,close,volume,name"
ROWS = [f"2024-01-01 {9 + k // 60:02}:{k % 60:02},10,12,9,11,{100 + k},a" for k in range(20)]


def written(folder: Path, content: bytes | str, name: str = "X_1.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def text_of(*rows: str, header: str = HEADER, newline: str = "\n") -> str:
    return newline.join([header, *rows]) + newline


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_table(path)
    return str(caught.value).removeprefix(f"{path.parent}/")


def changed(place: int, row: str) -> list[str]:
    return [*ROWS[:place], row, *ROWS[place + 1 :]]


# --- what is no text of bars ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04rest", "is an Excel workbook or another zip archive, not UTF-8 text"),
        (b"\x1f\x8brest", "is a gzip archive, not UTF-8 text with one bar a line. Let its name end with .csv.gz."),
        (b"PAR1rest", "is a parquet file"),
        (text_of(*ROWS).encode("utf-16"), "is UTF-16 text, not UTF-8 text with one bar a line. Save it as UTF-8."),
        (text_of(*ROWS).encode("utf-16-le"), "is UTF-16 text"),
        (b"<!DOCTYPE html>\n<p>404, not found", "is a web page, not a table of bars; it begins with '<!DOCTYPE html>"),
        (b'{"Note": "limit"}', "is JSON text, not a table of bars"),
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf\r\n", "the file is empty"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_named_with_what_to_do(tmp_path, content, says):
    assert says in refused(written(tmp_path, content))


def test_a_header_in_angle_brackets_is_no_web_page(tmp_path):
    path = written(tmp_path, "<DATE>,<OPEN>,<HIGH>,<LOW>,<CLOSE>\n2024-01-01,10,12,9,11\n")
    assert len(read_table(path)) == 1


@pytest.mark.parametrize("place", [0, 7, 19])
def test_a_nul_byte_is_refused_with_its_row(tmp_path, place):
    """In a name nobody uses pandas reads over it; at the end of a file it stands for all that was not written."""
    content = text_of(*changed(place, ROWS[place] + "\0"))
    assert (
        f"X_1.csv, row {place + 2}: holds a NUL byte (byte {content.index(chr(0)) + 1} of the file)"
        in refused(written(tmp_path, content))
    )


def test_a_nul_byte_beyond_the_first_block_is_refused_with_its_row_and_place(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_text, "BLOCK_BYTES", 100)
    rows = changed(15, ROWS[15].replace(",9,", ",\0,"))
    content = text_of(*rows)
    message = refused(written(tmp_path, content))
    assert f"row 17: holds a NUL byte (byte {content.index(chr(0)) + 1} of the file)" in message


def test_a_letter_of_another_encoding_is_refused_with_its_row_also_beyond_the_first_block(tmp_path):
    rows = ROWS * (BLOCK_BYTES // len(text_of(*ROWS)) + 2)
    content = text_of(*rows, ROWS[0] + "é").encode("latin-1")
    assert f"row {len(rows) + 2}: byte 0xe9 is not UTF-8 text" in refused(written(tmp_path, content))


def test_a_letter_that_two_blocks_share_is_read(tmp_path):
    line = ROWS[0] + "é" * 10_000
    assert len(line.encode()) % 2 != BLOCK_BYTES % 2
    rows = [line] * (3 * BLOCK_BYTES // len(line.encode()))
    assert len(read_table(written(tmp_path, text_of(*rows)))) == len(rows)


# --- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_an_endless_line_is_refused_before_it_fills_the_memory(tmp_path, packed):
    content = text_of(*ROWS, "1" * 40 * BLOCK_BYTES).encode()
    path = written(
        tmp_path, gzip.compress(content, 1) if packed else content, "X_1.csv.gz" if packed else "X_1.csv"
    )
    del content
    tracemalloc.start()
    message = refused(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert f"row 22: is longer than {LONGEST_LINE_BYTES:,} bytes, so it is no bar" in message
    assert peak < 10 * BLOCK_BYTES


def test_a_line_that_is_endless_only_over_two_blocks_is_refused_with_its_row(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_text, "BLOCK_BYTES", LONGEST_LINE_BYTES - 1000)
    message = refused(written(tmp_path, text_of(*changed(7, "1" * (LONGEST_LINE_BYTES + 1)))))
    assert f"row 9: is longer than {LONGEST_LINE_BYTES:,} bytes" in message


def test_a_line_may_be_as_long_as_the_limit(tmp_path):
    row = ROWS[3] + "a" * (LONGEST_LINE_BYTES - len(ROWS[3]))
    assert len(read_table(written(tmp_path, text_of(*changed(3, row))))) == 20
    assert "row 5: is longer" in refused(written(tmp_path, text_of(*changed(3, row + "a"))))


def test_an_archive_that_unpacks_to_more_than_the_limit_is_refused_while_it_is_unpacked(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(raw_text, "LARGEST_TEXT_BYTES", 2 * BLOCK_BYTES)
    path = written(tmp_path, gzip.compress(b"\n" * 40 * BLOCK_BYTES, 1), "X_1.csv.gz")
    tracemalloc.start()
    message = refused(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "is larger than 2,097,152 bytes of text. Split it, or export it as parquet." in message
    assert peak < 30 * BLOCK_BYTES  # the line ends of one block are counted as 64-bit places


# --- lines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\r\r\n"])
def test_every_kind_of_line_end_gives_the_same_rows(tmp_path, newline):
    table = read_table(written(tmp_path, text_of(*ROWS, newline=newline)))
    assert table.line.tolist() == list(range(2, 22))
    assert table.numbers["volume"].tolist() == list(range(100, 120))


def test_a_carriage_return_inside_a_row_makes_two_that_are_both_refused(tmp_path):
    table = read_table(written(tmp_path, text_of(*changed(3, ROWS[3].replace(",11,", ",11\r,")))))
    assert sorted(table.faults["field_count"]) == [3, 4]


def test_a_quotation_mark_that_is_not_closed_is_refused_with_its_row(tmp_path):
    """It would make one cell of all lines up to the next mark: here ten bars went without a word."""
    rows = [*changed(5, ROWS[5][:-1] + '"a')[:15], ROWS[15] + '"', *ROWS[16:]]
    message = refused(written(tmp_path, text_of(*rows)))
    assert message.startswith(
        "X_1.csv, row 7: a quotation mark is opened and not closed on its line: 2024-01-01 09:05"
    )


def test_two_marks_on_one_line_that_do_not_pair_are_found_too(tmp_path):
    # pandas takes a mark inside a cell for a letter, and the one at the beginning of the next for an opening one.
    rows = [*changed(5, '2024-01-01 09:05,10,12,9,11,1"05,"a')[:15], ROWS[15] + '"b"', *ROWS[16:]]
    assert "X_1.csv, row 7: a quotation mark is opened" in refused(written(tmp_path, text_of(*rows)))


def test_a_byte_order_mark_in_the_middle_is_left_out_with_the_header_behind_it(tmp_path):
    table = read_table(written(tmp_path, "\ufeff" + text_of(*ROWS[:10]) + "\ufeff" + text_of(*ROWS[10:])))
    assert table.faults == {"repeated_header": {10: "is the header once more"}}
    assert table.numbers["volume"][[0, 9, 11, 20]].tolist() == [100, 109, 110, 119]


def test_a_line_with_another_number_of_fields_than_the_header_is_a_fault(tmp_path):
    """Where a cell was left out, the volume stood as close and nobody knew."""
    rows = changed(3, ROWS[3].replace(",11,", ","))
    rows[7] = rows[7].replace(",107,", ",1,070,")
    table = read_table(written(tmp_path, text_of(*rows)))
    assert table.faults["field_count"] == {
        3: "has 6 fields, but the header has 7",
        7: "has 8 fields, but the header has 7; a number may have been written with a comma",
    }
    assert table.label[3] == "2024-01-01 09:03"


def test_a_separator_in_quotes_does_not_stand_in_for_a_field_that_is_missing(tmp_path):
    rows = changed(3, ROWS[3].replace(",103,a", ',"a,b"'))
    found = read_table(written(tmp_path, text_of(*rows))).faults
    assert found == {"field_count": {3: "has 6 fields, but the header has 7"}}


def test_separators_in_quotes_and_at_line_ends_are_no_fields(tmp_path):
    rows = [row + "," for row in changed(3, ROWS[3][:-1] + '"a,b"')]
    assert read_table(written(tmp_path, text_of(*rows, header=HEADER + ","))).faults == {}


def test_a_row_with_nothing_but_a_name_is_no_blank_line(tmp_path):
    """It used to be taken for one, and no count said so."""
    table = read_table(written(tmp_path, text_of(*changed(3, ",,,,,,a"), "", "  ", ",,,,,,")))
    assert len(table) == 20
    assert table.label[3] == ""


@pytest.mark.parametrize("cut", [0, 1, 5, 12])
def test_a_last_line_without_its_end_is_a_fault(tmp_path, cut):
    """While a file is downloaded its last number may lack digits: 119 becomes 11."""
    content = text_of(*ROWS)
    table = read_table(written(tmp_path, content[: len(content) - 1 - cut]))
    assert table.faults["unfinished_line"] == {19: "is the last line and has no line end"}


def test_a_file_cut_inside_a_letter_is_read_up_to_its_last_line(tmp_path):
    content = text_of(*ROWS, ROWS[0] + "é").encode()[:-2]
    assert read_text(written(tmp_path, content)).is_last_line_cut


# --- what is no file ------------------------------------------------------------------------------------------------


def test_a_pipe_a_folder_and_a_link_to_nowhere_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "A_1.csv")
    (tmp_path / "B_1.csv").mkdir()
    (tmp_path / "C_1.csv").symlink_to(tmp_path / "gone.csv")
    assert "A_1.csv: is a pipe, a device or the like, not a file" in refused(tmp_path / "A_1.csv")
    assert "B_1.csv: is a folder, not a file" in refused(tmp_path / "B_1.csv")
    assert "gone.csv, which does not exist. Remove or correct the link." in refused(tmp_path / "C_1.csv")
    (tmp_path / "D_1.csv").symlink_to(written(tmp_path, text_of(*ROWS)))
    assert len(read_table(tmp_path / "D_1.csv")) == 20
