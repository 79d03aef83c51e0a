"""Does the set-up install what the project lists, only when needed, and never claim more than it did?"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def plain_name(requirement: str) -> str:
    """Return the package's name in its one comparable spelling."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert len(pinned) > 50
    return {plain_name(name): version for name, version in pinned}


def test_everything_the_project_lists_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = [*project["project"]["dependencies"]]
    for group in (
        *project["dependency-groups"].values(),
        *project["project"]["optional-dependencies"].values(),
    ):
        listed += group
    assert len(listed) > 20
    assert {plain_name(requirement) for requirement in listed} <= set(pins())


def test_what_is_installed_here_is_what_is_pinned():
    """Otherwise these tests prove something about other versions than those a user gets."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    core = [plain_name(requirement) for requirement in project["project"]["dependencies"]]
    installed = {name: importlib.metadata.version(name).split("+")[0] for name in core}
    assert installed == {name: pins()[name] for name in core}


def test_one_version_number():
    from rl import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["version"] == __version__


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that needs nothing but pip itself, so that setting it up needs no network."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "bootstrap.py", tmp_path / "tools")
    write_project(tmp_path, core="pip")
    (tmp_path / "constraints.txt").write_text("", encoding="utf-8")
    (tmp_path / "requirements.lock").write_text("", encoding="utf-8")
    (tmp_path / "requirements-learn2learn.txt").write_text("pip\n", encoding="utf-8")
    return tmp_path


def write_project(folder: Path, *, core: str, test: str = "pip") -> None:
    text = f'[project]\ndependencies = ["{core}"]\n[dependency-groups]\ntest = ["{test}"]\n'
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")


def set_up(checkout: Path, *sets: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/bootstrap.py", *sets],
        cwd=checkout,
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def stamps(checkout: Path) -> list[str]:
    return sorted(stamp.name for stamp in (checkout / ".venv").glob(".ready-*"))


def test_setting_up_twice_does_the_work_once_and_a_failure_is_never_taken_for_done(checkout):
    first = set_up(checkout, "test")
    assert first.returncode == 0, first.stderr
    assert "installing core, test" in first.stdout
    assert stamps(checkout) == [".ready-core", ".ready-test"]

    again = set_up(checkout, "core", "test")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")

    write_project(checkout, core="pip", test="a-package-that-does-not-exist")
    failed = set_up(checkout, "test")
    assert failed.returncode == 1
    assert "Set-up stopped: pip could not install the packages" in failed.stderr
    assert stamps(checkout) == []

    core_only = set_up(checkout)
    assert core_only.returncode == 0, core_only.stderr
    assert stamps(checkout) == [".ready-core"]


def test_a_set_that_does_not_exist_is_refused_before_anything_is_made(checkout):
    finished = set_up(checkout, "tset")
    assert finished.returncode == 1
    assert "there is no set named tset" in finished.stderr
    assert "core, test" in finished.stderr
    assert not (checkout / ".venv").exists()


def test_a_python_that_no_longer_runs_is_named(checkout):
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    python.chmod(0o755)
    finished = set_up(checkout)
    assert finished.returncode == 1
    assert "does not run any more" in finished.stderr
