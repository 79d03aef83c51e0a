"""Model files somebody else made, through every door a user has: no code, no crash, little memory, a reason each."""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

import rl.__main__
from rl.checkpoints.checkpoint import load_checkpoint, sidecar_of
from rl.checkpoints.registry import best_available
from rl.common.errors import CheckpointError
from tests.hostile_models import CORPUS, vouched, with_content
from tests.integration.command_line import Workplace, finished

SYMBOL = "SYN_planted_2"
DATA = 4
MOST_MEMORY_MB = 600
"""Above what the process holds already. A million keys and half a gigabyte that is never read are among the files."""
MOST_SECONDS = 20.0


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Workplace:
    """One symbol with all three stages; tests work on copies."""
    workplace = Workplace(tmp_path_factory.mktemp("trained"))
    workplace.synth(SYMBOL, sessions=40)
    done = workplace.train("--symbols", SYMBOL)
    assert (workplace.models / f"{SYMBOL}_maml_stage3_final.pth").exists(), done.err
    for path in workplace.models.glob(f"{SYMBOL}_final_model*"):
        path.unlink()
    return workplace


@pytest.fixture
def copy(trained, tmp_path) -> Workplace:
    shutil.copytree(trained.root, tmp_path / "copy")
    return Workplace(tmp_path / "copy")


def model_of(workplace: Workplace) -> Path:
    return workplace.models / f"{SYMBOL}_maml_stage3_final.pth"


def peak_memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_model_is_refused_with_a_reason_and_runs_nothing(copy, tmp_path, name):
    canary, path, hostile = tmp_path / "code ran", model_of(copy), CORPUS[name]
    hostile.damage(path, canary)
    assert not canary.exists()
    peak, begun = peak_memory_mb(), time.monotonic()
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(path)
    assert hostile.says in str(refused.value)
    with pytest.raises(CheckpointError):
        best_available(copy.models, SYMBOL, "maml")
    for done in (
        copy.backtest("--symbols", SYMBOL, "--stage", "maml"),
        copy.backtest("--symbols", SYMBOL, "--stage", "maml", "--check-lookahead"),
        finished(rl.__main__.main, ["gate", "--explain", str(path), "--reports-dir", str(copy.reports)]),
    ):
        assert done.code == DATA, done.err
        assert hostile.says in done.err
        for words in ("Traceback", "unexpected error", "\x1b", "\x07"):
            assert words not in done.out + done.err
    assert time.monotonic() - begun < MOST_SECONDS
    assert peak_memory_mb() - peak < MOST_MEMORY_MB
    assert not canary.exists()


def test_the_same_model_is_used_where_nothing_was_done_to_it(copy):
    """The corpus proves something only if the file it begins with, and the way it is vouched for, are accepted."""
    path = model_of(copy)
    vouched(path, path.read_bytes())
    with_content(lambda content: content["metadata"]["metrics"].update(sharpe_ratio=1.25))(path, path)
    assert load_checkpoint(path).metrics["sharpe_ratio"] == 1.25
    assert copy.backtest("--symbols", SYMBOL, "--stage", "maml").code == 0


def test_a_step_size_of_a_parameter_that_does_not_exist_is_refused(copy):
    def change(content):
        tensors = content["extra_tensors"]
        name = next(name for name in tensors if name.startswith("step_size."))
        tensors["step_size.os.system"] = tensors.pop(name)

    with_content(change)(model_of(copy), copy.root)
    done = copy.backtest("--symbols", SYMBOL, "--stage", "maml")
    assert done.code == DATA
    assert "step size for 'os.system', which its policy does not have" in done.err


def test_a_hostile_parent_is_no_start_for_the_next_stage(copy, tmp_path):
    canary, path = tmp_path / "code ran", copy.models / f"{SYMBOL}_ppo_stage1.pth"
    CORPUS["a pickle that runs code, in a torch archive"].damage(path, canary)
    done = copy.train("--symbols", SYMBOL, "--stages", "moe")
    assert done.code == DATA
    assert "which could run code" in done.err
    assert not canary.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"criteria": [{"name": 1}]},
        {"criteria": "many"},
        {"surprise": 1},
        {"reasons": None},
        {"alpha_used": "5 %"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_parent_whose_verdict_cannot_be_read_is_refused(copy, change):
    path = copy.models / f"{SYMBOL}_ppo_stage1.pth"
    with_content(lambda content: content["metadata"]["verdict"].update(change))(path, copy.root)
    done = copy.train("--symbols", SYMBOL, "--stages", "moe")
    assert done.code == DATA, done.err
    assert "its verdict cannot be read" in done.err


# --- damage at every place of every file ----------------------------------------------------------------------------


def flipped(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place // 8] ^= 1 << (place % 8)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("end", ["", ".json"])
def test_flipped_bits_and_lost_ends_of_a_real_model_are_noticed(copy, end):
    path = model_of(copy)
    file = sidecar_of(path) if end else path
    data = file.read_bytes()
    rng = np.random.default_rng(5)
    for place in rng.choice(len(data) * 8, size=30, replace=False):
        flipped(file, int(place))
        with pytest.raises(CheckpointError):
            load_checkpoint(path)
        file.write_bytes(data)
    for length in rng.choice(len(data), size=10, replace=False):
        file.write_bytes(data[: int(length)])
        with pytest.raises(CheckpointError):
            load_checkpoint(path)
        file.write_bytes(data)
    load_checkpoint(path)


def test_a_model_file_says_nothing_about_the_machine_or_the_user(trained, monkeypatch):
    """Models travel: no folder, user, host or environment variable may go along."""
    text = json.dumps(json.loads(sidecar_of(model_of(trained)).read_text()))
    run = next((trained.reports / "runs").glob("*"))
    everything = text + "".join(path.read_text(errors="replace") for path in run.rglob("*") if path.is_file())
    assert str(trained.root) not in text
    assert os.uname().nodename not in text
    for name, value in os.environ.items():
        if len(value) >= 12 and not value.startswith("/"):
            assert value not in everything, name
