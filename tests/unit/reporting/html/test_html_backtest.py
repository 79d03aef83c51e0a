"""The HTML report of a backtest: the same numbers as the JSON, the same bytes, nothing from elsewhere."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

from rl.backtest.result import portfolio_figures
from rl.common.errors import UsageError
from rl.reporting.backtest_report import checked_report_files, pages_folder, write_reports
from rl.reporting.html.backtest_page import index_page, symbol_page
from rl.reporting.html.svg import drawn, thinned
from tests.page_reading import disagreement, read_page
from tests.unit.reporting.html.some_backtests import HOW, a_background, a_backtest, a_report, a_verdict


@pytest.fixture(scope="module")
def result():
    return a_backtest()


@pytest.fixture(scope="module")
def report(result):
    return a_report(result)


@pytest.fixture(scope="module")
def html(report, result):
    return symbol_page(report, result)


# --- numbers --------------------------------------------------------------------------------------------------------


def test_every_number_of_the_page_is_the_one_in_the_json(report, html):
    stored = json.loads(json.dumps(report, allow_nan=False))["symbols"]["Nifty_15"]
    page = read_page(html)
    assert len(page.figures) > 300
    assert [found for each in page.figures if (found := disagreement(each, stored))] == []
    assert page.loose_numbers == [], "every number in a table says where it stands in the report"


def test_the_comparison_with_the_json_notices_a_wrong_number(report, html):
    stored = json.loads(json.dumps(report))["symbols"]["Nifty_15"]
    stored["metrics"]["sharpe_ratio"] += 0.02
    stored["latest_trades"][3]["net_pnl"] += 0.02
    wrong = [found for each in read_page(html).figures if (found := disagreement(each, stored))]
    assert {found.split(":")[0] for found in wrong} == {"metrics/sharpe_ratio", "latest_trades/3/net_pnl"}


def test_what_cannot_be_computed_is_never_nan(html, report):
    text = read_page(html).text
    assert not re.search(r"\b(nan|NaN|inf|None|Undefined)\b", text)
    idle = a_backtest(actions=np.ones(539, dtype=np.int8))
    page = read_page(symbol_page(a_report(idle), idle))
    assert not re.search(r"\b(nan|NaN|inf|None)\b", page.text)
    assert "no trade was closed" in page.text
    assert "No trade was closed, so there is nothing to show of single trades." in page.text


def test_the_index_has_the_numbers_of_every_symbol():
    results = [a_backtest("A_15", count=300, seed=1), a_backtest("B_15", count=300, seed=2)]
    report = a_report(*results)
    page = read_page(index_page(report, {"A_15": "p/A_15.html", "B_15": "p/B_15.html"}))
    assert [found for each in page.figures if (found := disagreement(each, report))] == []
    assert page.loose_numbers == []
    assert {"p/A_15.html", "p/B_15.html"} <= set(page.links)


# --- what is said ---------------------------------------------------------------------------------------------------


def test_the_verdict_comes_first_in_sentences(report, html):
    page = read_page(html)
    said = report["symbols"]["Nifty_15"]["what_is_shown"]
    assert said[0] == "Not promoted: no edge is shown for this model (promotion FAIL, not promoted)."
    places = [page.text.index(sentence.replace(" %", "\N{NO-BREAK SPACE}%")) for sentence in said]
    assert places == sorted(places)
    assert places[-1] < page.text.index("Equity and drawdown")


def test_made_up_and_seen_bars_are_marked_at_the_top():
    seen = a_backtest("SYN_x_15", split="validation", seen_in_training_or_choosing=True)
    text = symbol_page(a_report(seen), seen).split("<h2")[0]
    for words in (
        "SYNTHETIC data: nothing follows",
        "IN-SAMPLE: bars of this span (validation) were seen",
        ">SYNTHETIC</span>",
        ">IN-SAMPLE</span>",
        ">NOT PROMOTED</span>",
    ):
        assert words in text
    page = index_page(a_report(seen, a_backtest("B_15")), {"SYN_x_15": "a", "B_15": "b"})
    assert "IN-SAMPLE" in read_page(page).text.split("All accounts together")[0]


def test_every_block_is_there(html):
    page = read_page(html)
    for words in (
        "Equity and drawdown", "Figures beside what else could have been done", "Months", "Trades", "By side",
        "By exit reason", "Costs", "Cost frontier", "Gates", "Learning", "Experts by regime", "Adaptation", "Data",
        "hole: 16 bars missing", "How to reproduce", "python run_backtest.py --symbols Nifty_15",
        "Settings of this backtest", "Plan the model was trained under", "made by another run, 2020",
        "31 more sessions are needed", "flat INCONCLUSIVE, buy and hold FAIL",
    ):  # fmt: skip
        assert words in page.text, words
    # Equity and prices wide and narrow; results, hours, costs, two learning curves, experts, adaptation.
    assert html.count("<svg") == 11


def test_many_wanted_sessions_are_told_in_years():
    background = a_background((0, 300))
    verdict = a_verdict(
        reasons=["About 46371 more sessions are needed."],
        metrics={"window_sessions": 230},
        sessions_needed=46371,
    )
    background["stages"] = [{**background["stages"][0], "verdict": verdict}]
    result = a_backtest(background=background)
    text = read_page(symbol_page(a_report(result), result)).text
    assert "About 46,371 more sessions (about 185 years) are needed." in text


def test_a_report_without_background_says_what_it_cannot_show():
    bare = a_backtest(background={})
    text = read_page(symbol_page(a_report(bare), bare)).text
    for words in (
        "cannot show how the model was judged",
        "no learning curve",
        "no experts",
        "nothing was adapted",
    ):
        assert words in text


# --- bytes, size and safety -----------------------------------------------------------------------------------------


def test_two_renders_of_the_same_objects_are_the_same_bytes(html):
    again = a_backtest()
    assert symbol_page(a_report(again), again) == html


def test_a_year_of_quarter_hours_is_under_half_a_megabyte():
    year = a_backtest(count=6900, background=a_background((0, 3000)))
    assert len(year.replay.equity) > 6200
    assert len(year.trades) == 200
    assert len(symbol_page(a_report(year), year).encode()) < 500_000


def test_the_page_needs_nothing_from_elsewhere(html):
    page = read_page(html)
    assert [link for link in page.links if not link.startswith("#")] == []
    assert page.tags.count("script") == 1
    assert not re.search(r"url\((?!#)", html)
    assert "default-src 'none'" in unescape(html)
    assert "script-src 'sha256-" in unescape(html)


def test_hostile_names_stay_text():
    hostile = "</script><script>alert(1)</script>\"'<img src=x onerror=alert(1)>${x}$\u202e中"
    background = a_background((0, 300))
    background["data_quality"] |= {"raw_file": hostile, "notes": [hostile]}
    background["experts"]["regimes"] = [hostile, "high"]
    background["stages"][0]["verdict"]["reasons"] = [hostile]
    background["stages"][1]["left_out"] = hostile
    background["plan"] = {hostile: hostile}
    result = a_backtest(
        background=background, notes=[hostile], file=hostile, headline=hostile, verdict_text=hostile
    )
    report = a_report(
        replace(result, instrument={**result.instrument, "matched": hostile, "currency": hostile})
    )
    page_text = symbol_page({**report, "command": hostile}, result)
    page = read_page(page_text)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert page.text.count("alert(1)") > 16
    assert "\u202e" not in page_text, "a name may not turn the reading direction round"


def test_thinning_keeps_every_extreme():
    values = np.random.default_rng(0).standard_normal(10_000).cumsum()
    places = thinned(values, columns=100)
    assert len(places) <= 402
    assert {0, 9_999, int(np.argmin(values)), int(np.argmax(values))} <= set(places.tolist())
    edges = np.linspace(0, 10_000, 101).astype(int)
    for start, stop in itertools.pairwise(edges):
        inside = values[places[(places >= start) & (places < stop)]]
        assert (inside.min(), inside.max()) == (values[start:stop].min(), values[start:stop].max())
    assert thinned(values[:50], columns=100).tolist() == list(range(50))


def test_a_dollar_sign_in_a_chart_is_no_formula():
    def draw(figure):
        figure.subplots().set_title("$x^2$ & <b>")

    assert "$x^2$ &amp; &lt;b&gt;" in drawn("c", "t", (3, 2), draw)


# --- files ----------------------------------------------------------------------------------------------------------


def test_one_symbol_is_one_file_and_several_are_an_index_with_pages_beside(tmp_path):
    first, second = a_backtest("A_15", count=300), a_backtest("B.AX", count=300, seed=1)
    written = write_reports([tmp_path / "one.html"], [first], portfolio_figures([first]), HOW)
    assert written == [tmp_path / "one.html"]
    assert "<h1>A_15</h1>" in written[0].read_text()

    path = tmp_path / "javascript:two #1.HTML"
    written = write_reports([path], [first, second], portfolio_figures([first, second]), HOW)
    folder = pages_folder(path)
    assert set(written) == {path, folder / "A_15.html", folder / "B.AX.html"}
    links = [link for link in read_page(path.read_text()).links if "html" in link]
    assert "javascript%3Atwo%20%231_pages/B.AX.html" in links
    assert "../javascript%3Atwo%20%231.HTML" in read_page((folder / "B.AX.html").read_text()).links


def test_a_file_where_the_pages_have_to_go_is_refused_before_any_work(tmp_path):
    (tmp_path / "r_pages").write_text("")
    with pytest.raises(UsageError, match="that is a file"):
        checked_report_files([tmp_path / "r.html"])
