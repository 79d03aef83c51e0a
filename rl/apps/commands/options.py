"""Command-line options; read without torch, numba or numpy, so that help and mistakes answer at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rl import __version__
from rl.common.printable import printable

EXIT_CODES = """exit codes:
  0    done as configured
  1    unexpected error (the traceback is in the log), or a check of the installation failed
  2    wrong option or configuration
  3    a package or device is missing
  4    data or a model file is missing or bad, or a check found that something sees the future
  5    a gate stopped a symbol's sequence; with --strict, any gate or promotion not passed
  6    another run is training that symbol into the same models folder
  7    a disk is full or a file cannot be written; what was there before is intact
  130  interrupted by Ctrl-C      143  terminated
"""

PLAN_FILE = Path("config/training_sequence.yaml")
BACKTEST_FILE = Path("config/backtest.yaml")
LEARNING_FILE = Path("reports/learning.json")


class _Parser(argparse.ArgumentParser):
    """Refuses abbreviations: `--proc` would silently change meaning when an option is added."""

    def error(self, message: str) -> NoReturn:
        """End with a message that shows what a word of the command line holds."""
        super().error(printable(message))

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(
            *args,
            **{"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **kwargs},
        )


def training_parser() -> argparse.ArgumentParser:
    """Return the parser of `run_training.py`."""
    parser = _Parser(
        prog="run_training.py",
        description=(
            "Train PPO, then a mixture of experts, then MAML on each symbol; judge every stage on data it never saw."
        ),
        epilog=(
            "examples:\n"
            "  python run_training.py --symbols all\n"
            "  python run_training.py --symbols Nifty_15 Bank_Nifty_15 --profile quick --jobs 2\n"
            "  python run_training.py --symbols SPY --set training_params.ppo.learning_rate=0.0003 --stages ppo\n\n"
            + EXIT_CODES
        ),
    )
    what = parser.add_argument_group("what to train")
    _symbols(what, "symbols to train, or `all` for every raw or processed file (default: all)")
    what.add_argument(
        "--config", type=Path, default=PLAN_FILE, metavar="FILE", help=f"the plan (default: {PLAN_FILE})"
    )
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override one key of the plan, e.g. training_sequence.stage_1_ppo.episodes=200; may be repeated",
    )
    what.add_argument(
        "--profile", default="full", metavar="NAME", help="full, or quick for a short run (default: full)"
    )
    what.add_argument(
        "--stages",
        nargs="+",
        default=None,
        metavar="STAGE",
        help="ppo moe maml, any run of them in that order (default: all three)",
    )
    what.add_argument(
        "--seed", type=_whole_number, default=None, metavar="N", help="overrides the plan's seed"
    )
    _folders(parser)
    how = parser.add_argument_group("how to run")
    how.add_argument(
        "--jobs",
        type=_at_least_one,
        default=1,
        metavar="N",
        help="symbols trained side by side, one process each (default: 1)",
    )
    how.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|RUN",
        help="auto: go on with the newest run of the same symbols and stages that did not end; never: begin a new "
        "run; or the name of a run to go on with (default: auto)",
    )
    how.add_argument(
        "--dry-run", action="store_true", help="check everything, show the windows, train nothing"
    )
    how.add_argument(
        "--print-config",
        action="store_true",
        help="show every setting with where it comes from, then stop",
    )
    how.add_argument(
        "--strict", action="store_true", help="exit 5 unless every gate and promotion was passed"
    )
    output = _output(parser)
    output.add_argument("-v", "--verbose", action="store_true", help="show every check on the way, too")
    output.add_argument(
        "--track",
        nargs="+",
        choices=["tensorboard", "mlflow"],
        default=[],
        metavar="MIRROR",
        help="show the metrics in tensorboard and mlflow, too; needs the packages of the set `tracking`",
    )
    return parser


def backtest_parser() -> argparse.ArgumentParser:
    """Return the parser of `run_backtest.py`."""
    parser = _Parser(
        prog="run_backtest.py",
        description="Let the best available model of each symbol trade bars it never saw, and report what it did.",
        epilog=(
            "examples:\n"
            "  python run_backtest.py --process-data --report-file r.txt\n"
            "  python run_backtest.py --symbols Nifty_15 --report-file r.txt --report-file r.json\n"
            "  python run_backtest.py --symbols SPY --split validation --stage ppo --actions-file actions.csv\n"
            "  python run_backtest.py --symbols SPY --check-lookahead\n\n" + EXIT_CODES
        ),
    )
    what = parser.add_argument_group("what to test")
    _symbols(what, "symbols to test, or `all` for every symbol with a model (default: all)")
    what.add_argument(
        "--stage",
        choices=["best", "final", "ppo", "moe", "maml"],
        default="best",
        help="which model: the best available, or one stage's (default: best)",
    )
    what.add_argument(
        "--split",
        choices=["test", "promotion", "validation", "train", "all"],
        default=None,
        help="which window of the data (default: test, the only one no training or choice has seen)",
    )
    what.add_argument(
        "--initial-capital", type=_positive, default=None, metavar="X", help="capital per symbol"
    )
    what.add_argument(
        "--config",
        type=Path,
        default=BACKTEST_FILE,
        metavar="FILE",
        help=f"settings (default: {BACKTEST_FILE})",
    )
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override one key of the settings; may be repeated",
    )
    what.add_argument(
        "--no-adapt", action="store_true", help="do not re-adapt a stage-3 model before the span begins"
    )
    what.add_argument(
        "--process-data", action="store_true", help="process raw files that are new or changed first"
    )
    where = parser.add_argument_group("where results go")
    where.add_argument(
        "--report-file",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="report as .txt, .json or .html by its ending; may be repeated",
    )
    where.add_argument(
        "--actions-file",
        type=Path,
        default=None,
        metavar="FILE",
        help="every decision as CSV: symbol, datetime, position, fill_price, exit_price, exit_reason",
    )
    _folders(parser)
    how = parser.add_argument_group("how to run")
    how.add_argument("--dry-run", action="store_true", help="check everything, test nothing")
    how.add_argument(
        "--check-lookahead",
        action="store_true",
        help="test nothing, but check that no step from raw file to verdict sees the future; exit 4 if one does",
    )
    how.add_argument(
        "--strict", action="store_true", help="exit 5 if a tested model passed no gate or was not promoted"
    )
    _output(parser)
    return parser


def rl_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m rl`."""
    parser = _Parser(prog="python -m rl", description="The other commands of Stagegate.", epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"stagegate {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True, parser_class=_Parser)
    process = verbs.add_parser(
        "process",
        help="check raw files and compute their features",
        description="Check raw files and compute their features; unchanged files are left alone.",
        epilog="example:\n  python -m rl process --symbols Nifty_15 --force\n",
    )
    _symbols(process, "symbols to process, or `all` (default: all)")
    process.add_argument("--force", action="store_true", help="process files that have not changed too")
    _folders(process, raw_only=True)
    process.add_argument("--quiet", action="store_true", help="leave out the notes")
    synth = verbs.add_parser(
        "synth",
        help="write a made-up market whose best policy is known",
        description="Write a made-up market whose best policy is known, as a raw file. Name it SYN_…: its reports then "
        "say SYNTHETIC.",
        epilog="example:\n"
        "  python -m rl synth --market planted --sessions 500 --seed 7 --out data/raw/SYN_planted_2.csv\n",
    )
    synth.add_argument(
        "--market", required=True, metavar="NAME", help="noise_garch, ar1, ou, planted or momrev"
    )
    synth.add_argument(
        "--sessions", type=_at_least_one, default=500, metavar="N", help="trading days (default: 500)"
    )
    synth.add_argument("--seed", type=_whole_number, default=0, metavar="N", help="default: 0")
    synth.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="a parameter of the market, e.g. phi=-0.3; may be repeated",
    )
    synth.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the csv file to write, SYN_NAME_2.csv"
    )
    _gate(
        verbs.add_parser(
            "gate",
            help="recompute a model's verdicts from the evidence, or list the looks at a symbol",
            description="Recompute what was decided on a model from the ledger and the logged actions alone, without "
            "its weights, the data or the trading kernel; or list every counted look at a symbol's windows.",
            epilog="examples:\n"
            "  python -m rl gate --explain models/Nifty_15_final_model.pth\n"
            "  python -m rl gate --looks Nifty_15\n\n"
            "exit codes:\n"
            "  0    every verdict agrees with its evidence\n"
            "  2    wrong option\n"
            "  4    a figure differs, or evidence, ledger or model is missing or altered\n",
        )
    )
    _doctor(
        verbs.add_parser(
            "doctor",
            help="check this installation: does it see the future, and does it learn",
            description="Check this installation: versions and threads, that nothing sees the future and planted leaks "
            "are caught, that training and backtest trade alike, and that PPO, mixture and adaptation learn markets "
            "with a known answer. With --full, measure instead what share of the best policy's earnings every stage "
            "reaches on every such market; that takes over two hours of processor time, and what is finished is kept.",
            epilog="examples:\n"
            "  python -m rl doctor\n"
            "  python -m rl doctor --full --jobs 2\n"
            "  python -m rl doctor --full --markets ar1 planted --stages ppo --seeds 2\n\n"
            "exit codes:\n"
            "  0    all is well; with --full, every mark is met by the mean over seeds\n"
            "  1    a check failed or a mark is missed\n"
            "  2    wrong option\n",
        )
    )
    return parser


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--skip-learning", action="store_true", help="leave out the training, which takes the longest"
    )
    full = parser.add_argument_group("the learning table")
    full.add_argument(
        "--full", action="store_true", help="measure and print the learning table, and nothing else"
    )
    full.add_argument(
        "--seeds",
        type=_at_least_one,
        default=None,
        metavar="N",
        help="seeds of each row, from 0 on (default: 5)",
    )
    full.add_argument(
        "--markets", nargs="+", default=None, metavar="NAME", help="rows to measure (default: all)"
    )
    full.add_argument(
        "--stages", nargs="+", default=None, metavar="STAGE", help="ppo, moe, maml (default: all three)"
    )
    full.add_argument(
        "--jobs", type=_at_least_one, default=None, metavar="N", help="processes side by side (default: 1)"
    )
    full.add_argument(
        "--out",
        type=Path,
        default=None,
        metavar="FILE",
        help=f"the table as JSON; finished cells lie beside it, in FILE's name with .cells (default: {LEARNING_FILE})",
    )


def _gate(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--explain",
        metavar="MODEL",
        help="a model file (.pth), or a symbol for the best model in --models-dir",
    )
    what.add_argument("--looks", metavar="SYMBOL", help="list the looks at this symbol's windows")
    _models_and_reports(parser)


def _symbols(group: argparse._ActionsContainer, text: str) -> None:
    group.add_argument("--symbols", nargs="+", default=["all"], metavar="SYMBOL", help=text)


def _folders(parser: argparse.ArgumentParser, *, raw_only: bool = False) -> None:
    where = parser.add_argument_group("folders and files")
    where.add_argument(
        "--raw-data-dir",
        type=Path,
        default=Path("data/raw"),
        metavar="DIR",
        help="raw price files (default: data/raw)",
    )
    where.add_argument(
        "--processed-data-dir",
        type=Path,
        default=Path("data/processed"),
        metavar="DIR",
        help="processed files (default: data/processed)",
    )
    where.add_argument(
        "--instruments",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="instruments to add to config/instruments.yaml; may be repeated",
    )
    if not raw_only:
        _models_and_reports(where)


def _models_and_reports(where: argparse._ActionsContainer) -> None:
    where.add_argument(
        "--models-dir", type=Path, default=Path("models"), metavar="DIR", help="models (default: models)"
    )
    where.add_argument(
        "--reports-dir", type=Path, default=Path("reports"), metavar="DIR", help="reports (default: reports)"
    )


def _output(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="one JSON object per event on standard output")
    output.add_argument("--quiet", action="store_true", help="only warnings, errors and the result")
    output.add_argument("--no-color", action="store_true", help="no colour; NO_COLOR=1 says the same")
    output.add_argument("--version", action="version", version=f"stagegate {__version__}")
    return output


def _whole_number(text: str, least: int = 0) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"has to be a whole number of at least {least} (got {text})")
    return int(text)


def _at_least_one(text: str) -> int:
    return _whole_number(text, 1)


def _positive(text: str) -> float:
    wrong = argparse.ArgumentTypeError(f"has to be a number above 0 (got {text})")
    try:
        value = float(text)
    except ValueError:
        raise wrong from None
    if not 0 < value < float("inf"):
        raise wrong
    return value


def wants_all(symbols: Sequence[str]) -> bool:
    """Return True where `--symbols` says `all`, in capitals or not."""
    return any(text.casefold() == "all" for text in symbols)


def refuse_without_full(options: argparse.Namespace) -> None:
    """Refuse options of `doctor` that say nothing without --full, or contradict it.

    Raises:
        UsageError: One was given.
    """
    from rl.common.errors import UsageError

    given = [
        name for name in ("seeds", "markets", "stages", "jobs", "out") if getattr(options, name) is not None
    ]
    if given and not options.full:
        raise UsageError(
            f"--{given[0]} belongs to the learning table; add --full, or leave it out for the short check"
        )
    if options.full and options.skip_learning:
        raise UsageError("--full measures learning and nothing else; leave out --skip-learning")


def chosen_stages(asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return the stages to train, in order.

    Raises:
        UsageError: A name is no stage, or the stages leave a gap.
    """
    from rl.common.errors import UsageError
    from rl.stages.plan import STAGES, stage_name

    if asked is None:
        return STAGES
    chosen = {stage_name(text) for text in asked}
    places = sorted(STAGES.index(name) for name in chosen)
    if places != list(range(places[0], places[-1] + 1)):
        raise UsageError(
            f"--stages {' '.join(asked)} leaves a gap: each stage starts from the one before it. "
            f"The order is {' '.join(STAGES)}."
        )
    return tuple(STAGES[place] for place in places)
