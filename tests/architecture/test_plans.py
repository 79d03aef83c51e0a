"""Does every configuration file that is shipped load, and does a broken one fail?"""

from __future__ import annotations

from pathlib import Path

import pytest

from rl.backtest.config import load_backtest_config
from rl.common.errors import ConfigError
from rl.market.instruments import load_instruments
from rl.stages.plan import load_plan

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"
MAIN_PLAN = CONFIG / "training_sequence.yaml"
PROFILES = sorted((ROOT / "plans").glob("*.yaml"))
OTHERS = {CONFIG / "instruments.yaml": load_instruments, CONFIG / "backtest.yaml": load_backtest_config}


def test_every_configuration_file_is_of_a_known_kind():
    """A new file has to be given its loader here, or nobody would notice that it does not load."""
    found = {file for folder in (CONFIG, ROOT / "plans") for file in folder.rglob("*") if file.is_file()}
    schemas = {file.with_suffix(".schema.json") for file in (MAIN_PLAN, *OTHERS)}
    assert found == {MAIN_PLAN, *PROFILES, *OTHERS, *schemas}
    assert len(PROFILES) >= 1


@pytest.mark.parametrize("plan", [MAIN_PLAN, *PROFILES], ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_shipped_plan_loads(plan):
    assert load_plan(plan)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda file: file.stem)
def test_a_shipped_profile_changes_the_main_plan(profile):
    assert load_plan(MAIN_PLAN, profile=profile.stem) != load_plan(MAIN_PLAN)


@pytest.mark.parametrize("file", OTHERS, ids=lambda file: file.name)
def test_the_other_shipped_files_load(file):
    assert OTHERS[file](file)


def test_a_plan_with_a_misspelled_key_does_not_load(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        MAIN_PLAN.read_text(encoding="utf-8").replace("training_sequence:", "training_sequense:"),
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match="training_sequense"):
        load_plan(plan)
