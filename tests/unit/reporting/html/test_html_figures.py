"""How figures of a report are written on a page."""

from __future__ import annotations

import pytest

from rl.reporting.html.figures import Figures, written
from tests.page_reading import read_page

NBSP = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.12345, "percent", f"12.3{NBSP}%"),
        (-0.5, "percent2", f"−50.00{NBSP}%"),
        (0.05, "change", f"+5.0{NBSP}%"),
        (1234567.891, "number", "1,234,567.89"),
        (1234.5, "number0", "1,234"),
        (-2, "whole", "−2"),
        (0.00012, "bp", "1.20"),
        (-0.0000123, "bp4", "−0.1230"),
        (0.000999, "probability", "0.000999"),
        (1.3e-09, "probability", "1.3e−09"),
        (123456.4, "figures4", "123,456"),
        (0.046149, "figures4", "0.04615"),
        ("a - b", "text", "a - b"),
        (True, "text", "yes"),
    ],
)
def test_a_value_keeps_its_unit_and_has_a_real_minus_sign(value, form, text):
    assert written(value, form) == text


def test_a_missing_figure_is_a_dash_with_the_reason_under_the_table():
    figures = Figures(
        {
            "m": {
                "a": None,
                "b": None,
                "c": None,
                "not_computed": {"a": "no trade", "b": "no trade", "c": "no loss"},
            }
        }
    )
    shown = "".join(str(figures(f"m/{name}", "number")) for name in "abc")
    assert [figure.text for figure in read_page(shown).figures] == ["–a", "–a", "–b"]
    told = read_page(str(figures.reasons())).text
    assert told == "– no figure: a no trade; b no loss."
    assert str(figures.reasons()) == ""


def test_a_path_that_does_not_exist_is_a_dash_with_the_reason_given():
    figures = Figures({"list": [1]})
    assert "–" in figures("list/7", "number", "there is no champion")
    assert "there is no champion" in figures.reasons()


def test_names_from_a_report_cannot_become_html():
    hostile = '<img src=x onerror="alert(1)">&"\''
    figures = Figures({"rows": [{"name": hostile}], "a": hostile, "b": None, "not_computed": {"b": hostile}})
    html = f"{figures('a')}{figures.table('rows', [('name', hostile)], hostile)}{figures('b')}{figures.reasons()}"
    page = read_page(html)
    assert "img" not in page.tags
    assert page.text.count(hostile) == 5, "value, heading, caption, cell and reason show it as it is"


def test_a_table_names_its_columns_so_that_it_can_be_compared():
    html = str(
        Figures({"rows": [{"n": "x", "v": 0.5}, {"n": "y", "v": None}]}).table(
            "rows", [("n", "n"), ("v", "v", "percent")], "c"
        )
    )
    found = {figure.at: figure.text for figure in read_page(html).figures}
    assert found == {"rows/0/n": "x", "rows/0/v": f"50.0{NBSP}%", "rows/1/n": "y", "rows/1/v": "–a"}


def test_a_list_that_is_a_tuple_before_it_is_written_is_read_like_one():
    """Reports are drawn from the objects in memory; JSON makes lists of their tuples."""
    figures = Figures({"experts": ({"leads": 0.25}, {"leads": 0.75})})
    assert [
        read_page(str(figures(f"experts/{place}/leads", "percent0"))).figures[0].text for place in (0, 1)
    ] == [
        f"25{NBSP}%",
        f"75{NBSP}%",
    ]
