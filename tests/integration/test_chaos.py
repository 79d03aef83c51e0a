"""The real command, killed from outside: a short version of `python -m benchmarks.chaos`."""

from __future__ import annotations

import argparse
import contextlib
import io
import random
from signal import SIGKILL, SIGTERM

import pytest

from benchmarks import chaos
from benchmarks.chaos import Chaos, Place, parse_options
from run_training import main


def run_here(place: Place) -> int:
    """Run a place's command in this process, where everything is loaded and compiled."""
    with contextlib.redirect_stdout(io.StringIO()):
        return main(place.command()[2:])


@pytest.fixture(scope="module")
def options() -> argparse.Namespace:
    return parse_options(["--workers", "1", "--per-run", "2"])


def test_a_training_that_is_killed_and_stopped_loses_nothing(options):
    """All three stages, an extension, the control and promotion; to the last bit of weights, figures and report."""
    done = Chaos("SYN_chaos_2", random.Random(5), options, run_here).disturbed(2, [SIGKILL, SIGTERM])
    assert done["disturbed"] == 2
    assert done["exit_codes"] == [-9, 143]
    # Processor time, because other tests run beside this one.
    assert done["most_work_to_end_seconds"] < 5
    lost = ("unreadable", "behind", "runs_differing", "strays_left")
    assert {name: done[name] for name in lost} == dict.fromkeys(lost, 0)
    assert chaos.is_lossless({"kills": done})


def test_a_killed_worker_is_noticed_and_its_symbol_comes_to_the_same(options, monkeypatch):
    # One stage is enough for that, and half as many seconds.
    monkeypatch.setattr(chaos, "STAGES", ("ppo",))
    done = Chaos("SYN_chaos_2", random.Random(5), options, run_here).workers()
    assert (done["killed"], done["runs_differing"]) == (1, 0)
    assert done["slowest_notice_seconds"] < 5


def test_the_harness_tells_a_run_that_lost_something():
    good = {
        "kills": {"disturbed": 2, "unreadable": 0, "in": {"ppo": 2}},
        "damage": {"bit flips": {"tried": 3, "noticed": 3}},
    }
    assert chaos.is_lossless(good)
    for part, found in (
        ("kills", {"unreadable": 1}),
        ("kills", {"behind": 1}),
        ("moments", {"in a gate": {"killed": 1, "runs_differing": 1}}),
        ("damage", {"bit flips": {"tried": 3, "noticed": 2}}),
        ("trainers", {"tried": 2, "refused": 1}),
    ):
        assert not chaos.is_lossless({**good, part: found}), found
