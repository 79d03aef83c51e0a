"""How figures are written: percent and marks for people, a dash where there is no number."""

from __future__ import annotations

import pytest

from rl.reporting.tables import csv_text, number, percent, table_lines, whole


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234, "12.3 %"), (-0.5, "-50.0 %"), (0.0, "0.0 %"), (None, "-"), (12.0, "1200.0 %")],
)
def test_a_fraction_is_written_as_percent(value, text):
    assert percent(value) == text


def test_digits_can_be_chosen():
    assert percent(0.12345, 2) == "12.35 %"
    assert number(1234.567, 0) == "1,235"


@pytest.mark.parametrize(("value", "text"), [(1234567.891, "1,234,567.89"), (-0.005, "-0.01"), (None, "-")])
def test_a_number_has_two_decimals_and_marked_thousands(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(1234567, "1,234,567"), (12.0, "12"), (0, "0"), (None, "-")])
def test_a_count_has_no_decimals(value, text):
    assert whole(value) == text


def test_a_table_aligns_its_first_columns_left_and_the_rest_right():
    lines = table_lines(["symbol", "return"], [["A", "1.0 %"], ["Nifty_15", "-10.0 %"]])
    assert lines[0].split() == ["symbol", "return"]
    assert lines[2].startswith("A ")
    # Right-aligned: both rows end in the same column.
    assert len(lines[2]) == len(lines[3])
    assert lines[3].startswith("Nifty_15 ")


def test_brackets_in_a_cell_are_printed_and_not_read_as_colours():
    lines = table_lines(["text"], [["[red]x[/red]"], ["a [0, 1]"]])
    assert "[red]x[/red]" in lines[2]
    assert "a [0, 1]" in lines[3]


def test_a_cell_wider_than_the_table_is_folded_and_not_cut():
    lines = table_lines(["name"], [["a" * 30]], width=20)
    assert "".join(line.strip() for line in lines[2:]) == "a" * 30


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\n=1", "=1"])
def test_a_spreadsheet_takes_no_text_of_ours_for_a_formula(text):
    assert csv_text(text) == "'" + text


@pytest.mark.parametrize("text", ["Nifty_2", "2024-01-02 10:00", "-86400", "+5.5", "", "a=b"])
def test_other_text_stays_as_it_is_in_a_csv_file(text):
    assert csv_text(text) == text


def test_a_carriage_return_begins_no_new_row_and_codes_are_shown():
    """The csv writer does not quote it, and what follows would be the first cell of a row of its own."""
    assert csv_text("\r=1") == "\\x0d=1"
    assert csv_text("a\r=1\x1b[2J") == "a\\x0d=1\\x1b[2J"


def test_a_name_in_a_table_cannot_act_on_the_terminal_nor_be_markup():
    lines = table_lines(
        ["x_\x1b[2J"], [["\x1b]0;owned\x07"], ["\\[red]a[/red]"], ["[link=http://x]b[/link]"]]
    )
    shown = "\n".join(lines)
    assert not set(shown) & {"\x1b", "\x07"}
    assert "\\x1b]0;owned" in shown
    assert "\\[red]a[/red]" in shown
    assert "[link=http://x]b[/link]" in shown


def test_a_mean_of_counts_is_rounded_and_not_cut_off():
    """The trades of twenty random traders have a mean; 2572.55 is not 2,572."""
    assert whole(2572.55) == "2,573"
    assert whole(-2) == "-2"
    assert whole(1234567) == "1,234,567"
