"""A damaged file gives the bars of the clean one, or fewer that are named, or is refused: never others in silence."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import bad_files
from benchmarks.bad_files import TOLERANT, judged, loaded, matrix
from benchmarks.raw_defects import DEFECTS, FIFTEEN, DoesNotApplyError, Draft
from benchmarks.raw_originals import Original, real_originals, twins
from rl.common.errors import DataError
from rl.market.ingest import IngestResult, read_raw

REAL_DATA = "STAGEGATE_REAL_DATA"
"""Environment variable: a folder of real files; their licences forbid passing them on."""

FILES = "STAGEGATE_BAD_FILES"
"""Environment variable: how many files hypothesis makes."""

TWINS = twins()

FEW = (
    "index minutes, no header",
    "index quarters, epoch seconds",
    "coin hours, newest first",
    "currency days, summer time",
)
"""Layouts that differ most: time in two columns, counted, newest first, dates with an offset."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("raw")


def wrong(cells) -> list[str]:
    found, count = [], 0
    for cell in cells:
        count += 1
        found += [
            f"{cell.defect} in {cell.original}: {outcome.says}"
            for outcome in (cell.strict, cell.tolerant)
            if outcome.kind == "WRONG"
        ]
    assert count, "no file was made"
    return found


@pytest.mark.parametrize("name", TWINS)
def test_the_fifteen_kinds_of_defect_in_every_layout(folder, name):
    assert wrong(matrix({name: TWINS[name]}, folder, FIFTEEN)) == []


@pytest.mark.parametrize("name", FEW)
def test_every_other_defect_in_the_layouts_that_differ_most(folder, name):
    assert wrong(matrix({name: TWINS[name]}, folder, [d for d in DEFECTS if d not in FIFTEEN])) == []


def test_the_twins_load_with_the_numbers_that_were_written(folder):
    """What the judge takes for the clean file has to be right itself."""
    for original in TWINS.values():
        result = loaded(original, folder, Draft.of(original), None)
        if original.name == "ticks":
            assert "no column for open, high, low, close" in str(result)
            continue
        assert isinstance(result, IngestResult)
        rows = {int(start): row for start, row in zip(original.starts, original.rows, strict=True)}
        bars = result.bars
        starts = bars.close_time - (0 if original.keys.get("label") == "end" else bars.bar_seconds * 10**9)
        if bars.is_daily:
            starts = (bars.close_time // (86_400 * 10**9)) * 86_400 * 10**9
        for t, start in enumerate(starts):
            for role in ("open", "high", "low", "close"):
                column = original.column(role)
                assert column is not None
                assert getattr(bars, role)[t] == float(rows[int(start)][column]), original.name
        assert len(bars) >= 110


def with_a_bar_less(result: IngestResult) -> IngestResult:
    return replace(result, bars=result.bars.slice(0, len(result.bars) - 1))


def with_another_price(result: IngestResult) -> IngestResult:
    close = result.bars.close.copy()
    close[50] += 0.01
    return replace(result, bars=replace(result.bars, close=close))


def with_times_an_hour_later(result: IngestResult) -> IngestResult:
    return replace(result, bars=replace(result.bars, close_time=result.bars.close_time + 3600 * 10**9))


def without_volume(result: IngestResult) -> IngestResult:
    return replace(result, bars=replace(result.bars, volume=None))


def with_a_row_uncounted(result: IngestResult) -> IngestResult:
    return replace(result, counts=result.counts | {"rows": result.counts["rows"] + 1})


@pytest.mark.parametrize(
    "silently",
    [with_a_bar_less, with_another_price, with_times_an_hour_later, without_volume, with_a_row_uncounted],
)
def test_the_judge_finds_a_loader_that_changes_something_in_silence(folder, monkeypatch, silently):
    original = TWINS["coin hours, newest first"]
    clean = loaded(original, folder, Draft.of(original), None)
    monkeypatch.setattr(bad_files, "read_raw", lambda *arguments: silently(read_raw(*arguments)))
    assert judged(original, folder, Draft.of(original), clean).kind == "WRONG"


@pytest.mark.parametrize(
    "message",
    [
        "row 9: open is the text 'x'. Correct the row.",
        "X.csv, row 62: open is wrong. Correct the row.",
        "{}: bad.",
    ],
)
def test_the_judge_finds_a_message_without_file_row_or_remedy(folder, monkeypatch, message):
    original = TWINS["coin hours, newest first"]

    def refusing(path, *_):
        raise DataError(message.format(f"{path}, row 12"))

    draft = Draft.of(original)
    DEFECTS["bad number"](draft, 10)
    clean = loaded(original, folder, Draft.of(original), None)
    monkeypatch.setattr(bad_files, "read_raw", refusing)
    assert judged(original, folder, draft, clean).kind == "WRONG"


@pytest.mark.skipif(
    REAL_DATA not in os.environ, reason=f"set {REAL_DATA} to a folder of raw files to check them too"
)
def test_the_fifteen_kinds_of_defect_in_the_real_files(folder):
    originals = real_originals(Path(os.environ[REAL_DATA]))
    assert originals, f"{REAL_DATA} holds none of the files"
    assert wrong(matrix(originals, folder, FIFTEEN)) == []


# --- files nobody thought of ----------------------------------------------------------------------------------------

ORDER = tuple(DEFECTS)
"""Cells are damaged before times, times before rows, rows before the file: a later step may move what was there."""

PHASES = {
    **dict.fromkeys(DEFECTS, 0),
    **dict.fromkeys(
        [
            "bad date",
            "mistyped year, first bar",
            "mistyped year, last bar",
            "mistyped year, middle",
            "UTC offset on one row",
        ],
        1,
    ),
    **dict.fromkeys(
        [
            "UTC offset on every row",
            "offsets of another zone",
            "offset missing on one row",
            "impossible offset",
            "seconds since 1970",
            "milliseconds since 1970",
            "microseconds since 1970",
            "nanoseconds since 1970",
            "seconds, then milliseconds",
            "YYYYMMDDhhmm",
            "YYYYMMDDhhmmss",
            "dots and blanks",
            "day first",
        ],
        2,
    ),
    **dict.fromkeys(
        [
            "duplicate row",
            "out of order",
            "two bars of one time",
            "cell left out",
            "cell too many",
            "remark between rows",
            "header again",
            "header again with mark",
            "blank lines",
            "missing column",
        ],
        3,
    ),
    **dict.fromkeys(["every cell quoted", "open quotation mark", "two stray quotation marks"], 4),
    "separator at line ends": 5,
    "newest first": 6,
    **dict.fromkeys(["cut in the last number", "cut in the last line", "no last line end"], 7),
    **dict.fromkeys(["CRLF line ends", "CR line ends", "CR CR LF line ends", "header only"], 8),
    **dict.fromkeys(
        [
            "byte order mark",
            "empty file",
            "NUL bytes at the end",
            "blank file",
            "UTF-16",
            "UTF-16 without mark",
            "gzip archive",
            "gzip cut off",
            "gzip with a flipped bit",
            "gzip named .csv",
            "text named .csv.gz",
            "text named .parquet",
            "Excel workbook named .csv",
            "parquet named .csv",
            "web page",
            "JSON message",
        ],
        9,
    ),
}

UNTOLD = {"volume in another unit", "unadjusted split"}
"""At the edge of a file nobody can tell these two."""

ONE_OF_A_KIND = {2, 9}
"""Phases that overwrite each other."""


@st.composite
def damages(draw) -> list[tuple[str, float]]:
    """Return up to four defects with the share of the file they stand at, in an order that keeps them all."""
    names = draw(
        st.lists(st.sampled_from(sorted(set(DEFECTS) - UNTOLD)), min_size=1, max_size=4, unique=True)
    )
    chosen, taken = [], set()
    for name in sorted(names, key=lambda name: (PHASES[name], ORDER.index(name))):
        if PHASES[name] in ONE_OF_A_KIND & taken:
            continue
        taken.add(PHASES[name])
        chosen.append((name, draw(st.floats(0.0, 1.0))))
    return chosen


@cache
def clean_of(name: str, folder: Path, *, is_tolerant: bool) -> IngestResult | str:
    return loaded(TWINS[name], folder, Draft.of(TWINS[name]), TOLERANT if is_tolerant else None)


def damaged(original: Original, separator: str, chosen: list[tuple[str, float]]) -> Draft:
    draft = Draft.of(original)
    draft.separator = separator
    for name, share in chosen:
        if not draft.lines:
            break
        try:
            DEFECTS[name](draft, min(int(share * len(draft.lines)), len(draft.lines) - 1))
        except DoesNotApplyError:
            continue
    return draft


@settings(
    max_examples=int(os.environ.get(FILES, "300")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    name=st.sampled_from(sorted(set(TWINS) - {"ticks"})),
    separator=st.sampled_from(",;\t|"),
    chosen=damages(),
    is_tolerant=st.booleans(),
)
def test_no_combination_of_defects_changes_a_bar_in_silence(folder, name, separator, chosen, is_tolerant):
    draft = damaged(TWINS[name], separator, chosen)
    clean = clean_of(name, folder, is_tolerant=is_tolerant)
    outcome = judged(TWINS[name], folder, draft, clean, TOLERANT if is_tolerant else None)
    assert outcome.kind != "WRONG", outcome.says
