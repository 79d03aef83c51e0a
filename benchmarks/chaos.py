"""Kill a real training again and again, flip bits in its files, and see whether anything is lost: `--help`.

Every training is the command a user types, in a process of its own, on a made-up market; it is killed from outside.
What a run comes to is compared with an uninterrupted one to the last bit, but for times and the run's own name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.comparing_runs import without

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("kills", "moments", "signals", "damage", "workers", "trainers")
STAGES = ("ppo", "moe", "maml")

PLAN = (
    "training_params.ppo.num_envs=16",
    "training_params.ppo.rollout_steps=32",
    "training_params.ppo.hidden_dim=16",
    "training_params.ppo.k_epochs=2",
    "training_params.moe.expert_hidden_dim=16",
    "training_params.moe.gating_hidden_dim=4",
    "training_params.maml.support_steps=32",
    "training_params.maml.query_steps=32",
    "training_params.maml.inner_loop_steps=2",
    "training_params.maml.evaluation_steps=2",
    "training_params.maml.support_sessions=1",
    "training_params.maml.query_sessions=1",
    "training_params.maml.meta_batch_size=2",
    "training_sequence.stage_1_ppo.episodes=24",
    "training_sequence.stage_2_moe.episodes=16",
    "training_sequence.stage_3_maml.meta_iterations=20",
    "training_sequence.stage_3_maml.success_criteria.min_adaptation_speed=2",
    # Stage 1 is extended once, so that an attempt more than the planned one is killed too.
    "progression_rules.advancement_criteria.stage_1_to_2.min_episodes=25",
    "progression_rules.advancement_criteria.stage_2_to_3.min_episodes=0",
    "progression_rules.fallback_strategies.extend_training=true",
    "progression_rules.fallback_strategies.max_extension_episodes=8",
    "progression_rules.fallback_strategies.hyperparameter_tuning=false",
    "model_management.keep_best_models=false",
    "monitoring.checkpoint_frequency=2",
    "environment.episode_bars=64",
    # Too few sessions for a verdict, so that every stage is trained whatever it earns.
    "evidence.min_sessions=1000",
    "features.exclude=['x_*']",
)
"""The shipped plan, all three stages, an extension and the control of stage 2, small enough for hundreds of starts."""

MOMENTS = {
    "between stages": lambda line: line.get("event") == "stage_judged",
    "in a gate": lambda line: line.get("kind") == "look" and line["purpose"] != "promotion",
    "in promotion": lambda line: line.get("kind") == "look" and line["purpose"] == "promotion",
    "while promotions are settled": lambda line: line.get("kind") == "settlement",
}
"""When to kill: the line of the run log or of the ledger after which the moment begins."""

CLOCK = ("time", "chain", "changed", "seconds", "wall_seconds", "cpu_seconds", "steps_per_second")
_SECONDS = re.compile(r"[\d.]+ s\b( \([\d.]+ s CPU\))?")


@dataclass
class Place:
    """Folders of one user, and the command he types."""

    root: Path
    symbols: tuple[str, ...]
    options: tuple[str, ...] = ()

    @property
    def models(self) -> Path:
        """Models."""
        return self.root / "models"

    @property
    def reports(self) -> Path:
        """Reports, runs and the ledger."""
        return self.root / "reports"

    @property
    def ledger(self) -> Path:
        """The evidence ledger."""
        return self.reports / "evidence_ledger.jsonl"

    def run_folder(self) -> Path:
        """Return the folder of the newest run."""
        return max((self.reports / "runs").iterdir(), key=lambda path: path.name)

    def has_ended(self) -> bool:
        """Return True once the newest run is over: the same command would begin another one."""
        record = self.run_folder() / "run.json"
        return record.exists() and json.loads(record.read_text())["state"] == "finished"

    def working_seconds(self) -> float:
        """Return how long the newest run was at work, from the first line of its log to the last."""
        lines, _ = self.lines(self.run_folder() / "events.jsonl", 0)
        first, last = (datetime.fromisoformat(line["time"]) for line in (lines[0], lines[-1]))
        return (last - first).total_seconds()

    def command(self, *more: str) -> list[str]:
        """Return the words of the command."""
        folders = {"raw-data-dir": "raw", "processed-data-dir": "processed"}
        words = [sys.executable, "run_training.py", "--symbols", *self.symbols, "--stages", *STAGES]
        for option, folder in {**folders, "models-dir": "models", "reports-dir": "reports"}.items():
            words += [f"--{option}", str(self.root / folder)]
        return [*words, *(word for key in PLAN for word in ("--set", key)), *self.options, *more]

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Start the command; what it says goes to a file."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        for name in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
            environment[f"{name}_NUM_THREADS"] = "1"
        with (self.root / "said.txt").open("ab") as said:
            return subprocess.Popen(self.command(*more), cwd=ROOT, env=environment, stdout=said, stderr=said)

    def lines(self, path: Path, seen: int) -> tuple[list[dict[str, Any]], int]:
        """Return the whole lines of a file of JSON lines from byte `seen` on, and where they end."""
        if not path.exists():
            return [], seen
        with path.open("rb") as file:
            file.seek(seen)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        found = []
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found, seen + len(whole)


@dataclass
class Watch:
    """Reads a run's log and ledger as they grow."""

    place: Place
    at: dict[Path, int] = field(default_factory=dict)

    def news(self) -> list[dict[str, Any]]:
        """Return the lines that were added since this was asked last."""
        paths = [self.place.ledger]
        if (self.place.reports / "runs").is_dir():
            paths += sorted((self.place.reports / "runs").glob("*/events.jsonl"))
        found: list[dict[str, Any]] = []
        for path in paths:
            lines, self.at[path] = self.place.lines(path, self.at.get(path, 0))
            found += lines
        return found


def new_place(symbols: Sequence[str], options: Sequence[str] = (), *, sessions: int = 40) -> Place:
    """Return a place with a made-up market for each symbol."""
    from rl.__main__ import main

    place = Place(Path(tempfile.mkdtemp(prefix="stagegate-chaos-")), tuple(symbols), tuple(options))
    for seed, symbol in enumerate(symbols):
        words = ["--market", "planted", "--sessions", str(sessions), "--seed", str(seed)]
        with contextlib.redirect_stdout(sys.stderr):
            main(["synth", *words, "--out", str(place.root / "raw" / f"{symbol}.csv")])
    return place


def until(
    process: subprocess.Popen[bytes], watch: Watch, is_due: Callable[[list[dict[str, Any]]], bool]
) -> bool:
    """Wait until something is due; False where the process ended before."""
    while process.poll() is None:
        if is_due(watch.news()):
            return True
        time.sleep(0.002)
    return False


# --- what a run came to -----------------------------------------------------------------------------------------------


def traces(place: Place) -> dict[str, Any]:
    """Return everything a finished run leaves behind, without times and the run's name."""
    from rl.checkpoints.checkpoint import load_checkpoint

    name = place.run_folder().name

    def plain(value: Any) -> Any:
        text = json.dumps(value, sort_keys=True, default=str)
        return without(json.loads(text.replace(name, "RUN").replace(str(place.root), "")), CLOCK)

    models = {}
    for path in sorted(place.models.rglob("*.pth")):
        checkpoint = load_checkpoint(path)
        tensors = {"weights": checkpoint.weights, **checkpoint.extra_tensors}
        known = {key: value for key, value in vars(checkpoint).items() if key not in ("weights", "sha256")}
        known["extra_tensors"] = sorted(checkpoint.extra_tensors)
        bits = {key: tensor.numpy().tobytes().hex() for key, tensor in tensors.items()}
        models[path.name] = [plain(known), bits]
    lines, _ = place.lines(place.ledger, 0)
    report = json.loads((place.run_folder() / "training_report.json").read_text())
    text = (place.run_folder() / "training_report.txt").read_text().replace(name, "RUN")
    by_symbol = sorted(lines, key=lambda line: line["symbol"])
    return {
        "models": models,
        "ledger": [plain(line) for line in by_symbol],
        "report": plain(report),
        "text": _SECONDS.sub("", text.replace(str(place.root), "")),
    }


def differing(place: Place, reference: dict[str, Any]) -> list[str]:
    """Return which traces of a finished run are not those of the uninterrupted one."""
    found = traces(place)
    return [name for name in reference if found[name] != reference[name]]


def losses(place: Place, acknowledged: dict[str, int]) -> dict[str, int]:
    """Return what is unreadable in a place right after a kill, and what lies behind what was acknowledged."""
    from rl.checkpoints.checkpoint import load_checkpoint
    from rl.checkpoints.state_files import StateFiles
    from rl.common.errors import CheckpointError

    unreadable = behind = 0
    for path in place.models.rglob("*.pth"):
        try:
            load_checkpoint(path)
        except CheckpointError:
            unreadable += 1
    for symbol, generation in acknowledged.items():
        folder = place.run_folder() / "state" / symbol
        if not folder.is_dir():
            continue  # the run has ended, and its state with it
        files = StateFiles(folder)
        unreadable += len(files.notes)
        behind += files.generation < generation
    return {"unreadable": unreadable, "behind": behind}


def strays(place: Place) -> int:
    """Return how many files of killed writers are left."""
    return len(list(place.root.rglob("*.tmp")))


def run_in_a_process(place: Place) -> int:
    """Run a place's command and return its exit code."""
    return place.start().wait()


# --- the parts --------------------------------------------------------------------------------------------------------


@dataclass
class Chaos:
    """One series of experiments, and what it found."""

    symbol: str
    random: random.Random
    options: argparse.Namespace
    run: Callable[[Place], int] = run_in_a_process
    """How a run that nobody disturbs is made."""
    _references: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)
    _seconds: float = 0.0

    def reference(self, *symbols: str) -> dict[str, Any]:
        """Return the traces of a run nobody disturbs; made once."""
        names = symbols or (self.symbol,)
        if names not in self._references:
            place = new_place(names)
            code = self.run(place)
            _require(code == 0, place, f"the undisturbed run ended with {code}")
            self._seconds = place.working_seconds()
            self._references[names] = traces(place)
            shutil.rmtree(place.root)
        return self._references[names]

    def kills(self) -> dict[str, Any]:
        """Kill -9 at random moments, look at the files each time, go on, and compare every run that ends."""
        return self.disturbed(self.options.kills, [signal.SIGKILL])

    def signals(self) -> dict[str, Any]:
        """SIGTERM at random moments: how soon does it end, is all of it saved, does it come to the same."""
        return self.disturbed(self.options.signals, [signal.SIGTERM])

    def disturbed(self, wanted: int, numbers: Sequence[signal.Signals]) -> dict[str, Any]:
        """Send so many signals, in turn, at random moments of as many trainings as that takes."""
        reference = self.reference()
        found: dict[str, Any] = {
            "disturbed": 0, "unreadable": 0, "behind": 0, "runs_ended": 0, "runs_differing": 0, "strays_left": 0,
            "after_the_end": 0,
            "exit_codes": [], "slowest_end_seconds": 0.0, "most_work_to_end_seconds": 0.0, "in": {},
        }  # fmt: skip
        while found["disturbed"] < wanted:
            place = new_place([self.symbol])
            self._one_run(place, wanted, numbers, found)
            found["runs_ended"] += 1
            if names := differing(place, reference):
                found["runs_differing"] += 1
                found.setdefault("differences", []).append({"names": names, "folder": str(place.root)})
                continue
            found["strays_left"] += strays(place)
            shutil.rmtree(place.root)
        found["exit_codes"] = sorted(set(found["exit_codes"]))
        return found

    def _one_run(
        self, place: Place, wanted: int, numbers: Sequence[signal.Signals], found: dict[str, Any]
    ) -> None:
        """Disturb one training again and again, and in the end let it end."""
        watch, acknowledged, last = Watch(place), {}, {"event": "nothing"}

        def hear(lines: list[dict[str, Any]]) -> None:
            for line in lines:
                if line.get("event") == "state_saved":
                    acknowledged[line["symbol"]] = line["generation"]
                last.update(line)

        disturbances = 0
        while True:
            process = place.start()
            is_last = found["disturbed"] >= wanted or disturbances >= self.options.per_run
            if is_last:
                _require(
                    process.wait() == 0, place, f"a run that was gone on with ended with {process.returncode}"
                )
                return
            # From its first line on it is at work; what comes before is loading libraries.
            began = until(process, watch, lambda lines: (hear(lines), bool(lines))[1])
            # Mean gaps that add up to four fifths of a run, so that its end is reached as well as its beginning.
            due = time.monotonic() + self.random.uniform(0.0, 1.6 * self._seconds / self.options.per_run)
            alive = began and until(
                process, watch, lambda lines, due=due: (hear(lines), time.monotonic() > due)[1]
            )
            if not alive:
                _require(process.wait() == 0, place, f"an undisturbed run ended with {process.returncode}")
                if disturbances == 0:
                    # The first of all runs compiled what the others find compiled.
                    self._seconds = min(self._seconds, place.working_seconds())
                return
            asked, worked = time.monotonic(), cpu_seconds(process.pid)
            process.send_signal(numbers[found["disturbed"] % len(numbers)])
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            found["most_work_to_end_seconds"] = max(
                found["most_work_to_end_seconds"], used.ru_utime + used.ru_stime - worked
            )
            if process.returncode == 0:
                return
            ended_after = time.monotonic() - asked
            hear(watch.news())
            at = str(last.get("stage") or last["event"])
            found["in"][at] = found["in"].get(at, 0) + 1
            for what, count in losses(place, acknowledged).items():
                found[what] += count
            if place.has_ended():
                found["after_the_end"] += 1
                return
            found["exit_codes"].append(process.returncode)
            found["slowest_end_seconds"] = max(found["slowest_end_seconds"], ended_after)
            found["disturbed"] += 1
            disturbances += 1

    def moments(self) -> dict[str, Any]:
        """Kill -9 in named moments, go on, and see that nothing was done twice or by halves."""
        reference, found = self.reference(), {}
        for name, is_due in MOMENTS.items():
            each = {"killed": 0, "half_written_models": 0, "runs_differing": 0}
            # No more tries than this, should the moment be too short to hit.
            for _ in range(3 * self.options.moments):
                if each["killed"] == self.options.moments:
                    break
                place = new_place([self.symbol])
                process, watch = place.start(), Watch(place)
                skipped = self.random.randrange(3) if name in ("between stages", "in a gate") else 0

                def due(lines: list[dict[str, Any]], is_due=is_due) -> bool:
                    nonlocal skipped
                    for line in lines:
                        if is_due(line):
                            skipped -= 1
                    return skipped < 0

                hit = until(process, watch, due)
                time.sleep(self.random.uniform(0.0, 0.05))
                process.kill()
                process.wait()
                if hit and process.returncode == -signal.SIGKILL and not place.has_ended():
                    each["killed"] += 1
                    each["half_written_models"] += losses(place, {})["unreadable"]
                    _require(place.start().wait() == 0, place, "a run that was gone on with failed")
                if differing(place, reference):
                    each["runs_differing"] += 1
                    continue
                shutil.rmtree(place.root)
            found[name] = each
        return found

    def damage(self) -> dict[str, Any]:
        """Flip single bits in, and cut off, models, their sidecars and state files: is every damage noticed?"""
        place = new_place([self.symbol])
        process, watch = place.start(), Watch(place)
        judged: list[str] = []

        def due(lines: list[dict[str, Any]]) -> bool:
            judged.extend(line["stage"] for line in lines if line.get("event") == "stage_judged")
            return len(judged) == 2 and any(
                "training-maml-planned" in line.get("entries", []) for line in lines
            )

        _require(until(process, watch, due), place, "the run ended before it could be killed in stage 3")
        process.kill()
        process.wait()
        models = [*place.models.glob("*.pth"), *place.models.glob("*.pth.json")]
        state = list((place.run_folder() / "state" / self.symbol).iterdir())
        found = {}
        for kind, count, change in (
            ("bit flips", self.options.flips, self._flipped),
            ("truncations", self.options.truncations, self._cut),
        ):
            each = {"tried": 0, "noticed": 0, "missed": []}
            for number in range(count):
                path = self.random.choice(models if number % 2 else state)
                each["tried"] += 1
                if self._is_noticed(path, change):
                    each["noticed"] += 1
                else:
                    each["missed"].append(path.name)
            found[kind] = each
        shutil.rmtree(place.root)
        return found

    def _flipped(self, data: bytes) -> bytes:
        place, changed = self.random.randrange(len(data)), bytearray(data)
        changed[place] ^= 1 << self.random.randrange(8)
        return bytes(changed)

    def _cut(self, data: bytes) -> bytes:
        return data[: self.random.randrange(len(data))]

    def _is_noticed(self, path: Path, change: Callable[[bytes], bytes]) -> bool:
        """Damage a copy of a file's folder and read what lies there as the program does."""
        from rl.checkpoints.checkpoint import load_checkpoint
        from rl.checkpoints.state_files import StateFiles
        from rl.common.errors import CheckpointError

        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            shutil.copytree(
                path.parent, copy, ignore=lambda _, names: [n for n in names if n.endswith(".tmp")]
            )
            damaged = copy / path.name
            damaged.write_bytes(change(damaged.read_bytes()))
            if "state" in path.parts:
                # The generation before it may not need the file: then it is no damage to go on from that.
                files = StateFiles(copy)
                return bool(files.notes) or damaged.name not in _in_use(copy)
            try:
                load_checkpoint(copy / path.name.removesuffix(".json"))
            except CheckpointError:
                return True
            return False

    def workers(self) -> dict[str, Any]:
        """Kill -9 one worker of `--jobs 2`: how soon is it noticed, and do both symbols come to the same?"""
        names = [self.symbol, f"{self.symbol[:-2]}_b_2"]
        # Made by one process after the other: that is the same run.
        reference = self.reference(*names)
        found: dict[str, Any] = {"killed": 0, "slowest_notice_seconds": 0.0, "runs_differing": 0}
        for _ in range(self.options.workers):
            place = new_place(names, ["--jobs", "2"])
            process, watch = place.start(), Watch(place)
            saves = self.random.randrange(1, 20)

            def due(lines: list[dict[str, Any]]) -> bool:
                nonlocal saves
                saves -= sum(line.get("event") == "state_saved" for line in lines)
                return saves <= 0

            _require(until(process, watch, due), place, "the run ended before a worker could be killed")
            victim = self.random.choice(children_of(process.pid))
            at = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            noticed = until(
                process, watch, lambda lines: any(line.get("event") == "worker_died" for line in lines)
            )
            _require(noticed, place, "nobody noticed that a worker died")
            found["slowest_notice_seconds"] = max(found["slowest_notice_seconds"], time.monotonic() - at)
            _require(process.wait() == 0, place, f"the run ended with {process.returncode}")
            found["killed"] += 1
            if differing(place, reference):
                found["runs_differing"] += 1
                continue
            shutil.rmtree(place.root)
        return found

    def trainers(self) -> dict[str, Any]:
        """Start a second trainer on the same symbol and models while the first is at work."""
        reference = self.reference()
        found: dict[str, Any] = {"tried": 0, "refused": 0, "first_differing": 0, "exit_codes": []}
        for _ in range(self.options.trainers):
            place = new_place([self.symbol])
            process, watch = place.start(), Watch(place)
            _require(
                until(
                    process, watch, lambda lines: any(line.get("event") == "state_saved" for line in lines)
                ),
                place,
                "the first trainer saved nothing",
            )
            second = place.start("--reports-dir", str(place.root / "other"))
            code = second.wait()
            found["tried"] += 1
            found["refused"] += code not in (0, 1, 5)
            found["exit_codes"].append(code)
            _require(process.wait() == 0, place, f"the first trainer ended with {process.returncode}")
            found["first_differing"] += bool(differing(place, reference))
            shutil.rmtree(place.root)
        return found


def _in_use(folder: Path) -> set[str]:
    """Return the state files the newest generation names, its manifest included."""
    manifest = max(folder.glob("manifest-*.json"))
    return {manifest.name} | {entry["file"] for entry in json.loads(manifest.read_text())["files"].values()}


def children_of(pid: int) -> list[int]:
    """Return the worker processes of a command: those that another one was started by, and train."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            parent = re.search(r"^PPid:\s+(\d+)", status.read_text(), re.MULTILINE)
            command = (status.parent / "cmdline").read_bytes()
            # The other child is multiprocessing's own resource tracker.
            if parent and int(parent[1]) == pid and b"spawn_main" in command:
                found.append(int(status.parent.name))
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _require(holds: bool, place: Place, what: str) -> None:
    if not holds:
        said = (place.root / "said.txt").read_text(errors="replace")[-2000:]
        raise SystemExit(f"{what}; see {place.root}\n{said}")


# --- the command ------------------------------------------------------------------------------------------------------


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"which; all if none is named: {', '.join(PARTS)}"
    )
    for name, count, what in (
        ("kills", 200, "kill -9 at random moments"),
        ("per-run", 5, "of them on the way of one training, which is then let end and compared"),
        ("moments", 20, "kill -9 in each of the named moments"),
        ("signals", 50, "SIGTERM at random moments"),
        ("flips", 300, "flipped bits"),
        ("truncations", 50, "truncated files"),
        ("workers", 5, "killed workers of --jobs 2"),
        ("trainers", 3, "second trainers"),
        ("seed", 0, "decides the moments"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=count, metavar="N", help=f"{what} (default: {count})"
        )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; there are: {', '.join(PARTS)}")
    return options


def rows(results: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield what was done and what came of it, a line of the table each."""
    for part, found in results.items():
        nested = {name: each for name, each in found.items() if isinstance(each, dict) and name != "in"}
        for name, each in (nested or {part: found}).items():
            figures = ", ".join(
                f"{key} {_figure(value)}" for key, value in each.items() if value not in ([], {})
            )
            yield name, figures


def _figure(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def is_lossless(results: dict[str, dict[str, Any]]) -> bool:
    """Return True where nothing was lost, half done or missed."""
    bad = ("unreadable", "behind", "runs_differing", "strays_left", "half_written_models", "first_differing")

    def lost(found: dict[str, Any]) -> bool:
        missed = found.get("noticed", 0) != found.get("tried", 0) if "noticed" in found else False
        unrefused = "refused" in found and found["refused"] != found["tried"]
        inner = any(lost(each) for name, each in found.items() if isinstance(each, dict) and name != "in")
        return missed or unrefused or inner or any(found.get(name) for name in bad)

    return not any(lost(found) for found in results.values())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for, print a table; return 1 where anything was lost."""
    options = parse_options(argv)
    chaos = Chaos("SYN_chaos_2", random.Random(options.seed), options)
    results: dict[str, dict[str, Any]] = {}
    for part in options.parts or PARTS:
        began = time.monotonic()
        results[part] = getattr(chaos, part)()
        print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        if options.json is not None:
            from rl.common.atomic_files import write_json

            write_json(options.json, results)
    print(
        "| Done | Came of it |",
        "|---|---|",
        *(f"| {name} | {text} |" for name, text in rows(results)),
        sep="\n",
    )
    return 0 if is_lossless(results) else 1


if __name__ == "__main__":
    sys.exit(main())
