"""The process behind `--track`: reads a run's events as they are written, and shows them in TensorBoard and MLflow.

Started by `rl.apps.commands.tracking`; ends when its standard input does. A mirror that fails is told of by one line on
standard output and left alone from then on.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import yaml

from rl.common.atomic_files import write_json
from rl.common.nested import flat
from rl.common.runlog import ENVIRONMENT, EVENTS, PLAN
from rl.reporting.metrics_table import KEYS, MetricRows

LOOK_EVERY_SECONDS = 1.0
POSITIONS = "tracking.json"
"""How much of the events each mirror has shown, in bytes; a run that is gone on with goes on from there."""

STORE = "mlflow.db"
EXPERIMENT = "stagegate"
LONGEST_VALUE = 500
TRIES, TRY_AGAIN_SECONDS = 10, 2.0
"""Another run may be writing to the same store."""

LAST_SECONDS = 120.0
"""What the mirrors are given to write down the rest when a run is over."""

TOO_SLOW = 75
"""Exit code where that was not enough."""

Event = dict[str, Any]


class Mirror(Protocol):
    """Shows events somewhere else."""

    def show(self, events: Sequence[Event]) -> None:
        """Show events that were not shown before, in their order."""

    def close(self) -> None:
        """Write down what is not written yet."""


class TensorBoardMirror:
    """Event files in `tensorboard/<symbol>/<stage>` of the run's folder; no TensorFlow, no torch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._writers: dict[Path, Any] = {}
        self._rows = MetricRows()

    def show(self, events: Sequence[Event]) -> None:
        """Write a point for each figure of each update, and for each figure of a gate."""
        for event in events:
            at = datetime.fromisoformat(event["time"])
            if event["event"] == "progress":
                of = event["symbol"], event["stage"], event["attempt"]
                row = self._rows.row(*of, event, at)
                self._write(of, at, step_of(event), {name: row[name] for name in row if name not in KEYS})
            elif event["event"] == "stage_judged":
                of = event["symbol"], event["stage"], 1
                self._write(of, at, 0, gate_figures(event))
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()

    def _write(self, of: tuple[str, str, int], at: datetime, step: int, figures: dict[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event as Record  # ty: ignore[import-not-found]
        from tensorboard.compat.proto.summary_pb2 import Summary  # ty: ignore[import-not-found]
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        symbol, stage, attempt = of
        place = self._folder / symbol / (stage if attempt == 1 else f"{stage}-{attempt_name(attempt)}")
        if place not in self._writers:
            self._writers[place] = EventFileWriter(str(place))
        values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        record = Record(wall_time=at.timestamp(), step=step, summary=Summary(value=values))
        self._writers[place].add_event(record)


class MLflowMirror:
    """One MLflow run in `mlflow.db` of the reports folder; the plan as parameters, verdicts as tags."""

    def __init__(self, folder: Path, reports_dir: Path) -> None:
        with _alone(reports_dir / f"{STORE}.lock"):
            # Only one process may make or move up the tables of a store.
            from mlflow.tracking import MlflowClient

            self._client = MlflowClient(tracking_uri=f"sqlite:///{(reports_dir / STORE).resolve()}")
            self._run = self._found_or_new(folder)
        self._rows = MetricRows()

    def show(self, events: Sequence[Event]) -> None:
        """Log the figures of updates and gates, and what became of each symbol."""
        from mlflow.entities import Metric, RunTag

        metrics, tags = [], []
        for event in events:
            at = datetime.fromisoformat(event["time"])
            if event["event"] == "progress":
                of = event["symbol"], event["stage"], event["attempt"]
                row = self._rows.row(*of, event, at)
                found = {name: row[name] for name in row if name not in KEYS}
                symbol, stage, attempt = of
                prefix = f"{symbol}/{stage}" if attempt == 1 else f"{symbol}/{stage}-{attempt_name(attempt)}"
                step = step_of(event)
            elif event["event"] == "stage_judged":
                found, step, prefix = gate_figures(event), 0, f"{event['symbol']}/{event['stage']}"
                tags.append(RunTag(_key(f"gate/{prefix}"), gate_sentence(event)))
            else:
                if event["event"] == "symbol_done":
                    tags.append(RunTag(_key(f"promotion/{event['symbol']}"), str(event["promotion"])))
                continue
            when = int(at.timestamp() * 1000)
            metrics += [Metric(_key(f"{prefix}/{name}"), value, when, step) for name, value in found.items()]
        for first in range(0, max(len(metrics), 1), 500):
            part = metrics[first : first + 500]
            self._patiently(lambda part=part: self._client.log_batch(self._run, metrics=part))
        for first in range(0, len(tags), 100):
            part = tags[first : first + 100]
            self._patiently(lambda part=part: self._client.log_batch(self._run, tags=part))

    def close(self) -> None:
        """Note that the run is over, or was interrupted."""
        self._patiently(lambda: self._client.set_terminated(self._run, self._status()))

    def _status(self) -> str:
        try:
            state = json.loads((self._folder / "run.json").read_text(encoding="utf-8"))["state"]
        except (OSError, ValueError, KeyError):
            return "FAILED"
        return {"finished": "FINISHED", "stopped": "KILLED"}.get(state, "FAILED")

    def _found_or_new(self, folder: Path) -> str:
        from mlflow.entities import Param, RunTag

        self._folder = folder
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            # Nothing is put there; without it MLflow would name ./mlruns.
            place = (folder.parent.parent / "mlflow-artifacts").resolve().as_uri()
            number = self._client.create_experiment(EXPERIMENT, artifact_location=place)
        else:
            number = experiment.experiment_id
        there = self._client.search_runs(
            [number], filter_string=f"attributes.run_name = '{folder.name}'", max_results=1
        )
        if there:
            self._client.update_run(there[0].info.run_id, status="RUNNING")
            return there[0].info.run_id
        made = self._client.create_run(number, run_name=folder.name)
        plan = flat(yaml.safe_load((folder / PLAN).read_text(encoding="utf-8")))
        params = [Param(_key(name), str(value)[:LONGEST_VALUE]) for name, value in plan.items()]
        for first in range(0, len(params), 100):
            self._client.log_batch(made.info.run_id, params=params[first : first + 100])
        around = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
        told = ("command", "version", "git_commit", "source_hash")
        tags = [RunTag(name, str(around[name])[:LONGEST_VALUE]) for name in told]
        self._client.log_batch(made.info.run_id, tags=[*tags, RunTag("run_folder", str(folder))])
        return made.info.run_id

    def _patiently(self, work: Callable[[], Any]) -> None:
        from mlflow.exceptions import MlflowException

        for left in reversed(range(TRIES)):
            try:
                work()
            except MlflowException as error:
                if not left or "locked" not in str(error):
                    raise
                time.sleep(TRY_AGAIN_SECONDS)
            else:
                return


def attempt_name(attempt: int) -> str:
    """Return what an attempt after the first is called; 0 is no candidate."""
    return f"attempt{attempt}" if attempt else "comparison"


def step_of(event: Event) -> int:
    """Return where on the axis an update stands: steps trained, or meta-iterations."""
    return int(event.get("steps", event.get("iteration", 0)))


def gate_figures(event: Event) -> dict[str, float]:
    """Return every figure of a gate beside what was asked of it."""
    found: dict[str, float] = {}
    for criterion in event["verdict"]["criteria"]:
        name = criterion["name"]
        for key, value in ((name, criterion["value"]), (f"{name}.asked", criterion["threshold"])):
            # An infinite one is text in the events.
            if isinstance(value, int | float):
                found[f"gate/{key}"] = float(value)
    return {**found, "gate/look": float(event["verdict"]["attempt"])}


def gate_sentence(event: Event) -> str:
    """Return a gate's verdict with its figures in one line."""
    parts = [
        f"{each['name']} {each['value']} ({each['direction']} {each['threshold']})"
        for each in event["verdict"]["criteria"]
    ]
    return f"{event['outcome']} at look {event['verdict']['attempt']}: {', '.join(parts)}"[:5000]


def _key(name: str) -> str:
    """Return a name with nothing but what MLflow takes: ^GSPC becomes _GSPC."""
    return re.sub(r"[^A-Za-z0-9_.\-/ ]", "_", name)[:250]


@contextmanager
def _alone(lock: Path) -> Generator[None]:
    """Hold a lock file while a block runs."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def new_lines(path: Path, position: int) -> tuple[list[bytes], int]:
    """Return the whole lines after a position, and the position after them."""
    if not path.is_file():
        return [], position
    with path.open("rb") as file:
        file.seek(position)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return whole.splitlines(), position + len(whole)


def _events(lines: Sequence[bytes]) -> Iterator[Event]:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            # Cut short when a process was killed; the next line is whole again.
            continue
        if isinstance(event, dict) and "event" in event:
            yield event


class _Follower:
    """One mirror and how far it is."""

    def __init__(self, name: str, begin: Callable[[], Mirror], folder: Path) -> None:
        self.name = name
        self._begin = begin
        self._mirror: Mirror | None = None
        self._log = folder / EVENTS
        self._positions = folder / POSITIONS
        self._position = int(self._read().get(name, 0))
        self._works = True

    def follow(self, *, is_last: bool) -> None:
        """Show what is new; say so once where that fails, and do nothing from then on."""
        if not self._works:
            return
        try:
            self._follow(is_last=is_last)
        except Exception as error:  # noqa: BLE001 - whatever a mirror does must not matter to anybody else
            self._works = False
            reason = " ".join(str(error).split()) or "no reason given"
            print(f"{self.name}: {type(error).__name__}: {reason:.300}", flush=True)

    def _follow(self, *, is_last: bool) -> None:
        if self._mirror is None:
            self._mirror = self._begin()
        lines, position = new_lines(self._log, self._position)
        if lines:
            self._mirror.show(list(_events(lines)))
            self._position = position
            write_json(self._positions, {**self._read(), self.name: position})
        if is_last:
            self._mirror.close()

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(self._positions.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            # None yet; a damaged one costs points that are shown twice.
            return {}


def _wait_for_the_end(over: threading.Event) -> None:
    """Note when the run is over, and end this process whatever hangs in it some time after that."""
    sys.stdin.read()
    over.set()
    time.sleep(LAST_SECONDS)
    os._exit(TOO_SLOW)


def main(arguments: Sequence[str]) -> int:
    """Follow a run until standard input ends: RUN_FOLDER REPORTS_FOLDER MIRROR..."""
    folder, reports_dir, names = Path(arguments[0]), Path(arguments[1]), arguments[2:]
    known: dict[str, Callable[[], Mirror]] = {
        "tensorboard": lambda: TensorBoardMirror(folder),
        "mlflow": lambda: MLflowMirror(folder, reports_dir),
    }
    followers = [_Follower(name, known[name], folder) for name in names]
    over = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(over,), daemon=True).start()
    while True:
        is_last = over.wait(LOOK_EVERY_SECONDS)
        for follower in followers:
            follower.follow(is_last=is_last)
        if is_last:
            return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
