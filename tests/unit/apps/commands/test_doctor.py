"""The user's check of an installation says ok only where all is well; each of its checks can fail."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from functools import partial

import pytest

import rl.__main__
from rl.apps.commands import doctor
from rl.backtest.lookahead import check_lookahead
from rl.backtest.lookahead_chain import Chain
from rl.backtest.planted_leaks import LEAKS, centred_window
from rl.checkpoints import predictor
from rl.common.errors import DATA, OK, UNEXPECTED, USAGE

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


def test_a_sound_installation_is_well(tmp_path, capsys):
    assert rl.__main__.main(["doctor", "--skip-learning", "--raw-data-dir", str(tmp_path)]) == OK
    found = lines(capsys)
    assert list(found) == ["versions", "threads", "look-ahead", "planted leaks", "one kernel"]
    assert all(text.startswith("ok") for text in found.values())
    assert "torch 2." in found["versions"]
    assert "no difference" in found["look-ahead"]
    assert "2 of 2 caught" in found["planted leaks"]
    assert "5,400 steps of both environments equal the backtest bit for bit" in found["one kernel"]


def test_what_fails_is_named_and_ends_with_exit_code_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        doctor, "check_lookahead", partial(check_lookahead, chain=Chain(features=centred_window))
    )
    monkeypatch.setattr(doctor, "LEAKS", {})
    assert rl.__main__.main(["doctor", "--skip-learning", "--raw-data-dir", str(tmp_path)]) == UNEXPECTED
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


# --- the user's data ----------------------------------------------------------------------------------------

DAYS = [date(2024, 1, 2) + timedelta(days=number) for number in range(60)]
BARS = "datetime,open,high,low,close\n" + "".join(
    f"{day},1{day.day:02d},1{day.day + 1:02d},1{day.day - 1:02d},1{day.day:02d}\n"
    for day in DAYS
    if day.weekday() < 5
)


@pytest.fixture
def prices(tmp_path, monkeypatch):
    """A folder with a good file, a broken one and a name that is none; the installation is not checked here."""
    monkeypatch.setattr(doctor, "_checks", lambda *, skip_learning: iter(()))
    (tmp_path / "GOOD.csv").write_text(BARS)
    (tmp_path / "BROKEN.csv").write_text(BARS.replace("102,103,101,102", "102,100,101,102", 1))
    (tmp_path / "not a symbol.csv").write_text(BARS)
    return tmp_path


def test_each_raw_file_has_a_line_that_says_whether_it_loads(prices, capsys):
    assert rl.__main__.main(["doctor", "--raw-data-dir", str(prices)]) == DATA
    printed = capsys.readouterr()
    good, broken = (
        next(line for line in printed.out.splitlines() if line[8:].startswith(name))
        for name in ("GOOD", "BROKEN")
    )
    assert good.startswith("ok      GOOD")
    assert "44 bars, 2024-01-02 .. 2024-03-01, stock (defaults of its class" in good
    assert broken.startswith("refused BROKEN")
    assert "low <= open, close <= high" in printed.out
    assert "cannot be a symbol" in printed.out
    assert "the installation is well, but 2 raw files refused: not a symbol, BROKEN" in printed.err
    assert "GOOD" not in _quiet(prices, capsys)
    # Nothing is written.
    assert sorted(path.name for path in prices.iterdir()) == ["BROKEN.csv", "GOOD.csv", "not a symbol.csv"]


def _quiet(prices, capsys) -> str:
    assert rl.__main__.main(["doctor", "--raw-data-dir", str(prices), "--quiet"]) == DATA
    return capsys.readouterr().out


def test_good_data_and_no_data_are_well(prices, capsys):
    (prices / "BROKEN.csv").unlink()
    (prices / "not a symbol.csv").unlink()
    assert rl.__main__.main(["doctor", "--raw-data-dir", str(prices), "--json"]) == OK
    (line,) = capsys.readouterr().out.splitlines()
    assert {**json.loads(line), "figure": ""} == {
        "part": "data",
        "name": "GOOD",
        "is_well": True,
        "figure": "",
    }
    (prices / "GOOD.csv").unlink()
    assert rl.__main__.main(["doctor", "--raw-data-dir", str(prices)]) == OK
    assert "holds no price file, so none was read" in capsys.readouterr().out


def test_a_folder_that_is_not_there_or_a_bad_instruments_file_is_refused_before_any_check(prices, capsys):
    assert rl.__main__.main(["doctor", "--raw-data-dir", str(prices / "none")]) == DATA
    instruments = prices / "i.yaml"
    instruments.write_text("instruments: {A: {lotsize: 1}}\n")
    assert (
        rl.__main__.main(["doctor", "--raw-data-dir", str(prices), "--instruments", str(instruments)])
        == USAGE
    )
    assert "did you mean lot_size?" in capsys.readouterr().err
