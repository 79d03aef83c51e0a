"""Do imports point down only, and would the check notice if one did not?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHECKED_WITHOUT_TORCH = ("common", "market", "features", "trading")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the project's import contract on the package `rl` inside `folder`."""
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", command, "--config", str(ROOT / ".importlinter"), "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def small_project(folder: Path, **imports: str) -> Path:
    """Write a package `rl` of empty parts, some of which import what the keywords say."""
    for part in {*CHECKED_WITHOUT_TORCH, *imports}:
        package = folder / "rl" / part
        package.mkdir(parents=True)
        (package / "__init__.py").write_text('"""A part."""\n', encoding="utf-8")
        (package / "thing.py").write_text(imports.get(part, "") + "\n", encoding="utf-8")
    (folder / "rl" / "__init__.py").write_text('"""Parts."""\n', encoding="utf-8")
    return folder


def test_the_imports_of_this_project_keep_the_contract():
    finished = lint_imports(ROOT)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "4 kept, 0 broken" in finished.stdout


def test_imports_that_point_down_are_fine(tmp_path):
    project = small_project(tmp_path, envs="import rl.trading.thing", trading="import rl.market.thing")
    finished = lint_imports(project)
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("market", "import rl.envs.thing"),  # up
        ("algorithms", "import rl.envs.thing"),  # sideways
        ("features", "import rl.trading.thing"),  # sideways
        ("trading", "import torch"),
        ("common", "import torch.nn"),
        ("stages", "import socket"),
        ("market", "from urllib.request import urlopen"),
        ("common", "def f():\n    import requests"),
        ("stages", "import run_training"),
        ("utils", "import math"),  # a part without a place in the line
    ],
)
def test_the_contract_notices(tmp_path, part, line):
    project = small_project(tmp_path, **{"envs": "", part: line})
    finished = lint_imports(project)
    assert finished.returncode == 1, finished.stdout + finished.stderr
    assert "1 broken" in finished.stdout or f"rl.{part}" in finished.stdout + finished.stderr
