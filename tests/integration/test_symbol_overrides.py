"""What a symbol's block in the plan says is what its training does, in every stage; nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rl.apps.commands.console import TrainingListener
from rl.checkpoints.checkpoint import Checkpoint, load_checkpoint
from rl.common.errors import INTERRUPTED, OK, USAGE
from tests.integration.command_line import ROOT, Finished, Workplace

SYMBOL, OTHER = "SYN_planted_2", "SYN_ar1_2"
OWN = f"symbols.{SYMBOL}.training_params.ppo.learning_rate=0.002"
FOR_ALL = "training_params.ppo.learning_rate=0.002"


def place(root: Path, *symbols: str) -> Workplace:
    made = Workplace(root)
    for symbol in symbols:
        made.synth(symbol, symbol.split("_")[1], sessions=25)
    return made


def trained(where: Workplace, *settings: str, stages: tuple[str, ...] = ("ppo", "moe")) -> Finished:
    done = where.train("--stages", *stages, "--symbols", "all", settings=settings)
    assert done.code == OK, done.err
    return done


def model(where: Workplace, symbol: str, ending: str = "ppo_stage1") -> Checkpoint:
    return load_checkpoint(where.models / f"{symbol}_{ending}.pth")


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Workplace:
    where = place(tmp_path_factory.mktemp("plain"), SYMBOL, OTHER)
    trained(where)
    return where


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Workplace:
    where = place(tmp_path_factory.mktemp("own"), SYMBOL, OTHER)
    trained(where, OWN)
    return where


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Workplace:
    where = place(tmp_path_factory.mktemp("alone"), SYMBOL)
    trained(where, FOR_ALL)
    return where


@pytest.mark.parametrize("ending", ["ppo_stage1", "moe_stage2"])
def test_a_symbols_own_setting_trains_what_the_same_setting_for_all_would_have(plain, own, alone, ending):
    assert torch.equal(model(own, SYMBOL, ending).weights, model(alone, SYMBOL, ending).weights)
    assert not torch.equal(model(own, SYMBOL, ending).weights, model(plain, SYMBOL, ending).weights)
    assert torch.equal(model(own, OTHER, ending).weights, model(plain, OTHER, ending).weights)


def test_a_symbols_own_setting_is_in_its_model_file_the_run_and_the_report(own):
    found = {
        symbol: model(own, symbol).plan["training_params"]["ppo"]["learning_rate"]
        for symbol in (SYMBOL, OTHER)
    }
    assert found == {SYMBOL: 0.002, OTHER: 0.0005}
    (run,) = (own.reports / "runs").iterdir()
    block = {"training_params": {"ppo": {"learning_rate": 0.002}}}
    assert json.loads((run / "run.json").read_text())["identity"]["plan"]["symbols"] == {SYMBOL: block}
    assert json.loads((run / "training_report.json").read_text())["plan"]["symbols"] == {SYMBOL: block}
    text = (run / "training_report.txt").read_text()
    assert text.count("its own setting: training_params.ppo.learning_rate 0.002, instead of 0.0005") == 1


def test_a_run_with_a_finished_stage_is_not_gone_on_with_under_another_override(tmp_path, monkeypatch):
    where = place(tmp_path, SYMBOL)

    def interrupt(self, symbol: str, stage: str, *others: object) -> None:
        if stage == "moe":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(TrainingListener, "stage_started", interrupt)
        stopped = where.train("--stages", "ppo", "moe", "--symbols", "all", settings=[OWN])
    assert stopped.code == INTERRUPTED, stopped.err
    before = model(where, SYMBOL).sha256
    other = where.train(
        "--stages", "ppo", "moe", "--symbols", "all", settings=[OWN.replace("0.002", "0.003")]
    )
    assert other.code == USAGE
    assert "cannot be gone on with" in other.err
    assert f"plan.symbols.{SYMBOL}.training_params.ppo.learning_rate: 0.002 -> 0.003" in other.err
    assert model(where, SYMBOL).sha256 == before
    # Written in another way, it is the same.
    dotted = f"symbols.{SYMBOL}={{training_params.ppo.learning_rate: 2e-3}}"
    again = where.train("--stages", "ppo", "moe", "--symbols", "all", settings=[dotted])
    assert again.code == OK, again.err
    assert "going on with run" in again.out
    assert (where.models / f"{SYMBOL}_moe_stage2.pth").is_file()


def test_a_block_of_a_symbol_that_is_not_there_is_pointed_out(tmp_path):
    where = place(tmp_path, SYMBOL)
    plan = tmp_path / "plan.yaml"
    plan.write_text("symbols: {SYN_plantd_2: {seed: 3}, Gold: {seed: 3}}\n")
    done = where.train("--dry-run", "--config", str(plan), base=())
    assert done.code == OK, done.err
    assert (
        "settings of SYN_plantd_2 under `symbols`, and there is no such symbol; did you mean SYN_planted_2?"
        in done.err
    )
    assert "settings of Gold under `symbols`, and there is no such symbol\n" in done.err


def test_print_config_shows_a_symbols_own_settings_beside_those_of_all(tmp_path):
    where = place(tmp_path, SYMBOL)
    plan = tmp_path / "p.yaml"
    plan.write_text(f"symbols:\n  {SYMBOL}:\n    environment.exposure: 0.5\n")
    options = ("--print-config", "--config", str(plan))
    whole = where.train(*options, base=()).out
    assert "exposure: 0.5" in whole
    assert f"# {plan}:3, instead of 1.0" in whole
    one = where.train(*options, "--symbols", SYMBOL, base=()).out
    assert f"# {plan}:3, for {SYMBOL} only" in one
    assert "exposure: 1.0" not in one
    data = json.loads(where.train(*options, "--json", base=()).out)
    (found,) = [each for each in data["settings"] if each["kind"] == "symbol"]
    assert found == {
        "key": f"symbols.{SYMBOL}.environment.exposure", "value": 0.5, "origin": f"{plan}:3", "kind": "symbol",
        "instead_of": 1.0,
    }  # fmt: skip
    asked = where.train(*options, "--symbols", "SYN_plantd_2", base=()).out
    assert "Did you mean SYN_planted_2?" in asked.replace("\n# ", " ")


def test_a_listing_fits_100_columns_whatever_it_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    long = " ".join(["x" * 40] * 5)
    done = Workplace(tmp_path).train(
        "--print-config", "--config", "config/training_sequence.yaml",
        "--set", f"training_sequence.stage_1_ppo.description={long}",
        "--set", f"features.exclude=[{', '.join(f'feature_{number}' for number in range(40))}]", base=(),
    )  # fmt: skip
    assert done.code == OK
    assert [line for line in done.out.splitlines() if len(line) > 100] == []
    assert "  - feature_39\n" in done.out
    assert done.out.count("x" * 40) == 5
