"""The comparison of PPO's settings: which seeds it takes, what it keeps, and what its table says."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.ppo_settings import (
    MARKETS,
    PLAN,
    SETTINGS,
    SHIPPED,
    Run,
    parse_options,
    read_runs,
    table,
)
from rl.common.atomic_files import write_json
from rl.stages.plan import load_plan


def run(setting: str, market: str, seed: int, earned: float, oracle: float = 1.0) -> Run:
    return Run(
        market=market,
        setting=setting,
        changes=SETTINGS[setting],
        plan=load_plan(PLAN, overrides=SETTINGS[setting]).training_params.ppo.model_dump(mode="json"),
        seed=seed,
        steps=MARKETS[market].steps,
        earned_bp=earned,
        oracle_bp=oracle,
        trades_per_session=3.0,
        cpu_seconds=5.0,
    )


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_a_plan_that_says_what_it_is_told(setting):
    """A key that nobody reads would be compared with itself."""
    plan = load_plan(PLAN, overrides=SETTINGS[setting]).model_dump(mode="json")
    for change in SETTINGS[setting]:
        path, value = change.split("=")
        found = plan
        for key in path.split("."):
            found = found[key]
        assert str(found) == value


def test_the_seeds_results_are_reported_on_are_refused_for_choosing(capsys):
    with pytest.raises(SystemExit):
        parse_options(["--seeds", "50", "3"])
    assert "seeds from 50 on are for choosing settings, but 3 was given" in capsys.readouterr().err
    assert parse_options(["--seeds", "3", "--judged"]).seeds == [3]


def test_a_settings_difference_is_taken_on_equal_markets_and_seeds():
    """A setting tried only where every setting does well must not look better for that."""
    runs = [
        run(SHIPPED, "ou", 50, 0.9),
        run(SHIPPED, "weak ar1", 50, 0.5),
        run(SHIPPED, "ou", 51, 0.1),
        run(SHIPPED, "weak ar1", 51, 0.1),
        run("entropy 0", "ou", 50, 1.2, oracle=2.0),
        run("entropy 0", "weak ar1", 50, 0.4),
    ]
    lines = table(runs, ["ou", "weak ar1"], [SHIPPED, "entropy 0"]).splitlines()
    # Seed 50 alone: .6 - .9 and .4 - .5; mean -.2, their standard deviation .1414 over the root of two.
    assert lines[2] == "| as shipped | 2 | 0.400 | – | 0.50 | 0.30 | 5.0 |"
    assert lines[3] == "| entropy 0 | 1 | 0.500 | -0.200 (0.100) | 0.60 | 0.40 | 5.0 |"


def test_the_best_difference_stands_first_below_the_shipped_settings_and_unfinished_ones_are_left_out():
    runs = [run(SHIPPED, market, 50, 0.5) for market in ("ou", "weak ar1")]
    runs += [run("entropy 0", market, 50, 0.4) for market in ("ou", "weak ar1")]
    runs += [run("epochs 3", market, 50, 0.6) for market in ("ou", "weak ar1")]
    runs += [run("epochs 10", "ou", 50, 0.9)]
    lines = table(runs, ["ou", "weak ar1"], list(SETTINGS)).splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == ["| as shipped", "| epochs 3", "| entropy 0"]


def test_what_is_lost_on_noise_stands_apart_in_basis_points():
    runs = [run(SHIPPED, "ou", 50, 0.5), run(SHIPPED, "noise", 50, -0.012, oracle=0.0)]
    heads, _, row = table(runs, ["ou", "noise"], [SHIPPED]).splitlines()
    assert "| ou | noise, bp/bar |" in heads
    assert row == "| as shipped | 1 | 0.500 | – | 0.50 | -0.012 | 5.0 |"


def test_only_runs_that_todays_plan_would_repeat_are_taken_from_a_file(tmp_path):
    """Runs of an older default beside those of a new one would compare two things at once."""
    kept, other_plan = run(SHIPPED, "ou", 50, 0.5), run(SHIPPED, "ou", 51, 0.5)
    stale = replace(other_plan, plan=other_plan.plan | {"gae_lambda": 0.123})
    shorter = replace(other_plan, steps=1000)
    file = tmp_path / "runs.json"
    write_json(file, [asdict(one) for one in (kept, stale, shorter)])
    assert read_runs(file) == [kept]
    assert read_runs(Path(tmp_path / "none.json")) == []
