"""A run interrupted after a finished stage, and what the real command says where something has changed meanwhile."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from rl.common.interpreter import interpreter
from rl.stages.run_state import SymbolJournal
from tests.integration.command_line import Finished, Workplace

SYMBOL = "SYN_planted_2"
USAGE, TERMINATED = 2, 143
CHANGED = ("training_params.ppo.learning_rate=0.001", "evidence.alpha=0.04")


def train(place: Workplace, *more: str, settings: tuple[str, ...] = ()) -> Finished:
    return place.train("--symbols", SYMBOL, "--stages", "ppo", "moe", *more, settings=settings)


def runs(place: Workplace) -> list[str]:
    return sorted(path.name for path in (place.reports / "runs").iterdir())


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workplace:
    """One symbol whose training was sent SIGTERM the moment stage 1 was finished."""
    workplace = Workplace(tmp_path_factory.mktemp("user"))
    workplace.synth(SYMBOL, sessions=30)
    kept = SymbolJournal.keep_stage

    def then_stopped(self: SymbolJournal, stage: str, content: dict) -> None:
        kept(self, stage, content)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SymbolJournal, "keep_stage", then_stopped)
        done = train(workplace)
    assert done.code == TERMINATED, done.err
    assert f"is saved and goes on with: {interpreter()} " in done.err
    return workplace


def refused(place: Workplace, done: Finished, *keys: str) -> None:
    """Assert that a run is not gone on with, that every key that changed is named, and that nothing was touched."""
    assert done.code == USAGE, done.err
    assert f"run {runs(place)[0]} did not end, and it cannot be gone on with" in done.err
    for key in keys:
        assert f"\n    {key}" in done.err
    # No key besides those.
    assert done.err.count(" -> ") == len(keys)
    assert f"It has finished {SYMBOL}: ppo; going on would put two different trainings" in done.err
    assert "or begin anew with --resume never." in done.err
    assert "Traceback" not in done.err


def files(place: Workplace) -> dict[Path, bytes]:
    """Return models, ledger and state, which a refusal may not touch."""
    found = [
        *place.models.rglob("*.pth*"),
        *place.reports.rglob("*.jsonl"),
        *place.reports.rglob("state/*/*"),
    ]
    # The log of the run says that it was asked.
    return {path: path.read_bytes() for path in sorted(found) if path.name != "events.jsonl"}


@pytest.mark.parametrize("how", ["auto", "by name"])
def test_a_changed_plan_is_refused_with_each_key_and_both_values(place, how):
    before, more = files(place), () if how == "auto" else ("--resume", runs(place)[0])
    done = train(place, *more, settings=CHANGED)
    refused(
        place,
        done,
        "plan.training_params.ppo.learning_rate: 0.0005 -> 0.001",
        "plan.evidence.alpha: 0.05 -> 0.04",
    )
    assert files(place) == before
    assert len(runs(place)) == 1


def test_a_changed_price_file_is_refused_with_the_symbol_whose_it_is(place):
    path, before = place.raw / f"{SYMBOL}.csv", files(place)
    original = path.read_text()
    *lines, last = original.splitlines()
    time, price, *rest = last.split(",")
    # One price, by a thousandth of a percent; the new one stays between low and high.
    moved = ",".join([time, repr(float(price) * (1 + 1e-9)), *rest])
    path.write_text("\n".join([*lines, moved]) + "\n")
    try:
        refused(place, train(place), f"data.{SYMBOL}: ")
        assert files(place) == before
    finally:
        path.write_text(original)


def test_never_begins_a_run_of_its_own_under_the_changed_plan(place):
    (first,) = runs(place)
    done = train(place, "--resume", "never", settings=CHANGED)
    assert done.code == 0, done.err
    assert len(runs(place)) == 2
    newest = place.reports / "runs" / runs(place)[1]
    assert json.loads((newest / "run.json").read_text())["state"] == "finished"
    report = json.loads((newest / "training_report.json").read_text())
    assert list(report["symbols"][SYMBOL]["stages"]) == ["ppo", "moe"]
    assert report["plan"]["training_params"]["ppo"]["learning_rate"] == 0.001
    # The old run is as it was, and its model is no longer there: that is told, and not trained over.
    assert json.loads((place.reports / "runs" / first / "run.json").read_text())["state"] == "stopped"
    done = train(place, "--resume", first)
    assert done.code == 4, done.err
    assert "Another run has replaced it" in done.err
