"""Every event is one complete line of JSON, whatever its numbers are."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from rl.common.runlog import LineFile, RunLog, events_file

ROOT = Path(__file__).resolve().parents[3]


def events_in(path: Path) -> list[dict]:
    def refuse(word: str):
        raise AssertionError(f"{word} is not JSON")

    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def test_an_event_is_one_line_with_its_time_in_utc(tmp_path):
    path = tmp_path / "runs" / "events.jsonl"
    with RunLog(path) as log:
        log.event("stage_started", symbol="Nifty_2", stage=1)
        log.event("note", text="two\nlines ü")
    first, second = events_in(path)
    assert list(first) == ["time", "event", "symbol", "stage"]
    assert datetime.fromisoformat(first["time"]).utcoffset() == timedelta(0)
    assert (first["event"], first["symbol"], first["stage"]) == ("stage_started", "Nifty_2", 1)
    assert second["text"] == "two\nlines ü"


def test_an_event_can_be_read_before_the_log_is_closed(tmp_path):
    log = RunLog(tmp_path / "events.jsonl")
    log.event("started")
    assert [event["event"] for event in events_in(tmp_path / "events.jsonl")] == ["started"]
    log.close()


def test_nan_becomes_null_and_infinity_a_word(tmp_path):
    path = tmp_path / "events.jsonl"
    with RunLog(path) as log:
        log.event(
            "numbers",
            nan=float("nan"),
            deep={"list": [1.0, float("nan"), (np.float32("nan"), np.inf)]},
            array=np.array([0.5, np.nan]),
            lost_nothing=float("inf"),
            ruin=-float("inf"),
        )
    (event,) = events_in(path)
    assert event["nan"] is None
    assert event["deep"] == {"list": [1.0, None, [None, "inf"]]}
    assert event["array"] == [0.5, None]
    assert (event["lost_nothing"], event["ruin"]) == ("inf", "-inf")


def test_numpy_numbers_and_paths_are_written_plainly(tmp_path):
    path = tmp_path / "events.jsonl"
    with RunLog(path) as log:
        log.event(
            "x", count=np.int64(3), ok=np.bool_(True), rate=np.float64(0.25), file=Path("models") / "a.pth"
        )
    (event,) = events_in(path)
    assert (event["count"], event["ok"], event["rate"]) == (3, True, 0.25)
    assert event["file"] == str(Path("models") / "a.pth")


def test_a_second_run_appends(tmp_path):
    path = tmp_path / "events.jsonl"
    for name in ("first", "second"):
        with RunLog(path) as log:
            log.event(name)
    assert [event["event"] for event in events_in(path)] == ["first", "second"]


def test_a_line_torn_by_a_crash_does_not_spoil_the_next_one(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "whole"}\n{"event": "to', encoding="utf-8")
    with RunLog(path) as log:
        log.event("after")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ['{"event": "whole"}', '{"event": "to']
    assert json.loads(lines[2])["event"] == "after"


@pytest.mark.parametrize("name", ["time", "event"])
def test_a_field_cannot_take_the_place_of_the_logs_own(tmp_path, name):
    with RunLog(tmp_path / "events.jsonl") as log, pytest.raises(ValueError, match=f"'{name}' is taken"):
        log.event("x", **{name: 1})


def test_what_json_cannot_hold_is_refused_and_leaves_no_half_line(tmp_path):
    path = tmp_path / "events.jsonl"
    with RunLog(path) as log:
        with pytest.raises(TypeError, match="cannot hold a object"):
            log.event("x", thing=object())
        log.event("y")
    assert [event["event"] for event in events_in(path)] == ["y"]


def test_a_closed_log_takes_no_events(tmp_path):
    log = RunLog(tmp_path / "events.jsonl")
    log.close()
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.event("late")


LIMITED = """
import resource, sys
from rl.common.errors import StorageError
from rl.common.runlog import RunLog
with RunLog(sys.argv[1]) as log:
    log.event("whole", text="a" * 50)
    size = log.path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + int(sys.argv[2]), resource.RLIM_INFINITY))
    for _ in range(2):
        try:
            log.event("too_long", text="b" * 500)
        except StorageError as error:
            print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    log.event("after")
"""


@pytest.mark.parametrize("taken", [0, 40])
def test_a_disk_without_room_costs_the_line_that_did_not_fit_and_no_other(tmp_path, taken):
    """The system takes what fits of a line and says so by a number only; the rest must not be lost in silence."""
    path = tmp_path / "events.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(taken)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.count(f"{path} cannot be written: File too large") == 2
    lines = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["event"] == "whole"
    assert json.loads(lines[-1])["event"] == "after"
    assert [len(line) for line in lines[1:-1]] == ([taken] if taken else [])


def test_the_events_of_an_earlier_version_are_found_under_their_old_name(tmp_path):
    assert events_file(tmp_path) == tmp_path / "events.jsonl"
    (tmp_path / "run.jsonl").write_text("{}\n")
    assert events_file(tmp_path) == tmp_path / "run.jsonl"
    (tmp_path / "events.jsonl").write_text("{}\n")
    assert events_file(tmp_path) == tmp_path / "events.jsonl"


def test_a_file_of_lines_has_its_heading_once_however_often_it_is_opened(tmp_path):
    for number in range(2):
        with LineFile(tmp_path / "a.csv", "n") as file:
            file.append(str(number))
    assert (tmp_path / "a.csv").read_text() == "n\n0\n1\n"
