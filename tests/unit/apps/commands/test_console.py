"""What is printed where: text, JSON lines or only the result; every event in the log."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from rl.apps.commands.console import Console, TrainingListener
from rl.common.errors import DataError
from rl.common.runlog import RunLog
from rl.market.checks import counted
from rl.stages.gates import CriterionResult, Verdict

VERDICT = Verdict(
    outcome="FAIL",
    level="progress",
    symbol="Nifty_2",
    stage="ppo",
    criteria=(CriterionResult(name="win_rate", value=0.3, threshold=0.35, direction="at least", met=False),),
    trades=120,
    sessions=30,
    alpha_used=0.025,
    attempt=1,
    window={"name": "validation", "from": "a", "to": "b"},
    reasons=("win_rate is 0.3, asked at least 0.35.",),
)


@pytest.fixture
def log(tmp_path):
    with RunLog(tmp_path / "run.jsonl") as opened:
        yield opened


def logged(log: RunLog) -> list[dict]:
    return [json.loads(line) for line in Path(log.path).read_text().splitlines()]


def test_text_goes_to_standard_output_and_warnings_to_the_other(log, capsys):
    console = Console(log, as_json=False, quiet=False)
    console.say("progress")
    console.result("result")
    console.warn("careful")
    assert tuple(capsys.readouterr()) == ("progress\nresult\n", "careful\n")


def test_quiet_leaves_the_result_and_the_warnings(log, capsys):
    console = Console(log, as_json=False, quiet=True)
    console.say("progress")
    console.result("result")
    console.warn("careful")
    assert tuple(capsys.readouterr()) == ("result\n", "careful\n")


def test_with_json_only_events_are_printed(log, capsys):
    console = Console(log, as_json=True, quiet=False)
    console.say("progress")
    console.result("result")
    console.event("done", symbol="A")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["event"] == "done"


def test_an_event_is_valid_json_whatever_its_figures_are(log, capsys):
    """nan is not JSON, and a numpy number written as a text is no number any more."""
    Console(log, as_json=True, quiet=False).event(
        "progress",
        loss=float("nan"),
        factor=float("inf"),
        step=np.int64(3),
        rate=np.float32(0.5),
        path=Path("a/b"),
    )

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    event = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert (event["loss"], event["step"], event["rate"], event["path"]) == (None, 3, 0.5, "a/b")


def test_every_event_is_logged_whatever_is_printed(log, capsys):
    for as_json, quiet in ((False, False), (False, True), (True, False)):
        Console(log, as_json=as_json, quiet=quiet).event("done", number=1)
    assert [event["event"] for event in logged(log)] == ["done"] * 3
    assert capsys.readouterr().out.count("done") == 1


class Recorder(io.StringIO):
    """A stream that remembers every single write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


def test_a_line_is_one_write_so_that_workers_do_not_tear_each_others(log, monkeypatch):
    stream = Recorder()
    monkeypatch.setattr("sys.stdout", stream)
    Console(log, as_json=True, quiet=False).event("done", number=1)
    Console(log, as_json=False, quiet=False).say("text")
    assert len(stream.writes) == 2
    assert all(write.endswith("\n") for write in stream.writes)


def test_a_problem_names_its_symbol_once(log, capsys):
    console = Console(log, as_json=False, quiet=False)
    console.problem("A_5", DataError("A_5: too short"))
    console.problem("A_5", DataError("the file is empty"))
    assert capsys.readouterr().err == "A_5: too short\nA_5: the file is empty\n"
    assert [event["kind"] for event in logged(log)] == ["DataError", "DataError"]


@pytest.mark.parametrize(("count", "text"), [(0, "0 symbols"), (1, "1 symbol"), (2, "2 symbols")])
def test_a_count_agrees_with_its_noun(count, text):
    assert counted(count, "symbol") == text


# --- the listener ---------------------------------------------------------------------------------------------------


def test_a_judged_stage_shows_its_gate_with_every_figure(log, capsys):
    listener = TrainingListener(Console(log, as_json=False, quiet=False), bars=False)
    listener.judged("Nifty_2", "ppo", VERDICT, 12.34, 10.0)
    out = capsys.readouterr().out
    assert "Nifty_2: stage 1 (ppo) done in 12.3 s (10.0 s CPU)" in out
    assert "Gate after stage 1 (ppo) for Nifty_2: FAIL" in out
    assert "short by 0.05" in out
    assert logged(log)[0]["verdict"]["outcome"] == "FAIL"


def test_every_update_is_logged_and_few_are_printed(log, capsys):
    listener = TrainingListener(Console(log, as_json=False, quiet=False), bars=False)
    listener.stage_started("Nifty_2", "ppo", 100, "episodes", "100 episodes")
    for done in range(1, 51):
        listener.progressed("Nifty_2", "ppo", {"episodes_this_call": done})
    assert capsys.readouterr().out == ""
    assert sum(event["event"] == "progress" for event in logged(log)) == 50


def test_without_a_terminal_a_line_now_and_then_tells_how_far_it_is(log, capsys, monkeypatch):
    clock = iter([0.0, 0.0, *(40.0 * step for step in range(1, 30))])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    listener = TrainingListener(Console(log, as_json=False, quiet=False), bars=False)
    listener.stage_started("Nifty_2", "ppo", 100, "episodes", "100 episodes")
    validation = {"win_rate": 0.514, "profit_factor": 1.2}
    figures = {"episodes_this_call": 20, "steps_per_second": 51_000.0, "validation": validation}
    listener.progressed("Nifty_2", "ppo", figures)
    # 20 of 100 in 40 s: 160 s are left.
    assert capsys.readouterr().out == (
        "  Nifty_2 ppo 20/100 51k steps/s val win 51.4% PF 1.20 about 160 s left\n"
    )


def test_on_a_terminal_a_bar_follows_the_episodes(log, capsys):
    listener = TrainingListener(Console(log, as_json=False, quiet=False), bars=True)
    listener.stage_started("Nifty_2", "ppo", 100, "episodes", "100 episodes")
    listener.progressed("Nifty_2", "ppo", {"episodes_this_call": 40})
    assert listener._bar.n == 40
    listener.said("Nifty_2", "champion")
    shown = capsys.readouterr()
    assert "Nifty_2 ppo (100 episodes)" in shown.err
    assert shown.out == "  Nifty_2: champion\n"


def test_meta_iterations_count_as_progress_too(log):
    listener = TrainingListener(Console(log, as_json=False, quiet=False), bars=True)
    listener.stage_started("Nifty_2", "maml", 10, "iterations", "10 iterations")
    # The 43rd iteration in all, the third of an extension.
    listener.progressed("Nifty_2", "maml", {"iteration": 43, "iterations_this_call": 3, "query_reward": 0.01})
    assert listener._bar.n == 3
    listener.judged("Nifty_2", "maml", VERDICT, 1.0, 1.0)
    assert listener._bar is None
