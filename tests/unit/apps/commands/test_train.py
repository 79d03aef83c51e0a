"""Around the sequences: which symbols learn together, and how the run ends."""

from __future__ import annotations

import argparse
import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rl.apps.commands.console import Console
from rl.apps.commands.train import _comparable, _exit_code, _forgotten, _held_out, _Job, _report, _settled
from rl.common.errors import ConfigError, DataError, StagegateError
from rl.common.runlog import RunLog
from rl.features.pipeline import FeatureTable
from rl.market.instruments import load_instruments
from rl.stages.evidence import EvidenceLedger
from rl.stages.null_bank import Calibration, refuse_if_nulls_pass
from rl.stages.outcomes import SymbolOutcome
from rl.stages.symbol_data import SymbolData
from tests.unit.stages.promotions import judged_outcome, promotion_of
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


# --- a ledger that cannot be written to when all is trained -----------------------------------------------------------


def a_job(data: SymbolData, root: Path) -> _Job:
    return _Job(
        symbol=data.symbol,
        others=(),
        held_out=None,
        plan=PLAN,
        book=load_instruments(),
        raw={},
        processed_dir=root / "processed",
        models_dir=root / "models",
        ledger=root / "evidence_ledger.jsonl",
        run_name="run-1",
        stages=("ppo",),
        state=root / "state" / data.symbol,
        log=root / "events.jsonl",
        as_json=False,
        quiet=False,
        bars=False,
    )


def damaged(job: _Job, _: pytest.MonkeyPatch) -> None:
    lines = job.ledger.read_text().splitlines()
    job.ledger.write_text("\n".join(["not a line}", *lines]) + "\n")


def full(_: _Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(EvidenceLedger, "_append", no_room)


@pytest.mark.parametrize(("broken", "code"), [(damaged, 4), (full, 1)])
def test_a_ledger_that_cannot_be_settled_in_costs_the_promotions_and_not_the_report(
    data, tmp_path, monkeypatch, capsys, broken, code
):
    job = a_job(data, tmp_path)
    judged = judged_outcome(data, PLAN, 5.0, models=job.models_dir, ledger=EvidenceLedger(job.ledger))
    judged = replace(judged, stages=())
    broken(job, monkeypatch)
    options = argparse.Namespace(
        raw_data_dir=Path("data/raw"),
        processed_data_dir=Path("data/processed"),
        models_dir=job.models_dir,
        reports_dir=tmp_path,
        instruments=[],
    )
    with RunLog(job.log) as log:
        console = Console(log, as_json=False, quiet=False)
        outcomes = _settled([(job, judged)], console)
        _report(outcomes, PLAN, refuse_if_nulls_pass(PLAN), [], tmp_path, options, console)
    assert list(console.problems) == ["promotions"]
    assert _exit_code(outcomes, console.problems, strict=False) == code
    assert not list(job.models_dir.glob("*_final_model.pth"))
    report = (tmp_path / "training_report.txt").read_text()
    assert "No promotion was settled, and no final model written: EDGE_15" in report
    assert "no (unsettled)" in report
    content = json.loads((tmp_path / "training_report.json").read_text())
    assert content["promotions"]["EDGE_15"]["settled"] is False
    assert content["promotions"]["EDGE_15"]["outcome"] == "INCONCLUSIVE"
    assert "promotions:" in capsys.readouterr().err
    done = [json.loads(line) for line in job.log.read_text().splitlines()][-1]
    assert (done["event"], done["promoted"], done["settled"]) == ("symbol_done", False, False)
    # What the symbol was judged on its own, a PASS, is no decision.
    assert judged.promotion.outcome == "PASS"
    assert done["promotion"] is None


def test_a_model_whose_looks_another_ledger_counted_is_named_on_the_console(data, tmp_path, capsys):
    job = a_job(data, tmp_path)
    judged = judged_outcome(data, PLAN, 5.0, models=job.models_dir, ledger=EvidenceLedger(job.ledger))
    with RunLog(job.log) as log:
        console = Console(log, as_json=False, quiet=True)
        _settled([(job, judged)], console)
        here, elsewhere = (
            argparse.Namespace(models_dir=job.models_dir, reports_dir=folder)
            for folder in (tmp_path, tmp_path / "other")
        )
        capsys.readouterr()
        # The stage file of this fixture carries a made-up verdict that no ledger has.
        (job.models_dir / "EDGE_15_ppo_stage1.pth").unlink()
        assert _forgotten([data.symbol], here, console) == []
        (said,) = _forgotten([data.symbol], elsewhere, console)
    final = job.models_dir / "EDGE_15_final_model.pth"
    assert said.endswith(f"knows nothing of the looks behind {final}; counting began anew")
    assert capsys.readouterr().err == f"warning: {said}\n"
    assert console.problems == {}


# --- what is said of each symbol in the end -------------------------------------------------------------------------


@pytest.mark.parametrize("t", [5.0, 0.5, -5.0])
def test_a_promotion_that_was_not_settled_is_no_promotion_whatever_it_was_alone(t, tmp_path):
    done = said_of(an_outcome(promotion=promotion_of("A", t)), tmp_path)
    assert (done["promotion"], done["settled"], done["promoted"]) == (None, False, False)


@pytest.mark.parametrize(
    ("t", "file", "said"),
    [
        (5.0, Path("models/A_final_model.pth"), ("PASS", True, "models/A_final_model.pth")),
        # Passed, but the disk was full: there is no model that could be used.
        (5.0, None, ("PASS", False, None)),
        # promotion: best_validation writes a champion without evidence too.
        (0.5, Path("models/A_final_model.pth"), ("INCONCLUSIVE", False, "models/A_final_model.pth")),
    ],
)
def test_a_symbol_is_said_to_be_promoted_where_its_final_model_was_written(t, file, said, tmp_path):
    settled = promotion_of("A", t, context={"family": {"symbols": ["A"]}})
    done = said_of(an_outcome(promotion=settled, final_file=file), tmp_path)
    assert (done["promotion"], done["promoted"], done["final_model"]) == said
    assert done["settled"] is True


def said_of(outcome: SymbolOutcome, tmp_path: Path) -> dict[str, Any]:
    """Return the run log's last event on a symbol."""
    options = argparse.Namespace(
        raw_data_dir=tmp_path, processed_data_dir=tmp_path, models_dir=tmp_path, reports_dir=tmp_path,
        instruments=[],
    )  # fmt: skip
    plan = small_plan("monitoring.generate_reports=false")
    with RunLog(tmp_path / "events.jsonl") as log:
        console = Console(log, as_json=False, quiet=True)
        _report([outcome], plan, Calibration(passes=()), [], tmp_path, options, console)
    *_, done = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert done["event"] == "symbol_done"
    return done
