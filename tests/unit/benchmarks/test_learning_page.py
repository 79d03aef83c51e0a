"""docs/learning.md names benchmarks with options that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from benchmarks import ppo_settings, second_opinion

PAGE = (Path(__file__).parents[3] / "docs" / "learning.md").read_text(encoding="utf-8")
PARSERS = {
    "benchmarks.ppo_settings": ppo_settings.parse_options,
    "benchmarks.second_opinion": second_opinion.parse_options,
}


def test_the_commands_of_the_page_exist():
    shown = set()
    for line in re.findall(r"^\.venv/bin/python -m (benchmarks\..*)$", PAGE, re.MULTILINE):
        module, *words = shlex.split(line)
        PARSERS[module](words)
        shown.add(module)
    assert shown == set(PARSERS)
