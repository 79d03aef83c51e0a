"""Verdicts recomputed from the ledger and the evidence: every digit that was changed anywhere shows."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl.apps.commands.gate import explanation_lines
from rl.backtest import engine
from rl.checkpoints.checkpoint import load_checkpoint, stage_file
from rl.common.atomic_files import sha256_of
from rl.common.errors import DataError
from rl.stages.evidence import EvidenceLedger
from rl.stages.explain import Explanation, explained
from rl.stages.family import judged_with
from rl.stages.gates import Verdict, across_symbols
from rl.stages.model_files import model_from
from rl.stages.plan import STAGES
from rl.stages.promotion import settle_promotions
from rl.stages.sequence import run_sequence
from tests.unit.stages.promotions import Heard
from tests.unit.stages.small_symbol import edge_model, small_plan, small_symbol

PLAN = small_plan(
    "training_sequence.stage_1_ppo.success_criteria.min_win_rate=0.1",
    "training_sequence.stage_1_ppo.success_criteria.max_drawdown=1.0",
    "training_sequence.stage_2_moe.success_criteria.max_drawdown=1.0",
    "training_sequence.stage_3_maml.success_criteria.max_drawdown=0.5",
    "progression_rules.advancement_criteria.stage_1_to_2.min_win_rate=null",
    "progression_rules.advancement_criteria.stage_2_to_3.min_win_rate=null",
    "progression_rules.on_inconclusive=continue",
)


class Trains(Heard):
    """A listener that lets stages be trained."""

    def stage_started(self, *_) -> None:
        """Nothing to keep."""

    def progressed(self, *_) -> None:
        """Nothing to keep."""

    def judged(self, *_) -> None:
        """Nothing to keep."""


class Ready:
    """A stage's training whose result is known beforehand."""

    def __init__(self, model) -> None:
        self._model = model

    def train(self, episodes, _report, _on_better, _keep):
        return replace(self._model, episodes=episodes)

    def state(self) -> dict[str, Any]:
        return {}


@pytest.fixture(scope="module")
def judged_run(tmp_path_factory) -> Path:
    """Return the folder of a run of two symbols through all stages; the first one's edge is there, the second's not."""
    root = tmp_path_factory.mktemp("run")
    shared = {
        "models_dir": root / "models",
        "ledger": EvidenceLedger(root / "reports" / "evidence_ledger.jsonl"),
        "listener": Trains(),
        "run_name": "run-1",
    }
    found = []
    for symbol, follow in (("EDGE_15", 1.0), ("NONE_15", 0.5)):
        data = small_symbol(PLAN, symbol, sessions=120, hit_rate=0.65 if symbol == "EDGE_15" else 0.5)
        with pytest.MonkeyPatch.context() as known:
            for stage in ("ppo", "moe"):
                model = edge_model(PLAN, follow=follow if stage == "ppo" else 1.1 * follow, stage=stage)
                known.setattr(
                    f"rl.stages.attempts.{stage}_training", lambda *_, model=model, **__: Ready(model)
                )
            found.append(run_sequence(data, PLAN, stages=STAGES, **shared))
    settle_promotions(found, PLAN, first_stage="ppo", **shared)
    return root


@dataclass
class Place:
    """A copy of that run, to be tampered with; models, data and kernel are out of reach."""

    root: Path
    models: dict[str, tuple[str, str, dict]]
    """Symbol, fingerprint and verdict of each model file."""

    @property
    def ledger(self) -> EvidenceLedger:
        return EvidenceLedger(self.root / "reports" / "evidence_ledger.jsonl")

    def explain(self, name: str = "EDGE_15_final_model.pth") -> dict[str, Explanation]:
        symbol, weights, verdict = self.models[name]
        return {found.purpose: found for found in explained(self.ledger, symbol, weights, verdict)}

    def evidence(self, purpose: str, ending: str = ".csv.gz", symbol: str = "EDGE_15") -> Path:
        return next((self.root / "reports" / "evidence" / symbol).glob(f"{purpose}-*{ending}"))

    def change_ledger(self, change: Callable[[dict], dict | None], **wanted) -> None:
        lines = []
        changed = 0
        for line in self.ledger.entries():
            if all(line.get(name) == value for name, value in wanted.items()):
                changed += 1
                line = change(line)
            if line is not None:
                lines.append(json.dumps(line))
        assert changed
        self.ledger.path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def place(judged_run, tmp_path, monkeypatch) -> Place:
    shutil.copytree(judged_run / "reports", tmp_path / "reports")
    models = {}
    for path in (judged_run / "models").glob("*.pth"):
        checkpoint = load_checkpoint(path)
        models[path.name] = (checkpoint.symbol, model_from(checkpoint).fingerprint(), checkpoint.verdict)

    def no_kernel(*_):
        raise AssertionError("an explanation has to do without the kernel")

    monkeypatch.setattr(engine, "_scan", no_kernel)
    return Place(tmp_path, models)


# --- what agrees ------------------------------------------------------------------------------------------------------


def test_every_kind_of_verdict_is_recomputed_from_ledger_and_evidence_alone(place):
    kinds = set()
    for name in place.models:
        for purpose, found in place.explain(name).items():
            assert found.differences == ()
            assert found.agrees
            assert found.compared > 40
            kinds.add((purpose, found.stored.outcome))
    assert {purpose for purpose, _ in kinds} == {"progress", "adaptation", "promotion"}
    assert ("promotion", "PASS") in kinds
    assert len({outcome for _, outcome in kinds}) > 1


def test_recomputed_figures_are_those_stored_to_twelve_digits(place):
    found = place.explain()["promotion"]
    assert found.recomputed is not None
    for stored, again in zip(found.stored.criteria, found.recomputed.criteria, strict=True):
        for name in ("value", "lower", "upper", "p_below"):
            expected = getattr(stored, name)
            assert getattr(again, name) == (expected and pytest.approx(expected, rel=1e-12, abs=0.0))
    stored, again = (dict(verdict.context["family"]) for verdict in (found.stored, found.recomputed))
    assert stored.pop("symbols") == again.pop("symbols") == ["EDGE_15", "NONE_15"]
    assert again.pop("p") == pytest.approx(stored.pop("p"), rel=1e-12, abs=0.0)
    assert again == pytest.approx(stored, rel=1e-12, abs=0.0)


def test_what_is_copied_from_the_ledger_is_not_counted_as_recomputed(place):
    """Seed, costs and null bank are taken over as stored; that they are equal then proves nothing."""

    def places(value) -> int:
        if isinstance(value, (dict, list)) and value:
            return sum(map(places, value.values() if isinstance(value, dict) else value))
        return 1

    for symbol, weights, verdict in place.models.values():
        for found in explained(place.ledger, symbol, weights, verdict):
            stored = found.stored.to_dict()
            copied = {name: value for name, value in stored["context"].items() if name != "family"}
            assert len(copied) > 5
            assert found.compared <= places(stored) - places(copied)


def test_a_verdict_says_all_that_it_was_computed_by(place):
    for found in place.explain().values():
        verdict = found.stored
        assert {"name", "from", "to", "data_hash", "hash"} <= set(verdict.window)
        wanted = {
            "run",
            "seed",
            "code_version",
            "source_hash",
            "weights",
            "rules",
            "capital",
            "alpha",
            "asked",
        }
        assert wanted <= set(verdict.context)
        assert verdict.metrics["sharpe_per_session"] is not None
        assert verdict.alpha_used == verdict.context["alpha"] / (verdict.attempt * (verdict.attempt + 1))


def test_the_sharpe_ratio_per_session_is_mean_over_deviation_of_the_windows_sessions(place):
    found = place.explain()["promotion"].stored
    text = gzip.decompress(place.evidence("promotion").read_bytes()).decode().splitlines()[1:]
    closing = {}
    for row in text:
        _, session, equity, *_ = row.split(",")
        if session:
            closing[int(session)] = float(equity)
    equity = np.array([100_000.0, *closing.values()])
    returns = equity[1:] / equity[:-1] - 1
    assert found.metrics["sharpe_per_session"] == pytest.approx(
        returns.mean() / returns.std(ddof=1), rel=1e-9
    )


def judge_again_alone(place: Place, symbol: str) -> None:
    """Write into the ledger what a second run of one symbol alone leaves: the same verdict, settled."""
    (line,) = [
        each
        for each in place.ledger.entries()
        if each["kind"] == "verdict" and each["purpose"] == "promotion" and each["symbol"] == symbol
    ]
    verdict = Verdict.from_dict(line["verdict"])
    verdict = replace(verdict, context={**verdict.context, "run": "run-2"})
    look = (symbol, verdict.window["hash"], "promotion", verdict.attempt)
    place.ledger.conclude(
        *look, outcome=verdict.outcome, verdict=verdict.to_dict(), evidence=line["evidence"]
    )
    (settled,) = across_symbols([verdict], 0.05, judged_with(place.ledger.entries(), [verdict], "run-2"))
    place.ledger.settle(
        *look,
        run="run-2",
        stage=settled.stage,
        outcome=settled.outcome,
        decision="none",
        reasons=list(settled.reasons),
        sessions_needed=settled.sessions_needed,
        family=settled.context["family"],
    )
    name = stage_file(symbol, settled.stage)
    place.models[name] = (symbol, verdict.context["weights"], settled.to_dict())


@pytest.mark.parametrize("symbol", ["EDGE_15", "NONE_15"])
def test_a_family_with_members_of_another_run_is_recomputed(place, symbol):
    judge_again_alone(place, symbol)
    found = next(
        each
        for each in (place.explain(name) for name, model in place.models.items() if model[0] == symbol)
        if "promotion" in each and each["promotion"].stored.context["run"] == "run-2"
    )["promotion"]
    assert len(found.stored.context["family"]["from_runs"]) == 1
    assert found.agrees, found.differences


def test_a_member_of_another_run_changed_or_taken_out_shows(place):
    judge_again_alone(place, "EDGE_15")
    name = next(
        name for name, model in place.models.items() if model[2].get("context", {}).get("run") == "run-2"
    )

    def with_a_small_p(line: dict) -> dict:
        for criterion in line["verdict"]["criteria"]:
            if criterion["name"] == "p_no_edge":
                criterion["value"] = 1e-6
        return line

    wanted = {"kind": "verdict", "purpose": "promotion", "symbol": "NONE_15"}
    place.change_ledger(with_a_small_p, **wanted)
    assert any(
        each.startswith("context.family.p.1: stored") for each in place.explain(name)["promotion"].differences
    )
    place.change_ledger(lambda line: None, **wanted)
    assert "the ledger holds no promotion verdict on NONE_15 of run run-1" in (
        place.explain(name)["promotion"].differences
    )


def test_a_promotion_that_was_never_settled_agrees_and_says_so(place):
    place.change_ledger(lambda line: None, kind="settlement", symbol="EDGE_15")
    found = place.explain("EDGE_15_ppo_stage1.pth")["promotion"]
    assert found.agrees
    assert "Not settled" in found.notes[0]


# --- what was changed -------------------------------------------------------------------------------------------------


def flipped(path: Path) -> None:
    """Change one digit of an equity in the middle of a log."""
    rows = gzip.decompress(path.read_bytes()).decode().splitlines()
    middle = next(row for row in range(len(rows) // 2, len(rows)) if not rows[row].startswith(","))
    fields = rows[middle].split(",")
    digit = fields[2][-1]
    fields[2] = fields[2][:-1] + ("1" if digit != "1" else "2")
    rows[middle] = ",".join(fields)
    path.write_bytes(gzip.compress(("\n".join(rows) + "\n").encode(), mtime=0))


@pytest.mark.parametrize("purpose", ["progress", "adaptation", "promotion"])
def test_a_changed_digit_in_a_log_shows(place, purpose):
    name = "EDGE_15_maml_stage3_final.pth" if purpose == "adaptation" else "EDGE_15_ppo_stage1.pth"
    before = place.explain(name)[purpose]
    assert before.agrees
    flipped(place.root / "reports" / before.evidence[0])
    found = place.explain(name)[purpose]
    assert not found.agrees
    assert "was changed: its SHA-256 is" in found.differences[0]


def test_a_changed_price_whose_hash_was_changed_too_shows_in_the_figures(place):
    """Whoever alters the log and its hash in the ledger still has the verdict against them."""
    path = place.evidence("promotion")
    text = gzip.decompress(path.read_bytes()).decode()
    rows = text.splitlines()
    bars = [place for place, row in enumerate(rows) if not row.startswith(",")]
    for row in bars[len(bars) // 2 :]:
        fields = rows[row].split(",")
        # Buy-and-hold, lowered for half of the window: nothing in the log itself contradicts it.
        fields[3] = repr(0.9 * float(fields[3]))
        rows[row] = ",".join(fields)
    path.write_bytes(gzip.compress(("\n".join(rows) + "\n").encode()))

    def name_the_new_hash(line: dict) -> dict:
        line["evidence"]["actions"]["sha256"] = sha256_of(path)
        return line

    place.change_ledger(name_the_new_hash, kind="verdict", purpose="promotion", symbol="EDGE_15")
    found = place.explain()["promotion"]
    assert any(each.startswith("criteria.intercept.value: stored") for each in found.differences)


def test_a_missing_log_is_no_agreement(place):
    place.evidence("promotion").unlink()
    found = place.explain()["promotion"]
    assert found.recomputed is None
    assert not found.agrees
    assert found.differences[0].endswith("is missing")


EVERY = slice(None)
"""A single window may be one of those the interquartile mean leaves out."""


@pytest.mark.parametrize(
    ("changed", "shows"),
    [
        (("parent", 3), "criteria.over_stage_2.value"),
        (("parent", EVERY), "criteria.over_stage_2_iqm.value"),
        (("fine_tuned", 3), "criteria.over_fine_tune.value"),
        (("adapted", 3, 0), "criteria.over_unadapted.value"),
        (("adapted", 3, 1), "criteria.steadiness.value"),
        (("adapted", 3, 3), "metrics.adaptation_curve.3.mean"),
        (("other_support", 3), "criteria.over_other_support.value"),
        (("random_start", 3), "metrics.comparisons.over_random_start.difference"),
        (("buy_and_hold", 3), "metrics.comparisons.over_buy_and_hold.difference"),
        (("placebo", "adapted", 3), "metrics.placebo.over_stage_2.difference"),
        (("placebo", "unadapted", 3), "metrics.placebo.over_unadapted.difference"),
        (("placebo", "other_support", 3), "metrics.placebo.over_other_support.difference"),
    ],
)
def test_changed_growths_of_query_windows_show(place, changed, shows):
    path = place.evidence("adaptation", ".windows.json")
    content = json.loads(path.read_text())
    inner = content
    for name in changed[:-1]:
        inner = inner[name]
    growths = np.array(inner)
    growths[changed[-1]] += 1e-6
    inner[:] = growths.tolist()
    path.write_text(json.dumps(content))
    found = place.explain("EDGE_15_maml_stage3_final.pth")["adaptation"]
    assert "was changed" in found.differences[0]
    assert any(each.startswith(shows) for each in found.differences), found.differences


def edited(line: dict, *path: str, value) -> dict:
    inner = line
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return line


@pytest.mark.parametrize(
    ("path", "value", "shows"),
    [
        (("verdict", "metrics", "p_no_edge"), 1e-9, "metrics.p_no_edge: stored 1e-09"),
        (("verdict", "trades"), 7, "trades: stored 7"),
        (("verdict", "window", "to"), "2030-01-01T00:00:00Z", "window.to: stored '2030-01-01T00:00:00Z'"),
        (("verdict", "alpha_used"), 0.05, "alpha_used: stored 0.05"),
        (("outcome",), "FAIL", "the ledger's line says FAIL, its verdict PASS"),
        (("verdict", "context", "alpha"), 0.5, "alpha_used: stored 0.025, recomputed 0.25"),
    ],
)
def test_a_changed_figure_in_the_ledger_shows(place, path, value, shows):
    place.change_ledger(
        lambda line: edited(line, *path, value=value), kind="verdict", purpose="promotion", symbol="EDGE_15"
    )
    assert any(each.startswith(shows) for each in place.explain()["promotion"].differences)


def test_a_changed_p_of_another_symbol_shows_in_the_family(place):
    def with_a_small_p(line: dict) -> dict:
        for criterion in line["verdict"]["criteria"]:
            if criterion["name"] == "p_no_edge":
                criterion["value"] = 1e-6
        return line

    place.change_ledger(with_a_small_p, kind="verdict", purpose="promotion", symbol="NONE_15")
    assert any(
        each.startswith("context.family.p.1: stored") for each in place.explain()["promotion"].differences
    )


def test_a_family_member_taken_out_of_the_ledger_shows(place):
    place.change_ledger(lambda line: None, kind="settlement", symbol="NONE_15")
    differences = place.explain()["promotion"].differences
    assert "the ledger holds no promotion verdict on NONE_15 of run run-1" in differences


def test_a_settlement_changed_to_a_pass_shows(place):
    settlement = next(
        line
        for line in place.ledger.entries()
        if line["kind"] == "settlement" and line["symbol"] == "NONE_15"
    )
    name = stage_file("NONE_15", settlement["stage"])
    assert not place.explain(name)["promotion"].stored.passed
    place.change_ledger(
        lambda line: edited(line, "outcome", value="PASS"), kind="settlement", symbol="NONE_15"
    )
    assert "outcome: stored 'PASS', recomputed" in " ".join(place.explain(name)["promotion"].differences)


def test_a_look_that_was_not_counted_shows(place):
    """The number of a look decides its alpha; it is counted anew from the looks before it."""
    look = next(
        line for line in place.ledger.entries() if line["kind"] == "look" and line["purpose"] == "promotion"
    )
    earlier = {**look, "subject": "other weights", "window_hash": "another window"}
    # Without hashes, as an older ledger; with them it could not be read at all.
    lines = [json.dumps(line) for line in [earlier, *place.ledger.entries()]]
    place.ledger.path.write_text("\n".join(lines) + "\n")
    assert any(each == "attempt: stored 1, recomputed 2" for each in place.explain()["promotion"].differences)


def test_a_model_file_with_another_verdict_than_the_ledger_shows(place):
    symbol, weights, verdict = place.models["EDGE_15_final_model.pth"]
    place.models["altered"] = (symbol, weights, {**verdict, "outcome": "PASS", "trades": 10_000})
    differences = place.explain("altered")["promotion"].differences
    assert any(
        each.startswith("the model's file and the ledger differ: trades: stored 10000")
        for each in differences
    )


def test_a_model_nobody_judged_is_said_to_be_unknown(place):
    with pytest.raises(DataError, match="holds no verdict on this model of EDGE_15"):
        explained(place.ledger, "EDGE_15", "0" * 64)


def test_a_verdict_of_an_older_version_cannot_be_explained(place):
    def old(line: dict) -> dict:
        return {name: value for name, value in line.items() if name not in ("verdict", "evidence")}

    place.change_ledger(old, kind="verdict")
    with pytest.raises(DataError, match="by a version that did not write whole verdicts"):
        place.explain()


def test_a_verdict_with_an_unknown_field_is_refused(place):
    place.change_ledger(lambda line: edited(line, "verdict", "luck", value=1), kind="verdict")
    with pytest.raises(DataError, match="is not one of this version"):
        place.explain()


def test_the_text_of_a_verdict_as_stored_is_that_of_the_model(place):
    final = Verdict.from_dict(place.models["EDGE_15_final_model.pth"][2])
    assert place.explain()["promotion"].stored.lines() == final.lines()


# --- a ledger that was edited by hand ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "path", "value", "says"),
    [
        ("verdict", ("evidence",), {"actions": "x"}, "evidence .* actions: .* found 'x'"),
        ("verdict", ("evidence",), "x", "evidence .* found 'x'"),
        ("verdict", ("evidence", "actions"), {"file": "a"}, "evidence .* actions.sha256: Field required"),
        ("verdict", ("verdict", "criteria"), "x", "is not one of this version"),
        ("verdict", ("verdict", "trades"), "many", "trades: .* found 'many'"),
        ("verdict", ("verdict", "context", "null_bank"), "x", "null_bank: .* found 'x'"),
        ("settlement", ("family",), None, "settlement .* family: .* found None"),
        ("settlement", ("family", "symbols"), "x", "settlement .* family.symbols: .* found 'x'"),
        ("settlement", ("reasons",), 7, "settlement .* reasons: .* found 7"),
    ],
)
def test_an_edited_line_is_refused_with_what_is_wrong_in_it(place, kind, path, value, says):
    place.change_ledger(
        lambda line: edited(line, *path, value=value), kind=kind, purpose="promotion", symbol="EDGE_15"
    )
    with pytest.raises(DataError, match=says):
        place.explain()


@pytest.mark.parametrize("name", ["family", "outcome", "reasons", "sessions_needed"])
def test_a_settlement_that_lacks_something_is_refused(place, name):
    def without(line: dict) -> dict:
        del line[name]
        return line

    place.change_ledger(without, kind="settlement", symbol="EDGE_15")
    with pytest.raises(DataError, match=f"settlement .* {name}: Field required"):
        place.explain()


def places_in(value, at: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(found for key, each in inner for found in places_in(each, (*at, key)))]


def test_whatever_is_edited_is_told_and_never_a_fault_of_the_program(place):
    """Any place of the two lines, replaced by something of another kind or taken out."""
    original = place.ledger.path.read_text()
    rng = np.random.default_rng(1)
    told = 0
    for kind, symbol in (("verdict", "EDGE_15"), ("settlement", "EDGE_15"), ("verdict", "NONE_15")):
        wanted = {"kind": kind, "symbol": symbol, "purpose": "promotion"}
        line = next(
            each
            for each in place.ledger.entries()
            if all(each.get(name) == value for name, value in wanted.items())
        )
        every = [at for at in places_in(line) if at and at[0] not in LEDGERS_OWN]
        for at in [every[chosen] for chosen in rng.permutation(len(every))[:50]]:
            value = ["x", None, 7, [], {}, [None], {"x": None}][rng.integers(7)]
            place.change_ledger(lambda line, at=at, value=value: edited(line, *at, value=value), **wanted)
            try:
                for found in place.explain().values():
                    told += not found.agrees
                    explanation_lines(found)
            except DataError:
                told += 1
            place.ledger.path.write_text(original)
    assert told > 60


LEDGERS_OWN = ("kind", "symbol", "purpose", "window_hash", "attempt")
"""What every line needs to be one at all; reading the ledger refuses it without."""
