"""Options of the commands: what they default to, what they refuse, what they cost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rl import __version__
from rl.apps.commands.options import (
    BACKTEST_FILE,
    PLAN_FILE,
    backtest_parser,
    chosen_stages,
    rl_parser,
    training_parser,
)
from rl.common.errors import UsageError

ROOT = Path(__file__).resolve().parents[4]
PARSERS = {"train": training_parser, "backtest": backtest_parser, "rl": rl_parser}


def test_training_needs_no_option_at_all():
    options = training_parser().parse_args([])
    assert options.symbols == ["all"]
    assert (options.config, options.profile, options.seed, options.stages) == (PLAN_FILE, "full", None, None)
    assert (options.jobs, options.dry_run, options.strict, options.json, options.quiet) == (
        1,
        False,
        False,
        False,
        False,
    )
    assert options.overrides == []
    assert options.instruments == []


def test_a_backtest_needs_no_option_either():
    options = backtest_parser().parse_args([])
    assert (options.symbols, options.config, options.stage, options.split) == (
        ["all"],
        BACKTEST_FILE,
        "best",
        None,
    )
    assert (options.report_file, options.actions_file, options.initial_capital) == ([], None, None)
    assert not options.no_adapt
    assert not options.process_data


@pytest.mark.parametrize("parser", [training_parser, backtest_parser])
def test_the_four_folders_are_those_of_a_checkout(parser):
    options = parser().parse_args([])
    assert options.raw_data_dir == Path("data/raw")
    assert options.processed_data_dir == Path("data/processed")
    assert options.models_dir == Path("models")
    assert options.reports_dir == Path("reports")


def test_the_plans_named_by_default_exist():
    assert (ROOT / PLAN_FILE).is_file()
    assert (ROOT / BACKTEST_FILE).is_file()


def test_options_that_may_be_repeated_keep_their_order():
    options = training_parser().parse_args(
        ["--set", "a=1", "--set", "b=2", "--instruments", "x", "--instruments", "y"]
    )
    assert options.overrides == ["a=1", "b=2"]
    assert options.instruments == [Path("x"), Path("y")]
    options = backtest_parser().parse_args(["--report-file", "r.txt", "--report-file", "r.json"])
    assert options.report_file == [Path("r.txt"), Path("r.json")]


def test_several_symbols_follow_one_option():
    assert training_parser().parse_args(["--symbols", "A", "B", "--seed", "3"]).symbols == ["A", "B"]


@pytest.mark.parametrize(
    ("parser", "arguments"),
    [
        (training_parser, ["--sym", "A"]),
        (training_parser, ["--dry"]),
        (backtest_parser, ["--proc"]),
        (rl_parser, ["process", "--forc"]),
    ],
)
def test_an_abbreviation_is_refused_since_the_next_option_could_change_its_meaning(parser, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(arguments)
    assert ended.value.code == 2
    (given,) = [word for word in arguments if word.startswith("--")]
    assert f"there is no option {given}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parser", "arguments", "says"),
    [
        (rl_parser, ["gat"], "gate, doctor, schema; did you mean gate?"),
        (rl_parser, ["models", "--jsn"], "there is no option --jsn; did you mean --json?"),
        (rl_parser, ["--json", "models"], "--json goes behind the command: python -m rl models --json …"),
        (rl_parser, ["process", "Nifty_15"], "'Nifty_15' is not expected here; did you mean --symbols Nifty_15?"),
        (training_parser, ["--simbols", "A"], "there is no option --simbols; did you mean --symbols?"),
        (training_parser, ["--simbols=A"], "there is no option --simbols; did you mean --symbols?"),
        (training_parser, ["A"], "'A' is not expected here; did you mean --symbols A?"),
        (backtest_parser, ["--split", "tset"], "train, all; did you mean test?"),
        (backtest_parser, ["--qqqq"], "there is no option --qqqq; see run_backtest.py --help"),
    ],
)  # fmt: skip
def test_a_slip_is_answered_with_the_nearest_and_exit_code_2(parser, arguments, says, capsys):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(arguments)
    assert ended.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert line.endswith(says)


@pytest.mark.parametrize(
    ("parser", "arguments", "says"),
    [
        (training_parser, ["--jobs", "0"], "has to be a whole number of at least 1 (got 0)"),
        (training_parser, ["--seed", "-3"], "has to be a whole number of at least 0 (got -3)"),
        (backtest_parser, ["--initial-capital", "0"], "has to be a number above 0 (got 0)"),
        (backtest_parser, ["--initial-capital", "inf"], "has to be a number above 0 (got inf)"),
        (rl_parser, ["synth", "--market", "ou", "--out", "x", "--sessions", "0"], "at least 1 (got 0)"),
        (rl_parser, ["synth", "--market", "ou"], "--out"),
        (rl_parser, [], "COMMAND"),
    ],
)
def test_numbers_outside_their_range_are_refused_in_words(parser, arguments, says, capsys):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("name", PARSERS)
def test_help_lists_every_exit_code(name):
    text = PARSERS[name]().format_help()
    listed = text.partition("exit codes:")[2].split()
    assert {"0", "1", "2", "3", "4", "5", "130", "143"} <= set(listed)


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as ended:
        training_parser().parse_args(["--version"])
    assert ended.value.code == 0
    assert __version__ in capsys.readouterr().out


# --- stages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "stages"),
    [
        (None, ("ppo", "moe", "maml")),
        (["ppo"], ("ppo",)),
        (["maml", "moe"], ("moe", "maml")),
        (["PPO", "stage_2_moe"], ("ppo", "moe")),
        (["ppo", "ppo"], ("ppo",)),
    ],
)
def test_stages_come_in_their_own_order_under_any_of_their_names(asked, stages):
    assert chosen_stages(asked) == stages


def test_a_gap_between_stages_is_refused():
    with pytest.raises(UsageError, match="--stages ppo maml leaves a gap"):
        chosen_stages(["ppo", "maml"])


def test_an_unknown_stage_is_refused_with_a_suggestion():
    with pytest.raises(UsageError, match="did you mean maml"):
        chosen_stages(["mamll"])


# --- cost -----------------------------------------------------------------------------------------------------------


def test_a_mistyped_option_is_answered_without_loading_anything_heavy():
    """Whoever mistypes an option should not wait for torch to load before being told."""
    code = (
        "import sys\n"
        "import run_training\n"
        "try:\n"
        "    run_training.main(['--symbolss', 'X'])\n"
        "except SystemExit as end:\n"
        "    heavy = {'torch', 'numba', 'numpy', 'pandas', 'talib'} & set(sys.modules)\n"
        "    print(end.code, sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"
