"""Does nothing in the program depend on an environment variable that a user has to know?

What a run does is in its files and on its command line, where a report can repeat it. A variable may hold a secret, and
NO_COLOR and TERM are conventions of all terminals; these may be read, nothing else.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    *sorted((ROOT / "rl").rglob("*.py")),
    *sorted((ROOT / "tools").glob("*.py")),
    *ROOT.glob("run_*.py"),
]
MAY_BE_READ = {"NO_COLOR", "TERM"}
"""Secrets would be added here one by one, by name; there is none yet."""

SET_BY_US = {"rl/common/threads.py", "rl/apps/commands/tracking.py"}
"""Threads are set for the libraries loaded later; a mirror's process gets our environment, and its libraries are told
not to report usage. Neither decides what a run does."""

NAMES = {"environ", "environb", "getenv", "getenvb"}


def uses(tree: ast.AST) -> Iterator[tuple[int, str | None]]:
    """Yield the line of each use of the environment, and the variable read there if it is named and only read."""
    named: dict[ast.AST, str] = {}
    for node in ast.walk(tree):
        where, key = None, None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            where, key = node.value, node.slice
        elif isinstance(node, ast.Call) and node.args:
            is_get = isinstance(node.func, ast.Attribute) and node.func.attr == "get"
            where, key = (node.func.value if is_get else node.func), node.args[0]
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            where, key = node.comparators[0], node.left
        if where is not None and isinstance(key, ast.Constant) and isinstance(key.value, str):
            named[where] = key.value
    for node in ast.walk(tree):
        is_one = isinstance(node, ast.Attribute) and node.attr in NAMES
        is_imported = isinstance(node, ast.ImportFrom) and node.module == "os"
        if is_one or (is_imported and {alias.name for alias in node.names} & NAMES):
            yield node.lineno, named.get(node)


def unwelcome(source: str) -> list[int]:
    return sorted(line for line, name in uses(ast.parse(source)) if name not in MAY_BE_READ)


def test_the_program_reads_no_environment_variable_but_those_everybody_knows():
    assert len(SOURCES) > 100
    found = {
        str(path.relative_to(ROOT)): lines
        for path in SOURCES
        if (lines := unwelcome(path.read_text(encoding="utf-8")))
    }
    assert set(found) == SET_BY_US, found


@pytest.mark.parametrize(
    ("line", "is_unwelcome"),
    [
        ("os.environ['STAGEGATE_DIR']", True),
        ("os.environ.get('STAGEGATE_DIR', 'x')", True),
        ("os.getenv('HOME')", True),
        ("'CI' in os.environ", True),
        ("dict(os.environ)", True),
        ("from os import environ", True),
        ("os.environ['NO_COLOR'] = '1'", True),
        ("os.environ.get('NO_COLOR')", False),
        ("'NO_COLOR' in os.environ", False),
        ("os.environ['NO_COLOR']", False),
        ("os.getenv('NO_COLOR')", False),
        ("os.environ.get('TERM')", False),
        ("os.path.join('environ', 'getenv')", False),
    ],
)
def test_a_variable_that_is_read_is_noticed(line, is_unwelcome):
    assert (unwelcome(f"import os\n{line}\n") != []) == is_unwelcome
