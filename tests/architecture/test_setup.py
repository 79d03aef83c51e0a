"""Does the set-up install what the project lists, only when needed, and never claim more than it did?"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
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


def locked() -> dict[str, tuple[str, set[str], list[str]]]:
    """Return of each package in the lock its version, sets and hashes."""
    found: dict[str, tuple[str, set[str], list[str]]] = {}
    sets: set[str] = set()
    name = ""
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            sets = set(line[1:].split())
        elif line.startswith("    --hash=sha256:"):
            found[name][2].append(line.removeprefix("    --hash=sha256:").removesuffix(" \\"))
        elif line:
            package, _, version = line.removesuffix(" \\").partition("==")
            name = plain_name(package)
            found[name] = (version, sets, [])
    return found


def test_every_pin_but_torch_is_locked_to_the_files_it_stands_for():
    """torch's files differ per build; an index of CPU builds has others than the public one."""
    lock = locked()
    assert {name: version for name, (version, _, _) in lock.items()} == {
        name: version for name, version in pins().items() if name != "torch"
    }
    for name, (_, _, hashes) in lock.items():
        assert hashes, name
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in hashes), name


def test_each_set_locks_what_it_lists_and_the_second_opinions_do_not_reach_the_users():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = {"core": project["project"]["dependencies"], **project["dependency-groups"]}
    lock = locked()
    for group, requirements in listed.items():
        for name in {plain_name(each) for each in requirements} - {"torch"}:
            assert group in lock[name][1], f"{name} is not locked for {group}; run tools/lock.py"
    assert "setuptools" in {name for name, (_, sets, _) in lock.items() if "core" in sets}
    assert "core" not in lock["hypothesis"][1]


def test_a_file_with_another_hash_is_refused(checkout):
    """The lock is worth something only if pip refuses a file that was exchanged."""
    wheel = one_wheel(checkout / "index", "harmless", "1.0")
    write_project(checkout, core="harmless")
    (checkout / "constraints.txt").write_text("harmless==1.0\n", encoding="utf-8")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()

    def lock(digest: str) -> None:
        text = f"# core\nharmless==1.0 \\\n    --hash=sha256:{digest}\n"
        (checkout / "requirements.lock").write_text(text, encoding="utf-8")

    lock("0" * 64)
    refused = set_up(checkout, links=checkout / "index")
    assert refused.returncode == 1
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    assert "--without-hashes" in refused.stderr
    assert stamps(checkout) == []
    lock(digest)
    done = set_up(checkout, links=checkout / "index")
    assert done.returncode == 0, done.stderr
    assert stamps(checkout) == [".ready-core"]


def one_wheel(folder: Path, name: str, version: str) -> Path:
    """Write a package of one empty module, ready to install."""
    folder.mkdir()
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
    return path


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


def set_up(checkout: Path, *sets: str, links: Path | str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/bootstrap.py", *sets],
        cwd=checkout,
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links)},
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
