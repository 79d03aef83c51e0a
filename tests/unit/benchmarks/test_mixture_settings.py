"""The comparison of mixture, PPO and one network of equal size: its tables, and that judged seeds are kept apart."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from benchmarks.mixture_settings import (
    ARMS,
    MIXTURE,
    NETWORK,
    PLAN,
    PPO,
    Run,
    experts_table,
    parse_options,
    read_runs,
    settings_of,
    table,
)
from rl.common.atomic_files import write_json
from rl.stages.plan import load_plan


def run(arm: str, seed: int, share: float, experts: dict | None = None) -> Run:
    return Run(
        market="moe_wide",
        arm=arm,
        seed=seed,
        steps=1000,
        parent_steps=100,
        settings={},
        share=share,
        trades_per_session=70.4,
        parameters=97_321,
        cpu_seconds=12.3,
        experts=experts,
    )


def experts(nats: float, p: float, changes: list[float | None]) -> dict:
    return {
        "information": {"nats": nats, "p": p},
        "use": {"effective_experts": 3.5, "divergence": 0.25},
        "knock_outs": [None if change is None else {"return_change": change} for change in changes],
        "assignment": {"p": 0.02},
    }


def test_means_and_differences_are_taken_over_equal_seeds():
    runs = [run(MIXTURE, 50, 0.9), run(MIXTURE, 51, 0.8), run(PPO, 51, 0.7), run(PPO, 50, 0.6)]
    lines = table(runs, [PPO, MIXTURE, NETWORK]).splitlines()
    # PPO less mixture: -0.3 and -0.1, standard error 0.1; shares .6 and .7, standard error .05.
    assert lines[2:] == [
        "| PPO | 97,321 | 0.650 (0.050) | 0.600 0.700 | -0.200 (0.100) | 70 | 12 |",
        "| mixture | 97,321 | 0.850 (0.050) | 0.900 0.800 | – | 70 | 12 |",
    ]


def test_experts_are_shown_by_mean_and_worst_seed():
    runs = [
        run(MIXTURE, 50, 0.9, experts(1.2, 0.001, [-0.5, -0.1, None])),
        run(MIXTURE, 51, 0.8, experts(0.8, 0.03, [-0.3, 0.1, -0.2])),
        run(PPO, 50, 0.7),
    ]
    (row,) = experts_table(runs, tuple(ARMS)).splitlines()[2:]
    assert row == ("| mixture | 1.000 (0.800) | 0.03 | 3.50 | 0.250 | 5 of 6 | -20.0 % | 4 of 5 | 0.02 |")


def test_judged_seeds_are_refused_unless_asked_for(capsys):
    with pytest.raises(SystemExit):
        parse_options(["--seeds", "50", "3"])
    assert "but 3 was given" in capsys.readouterr().err
    assert parse_options(["--seeds", "3", "--judged"]).seeds == [3]


def test_a_start_as_long_as_everything_leaves_nothing_to_compare(capsys):
    with pytest.raises(SystemExit):
        parse_options(["--steps", "1000", "--parent-steps", "1000"])
    assert "--parent-steps has to lie between 0 and --steps" in capsys.readouterr().err


def test_runs_of_other_settings_are_not_used_again(tmp_path):
    done = replace(run(PPO, 50, 0.7), settings=settings_of(load_plan(PLAN)))
    stale = replace(done, settings={**done.settings, "ppo": {**done.settings["ppo"], "gae_lambda": 0.123}})
    write_json(tmp_path / "runs.json", [asdict(each) for each in (done, stale)])
    assert read_runs(tmp_path / "runs.json") == [done]
