"""Two trainers at one symbol: the second is refused before it trains, and its other symbols go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.integration.command_line import ROOT, Workplace
from tests.unit.common.test_locks import HOLDER

HELD, FREE = "SYN_planted_2", "SYN_ou_2"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workplace:
    workplace = Workplace(tmp_path_factory.mktemp("user"))
    workplace.synth(HELD)
    workplace.synth(FREE, "ou")
    return workplace


@pytest.fixture
def other_trainer(place):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(place.models), HELD, "20260102-030405-main-s7"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


def files_of(place: Workplace, symbol: str) -> set[str]:
    return {path.name for path in place.models.glob(f"**/{symbol}*") if path.suffix != ".lock"}


def test_the_second_trainer_is_refused_before_it_trains_and_the_other_symbols_go_on(place, other_trainer):
    done = place.train("--symbols", HELD, FREE, "--stages", "ppo")
    assert done.code == 6
    assert f"{HELD} is being trained" in done.err
    assert "run 20260102-030405-main-s7" in done.err
    assert files_of(place, HELD) == set()
    assert f"{FREE}_ppo_stage1.pth" in files_of(place, FREE)
    ledger = (place.reports / "evidence_ledger.jsonl").read_text().splitlines()
    assert {json.loads(line)["symbol"] for line in ledger} == {FREE}, "a refused trainer has not looked"

    other_trainer.stdin.write("done\n")
    other_trainer.stdin.flush()
    other_trainer.wait()
    done = place.train("--symbols", HELD, "--stages", "ppo")
    assert (done.code, done.err) == (0, "")


def test_a_dry_run_and_a_backtest_are_not_kept_out(place, other_trainer):
    assert place.train("--symbols", HELD, "--dry-run").code == 0
    assert place.backtest("--symbols", FREE).code == 0


def test_the_lock_of_a_killed_trainer_is_taken_over_and_that_is_said(place, other_trainer):
    os.kill(other_trainer.pid, signal.SIGKILL)
    other_trainer.wait()
    done = place.train("--symbols", HELD, "--stages", "ppo")
    assert (done.code, done.err) == (0, "")
    said = f"{HELD}: run 20260102-030405-main-s7 (process {other_trainer.pid}"
    assert said in done.out
    assert "ended without giving back its lock" in done.out
