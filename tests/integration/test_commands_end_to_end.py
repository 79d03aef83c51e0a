"""Both commands from raw bars to report on a tiny plan: what they write, what they leave alone, what they repeat."""

from __future__ import annotations

import csv
import gzip
import hashlib
import itertools
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rl.checkpoints.checkpoint import load_checkpoint
from rl.common.interpreter import interpreter
from rl.stages.plan import load_plan
from tests.browser import PHONE, a_browser, opened
from tests.integration.command_line import PLAN, ROOT, TINY, Finished, Workplace
from tests.page_reading import disagreement, read_page

SYMBOL = "SYN_planted_2"
OTHER = "SYN_ou_2"
STAGE_FILES = ["_ppo_stage1.pth", "_moe_stage2.pth", "_maml_stage3_final.pth"]
FAILING = ("training_sequence.stage_1_ppo.success_criteria.max_drawdown=0.000001",)
"""A gate no trading model passes; a drawdown over its limit needs no minimum of data."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workplace:
    workplace = Workplace(tmp_path_factory.mktemp("user"))
    workplace.synth(SYMBOL)
    return workplace


@pytest.fixture(scope="module")
def training(place) -> Finished:
    done = place.train("--symbols", SYMBOL)
    assert done.code == 0, done.err
    return done


@pytest.fixture(scope="module")
def backtest(place, training) -> Finished:
    done = place.backtest(
        "--symbols", SYMBOL, "--report-file", str(place.root / "out" / "r.txt"),
        "--report-file", str(place.root / "out" / "r.json"), "--report-file", str(place.root / "out" / "r.html"),
        "--actions-file", str(place.root / "out" / "a.csv"),
    )  # fmt: skip
    assert done.code == 0, done.err
    return done


@pytest.fixture(scope="module")
def report(place, backtest) -> dict[str, Any]:
    return strict_json((place.root / "out" / "r.json").read_text())


def strict_json(text: str) -> Any:
    """Read JSON as the standard has it: no NaN, no Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def run_folder(place: Workplace) -> Path:
    folders = sorted(
        path for path in (place.reports / "runs").iterdir() if not path.name.endswith("-backtest")
    )
    return folders[-1]


def training_report(place: Workplace) -> dict[str, Any]:
    return strict_json((run_folder(place) / "training_report.json").read_text())


def weights_of(place: Workplace, symbol: str = SYMBOL) -> dict[str, str]:
    """Return a hash of every tensor of every model of a symbol."""
    found = {}
    for path in sorted(place.models.glob(f"{symbol}_*.pth")):
        checkpoint = load_checkpoint(path)
        for name, tensor in {"weights": checkpoint.weights, **checkpoint.extra_tensors}.items():
            found[f"{path.name}: {name}"] = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
    assert found
    return found


TIMES = {
    "generated", "wall_seconds", "cpu_seconds", "seconds", "steps_per_second", "run", "file", "final_model",
    "data_hash", "time", "looks",
}  # fmt: skip


def without_times(value: Any) -> Any:
    """Return a report without what a clock, a folder or a file's hash decides."""
    if isinstance(value, dict):
        return {name: without_times(each) for name, each in value.items() if name not in TIMES}
    return [without_times(each) for each in value] if isinstance(value, list) else value


# --- training -------------------------------------------------------------------------------------------------------


def test_training_writes_a_model_with_sidecar_for_every_stage(place, training):
    names = {path.name for path in place.models.iterdir() if path.is_file()}
    expected = {SYMBOL + end for end in STAGE_FILES}
    assert expected <= names
    assert {name + ".json" for name in expected} <= names
    for name in expected:
        checkpoint = load_checkpoint(place.models / name)
        assert checkpoint.symbol == SYMBOL
        assert checkpoint.verdict["outcome"] in ("PASS", "FAIL", "INCONCLUSIVE")


def test_training_processes_what_is_missing_by_itself(place, training):
    assert {path.name for path in place.processed.iterdir()} == {f"{SYMBOL}.parquet", f"{SYMBOL}.json"}
    assert f"{SYMBOL}: processed, 7,480 bars" in training.out


def test_training_ends_with_the_gate_table_the_report_and_the_next_command(training):
    lines = training.out.splitlines()
    table = next(number for number, line in enumerate(lines) if line.split()[:2] == ["symbol", "ppo"])
    assert lines[table].split() == [
        "symbol", "ppo", "moe", "maml", "champion", "promoted", "val", "Sharpe", "max", "DD",
    ]  # fmt: skip
    assert lines[table + 2].split()[0] == SYMBOL
    assert "(SYNTHETIC)" in lines[table + 2] + lines[table + 3]
    assert [line.split(": ")[0] for line in lines[-6:-2]] == ["report", "report", "report", "all runs"]
    assert re.fullmatch(r"\d+:\d\d total\.", lines[-2])
    assert lines[-1].startswith(f"Next: {interpreter()} run_backtest.py --symbols {SYMBOL}")
    assert lines[-1].endswith("--report-file backtest_report.txt --report-file backtest_report.html")
    assert "Production models: none; a backtest takes the best stage's model" in training.out
    assert training.err == ""


NULL_BANK = ["flat", "buy_and_hold", "always_short", "random", "sign_flipped", "last_bar_sign"]


def test_the_null_bank_stands_beside_every_gate_on_screen_and_in_the_report(place, training):
    found = training_report(place)
    symbol = found["symbols"][SYMBOL]
    verdicts = [symbol["stages"]["ppo"]["verdict"], symbol["stages"]["moe"]["verdict"], symbol["promotion"]]
    for verdict in verdicts:
        assert list(verdict["context"]["null_bank"]) == NULL_BANK
    text = (run_folder(place) / "training_report.txt").read_text()
    for told in (training.out, text):
        assert told.count("null bank: flat INCONCLUSIVE, buy-and-hold INCONCLUSIVE, always-short ") == 3
        assert "it is permission to go on, not evidence." in told
    assert {count["policy"] for count in found["null_bank"]["passes"]} > set(NULL_BANK)


def test_the_next_command_finds_what_this_one_wrote(place, training):
    shown = training.out.splitlines()[-1]
    for folder in (place.raw, place.processed, place.models, place.reports):
        assert str(folder) in shown


def test_training_leaves_a_run_folder_with_config_log_and_reports(place, training):
    folder = run_folder(place)
    assert {path.name for path in folder.iterdir()} == {
        "run.json", "run.lock", "events.jsonl", "run.log", "metrics.csv", "config.resolved.yaml", "environment.json",
        "data_quality.csv", "checkpoints", "training_report.txt", "training_report.json", "training_report.html",
    }  # fmt: skip
    events = [strict_json(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    names = [event["event"] for event in events]
    assert names[0] == "run_started"
    assert names.count("stage_judged") == 3
    assert names[-1] == "symbol_done"
    looks = [strict_json(line) for line in (place.reports / "evidence_ledger.jsonl").read_text().splitlines()]
    assert [look["purpose"] for look in looks if look["kind"] == "look"] == [
        "progress", "progress", "adaptation", "promotion",
    ]  # fmt: skip


def test_the_training_report_has_every_stage_with_its_verdict_and_windows(place, training):
    found = training_report(place)
    assert found["schema_version"] == 1
    symbol = found["symbols"][SYMBOL]
    assert symbol["synthetic"] is True
    assert list(symbol["stages"]) == ["ppo", "moe", "maml"]
    for stage in symbol["stages"].values():
        assert stage["verdict"]["outcome"] in ("PASS", "FAIL", "INCONCLUSIVE")
        assert stage["verdict"]["criteria"]
        assert stage["episodes"] >= 1
        assert stage["wall_seconds"] > 0
    windows = [symbol["windows"][name] for name in ("train", "validation", "promotion", "test")]
    for before, after in itertools.pairwise(windows):
        assert before["from"] < before["to"] < after["from"]


def test_the_resolved_plan_trains_the_same_again(place, training, tmp_path):
    """What is written beside a run has to be the plan of that run, every override included."""
    again = Workplace(tmp_path)
    again.synth(SYMBOL)
    done = again.train(
        "--symbols", SYMBOL, "--stages", "ppo", "--config", str(run_folder(place) / "config.resolved.yaml")
    )
    assert done.code == 0, done.err
    name = f"{SYMBOL}_ppo_stage1.pth: weights"
    assert weights_of(again)[name] == weights_of(place)[name]


def test_training_three_symbols_again_gives_the_same_verdicts(tmp_path):
    """What a first run could not measure must not become measurable because its files are still there."""
    place = Workplace(tmp_path)
    settings = ("features.exclude=['x_*']", "training_sequence.stage_1_ppo.episodes=2")
    for symbol, market in ((SYMBOL, "planted"), (OTHER, "ou"), ("SYN_ar1_2", "ar1")):
        place.synth(symbol, market, sessions=30)
    reports = []
    for _ in range(2):
        done = place.train("--symbols", "all", settings=settings)
        assert done.code == 0, done.err
        # The symbol kept out of meta-training is trained first; it is one of the three all the same.
        headings = [line[:5] for line in done.out.splitlines() if line.startswith("[")]
        assert headings == ["[1/3]", "[2/3]", "[3/3]"]
        reports.append(without_times(training_report(place)["symbols"]))
        time.sleep(1.1)  # a run is named after its second
    for symbol in (SYMBOL, OTHER):
        verdicts = [report[symbol]["stages"]["maml"]["verdict"] for report in reports]
        assert verdicts[0]["reasons"] == verdicts[1]["reasons"]


def test_later_stages_can_be_trained_on_their_own(place, training, tmp_path):
    alone = Workplace(tmp_path)
    alone.synth(SYMBOL)
    for stages in (["ppo"], ["moe", "maml"]):
        done = alone.train("--symbols", SYMBOL, "--stages", *stages)
        assert done.code == 0, done.err
    assert weights_of(alone) == weights_of(place)


# --- verdicts and their evidence -------------------------------------------------------------------------------------


def test_every_verdict_of_a_run_is_recomputed_from_its_evidence(place, training):
    """Stage files are asked by name, as a user would; the best model by its symbol."""
    for end in STAGE_FILES:
        done = place.gate("--explain", str(place.models / (SYMBOL + end)))
        assert done.code == 0, done.out + done.err
        assert "AGREES: " in done.out
        assert "DIFFERS" not in done.out
    done = place.gate("--explain", SYMBOL)
    assert done.code == 0, done.out + done.err


def test_a_changed_log_gives_exit_code_4_and_says_which(place, training, tmp_path):
    shutil.copytree(place.reports, tmp_path / "reports")
    (log,) = (tmp_path / "reports" / "evidence" / SYMBOL).glob("adaptation-*.csv.gz")
    log.write_bytes(gzip.compress(gzip.decompress(log.read_bytes()).replace(b"order", b"0rder", 1)))
    model = str(place.models / f"{SYMBOL}_maml_stage3_final.pth")
    done = place.gate("--explain", model, "--reports-dir", str(tmp_path / "reports"))
    assert done.code == 4
    assert f"{log} was changed" in done.out


def test_looks_are_listed_with_what_came_of_them(place, training):
    done = place.gate("--looks", SYMBOL)
    assert done.code == 0
    assert [line.split()[1:3] for line in done.out.splitlines()[2:6]] == [
        ["progress", "1"], ["progress", "2"], ["adaptation", "1"], ["promotion", "1"],
    ]  # fmt: skip
    assert re.search(r"^All \d+ lines of the ledger are as they were written", done.out, re.MULTILINE)


def test_a_flipped_digit_of_the_ledger_is_refused_and_an_older_ledger_said_to_be_unverified(
    place, training, tmp_path
):
    shutil.copytree(place.reports, tmp_path / "reports")
    ledger, elsewhere = (
        tmp_path / "reports" / "evidence_ledger.jsonl",
        ("--reports-dir", str(tmp_path / "reports")),
    )
    text = ledger.read_text()
    assert '"attempt": 1' in text
    ledger.write_text(text.replace('"attempt": 1', '"attempt": 2', 1))
    for asked in (("--looks", SYMBOL), ("--explain", SYMBOL, "--models-dir", str(place.models))):
        done = place.gate(*asked, *elsewhere)
        assert done.code == 4
        assert "is not as it was written, or a line before it was changed or taken out" in done.err
    ledger.write_text(re.sub(r', "chain": "[0-9a-f]{64}"', "", text))
    for asked in (("--looks", SYMBOL), ("--explain", SYMBOL, "--models-dir", str(place.models))):
        done = place.gate(*asked, *elsewhere)
        assert done.code == 0, done.out + done.err
        assert "lines of the ledger are of an earlier version and carry no hash" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "one of the arguments --explain --looks is required"),
        (("--explain", "no_such_file.pth"), 2, "there is no such file"),
        (("--explain", "../evil"), 2, "cannot be a symbol"),
        (("--explain", "Unknown_2"), 4, "No checkpoint for Unknown_2"),
        (("--looks", "Unknown_2"), 4, "holds no look at Unknown_2"),
        (("--looks", SYMBOL, "--reports-dir", "nowhere"), 4, "there is no evidence ledger"),
    ],
)
def test_a_gate_that_cannot_be_asked_says_why(place, training, arguments, code, says):
    done = place.gate(*arguments)
    assert done.code == code
    assert says in done.err


# --- exit codes -----------------------------------------------------------------------------------------------------


def test_a_gate_that_stops_a_symbol_gives_exit_code_5(tmp_path):
    place = Workplace(tmp_path)
    place.synth(SYMBOL)
    done = place.train("--symbols", SYMBOL, "--stages", "ppo", "moe", settings=FAILING)
    assert done.code == 5
    assert "FAIL" in done.out
    assert sorted(path.name for path in place.models.glob("*.pth")) == [f"{SYMBOL}_ppo_stage1.pth"]
    assert training_report(place)["symbols"][SYMBOL]["stopped"].startswith("gate after stage 1 (ppo): FAIL")


def test_strict_asks_for_every_gate_and_the_promotion(tmp_path):
    place = Workplace(tmp_path)
    place.synth(SYMBOL)
    assert place.train("--symbols", SYMBOL, "--stages", "ppo", "--strict").code == 5
    assert place.backtest("--symbols", SYMBOL, "--strict").code == 5
    assert place.backtest("--symbols", SYMBOL).code == 0


def test_a_bad_symbol_does_not_keep_the_others_from_being_trained(tmp_path):
    place = Workplace(tmp_path)
    place.synth(SYMBOL, sessions=30)
    (place.raw / "Broken_5.csv").write_text("datetime,open,high,low,close\n2024-01-02 09:15:00,1,2,3,x\n")
    done = place.train(
        "--symbols", "all", "--stages", "ppo", settings=("training_sequence.stage_1_ppo.episodes=2",)
    )
    assert done.code == 4
    assert "Broken_5.csv" in done.err
    assert (place.models / f"{SYMBOL}_ppo_stage1.pth").exists()


# --- dry runs, settings, processing ---------------------------------------------------------------------------------


def test_a_dry_run_checks_everything_and_trains_nothing(tmp_path):
    place = Workplace(tmp_path)
    place.synth(SYMBOL)
    done = place.train("--symbols", SYMBOL, "--dry-run")
    assert done.code == 0
    assert "Dry run: 1 symbol would be trained through ppo, moe, maml; nothing was trained." in done.out
    assert not list(place.models.rglob("*.pth*"))
    assert not (place.reports / "evidence_ledger.jsonl").exists()
    # A wrong plan is found by a dry run as well.
    assert place.train("--symbols", SYMBOL, "--dry-run", settings=("evidence.alpha=2",)).code == 2


def test_a_dry_run_of_the_backtest_writes_no_report(place, training, tmp_path):
    done = place.backtest("--symbols", SYMBOL, "--dry-run", "--report-file", str(tmp_path / "r.json"))
    assert done.code == 0
    assert "1 symbol would be tested; nothing was" in done.out
    assert list(tmp_path.iterdir()) == []


def test_print_config_shows_every_setting_with_its_origin_and_does_nothing(tmp_path):
    place = Workplace(tmp_path)
    done = place.train("--print-config", "--profile", "quick", "--seed", "9")
    assert done.code == 0
    assert list(tmp_path.iterdir()) == []
    lines = {line.split(":")[0]: line for line in done.out.splitlines() if not line.startswith("#")}
    assert lines["    num_envs"].split() == ["num_envs:", "8", "#", "--set"]
    assert lines["seed"].endswith("# --seed")
    assert re.search(rf"# {re.escape(str(PLAN))}:[0-9]+\n  auto_progression: true\n", done.out)
    assert lines["    max_extension_episodes"].endswith("# --profile quick")


def test_what_print_config_shows_is_a_plan_that_says_the_same(tmp_path):
    place = Workplace(tmp_path)
    options = ("--profile", "quick", "--seed", "9", "--set", "symbols.A.environment.exposure=0.5")
    plan = tmp_path / "plan.yaml"
    plan.write_text(place.train("--print-config", *options).out, encoding="utf-8")
    overrides = [*TINY, "symbols.A.environment.exposure=0.5"]
    assert load_plan(plan) == load_plan(PLAN, profile="quick", overrides=overrides, seed=9)


def test_print_config_starts_nothing(tmp_path):
    place = Workplace(tmp_path)
    assert place.train("--print-config").code == 0
    assert list(tmp_path.iterdir()) == []
    assert place.train("--print-config", settings=("evidence.alpha=2",)).code == 2


def test_processing_an_unchanged_file_again_does_nothing(place, training):
    before = {path.name: path.stat().st_mtime_ns for path in place.processed.iterdir()}
    done = place.process("--symbols", SYMBOL)
    assert done.code == 0
    assert f"{SYMBOL}: unchanged, 7,480 bars" in done.out
    assert {path.name: path.stat().st_mtime_ns for path in place.processed.iterdir()} == before


def test_processing_a_changed_file_says_so(tmp_path):
    place = Workplace(tmp_path)
    place.synth(SYMBOL, sessions=30)
    assert f"{SYMBOL}: processed" in place.process("--symbols", SYMBOL).out
    place.synth(SYMBOL, sessions=31)
    assert f"{SYMBOL}: reprocessed: raw file changed" in place.process("--symbols", "all").out


def test_a_backtest_processes_data_only_when_asked_to(place, training, tmp_path):
    bare = Workplace(tmp_path)
    bare.synth(SYMBOL)
    without = bare.backtest("--symbols", SYMBOL, "--models-dir", str(place.models))
    assert without.code == 4
    assert "python run_backtest.py --process-data" in without.err
    assert bare.backtest("--symbols", SYMBOL, "--models-dir", str(place.models), "--process-data").code == 0


# --- backtest -------------------------------------------------------------------------------------------------------


def test_the_json_report_has_the_keys_others_build_on(report, place):
    assert report["schema_version"] == 1
    assert set(report) >= {"schema_version", "headline", "symbols", "portfolio"}
    symbol = report["symbols"][SYMBOL]
    assert set(symbol["model"]) >= {"file", "stage", "verdict"}
    assert Path(symbol["model"]["file"]).parent == place.models
    assert symbol["model"]["stage"] in ("ppo", "moe", "maml")
    assert set(symbol["span"]) >= {"from", "to", "split"}
    assert symbol["span"]["split"] == "test"
    assert symbol["span"]["seen_in_training_or_choosing"] is False
    assert set(symbol["metrics"]) >= {
        "total_return", "sharpe_ratio", "sortino_ratio", "max_drawdown", "win_rate", "profit_factor", "total_trades",
    }  # fmt: skip
    assert set(symbol["baselines"]) == {"flat", "buy_and_hold", "always_short", "random", "last_bar_sign"}
    assert [line["cost_bp_per_side"] for line in symbol["cost_frontier"]] == [0, 5, 10, 20, 50]
    assert report["portfolio"]["initial_capital"] == 100_000.0


def test_every_missing_figure_of_the_report_has_its_reason(report):
    figures = [report["portfolio"]]
    for symbol in report["symbols"].values():
        figures += [
            symbol["metrics"],
            *(each for each in symbol["baselines"].values() if "unavailable" not in each),
        ]
    assert len(figures) == 7
    for each in figures:
        missing = {name for name, value in each.items() if value is None}
        assert missing == set(each["not_computed"])
        assert all(each["not_computed"].values())


def test_the_default_span_is_the_test_window_of_the_training_run(report, place):
    windows = training_report(place)["symbols"][SYMBOL]["windows"]
    span = report["symbols"][SYMBOL]["span"]
    assert (span["from"], span["to"]) == (windows["test"]["from"], windows["test"]["to"])


def test_the_text_report_names_model_span_and_that_the_data_are_made_up(place, backtest):
    text = (place.root / "out" / "r.txt").read_text()
    assert text in backtest.out
    assert "SYNTHETIC" in text.splitlines()[3]
    assert "NO GATE WAS PASSED" in text
    for line in (
        "PORTFOLIO",
        "  model    ",
        "  span     test:",
        "  costs    ",
        "buy and hold",
        "cost frontier",
    ):
        assert line in text
    assert f"written: {place.root / 'out' / 'a.csv'}" in backtest.out


def test_the_actions_file_has_a_line_for_every_decision(place, report):
    rows = list(csv.DictReader((place.root / "out" / "a.csv").open()))
    span = report["symbols"][SYMBOL]["span"]
    assert list(rows[0]) == ["symbol", "datetime", "position", "fill_price", "exit_price", "exit_reason"]
    # The last bar decides nothing.
    assert len(rows) == span["bars"] - 1
    assert rows[0]["datetime"] == span["from"]
    assert {row["symbol"] for row in rows} == {SYMBOL}


@pytest.mark.parametrize(
    ("arguments", "split", "is_seen"),
    [
        (["--split", "validation"], "validation", True),
        (["--split", "promotion"], "promotion", True),
        (["--split", "all"], "all", True),
        (["--set", "split=train"], "train", True),
        (["--set", "split=train", "--split", "test"], "test", False),
    ],
)
def test_another_span_is_marked_in_the_headline_where_it_was_seen(
    place, training, tmp_path, arguments, split, is_seen
):
    done = place.backtest("--symbols", SYMBOL, *arguments, "--report-file", str(tmp_path / "r.json"))
    assert done.code == 0
    found = strict_json((tmp_path / "r.json").read_text())
    assert found["symbols"][SYMBOL]["span"]["split"] == split
    assert found["symbols"][SYMBOL]["span"]["seen_in_training_or_choosing"] is is_seen
    assert ("IN-SAMPLE" in found["headline"]) is is_seen


def test_a_stage_asked_for_is_the_one_tested(place, training, tmp_path):
    for stage in ("ppo", "moe", "maml"):
        done = place.backtest(
            "--symbols", SYMBOL, "--stage", stage, "--report-file", str(tmp_path / "r.json")
        )
        assert done.code == 0
        model = strict_json((tmp_path / "r.json").read_text())["symbols"][SYMBOL]["model"]
        assert model["stage"] == stage
        assert SYMBOL in Path(model["file"]).name


def test_an_adapting_model_says_what_it_adapted_on(place, training, tmp_path):
    notes = []
    for extra in ([], ["--no-adapt"]):
        place.backtest(
            "--symbols", SYMBOL, "--stage", "maml", *extra, "--report-file", str(tmp_path / "r.json")
        )
        notes.append(strict_json((tmp_path / "r.json").read_text())["symbols"][SYMBOL]["notes"])
    assert any("adapted by 2 steps on the" in note for note in notes[0])
    assert any("adapt_before_use is off" in note for note in notes[1])


def test_capital_is_the_one_asked_for(place, training, tmp_path):
    place.backtest(
        "--symbols", SYMBOL, "--initial-capital", "5000", "--report-file", str(tmp_path / "r.json")
    )
    assert strict_json((tmp_path / "r.json").read_text())["portfolio"]["initial_capital"] == 5000.0


def test_costs_that_differ_from_training_are_used_and_noted(place, training, tmp_path):
    file = tmp_path / "dearer.yaml"
    file.write_text("instruments:\n  SYN_planted: {commission: {rate: 5.0e-4}}\n")
    place.backtest("--symbols", SYMBOL, "--instruments", str(file), "--report-file", str(tmp_path / "r.json"))
    symbol = strict_json((tmp_path / "r.json").read_text())["symbols"][SYMBOL]
    assert symbol["instrument"]["rules"]["commission_rate"] == 5e-4
    assert any("commission_rate 5e-05 -> 0.0005" in note for note in symbol["notes"])


def test_without_names_every_symbol_with_a_model_is_tested(place, training, tmp_path):
    extra = Workplace(tmp_path)
    for source in place.raw.iterdir():
        extra.raw.mkdir(exist_ok=True)
        (extra.raw / source.name).write_bytes(source.read_bytes())
    extra.synth(OTHER, "ou", sessions=30)
    done = extra.backtest(
        "--models-dir", str(place.models), "--process-data", "--report-file", str(tmp_path / "r.json")
    )
    assert done.code == 0, done.err
    assert list(strict_json((tmp_path / "r.json").read_text())["symbols"]) == [SYMBOL]


# --- output ---------------------------------------------------------------------------------------------------------


def test_json_prints_one_object_a_line_and_nothing_else(place, training, tmp_path):
    separate = Workplace(tmp_path)
    separate.synth(SYMBOL, sessions=30)
    trained = separate.train("--symbols", SYMBOL, "--stages", "ppo", "moe", "--json")
    tested = separate.backtest("--symbols", SYMBOL, "--json")
    for done, last in ((trained, "symbol_done"), (tested, "symbol_done")):
        events = [strict_json(line) for line in done.out.splitlines()]
        assert all(isinstance(event, dict) and event["event"] for event in events)
        assert events[-1]["event"] == last
    progress = [event for event in map(strict_json, trained.out.splitlines()) if event["event"] == "progress"]
    assert progress
    for event in progress:
        # A number that became a text on the way would break whoever plots it.
        texts = {name for name, value in event.items() if isinstance(value, str)}
        assert texts <= {"time", "event", "symbol", "stage"}


def test_quiet_prints_the_result_only(place, training):
    done = place.backtest("--symbols", SYMBOL, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_the_scripts_themselves_run_from_the_checkout(place, training, tmp_path):
    """One real process: the file itself, its exit code, its two output streams."""
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "run_backtest.py"), *place.folders(), "--symbols", SYMBOL,
            "--report-file", str(tmp_path / "r.json"),
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "STAGEGATE BACKTEST REPORT" in done.stdout
    assert (tmp_path / "r.json").exists()


def test_the_tiny_plan_is_the_shipped_one_made_small():
    assert PLAN.is_file()
    assert all("=" in setting for setting in TINY)


# --- pages ----------------------------------------------------------------------------------------------------------


def test_every_number_of_the_pages_is_the_one_in_the_json(place, report, backtest):
    """One page for the symbol, one for the training run, one for all runs; each from the values of its JSON."""
    symbol = read_page((place.root / "out" / "r.html").read_text())
    assert len(symbol.figures) > 300
    assert [told for each in symbol.figures if (told := disagreement(each, report["symbols"][SYMBOL]))] == []
    trained = read_page((run_folder(place) / "training_report.html").read_text())
    assert len(trained.figures) > 100
    assert [told for each in trained.figures if (told := disagreement(each, training_report(place)))] == []
    assert symbol.loose_numbers == trained.loose_numbers == []
    for page in (symbol, trained):
        # The headline may begin with "None of 3 symbols".
        assert not re.search(r"\b(nan|NaN|inf|None(?! of \d))\b", page.text)


def test_the_pages_show_how_each_stage_was_trained_and_judged(place, backtest):
    text = read_page((place.root / "out" / "r.html").read_text()).text
    for words in (
        "stage 1 (ppo)",
        "stage 2 (moe)",
        "stage 3 (maml)",
        "SYNTHETIC",
        "look 1 at",
        "query windows",
    ):
        assert words in text
    assert "Experts by regime" in text
    trained = read_page((run_folder(place) / "training_report.html").read_text()).text
    for words in (
        "Null policies that passed a gate most often",
        "on the same bars",
        "The whole plan, defaults included",
    ):
        assert words in trained


def test_the_page_of_all_runs_has_a_row_for_each_and_leads_to_its_report(place, backtest, report):
    index = place.reports / "index.html"
    page = read_page(index.read_text())
    own = report["symbols"][SYMBOL]["metrics"]
    shown = {each.at: each.text for each in page.figures}
    assert (
        shown["rows/0/total_return"].replace("−", "-")
        == f"{100 * own['total_return']:.1f}\N{NO-BREAK SPACE}%"
    )
    assert shown["rows/0/total_trades"] == f"{own['total_trades']:,}"
    assert all((index.parent / link).resolve().is_file() for link in page.links)
    assert len(page.links) == 2


def test_no_report_is_written_where_the_plan_asks_for_none(tmp_path):
    place = Workplace(tmp_path)
    place.synth(SYMBOL)
    done = place.train("--symbols", SYMBOL, "--stages", "ppo", settings=["monitoring.generate_reports=false"])
    assert done.code == 0, done.err
    assert not list(place.reports.rglob("training_report.*"))
    assert not (place.reports / "index.html").exists()


def test_the_pages_of_real_runs_open_in_a_browser_and_fit_a_phone(place, backtest):
    pages = [
        place.root / "out" / "r.html",
        run_folder(place) / "training_report.html",
        place.reports / "index.html",
    ]
    with a_browser() as browser:
        for path in pages:
            with opened(browser, path, PHONE) as found:
                assert found.overflow() <= 0, path
                assert (found.complaints, found.asked_for) == ([], []), path
