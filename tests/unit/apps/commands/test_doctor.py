"""The user's check of an installation says ok only where all is well; each of its checks can fail."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial

import pytest

import rl.__main__
from rl.apps.commands import doctor
from rl.backtest.lookahead import check_lookahead
from rl.backtest.lookahead_chain import Chain
from rl.backtest.planted_leaks import LEAKS, centred_window
from rl.checkpoints import predictor
from rl.common.errors import OK, UNEXPECTED

FEW_LEAKS = {name: LEAKS[name] for name in ("same-bar fill", "random split")}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """All leaks, all cuts and the full training have tests of their own."""
    monkeypatch.setattr(doctor, "LEAKS", FEW_LEAKS)
    monkeypatch.setattr(doctor, "CUTS", 2)
    monkeypatch.setattr(doctor, "LEARNING_STEPS", 2_000)
    monkeypatch.setattr(doctor, "MIXTURE_STEPS", 2_000)


def lines(capsys) -> dict[str, str]:
    """Return the state of each check by its name."""
    found = {}
    for line in capsys.readouterr().out.splitlines():
        for state in ("ok", "FAILED"):
            if line.startswith(f"{state:<8}"):
                found[line[8:25].strip()] = f"{state} {line[25:]}"
    return found


def test_a_sound_installation_is_well(capsys):
    assert rl.__main__.main(["doctor", "--skip-learning"]) == OK
    found = lines(capsys)
    assert list(found) == ["versions", "threads", "look-ahead", "planted leaks", "one kernel"]
    assert all(text.startswith("ok") for text in found.values())
    assert "torch 2." in found["versions"]
    assert "no difference" in found["look-ahead"]
    assert "2 of 2 caught" in found["planted leaks"]
    assert "5,400 steps of both environments equal the backtest bit for bit" in found["one kernel"]


def test_what_fails_is_named_and_ends_with_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr(
        doctor, "check_lookahead", partial(check_lookahead, chain=Chain(features=centred_window))
    )
    monkeypatch.setattr(doctor, "LEAKS", {})
    assert doctor.examine(argparse.Namespace(skip_learning=True)) == UNEXPECTED
    printed = capsys.readouterr()
    assert "FAILED  look-ahead" in printed.out
    assert "features, distance_sma_10" in printed.out
    assert printed.err == "FAILED: look-ahead. Do not trust models or reports made here.\n"


def test_a_leak_that_goes_unnoticed_fails(monkeypatch):
    harmless = replace(LEAKS["same-bar fill"], chain=Chain())
    monkeypatch.setattr(doctor, "LEAKS", {**FEW_LEAKS, "no leak at all": harmless})
    found = next(run() for number, run in enumerate(doctor._checks(skip_learning=True)) if number == 3)
    assert not found.is_well
    assert found.figure == "2 of 3 caught; not: no leak at all"


def test_a_backtest_that_trades_otherwise_fails(monkeypatch):
    def dearer(market, window, rules, actions, **options):
        return original(market, window, replace(rules, commission_rate=1.01e-4), actions, **options)

    original = doctor.replay_actions
    monkeypatch.setattr(doctor, "replay_actions", dearer)
    found = doctor.one_kernel()
    assert not found.is_well
    assert "single environment, target, account 0" in found.figure
    assert "vector environment, orders, account 7" in found.figure


def test_a_learner_that_does_not_learn_fails():
    found = doctor.weak_signal()
    assert not found.is_well
    assert "(at least 0.85)" in found.figure


def test_a_mixture_that_does_not_learn_fails():
    found = doctor.mixture()
    assert not found.is_well
    assert "(at least 0.70)" in found.figure


def test_a_learner_that_earns_from_shuffled_features_fails(monkeypatch):
    """As it would if features of a bar could be had from elsewhere: here they are not shuffled at all."""

    def unshuffled(kind, *, shuffle_features, **options):
        assert shuffle_features
        return doctor_learn(kind, **options)

    doctor_learn = doctor.learn
    monkeypatch.setattr(doctor, "learn", unshuffled)
    found = doctor.control()
    assert not found.is_well
    assert "(at most 0.05)" in found.figure


def test_adaptation_that_moves_nothing_fails(monkeypatch):
    """The fault that went unnoticed longest elsewhere: inner steps that leave every weight where it was."""
    found = doctor.adaptation()
    assert found.is_well, found.figure
    monkeypatch.setattr(
        predictor, "adapted_weights", lambda policy, *_, **__: policy.flat_parameters().numpy()
    )
    found = doctor.adaptation()
    assert not found.is_well
    assert "(at least 0.60)" in found.figure


def test_a_torch_that_is_too_old_fails(monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda name: "2.9.1+cpu" if name == "torch" else "1.0")
    found = doctor.versions()
    assert not found.is_well
    assert "torch has to be 2.10 or newer" in found.figure


def test_more_than_one_thread_fails(monkeypatch):
    monkeypatch.setattr(doctor.torch, "get_num_threads", lambda: 4)
    found = doctor.threads()
    assert not found.is_well
    assert "torch 4" in found.figure
