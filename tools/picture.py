"""Photograph the first screen of a report, as the README shows it.

    python tools/picture.py reports/demo/backtest_report_pages/SYN_planted_2.html docs/pictures/report.png

Needs a chromium on the PATH, and playwright: `.venv/bin/pip install playwright`, or `make test`, which installs it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

WIDTH, HEIGHT = 1060, 1082
COLOURS = 200
"""Text and lines on white need no more, and the file is half as large."""


def main() -> int:
    """Write the picture and say how large it is."""
    options = parse_options()
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        print("error: chromium is not installed; it comes with: apt-get install chromium", file=sys.stderr)
        return 3
    if not options.report.is_file():
        print(f"error: {options.report} does not exist; run make demo first", file=sys.stderr)
        return 4
    from PIL import Image
    from playwright.sync_api import sync_playwright

    options.picture.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        # Root, as in a container, may start it no other way.
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(options.report.absolute().as_uri())
        page.screenshot(path=options.picture)
        browser.close()
    Image.open(options.picture).convert("RGB").quantize(COLOURS).save(options.picture, optimize=True)
    print(f"{options.picture}: {options.picture.stat().st_size:,} bytes")
    return 0


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Return report and picture."""
    parser = argparse.ArgumentParser(
        description="Photograph the first screen of an HTML report.", allow_abbrev=False
    )
    parser.add_argument("report", type=Path, help="the page, as run_backtest.py or run_training.py wrote it")
    parser.add_argument("picture", type=Path, help="the .png to write")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
