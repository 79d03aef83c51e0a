"""How figures are written: percent and marks for people, a dash where there is no number."""

from __future__ import annotations

import pytest

from rl.reporting.tables import number, percent, table_lines, whole


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
