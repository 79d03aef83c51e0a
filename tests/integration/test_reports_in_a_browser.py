"""Reports opened in a real browser, as readers open them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rl.backtest.result import portfolio_figures
from rl.reporting.backtest_report import pages_folder, write_reports
from rl.reporting.html.runs_page import runs_page
from tests.browser import DESKTOP, PHONE, a_browser, opened
from tests.unit.reporting.html.some_backtests import HOW, a_backtest


@pytest.fixture(scope="module")
def browser():
    with a_browser() as started:
        yield started


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Path:
    """An index of three symbols with their pages; B earns least, A has traded most."""
    results = [
        a_backtest("A_15", count=400, seed=1),
        a_backtest("B_15", count=400, seed=2, promoted=True),
        a_backtest("SYN_long_name_of_a_symbol_15", count=400, seed=3),
    ]
    path = tmp_path_factory.mktemp("reports") / "r.html"
    write_reports([path], results, portfolio_figures(results), HOW)
    return path


@pytest.fixture(scope="module")
def page(index) -> Path:
    return pages_folder(index) / "A_15.html"


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_a_symbols_page_opens_without_complaint_and_fits_the_screen(browser, page, width):
    with opened(browser, page, width) as found:
        assert found.page.title() == "A_15: Stagegate backtest"
        assert found.overflow() <= 0
        assert found.page.locator("table").count() > 10
        charts = [chart for chart in found.page.query_selector_all("svg") if chart.is_visible()]
        assert len(charts) == 9, "two of the eleven are for the other width"
        assert all(chart.bounding_box()["width"] > 0.7 * min(width, 500) for chart in charts)
        assert found.page.locator(".verdict").bounding_box()["y"] < 250, "the verdict is what one sees first"
        assert (found.complaints, found.asked_for) == ([], [])


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_index_leads_to_every_page_and_sorts(browser, index, width):
    with opened(browser, index, width) as found:
        assert found.page.title() == "Stagegate backtest: 3 symbols"
        assert found.overflow() <= 0
        trades = [int(text) for text in found.column("#symbols", 7)]
        heading = found.page.locator("#symbols th button", has_text="trades")
        heading.click()
        assert [int(text) for text in found.column("#symbols", 7)] == sorted(trades, reverse=True)
        heading.click()
        assert [int(text) for text in found.column("#symbols", 7)] == sorted(trades)
        assert found.page.locator("#symbols th", has_text="trades").get_attribute("aria-sort") == "ascending"
        returns = found.page.locator("#symbols th button", has_text="return")
        returns.click()
        shown = [
            float(text.replace("−", "-").split("\N{NO-BREAK SPACE}")[0])
            for text in found.column("#symbols", 4)
        ]
        assert shown == sorted(shown, reverse=True)
        names = found.page.locator("#symbols th button", has_text="symbol")
        names.click()
        names.click()
        assert found.column("#symbols", 0)[0] == "A_15"
        links = [link.get_attribute("href") for link in found.page.query_selector_all("#symbols a")]
        assert all((index.parent / str(link)).is_file() for link in links)
        assert len(links) == 3
        assert (found.complaints, found.asked_for) == ([], [])


def test_the_lists_of_a_page_sort_with_what_is_missing_last(browser, page):
    with opened(browser, page) as found:
        found.page.locator('table[data-rows="drawdowns"] th button', has_text="recovered").click()
        found.page.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")
        table = 'table[data-rows="latest_trades"]'
        found.page.locator(f"{table} th button", has_text="net").click()
        shown = [float(text.replace("−", "-").replace(",", "")) for text in found.column(table, 6)]
        assert len(shown) > 10
        assert shown == sorted(shown, reverse=True)
        assert found.overflow() <= 0
        assert found.complaints == []


def test_what_the_page_was_never_told_to_load_is_blocked_by_its_own_policy(browser, page, tmp_path):
    """The check of outside requests would notice one, and so would the browser."""
    spoilt = tmp_path / "spoilt.html"
    html = page.read_text(encoding="utf-8")
    spoilt.write_text(
        html.replace("<footer>", '<img src="https://example.org/x.png"><footer>'), encoding="utf-8"
    )
    with opened(browser, spoilt) as found:
        assert any("Content Security Policy" in text for text in found.complaints)
    free = html.replace('http-equiv="Content-Security-Policy"', "").replace(
        "<footer>", '<img src="https://example.org/x.png"><script>let x = ;</script><footer>'
    )
    spoilt.write_text(free, encoding="utf-8")
    with opened(browser, spoilt) as found:
        found.page.wait_for_load_state()
        assert found.asked_for == ["https://example.org/x.png"]
        assert any("SyntaxError" in text or "Unexpected token" in text for text in found.complaints)


def test_everything_can_be_read_without_scripts_and_on_paper(browser, page):
    context = browser.new_context(java_script_enabled=False, viewport={"width": PHONE, "height": 900})
    plain = context.new_page()
    plain.goto(page.absolute().as_uri())
    assert plain.locator("table").count() > 10
    assert plain.locator("th button").count() == 0
    plain.emulate_media(media="print")
    assert plain.locator("div.wide svg").first.is_visible()
    assert not plain.locator("div.narrow svg").first.is_visible()
    context.close()


def test_the_page_of_all_runs_fits_a_phone_and_sorts(browser, tmp_path):
    figures = {"held": None, "max_drawdown": 0.1, "total_trades": 3, "win_rate": 0.5, "profit_factor": 1.2}
    rows = [
        {"run": f"2026112{place}-120000-quick-s0", "symbol": "Nifty_15", "kind": "backtest", "window": "test",
         "stage": "ppo", "verdict": "promotion PASS", "promoted": True, "in_sample": place == 1, "link": "a/b.html",
         "total_return": value, "sharpe_ratio": value, **figures, "not_computed": {"sharpe_ratio": "no session"}}
        for place, value in enumerate([-0.1, None, 0.3])
    ]  # fmt: skip
    path = tmp_path / "index.html"
    path.write_text(runs_page(rows, ["run x: ValueError"]), encoding="utf-8")
    with opened(browser, path, PHONE) as found:
        assert found.page.title() == "Stagegate runs"
        assert found.overflow() <= 0
        heading = found.page.locator("#runs th button", has_text="Sharpe")
        heading.click()
        assert [text[:5] for text in found.column("#runs", 8)] == ["0.30", "−0.10", "–b"]
        heading.click()
        assert [text[:5] for text in found.column("#runs", 8)] == ["−0.10", "0.30", "–b"]
        assert "ValueError" in found.page.inner_text("body")
        assert (found.complaints, found.asked_for) == ([], [])
