"""Stable-Baselines3's PPO, with the same settings and steps, is no better than this one."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.second_opinion import LEARNERS, TASKS, judge


def test_ppo_balances_the_pole_as_well_as_stable_baselines3_at_equal_steps(monkeypatch):
    """After a quarter of the Zoo's steps, where both still learn and a slower learner would show."""
    monkeypatch.setitem(TASKS, "cartpole", replace(TASKS["cartpole"], steps=25_000))
    returns = {learner: judge(learner, "cartpole", seed=0).mean_return for learner in LEARNERS}
    assert returns["this project"] >= 200
    assert returns["this project"] >= 0.8 * returns["Stable-Baselines3"]
