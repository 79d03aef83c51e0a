"""A real disk that is too small, fills up while training, or becomes read-only: refused early, survived late."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from tests.integration.command_line import ROOT, Workplace

SYMBOL = "SYN_planted_2"

# Runs inside a mount namespace of its own, where the models folder is a small disk of its own.
CHILD = """
import json, subprocess, sys
from pathlib import Path
from rl.common.atomic_files import sha256_of
from rl.stages import sequence
from tests.integration.command_line import Workplace

place, symbol = Workplace(Path(sys.argv[1])), sys.argv[2]
filler = place.models / "filler"
found = {}

def fill():
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass

def state():
    return {p.name: sha256_of(p) for p in sorted(place.models.glob("*.pth*"))}

def looks():
    ledger = place.reports / "evidence_ledger.jsonl"
    return len(ledger.read_text().splitlines()) if ledger.exists() else 0

def note(name, done):
    temporary = [p.name for p in place.models.rglob(".*.tmp")]
    found[name] = {"code": done.code, "err": done.err, "state": state(), "looks": looks(), "strays": temporary}

def train(name):
    note(name, place.train("--symbols", symbol, "--stages", "ppo"))

fill()
train("full from the start")
filler.unlink()
train("with room")
write = sequence.write_model
sequence.write_model = lambda *given: (fill(), write(*given))[1]
train("filled while training")
sequence.write_model = write
note("backtest on a full disk", place.backtest("--symbols", symbol))
filler.unlink()
train("room again")
subprocess.run(["mount", "-o", "remount,ro", str(place.models)], check=True)
train("read-only")
note("backtest of read-only models", place.backtest("--symbols", symbol))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, Any]:
    if sys.platform != "linux" or not shutil.which("unshare") or not shutil.which("mount"):
        pytest.skip("needs Linux with unshare and mount, to put a small disk under the models folder")
    place = Workplace(tmp_path_factory.mktemp("user"))
    place.synth(SYMBOL, sessions=30)
    place.models.mkdir()
    script = place.root / "child.py"
    script.write_text(CHILD)
    mount = f'mount -t tmpfs -o size=1536k tmpfs "{place.models}"'
    tried = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", mount], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(
            f"a small disk cannot be mounted here: {tried.stderr.strip()}; run as root or on a plain Linux"
        )
    command = f'{mount} && exec "{sys.executable}" "{script}" "{place.root}" {SYMBOL}'
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", command],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_full_disk_is_refused_before_anything_is_trained_or_looked_at(found):
    refused = found["full from the start"]
    assert refused["code"] == 7
    assert "models cannot be written to: No space left on device" in refused["err"]
    assert "Make room on its disk, or choose another one with --models-dir" in refused["err"]
    assert (refused["state"], refused["looks"]) == ({}, 0)


def test_a_disk_that_fills_up_while_training_keeps_the_old_model_and_says_what_to_do(found):
    before, after = found["with room"], found["filled while training"]
    assert before["code"] == 0, before["err"]
    assert after["code"] == 7
    assert "cannot be written: No space left on device" in after["err"]
    assert "Make room on the disk of" in after["err"]
    assert "Traceback" not in after["err"]
    assert "unexpected" not in after["err"]
    assert after["state"] == before["state"] != {}
    assert after["strays"] == []
    assert found["backtest on a full disk"]["code"] == 0, "the model of before can still be used"


def test_with_room_again_the_same_command_goes_through(found):
    again = found["room again"]
    assert again["code"] == 0, again["err"]


def test_a_read_only_folder_is_refused_before_the_training_and_can_still_be_read(found):
    refused = found["read-only"]
    assert refused["code"] == 7
    assert "models cannot be written to: Read-only file system" in refused["err"]
    assert refused["looks"] == found["room again"]["looks"]
    assert refused["state"] == found["room again"]["state"]
    assert found["backtest of read-only models"]["code"] == 0
