"""Which run a command goes on with, and what keeps it from doing so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rl.apps.commands.runs import RECORD, Asked, TrainingRun, flat, refusal, training_run
from rl.common.errors import UsageError
from rl.stages.run_state import SEQUENCE, SymbolJournal

IDENTITY = {"plan": {"seed": 0, "rate": 0.1}, "data": {"A_5": "abc"}, "code": "1"}


def asked(
    symbols: tuple[str, ...] = ("A_5",), stages: tuple[str, ...] = ("ppo",), models: str = "models"
) -> Asked:
    return Asked(symbols=symbols, stages=stages, models_dir=Path(models))


def begun(reports: Path, how: str = "never", what: Asked | None = None, *, ended: bool = False) -> str:
    """Begin a run, or go on with one, and leave it; return its name."""
    what = what or asked()
    with training_run(reports, how, what, "full-s0") as run:
        run.begin(what, IDENTITY, forgotten=[])
        if ended:
            run.ended()
        return run.name


def state_in(reports: Path, name: str) -> str:
    return json.loads((reports / "runs" / name / RECORD).read_text())["state"]


def test_the_newest_run_that_did_not_end_is_gone_on_with(tmp_path):
    first = begun(tmp_path)
    second = begun(tmp_path)
    assert second > first
    assert begun(tmp_path, "auto") == second
    assert begun(tmp_path, "auto", ended=True) == second
    # What ended last is what counts: an older run would put its models over the newer one's.
    assert begun(tmp_path, "auto") not in (first, second)


@pytest.mark.parametrize(
    "other", [asked(symbols=("A_5", "B_5")), asked(stages=("ppo", "moe")), asked(models="elsewhere")]
)
def test_a_run_that_was_asked_for_something_else_is_left_alone(tmp_path, other):
    name = begun(tmp_path)
    with training_run(tmp_path, "auto", other, "full-s0") as run:
        assert (run.name != name, run.record) == (True, None)


def test_the_order_in_which_symbols_are_named_makes_no_other_run(tmp_path):
    name = begun(tmp_path, what=asked(symbols=("A_5", "B_5")))
    assert begun(tmp_path, "auto", asked(symbols=("B_5", "A_5"))) == name


def test_never_begins_a_run_of_its_own_and_deletes_nothing(tmp_path):
    first = begun(tmp_path)
    assert begun(tmp_path, "never") != first
    assert state_in(tmp_path, first) == "running"


def test_a_run_that_goes_on_in_another_place_is_not_joined(tmp_path):
    what = asked()
    with training_run(tmp_path, "never", what, "full-s0") as held:
        held.begin(what, IDENTITY)
        with training_run(tmp_path, "auto", what, "full-s0") as other:
            assert other.name != held.name
        with (
            pytest.raises(UsageError, match="going on in another process"),
            training_run(tmp_path, held.name, what, "full-s0"),
        ):
            pass


def test_a_run_that_never_got_as_far_as_training_is_no_run_to_go_on_with(tmp_path):
    with training_run(tmp_path, "never", asked(), "full-s0") as run:
        name = run.name
    assert begun(tmp_path, "auto") != name
    with pytest.raises(UsageError, match="no training run of that name that got as far as training"):
        begun(tmp_path, name)


def test_a_run_can_be_named(tmp_path):
    first = begun(tmp_path)
    begun(tmp_path)
    assert begun(tmp_path, first) == first
    with pytest.raises(UsageError, match=f"did you mean {first}"):
        begun(tmp_path, first[:-1] + "9")
    with pytest.raises(UsageError, match=r"asked for something else \(stages: \['ppo'\] -> \['moe'\]\)"):
        begun(tmp_path, first, asked(stages=("moe",)))
    begun(tmp_path, first, ended=True)
    with pytest.raises(UsageError, match="that run has ended"):
        begun(tmp_path, first)


@pytest.mark.parametrize("content", ["", "[]", '{"format": "other"}', "{"])
def test_a_record_that_cannot_be_read_is_not_gone_on_with(tmp_path, content):
    name = begun(tmp_path)
    (tmp_path / "runs" / name / RECORD).write_text(content)
    assert begun(tmp_path, "auto") != name
    with pytest.raises(UsageError, match="cannot be read"):
        begun(tmp_path, name)


def test_what_has_changed_is_named_with_both_values(tmp_path):
    def changes(identity: dict[str, Any]) -> list[str]:
        with training_run(tmp_path, name, asked(), "full-s0") as run:
            return run.changes(identity)

    name = begun(tmp_path)
    assert changes(IDENTITY) == []
    other = {**IDENTITY, "plan": {"seed": 0, "rate": 0.2}, "data": {"A_5": "abc", "B_5": "def"}, "code": "2"}
    assert changes(other) == [
        "plan.rate: 0.1 -> 0.2",
        "code: 1 -> 2",
        "data.B_5: (not there) -> def",
    ]


def test_a_path_in_what_identifies_a_run_is_the_same_after_reading_it_back(tmp_path):
    what, identity = asked(), {"file": Path("a/b"), "pair": (1, 2)}
    with training_run(tmp_path, "never", what, "full-s0") as run:
        run.begin(what, identity)
    with training_run(tmp_path, "auto", what, "full-s0") as again:
        assert again.changes(identity) == []


def test_what_is_finished_is_what_the_journals_say(tmp_path):
    run = TrainingRun(tmp_path)
    assert run.finished() == {}
    SymbolJournal(run.state_of("A_5")).save({"stage-ppo": {}, "training-moe": {}})
    SymbolJournal(run.state_of("B_5")).save({"training-ppo": {}})
    SymbolJournal(run.state_of("C_5")).save({"stage-ppo": {}, SEQUENCE: {}})
    assert run.finished() == {"A_5": ["ppo"], "C_5": ["everything"]}
    text = str(refusal(run, ["plan.seed: 0 -> 1"], run.finished()))
    assert "plan.seed: 0 -> 1" in text
    assert "It has finished A_5: ppo; C_5: everything" in text
    assert "--resume never" in text


def test_a_run_that_ended_keeps_no_state(tmp_path):
    what = asked()
    with training_run(tmp_path, "never", what, "full-s0") as run:
        run.begin(what, IDENTITY)
        SymbolJournal(run.state_of("A_5")).save({"training-ppo": {}})
        run.ended()
        assert not (run.folder / "state").exists()


def test_tables_in_tables_become_one_with_dots():
    assert flat({"a": {"b": 1, "c": {}}, "d": [1, {"e": 2}]}) == {"a.b": 1, "a.c": {}, "d": [1, {"e": 2}]}
