"""Text of others on a terminal: seen, never obeyed."""

from __future__ import annotations

import json

import pytest

from rl.common.printable import is_printable, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),  # clears the screen
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),  # renames the window
        ("\x9b31m", "\\u009b31m"),  # the same as ESC [ in one character
        ("a\rb", "a\\x0db"),  # writes over the line
        ("a\x08b", "a\\x08b"),
        ("x\u202egnp.exe", "x\\u202egnp.exe"),  # shows what follows from right to left
        ("a\u200bb", "a\\u200bb"),  # invisible
        ("\U000e0041", "\\udb40\\udc41"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_acts_on_a_terminal_is_shown_as_its_code(text, shown):
    assert printable(text) == shown
    assert not is_printable(text)


@pytest.mark.parametrize("text", ["plain", "a line\nand another\twith a tab", "− × … é 日本 ₹", "[red]", ""])
def test_what_can_be_seen_stays_as_it_is(text):
    assert printable(text) == text


def test_a_line_of_json_stays_one():
    line = json.dumps({"name": "\x1b\x7f\x9b\u202e\U000e0041"}, ensure_ascii=False)
    assert json.loads(printable(line)) == json.loads(line)
    assert printable(line).isascii()
