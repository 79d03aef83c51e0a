"""Which bars and which costs a backtest uses, from what the model's file says and what is true today."""

from __future__ import annotations

import numpy as np
import pytest

from rl.apps.commands.backtest import _model_facts
from rl.backtest.engine import replay_actions
from rl.checkpoints.checkpoint import Checkpoint
from rl.checkpoints.registry import best_available
from rl.market.instruments import Commission, FoundInstrument
from rl.stages.backtest_looks import WindowLook, conclude_look, todays_rules, window_of
from rl.stages.evidence import EvidenceLedger
from rl.stages.gates import Verdict
from rl.stages.model_files import checkpoint_of, write_model
from rl.stages.symbol_data import SymbolData
from tests.builders import an_instrument
from tests.unit.backtest.small_markets import FREE, LONG, market_of_closes
from tests.unit.stages.small_symbol import edge_bars, edge_model, small_plan, symbol_of

PLAN = small_plan("environment.stops.stop_loss=3.0", "environment.exposure=0.5")


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return symbol_of(edge_bars(sessions=40), PLAN)


def a_verdict(outcome: str = "PASS", level: str = "progress") -> Verdict:
    return Verdict(
        outcome=outcome,
        level=level,
        symbol="EDGE_15",
        stage="ppo",
        criteria=(),
        trades=0,
        sessions=0,
        alpha_used=0.025,
        attempt=1,
        window={},
        reasons=(),
    )


def stored(data: SymbolData, plan=PLAN, **options) -> Checkpoint:
    verdict = options.pop("verdict", a_verdict())
    return checkpoint_of(data, plan, edge_model(plan), verdict, lineage=[], run_name="r", **options)


# --- bars -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "window", "is_seen"),
    [
        ("train", (0, 600), True),
        ("validation", (600, 750), True),
        ("promotion", (750, 850), True),
        ("test", (850, 1000), False),
        ("all", (0, 1000), True),
    ],
)
def test_windows_are_those_the_model_was_trained_with(data, split, window, is_seen):
    # 40 sessions of 25 bars, split 60 / 15 / 10 / 15.
    assert window_of(stored(data), data.bars, split) == (window, is_seen)


def test_bars_that_came_later_belong_to_the_test_window_since_nobody_has_seen_them(data):
    longer = edge_bars(sessions=50)
    assert window_of(stored(data), longer, "test") == ((850, 1250), False)
    assert window_of(stored(data), longer, "promotion") == ((750, 850), True)


def test_a_test_window_that_ended_before_the_data_did_stays_as_it_was():
    """Its end was chosen; bars after it may have been looked at for any purpose."""
    bars = edge_bars(sessions=40)
    days = [str(label)[:10] for label in bars.label]
    dates = {"validation": days[500], "promotion": days[650], "test": days[750], "end": days[900]}
    plan = small_plan("splits.dates=" + str(dates).replace("'", '"'))
    data = symbol_of(bars, plan)
    assert window_of(stored(data, plan), bars, "test") == ((750, 900), False)
    assert window_of(stored(data, plan), edge_bars(sessions=50), "test") == ((750, 900), False)


def test_a_file_that_lost_its_oldest_bars_still_has_the_same_windows(data):
    assert window_of(stored(data), data.bars.slice(200, 1000), "test") == ((650, 800), False)


# --- costs ----------------------------------------------------------------------------------------------------------


def test_costs_are_todays_and_sizing_and_exits_the_models_own(data):
    found = FoundInstrument(
        an_instrument(name="EDGE", commission=Commission(rate=5e-4), margin_rate=0.5, square_off=True), "EDGE"
    )
    rules, notes = todays_rules(stored(data), found)
    assert (rules.commission_rate, rules.margin_rate, rules.square_off) == (5e-4, 0.5, True)
    assert (rules.stop_loss, rules.exposure) == (3.0, 0.5)
    assert rules.bar_volatility == data.rules.bar_volatility
    assert notes == [
        "costs or limits differ from training: commission_rate 1e-05 -> 0.0005, margin_rate 0.2 -> 0.5, "
        "square_off 0 -> 1"
    ]


def test_costs_that_are_the_same_need_no_note(data):
    rules, notes = todays_rules(stored(data), data.found)
    assert (rules, notes) == (data.rules, [])


# --- the model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("champion_of", "outcome", "level", "text", "promoted"),
    [
        (None, "PASS", "progress", "progress PASS, not promoted", False),
        (None, "FAIL", "progress", "progress FAIL, not promoted", False),
        ("ppo", "PASS", "promotion", "promotion PASS", True),
        ("ppo", "INCONCLUSIVE", "promotion", "promotion INCONCLUSIVE, UNPROVEN", False),
    ],
)
def test_only_a_promoted_model_is_called_so(data, tmp_path, champion_of, outcome, level, text, promoted):
    write_model(tmp_path, stored(data, verdict=a_verdict(outcome, level), champion_of=champion_of))
    facts = _model_facts(best_available(tmp_path, "EDGE_15"))
    assert (facts["verdict_text"], facts["promoted"], facts["stage"]) == (text, promoted, "ppo")
    assert facts["verdict"] == outcome
    assert bool(facts["headline"]) is (outcome != "PASS")


# --- what was seen --------------------------------------------------------------------------------------------------


def concluded(ledger: EvidenceLedger) -> list[tuple[float, int]]:
    """Return ratio and sessions of every conclusion in the ledger."""
    lines = [line for line in ledger.entries() if line["kind"] == "verdict"]
    return [(line["sharpe_per_session"], line["sessions"]) for line in lines]


def test_of_a_replay_of_all_bars_the_sessions_of_the_opened_window_are_written_down(tmp_path):
    ledger = EvidenceLedger(tmp_path / "ledger.jsonl")
    attempt = ledger.record("EDGE_15", "w", "test", subject="a")
    look = WindowLook(purpose="test", window=(6, 10), window_hash="w", attempt=attempt)
    session = np.repeat(np.arange(5), 2)
    market = market_of_closes([100, 90, 80, 85, 70, 75, 82, 80, 90, 99], session=session)
    longer = replay_actions(market, (0, 10), FREE, 9 * (LONG,), capital=1000.0)
    conclude_look(ledger, "EDGE_15", look, longer, market, by_itself=False)
    # Two bars a session: the last two sessions end with bars 7 and 9, the one before them with bar 5.
    first, second = np.diff(longer.equity[[5, 7, 9]]) / longer.equity[[5, 7]]
    spread = abs(first - second) / np.sqrt(2)
    assert concluded(ledger) == [(pytest.approx((first + second) / 2 / spread), 2)]
    # By itself the window shows another ratio, because another account enters it; as a part it adds nothing to that.
    alone = replay_actions(market, (6, 10), FREE, 3 * (LONG,), capital=1000.0)
    conclude_look(ledger, "EDGE_15", look, alone, market, by_itself=True)
    conclude_look(ledger, "EDGE_15", look, longer, market, by_itself=False)
    ratios = [ratio for ratio, _ in concluded(ledger)]
    assert len(ratios) == 2
    assert ratios[0] != pytest.approx(ratios[1])
