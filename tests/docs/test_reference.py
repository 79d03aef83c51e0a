"""Are the generated reference pages what the parsers and schemas of today make of them?"""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import DOCS
from tools import reference


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_generated_page_is_up_to_date(name):
    written = (DOCS / "reference" / name).read_text(encoding="utf-8")
    assert written == reference.PAGES[name](), "run: python tools/reference.py"


def test_the_page_of_commands_lists_every_option_of_every_command():
    page = reference.commands_page()
    for parser in reference.parsers():
        shown = page.partition(f"{parser.prog}`")[2].partition("\n## ")[0]
        assert re.sub(r"\s+", " ", parser.description or "nothing")[:40] in shown
        for action in parser._actions:
            if reference.is_listed(action):
                assert all(f"`{option}" in shown for option in action.option_strings)


def test_signs_that_mean_something_in_a_table_are_escaped():
    assert reference.cell("a|b\n  <c>") == "a\\|b &lt;c>"
