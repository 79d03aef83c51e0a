"""What is printed where: text, JSON lines or only the result; every event in the log."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest

import rl.apps.commands.console as console_module
from rl.apps.commands.console import Console, Look, TrainingListener, look_of
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
    with RunLog(tmp_path / "events.jsonl") as opened:
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
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["event"] == "done"
    # Who watches reads the other stream; a program that reads this one is not disturbed.
    assert shown.err == "progress\nresult\n"


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


def text_log(log: RunLog) -> str:
    return log.path.with_name("run.log").read_text()


def test_everything_said_is_in_the_text_log_whatever_is_shown(log, capsys):
    console = Console(log, as_json=False, quiet=True)
    console.say("progress")
    console.detail("a check")
    console.warn("careful:\n  twice")
    assert capsys.readouterr().out == ""
    lines = [line.split("Z ", 1)[1] for line in text_log(log).splitlines()]
    assert lines == ["INFO    progress", "DEBUG   a check", "WARNING careful:", "WARNING   twice"]


def test_verbose_shows_what_is_else_only_in_the_log(log, capsys):
    Console(log, as_json=False, quiet=False).detail("a check")
    assert capsys.readouterr().out == ""
    Console(log, as_json=False, quiet=False, look=Look(verbose=True)).detail("a check")
    assert capsys.readouterr().out == "a check\n"


def test_a_disk_that_refuses_the_text_log_costs_that_log_only(log, capsys, monkeypatch):
    console = Console(log, as_json=False, quiet=False)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rl.common.runlog.append_all", refuse)
    console.say("one")
    console.say("two")
    shown = capsys.readouterr()
    assert shown.out == "one\ntwo\n"
    assert shown.err.count("run.log cannot be written") == 1


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "no_color", "variables", "has_colour"),
    [
        (Terminal(), False, {}, True),
        (Terminal(), True, {}, False),
        (Terminal(), False, {"NO_COLOR": "1"}, False),
        (Terminal(), False, {"NO_COLOR": ""}, True),
        (Terminal(), False, {"TERM": "dumb"}, False),
        (io.StringIO(), False, {}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(stream, no_color, variables, has_colour, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert look_of(stream, no_color=no_color).colour is has_colour


def test_colour_changes_no_word(log, monkeypatch):
    shown = []
    for colour in (True, False):
        stream = Terminal()
        monkeypatch.setattr("sys.stdout", stream)
        Console(log, as_json=False, quiet=False, look=Look(colour=colour)).say("gate FAIL, missed")
        shown.append(stream.getvalue())
    assert shown[0] != shown[1] == "gate FAIL, missed\n"
    assert shown[0].replace("\x1b[31m", "").replace("\x1b[0m", "") == shown[1]


def test_a_symbol_cannot_bring_colour_of_its_own(log, capsys):
    Console(log, as_json=False, quiet=False).say("A\x1b[31m")
    assert capsys.readouterr().out == "A\\x1b[31m\n"


def test_a_command_to_be_copied_is_not_broken_and_a_sentence_is(log, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stdout", stream)
    console = Console(log, as_json=False, quiet=False, look=Look(width=20, wraps=True))
    console.result("Next: python run_backtest.py --symbols A", may_wrap=False)
    console.say("a sentence of five words")
    assert stream.getvalue() == "Next: python run_backtest.py --symbols A\na sentence of five\n  words\n"


# --- the listener ---------------------------------------------------------------------------------------------------


def test_a_judged_stage_shows_its_gate_with_every_figure(log, capsys):
    listener = TrainingListener(Console(log, as_json=False, quiet=False), bars=False)
    listener.judged("Nifty_2", "ppo", VERDICT, 72.34, 10.0, 2)
    out = capsys.readouterr().out
    assert "  ppo   done in 1:12   gate FAIL   win rate 30.0 % (need 35 %, missed)" in out
    assert "2 attempts, look 1 at this window: alpha 0.025" in out
    assert "win_rate is 0.3, asked at least 0.35." in out
    assert logged(log)[0]["verdict"]["outcome"] == "FAIL"
    assert logged(log)[0]["attempts"] == 2
    # The window it was judged on stands in the log.
    assert "Judged on the validation window, a to b" in text_log(log)


def test_lines_of_several_symbols_name_theirs(log, capsys):
    listener = TrainingListener(Console(log, as_json=False, quiet=False), bars=False, named=True)
    listener.judged("Nifty_2", "ppo", VERDICT, 72.34, 10.0)
    listener.said("Nifty_2", "champion")
    out = capsys.readouterr().out
    assert out.startswith("  Nifty_2 ppo done in 1:12   gate FAIL")
    assert out.endswith("  Nifty_2: champion\n")


def test_every_update_is_logged_and_few_are_printed(log, capsys):
    listener = TrainingListener(Console(log, as_json=False, quiet=False), bars=False)
    listener.stage_started("Nifty_2", "ppo", 100, "episodes", "100 episodes")
    for done in range(1, 51):
        listener.progressed("Nifty_2", "ppo", {"episodes_this_call": done})
    listener.close()
    assert capsys.readouterr().out == ""
    assert sum(event["event"] == "progress" for event in logged(log)) == 50


def plain_progress(log, total: int, unit: str) -> console_module._PlainProgress:
    progress = console_module._PlainProgress(Console(log, as_json=False, quiet=False), "  ppo  ", total, unit)
    progress.close()
    return progress


def test_a_plain_line_tells_how_far_the_stage_is(log):
    progress = plain_progress(log, 100, "episodes")
    assert progress.line(progress._began + 7) == "  ppo   0/100 ep   0:07 so far"
    progress.update(20, "51.0k steps/s")
    # 20 of 100 in 40 s: 160 s are left.
    assert progress.line(progress._began + 40) == "  ppo   20/100 ep   51.0k steps/s   eta 2:40"
    progress.update(100, "51.0k steps/s")
    assert progress.line(progress._began + 61) == "  ppo   100/100 ep   trained; judging it (1:01 so far)"


def test_without_a_terminal_a_line_comes_now_and_then_even_where_nothing_is_reported(
    log, capsys, monkeypatch
):
    """Judging stage 3 reports nothing for minutes; a log that stands still looks like a program that hangs."""
    monkeypatch.setattr(console_module, "PLAIN_LINE_SECONDS", 0.02)
    listener = TrainingListener(Console(log, as_json=False, quiet=False), bars=False)
    listener.stage_started("Nifty_2", "ppo", 100, "episodes", "100 episodes")
    validation = {"episodes": 0, "win_rate": 0.514, "profit_factor": 1.2, "trades": 1234}
    figures = {"episodes_this_call": 20, "steps_per_second": 51_000.0, "validation": validation}
    listener.progressed("Nifty_2", "ppo", figures)
    deadline = time.monotonic() + 20
    lines: list[str] = []
    while len(lines) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
        lines += [line for line in capsys.readouterr().out.splitlines() if "20/100 ep" in line]
    assert "20/100 ep   51.0k steps/s  val win 51.4%  PF 1.20  1,234 trades   eta" in lines[-1]
    listener.close()
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr().out == ""


def test_on_a_terminal_a_bar_follows_the_episodes_and_makes_room_for_lines(log, capsys):
    listener = TrainingListener(Console(log, as_json=False, quiet=False), bars=True)
    listener.stage_started("Nifty_2", "ppo", 100, "episodes", "100 episodes")
    listener.progressed("Nifty_2", "ppo", {"episodes_this_call": 40})
    assert listener._progress.bar.n == 40
    listener.said("Nifty_2", "champion")
    listener.progressed("Nifty_2", "ppo", {"episodes_this_call": 60})
    assert listener._progress.bar.n == 60
    shown = capsys.readouterr()
    assert "  ppo" in shown.err
    assert shown.out == "  champion\n"


def test_meta_iterations_count_as_progress_too(log):
    listener = TrainingListener(Console(log, as_json=False, quiet=False), bars=True)
    listener.stage_started("Nifty_2", "maml", 10, "iterations", "10 iterations")
    # The 43rd iteration in all, the third of an extension.
    listener.progressed("Nifty_2", "maml", {"iteration": 43, "iterations_this_call": 3, "query_reward": 0.01})
    assert listener._progress.bar.n == 3
    listener.judged("Nifty_2", "maml", VERDICT, 1.0, 1.0)
    assert listener._progress is None
