"""Do the commands the documentation shows exist, and does asking for help stay cheap?"""

from __future__ import annotations

import ast
import functools
import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import rl.__main__
from rl.apps.commands.options import rl_parser

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
VERBS = tuple(rl_parser().commands)
COMMANDS = (("run_training.py",), ("run_backtest.py",), ("-m", "rl"), *(("-m", "rl", verb) for verb in VERBS))
HELP_CPU_SECONDS = 0.6
"""It takes about 0.1; the rest is for a busy machine."""

# Runs a command inside this process and afterwards says what it cost. Processor time, not the clock on the
# wall: it counts from the start of the interpreter and does not grow when other tests run beside.
MEASURED_RUN = """
import json, runpy, sys, time
target, arguments = sys.argv[1], sys.argv[2:]
sys.path.insert(0, ".")
try:
    if target == "-m":
        name, sys.argv = arguments[0], ["rl", *arguments[1:]]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [target, *arguments]
        runpy.run_path(target, run_name="__main__")
    code = 0
except SystemExit as exit:
    code = exit.code or 0
heavy = sorted({"torch", "numba", "talib", "matplotlib", "pandas", "numpy", "pydantic"} & set(sys.modules))
print(json.dumps({"code": code, "cpu_seconds": time.process_time(), "heavy": heavy}), file=sys.stderr)
"""


@dataclass(frozen=True)
class HelpPage:
    """What `COMMAND --help` printed and what printing it cost."""

    text: str
    code: int
    cpu_seconds: float
    heavy: tuple[str, ...]


@functools.cache
def help_page(command: tuple[str, ...]) -> HelpPage:
    finished = subprocess.run(
        [sys.executable, "-c", MEASURED_RUN, *command, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, f"{' '.join(command)} --help failed:\n{finished.stderr}"
    measured = json.loads(finished.stderr.splitlines()[-1])
    return HelpPage(finished.stdout, measured["code"], measured["cpu_seconds"], tuple(measured["heavy"]))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_printed_without_loading_anything_heavy(command):
    """Someone who asks what a command does should not wait for torch to load."""
    page = help_page(command)
    assert page.code == 0
    assert "usage:" in page.text.lower()
    assert page.heavy == ()
    assert page.cpu_seconds < HELP_CPU_SECONDS


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_three_examples_that_parse_and_the_exit_codes(command):
    text = help_page(command).text
    examples = re.findall(r"^  (python .*)$", text.partition("\nexamples:\n")[2], re.MULTILINE)
    assert len(examples) >= 3
    shown = [ShownCommand("help", tuple(shlex.split(example))) for example in examples]
    assert {each.words[1:]: problem_of(each) for each in shown if problem_of(each)} == {}
    if command != ("-m", "rl"):
        assert {each.words[1 : 1 + len(command)] for each in shown} == {command}
    codes = re.findall(r"^  ([0-9]+) ", text.partition("\nexit codes:\n")[2], re.MULTILINE)
    assert codes[0] == "0"
    assert "2" in codes


def test_every_command_of_rl_has_a_module_and_a_function():
    """The table names them as text, so that asking for help loads none of them."""
    assert set(rl.__main__._COMMANDS) == set(VERBS)
    for module, function in rl.__main__._COMMANDS.values():
        tree = ast.parse((ROOT / "rl" / "apps" / "commands" / f"{module}.py").read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@dataclass(frozen=True)
class ShownCommand:
    """One command line inside a fenced block of a document."""

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place} {' '.join(self.words)}"


def shown_commands(document: Path) -> list[ShownCommand]:
    """Return the `make …` and `python …` lines of a document's fenced blocks."""
    found = []
    text = document.read_text(encoding="utf-8")
    for block in re.finditer(
        r"^(?P<fence>```|~~~)[^\n]*\n(?P<body>.*?)^(?P=fence)\s*$", text, re.MULTILINE | re.DOTALL
    ):
        first_line = text.count("\n", 0, block.start("body")) + 1
        body = re.sub(r"\\\n", "  ", block["body"])
        for offset, line in enumerate(body.splitlines()):
            command = re.sub(r"^\s*[$>]\s+", "", line).strip()
            command = re.sub(r"^(\w+=\S*\s+)+", "", command)  # VARIABLE=value before a command
            if re.match(r"(make|(\S*[/\\])?(python|py)(3(\.\d+)?)?)(\s|$)", command):
                words = tuple(shlex.split(command, comments=True))
                found.append(ShownCommand(f"{document.name}:{first_line + offset}", words))
    return found


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", makefile, re.MULTILINE))


def problem_of(command: ShownCommand) -> str | None:
    """Return what is wrong with a shown command, or None."""
    words = list(command.words)
    if words[0] == "make":
        asked = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        unknown = sorted(set(asked) - make_targets())
        return f"no such target: {unknown}" if unknown else None
    arguments = words[1:]
    if not arguments or arguments[0] == "-c":
        return None
    if arguments[0] == "-m":
        if arguments[1] != "rl":
            return None  # a tool of somebody else, such as venv
        rest = arguments[2:]
        program = ("-m", "rl", *(word for word in rest[:1] if not word.startswith("-")))
    else:
        if not (ROOT / arguments[0]).is_file():
            return f"{arguments[0]} does not exist"
        program, rest = (arguments[0],), arguments[1:]
    flags = {word.split("=")[0] for word in rest if re.match(r"--?[a-zA-Z]", word)}
    known = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", help_page(program).text))
    unknown = sorted(flags - known - {"--help", "-h"})
    return f"unknown options: {unknown}" if unknown else None


def test_the_commands_in_the_documents_exist():
    commands = [command for document in DOCUMENTS for command in shown_commands(document)]
    assert len(commands) >= 4, "the README shows how to set up, test, train and backtest"
    problems = {str(command): problem_of(command) for command in commands}
    assert not {place: problem for place, problem in problems.items() if problem}


def test_a_command_that_does_not_exist_is_noticed(tmp_path):
    document = tmp_path / "README.md"
    document.write_text(
        "```bash\n$ make tset\npython run_trianing.py --symbols all\n"
        "OMP_NUM_THREADS=1 make demo  # sample\n```\n"
        "make nothing, outside a block\n",
        encoding="utf-8",
    )
    commands = shown_commands(document)
    assert [command.place for command in commands] == ["README.md:2", "README.md:3", "README.md:4"]
    assert [problem_of(command) for command in commands] == [
        "no such target: ['tset']",
        "run_trianing.py does not exist",
        None,
    ]


def test_an_option_that_does_not_exist_is_noticed():
    shown = ShownCommand("here", ("python", "run_training.py", "--symbols", "all", "--simbols"))
    assert problem_of(shown) == "unknown options: ['--simbols']"


def test_make_knows_its_targets():
    assert {"setup", "demo", "test", "lint", "bench", "clean"} <= make_targets()
