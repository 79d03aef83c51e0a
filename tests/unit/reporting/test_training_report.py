"""What a training report says of each symbol, from outcomes made by the stages themselves."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rl.reporting.html.training_page import training_page
from rl.reporting.training_report import (
    promotion_table,
    rolled_back_warnings,
    summary_table,
    write_training_report,
)
from rl.stages.evidence import EvidenceLedger
from rl.stages.mixture_control import Difference
from rl.stages.null_bank import refuse_if_nulls_pass
from rl.stages.outcomes import StageOutcome, SymbolOutcome
from rl.stages.plan import STAGES
from rl.stages.promotion import settle_promotions
from rl.stages.sequence import run_sequence
from rl.stages.symbol_data import SymbolData
from tests.page_reading import disagreement, read_page
from tests.unit.stages.small_symbol import small_plan, small_symbol

PLAN = small_plan("evidence.min_sessions=1000", "training_params.moe.dense_control=true")


class Nobody:
    """A listener that does not listen."""

    def stage_started(
        self, symbol: str, stage: str, total: int, unit: str, why: str, attempt: int = 1
    ) -> None:
        """Do nothing."""

    def progressed(self, symbol: str, stage: str, figures: dict[str, Any]) -> None:
        """Do nothing."""

    def judged(
        self,
        symbol: str,
        stage: str,
        verdict: Any,
        seconds: float,
        cpu_seconds: float,
        attempts: int = 1,
    ) -> None:
        """Do nothing."""

    def said(self, symbol: str, text: str) -> None:
        """Do nothing."""


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return small_symbol(PLAN, sessions=80)


@pytest.fixture(scope="module")
def outcome(data, tmp_path_factory) -> SymbolOutcome:
    folder = tmp_path_factory.mktemp("run")
    shared = {
        "models_dir": folder / "models",
        "ledger": EvidenceLedger(folder / "ledger.jsonl"),
        "listener": Nobody(),
        "run_name": "run-1",
    }
    trained = run_sequence(data, PLAN, stages=STAGES, **shared)
    (settled,) = settle_promotions([trained], PLAN, first_stage="ppo", **shared)
    return settled


def written(folder: Path, *outcomes: SymbolOutcome, plan=PLAN) -> tuple[str, dict[str, Any]]:
    text, data = write_training_report(outcomes, plan, folder)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return text.read_text(), json.loads(data.read_text(), parse_constant=refuse)


def test_every_stage_is_described_with_its_gate_in_text_and_json(outcome, tmp_path):
    text, found = written(tmp_path, outcome)
    symbol = found["symbols"]["EDGE_15"]
    assert list(symbol["stages"]) == ["ppo", "moe", "maml"]
    for stage, done in zip(outcome.stages, symbol["stages"].values(), strict=True):
        assert done["verdict"] == json.loads(json.dumps(stage.verdict.to_dict()))
        assert done["episodes"] == stage.model.episodes
        assert stage.verdict.lines()[0] in text
        assert str(stage.file) in text
    assert symbol["champion"] == outcome.champion
    assert found["plan"] == PLAN.as_dict()


def test_what_was_rolled_back_is_a_warning_in_text_page_and_json_and_on_the_console(outcome, tmp_path):
    def with_counts(**counts: int) -> SymbolOutcome:
        def counted(stage: StageOutcome) -> StageOutcome:
            metrics = {**stage.model.metrics, "rolled_back": counts[stage.stage]}
            return replace(stage, model=replace(stage.model, metrics=metrics))

        stages = [counted(stage) for stage in outcome.stages]
        return replace(outcome, stages=tuple(stages))

    sound, sick = with_counts(ppo=0, moe=0, maml=0), with_counts(ppo=2, moe=0, maml=1)
    text, found = written(tmp_path, sick)
    said = " ".join(text.split())
    assert (
        "WARNING: 2 updates rolled back, because a number was not finite: nothing was learned there." in said
    )
    assert "WARNING: 1 iteration rolled back, because" in said
    assert said.count("rolled back, because") == 2
    stages = found["symbols"]["EDGE_15"]["stages"]
    assert {name: stage["rolled_back"] for name, stage in stages.items()} == {"ppo": 2, "moe": 0, "maml": 1}
    page = read_page(training_page(found, "run-1"))
    assert [told for each in page.figures if (told := disagreement(each, found))] == []
    assert "2 updates rolled back, because" in page.text
    assert "1 iteration rolled back, because" in page.text
    first, second = rolled_back_warnings([sound, sick])
    assert first.startswith("EDGE_15, stage 1 (ppo): WARNING: 2 updates")
    assert second.startswith("EDGE_15, stage 3 (maml): WARNING: 1 iteration")
    text, found = written(tmp_path, sound)
    assert "rolled back" not in text + training_page(found, "run-1") + "".join(rolled_back_warnings([sound]))


def test_the_text_warns_that_validation_figures_are_no_estimate(outcome, tmp_path):
    text, _ = written(tmp_path, outcome)
    assert "no estimate of what comes next" in text


def test_gates_that_worthless_trading_passes_are_named_before_any_verdict(outcome, tmp_path):
    calibration = refuse_if_nulls_pass(PLAN)
    text, data = write_training_report([outcome], PLAN, tmp_path, calibration)
    top = text.read_text().split("=" * 100)[0]
    assert all(note in top for note in calibration.notes())
    assert json.loads(data.read_text())["null_bank"] == calibration.to_dict()
    # A report of a run without it, such as one read back, says nothing about it.
    assert written(tmp_path / "plain", outcome)[1]["null_bank"] is None


def test_models_whose_looks_the_ledger_does_not_know_are_named_before_any_verdict(outcome, tmp_path):
    said = "the ledger a.jsonl knows nothing of the looks behind b.pth; counting began anew"
    text, data = write_training_report([outcome], PLAN, tmp_path, forgotten=[said])
    assert said in text.read_text().split("=" * 100)[0]
    assert json.loads(data.read_text())["forgotten_looks"] == [said]


def test_windows_are_listed_with_their_sessions(outcome, data, tmp_path):
    text, found = written(tmp_path, outcome)
    windows = found["symbols"]["EDGE_15"]["windows"]
    assert windows["train"]["sessions"] == 48
    assert windows["test"] == {
        "from": data.dates("test")[0],
        "to": data.dates("test")[1],
        "sessions": data.sessions_in("test"),
    }
    assert "48 sessions" in text


def test_nothing_promoted_is_the_headline(outcome, tmp_path):
    text, found = written(tmp_path, outcome)
    assert found["headline"] == "None of 1 symbols has a model that showed an edge on its promotion window."
    assert found["headline"] in text
    assert "Final model: none written" in text


def test_a_promoted_symbol_is_named_in_the_headline(outcome, tmp_path):
    promoted = replace(
        outcome,
        promotion=replace(outcome.promotion, outcome="PASS"),
        final_file=Path("models/EDGE_15_final_model.pth"),
    )
    text, found = written(tmp_path, promoted, replace(outcome, symbol="OTHER_15"))
    assert found["headline"] == "1 of 2 symbols promoted on evidence: EDGE_15."
    assert "Final model: models/EDGE_15_final_model.pth" in text
    assert "PROMOTED" in "\n".join(summary_table([promoted]))


def cells(line: str) -> list[str]:
    return line.split()


def test_every_promotion_stands_with_its_p_what_correcting_made_of_it_and_whether_it_survived(
    outcome, tmp_path
):
    family = {
        "symbols": ["EDGE_15", "OTHER_15"],
        "p": [0.012, 0.6],
        "q": 0.05,
        "corrected_p": 0.012,
        "rank_threshold": 0.025,
        "survived": True,
    }
    verdict = replace(
        outcome.promotion,
        outcome="PASS",
        attempt=2,
        alpha_used=0.05 / 6,
        metrics={**outcome.promotion.metrics, "p_no_edge": 0.002},
        context={**outcome.promotion.context, "family": family},
    )
    promoted = replace(outcome, promotion=verdict, final_file=Path("final.pth"))
    lost = replace(
        outcome,
        symbol="OTHER_15",
        promotion=replace(
            outcome.promotion,
            outcome="INCONCLUSIVE",
            metrics={**outcome.promotion.metrics, "p_no_edge": None},
            context={"family": {**family, "corrected_p": None, "rank_threshold": 0.05, "survived": False}},
        ),
    )
    none = replace(outcome, symbol="THIRD_15", champion=None, promotion=None)
    head, _, *rows = promotion_table([promoted, lost, none])
    assert cells(head) == [
        "promotion", "look", "p", "its", "alpha", "corrected", "p", "needed", "survived", "result",
    ]  # fmt: skip
    assert cells(rows[0]) == [
        "EDGE_15", "2", "0.002", "0.00833", "0.012", "0.025", "yes", "PROMOTED",
    ]  # fmt: skip
    assert cells(rows[1])[2:] == ["-", "0.025", "-", "0.05", "no", "no", "(INCONCLUSIVE)"]
    assert len(rows) == 2
    text, found = written(tmp_path, promoted, lost, none)
    assert rows[0] in text
    assert found["promotions"]["EDGE_15"] == {
        "look": 2,
        "p": 0.002,
        "alpha_used": 0.05 / 6,
        "corrected_p": 0.012,
        "rank_threshold": 0.025,
        "survived": True,
        "outcome": "PASS",
        "settled": True,
    }
    assert list(found["promotions"]) == ["EDGE_15", "OTHER_15"]
    assert promotion_table([none]) == []


def test_a_promotion_whose_file_could_not_be_written_is_not_called_promoted(outcome, tmp_path):
    passed = replace(outcome, promotion=replace(outcome.promotion, outcome="PASS"), final_file=None)
    assert "passed, but not written" in " ".join(" ".join(promotion_table([passed])).split())
    _, found = written(tmp_path, passed)
    assert found["headline"] == (
        "0 of 1 symbols promoted on evidence. Passed, but no final model could be written: EDGE_15."
    )


def test_a_final_model_without_evidence_is_called_unproven(outcome):
    unproven = replace(outcome, final_file=Path("x.pth"))
    assert "written UNPROVEN" in " ".join(" ".join(summary_table([unproven])).split())


def test_the_adaptation_curve_is_shown(outcome, tmp_path):
    text, found = written(tmp_path, outcome)
    assert "net log growth in bp per bar" in text
    assert "plain fine-tuning of it" in text
    assert [
        each["steps"] for each in found["symbols"]["EDGE_15"]["stages"]["maml"]["adaptation"]["curve"]
    ] == [0, 1, 2, 3]


def with_experts(outcome: SymbolOutcome, **changes: Any) -> SymbolOutcome:
    """Return the outcome with another finding about the experts of stage 2, and no stage 3."""
    ppo, moe, _ = outcome.stages
    experts = {**moe.validation["experts"], **changes}
    moe = replace(moe, validation={**moe.validation, "experts": experts})
    return replace(outcome, stages=(ppo, moe))


def test_experts_are_shown_with_what_they_did_and_whether_they_specialise(outcome, tmp_path):
    record = {
        "gate_weight": 0.3125,
        "leads": 0.405,
        "short": 0.25,
        "flat": 0.0,
        "long": 0.75,
        "return_contribution": -0.0123,
        "mean_holding_bars": 7.25,
    }
    idle = {**record, "leads": 0.0, "short": None, "flat": None, "long": None, "mean_holding_bars": None}
    known = with_experts(
        outcome,
        regime_source="x_regime",
        regimes=["x_regime 0", "x_regime 1"],
        regime_bars=[1200, 34],
        experts=[record, idle],
        by_regime=[[record, idle], [idle, record]],
        knock_outs=[{"return_change": 0.0021, "actions_changed": 0.004, "is_dispensable": True}, None],
        assignment={
            **outcome.stages[1].validation["experts"]["assignment"],
            "as_chosen": 0.0512,
            "shifted_mean": -0.0123,
            "shifted_low": -0.034,
            "shifted_high": 0.0067,
            "p": 0.01,
            "shifts": 99,
        },
        information={"nats": 0.1234, "normalised": 0.456, "p": 0.000999, "shifts": 1000},
        use={
            **outcome.stages[1].validation["experts"]["use"],
            "effective_experts": 1.984,
            "gate_entropy": 0.3456,
            "divergence": 0.0789,
            "switching_rate": 0.0314,
        },
        verdict="Experts specialise: so it is.",
    )
    text, found = written(tmp_path, known)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "Experts on validation; regimes: x_regime" in text
    assert "1 0.31 40.5 % 25 % 0 % 75 % -1.23 % 7.2 +0.21 % 0.4 %" in lines
    assert "2 0.31 0.0 % - - - -1.23 % - not in use -" in lines
    assert "x_regime 0 1,200 0.31 40 % 0.31 0 %" in lines
    assert "x_regime 1 34 0.31 0 % 0.31 40 %" in lines
    assert "share 0.123 nats (NMI 0.46, p 0.000999 by 1,000 shifts in time)" in text
    assert "1.98 experts in effect, 0.079 nats apart; entropy of a bar's weights 0.346 nats" in text
    assert "the lead changes on 3.1 % of bars" in text
    words = " ".join(text.split())
    assert (
        "Return +5.12 %; with the gate's choice shifted in time -1.23 % on average, 90 % between -3.40 %"
        in words
    )
    assert "and +0.67 % (p 0.01 by 99 shifts;" in words
    assert "the weights were chosen by their return on this window, which makes that p too small)." in words
    assert "Nothing is lost without expert 1." in text
    assert "Experts specialise: so it is." in text
    shown = found["symbols"]["EDGE_15"]["stages"]["moe"]["validation"]["experts"]
    assert shown["by_regime"] == [[record, idle], [idle, record]]


def test_the_finding_about_the_experts_is_that_of_the_stage(outcome, tmp_path):
    """Four episodes of training are not enough to part the experts, and the report says so."""
    text, found = written(tmp_path, outcome)
    experts = found["symbols"]["EDGE_15"]["stages"]["moe"]["validation"]["experts"]
    assert experts["window"] == "validation"
    assert [len(row) for row in experts["by_regime"]] == [3] * 4
    assert experts["specialises"] is False
    assert experts["verdict"] in " ".join(text.split())
    assert "Experts do not specialise: " in text
    total = sum(record["return_contribution"] for record in experts["experts"])
    assert total == pytest.approx(outcome.stages[1].validation["total_return"], abs=1e-9)


@pytest.mark.parametrize(
    ("replaces", "gate", "sentence"),
    [
        (False, "PASS", "The mixture adds nothing over stage 1 (ppo) that validation can show; the champion stays"),
        (False, "FAIL", "The mixture adds nothing over stage 1 (ppo) that validation can show; the champion stays"),
        (True, "FAIL", "The mixture earned more than stage 1 (ppo), but failed its gate; the champion stays"),
        (True, "PASS", "The mixture earned more than stage 1 (ppo) on validation, beyond chance."),
        (None, "PASS", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("compare", ["true", "false"])
def test_what_the_mixture_adds_to_stage_1_is_said_even_if_it_is_nothing(
    outcome, tmp_path, replaces, gate, sentence, compare
):
    ppo, moe, _ = outcome.stages
    decision = None if replaces is None else replace(moe.champion, replaces=replaces)
    judged = replace(moe, champion=decision, verdict=replace(moe.verdict, outcome=gate), control=None)
    plan = small_plan(f"monitoring.compare_stages={compare}")
    text, _ = written(tmp_path, replace(outcome, stages=(ppo, judged)), plan=plan)
    said = [line.strip() for line in text.splitlines() if line.strip().startswith("The mixture ")]
    assert [line.startswith(sentence) for line in said] == ([] if sentence is None else [True])


def test_the_mixture_stands_beside_one_network_of_its_size(outcome, tmp_path):
    """Else more weights and more training would be taken for what the mixture form earns."""
    ppo, moe, _ = outcome.stages
    assert moe.control is not None
    won = Difference(mean=0.00123, lower=0.0004, upper=0.00206, p_more=0.0123, p_less=0.9877, sessions=18)
    level = replace(won, mean=-0.0001, lower=-0.0009)
    control = replace(
        moe.control,
        hidden=(280, 281),
        parameters=97_321,
        mixture_parameters=97_300,
        episodes=800,
        cpu_seconds=41.23,
        mixture_against_network=won,
        mixture_against_stage_1=level,
        network_against_stage_1=replace(
            won, lower=math.nan, upper=math.nan, p_more=math.nan, p_less=math.nan
        ),
    )
    known = replace(outcome, stages=(ppo, replace(moe, control=control)))
    text, found = written(tmp_path, known)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "One network of as many parameters (280-281: 97,321; the mixture: 97,300)" in text
    assert "for 800 episodes: 41.2 s CPU, not part of the stage's. It is no candidate for champion." in lines
    assert "mixture - network +12.30 +4.00 +20.60 0.0123 0.988" in lines
    assert "mixture - stage 1 -1.00 -9.00 +20.60 0.0123 0.988" in lines
    assert "network - stage 1 +12.30 - - - -" in lines
    assert "From and to: 90 % interval over validation, by which the weights of all were chosen." in " ".join(
        lines
    )
    assert "Each was trained once: another seed may turn it round." in " ".join(lines)
    assert "The mixture form earns something" in text
    shown = found["symbols"]["EDGE_15"]["stages"]["moe"]["dense_control"]
    assert shown["mixture_against_network"]["mean"] == 0.00123
    assert shown["network_against_stage_1"]["lower"] is None
    assert shown["verdict"] == control.verdict()


def test_without_a_control_nothing_is_said_of_one(outcome, tmp_path):
    ppo, moe, _ = outcome.stages
    text, found = written(tmp_path, replace(outcome, stages=(ppo, replace(moe, control=None))))
    assert "One network of as many" not in text
    assert "dense_control" not in found["symbols"]["EDGE_15"]["stages"]["moe"]


@pytest.mark.parametrize(
    ("started_afresh", "setting", "said"),
    [
        (True, "true", "from random weights: those that grew out of stage 1 had not parted."),
        (True, "false", "from random weights, as the plan says (transfer_learning: false)."),
        (False, "true", None),
    ],
)
def test_a_mixture_that_did_not_grow_out_of_stage_1_says_so_and_why(
    outcome, tmp_path, started_afresh, setting, said
):
    ppo, moe, maml = outcome.stages
    started = replace(
        moe, model=replace(moe.model, metrics={**moe.model.metrics, "transfer_learning": not started_afresh})
    )
    plan = small_plan(f"model_management.transfer_learning={setting}")
    text, _ = written(tmp_path, replace(outcome, stages=(ppo, started, maml)), plan=plan)
    assert ("Its experts started" in text) is started_afresh
    assert said is None or said in text


def test_a_symbol_that_stopped_says_where_and_why(outcome, tmp_path):
    stopped = replace(
        outcome,
        stages=outcome.stages[:1],
        stopped="gate after stage 1 (ppo): FAIL (too bad)",
        champion=None,
        promotion=None,
    )
    text, found = written(tmp_path, stopped)
    assert "The sequence stopped here: gate after stage 1 (ppo): FAIL (too bad)" in text
    assert "Champion: none, no stage passed" in text
    assert found["symbols"]["EDGE_15"]["promotion"] is None
    assert "no champion" in "\n".join(summary_table([stopped]))


def test_every_attempt_is_told_with_its_look(outcome, tmp_path):
    first = outcome.stages[0]
    earlier = replace(first.verdict, attempt=7, outcome="FAIL", reasons=("win_rate is 0.1.",))
    tried = replace(outcome, stages=(replace(first, attempts=(earlier, first.verdict)), *outcome.stages[1:]))
    text, found = written(tmp_path, tried)
    assert "another attempt (look 7): FAIL; win_rate is 0.1." in text
    assert "2 attempts" in text
    assert len(found["symbols"]["EDGE_15"]["stages"]["ppo"]["attempts"]) == 2


def test_stages_are_compared_only_where_the_plan_asks_for_it(outcome, tmp_path):
    sentence = outcome.stages[1].champion.text
    assert sentence in written(tmp_path, outcome)[0]
    assert sentence not in written(tmp_path, outcome, plan=small_plan("monitoring.compare_stages=false"))[0]


def test_the_summary_has_a_dash_for_stages_that_were_not_trained(outcome):
    short = replace(outcome, stages=outcome.stages[:1], champion="ppo")
    row = summary_table([short])[2].split()
    assert row[:4] == ["EDGE_15", outcome.stages[0].verdict.outcome, "-", "-"]


def test_a_shortened_verdict_is_explained_below_the_table(outcome):
    unsure = replace(outcome.stages[0], verdict=replace(outcome.stages[0].verdict, outcome="INCONCLUSIVE"))
    short = replace(outcome, stages=(unsure, *outcome.stages[1:]))
    legend = "INCONCL. is INCONCLUSIVE: the evidence decides neither for nor against."
    narrow = summary_table([short], 80)
    assert "INCONCL. " in "\n".join(narrow[:-1])
    assert narrow[-1] == legend
    assert legend not in summary_table([short], 105)
    settled = replace(outcome, stages=(), champion=None, promotion=None)
    assert legend not in summary_table([settled], 80)


def test_made_up_symbols_say_so(outcome):
    assert "(SYNTHETIC)" in "\n".join(summary_table([replace(outcome, symbol="SYN_a_2")]))
