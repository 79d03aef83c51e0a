"""The pages on what the stages learn name benchmarks with options that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from benchmarks import mixture_settings, ppo_settings, second_opinion, task_family

DOCS = Path(__file__).parents[3] / "docs" / "why"
PARSERS = {
    "benchmarks.mixture_settings": mixture_settings.parse_options,
    "benchmarks.ppo_settings": ppo_settings.parse_options,
    "benchmarks.second_opinion": second_opinion.parse_options,
    "benchmarks.task_family": task_family.parse_options,
}


@pytest.mark.parametrize(
    ("page", "named"),
    [
        ("learning.md", {"benchmarks.ppo_settings", "benchmarks.second_opinion", "benchmarks.task_family"}),
        ("mixture.md", {"benchmarks.mixture_settings"}),
    ],
)
def test_the_commands_of_the_page_exist(page, named):
    shown = set()
    text = (DOCS / page).read_text(encoding="utf-8")
    for line in re.findall(r"^\.venv/bin/python -m (benchmarks\..*)$", text, re.MULTILINE):
        module, *words = shlex.split(line)
        PARSERS[module](words)
        shown.add(module)
    assert shown == named


def test_other_settings_on_the_task_family_are_not_tried_on_seeds_that_results_are_reported_on(capsys):
    changed = ["--set", "training_params.maml.inner_step_size=1.0"]
    with pytest.raises(SystemExit):
        task_family.parse_options(changed)
    assert "--set was given with seed 0; add --seeds 50" in capsys.readouterr().err
    assert task_family.parse_options([*changed, "--seeds", "50"]).seeds == [50]
    assert task_family.parse_options([*changed, "--judged"]).seeds == [0, 1, 2, 3, 4]
    assert task_family.parse_options([]).overrides == []
