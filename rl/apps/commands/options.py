"""Command-line options; read without torch, numba or numpy, so that help and mistakes answer at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rl import __version__
from rl.common.errors import nearest
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
    """Refuses abbreviations, since `--proc` would change meaning with a new option; answers a slip by the nearest."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(
            *args,
            **{"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **kwargs},
        )

        self.commands: dict[str, _Parser] = {}
        """Of a parser whose commands have parsers of their own: those, by name."""

    def knows(self, option: str) -> bool:
        """Return True where this is one of its options."""
        return option in self._option_string_actions

    def error(self, message: str) -> NoReturn:
        """End with a message that shows what a word of the command line holds."""
        super().error(printable(message))

    def parse_known_args(self, args=None, namespace=None):
        """Parse; end where a word is left over, with the command that it was given to."""
        found, left_over = super().parse_known_args(args, namespace)
        if left_over:
            # A word that is left over beside an unknown option is most likely its value.
            options = [word for word in left_over if word.startswith("-")]
            verb = getattr(found, "verb", None)
            self.error("\n  ".join(self._not_understood(word, verb) for word in options or left_over))
        return found, left_over

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is None or value in action.choices:
            return
        names = [str(choice) for choice in action.choices]
        close = nearest(str(value), names, count=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise argparse.ArgumentError(action, f"{value!r} is not one of {', '.join(names)}{hint}")

    def _not_understood(self, word: str, verb: str | None) -> str:
        name = word.partition("=")[0]
        if not name.startswith("-"):
            takes_symbols = self.knows("--symbols")
            return f"{word!r} is not expected here" + (
                f"; did you mean --symbols {word}?" if takes_symbols else ""
            )
        if verb is not None and any(command.knows(name) for command in self.commands.values()):
            return f"{name} goes behind the command: {self.prog} {verb} {name} …"
        # Without the dashes all have in common, which would make any two short ones alike.
        known = {option.lstrip("-"): option for option in self._option_string_actions}
        close = nearest(name.lstrip("-"), known, count=1)
        return f"there is no option {name}; " + (
            f"did you mean {known[close[0]]}?" if close else f"see {self.prog} --help"
        )


_Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for what add_subparsers returns


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
        "--profile",
        default="full",
        metavar="NAME",
        help="full, or a file of the folder plans: quick is a short run (default: full)",
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
    _print_config(how)
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
            "  python run_backtest.py --symbols SPY --check-lookahead\n"
            "  python run_backtest.py --symbols SPY --walk-forward 2y/3m --report-file r.html\n\n"
            + EXIT_CODES
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
    _walk_forward(parser.add_argument_group("walk-forward"))
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
    _print_config(how)
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


def _walk_forward(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--walk-forward",
        default=None,
        metavar="WINDOW/STEP",
        help="train on each WINDOW, trade the STEP after it, move on by STEP, and report all stretches as one account: "
        "2y/3m (y m w d), 250s/60s (sessions) or 50%%/10%% (of all sessions)",
    )
    group.add_argument(
        "--plan",
        type=Path,
        default=None,
        metavar="FILE",
        help=f"the plan every model is trained by (default: {PLAN_FILE})",
    )
    group.add_argument(
        "--plan-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="plan_overrides",
        help="override one key of the plan; may be repeated",
    )
    group.add_argument(
        "--profile",
        default=None,
        metavar="NAME",
        help="of the plan: full, or quick for a short run (default: full)",
    )
    group.add_argument(
        "--stages",
        nargs="+",
        default=None,
        metavar="STAGE",
        help="ppo moe maml, from ppo on (default: all three)",
    )


def rl_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m rl`."""
    parser = _Parser(
        prog="python -m rl",
        description="The other commands of Stagegate. Each has a --help of its own.",
        epilog=_ending(["process --symbols all", "models", "gate --explain Nifty_15"], EXIT_CODES),
    )
    parser.add_argument("--version", action="version", version=f"stagegate {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True, parser_class=_Parser)
    for command in (_process, _synth, _models, _compare, _gate, _doctor, _schema):
        command(verbs)
    parser.commands = dict(verbs.choices)
    return parser


def _ending(examples: Sequence[str], codes: str) -> str:
    lines = "".join(f"  python -m rl {example}\n" for example in examples)
    return f"examples:\n{lines}\n{codes}"


def _process(verbs: _Commands) -> None:
    parser = verbs.add_parser(
        "process",
        help="check raw files and compute their features",
        description="Check raw files and compute their features; unchanged files are left alone.",
        epilog=_ending(
            [
                "process",
                "process --symbols Nifty_15 --force",
                "process --raw-data-dir ~/prices --instruments my_instruments.yaml --quiet",
            ],
            "exit codes:\n"
            "  0    every file is ready\n"
            "  2    wrong option, unknown symbol, or a mistake in an instruments file\n"
            "  4    a file was refused; the others are ready\n"
            "  7    a disk is full or a file cannot be written\n",
        ),
    )
    _symbols(parser, "symbols to process, or `all` (default: all)")
    parser.add_argument("--force", action="store_true", help="process files that have not changed too")
    _folders(parser, raw_only=True)
    _output(parser, quiet="leave out the notes")


def _synth(verbs: _Commands) -> None:
    parser = verbs.add_parser(
        "synth",
        help="write a made-up market whose best policy is known",
        description="Write a made-up market whose best policy is known, as a raw file. Name it SYN_…: its reports then "
        "say SYNTHETIC.",
        epilog=_ending(
            [
                "synth --market planted --out data/raw/SYN_planted_2.csv",
                "synth --market ar1 --param phi=-0.3 --sessions 250 --out data/raw/SYN_ar1_2.csv",
                "synth --market noise_garch --seed 7 --out data/raw/SYN_noise_2.csv",
            ],
            "exit codes:\n"
            "  0    the file is written\n"
            "  2    wrong option, unknown market or parameter, or a name without SYN_\n"
            "  7    a disk is full or the file cannot be written\n",
        ),
    )
    parser.add_argument(
        "--market", required=True, metavar="NAME", help="noise_garch, ar1, ou, planted or momrev"
    )
    parser.add_argument(
        "--sessions", type=_at_least_one, default=500, metavar="N", help="trading days (default: 500)"
    )
    parser.add_argument("--seed", type=_whole_number, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="a parameter of the market, e.g. phi=-0.3; may be repeated",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the csv file to write, SYN_NAME_2.csv"
    )
    _output(parser, quiet="say nothing", json=False)


def _models(verbs: _Commands) -> None:
    parser = verbs.add_parser(
        "models",
        help="list the models: stage, verdict, promotion, window, age, whether they are whole",
        description="List the models of a folder. Each file is read in full and its hash checked. The verdict is that "
        "of the stage's own gate; promoted is what was decided on the promotion window.",
        epilog=_ending(
            ["models", "models --symbols Nifty_15 --all", "models --models-dir /backup/models --json"],
            "exit codes:\n"
            "  0    every listed file is whole\n"
            "  2    wrong option, or a symbol without models\n"
            "  4    a file is damaged, or there is no model at all\n",
        ),
    )
    _symbols(parser, "whose models to list, or `all` (default: all)")
    parser.add_argument(
        "--all", action="store_true", dest="copies", help="list dated copies and models kept from before too"
    )
    _models_and_reports(parser.add_argument_group("folders and files"))
    _output(parser, quiet="the table only, without the lines under it")


def _compare(verbs: _Commands) -> None:
    parser = verbs.add_parser(
        "compare",
        help="put training runs side by side: what differs in them, and what came of each",
        description="Put training runs side by side: what differs in plan, data, code and versions, the figures of "
        "every stage with thresholds and verdicts, champions and promotions. Where windows or data differ, it says "
        "that the figures are not comparable.",
        epilog=_ending(
            [
                "compare 20260301-091500-full-s0 20260302-101500-full-s1",
                "compare reports/runs/20260301-091500-full-s0 /backup/reports/runs/20260201-080000-full-s0",
                "compare 20260301-091500-full-s0 20260302-101500-full-s1 --symbols Nifty_15 --json",
            ],
            "exit codes:\n"
            "  0    compared\n"
            "  2    wrong option, or an unknown run or symbol\n"
            "  4    a run has no report, or it cannot be read\n",
        ),
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="two runs or more: a name in the folder runs of --reports-dir, or a folder",
    )
    _symbols(parser, "symbols to compare, or `all` (default: all)")
    parser.add_argument(
        "--reports-dir", type=Path, default=Path("reports"), metavar="DIR", help="reports (default: reports)"
    )
    _output(parser, quiet="leave out what is equal")


def _gate(verbs: _Commands) -> None:
    parser = verbs.add_parser(
        "gate",
        help="recompute a model's verdicts from the evidence, or list the looks at a symbol",
        description="Recompute what was decided on a model from the ledger and the logged actions alone, without "
        "its weights, the data or the trading kernel; or list every counted look at a symbol's windows.",
        epilog=_ending(
            [
                "gate --explain models/Nifty_15_final_model.pth",
                "gate --explain Nifty_15 --reports-dir /backup/reports",
                "gate --looks Nifty_15",
            ],
            "exit codes:\n"
            "  0    every verdict agrees with its evidence\n"
            "  2    wrong option\n"
            "  4    a figure differs, or evidence, ledger or model is missing or altered\n",
        ),
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--explain",
        metavar="MODEL",
        help="a model file (.pth), or a symbol for the best model in --models-dir",
    )
    what.add_argument("--looks", metavar="SYMBOL", help="list the looks at this symbol's windows")
    _models_and_reports(parser)


def _schema(verbs: _Commands) -> None:
    parser = verbs.add_parser(
        "schema",
        help="write the JSON Schemas by which editors complete and check the yaml files",
        description="Write a JSON Schema for each kind of yaml file, from the same definitions that check the files, "
        "with the comments of the shipped ones. Editors find it by the first line of a file. What depends on several "
        "keys at once is checked by the commands only.",
        epilog=_ending(
            ["schema", "schema --check", "schema --out-dir ~/my_config"],
            "exit codes:\n"
            "  0    written; with --check, what is there is up to date\n"
            "  1    with --check: a schema is missing or out of date\n"
            "  2    wrong option\n"
            "  7    a disk is full or a file cannot be written\n",
        ),
    )
    parser.add_argument(
        "--out-dir", type=Path, default=Path("config"), metavar="DIR", help="where to (default: config)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; say what is out of date")
    _output(parser, quiet="say nothing but what is out of date", json=False)


def _doctor(verbs: _Commands) -> None:
    parser = verbs.add_parser(
        "doctor",
        help="check this installation and your data: is it whole, does it see the future, does it learn",
        description="Check this installation: versions and threads, that nothing sees the future and planted leaks "
        "are caught, that training and backtest trade alike, and that PPO, mixture and adaptation learn markets "
        "with a known answer. Besides, read every raw price file and say which load and which are refused. With "
        "--full, measure instead what share of the best policy's earnings every stage "
        "reaches on every such market; that takes over two hours of processor time, and what is finished is kept.",
        epilog=_ending(
            [
                "doctor",
                "doctor --skip-learning --raw-data-dir ~/prices",
                "doctor --full --markets ar1 planted --stages ppo --seeds 2",
            ],
            "exit codes:\n"
            "  0    all is well; with --full, every mark is met by the mean over seeds\n"
            "  1    a check failed or a mark is missed\n"
            "  2    wrong option, unknown market, or a mistake in an instruments file\n"
            "  4    the installation is sound, but a raw file is refused\n",
        ),
    )
    _doctor_options(parser)


def _doctor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--skip-learning", action="store_true", help="leave out the training, which takes the longest"
    )
    _raw_folder(parser.add_argument_group("folders and files"))
    _output(parser, quiet="only what is not well, and the result")
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


def _print_config(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--print-config",
        action="store_true",
        help="show every setting with where its value comes from (with --json, as data), then stop",
    )


def _symbols(group: argparse._ActionsContainer, text: str) -> None:
    group.add_argument("--symbols", nargs="+", default=["all"], metavar="SYMBOL", help=text)


def _folders(parser: argparse.ArgumentParser, *, raw_only: bool = False) -> None:
    where = parser.add_argument_group("folders and files")
    _raw_folder(where)
    where.add_argument(
        "--processed-data-dir",
        type=Path,
        default=Path("data/processed"),
        metavar="DIR",
        help="processed files (default: data/processed)",
    )
    if not raw_only:
        _models_and_reports(where)


def _raw_folder(where: argparse._ActionsContainer) -> None:
    where.add_argument(
        "--raw-data-dir",
        type=Path,
        default=Path("data/raw"),
        metavar="DIR",
        help="raw price files (default: data/raw)",
    )
    where.add_argument(
        "--instruments",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="instruments to add to config/instruments.yaml; may be repeated",
    )


def _models_and_reports(where: argparse._ActionsContainer) -> None:
    where.add_argument(
        "--models-dir", type=Path, default=Path("models"), metavar="DIR", help="models (default: models)"
    )
    where.add_argument(
        "--reports-dir", type=Path, default=Path("reports"), metavar="DIR", help="reports (default: reports)"
    )


def _output(
    parser: argparse.ArgumentParser, *, quiet: str = "", json: bool = True
) -> argparse._ArgumentGroup:
    """Add the options about what is printed; `quiet` is given for a command of `python -m rl`."""
    output = parser.add_argument_group("output")
    if json:
        how = "JSON instead of text" if quiet else "one JSON object per event"
        output.add_argument("--json", action="store_true", help=f"{how} on standard output")
    output.add_argument("--quiet", action="store_true", help=quiet or "only warnings, errors and the result")
    if not quiet:
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


def given_settings(options: argparse.Namespace) -> dict[str, tuple[str, Any]]:
    """Return option and value of every key of `config/backtest.yaml` that has an option, where that was given."""
    own = {"initial_capital": options.initial_capital, "split": options.split}
    return {key: (f"--{key.replace('_', '-')}", value) for key, value in own.items() if value is not None}


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


def refuse_without_walk_forward(options: argparse.Namespace) -> None:
    """Refuse options of a backtest that say how to train, where nothing is trained.

    Raises:
        UsageError: One was given.
    """
    from rl.common.errors import UsageError

    asked = {
        "--plan": options.plan,
        "--plan-set": options.plan_overrides,
        "--profile": options.profile,
        "--stages": options.stages,
    }
    if given := [name for name, value in asked.items() if value]:
        raise UsageError(
            f"{given[0]} belongs to --walk-forward, for a backtest trains nothing; add --walk-forward WINDOW/STEP such "
            "as 2y/3m, or leave it out"
        )


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
