"""The promotions of a run: corrected for the number of symbols, decided together, written whole or not at all."""

from __future__ import annotations

import errno
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import false_discovery_control
from scipy.stats import t as student

from rl.checkpoints.checkpoint import load_checkpoint, stage_file
from rl.checkpoints.registry import best_available
from rl.common.errors import CheckpointError, StorageError
from rl.stages.evidence import EvidenceLedger
from rl.stages.family import judged_with
from rl.stages.gates import Verdict, across_symbols, corrected_p
from rl.stages.model_files import RETIRED, write_model
from rl.stages.outcomes import SymbolOutcome
from rl.stages.promotion import settle_promotions
from rl.stages.symbol_data import SymbolData
from tests.unit.stages.promotions import WINDOW, Heard, judged_outcome, promotion_of, untested
from tests.unit.stages.small_symbol import edge_bars, small_plan, symbol_of

PLAN = small_plan()


def t_of(p: float) -> float:
    """Return the t value of 60 sessions whose one-sided p is this."""
    return float(student.isf(p, 59))


def family(*p_values: float) -> list[Verdict]:
    """Return first looks with these p values, named A, B, …"""
    return [promotion_of("ABCDEFGHIJKLMN"[place], t_of(p)) for place, p in enumerate(p_values)]


def outcomes(verdicts: list[Verdict], q: float = 0.05) -> list[str]:
    return [verdict.outcome for verdict in across_symbols(verdicts, q)]


# --- the correction -------------------------------------------------------------------------------------------------


def test_looks_are_corrected_for_before_symbols_are():
    """The third look may spend a twelfth of alpha; in return its p counts twelve times."""
    assert corrected_p(promotion_of("A", t_of(0.001))) == pytest.approx(0.002)
    assert corrected_p(promotion_of("A", t_of(0.001), attempt=3)) == pytest.approx(0.012)
    assert corrected_p(promotion_of("A", t_of(0.4), attempt=3)) == 1.0
    assert np.isnan(corrected_p(untested("A")))


def test_a_pass_that_many_other_symbols_make_likely_by_luck_is_lowered_to_inconclusive():
    # First looks: corrected p is 2 p. The smallest of five has to be at most 0.05 / 5 = 0.01, so p at most 0.005.
    verdicts = family(0.006, 0.3, 0.4, 0.45, 0.49)
    assert verdicts[0].outcome == "PASS"
    settled = across_symbols(verdicts, 0.05)[0]
    assert settled.outcome == "INCONCLUSIVE"
    assert settled.context["family"] == {
        "symbols": ["A", "B", "C", "D", "E"],
        "p": pytest.approx([0.012, 0.6, 0.8, 0.9, 0.98]),
        "q": 0.05,
        "corrected_p": pytest.approx(0.012),
        "rank_threshold": pytest.approx(0.01),
        "survived": False,
    }
    (reason,) = settled.reasons
    assert reason.startswith(
        "Not shown among the 5 symbols judged in this run: p 0.006, needed 0.005 or less; about "
    )
    assert outcomes(family(0.0049, 0.3, 0.4, 0.45, 0.49))[0] == "PASS"


def test_what_was_lowered_keeps_its_own_numbers():
    verdict = family(0.006, 0.3, 0.4, 0.45, 0.49)[0]
    settled = across_symbols([verdict, *family(0.006, 0.3, 0.4, 0.45, 0.49)[1:]], 0.05)[0]
    for name in ("criteria", "alpha_used", "attempt", "metrics", "window", "trades", "sessions"):
        assert getattr(settled, name) == getattr(verdict, name)


def test_what_was_lowered_names_the_sessions_that_would_make_it_survive():
    """With the same mean and spread, t grows with the root of the sessions; 60 were observed, one trade each."""
    settled = across_symbols(family(0.006, 0.3, 0.4, 0.45, 0.49), 0.05)[0]
    assert settled.sessions_needed is not None
    observed = t_of(0.006)

    def p_after(more: int) -> float:
        return float(student.sf(observed * np.sqrt((60 + more) / 60), 60 + more - 1))

    assert p_after(settled.sessions_needed) <= 0.005 < p_after(settled.sessions_needed - 1)
    assert f"about {settled.sessions_needed} more sessions" in settled.reasons[0]


def test_what_was_not_shown_on_its_own_names_the_larger_number_that_the_family_asks_for():
    alone = promotion_of("A", t_of(0.05))
    settled = across_symbols([alone, *family(0.5, 0.3, 0.4, 0.45, 0.49)[1:]], 0.05)[0]
    assert alone.outcome == settled.outcome == "INCONCLUSIVE"
    assert alone.sessions_needed is not None
    assert settled.sessions_needed > alone.sessions_needed
    assert settled.reasons[: len(alone.reasons)] == alone.reasons


def test_what_was_not_shown_on_its_own_says_so_once_where_the_family_asks_for_no_more():
    """B is promoted, so A would be at its own alpha: two of two at 0.05 * 2 / 2."""
    alone = promotion_of("A", t_of(0.2))
    settled = across_symbols([alone, promotion_of("B", 5.0)], 0.05)[0]
    assert settled.context["family"]["rank_threshold"] == 0.05
    assert (settled.reasons, settled.sessions_needed) == (alone.reasons, alone.sessions_needed)


def test_a_fail_stays_a_fail_and_counts_among_the_judged():
    losing = promotion_of("Z", -3.0)
    assert losing.outcome == "FAIL"
    # 2 * 0.02 = 0.04: enough of one symbol, too much of the smallest of two.
    assert outcomes([promotion_of("A", t_of(0.02))]) == ["PASS"]
    assert outcomes([promotion_of("A", t_of(0.02)), losing]) == ["INCONCLUSIVE", "FAIL"]


def test_a_small_p_that_may_not_be_promoted_makes_no_room_for_others():
    """Five sound edges that miss another criterion would let a corrected p of 0.02 pass as the sixth smallest of 11."""
    missed = [
        promotion_of(symbol, 9.0, outcome="FAIL", reasons=("win_rate is missed.",)) for symbol in "BCDEF"
    ]
    others = family(0.01, *[0.5] * 5)
    others = [others[0], *(replace(each, symbol=f"{each.symbol}2") for each in others[1:])]
    settled = across_symbols([*others, *missed], 0.05)
    assert others[0].passed
    assert settled[0].outcome == "INCONCLUSIVE"
    assert settled[0].context["family"]["rank_threshold"] == pytest.approx(0.05 / 11)
    # What was missed was not the edge, and the verdict still says so.
    assert all(each.outcome == "FAIL" and each.context["family"]["survived"] for each in settled[-5:])


def test_of_models_promoted_beside_sound_ones_that_fail_few_are_worthless():
    """All ten without an edge beside ten that miss another criterion: every promotion is a false one."""
    rng = np.random.default_rng(12)
    missed = [promotion_of(f"M{place}", 9.0, outcome="FAIL", reasons=("missed",)) for place in range(10)]
    runs, false = 200, 0
    for _ in range(runs):
        worthless = [promotion_of(symbol, float(rng.standard_t(59))) for symbol in "ABCDEFGHIJ"]
        false += any(verdict.passed for verdict in across_symbols([*worthless, *missed], 0.05))
    assert false / runs <= 0.05


def test_what_could_not_be_tested_is_never_promoted_but_counts():
    settled = across_symbols([promotion_of("A", t_of(0.02)), untested("B")], 0.05)
    assert [verdict.outcome for verdict in settled] == ["INCONCLUSIVE", "INCONCLUSIVE"]
    assert settled[1].context["family"]["p"] == [pytest.approx(0.04), None]
    assert settled[1].context["family"]["survived"] is False
    assert settled[1].reasons == untested("B").reasons
    json.dumps([verdict.to_dict() for verdict in settled], allow_nan=False)


@pytest.mark.parametrize("attempt", [1, 2, 3, 7])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.3])
def test_one_symbol_alone_is_judged_by_its_own_test(attempt, alpha):
    """Right at the border too, where p k (k + 1) may round to the other side of alpha."""
    border = alpha / (attempt * (attempt + 1))
    for p in (border * 0.5, border * (1 - 1e-9), border * (1 + 1e-9), border * 2):
        verdict = promotion_of("A", t_of(p), attempt=attempt, alpha=alpha)
        (settled,) = across_symbols([verdict], 0.05)
        assert settled.outcome == verdict.outcome
        assert settled.sessions_needed == verdict.sessions_needed
        assert settled.passed <= settled.context["family"]["survived"]
    edge = promotion_of("A", 3.0, attempt=attempt, alpha=alpha)
    exact = replace(
        edge,
        outcome="PASS",
        criteria=tuple(
            replace(each, value=edge.alpha_used, met=True) if each.name == "p_no_edge" else each
            for each in edge.criteria
        ),
    )
    assert across_symbols([exact], 0.05)[0].outcome == "PASS"


def test_the_order_of_symbols_decides_nothing():
    verdicts = family(0.001, 0.02, 0.012, 0.3)
    expected = {verdict.symbol: verdict for verdict in across_symbols(verdicts, 0.05)}
    for shuffled in itertools.permutations(verdicts):
        settled = across_symbols(list(shuffled), 0.05)
        assert [verdict.symbol for verdict in settled] == [verdict.symbol for verdict in shuffled]
        assert {verdict.symbol: verdict for verdict in settled} == expected


def test_a_smaller_p_of_any_symbol_never_costs_a_promotion():
    rng = np.random.default_rng(3)
    changed = 0
    for _ in range(60):
        p_values = rng.uniform(0.0005, 0.05, 5)
        before = [verdict.passed for verdict in across_symbols(family(*p_values), 0.05)]
        p_values[rng.integers(5)] /= 4
        after = [verdict.passed for verdict in across_symbols(family(*p_values), 0.05)]
        assert all(later >= earlier for earlier, later in zip(before, after, strict=True))
        changed += before != after
    assert changed > 5


def test_survivors_are_those_of_an_independent_implementation_and_the_threshold_says_the_same():
    rng = np.random.default_rng(4)
    seen = set()
    for _ in range(100):
        verdicts = family(*rng.uniform(0.0, 0.06, 6) ** rng.integers(1, 3))
        p_values = np.array([corrected_p(verdict) for verdict in verdicts])
        expected = false_discovery_control(p_values, method="bh") <= 0.05
        families = [verdict.context["family"] for verdict in across_symbols(verdicts, 0.05)]
        assert [found["survived"] for found in families] == expected.tolist()
        assert [found["corrected_p"] <= found["rank_threshold"] for found in families] == expected.tolist()
        seen.add(int(expected.sum()))
    assert len(seen) > 3


def test_ten_symbols_without_an_edge_hardly_ever_promote_one():
    rng = np.random.default_rng(8)
    by_themselves = together = 0
    runs = 400
    for _ in range(runs):
        verdicts = [promotion_of(symbol, float(rng.standard_t(59))) for symbol in "ABCDEFGHIJ"]
        by_themselves += any(verdict.passed for verdict in verdicts)
        together += any(verdict.passed for verdict in across_symbols(verdicts, 0.05))
    # Each alone at 2.5 %: 1 - 0.975^10 = 22 %. Together at most 5 %, by halves for what is kept for later looks.
    assert by_themselves / runs == pytest.approx(0.224, abs=0.06)
    assert together / runs <= 0.05


def promoted_within_20_tries(folder: Path, windows: int) -> float:
    """Return in which share of windows one of 20 worthless candidates is promoted, each look counted in a ledger."""
    rng = np.random.default_rng(11)
    promoted = 0
    for window in range(windows):
        ledger = EvidenceLedger(folder / f"{window}.jsonl")
        for candidate in range(20):
            attempt = ledger.record("A", "the window", "promotion", subject=f"weights {candidate}")
            (verdict,) = across_symbols([promotion_of("A", float(rng.standard_t(59)), attempt=attempt)], 0.05)
            if verdict.passed:
                promoted += 1
                break
    return promoted / windows


def test_a_worthless_candidate_retried_with_fresh_weights_is_promoted_in_one_window_of_twenty_at_most(
    tmp_path,
):
    assert 0.0 < promoted_within_20_tries(tmp_path, 150) <= 0.05


def test_the_same_check_goes_red_where_alpha_is_not_spent(tmp_path, monkeypatch):
    """At 5 % each, 20 looks find an edge in two windows of three: 1 - 0.95^20 = 64 %."""
    monkeypatch.setattr("rl.stages.gates.alpha_for_attempt", lambda attempt, alpha: alpha)
    monkeypatch.setattr("rl.stages.gates.corrected_p", lambda verdict: verdict.criterion("p_no_edge").value)
    assert promoted_within_20_tries(tmp_path, 40) > 0.4


def test_two_verdicts_of_one_symbol_or_a_rate_without_meaning_are_refused():
    with pytest.raises(ValueError, match="one promotion verdict"):
        across_symbols([promotion_of("A", 1.0), promotion_of("A", 2.0)], 0.05)
    with pytest.raises(ValueError, match="q has to lie in"):
        across_symbols(family(0.01), 0.0)
    assert across_symbols([], 0.05) == []


def test_the_text_says_what_the_family_decided():
    lines = across_symbols(family(0.006, 0.3, 0.4, 0.45, 0.49), 0.05)[0].lines()
    assert (
        "  One of 5 symbols judged in this run: p corrected for attempts 0.012, needed 0.01 or less (false discovery "
        "rate 0.05); did not survive."
    ) in lines
    assert not any("judged in this run" in line for line in promotion_of("A", 3.0).lines())


# --- the settlement -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def symbols() -> dict[str, SymbolData]:
    names = ("AAA_15", "BBB_15", "CCC_15")
    return {
        name: symbol_of(edge_bars(name, sessions=40, seed=place), PLAN) for place, name in enumerate(names)
    }


class Desk:
    """One models folder with its ledger, and the settlement of a run in it."""

    def __init__(self, root: Path, symbols: dict[str, SymbolData]) -> None:
        self.models = root / "models"
        self.ledger = EvidenceLedger(root / "ledger.jsonl")
        self.heard = Heard()
        self._symbols = symbols

    def judged(
        self, t_values: dict[str, float], run: str = "run-1", plan=PLAN, **options
    ) -> list[SymbolOutcome]:
        return [
            judged_outcome(
                self._symbols[symbol],
                plan,
                t,
                models=self.models,
                ledger=self.ledger,
                run_name=run,
                **options,
            )
            for symbol, t in t_values.items()
        ]

    def settle(
        self, found: list[SymbolOutcome], run: str = "run-1", plan=PLAN, **options
    ) -> list[SymbolOutcome]:
        return settle_promotions(
            found,
            plan,
            models_dir=self.models,
            ledger=self.ledger,
            listener=self.heard,
            run_name=run,
            first_stage="ppo",
            **options,
        )

    @property
    def finals(self) -> list[str]:
        return sorted(path.name for path in self.models.glob("*_final_model.pth"))

    @property
    def settlements(self) -> dict[str, dict]:
        return {line["symbol"]: line for line in self.ledger.entries() if line["kind"] == "settlement"}


@pytest.fixture
def desk(tmp_path, symbols) -> Callable[..., Desk]:
    return lambda name="desk": Desk(tmp_path / name, symbols)


SPLIT = {"AAA_15": t_of(0.0005), "BBB_15": t_of(0.02), "CCC_15": t_of(0.4)}
"""Corrected p 0.001, 0.04 and 0.8: A survives, B passes alone and does not survive (needs 0.0333), C shows nothing."""


def test_a_symbol_that_does_not_survive_its_family_gets_no_final_model(desk):
    place = desk()
    found = place.settle(place.judged(SPLIT))
    assert [outcome.promotion.outcome for outcome in found] == ["PASS", "INCONCLUSIVE", "INCONCLUSIVE"]
    assert place.finals == ["AAA_15_final_model.pth"]
    assert [outcome.final_file for outcome in found] == [place.models / "AAA_15_final_model.pth", None, None]
    # The same symbol alone is promoted: it is the others that it has to answer for.
    alone = desk("alone")
    alone.settle(alone.judged({"BBB_15": SPLIT["BBB_15"]}))
    assert alone.finals == ["BBB_15_final_model.pth"]


def test_the_final_model_is_the_champion_with_the_settled_verdict(desk):
    place = desk()
    (outcome, *_) = place.settle(place.judged(SPLIT))
    final = load_checkpoint(outcome.final_file)
    stage = load_checkpoint(outcome.champion_file)
    assert (final.stage, final.champion_of, final.passed) == ("final", "ppo", True)
    assert final.verdict == outcome.promotion.to_dict()
    assert final.verdict["context"]["family"]["symbols"] == list(SPLIT)
    assert final.weights.equal(stage.weights)
    assert final.trading["promotion_rule"] == "evidence"
    assert (final.scaler, final.plan, final.lineage) == (stage.scaler, stage.plan, stage.lineage)


def test_the_ledger_says_what_was_decided_of_every_symbol(desk):
    place = desk()
    place.settle(place.judged(SPLIT))
    decided = {symbol: (line["outcome"], line["decision"]) for symbol, line in place.settlements.items()}
    assert decided == {
        "AAA_15": ("PASS", "promoted"),
        "BBB_15": ("INCONCLUSIVE", "none"),
        "CCC_15": ("INCONCLUSIVE", "none"),
    }
    for line in place.settlements.values():
        assert line["family"]["p"] == pytest.approx([0.001, 0.04, 0.8])
        assert (line["window_hash"], line["purpose"], line["run"]) == (WINDOW["hash"], "promotion", "run-1")


def test_the_order_of_the_symbols_changes_no_file_and_no_decision(desk):
    """Symbols trained side by side end in any order."""
    content = []
    for name, order in (("one", list(SPLIT)), ("other", list(SPLIT)[::-1])):
        place = desk(name)
        found = place.settle(place.judged({symbol: SPLIT[symbol] for symbol in order}))
        verdicts = {outcome.symbol: outcome.promotion for outcome in found}
        assert list(verdicts) == order
        files = {path.name: path.read_bytes() for path in sorted(place.models.iterdir())}
        lines = {symbol: {**line, "time": None} for symbol, line in place.settlements.items()}
        content.append((verdicts, files, lines))
    assert content[0] == content[1]


def test_an_interruption_while_a_final_model_is_written_leaves_none_of_it_and_the_decision_in_the_ledger(
    desk, monkeypatch
):
    place = desk()
    found = place.judged(SPLIT)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("rl.checkpoints.checkpoint.write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            place.settle(found)
    assert place.finals == []
    assert best_available(place.models, "AAA_15").checkpoint.stage == "ppo"
    assert place.settlements["AAA_15"]["decision"] == "promoted"
    # Settled again, as by the same run repeated: the file is there, and nothing is counted twice.
    lines = len(place.ledger.entries())
    place.settle(found)
    assert place.finals == ["AAA_15_final_model.pth"]
    assert len(place.ledger.entries()) == lines


def test_one_symbols_damaged_file_does_not_cost_the_others_their_models(desk):
    place = desk()
    found = place.judged({symbol: t_of(0.0005) for symbol in SPLIT})
    found[1].champion_file.write_bytes(b"not a model")
    told = []
    settled = place.settle(found, on_problem=lambda symbol, error: told.append((symbol, type(error))))
    assert told == [("BBB_15", CheckpointError)]
    assert place.finals == ["AAA_15_final_model.pth", "CCC_15_final_model.pth"]
    assert settled[1].final_file is None
    with pytest.raises(CheckpointError):
        place.settle(found)


def test_decisions_that_cannot_be_written_down_leave_every_promotion_unsettled_and_no_file(desk, monkeypatch):
    """The disk is full at the second settlement: the first one's decision is in the ledger, and its file is not."""
    place = desk()
    found = place.judged(SPLIT)
    told, flushed = [], []

    def full(descriptor):
        if len(flushed) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        flushed.append(descriptor)

    with monkeypatch.context() as broken:
        broken.setattr("rl.stages.evidence.os.fsync", full)
        settled = place.settle(found, on_problem=lambda name, error: told.append((name, type(error))))
    assert told == [("promotions", StorageError)]
    assert [outcome.promotion.outcome for outcome in settled] == ["INCONCLUSIVE"] * 3
    assert not any(outcome.settled or outcome.final_file for outcome in settled)
    assert settled[1].promotion.reasons[-1].startswith("Unsettled: PASS on its own")
    assert place.finals == []
    # With room again the same run repeated decides as it would have.
    again = place.settle(found)
    assert [outcome.promotion.outcome for outcome in again] == ["PASS", "INCONCLUSIVE", "INCONCLUSIVE"]
    assert all(outcome.settled for outcome in again)


def test_a_file_that_is_not_the_judged_model_is_not_promoted(desk, symbols):
    place = desk()
    found = place.judged({"AAA_15": 5.0})
    judged_outcome(
        symbols["AAA_15"], PLAN, 5.0, models=place.models, ledger=place.ledger, run_name="run-2", follow=0.5
    )
    with pytest.raises(CheckpointError, match="is not the model that was judged"):
        place.settle(found)
    assert place.finals == []


def test_an_older_promoted_model_stays_where_the_new_one_does_not_survive(desk):
    place = desk()
    place.settle(place.judged({"BBB_15": 5.0}, run="run-1"), run="run-1")
    older = (place.models / "BBB_15_final_model.pth").read_bytes()
    place.settle(place.judged(SPLIT, run="run-2", follow=0.5), run="run-2")
    assert (place.models / "BBB_15_final_model.pth").read_bytes() == older
    assert (
        "BBB_15",
        f"the model promoted by run run-1 stays in use: {place.models / 'BBB_15_final_model.pth'}",
    ) in (place.heard.texts)


def test_files_of_an_earlier_run_are_retired_when_promotions_are_settled_and_not_before(desk, symbols):
    place = desk()
    place.judged({"AAA_15": 5.0}, run="run-0")
    old = load_checkpoint(place.models / stage_file("AAA_15", "ppo"))
    moe = place.models / stage_file("AAA_15", "moe")
    write_model(place.models, replace(old, stage="moe"))
    found = place.judged({"AAA_15": 5.0}, run="run-1", follow=0.5)
    assert moe.exists()
    place.settle(found)
    assert not moe.exists()
    # The file of stage 1 was written anew, and the model that lay there kept.
    kept = sorted(path.name for path in (place.models / RETIRED).rglob("*.pth"))
    assert kept == [moe.name, stage_file("AAA_15", "ppo")]


BEST = small_plan("model_management.promotion=best_validation")


def test_best_validation_writes_every_champion_and_calls_what_did_not_survive_unproven(desk):
    place = desk()
    found = place.settle(place.judged(SPLIT, plan=BEST), plan=BEST)
    assert len(place.finals) == 3
    assert [load_checkpoint(outcome.final_file).passed for outcome in found] == [True, False, False]
    assert [line["decision"] for line in place.settlements.values()] == ["promoted", "unproven", "unproven"]


def test_an_unproven_model_never_takes_the_place_of_a_promoted_one(desk):
    place = desk()
    place.settle(place.judged({"BBB_15": 5.0}, run="run-1"), run="run-1")
    found = place.settle(place.judged(SPLIT, run="run-2", plan=BEST, follow=0.5), run="run-2", plan=BEST)
    assert found[1].final_file is None
    assert load_checkpoint(place.models / "BBB_15_final_model.pth").trading["run"] == "run-1"


def test_stage_files_go_only_where_a_final_model_was_written(desk):
    only_final = small_plan("model_management.save_stage_models=false")
    place = desk()
    place.settle(place.judged(SPLIT, plan=only_final), plan=only_final)
    assert sorted(path.name for path in place.models.glob("*.pth")) == [
        "AAA_15_final_model.pth",
        "BBB_15_ppo_stage1.pth",
        "CCC_15_ppo_stage1.pth",
    ]


def test_a_symbol_without_a_champion_is_no_member_of_the_family(desk):
    place = desk()
    found = place.judged({"AAA_15": SPLIT["BBB_15"]}) + desk("elsewhere").judged({"CCC_15": 0.0})
    found[1] = replace(found[1], champion=None, champion_file=None, promotion=None)
    settled = place.settle(found)
    assert settled[0].promotion.outcome == "PASS"
    assert settled[0].promotion.context["family"]["symbols"] == ["AAA_15"]
    assert settled[1].promotion is None
    assert list(place.settlements) == ["AAA_15"]


def test_everything_is_told_after_all_symbols_are_judged(desk):
    place = desk()
    place.settle(place.judged(SPLIT))
    (said,) = [text.split("\n") for symbol, text in place.heard.texts if symbol == "BBB_15"]
    assert said[0] == "Promotion of BBB_15 after stage 1 (ppo): INCONCLUSIVE"
    assert said[-1].strip() == "no final model"
    assert any("One of 3 symbols judged in this run" in line for line in said)


# --- the same looks in several runs -----------------------------------------------------------------------------------


def test_a_model_promoted_alone_is_withdrawn_where_the_same_look_does_not_survive_the_whole_run(desk):
    """Else training one symbol first, and the others after it, would promote what training all at once does not."""
    place = desk()
    (alone,) = place.settle(
        place.judged({"BBB_15": SPLIT["BBB_15"]}, run="run-1", subject="same"), run="run-1"
    )
    assert alone.promoted
    whole = place.settle(place.judged(SPLIT, run="run-2", subject="same"), run="run-2")
    assert [outcome.promotion.outcome for outcome in whole] == ["PASS", "INCONCLUSIVE", "INCONCLUSIVE"]
    assert place.finals == ["AAA_15_final_model.pth"]
    (moved,) = (place.models / RETIRED).rglob("BBB_15_final_model.pth")
    assert load_checkpoint(moved).trading["run"] == "run-1"
    said = [text for symbol, text in place.heard.texts if symbol == "BBB_15"]
    assert any(
        f"moved to {moved}" in text and "not promoted among the symbols judged since" in text for text in said
    )


def test_a_promoted_model_whose_look_survives_again_stays_promoted(desk):
    place = desk()
    place.settle(place.judged({"AAA_15": SPLIT["AAA_15"]}, run="run-1", subject="same"), run="run-1")
    place.settle(place.judged(SPLIT, run="run-2", subject="same"), run="run-2")
    assert place.finals == ["AAA_15_final_model.pth"]
    # The second run's takes its place, and the first one is kept.
    assert load_checkpoint(place.models / "AAA_15_final_model.pth").trading["run"] == "run-2"
    (kept,) = (place.models / RETIRED).rglob("*_final_model.pth")
    assert load_checkpoint(kept).trading["run"] == "run-1"
    assert not any("not promoted among the symbols judged since" in text for _, text in place.heard.texts)


@pytest.mark.parametrize("first_was_settled", [True, False])
def test_judging_one_symbol_again_alone_does_not_undo_the_correction(desk, first_was_settled):
    """Neither after a run that was settled nor after one that was interrupted when all were judged."""
    place = desk()
    first = place.judged(SPLIT, run="run-1", subject="same")
    if first_was_settled:
        place.settle(first, run="run-1")
    (again,) = place.settle(
        place.judged({"BBB_15": SPLIT["BBB_15"]}, run="run-2", subject="same"), run="run-2"
    )
    assert again.promotion.attempt == 1
    assert again.promotion.outcome == "INCONCLUSIVE"
    assert again.final_file is None
    assert again.promotion.context["family"]["symbols"] == list(SPLIT)
    assert again.promotion.context["family"]["from_runs"] == {"AAA_15": "run-1", "CCC_15": "run-1"}
    assert "BBB_15_final_model.pth" not in place.finals
    assert place.settlements["BBB_15"]["family"] == again.promotion.context["family"]


def test_the_same_command_repeated_decides_the_same(desk):
    place = desk()
    place.settle(place.judged(SPLIT, run="run-1", subject="same"), run="run-1")
    families = []
    for number in range(2, 5):
        run = f"run-{number}"
        found = place.settle(place.judged({"BBB_15": SPLIT["BBB_15"]}, run=run, subject="same"), run=run)
        families.append((found[0].promotion.outcome, found[0].promotion.context["family"]))
    assert families[0] == families[1] == families[2]
    whole = place.settle(place.judged(SPLIT, run="run-5", subject="same"), run="run-5")
    assert [outcome.promotion.outcome for outcome in whole] == ["PASS", "INCONCLUSIVE", "INCONCLUSIVE"]
    # All are judged in it: nothing has to be taken from elsewhere.
    assert "from_runs" not in whole[0].promotion.context["family"]


def test_the_order_in_which_symbols_are_judged_again_decides_nothing(desk):
    decided = []
    for order in itertools.permutations(SPLIT):
        place = desk("".join(order))
        place.judged(SPLIT, run="run-1", subject="same")
        outcomes = {}
        for symbol in order:
            run = f"run of {symbol}"
            (found,) = place.settle(place.judged({symbol: SPLIT[symbol]}, run=run, subject="same"), run=run)
            outcomes[symbol] = (found.promotion.outcome, found.promotion.context["family"]["p"])
        decided.append(outcomes)
    assert all(each == decided[0] for each in decided)
    assert [decided[0][symbol][0] for symbol in SPLIT] == ["PASS", "INCONCLUSIVE", "INCONCLUSIVE"]


def test_runs_that_share_looks_by_way_of_a_third_are_one_family(desk):
    place = desk()
    place.judged({"AAA_15": 0.0, "BBB_15": SPLIT["BBB_15"]}, run="run-1", subject="same")
    place.judged({"BBB_15": SPLIT["BBB_15"], "CCC_15": SPLIT["BBB_15"]}, run="run-2", subject="same")
    (found,) = place.settle(
        place.judged({"CCC_15": SPLIT["BBB_15"]}, run="run-3", subject="same"), run="run-3"
    )
    assert found.promotion.context["family"]["from_runs"] == {"AAA_15": "run-1", "BBB_15": "run-1"}


def test_another_model_on_the_window_is_another_look_and_a_family_of_its_own(desk):
    """It pays for that with the alpha of its look."""
    place = desk()
    place.settle(place.judged(SPLIT, run="run-1", subject="same"), run="run-1")
    (found,) = place.settle(place.judged({"BBB_15": 5.0}, run="run-2", subject="other weights"), run="run-2")
    assert (found.promotion.attempt, found.promotion.outcome) == (2, "PASS")
    assert found.promotion.context["family"]["symbols"] == ["BBB_15"]


def test_a_symbol_judged_with_several_models_elsewhere_counts_once_and_makes_the_least_room(desk):
    place = desk()
    place.judged({"AAA_15": 0.0, "BBB_15": SPLIT["BBB_15"]}, run="run-1", subject="same")
    place.judged({"AAA_15": 9.0}, run="run-2", subject="other weights")
    place.judged({"BBB_15": SPLIT["BBB_15"]}, run="run-2", subject="same")
    (found,) = place.settle(
        place.judged({"BBB_15": SPLIT["BBB_15"]}, run="run-3", subject="same"), run="run-3"
    )
    family = found.promotion.context["family"]
    assert family["symbols"] == ["AAA_15", "BBB_15"]
    assert family["from_runs"] == {"AAA_15": "run-1"}
    assert found.promotion.outcome == "INCONCLUSIVE"


def test_a_symbol_of_the_run_that_was_lost_after_its_verdict_still_counts(desk):
    place = desk()
    found = place.settle(place.judged(SPLIT)[:2])
    assert [outcome.promotion.outcome for outcome in found] == ["PASS", "INCONCLUSIVE"]
    assert found[1].promotion.context["family"]["from_runs"] == {"CCC_15": "run-1"}


def test_the_text_says_that_symbols_of_other_runs_were_counted(desk):
    place = desk()
    place.judged(SPLIT, run="run-1", subject="same")
    (found,) = place.settle(
        place.judged({"BBB_15": SPLIT["BBB_15"]}, run="run-2", subject="same"), run="run-2"
    )
    said = "3 symbols judged in this run or, sharing looks with it, in run-1: p"
    assert any(f"One of {said}" in line for line in found.promotion.lines())
    assert any(f"Not shown among the {said}" in line for line in found.promotion.lines())


def test_ten_symbols_judged_alone_after_a_run_of_all_are_promoted_no_more_often_than_in_it():
    """Whoever judges the winners again by themselves would promote one in every fifth run."""
    rng = np.random.default_rng(8)
    promoted, runs = 0, 100
    for _ in range(runs):
        first = [
            promotion_of(symbol, float(rng.standard_t(59)), context={"run": "run-1"})
            for symbol in "ABCDEFGHIJ"
        ]
        lines = [
            {
                "kind": "verdict",
                "symbol": verdict.symbol,
                "purpose": "promotion",
                "window_hash": WINDOW["hash"],
                "attempt": 1,
                "verdict": verdict.to_dict(),
            }
            for verdict in first
        ]
        winners = [replace(verdict, context={"run": "run-2"}) for verdict in first if verdict.passed]
        together = {verdict.symbol: verdict.outcome for verdict in across_symbols(first, 0.05)}
        settled = [
            across_symbols([winner], 0.05, judged_with(lines, [winner], "run-2"))[0] for winner in winners
        ]
        assert all(each.outcome == together[each.symbol] for each in settled)
        promoted += any(each.passed for each in settled)
    assert promoted / runs <= 0.05
