"""Every command that README and docs show is run, in the order of the pages, as it is written.

The folder they run in is a user's: configuration, and price files under the names the pages use. Two things are not as
at a user's, so that this takes less than a minute and not a day: the prices are made up, and the plan and its profiles
train the first stage for a second. What is not run says so in the page, above the block: `<!-- not run: why -->`. It
and the programs of LONG are parsed: the program, its options and its targets exist. A block that ends with another exit
code than 0 says `<!-- exits 5: why -->`; one that shows a file says `<!-- file: NAME -->`, and that file is written for
the commands after it. Where a word of a command stands for a name of your own, `<!-- not parsed: why -->` says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import rl.__main__
import run_backtest
import run_training
from rl.backtest.config import BacktestConfig
from rl.common.errors import ConfigError
from rl.common.strict_config import load_yaml, validate
from rl.market.instruments import InstrumentsFile
from rl.stages.plan import Plan, load_plan
from tests.builders import DAILY_MINUTES, bars_from_closes
from tests.docs.pages import ROOT, Block, Shown, blocks, pages, shown_commands
from tests.integration.command_line import TINY, Finished, finished
from tools import reference

PROGRAMS: dict[str, Callable[[list[str]], int]] = {
    "run_training.py": run_training.main,
    "run_backtest.py": run_backtest.main,
    "rl": rl.__main__.main,
}

LONG = {
    "make": "sets up, or runs everything there is",
    "pytest": "the tests run already",
    "pip": "installs packages",
    "doctor": "trains for minutes; tests/unit/apps/commands/test_doctor.py runs it",
    "benchmarks": "measure for minutes to hours; tests/unit/benchmarks runs their parts",
    "-c": "prints figures that tests/architecture/test_docs_match_code.py computes",
}
"""Programs that are parsed only, and why."""

SMALL = (
    *TINY,
    # Whatever a stage earns on a random walk in a second, its gate is passed or inconclusive.
    "training_sequence.stage_1_ppo.success_criteria={min_win_rate: null, min_profit_factor: null, max_drawdown: 1.0}",
    "training_sequence.stage_2_moe.success_criteria={min_win_rate: null, min_profit_factor: null, max_drawdown: 1.0}",
    "progression_rules.advancement_criteria.stage_1_to_2={min_win_rate: null, min_profit_factor: null}",
    "progression_rules.advancement_criteria.stage_2_to_3={min_win_rate: null, min_profit_factor: null}",
    "progression_rules.advancement_criteria.stage_1_to_2.min_episodes=0",
    "progression_rules.advancement_criteria.stage_2_to_3.min_episodes=0",
    # One stage a run: what the other two do is tried elsewhere, and each command here trains again.
    "progression_rules.auto_progression=false",
)

PYTHON = re.compile(r"(\.venv/bin/)?python3?")


# --- a user's folder ------------------------------------------------------------------------------------------------


def write_bars(folder: Path, symbol: str, *, minutes: int, count: int, seed: int) -> None:
    """Write a random walk as a price file."""
    rng = np.random.default_rng(seed)
    size = 0.01 if minutes == DAILY_MINUTES else 0.001
    closes = 1000 * np.exp(np.cumsum(rng.normal(0, size, count)))
    bars = bars_from_closes(
        closes, highs=closes * (1 + 2 * size), lows=closes * (1 - 2 * size), minutes=minutes, symbol=symbol,
        opens=closes, first_day="2010-01-04",
    )  # fmt: skip
    # Rows name the start of their bar, in Kolkata's time; a daily row names its day.
    stamps = (bars.close_time + (330 - minutes) * 60 * 10**9).astype("datetime64[ns]").astype("datetime64[m]")
    if minutes == DAILY_MINUTES:
        stamps = bars.close_time.astype("datetime64[ns]").astype("datetime64[D]")
    rows = [
        f"{str(at).replace('T', ' ')},{o:.6f},{h:.6f},{low:.6f},{c:.6f}"
        for at, o, h, low, c in zip(stamps, bars.open, bars.high, bars.low, bars.close, strict=True)
    ]
    (folder / f"{symbol}.csv").write_text(
        "\n".join(["datetime,open,high,low,close", *rows, ""]), encoding="utf-8"
    )


@pytest.fixture(scope="module")
def user(tmp_path_factory) -> Path:
    """A checkout's folder with three price files in it."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "config", folder / "config")
    for name in ("data/raw", "data/processed", "models", "reports"):
        (folder / name).mkdir(parents=True)
    small = yaml.safe_dump(nested(SMALL))
    (folder / "config" / "training_sequence.yaml").write_text(small, encoding="utf-8")
    # A profile in a folder `plans` beside the plan wins over the shipped one of its name.
    for shipped in [*(ROOT / "plans").glob("*.yaml"), *(ROOT / "config" / "plans").glob("*.yaml")]:
        for plans in (folder / "plans", folder / "config" / "plans"):
            plans.mkdir(exist_ok=True)
            (plans / shipped.name).write_text(small, encoding="utf-8")
    write_bars(folder / "data" / "raw", "Nifty_15", minutes=15, count=5000, seed=1)
    write_bars(folder / "data" / "raw", "Bank_Nifty_15", minutes=15, count=5000, seed=2)
    write_bars(folder / "data" / "raw", "SPY", minutes=DAILY_MINUTES, count=3000, seed=3)
    return folder


def nested(settings: tuple[str, ...]) -> dict[str, Any]:
    """Return `a.b=1` as {a: {b: 1}}."""
    found: dict[str, Any] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        *parents, name = key.split(".")
        block = found
        for parent in parents:
            block = block.setdefault(parent, {})
        block[name] = yaml.safe_load(value)
    return found


# --- what is run ----------------------------------------------------------------------------------------------------


def all_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks(page)]


def program_of(shown: Shown) -> tuple[str, list[str]]:
    """Return which program of PROGRAMS or LONG a command runs, and what is passed to it."""
    first, *rest = shown.words
    if first == "make":
        return "make", rest
    assert PYTHON.fullmatch(first), f"{shown}: neither make nor python"
    if rest[0] != "-m":
        return rest[0], rest[1:]
    module = rest[1].split(".")[0]
    if module == "rl" and rest[2:3] == ["doctor"]:
        return "doctor", rest[3:]
    return module, rest[1:] if module == "benchmarks" else rest[2:]


def is_run(shown: Shown) -> bool:
    return not shown.block.mark.startswith(("not run: ", "not parsed: ")) and program_of(shown)[0] not in LONG


def expected_exit(block: Block) -> int:
    stated = re.match(r"exits (\d+): ", block.mark)
    return int(stated[1]) if stated else 0


def run(shown: Shown) -> Finished:
    name, arguments = program_of(shown)
    return finished(PROGRAMS[name], arguments)


@pytest.mark.timeout(1800)  # a minute of processor time, on machines that do other things too
def test_every_command_that_is_shown_does_what_it_says(user, monkeypatch):
    monkeypatch.chdir(user)
    done: set[tuple[str, ...]] = set()
    problems = []
    for block in all_blocks():
        written = re.match(r"file: (\S+)", block.mark)
        if written:
            Path(written[1]).write_text(block.body, encoding="utf-8")
        if block.language != "bash":
            continue
        for shown in shown_commands(block):
            key = tuple(word for word in shown.words[1:])
            if not is_run(shown) or key in done:
                continue
            done.add(key)
            ended = run(shown)
            if ended.code != expected_exit(block):
                problems.append(f"{shown}\n  exit code {ended.code}: {ended.err or ended.out[-400:]}")
    assert len(done) >= 20
    assert not problems, "\n".join(problems)


# --- what is parsed -------------------------------------------------------------------------------------------------


def problem_of(shown: Shown) -> str | None:
    """Return what a parser says against a command that is not run, or None."""
    name, arguments = program_of(shown)
    if name == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = set(re.findall(r"^([a-z][a-z-]*):(?!=)", makefile, re.MULTILINE))
        asked = {word for word in arguments if "=" not in word}
        return f"no such target: {sorted(asked - targets)}" if asked - targets else None
    if name == "tools/bootstrap.py":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        sets = {"core", *project["project"]["optional-dependencies"], *project["dependency-groups"]}
        return f"no such set of packages: {sorted({*arguments} - sets)}" if {*arguments} - sets else None
    if name == "pytest":
        missing = [word for word in arguments if "/" in word and not (ROOT / word).exists()]
        return f"no such file: {missing}" if missing else None
    if name == "pip":
        return None if arguments[0] == "install" else f"pip {arguments[0]} is not for readers"
    if name == "-c":
        compile(arguments[0], str(shown), "exec")
        return None
    if shown.block.mark.startswith("not parsed: "):
        return None if importlib.util.find_spec(arguments[0]) else f"no such program: {arguments[0]}"
    if name == "benchmarks":
        module = importlib.import_module(arguments[0])
        if hasattr(module, "parse_options"):
            return problem_of_options(module.parse_options, arguments[1:])
        return f"{arguments[0]} takes no options" if arguments[1:] else None
    parse = {
        "run_training.py": run_training.training_parser().parse_args,
        "run_backtest.py": run_backtest.backtest_parser().parse_args,
    }.get(name, rl.__main__.rl_parser().parse_args)
    return problem_of_options(parse, ["doctor", *arguments] if name == "doctor" else arguments)


def problem_of_options(parse: Callable[[list[str]], object], arguments: list[str]) -> str | None:
    """Return the complaint of an argument parser, or None."""

    def ended(words: list[str]) -> int:
        parse(words)
        return 0

    done = finished(ended, arguments)
    return done.err.strip().splitlines()[-1] if done.code else None


def test_every_command_that_is_not_run_has_a_parser_that_takes_it():
    problems = {}
    for block in all_blocks():
        if block.language == "bash":
            for shown in shown_commands(block):
                if not is_run(shown) and (problem := problem_of(shown)):
                    problems[str(shown)] = problem
    assert problems == {}


# --- what is no command ---------------------------------------------------------------------------------------------


LANGUAGES = {"", "bash", "yaml", "python", "text"}


def test_no_command_hides_in_a_block_that_nobody_runs():
    hidden = [
        f"{block.place}: {line}"
        for block in all_blocks()
        if block.language == ""
        for line in block.body.splitlines()
        if re.match(r"\s*(make \w|(\.venv/bin/)?python3? (-m|run_|-c))", line)
    ]
    assert hidden == [], "mark the block ```bash"
    assert {block.language for block in all_blocks()} <= LANGUAGES


def test_every_settings_block_is_accepted_by_the_file_it_is_for(tmp_path):
    for block in all_blocks():
        # A line for the editor alone is no settings.
        if block.language == "yaml" and yaml.safe_load(block.body) is not None:
            path = tmp_path / "shown.yaml"
            path.write_text(block.body, encoding="utf-8")
            problems = [problem_of_settings(kind, path) for kind in (Plan, InstrumentsFile, BacktestConfig)]
            assert None in problems, f"{block.place}: {problems}"


def test_every_python_block_is_python():
    for block in all_blocks():
        if block.language == "python":
            compile(block.body, block.place, "exec")


def problem_of_settings(kind: type, path: Path) -> str | None:
    try:
        if kind is Plan:
            load_plan(path)
        else:
            validate(kind, load_yaml(path))
    except ConfigError as error:
        return str(error)
    return None


def test_a_command_that_fails_or_does_not_exist_is_noticed(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\nmake tset\npython run_training.py --simbols all\npython -m rl doctor --ful\n"
        "python -m benchmarks.null_bank --nothing\npython -m pytest tests/gone.py\n"
        "python run_backtest.py \\\n  --symbols NONE\n```\n",
        encoding="utf-8",
    )
    (block,) = blocks(page)
    *parsed, last = shown_commands(block)
    assert all(problem_of(shown) for shown in parsed)
    assert last.words[1:] == ("run_backtest.py", "--symbols", "NONE")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    assert run(last).code > 0


def test_every_example_of_every_help_page_is_taken_by_its_parser():
    found, problems = 0, {}
    for parser in reference.parsers():
        for line in re.findall(r"^  (python .*)$", parser.epilog or "", re.MULTILINE):
            found += 1
            example = Shown(Block(ROOT / "help", 1, "bash", "", ""), 1, tuple(shlex.split(line)))
            if problem := problem_of(example):
                problems[line] = problem
    assert found >= 10
    assert problems == {}
