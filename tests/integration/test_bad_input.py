"""Bad input through the real commands: a message with place and remedy, the right exit code, nothing half-written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import rl.__main__
from tests.integration.command_line import ROOT, Finished, Workplace, finished

SYMBOL = "SYN_planted_2"
USAGE, DATA = 2, 4

HEADER = "datetime,open,high,low,close\n"
GOOD = [f"2024-01-02 {10 + k // 12}:{5 * (k % 12):02}:00,100,101,99,100.5\n" for k in range(24)]


@pytest.fixture
def place(tmp_path) -> Workplace:
    workplace = Workplace(tmp_path)
    workplace.raw.mkdir()
    return workplace


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Workplace:
    """One symbol with a stage-1 model; tests that damage something work on a copy."""
    workplace = Workplace(tmp_path_factory.mktemp("trained"))
    workplace.synth(SYMBOL, sessions=30)
    done = workplace.train("--symbols", SYMBOL, "--stages", "ppo")
    assert done.code == 0, done.err
    return workplace


@pytest.fixture
def copy(trained, tmp_path) -> Workplace:
    shutil.copytree(trained.root, tmp_path / "copy")
    return Workplace(tmp_path / "copy")


def refused(done: Finished, code: int, *says: str) -> None:
    """Assert that a command ended in a message for people and nothing else."""
    assert done.code == code, f"exit code {done.code}, message: {done.err}"
    for words in says:
        assert words in done.err
    for words in ("Traceback", "unexpected error", '  File "'):
        assert words not in done.err
    # The message stands on stderr, so that a pipe reading stdout does not take it for a result.
    assert done.err.strip()


def nothing_written(workplace: Workplace, work: Callable[[], Finished]) -> Finished:
    """Run a command and assert that it left no file in the processed and models folders."""
    before = workplace.written()
    done = work()
    assert workplace.written() == before
    return done


# --- raw files ------------------------------------------------------------------------------------------------------


def rows(*replaced: tuple[int, str]) -> str:
    lines = list(GOOD)
    for number, line in replaced:
        lines[number] = line + "\n"
    return HEADER + "".join(lines)


RAW = {
    "empty file": ("", ["Broken_5.csv: the file is empty", "a header line and one line per bar"]),
    "blank file": ("\n \n", ["Broken_5.csv: the file is empty"]),
    "text in a price column": (
        rows((1, "2024-01-02 10:05:00,100,abc,99,100")),
        ["Broken_5.csv, row 3 (2024-01-02 10:05:00): high is the text 'abc'", "Correct the rows"],
    ),
    "currency sign": (rows((1, "2024-01-02 10:05:00,$100,101,99,100")), ["row 3", "open is the text '$100'"]),
    "duplicate time": (
        rows((2, "2024-01-02 10:05:00,100,102,99,100")),
        ["row 4 (2024-01-02 10:05:00): repeats the time of row 3", "duplicate_time: drop"],
    ),
    "backward time": (
        rows((5, "2024-01-02 10:07:00,100,102,99,100")),
        ["row 7 (2024-01-02 10:07:00): is earlier than a row before", "Sort the file by time"],
    ),
    "high below low": (
        rows((1, "2024-01-02 10:05:00,100,98,99,100")),
        ["row 3 (2024-01-02 10:05:00): high 98.0 is below open 100.0", "low <= open, close <= high"],
    ),
    "low above close": (
        rows((1, "2024-01-02 10:05:00,100,101,99,98")),
        ["row 3", "low 99.0 is above close 98.0"],
    ),
    "missing price": (rows((3, "2024-01-02 10:15:00,100,,99,100")), ["row 5", "is missing or not finite"]),
    "infinite price": (rows((3, "2024-01-02 10:15:00,100,inf,99,100")), ["row 5", "inf"]),
    "price of zero": (rows((3, "2024-01-02 10:15:00,100,101,0,100")), ["row 5", "is not above zero"]),
    "no time": (rows((3, "yesterday,100,101,99,100")), ["row 5", "'yesterday' is no time"]),
    "a column too many": (rows((3, "2024-01-02 10:15:00,1,100,101,99,100")), ["row 5", "fields"]),
    "no price columns": (
        "datetime,value\n2024-01-02 10:00:00,1\n",
        ["no column for", "open, high, low, close"],
    ),
    "no text at all": (bytes(range(256)) * 8, ["Broken_5.csv"]),
}


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("command", ["train", "process"])
def test_a_bad_raw_file_is_refused_by_name_and_row(place, name, command):
    content, says = RAW[name]
    path = place.raw / "Broken_5.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if command == "train":
        done = nothing_written(place, lambda: place.train("--symbols", "Broken_5"))
        refused(done, DATA, "Broken_5.csv", *says)
    else:
        done = nothing_written(place, lambda: place.process("--symbols", "Broken_5"))
        assert done.code == DATA
        for words in says:
            assert words in done.out + done.err


def test_a_file_with_a_header_only_is_refused_with_a_remedy(place):
    (place.raw / "Broken_5.csv").write_text(HEADER)
    done = nothing_written(place, lambda: place.train("--symbols", "Broken_5"))
    refused(done, DATA, "Broken_5.csv: the file has a header but no bars", "one line per bar")


def test_a_file_with_a_header_only_is_refused(place):
    (place.raw / "Broken_5.csv").write_text(HEADER)
    refused(
        nothing_written(place, lambda: place.train("--symbols", "Broken_5")), DATA, "Broken_5.csv", "no bars"
    )


@pytest.mark.parametrize(
    ("name", "says"), [("Broken_5.csv.gz", "cannot be read"), ("Broken_5.parquet", "is not a parquet file")]
)
def test_a_file_that_is_not_what_its_ending_says_is_refused(place, name, says):
    (place.raw / name).write_bytes(b"PAR1 this is neither")
    done = nothing_written(place, lambda: place.train("--symbols", "Broken_5"))
    refused(done, DATA, name, says, "again")


def test_too_few_bars_to_split_are_refused_with_what_is_needed(place):
    place.synth(SYMBOL, sessions=10)
    done = place.train("--symbols", SYMBOL)
    refused(done, DATA, "1,870 bars are too few to split", "at least 2 sessions and 20 bars", "Add data")
    assert not list(place.models.rglob("*.pth*"))


def test_two_files_of_one_symbol_are_refused_by_name(place):
    (place.raw / "more").mkdir()
    for folder in (place.raw, place.raw / "more"):
        (folder / "Twice_5.csv").write_text(rows())
    done = nothing_written(place, lambda: place.train())
    refused(done, DATA, "Twice_5.csv", "both files of symbol Twice_5", "Remove or rename one")


def test_a_bad_file_keeps_what_was_processed_before(place):
    place.synth(SYMBOL, sessions=30)
    assert place.process("--symbols", SYMBOL).code == 0
    before = {path.name: path.read_bytes() for path in place.processed.iterdir()}
    (place.raw / f"{SYMBOL}.csv").write_text(HEADER + "2015-01-01 09:15:00,1,2,0.5,x\n")
    assert place.train("--symbols", SYMBOL).code == DATA
    assert {path.name: path.read_bytes() for path in place.processed.iterdir()} == before


# --- folders and symbols --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["train", "backtest", "process"])
def test_a_missing_raw_folder_is_named_with_its_option(tmp_path, command):
    place = Workplace(tmp_path)
    done = nothing_written(place, getattr(place, command))
    refused(done, DATA, f"the folder {place.raw} does not exist", "--raw-data-dir")


def test_an_empty_raw_folder_says_what_belongs_there(place):
    refused(
        nothing_written(place, place.train), DATA, f"no price file in {place.raw}", "open, high, low, close"
    )


@pytest.mark.parametrize("command", ["train", "backtest", "process"])
def test_an_unknown_symbol_is_answered_with_the_nearest_names(trained, command):
    done = nothing_written(trained, lambda: getattr(trained, command)("--symbols", "SYN_plantd_2"))
    refused(done, USAGE, "SYN_plantd_2: no such symbol", f"did you mean {SYMBOL}?")


def test_a_symbol_like_none_there_is_answered_with_those_there_are(trained):
    refused(trained.train("--symbols", "Q"), USAGE, "Q: no such symbol", f"there are: {SYMBOL}")


@pytest.mark.parametrize("command", ["train", "backtest", "process"])
@pytest.mark.parametrize(
    "symbol", ["../SYN_planted_2", "..", "/etc/passwd", "a/b", ".hidden", "a b", "a\x00b", "", "a\\b"]
)
def test_a_symbol_that_could_leave_its_folder_is_refused(trained, command, symbol):
    done = nothing_written(trained, lambda: getattr(trained, command)("--symbols", symbol))
    refused(done, USAGE, "cannot be a symbol", "letters, digits and _ . = ^ -")


def test_a_raw_file_whose_name_is_no_symbol_is_named(place):
    (place.raw / "my file.csv").write_text(rows())
    refused(nothing_written(place, place.train), DATA, "my file.csv", "cannot be a symbol", "Rename the file")


def test_all_and_names_together_are_refused(trained):
    refused(trained.train("--symbols", "all", SYMBOL), USAGE, "give `all` or names, not both")


def test_all_means_the_same_in_capitals(copy):
    copy.synth("SYN_ou_2", "ou", sessions=30)
    assert copy.backtest("--symbols", "all", "--process-data").code == 0
    assert copy.backtest("--symbols", "ALL", "--process-data").code == 0


# --- plans and settings ---------------------------------------------------------------------------------------------

PLANS = {
    "unknown key": (
        "evidence: {alfa: 0.05}\n",
        ["plan.yaml:1:12: evidence.alfa: unknown key", "did you mean alpha?"],
    ),
    "wrong type": (
        "training_sequence:\n  stage_1_ppo:\n    episodes: many\n",
        ["plan.yaml:3:5: training_sequence.stage_1_ppo.episodes: must be a whole number (got 'many')"],
    ),
    "duplicate key": (
        "seed: 1\nseed: 2\n",
        ["plan.yaml:2:1: seed: is written twice", "the first one is on line 1"],
    ),
    "a number as text": (
        "training_params:\n  ppo:\n    learning_rate: '1e-4'\n",
        [
            "plan.yaml:3:5: training_params.ppo.learning_rate: must be a number (got the text '1e-4')",
            "write 0.0001",
        ],
    ),
    "percent for a fraction": (
        "training_sequence:\n  stage_1_ppo:\n    success_criteria:\n      min_win_rate: 40\n",
        ["plan.yaml:4:7:", "must be at most 1 (got 40); 40 % is written 0.40"],
    ),
    "no for false": ("progression_rules:\n  auto_progression: no\n", ["must be true or false (got 'no')"]),
    "not yaml": ("a: [1\n", ["plan.yaml:2:1: is not valid YAML"]),
    "empty": ("", ["plan.yaml: holds no settings"]),
    "a list": ("- 1\n", ["has to hold 'key: value' lines, but holds a list"]),
    "a gate without a number": (
        "training_sequence:\n  stage_3_maml:\n    success_criteria:\n"
        "      {min_adaptation_speed: null, min_cross_symbol_performance: null}\n",
        ["names no criterion; a gate without a number would always pass"],
    ),
    "two mistakes": (
        "evidence:\n  alpha: 2\ntraining_params:\n  ppo: {gama: 1}\n",
        ["evidence.alpha: must be at most 0.5", "training_params.ppo.gama: unknown key", "2 problems"],
    ),
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize(
    "how", [[], ["--dry-run"], ["--print-config"]], ids=["train", "dry run", "print config"]
)
def test_a_mistake_in_a_plan_is_shown_with_its_place_before_anything_starts(trained, tmp_path, name, how):
    text, says = PLANS[name]
    plan = tmp_path / "plan.yaml"
    plan.write_text(text)
    done = nothing_written(
        trained, lambda: trained.train("--symbols", SYMBOL, "--config", str(plan), *how, base=())
    )
    refused(done, USAGE, *says, "nothing was started")
    assert done.out == ""


def test_1e_4_without_quotes_is_the_number_everyone_means(trained, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("training_params:\n  ppo:\n    learning_rate: 1e-4\n")
    done = trained.train("--config", str(plan), "--print-config", base=())
    assert done.code == 0
    assert "    learning_rate: 0.0001" in done.out
    assert f"# {plan}:3" in done.out


SETTINGS = {
    "evidence.alfa=1": "unknown key; did you mean alpha?",
    "seed": "is not KEY=VALUE",
    "=1": "is not KEY=VALUE",
    "seed=": "must be a whole number (got nothing)",
    "evidence.alpha=5": "must be at most 0.5 (got 5)",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_mistake_in_a_setting_of_the_command_line_is_shown_with_it(trained, setting):
    done = nothing_written(trained, lambda: trained.train("--symbols", SYMBOL, settings=(setting,)))
    refused(done, USAGE, f"--set {setting}", SETTINGS[setting])


def test_a_setting_that_stage_3_will_refuse_is_refused_before_stage_1_is_trained(trained):
    setting = "training_params.maml.inner_step_size=1.0e-9"
    done = nothing_written(
        trained, lambda: trained.train("--symbols", SYMBOL, "--dry-run", settings=(setting,))
    )
    refused(done, USAGE, "training_params.maml.inner_step_size")


def test_a_gate_that_worthless_trading_passes_is_refused_before_anything_is_trained(trained):
    settings = ("evidence.alpha=0.5", "evidence.min_trades=1", "evidence.min_sessions=2")
    done = nothing_written(trained, lambda: trained.train("--symbols", SYMBOL, settings=settings))
    refused(
        done,
        USAGE,
        "evidence.alpha is 0.5",
        "random in 2",
        "Write evidence.alpha: 0.05",
    )


def test_a_feature_that_does_not_exist_is_named_with_those_that_do(trained):
    done = nothing_written(
        trained, lambda: trained.train("--symbols", SYMBOL, settings=("features.include=['rsii']",))
    )
    refused(done, USAGE, "'rsii' matches no feature", "rsi,")


def test_an_exposure_the_instrument_cannot_carry_is_refused(trained):
    done = nothing_written(
        trained, lambda: trained.train("--symbols", SYMBOL, settings=("environment.exposure=50",))
    )
    refused(done, USAGE, "exposure 50.0 at margin_rate 0.2 needs more equity than there is")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "{comission: {rate: 0.1}}",
            ["instruments.SYN_planted.comission: unknown key", "did you mean commission?"],
        ),
        ("{lot_size: -1}", ["instruments.SYN_planted.lot_size: must be at least 0 (got -1)"]),
        ("{calendar: NSEE}", ["must be one of NSE", "did you mean NSE?"]),
        ("{kind: option}", ["cannot be traded by this version; write kind: linear"]),
    ],
)
@pytest.mark.parametrize("command", ["train", "backtest"])
def test_a_mistake_in_an_instruments_file_is_shown_with_its_key(trained, tmp_path, text, says, command):
    file = tmp_path / "instruments.yaml"
    file.write_text(f"instruments:\n  SYN_planted: {text}\n")
    arguments = ["--symbols", SYMBOL, "--instruments", str(file)]
    done = nothing_written(trained, lambda: getattr(trained, command)(*arguments))
    refused(done, USAGE, *says)


@pytest.mark.parametrize("option", ["--config", "--instruments"])
@pytest.mark.parametrize("command", ["train", "backtest"])
def test_a_file_of_settings_that_is_not_there_is_named(trained, command, option):
    done = nothing_written(
        trained, lambda: getattr(trained, command)("--symbols", SYMBOL, option, "nope.yaml")
    )
    refused(done, USAGE, "nope.yaml: there is no such file")


def test_a_mistake_in_the_settings_of_a_backtest_is_shown_with_its_place(trained, tmp_path):
    file = tmp_path / "backtest.yaml"
    file.write_text("splitt: test\n")
    refused(
        trained.backtest("--config", str(file)),
        USAGE,
        "backtest.yaml:1:1: splitt: unknown key",
        "did you mean split?",
    )


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        ("train", ["--symbol", "X"], "there is no option --symbol; did you mean --symbols?"),
        ("train", ["--wat"], "there is no option --wat; see run_training.py --help"),
        ("train", ["--jobs", "0"], "--jobs: has to be a whole number of at least 1 (got 0)"),
        ("train", ["--seed", "-1"], "--seed: has to be a whole number of at least 0 (got -1)"),
        (
            "train",
            ["--stages", "pppo"],
            "'pppo' is not a stage; the stages are ppo, moe, maml; did you mean ppo?",
        ),
        ("train", ["--stages", "ppo", "maml"], "leaves a gap"),
        (
            "train",
            ["--profile", "quik"],
            "there is no such profile (known: full, quick); did you mean quick?",
        ),
        ("backtest", ["--wat"], "there is no option --wat; see run_backtest.py --help"),
        (
            "backtest",
            ["--report-file", "report.pdf"],
            "--report-file report.pdf: the ending has to be one of .txt, .json",
        ),
        ("backtest", ["--report-file", "report"], "the ending has to be one of .txt, .json"),
        (
            "backtest",
            ["--split", "tset"],
            "--split: 'tset' is not one of test, promotion, validation, train, all; did you mean test?",
        ),
        (
            "backtest",
            ["--stage", "pppo"],
            "--stage: 'pppo' is not one of best, final, ppo, moe, maml; did you mean ppo?",
        ),
        ("backtest", ["--initial-capital", "-5"], "--initial-capital: has to be a number above 0 (got -5)"),
        ("backtest", ["--initial-capital", "nan"], "has to be a number above 0 (got nan)"),
        ("process", ["--wat"], "there is no option --wat; see python -m rl process --help"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(trained, command, arguments, says):
    done = nothing_written(trained, lambda: getattr(trained, command)(*arguments))
    assert done.code == USAGE
    assert says in done.err
    assert "Traceback" not in done.err
    assert not Path("report.pdf").exists()


@pytest.mark.parametrize(
    ("command", "option", "says"),
    [
        ("train", "--seed", "has to be a whole number of at least 0 (got x)"),
        ("train", "--jobs", "has to be a whole number of at least 1 (got x)"),
        ("backtest", "--initial-capital", "has to be a number above 0 (got x)"),
    ],
)
def test_a_text_where_a_number_belongs_is_answered_in_words(trained, command, option, says):
    done = getattr(trained, command)(option, "x")
    assert done.code == USAGE
    assert says in done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--market", "nois", "--out", "SYN_x_2.csv"], "There is no synthetic market 'nois'"),
        (["--market", "ou", "--out", "x_2.csv"], "has to start with SYN_"),
        (["--market", "ou", "--out", "SYN_x_5.csv"], "has to be called SYN_<name>_2.csv"),
        (["--market", "ou", "--out", "SYN_x_2.csv", "--param", "kapa=1"], "has no parameter 'kapa'"),
        (["--market", "ou", "--out", "SYN_x_2.csv", "--param", "a"], "write NAME=NUMBER"),
        (["--market", "ou", "--out", "SYN_x_2.csv", "--param", "a=b"], "write NAME=NUMBER"),
    ],
)
def test_a_made_up_market_that_cannot_be_made_is_refused(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    done = finished(rl.__main__.main, ["synth", *arguments])
    refused(done, USAGE, says)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_command_is_answered_with_those_there_are():
    done = finished(rl.__main__.main, ["proces"])
    assert done.code == USAGE
    assert "'proces' is not one of process, synth, " in done.err
    assert done.err.endswith("did you mean process?\n")


# --- models ---------------------------------------------------------------------------------------------------------


def test_a_backtest_without_any_model_says_how_to_train_one(place):
    place.synth(SYMBOL, sessions=30)
    named = place.backtest("--symbols", SYMBOL, "--process-data")
    refused(named, DATA, f"No checkpoint for {SYMBOL}", f"{SYMBOL}_final_model.pth", f"--symbols {SYMBOL}")
    refused(place.backtest(), DATA, f"has a model in {place.models}", "python run_training.py --symbols all")
    assert not list(place.models.rglob("*.pth*"))


def test_a_stage_that_was_not_trained_is_not_replaced_by_another(trained):
    done = trained.backtest("--symbols", SYMBOL, "--stage", "moe")
    refused(done, DATA, f"No checkpoint for {SYMBOL}", f"{SYMBOL}_moe_stage2.pth")


def model_of(workplace: Workplace) -> Path:
    return workplace.models / f"{SYMBOL}_ppo_stage1.pth"


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def without_sidecar(path: Path) -> None:
    path.with_name(path.name + ".json").unlink()


def renamed(path: Path) -> None:
    for end in ("", ".json"):
        old = path.with_name(path.name + end)
        old.rename(old.with_name(old.name.replace("_ppo_stage1", "_moe_stage2")))


def hostile(path: Path) -> None:
    path.write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (flip_a_bit, "it was altered: its SHA-256 is"),
        (cut_off, "it is truncated"),
        (without_sidecar, "sidecar"),
        (renamed, "its name says stage moe, but it holds stage ppo"),
        (hostile, "is refused"),
        (lambda path: path.write_bytes(b""), "it is empty"),
    ],
    ids=["flipped bit", "cut off", "no sidecar", "renamed", "hostile", "empty"],
)
def test_a_damaged_model_is_refused_by_name_and_no_other_takes_its_place(copy, damage, says):
    damage(model_of(copy))
    done = copy.backtest("--symbols", SYMBOL, "--report-file", str(copy.root / "r.json"))
    refused(done, DATA, f"{SYMBOL}_", "is refused", says)
    assert not (copy.root / "r.json").exists()


def test_a_damaged_model_is_no_start_for_the_next_stage(copy):
    flip_a_bit(model_of(copy))
    done = nothing_written(copy, lambda: copy.train("--symbols", SYMBOL, "--stages", "moe"))
    refused(done, DATA, "it was altered")


def test_a_later_stage_without_its_parent_says_how_to_train_it(place):
    place.synth(SYMBOL, sessions=30)
    done = place.train("--symbols", SYMBOL, "--stages", "maml")
    refused(
        done, USAGE, "has no model of stage 2 (moe) to start from", f"--symbols {SYMBOL} --stages moe maml"
    )
    assert not list(place.models.rglob("*.pth*"))


def test_the_model_before_a_damaged_one_is_used_and_report_message_and_exit_code_say_so(copy):
    """Refusing alone would leave a trader without any figure; a worse model in silence would be worse still."""
    better = copy.models / f"{SYMBOL}_final_model.pth"
    for end in ("", ".json"):
        shutil.copy(f"{model_of(copy)}{end}", f"{better}{end}")
    flip_a_bit(better)
    report = copy.root / "r.txt"
    done = copy.backtest("--symbols", SYMBOL, "--report-file", str(report))
    refused(
        done,
        DATA,
        f"{SYMBOL}_final_model.pth is refused: it was altered",
        f"{SYMBOL}_ppo_stage1.pth is used instead",
    )
    said = f"WARNING  {SYMBOL}_final_model.pth CANNOT BE USED, {SYMBOL}_ppo_stage1.pth IS USED INSTEAD."
    assert said in report.read_text()


def test_a_processed_file_with_a_flipped_bit_is_made_again_before_training_and_that_is_said(copy):
    path = copy.processed / f"{SYMBOL}.parquet"
    whole = path.read_bytes()
    flip_a_bit(path)
    done = copy.train("--symbols", SYMBOL, "--dry-run")
    assert done.code == 0
    assert f"{SYMBOL}: reprocessed: {SYMBOL}.parquet is not the file that {SYMBOL}.json describes" in done.out
    assert path.read_bytes() == whole


def test_a_damaged_processed_file_is_refused_with_the_command_that_makes_it_anew(copy):
    cut_off(copy.processed / f"{SYMBOL}.parquet")
    done = copy.backtest("--symbols", SYMBOL)
    refused(done, DATA, f"{SYMBOL}.parquet is not the file that {SYMBOL}.json describes", "--process-data")
    assert copy.backtest("--symbols", SYMBOL, "--process-data").code == 0


def test_a_changed_evidence_ledger_is_refused_since_its_count_proves_nothing_any_more(copy):
    ledger = copy.reports / "evidence_ledger.jsonl"
    ledger.write_text("changed\n" + ledger.read_text())
    before = copy.written()
    done = copy.train("--symbols", SYMBOL, "--stages", "ppo")
    refused(
        done, DATA, "evidence_ledger.jsonl, line 1: is not a line of an evidence ledger", "Restore the file"
    )
    assert copy.written() == before


# --- where results go -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [
        "--report-file",
        "--actions-file",
    ],
)
def test_a_report_that_cannot_be_written_is_refused_before_the_work_is_done(trained, tmp_path, option):
    folder = tmp_path / "taken.json"
    folder.mkdir()
    done = trained.backtest("--symbols", SYMBOL, option, str(folder))
    refused(done, USAGE, option, str(folder))
    assert "STAGEGATE BACKTEST REPORT" not in done.out


# --- real processes -------------------------------------------------------------------------------------------------


def real(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_exit_codes_and_streams_are_those_of_a_real_process(trained):
    """What the tests above see inside one interpreter is what a shell sees."""
    wrong = real(["run_training.py", *trained.folders(), "--symbols", "../x"])
    assert (wrong.returncode, wrong.stdout) == (USAGE, "")
    assert wrong.stderr.startswith("error: '../x' cannot be a symbol")
    unknown = real(["run_backtest.py", *trained.folders(), "--symbols", "SYN_plantd_2"])
    assert (unknown.returncode, unknown.stdout) == (USAGE, "")
    assert unknown.stderr.startswith("error: SYN_plantd_2: no such symbol")
    assert "Traceback" not in wrong.stderr + unknown.stderr


def test_a_fault_of_the_program_is_one_line_with_the_traceback_in_a_file(trained, monkeypatch):
    """The last line of defence: also what nobody foresaw ends in a message, not in a page of code."""

    def broken(_: object) -> int:
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr("rl.apps.commands.train.train", broken)
    done = trained.train("--symbols", SYMBOL)
    assert done.code == 1
    first, second = done.err.strip().splitlines()
    assert first == "unexpected error: ZeroDivisionError: nobody foresaw this"
    log = Path(second.split("traceback: ")[1])
    assert "broken" in log.read_text()
    log.unlink()
