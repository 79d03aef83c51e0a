"""The learning table in Markdown, as `docs/why/learning.md` shows it, of what `python -m rl doctor --full` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rl.reporting.tables import number, whole
from rl.stages.known_answer_table import CHANCE, TITLES

DASH = "–"
"""Nothing was asked or measured."""


def learning_table(found: Mapping[str, Any]) -> list[str]:
    """Return the finished table as lines of Markdown.

    Args:
        found: What `--out` holds.
    """
    rows = found["rows"]
    lines = [_heading(found), ""]
    lines += _table(
        [
            "Market",
            "Cost, bp",
            "Best policy, bp a bar",
            "PPO",
            "Mixture",
            "MAML",
            "MAML, not adapted",
            "Mark",
            "Met",
        ],
        [
            [
                f"`{row['row']}`",
                number(row["cost_bp"]),
                number(_best(row), 3),
                *(_figure(row, stage) for stage in ("ppo", "moe", "maml")),
                _unadapted(row),
                _marks(row),
                _met(row),
            ]
            for row in rows
        ],
    )
    compared = [row for row in rows if _stage(row, "dense")]
    if compared:
        lines += ["", "PPO, one dense network of as many parameters as the mixture, and the mixture:", ""]
        lines += _table(
            ["Market", "Steps of each", "PPO", "Dense", "Mixture", "Expert and regime, nats", "Largest p"],
            [_beside_dense(row) for row in compared],
        )
    families = [row for row in rows if row.get("support_bars")]
    if families:
        lines += [
            "",
            "The task family, as shares of the best policy's earnings after so many inner steps:",
            "",
        ]
        lines += _after_steps(families)
    return lines


def _after_steps(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    curves = {row["row"]: _stage(row, "maml") or {} for row in rows}
    steps = list(next(iter(curves.values()))["after_steps"])
    return _table(
        ["Row", "Support, bars", *(f"After {count}" for count in steps), f"Random start, after {steps[-1]}"],
        [
            [
                f"`{row['row']}`",
                whole(row["support_bars"]),
                *(_minus(number(curves[row["row"]]["after_steps"][count])) for count in steps),
                _minus(number(curves[row["row"]]["random_start"])),
            ]
            for row in rows
        ],
    )


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _heading(found: Mapping[str, Any]) -> str:
    lengths: dict[str, dict[int, list[str]]] = {"ppo": {}, "maml": {}}
    for row in found["rows"]:
        for stage, by_length in lengths.items():
            if stage in row["steps"]:
                by_length.setdefault(row["steps"][stage], []).append(row["row"])
    named = {"ppo": "Steps of stage 1", "maml": "Iterations of stage 3"}
    usual = [f"{named[stage]}: {_usual(by_length)}." for stage, by_length in lengths.items() if by_length]
    return " ".join(
        [
            f"Mean over {len(found['seeds'])} seeds (lowest to highest).",
            *usual,
            f"Measured in {found['cpu_seconds'] / 60:.0f} minutes of processor time.",
        ]
    )


def _usual(by_length: Mapping[int, Sequence[str]]) -> str:
    """Return the commonest length, and the exceptions by row."""
    usual = max(by_length, key=lambda length: len(by_length[length]))
    others = [
        f"{', '.join(f'`{name}`' for name in names)} {whole(length)}"
        for length, names in by_length.items()
        if length != usual
    ]
    return whole(usual) + (f" ({'; '.join(others)})" if others else "")


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _stage(row: Mapping[str, Any], stage: str) -> Mapping[str, Any] | None:
    return next((each for each in row["stages"] if each["stage"] == stage), None)


def _best(row: Mapping[str, Any]) -> float | None:
    return row["stages"][0]["oracle"] if row["stages"] else None


def _figure(row: Mapping[str, Any], name: str) -> str:
    stage = _stage(row, name)
    if stage is None:
        return DASH
    low, high = (_signed(row, stage[end]) for end in ("lowest", "highest"))
    return f"{_signed(row, stage['mean'])}{_unit(row)} ({low} to {high})"


def _unadapted(row: Mapping[str, Any]) -> str:
    stage = _stage(row, "maml")
    if stage is None or stage["unadapted"] is None:
        return DASH
    return f"{_signed(row, stage['unadapted'])}{_unit(row)}"


def _signed(row: Mapping[str, Any], value: float) -> str:
    """Return a figure with the digits of its measure, a real minus, and none before zero."""
    digits = 2 if row["measure"] == "share" else 3
    return number(round(value, digits) + 0.0, digits).replace("-", "−")


def _unit(row: Mapping[str, Any]) -> str:
    return "" if row["measure"] == "share" else " bp"


def _marks(row: Mapping[str, Any]) -> str:
    stages_of: dict[str, list[str]] = {}
    for stage in row["stages"]:
        for text in stage["marks"]:
            if not _is_for_all(text):
                stages_of.setdefault(text, []).append(TITLES[stage["stage"]])
    return "; ".join(f"{', '.join(stages)} {text}" for text, stages in stages_of.items()) or DASH


def _is_for_all(text: str) -> bool:
    """Return True for the mark of every row, which the text around the table states once."""
    return text == f"≤ best + {CHANCE:.0f} SE"


def _met(row: Mapping[str, Any]) -> str:
    missed = missed_marks(row)
    return f"**no**: {'; '.join(missed)}" if missed else "yes"


def missed_marks(row: Mapping[str, Any]) -> list[str]:
    """Return each mark of a row that is not met, with its stage."""
    return [
        f"{TITLES[stage['stage']]} {text}"
        for stage in row["stages"]
        for text, met in stage["marks"].items()
        if not met
    ]


def _beside_dense(row: Mapping[str, Any]) -> list[str]:
    mixture = _stage(row, "moe") or {}
    return [
        f"`{row['row']}`",
        whole(row["steps"]["ppo"]),
        *(_figure(row, stage) for stage in ("ppo", "dense", "moe")),
        number(mixture.get("nats")),
        number(mixture.get("largest_p"), 3),
    ]
