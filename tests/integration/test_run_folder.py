"""Is everything a run was and did in its folder, and do mirrors of it change nothing, whatever becomes of them?"""

from __future__ import annotations

import ast
import csv
import fcntl
import json
import os
import pty
import re
import select
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from rl.apps.commands import tracking
from rl.checkpoints.registry import best_available
from rl.common.interpreter import interpreter
from rl.reporting.metrics_table import CHECKS, FIGURES, NOT_SHOWN
from rl.stages.plan import load_plan
from tests.integration.command_line import PLAN, ROOT, TINY, Finished, Workplace
from tests.integration.comparing import CLOCK, models_of, run_folder

SYMBOL = "SYN_planted_2"
PPO = ("--symbols", SYMBOL, "--stages", "ppo")


def a_place(root: Path) -> Workplace:
    place = Workplace(root)
    place.synth(SYMBOL)
    return place


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Workplace, Finished]:
    """A run without mirrors."""
    place = a_place(tmp_path_factory.mktemp("plain"))
    return place, place.train(*PPO)


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory) -> tuple[Workplace, Finished]:
    """The same run with both mirrors."""
    place = a_place(tmp_path_factory.mktemp("mirrored"))
    return place, place.train(*PPO, "--track", "tensorboard", "mlflow")


def events_of(place: Workplace) -> list[dict]:
    return [json.loads(line) for line in (run_folder(place) / "events.jsonl").read_text().splitlines()]


def rows_of(place: Workplace) -> list[dict[str, str]]:
    with (run_folder(place) / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- what is in it --------------------------------------------------------------------------------------------------


def test_every_update_has_a_row_and_no_figure_is_lost(plain):
    place, _ = plain
    updates = [event for event in events_of(place) if event["event"] == "progress"]
    rows = rows_of(place)
    assert len(rows) == len(updates) > 0
    for row, update in zip(rows, updates, strict=True):
        assert (row["symbol"], row["stage"], row["attempt"]) == (SYMBOL, "ppo", "1")
        assert float(row["train/value_loss"]) == update["value_loss"]
        figures = set(update) - {"time", "event", "symbol", "stage", "attempt", "validation"}
        assert figures <= set(FIGURES) | NOT_SHOWN
        assert set(update["validation"]) - {"episodes"} <= set(CHECKS)
    # As planned: before the first update, after 3 episodes and at the end, after 6.
    assert sum(row["eval/win_rate"] != "" for row in rows) == len(
        {update["validation"]["episodes"] for update in updates}
    )


def test_the_plan_of_the_run_is_whole_and_loads_again(plain):
    place, _ = plain
    again = load_plan(run_folder(place) / "config.resolved.yaml", overrides=[], profile="full")
    assert again.as_dict() == load_plan(PLAN, overrides=list(TINY), profile="full").as_dict()


def test_the_folder_says_what_the_run_was_done_with(plain):
    place, _ = plain
    found = json.loads((run_folder(place) / "environment.json").read_text())
    account = json.loads((place.processed / f"{SYMBOL}.json").read_text())
    assert found["data"][SYMBOL] == {"sha256": account["data_hash"], "bars": account["bars"]}
    assert found["libraries"]["python"] == sys.version.split()[0]
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}", found["git_commit"])


def test_the_models_in_the_folder_can_be_used_when_a_later_run_has_replaced_the_others(plain):
    place, _ = plain
    kept = run_folder(place) / "checkpoints"
    there = best_available(place.models, SYMBOL, "best")
    assert best_available(kept, SYMBOL, "best").checkpoint.sha256 == there.checkpoint.sha256


def test_what_the_checks_of_a_raw_file_found_is_counted_and_warned_of_until_the_end(tmp_path):
    place = a_place(tmp_path)
    raw = place.raw / f"{SYMBOL}.csv"
    lines = raw.read_text().splitlines()
    # Ten bars missing in the middle of a session.
    raw.write_text("\n".join([*lines[:500], *lines[510:]]) + "\n")
    done = place.train(*PPO)
    with (run_folder(place) / "data_quality.csv").open(newline="") as file:
        rows = {row["check"]: row for row in csv.DictReader(file)}
    assert (rows["hole"]["policy"], rows["hole"]["found"], rows["hole"]["dropped"]) == ("warn", "1", "0")
    assert "10 bars missing" in rows["hole"]["what was found"]
    assert rows["jump"]["found"] == "0"
    warning = f"warning: {SYMBOL}: checks of its raw file found hole 1"
    assert done.err.count(warning) == 2
    assert done.err.index("1 warning in this run:") > done.err.index(warning)


# --- mirrors --------------------------------------------------------------------------------------------------------


def test_mirrors_change_no_byte_of_a_model_and_say_nothing(plain, mirrored):
    assert (plain[1].code, plain[1].err) == (mirrored[1].code, mirrored[1].err) == (0, "")
    assert models_of(plain[0], *CLOCK) == models_of(mirrored[0], *CLOCK)


def test_tensorboard_shows_the_figures_of_the_table(mirrored):
    pytest.importorskip(
        "tensorboard", reason="needs the set `tracking`: python tools/bootstrap.py core tracking"
    )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    place, _ = mirrored
    shown = EventAccumulator(str(run_folder(place) / "tensorboard" / SYMBOL / "ppo")).Reload()
    points = [(point.step, point.value) for point in shown.Scalars("train/value_loss")]
    rows = rows_of(place)
    assert [step for step, _ in points] == [int(row["time/total_timesteps"]) for row in rows]
    assert [value for _, value in points] == pytest.approx([float(row["train/value_loss"]) for row in rows])


def test_mlflow_has_plan_figures_and_verdicts_in_a_store_of_the_reports_folder(mirrored):
    pytest.importorskip("mlflow", reason="needs the set `tracking`: python tools/bootstrap.py core tracking")
    place, _ = mirrored
    store = sqlite3.connect(place.reports / "mlflow.db")
    assert store.execute("select name, status from runs").fetchall() == [(run_folder(place).name, "FINISHED")]
    key = f"{SYMBOL}/ppo/train/value_loss"
    shown = store.execute("select value from metrics where key = ? order by step", [key]).fetchall()
    assert [value for (value,) in shown] == [float(row["train/value_loss"]) for row in rows_of(place)]
    params = dict(store.execute("select key, value from params").fetchall())
    assert params["training_params.ppo.hidden_dim"] == "8"
    tags = dict(store.execute("select key, value from tags").fetchall())
    assert "sessions 5 (at least 1000)" in tags[f"gate/{SYMBOL}/ppo"]
    assert not [path for path in (place.reports / "mlruns", ROOT / "mlruns") if path.exists()]
    store.close()


def test_a_broken_store_is_one_warning_and_costs_nothing(plain, tmp_path):
    pytest.importorskip("mlflow", reason="needs the set `tracking`: python tools/bootstrap.py core tracking")
    place = a_place(tmp_path)
    place.reports.mkdir()
    (place.reports / "mlflow.db").write_text("no database\n" * 100)
    done = place.train(*PPO, "--track", "mlflow")
    assert done.code == 0
    told = [line for line in done.err.splitlines() if line.startswith("warning")]
    assert len(told) == 1
    assert told[0].startswith("warning: --track mlflow: ")
    assert "not a database" in told[0]
    assert models_of(plain[0], *CLOCK) == models_of(place, *CLOCK)


def test_a_missing_package_is_one_warning_with_the_command_that_installs_it(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setitem(tracking.MIRRORS, "mlflow", ("a_package_nobody_has",))
    with tracking.tracking(["mlflow", "mlflow"], tmp_path, tmp_path, said.append):
        pass
    assert said == [
        "warning: --track mlflow: the package a_package_nobody_has is not installed; the run goes on without it. "
        "Install it with: python tools/bootstrap.py core tracking"
    ]


def test_a_mirror_that_dies_is_one_warning(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(tracking.sys, "executable", "/bin/false")
    with tracking.tracking(["tensorboard"], tmp_path, tmp_path, said.append):
        pass
    assert len(said) == 1
    assert "ended with exit code 1" in said[0]


def test_training_imports_no_mirror():
    """They cost a second and two hundred megabytes, and what they do on import is theirs to know."""
    importing = {}
    for path in sorted((ROOT / "rl").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                if name.split(".")[0] in ("mlflow", "tensorboard") or name == "rl.apps.commands.mirror":
                    importing.setdefault(path.relative_to(ROOT).as_posix(), set()).add(name)
    assert list(importing) == ["rl/apps/commands/mirror.py"]


# --- on a terminal --------------------------------------------------------------------------------------------------


def test_on_a_terminal_of_80_columns_a_bar_runs_lines_fit_and_ctrl_c_is_kind(plain):
    """A real terminal, since what a bar does to one is not seen elsewhere."""
    place, _ = plain
    settings = [
        word for each in (*TINY, "training_sequence.stage_1_ppo.episodes=1000000") for word in ("--set", each)
    ]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "run_training.py", *place.folders(), *settings, *PPO, "--resume", "never"],
        cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"},
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    shown, deadline, is_asked = b"", time.monotonic() + 240, False
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 1.0)[0]:
            try:
                shown += os.read(ours, 1 << 16)
            except OSError:  # the other end is closed
                break
        if not is_asked and b"steps/s" in shown:
            os.write(ours, b"\x03")
            is_asked = True
    os.close(ours)
    assert process.wait(60) == 130
    text = shown.decode()
    assert "/1000000 ep" in text
    assert "stopping: what is at hand is finished and saved first; once more ends it at once" in text
    assert f"Run {run_folder(place).name} is saved and goes on with: {interpreter()} run_training.py" in text
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text))
    # Commands, paths and errors are left whole, to be copied.
    too_long = [line for line in lines if len(line) > 80 and not re.search(r"python run_|/", line)]
    assert too_long == []
