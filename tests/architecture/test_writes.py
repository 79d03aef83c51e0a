"""Is every whole file written by `rl.common.atomic_files`, so that a stop never leaves half of one?"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    *sorted((ROOT / "rl").rglob("*.py")),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
    *ROOT.glob("*.py"),
]

WRITERS = {
    "write_text", "write_bytes", "to_csv", "to_parquet", "to_json", "to_pickle", "savefig", "save", "savez",
    "savetxt", "savez_compressed", "tofile", "write_table", "dump", "copy", "copyfile", "copy2", "copytree",
    "NamedTemporaryFile", "mkstemp",
}  # fmt: skip
"""Methods and functions of other libraries that write a file."""

MODULES = {"np", "numpy", "torch", "shutil", "json", "pickle", "tempfile", "pq"}
"""Where a short name such as `save` or `copy` means a file. Elsewhere it is something else's own method."""

SHORT = {"save", "dump", "copy"}

ALLOWED = {
    ("rl/common/atomic_files.py", "require_writable"): "tries whether a folder can be written to",
    ("rl/common/atomic_files.py", "_flush_file"): "opens for flushing",
    ("rl/common/runlog.py", "__init__"): "one line at a time, appended",
    ("rl/stages/evidence.py", "_locked"): "one line at a time, appended",
    ("rl/common/locks.py", "_opened"): "holds a lock; what stands in it is for messages only",
    (
        "rl/apps/commands/entry.py",
        "_unexpected",
    ): "the last line of defence, into the system's temporary folder",
    ("rl/features/processed_store.py", "_write_parquet"): "is given the temporary path",
    ("rl/checkpoints/checkpoint.py", "save_checkpoint"): "into memory, then whole",
    ("rl/reporting/html/svg.py", "drawn"): "into memory",
    ("rl/apps/commands/mirror.py", "_alone"): "holds a lock; nothing is written into it",
    ("rl/apps/commands/runs.py", "_held"): "holds a lock; nothing is written into it",
    ("rl/checkpoints/state_files.py", "commit"): "into memory, then whole",
    ("benchmarks/chaos.py", "start"): "output of a child process, while it runs",
    ("benchmarks/chaos.py", "_is_noticed"): "a damaged copy, made to be read once and deleted",
    ("benchmarks/bad_files.py", "loaded"): "a damaged file, made to be read once and deleted",
    ("benchmarks/bad_files.py", "endless_line"): "a damaged file, made to be read once and deleted",
    ("benchmarks/raw_defects.py", "_parquet"): "into memory",
    ("benchmarks/promotion_rates.py", "train_market"): "output of a child process, while it runs",
}
"""(file, function): why a write there is none that could leave half a file."""


def writes_in(source: str) -> Iterator[tuple[str, int, str]]:
    """Yield function, line and words of every write that does not go to a path `writing` has given."""
    tree = ast.parse(source)

    def walk(node: ast.AST, function: str, given: frozenset[str]) -> Iterator[tuple[str, int, str]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.With):
            for item in node.items:
                if isinstance(item.optional_vars, ast.Name) and _goes_to(item.context_expr, given):
                    given |= {item.optional_vars.id}
        if isinstance(node, ast.Call) and _is_write(node) and not _goes_to(node, given):
            yield function, node.lineno, ast.unparse(node)[:80]
        for child in ast.iter_child_nodes(node):
            yield from walk(child, function, given)

    yield from walk(tree, "", frozenset())


def _goes_to(node: ast.AST, given: frozenset[str]) -> bool:
    """Return True for `writing(...)`, and for a call on or with a name that it has given."""
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name) and node.func.id == "writing":
        return True
    receiver = [node.func.value] if isinstance(node.func, ast.Attribute) else []
    return any(isinstance(each, ast.Name) and each.id in given for each in (*receiver, *node.args))


def _is_write(call: ast.Call) -> bool:
    if isinstance(call.func, ast.Name):
        # `write_text(path, …)` without a dot is ours.
        return call.func.id == "open" and _mode_writes(call, place=1)
    if not isinstance(call.func, ast.Attribute):
        return False
    owner = call.func.value.id if isinstance(call.func.value, ast.Name) else ""
    if call.func.attr == "open":
        if owner == "os":
            return any(
                "O_CREAT" in ast.unparse(each) or "O_WRONLY" in ast.unparse(each) for each in call.args
            )
        return _mode_writes(call, place=1 if owner in {"gzip", "zipfile", "io", "codecs"} else 0)
    if call.func.attr in SHORT:
        return owner in MODULES
    return call.func.attr in WRITERS


def _mode_writes(call: ast.Call, *, place: int) -> bool:
    modes = [each.value for each in call.keywords if each.arg == "mode"] + call.args[place : place + 1]
    return any(
        isinstance(mode, ast.Constant) and isinstance(mode.value, str) and set(mode.value) & set("wax+")
        for mode in modes
    )


def test_the_sources_were_found():
    assert len(SOURCES) > 100


def test_every_whole_file_is_written_by_the_one_place_that_can():
    found = [
        (path.relative_to(ROOT).as_posix(), *write)
        for path in SOURCES
        for write in writes_in(path.read_text(encoding="utf-8"))
    ]
    wrong = [write for write in found if write[:2] not in ALLOWED]
    assert not wrong, f"use rl.common.atomic_files, or say in ALLOWED why half a file cannot be left: {wrong}"
    unused = set(ALLOWED) - {write[:2] for write in found}
    assert not unused, f"nothing is written there any more: {unused}"


@pytest.mark.parametrize(
    "line",
    [
        'open("a", "w")', 'Path("a").open("ab")', 'path.open(mode="x")', 'path.write_text("x")',
        'path.write_bytes(b"")', 'table.to_csv("a.csv")', 'figure.savefig("a.png")', 'np.save("a.npy", x)',
        'torch.save(state, "a.pth")', 'shutil.copyfile("a", "b")', 'json.dump(x, file)', 'pq.write_table(t, "a")',
        'gzip.open("a", "wt")', 'os.open("a", os.O_CREAT | os.O_RDWR)', 'other.write_text("x")',
    ],
)  # fmt: skip
def test_a_write_past_that_place_is_found(line):
    source = f"def f():\n    with writing(target) as given:\n        {line}\n"
    assert [function for function, _, _ in writes_in(source)] == ["f"]


@pytest.mark.parametrize(
    "line",
    [
        "write_text(path, text)", "given.write_bytes(data)", "table.to_csv(given)", "open('a')", "path.open('rb')",
        "policy.copy(x)", "np.savez(given, x)",
    ],
)  # fmt: skip
def test_what_is_no_write_past_it_is_left_alone(line):
    source = f"def f():\n    with writing(target) as given:\n        {line}\n"
    assert list(writes_in(source)) == []


def test_a_file_opened_on_the_given_path_may_be_written_to():
    source = "with writing(a) as given, given.open('wb') as file:\n    np.save(file, x)\n"
    assert list(writes_in(source)) == []
