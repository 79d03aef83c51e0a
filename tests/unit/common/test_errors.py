"""Exit codes and suggestions."""

from __future__ import annotations

import pytest

from rl.common import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.StagegateError, 1),
        (errors.TrainingDivergedError, 1),
        (errors.ConfigError, 2),
        (errors.UsageError, 2),
        (errors.MissingPackageError, 3),
        (errors.DataError, 4),
        (errors.CheckpointError, 4),
        (errors.LockedError, 6),
        (errors.StorageError, 7),
    ],
)
def test_an_error_ends_the_command_with_the_code_of_its_kind(error, code):
    assert error.exit_code == code
    assert issubclass(error, errors.StagegateError)
    assert str(error("what happened")) == "what happened"


def test_the_ends_of_a_run_are_told_apart():
    codes = [
        errors.OK,
        errors.UNEXPECTED,
        errors.USAGE,
        errors.MISSING,
        errors.DATA,
        errors.GATE_STOPPED,
        errors.LOCKED,
        errors.STORAGE,
        errors.INTERRUPTED,
        errors.TERMINATED,
    ]
    assert codes == [0, 1, 2, 3, 4, 5, 6, 7, 130, 143]


def test_a_slip_of_the_finger_finds_its_name():
    assert errors.nearest("gama", ["learning_rate", "gamma", "gae_lambda"])[0] == "gamma"


def test_a_wrong_capital_letter_finds_its_name_as_it_is_spelled():
    assert errors.nearest("spy", ["Nifty_2", "SPY"]) == ["SPY"]
    assert errors.nearest("Spy", ["spy", "SPY"]) == ["spy", "SPY"]


def test_nothing_alike_suggests_nothing():
    assert errors.nearest("zzz", ["gamma", "episodes"]) == []
    assert errors.nearest("gamma", []) == []


def test_no_more_suggestions_than_asked_for():
    names = ["rate_1", "rate_2", "rate_3", "rate_4"]
    assert len(errors.nearest("rate", names)) == 3
    assert len(errors.nearest("rate", names, count=2)) == 2
    assert errors.nearest("rate", names, count=0) == []
