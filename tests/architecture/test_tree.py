"""Is every file where a newcomer would look, and does none of them name a place outside the project?"""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted({module.parent for module in (ROOT / "rl").rglob("*.py")})
DRAWERS = {"utils", "util", "helpers", "misc", "common_utils", "stuff"}

# Put together here, so that this file does not contain what it forbids.
OUTSIDE = ("/wo" + "rk/", "../sha" + "red")


def project_files() -> list[Path]:
    """Return every file that is or would be taken into the repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout: only git knows which files belong to the project")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [file for file in files if file.is_file()]


def test_the_packages_were_found():
    names = {package.relative_to(ROOT).as_posix() for package in PACKAGES}
    assert {"rl", "rl/common", "rl/market", "rl/features", "rl/trading", "rl/policies"} <= names


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.relative_to(ROOT).as_posix())
def test_a_package_says_what_it_is_and_costs_nothing_to_import(package):
    source = package / "__init__.py"
    assert source.exists(), f"{package} has no __init__.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{source} has no docstring"
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not imports, f"{source} imports on line {imports[0].lineno}"


def test_no_file_is_a_drawer():
    files = [file for file in project_files() if file.suffix == ".py"]
    assert len(files) > 30
    drawers = [file for file in files if {file.stem, file.parent.name} & DRAWERS]
    assert not drawers, f"name these for the noun someone would search for: {drawers}"


def test_the_tests_have_no_init_files():
    """A package `tests` here would make test files of one name collide and hide the shared builders."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_no_file_names_a_place_outside_the_project():
    files = project_files()
    assert len(files) > 30
    found = []
    for file in files:
        content = file.read_bytes()
        if b"\0" in content[:8000]:
            continue  # not a text
        for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), start=1):
            if any(place in line for place in OUTSIDE):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)
