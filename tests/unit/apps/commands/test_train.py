"""Around the sequences: which symbols learn together, and how the run ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rl.apps.commands.train import _comparable, _exit_code, _held_out
from rl.common.errors import ConfigError, DataError, StagegateError
from rl.features.pipeline import FeatureTable
from rl.stages.outcomes import SymbolOutcome
from rl.stages.symbol_data import SymbolData
from tests.unit.stages.small_symbol import edge_bars, edge_table, small_plan, symbol_of

PLAN = small_plan()


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return symbol_of(edge_bars(sessions=40), PLAN)


def poorer(data: SymbolData) -> SymbolData:
    """Return a symbol that lacks one of the features."""
    table = edge_table(data.bars)
    return symbol_of(
        data.bars,
        PLAN,
        table=FeatureTable(
            table.values[:, 1:], ("x_regime_mood",), table.usable, table.atr, ("x_regime_mood",)
        ),
    )


def test_the_last_of_at_least_two_others_is_held_out(data):
    assert _held_out("A", {"A": data}) is None
    assert _held_out("A", {"A": data, "B": data}) is None
    assert _held_out("A", {"A": data, "B": data, "C": data}) == "C"
    # Who is held out for the others is trained first and has none: no result depends on the order of work.
    assert _held_out("C", {"A": data, "B": data, "C": data}) is None


def test_symbols_that_lack_a_feature_neither_join_nor_are_held_out(data):
    every = {"A": data, "B": data, "C": data, "D": poorer(data)}
    assert _comparable("A", every) == ["B", "C"]
    assert _held_out("A", every) == "C"
    # The other way round it works: they have all it needs.
    assert _comparable("D", every) == ["A", "B", "C"]


# --- exit codes -----------------------------------------------------------------------------------------------------


def an_outcome(**changes: Any) -> SymbolOutcome:
    plain = SymbolOutcome(
        symbol="A",
        stages=(),
        champion=None,
        promotion=None,
        final_file=None,
        stopped=None,
        impossible=None,
        notes=(),
        windows={},
        bars=0,
        features=0,
        seconds=0.0,
    )
    return replace(plain, **changes)


STOPPED = an_outcome(stopped="gate after stage 1 (ppo): FAIL")
IMPOSSIBLE = an_outcome(impossible="stage 3 (maml) is not possible: too short")


@pytest.mark.parametrize(
    ("outcomes", "problems", "strict", "code"),
    [
        ([an_outcome()], {}, False, 0),
        ([an_outcome()], {}, True, 5),
        ([an_outcome(), STOPPED], {}, False, 5),
        ([an_outcome(), IMPOSSIBLE], {}, False, 4),
        ([an_outcome()], {"B": DataError("bad file")}, False, 4),
        ([an_outcome()], {"B": ConfigError("bad plan")}, False, 2),
        # What has to be repaired comes before what a gate said.
        ([STOPPED], {"B": DataError("bad file")}, False, 4),
        ([], {"A": DataError("bad file"), "B": ConfigError("bad plan")}, False, 4),
        ([an_outcome()], {"B": StagegateError("unexpected error: ZeroDivisionError")}, False, 1),
    ],
)
def test_the_exit_code_says_the_worst_that_happened(outcomes, problems, strict, code):
    assert _exit_code(outcomes, problems, strict=strict) == code
