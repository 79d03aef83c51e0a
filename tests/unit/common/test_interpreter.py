"""Which interpreter a message names, so that the command it tells can be pasted."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import rl

ROOT = Path(rl.__file__).parents[1]

INTERRUPTED = """
import argparse, sys
from rl.apps.commands.entry import run_command
def work(_):
    raise KeyboardInterrupt
sys.argv = ["run_training.py", "--symbols", "A", "--name", "two words"]
run_command(work, argparse.Namespace())
"""


def said_by(python: Path | str, script: str, folder: Path) -> str:
    """Return what a script prints on either stream when a user runs it in a folder."""
    packages = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    done = subprocess.run(
        [python, "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": packages, "PWD": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


NAMED = "from rl.common.interpreter import interpreter; print(interpreter())"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Return a folder with a virtual environment, one beside it, and a link to it."""
    place = tmp_path_factory.mktemp("user") / "checkout"
    (place / "deeper").mkdir(parents=True)
    venv.create(place / ".venv", symlinks=os.name != "nt")
    place.with_name("link").symlink_to(place)
    return place


@pytest.mark.skipif(os.name == "nt", reason="environments keep their interpreter elsewhere there")
def test_an_environment_of_the_current_folder_is_named_by_its_path(place):
    python = place / ".venv" / "bin" / "python"
    assert said_by(python, NAMED, place) == ".venv/bin/python\n"
    assert said_by(".venv/bin/python", NAMED, place) == ".venv/bin/python\n"
    assert said_by(python, NAMED, place.with_name("link")) == ".venv/bin/python\n"


@pytest.mark.skipif(os.name == "nt", reason="environments keep their interpreter elsewhere there")
def test_any_other_interpreter_is_python(place):
    assert said_by(place / ".venv" / "bin" / "python", NAMED, place / "deeper") == "python\n"
    system = Path(sys.base_prefix) / "bin" / "python3"
    assert said_by(system, NAMED, Path(sys.base_prefix)) == "python\n"


@pytest.mark.skipif(os.name == "nt", reason="environments keep their interpreter elsewhere there")
def test_a_stopped_command_says_the_line_that_starts_it_again(place):
    told = said_by(place / ".venv" / "bin" / "python", INTERRUPTED, place)
    assert "Start again with: .venv/bin/python run_training.py --symbols A --name 'two words'\n" in told
