"""Text from files and command lines, made harmless for a terminal.

A column name, a symbol or a key may hold codes that clear the screen, rename the window, or show text from right to
left. They are shown as what they are: `\\x1b[2J`.
"""

from __future__ import annotations

import unicodedata

_KEPT = "\n\t"
_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Kinds of characters that are not seen but act: control, format (direction, joining), surrogates, private, breaks."""


def printable(text: str) -> str:
    """Return text with every character that acts on a terminal instead of being seen written as its code.

    Ends of lines and tabs stay: messages of several lines are our own.
    """
    if text.isascii():
        return text.translate(_ASCII)
    return "".join(_shown(character) for character in text)


def is_printable(text: str) -> bool:
    """Return True for text of one line in which every character is seen."""
    return not any(unicodedata.category(character) in _HARMFUL for character in text)


def _shown(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _HARMFUL:
        return character
    if character < "\x20":
        return f"\\x{ord(character):02x}"
    # Written as JSON writes it, so that a line of JSON stays one; JSON itself writes the codes below 0x20.
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))


_ASCII = {code: _shown(chr(code)) for code in (*range(0x20), 0x7F)}
"""A report of megabytes is mostly this, and goes through in one step."""
