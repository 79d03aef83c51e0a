"""Do the schemas say what the program says, and does every key of the shipped files explain itself?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rl.__main__
from rl.apps.commands.schema import schema_texts
from rl.backtest.config import BacktestConfig
from rl.common.errors import ConfigError
from rl.common.interpreter import interpreter
from rl.common.strict_config import dotted
from rl.common.strict_yaml import load_yaml
from rl.common.yaml_comments import comments_of, listed_keys
from rl.market.instruments import load_instruments
from rl.stages.plan import Plan, load_plan
from tests.integration.command_line import finished
from tests.json_schema import marked

ROOT = Path(__file__).resolve().parents[4]
CONFIG = ROOT / "config"
FILES = {
    CONFIG / "training_sequence.yaml": "training_sequence",
    CONFIG / "backtest.yaml": "backtest",
    CONFIG / "instruments.yaml": "instruments",
    **dict.fromkeys(sorted((ROOT / "plans").glob("*.yaml")), "training_sequence"),
}
NAMES_OF_ENTRIES = {"instruments", "classes", "folders", "prefixes", "suffixes"}
"""What stands under these in the instruments file is a name and no key."""


def schema(name: str) -> dict:
    return json.loads((CONFIG / f"{name}.schema.json").read_text(encoding="utf-8"))


def test_the_shipped_schemas_are_those_of_this_code():
    """Run `python -m rl schema` after a change of a setting or of a comment."""
    assert {path.name: path.read_text(encoding="utf-8") for path in CONFIG.glob("*.json")} == schema_texts()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_file_names_its_schema_and_fits_it(file):
    first = file.read_text(encoding="utf-8").splitlines()[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert (file.parent / named).resolve() == CONFIG / f"{FILES[file]}.schema.json"
    assert marked(schema(FILES[file]), load_yaml(file).data) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_key_of_a_shipped_file_has_a_comment(file):
    comments, listed = comments_of(file), listed_keys(file)
    silent = [
        dotted(key)
        for key in load_yaml(file).origins
        if not isinstance(key[-1], int)
        and key not in comments
        and not {key[-1], ".".join(map(str, key[-2:]))} & set(listed)
        and not (len(key) == 2 and key[0] in NAMES_OF_ENTRIES)
    ]
    assert silent == []


def test_the_list_at_the_top_of_the_instruments_explains_every_key_of_an_entry():
    listed = listed_keys(CONFIG / "instruments.yaml")
    entry = schema("instruments")["properties"]["classes"]["additionalProperties"]["properties"]
    assert [name for name in entry if name not in listed] == []


def test_a_key_without_a_comment_is_noticed(tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text("# About the file.\n\nseed: 3\n# what comes here\nevidence:\n  alpha: 0.01  # a share\n")
    assert comments_of(file) == {("evidence",): "what comes here", ("evidence", "alpha"): "a share"}


def described(node: dict) -> list[dict]:
    found = list(node.get("properties", {}).values())
    return [*found, *(inner for each in found for inner in described(each))]


def test_every_key_of_the_plan_says_in_the_schema_what_it_does_what_it_allows_and_its_default():
    nodes = [node for node in described(schema("training_sequence")) if node.get("type") != "object"]
    assert len(nodes) > 100
    assert [node["title"] for node in nodes if not node["description"][0].isalpha()] == []
    assert [node["title"] for node in nodes if "Allowed: " not in node["description"]] == []
    (rate,) = [node for node in nodes if node["title"] == "training_params.ppo.learning_rate"]
    assert rate["description"].endswith("Allowed: a number more than 0. Default: 0.0005.")
    (alpha,) = [node for node in nodes if node["title"] == "evidence.alpha"]
    assert (alpha["exclusiveMinimum"], alpha["maximum"], alpha["default"]) == (0, 0.5, 0.05)


BROKEN = {
    "seed: x": [".seed: type"],
    "seed: -1": [".seed: minimum"],
    "sede: 1": [".sede: unknown"],
    "evidence: {alpha: 5}": [".evidence.alpha: maximum"],
    "evidence: {alpha: 0}": [".evidence.alpha: exclusiveMinimum"],
    "embargo_bars: atuo": [".embargo_bars: anyOf"],
    "training_params: {ppo: {k_epochs: 1.5}}": [".training_params.ppo.k_epochs: type"],
    "training_params: {ppo: {learning_rate_schedule: linar}}": [
        ".training_params.ppo.learning_rate_schedule: enum"
    ],
    "training_params: {ppo: 3}": [".training_params.ppo: type"],
    "training_sequence: {stage_1_ppo: {algorithm: MoE}}": [".training_sequence.stage_1_ppo.algorithm: const"],
    "splits: {dates: {vali: 2024-01-01}}": [".splits.dates: anyOf"],
    "features: {include: []}": [".features.include: anyOf"],
    "symbols: {A: {environment.exposur: 1}}": [".symbols.A.environment.exposur: unknown"],
    "symbols: {A: {environment.exposure: 0}}": [".symbols.A.environment.exposure: exclusiveMinimum"],
    "symbols: {A: {environment: {exposure: 0}}}": [".symbols.A.environment.exposure: exclusiveMinimum"],
    "symbols: {A: {evidence.alpha: 0.1}}": [".symbols.A.evidence.alpha: unknown"],
    "symbols: {A: {evidence: {alpha: 0.1}}}": [".symbols.A.evidence.alpha: unknown"],
    "symbols: {A: {monitoring: {save_checkpoints: true}}}": [".symbols.A.monitoring: unknown"],
}


@pytest.mark.parametrize("text", BROKEN)
def test_what_the_schema_marks_in_a_plan_the_command_refuses(tmp_path, text):
    file = tmp_path / "plan.yaml"
    file.write_text(f"{text}\n")
    assert marked(schema("training_sequence"), load_yaml(file).data) == BROKEN[text]
    with pytest.raises(ConfigError):
        load_plan(file)


@pytest.mark.parametrize(
    "text",
    [
        "symbols: {A: {environment.exposure: 0.5, environment: {ruin_level: 0.2}, seed: 3}}",
        "symbols: {A: {evidence: {min_trades: 20}, evidence.min_sessions: 10, splits.train: 0.6}}",
        "splits: {dates: {validation: 2023-01-02, promotion: 2023-07-03, test: 2024-01-01}}",
        "features: {include: [rsi]}\nembargo_bars: 5\ntraining_params: {ppo: {learning_rate: 1}}",
    ],
)
def test_what_the_command_takes_the_schema_does_not_mark(tmp_path, text):
    """An editor that marks what is right is switched off."""
    file = tmp_path / "plan.yaml"
    file.write_text(f"{text}\n")
    load_plan(file)
    assert marked(schema("training_sequence"), load_yaml(file).data) == []


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("instruments: {A: {lot_size: -1}}", [".instruments: anyOf"]),
        ("classes: {stok: {currency: USD}}", [".classes.stok: enum"]),
        ("classes: {stock: {checks: {olhc: drop}}}", [".classes.stock.checks.olhc: unknown"]),
        ("classes: {stock: {checks: {ohlc: warn}}}", [".classes.stock.checks.ohlc: enum"]),
        ("instruments: [{symbol: A, type: INDX}]", [".instruments: anyOf"]),
        ("instruments: [{symbol: A, type: INDEX}]", []),
        ("suffixes: {.XX: {commission: {rate: 1e-4}, slippage: {ticks: 1}}}", []),
    ],
)
def test_the_schema_of_instruments_marks_what_is_refused_and_nothing_else(tmp_path, text, places):
    file = tmp_path / "instruments.yaml"
    file.write_text(f"{text}\n")
    assert marked(schema("instruments"), load_yaml(file).data) == places
    if places:
        with pytest.raises(ConfigError):
            load_instruments(file)
    else:
        load_instruments(file)


def test_the_defaults_fit_their_schemas():
    assert marked(schema("training_sequence"), Plan().as_dict()) == []
    assert marked(schema("backtest"), BacktestConfig().model_dump(mode="json")) == []


def test_the_command_writes_what_is_missing_and_says_what_is_out_of_date(tmp_path):
    def run(*arguments: str):
        return finished(rl.__main__.main, ["schema", "--out-dir", str(tmp_path), *arguments])

    checked = run("--check")
    assert (checked.code, list(tmp_path.iterdir())) == (1, [])
    assert checked.out.count(f"missing; run: {interpreter()} -m rl schema") == 3
    assert run().code == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == schema_texts()
    assert run("--check", "--quiet").code == 0
    (tmp_path / "backtest.schema.json").write_text("{}\n")
    checked = run("--check", "--quiet")
    assert (checked.code, checked.out.strip()) == (
        1,
        f"{tmp_path / 'backtest.schema.json'}: out of date; run: {interpreter()} -m rl schema",
    )
