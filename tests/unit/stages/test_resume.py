"""A sequence killed anywhere and gone on with comes to the models, verdicts, looks and figures of one that was not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from rl.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from rl.checkpoints.state_files import StateFiles
from rl.common.atomic_files import sha256_of
from rl.common.errors import CheckpointError
from rl.reporting.training_report import write_training_report
from rl.stages.evidence import EvidenceLedger
from rl.stages.model_files import RETIRED
from rl.stages.outcomes import SymbolOutcome
from rl.stages.plan import STAGES, Plan
from rl.stages.promotion import settle_promotions
from rl.stages.run_state import SymbolJournal
from rl.stages.sequence import run_sequence
from rl.stages.stage_model import STAGE_TITLES
from rl.stages.symbol_data import SymbolData
from tests.integration.comparing import CLOCK, without
from tests.unit.stages.small_symbol import small_plan, small_symbol
from tests.unit.stages.test_sequence import Notebook

PLAN = small_plan(
    # Stage 1 is extended once, stage 2 begun again and extended twice, stage 3 extended once and searched.
    "evidence.min_sessions=3",
    "evidence.min_trades=10",
    "progression_rules.advancement_criteria.stage_1_to_2.min_episodes=5",
    "progression_rules.advancement_criteria.stage_2_to_3.min_episodes=7",
    "training_sequence.stage_3_maml.success_criteria.max_drawdown=0.000001",
    "progression_rules.fallback_strategies.extend_training=true",
    "progression_rules.fallback_strategies.max_extension_episodes=3",
    "progression_rules.fallback_strategies.max_extension_iterations=2",
    "progression_rules.fallback_strategies.hyperparameter_tuning=true",
    "progression_rules.fallback_strategies.search.learning_rate=null",
    "progression_rules.fallback_strategies.search.meta_learning_rate=[0.001, 0.05]",
    "progression_rules.fallback_strategies.search.inner_step_size=[0.1]",
    "training_sequence.stage_3_maml.meta_iterations=3",
    "training_params.maml.meta_batch_size=2",
    "training_params.moe.dense_control=true",
    "training_params.moe.fresh_start_if_collapsed=true",
    "model_management.keep_best_models=true",
    "monitoring.checkpoint_frequency=1",
)


class KilledError(BaseException):
    """What happens to a process that is killed, as far as it can be done within one."""


@dataclass
class Place:
    """Where one sequence is run, as often as it takes."""

    root: Path
    data: SymbolData
    plan: Plan

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def journal(self) -> Path:
        return self.root / "state"

    def run(self, heard: Notebook | None = None) -> SymbolOutcome:
        """Run or go on with the sequence, settle its promotion and write its report."""
        heard = heard or Notebook()
        ledger = EvidenceLedger(self.root / "evidence_ledger.jsonl")
        shared: dict[str, Any] = {"ledger": ledger, "listener": heard, "run_name": "run-1"}
        journal = SymbolJournal(self.journal)
        found = run_sequence(
            self.data, self.plan, stages=STAGES, models_dir=self.models, journal=journal, **shared
        )
        (found,) = settle_promotions([found], self.plan, models_dir=self.models, first_stage="ppo", **shared)
        write_training_report([found], self.plan, self.root)
        return found

    def traces(self) -> dict[str, Any]:
        """Return everything the run leaves behind, without what a clock decides."""
        lines = (self.root / "evidence_ledger.jsonl").read_text().splitlines()
        report = (self.root / "training_report.json").read_text().replace(str(self.root), "")
        text = (self.root / "training_report.txt").read_text().replace(str(self.root), "")
        evidence = sorted(path for path in (self.root / "evidence").rglob("*") if path.is_file())
        return {
            # A list: a second dated copy of the same model would be one too many.
            "models": [
                (_DATE.sub("", str(path.relative_to(self.root))), sha256_of(path))
                for path in sorted(self.models.rglob("*.pth*"))
            ],
            "ledger": [without(json.loads(line), CLOCK) for line in lines],
            "evidence": {str(path.relative_to(self.root)): sha256_of(path) for path in evidence},
            "report": without(json.loads(report), CLOCK),
            "text": _SECONDS.sub("", text),
        }


_DATE = re.compile(r"\d{8}T\d{6}Z")
_SECONDS = re.compile(r"[\d.]+ s\b( \([\d.]+ s CPU\))?")


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return small_symbol(PLAN, sessions=40)


@pytest.fixture(scope="module", autouse=True)
def _saves_of_stage_3_are_as_near_as_those_of_the_others() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rl.stages.maml_stage.ITERATIONS_BETWEEN_SAVES", 1)
        # A look after every iteration, so that there is a best so far to lose between two of them.
        patch.setattr("rl.stages.meta_selection.FEWEST_BETWEEN", 1)
        yield


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Place:
    """A sequence nobody interrupted."""
    place = Place(tmp_path_factory.mktemp("whole"), data, PLAN)
    outcome = place.run()
    assert [len(stage.attempts) for stage in outcome.stages] == [2, 4, 3]
    assert outcome.stages[1].control is not None
    chosen = outcome.stages[2].model.metrics
    assert len(chosen["meta_validation_curve"]) > 3
    # Else the best so far and the last one could not be told apart.
    assert chosen["best_iteration"] < chosen["meta_validation_curve"][-1]["iteration"]
    # Three stages, and dated copies of those that passed.
    passed = sum(stage.verdict.passed for stage in outcome.stages)
    assert passed > 0
    assert len(list(place.models.glob("*.pth"))) == 3 + passed
    return place


def run_to_the_end(place: Place) -> int:
    """Go on with a sequence until it ends; return how often it was killed."""
    for kills in range(500):
        try:
            place.run()
        except KilledError:
            continue
        return kills
    raise AssertionError("a sequence that is gone on with gets nowhere")


def test_killed_after_every_single_save_it_comes_to_the_same_files_looks_and_report(
    whole, data, tmp_path, monkeypatch
):
    saved = StateFiles.commit

    def then_killed(self: StateFiles, *arguments: Any, **options: Any) -> int:
        saved(self, *arguments, **options)
        raise KilledError

    place = Place(tmp_path, data, PLAN)
    monkeypatch.setattr(StateFiles, "commit", then_killed)
    # One for every attempt's checks, ends and verdicts, the stages, the control and the promotion.
    assert run_to_the_end(place) > 30
    assert place.traces() == whole.traces()


def test_killed_between_any_two_files_it_comes_to_the_same_files_looks_and_report(
    whole, data, tmp_path, monkeypatch
):
    """Models, sidecars, evidence and state alike: the file that was to be written next is not."""
    renamed, left = Path.replace, [0]

    def killed_at_one(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] == 0:
            raise KilledError
        return renamed(self, target)

    place = Place(tmp_path, data, PLAN)
    monkeypatch.setattr(Path, "replace", killed_at_one)
    kills = 0
    # At least one save of two files comes through each time, so that every start gets a little further.
    for left[0] in cycle(range(4, 10)):
        try:
            place.run()
        except KilledError:
            kills += 1
            continue
        break
    assert kills > 15
    assert place.traces() == whole.traces()


def test_killed_between_looking_and_deciding_it_is_one_look(whole, data, tmp_path, monkeypatch):
    place = Place(tmp_path, data, PLAN)
    for method in ("record", "conclude", "settle"):
        real = getattr(EvidenceLedger, method)
        with monkeypatch.context() as patch:

            def then_killed(self: EvidenceLedger, *words: Any, real=real, **fields: Any) -> Any:
                real(self, *words, **fields)
                raise KilledError

            patch.setattr(EvidenceLedger, method, then_killed)
            for _ in range(2):
                with pytest.raises(KilledError):
                    place.run()
            patch.undo()
    place.run()
    assert place.traces() == whole.traces()


def test_a_finished_stage_is_not_trained_again_and_a_finished_symbol_not_even_read(whole, data, tmp_path):
    place = Place(tmp_path / "copy", data, PLAN)
    shutil.copytree(whole.root, place.root)
    heard = Notebook()
    outcome = place.run(heard)
    assert (heard.started, heard.judged_, heard.updates) == ([], [], 0)
    assert [text for text in heard.texts if "was finished before" in text] == [
        f"{STAGE_TITLES[stage.stage]} was finished before: {stage.verdict.outcome}; its file is verified"
        for stage in outcome.stages
    ]
    assert place.traces() == whole.traces()


def test_a_finished_stage_whose_file_is_lost_or_damaged_is_written_again_from_the_journal(
    whole, data, tmp_path
):
    place = Place(tmp_path / "copy", data, PLAN)
    shutil.copytree(whole.root, place.root)
    lost, damaged = (place.models / f"EDGE_15_{name}.pth" for name in ("ppo_stage1", "moe_stage2"))
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-100])
    heard = Notebook()
    place.run(heard)
    said = [text for text in heard.texts if text.startswith("written again from the run's state")]
    assert len(said) == 2
    assert str(lost) in said[0]
    assert "truncated" in said[1]
    # What lay there is kept aside, for whoever wants to know what became of it.
    shutil.rmtree(place.models / RETIRED)
    assert place.traces() == whole.traces()


def test_a_finished_stage_whose_file_holds_another_model_is_refused(whole, data, tmp_path):
    place = Place(tmp_path / "copy", data, PLAN)
    shutil.copytree(whole.root, place.root)
    path = place.models / "EDGE_15_ppo_stage1.pth"
    ours = load_checkpoint(path)
    save_checkpoint(path, replace(ours, weights=ours.weights + 1))
    with pytest.raises(CheckpointError, match=r"is not the model that run run-1 wrote after stage 1 "):
        place.run()


@pytest.mark.parametrize("part", ["manifest", "training", "attempt"])
def test_damage_to_the_newest_state_is_said_and_the_one_before_it_gone_on_with(
    whole, data, tmp_path, monkeypatch, part
):
    place, saved = Place(tmp_path, data, PLAN), StateFiles.commit

    def killed_in_the_extension(self: StateFiles, changed: dict[str, Any], **options: Any) -> int:
        number = saved(self, changed, **options)
        if changed.get("training-ppo-planned", {}).get("attempt") == 1:
            raise KilledError
        return number

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(StateFiles, "commit", killed_in_the_extension)
        place.run()
    newest = max(place.journal.glob(f"{part}*"))
    data_ = bytearray(newest.read_bytes())
    data_[len(data_) // 2] ^= 1
    newest.write_bytes(bytes(data_))
    heard = Notebook()
    place.run(heard)
    assert "is damaged and not used" in heard.texts[0]
    # The attempt is in both generations: then all of the symbol is done again.
    assert any("going on from the state saved before" in text for text in heard.texts) is (part != "attempt")
    assert place.traces() == whole.traces()


def test_the_seconds_of_a_killed_process_count(whole):
    report = json.loads((whole.root / "training_report.json").read_text())["symbols"]["EDGE_15"]
    stages = [stage["wall_seconds"] for stage in report["stages"].values()]
    assert all(seconds > 0 for seconds in stages)
    assert report["seconds"] > sum(stages)
