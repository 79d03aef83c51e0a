"""The sequence of one symbol: what each verdict leads to, who becomes champion, what is promoted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rl.checkpoints.checkpoint import load_checkpoint
from rl.checkpoints.registry import best_available
from rl.common.errors import CheckpointError, ConfigError, UsageError
from rl.features.scaler import FeatureScaler
from rl.policies.actor_critic import build_policy
from rl.policies.mixture import warm_start_mixture
from rl.stages import mixture_control
from rl.stages.evaluation import packed, replay_on, returns_by_session
from rl.stages.evidence import EvidenceLedger
from rl.stages.gates import Verdict
from rl.stages.maml_stage import MetaTraining
from rl.stages.model_files import RETIRED, checkpoint_of, write_model
from rl.stages.outcomes import SymbolOutcome
from rl.stages.plan import STAGES, Plan
from rl.stages.promotion import settle_promotions
from rl.stages.sequence import check_learners, run_sequence
from rl.stages.stage_model import StageModel
from rl.stages.symbol_data import SymbolData
from tests.unit.stages.small_symbol import edge_model, mlp_spec, small_plan, small_symbol, symbol_of

PASSES = (
    "training_sequence.stage_1_ppo.success_criteria.min_win_rate=0.0",
    "training_sequence.stage_1_ppo.success_criteria.min_profit_factor=0.0",
    "training_sequence.stage_1_ppo.success_criteria.max_drawdown=1.0",
    "training_sequence.stage_2_moe.success_criteria.min_win_rate=0.0",
    "training_sequence.stage_2_moe.success_criteria.min_profit_factor=0.0",
    "training_sequence.stage_2_moe.success_criteria.max_drawdown=1.0",
    "progression_rules.advancement_criteria.stage_1_to_2.min_win_rate=null",
    "progression_rules.advancement_criteria.stage_1_to_2.min_profit_factor=null",
    "progression_rules.advancement_criteria.stage_2_to_3.min_win_rate=null",
    "progression_rules.advancement_criteria.stage_2_to_3.min_profit_factor=null",
)
"""Criteria anything that trades meets."""

FAILS = ("training_sequence.stage_1_ppo.success_criteria.min_win_rate=1.0",)
TOO_LITTLE_DATA = ("evidence.min_trades=1000000",)
EXTENDS = (
    "progression_rules.fallback_strategies.extend_training=true",
    "progression_rules.fallback_strategies.max_extension_episodes=4",
)
SEARCHES = (
    "progression_rules.fallback_strategies.hyperparameter_tuning=true",
    "progression_rules.fallback_strategies.search.learning_rate=[0.0002, 0.001]",
)


@dataclass
class Notebook:
    """A listener that notes everything down."""

    started: list[tuple[str, str, int]] = field(default_factory=list)
    judged_: list[tuple[str, str]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    updates: int = 0
    meta_updates: list[dict[str, Any]] = field(default_factory=list)
    watched: Path | None = None
    seen: list[str] = field(default_factory=list)
    """Names of the model files there were while a stage was in training."""

    def stage_started(
        self, symbol: str, stage: str, total: int, unit: str, why: str, attempt: int = 1
    ) -> None:
        self.started.append((stage, why, total))

    def progressed(self, symbol: str, stage: str, figures: dict[str, Any]) -> None:
        self.updates += 1
        if stage == "maml":
            self.meta_updates.append(figures)
        if self.watched is not None:
            self.seen += [str(path.relative_to(self.watched)) for path in self.watched.rglob("*.pth")]

    def judged(
        self,
        symbol: str,
        stage: str,
        verdict: Verdict,
        seconds: float,
        cpu_seconds: float,
        attempts: int = 1,
    ) -> None:
        self.judged_.append((stage, verdict.outcome))

    def said(self, symbol: str, text: str) -> None:
        self.texts.append(text)


class Prepared:
    """A stage's training whose result is known beforehand: hands out a model and counts episodes.

    Going on changes weights by a hair, as training does; the same weights again would not be another attempt.
    """

    def __init__(self, model: StageModel, calls: int = 0) -> None:
        self._model = replace(model, episodes=0)
        self._calls = calls

    def train(
        self,
        episodes: int,
        report: Callable[[dict[str, Any]], None],
        on_better: Callable[[StageModel], None],
        keep: Callable[[dict[str, Any]], None],
    ) -> StageModel:
        weights = self._model.weights.copy()
        # The last number is the critic's: it decides nothing.
        weights[-1] += 1e-3 * self._calls
        self._calls += 1
        self._model = replace(self._model, episodes=self._model.episodes + episodes, weights=weights)
        on_better(self._model)
        report({"episodes_this_call": episodes})
        keep(self.state())
        return self._model

    def state(self) -> dict[str, Any]:
        return {}


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return small_symbol(small_plan(), sessions=120)


@dataclass
class Run:
    """One sequence and where it left its traces."""

    outcome: SymbolOutcome
    models: Path
    ledger: EvidenceLedger
    heard: Notebook

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.models.glob("*.pth"))


@pytest.fixture
def run(data, tmp_path, monkeypatch) -> Callable[..., Run]:
    """Return a function that runs the sequence with stages 1 and 2 as prepared, or really trained where None."""

    def go(
        plan: Plan, *, ppo=None, moe=None, stages=("ppo", "moe"), name="run-1", folder="models", **others: Any
    ) -> Run:
        for stage, known in (("ppo", ppo), ("moe", moe)):
            if known is not None:
                # Each training of a search differs from the others as their learning rates do.
                begun = count(0, 10)
                monkeypatch.setattr(
                    f"rl.stages.attempts.{stage}_training",
                    lambda *_, known=known, begun=begun, **__: Prepared(known, next(begun)),
                )
        ledger, heard = EvidenceLedger(tmp_path / "ledger.jsonl"), Notebook(watched=tmp_path / folder)
        outcome = run_sequence(
            others.pop("data", data),
            plan,
            stages=stages,
            models_dir=tmp_path / folder,
            ledger=ledger,
            listener=heard,
            run_name=name,
            **others,
        )
        (outcome,) = settle_promotions(
            [outcome],
            plan,
            models_dir=tmp_path / folder,
            ledger=ledger,
            listener=heard,
            run_name=name,
            first_stage=stages[0],
        )
        return Run(outcome, tmp_path / folder, ledger, heard)

    return go


def model(plan: Plan, follow: float, stage: str = "ppo", episodes: int = 4) -> StageModel:
    return edge_model(plan, follow=follow, stage=stage, episodes=episodes)


# --- what a verdict leads to ----------------------------------------------------------------------------------------


def test_a_fail_stops_the_sequence_and_is_written_into_the_file(run):
    plan = small_plan(*FAILS)
    done = run(plan, ppo=model(plan, -1.0))
    assert [stage.stage for stage in done.outcome.stages] == ["ppo"]
    assert done.outcome.gate_stopped
    assert done.outcome.stopped.startswith("gate after stage 1 (ppo): FAIL (win_rate is ")
    assert done.outcome.champion is None
    assert done.outcome.promotion is None
    assert done.files == ["EDGE_15_ppo_stage1.pth"]
    stored = load_checkpoint(done.models / "EDGE_15_ppo_stage1.pth")
    assert stored.verdict["outcome"] == "FAIL"
    assert best_available(done.models, "EDGE_15").headline.startswith("NO GATE WAS PASSED")


def test_a_failed_stage_leaves_the_promotion_window_unseen(run):
    plan = small_plan(*FAILS)
    done = run(plan, ppo=model(plan, -1.0))
    assert {entry["purpose"] for entry in done.ledger.entries()} == {"progress"}


def test_too_little_data_goes_on_with_the_label_where_the_plan_says_continue(run):
    plan = small_plan(*PASSES, *TOO_LITTLE_DATA, *EXTENDS)
    done = run(plan, ppo=model(plan, 1.0), moe=model(plan, 1.0, "moe"))
    assert [stage.verdict.outcome for stage in done.outcome.stages] == ["INCONCLUSIVE", "INCONCLUSIVE"]
    # Going on is allowed, so nothing is extended.
    assert [len(stage.attempts) for stage in done.outcome.stages] == [1, 1]
    assert not done.outcome.gate_stopped
    for name in done.files:
        assert load_checkpoint(done.models / name).verdict["outcome"] == "INCONCLUSIVE"


def test_too_little_data_extends_and_then_stops_where_the_plan_says_stop(run):
    plan = small_plan(*PASSES, *TOO_LITTLE_DATA, *EXTENDS, "progression_rules.on_inconclusive=stop")
    done = run(plan, ppo=model(plan, 1.0))
    assert [stage.stage for stage in done.outcome.stages] == ["ppo"]
    assert len(done.outcome.stages[0].attempts) == 3
    assert done.outcome.stopped == "gate after stage 1 (ppo): INCONCLUSIVE, and on_inconclusive is stop"


def test_a_pass_goes_on_at_once(run):
    plan = small_plan(*PASSES, *EXTENDS, *SEARCHES)
    done = run(plan, ppo=model(plan, 1.0), moe=model(plan, 1.0, "moe"))
    assert done.heard.judged_ == [("ppo", "PASS"), ("moe", "PASS")]
    assert [why for _, why, _ in done.heard.started] == ["4 episodes", "4 episodes"]
    assert done.outcome.stopped is None


# --- fallbacks ------------------------------------------------------------------------------------------------------


def test_a_missed_gate_is_extended_then_searched_and_every_attempt_is_a_look(run):
    """Five looks at one window for the price of one would find an edge in anything."""
    plan = small_plan(*FAILS, *EXTENDS, *SEARCHES)
    done = run(plan, ppo=model(plan, -1.0))
    assert done.heard.started == [
        ("ppo", "4 episodes", 4),
        ("ppo", "extended by 2 episodes", 2),
        ("ppo", "extended by 2 episodes", 2),
        ("ppo", "search: learning_rate 0.0002", 4),
        ("ppo", "search: learning_rate 0.001", 4),
    ]
    verdicts = sorted(done.outcome.stages[0].attempts, key=lambda verdict: verdict.attempt)
    assert [verdict.attempt for verdict in verdicts] == [1, 2, 3, 4, 5]
    # alpha / (k (k + 1)): 0.05 times 1/2, 1/6, 1/12, 1/20, 1/30.
    assert [verdict.alpha_used for verdict in verdicts] == pytest.approx(
        [0.025, 0.05 / 6, 0.05 / 12, 0.0025, 0.05 / 30]
    )
    looks = [entry for entry in done.ledger.entries() if entry["kind"] == "look"]
    assert [entry["attempt"] for entry in looks] == [1, 2, 3, 4, 5]
    # Told by what they are: their numbers have gaps where a step was not needed, and a reader would miss one.
    told = [text.split(",")[0] for text in done.heard.texts if " attempt " in text]
    assert told[:2] == ["ppo attempt (4 episodes): FAIL", "ppo attempt (extended by 2 episodes): FAIL"]
    assert done.outcome.gate_stopped


def test_an_extension_that_passes_ends_the_attempts(run):
    # Six episodes are asked for: four and the first half of the extension.
    plan = small_plan(
        *PASSES, *EXTENDS, *SEARCHES, "progression_rules.advancement_criteria.stage_1_to_2.min_episodes=6"
    )
    done = run(plan, ppo=model(plan, 1.0), stages=("ppo",))
    (stage,) = done.outcome.stages
    assert [verdict.outcome for verdict in stage.attempts] == ["FAIL", "PASS"]
    assert stage.verdict.attempt == 2
    assert stage.model.episodes == 6
    assert load_checkpoint(stage.file).verdict["attempt"] == 2


def test_the_best_attempt_is_kept_and_named_last(run, data, tmp_path, monkeypatch):
    """All six fail; the search's second candidate did best on validation."""
    plan = small_plan(
        *FAILS,
        *EXTENDS,
        "progression_rules.fallback_strategies.hyperparameter_tuning=true",
        "progression_rules.fallback_strategies.search.learning_rate=[0.0001, 0.0002, 0.001]",
    )
    made = iter([-1.0, -2.0, -0.5, -3.0])
    models = []

    def next_training(*_, **__):
        follow = next(made)
        models.append(
            replace(model(plan, follow), weights=model(plan, follow).weights + np.float32(follow / 100))
        )
        return Prepared(models[-1])

    monkeypatch.setattr("rl.stages.attempts.ppo_training", next_training)
    done = run(plan)
    (stage,) = done.outcome.stages
    assert stage.model.fingerprint() == models[2].fingerprint()
    assert stage.verdict is stage.attempts[-1]
    assert stage.verdict.attempt == 5
    assert [verdict.attempt for verdict in stage.attempts] == [1, 2, 3, 4, 6, 5]


def test_looks_are_counted_across_runs_so_that_trying_again_is_no_fresh_start(run):
    plan = small_plan(*PASSES)
    first = run(plan, ppo=model(plan, 1.0), stages=("ppo",), name="run-1")
    second = run(plan, ppo=model(plan, 0.9), stages=("ppo",), name="run-2", folder="other models")
    assert first.outcome.stages[0].verdict.attempt == 1
    assert second.outcome.stages[0].verdict.attempt == 2
    assert (first.outcome.promotion.attempt, second.outcome.promotion.attempt) == (1, 2)


def test_the_same_model_judged_again_is_no_further_attempt(run):
    plan = small_plan(*PASSES)
    run(plan, ppo=model(plan, 1.0), stages=("ppo",), name="run-1")
    again = run(plan, ppo=model(plan, 1.0), stages=("ppo",), name="run-2")
    assert again.outcome.stages[0].verdict.attempt == 1


def test_where_an_extension_did_better_the_extended_model_is_kept(run, data):
    """Really trained: four episodes are too few to see the edge, the extension finds it, and no one passes."""
    plan = small_plan(
        "training_sequence.stage_1_ppo.success_criteria.max_drawdown=0.000001",
        "progression_rules.fallback_strategies.extend_training=true",
        "progression_rules.fallback_strategies.max_extension_episodes=200",
        "training_params.ppo.learning_rate=0.01",
        "monitoring.checkpoint_frequency=50",
    )
    done = run(plan, stages=("ppo",))
    (stage,) = done.outcome.stages
    curve = stage.model.metrics["validation_curve"]
    best = max(point["mean_session_return"] for point in curve if point["episodes"] > 0)
    assert best > max(point["mean_session_return"] for point in curve if 0 < point["episodes"] <= 4)
    assert stage.validation["mean_session_return"] == best


# --- a mixture that has not become one --------------------------------------------------------------------------------

STARTS_AFRESH = "training_params.moe.fresh_start_if_collapsed=true"


def mixture_of_clones(plan: Plan, follow: float) -> StageModel:
    """Return a mixture whose experts all act as the edge model does, under a gate that has chosen nothing."""
    single = edge_model(plan, follow=follow, stage="moe")
    policy = warm_start_mixture(single.policy(), mixture_spec_for(single), noise=0.001, seed=0)
    return replace(single, policy_spec=dict(policy.spec), weights=policy.flat_parameters().numpy().copy())


def mixture_spec_for(single: StageModel) -> dict[str, Any]:
    spec = single.policy_spec
    return {
        "encoder": "mixture",
        "observations": spec["observations"],
        "actions": spec["actions"],
        "experts": 4,
        "expert_hidden": list(spec["hidden"]),
        "gate_hidden": 4,
        "gate_inputs": [0],
        "temperature": 1.0,
        "value_hidden": list(spec["hidden"]),
    }


def decided_mixture(plan: Plan, follow: float) -> StageModel:
    """Return a mixture whose experts differ, and whose gate chooses one of two pairs by the sign of `x_edge`."""
    clones = mixture_of_clones(plan, follow)
    policy = clones.policy()
    with torch.no_grad():
        weight, bias = policy.actor.gate.layers()[0]
        weight.fill_(1.0)
        bias.zero_()
        weight, _ = policy.actor.gate.layers()[1]
        weight[:] = 9.0 * torch.tensor([1.0, 1.0, -1.0, -1.0])
        # Two experts do the opposite of the other two.
        policy.actor.expert_layers()[-1][0][1::2] *= -1.0
    return replace(clones, weights=policy.flat_parameters().numpy().copy())


@pytest.fixture
def mixtures(run, monkeypatch) -> Callable[..., Run]:
    """Return a function that runs the sequence with a prepared grown mixture and a prepared fresh one."""

    def go(plan: Plan, *, grown: StageModel, fresh: StageModel, **others: Any) -> Run:
        def training(_data, plan, *_, **__) -> Prepared:
            is_grown = plan.model_management.transfer_learning
            chosen = grown if is_grown else fresh
            metrics = {**chosen.metrics, "transfer_learning": is_grown}
            return Prepared(replace(chosen, metrics=metrics))

        monkeypatch.setattr("rl.stages.attempts.moe_training", training)
        return run(plan, ppo=model(plan, 0.5), **others)

    return go


@pytest.mark.parametrize(("grown", "fresh", "kept"), [(-1.0, 1.0, "fresh"), (1.0, -1.0, "grown")])
def test_experts_that_have_not_parted_are_trained_once_more_from_random_weights_and_the_better_is_kept(
    mixtures, grown, fresh, kept
):
    """Copies of a network that has fitted everything have nothing to divide: their gate stays uniform."""
    plan = small_plan(*PASSES, STARTS_AFRESH)
    done = mixtures(plan, grown=mixture_of_clones(plan, grown), fresh=mixture_of_clones(plan, fresh))
    moe = done.outcome.stages[1]
    assert moe.model.metrics["transfer_learning"] is (kept == "grown")
    # Both were looked at, so both count; the fresh one is not tried a third time, though it has not parted either.
    assert sorted(verdict.attempt for verdict in moe.attempts) == [2, 3]
    assert [why for stage, why, _ in done.heard.started if stage == "moe"] == [
        "4 episodes",
        "4 episodes with experts that start afresh",
    ]
    (said,) = [text for text in done.heard.texts if "have not parted" in text]
    assert "uniform gate" in said
    lineage = load_checkpoint(moe.file).lineage
    assert lineage == ([done.outcome.stages[0].model.fingerprint()] if kept == "grown" else [])


def test_experts_that_have_parted_are_not_trained_again(mixtures):
    plan = small_plan(*PASSES, STARTS_AFRESH)
    done = mixtures(plan, grown=decided_mixture(plan, 1.0), fresh=mixture_of_clones(plan, 1.0))
    assert len(done.outcome.stages[1].attempts) == 1


def test_a_plan_may_leave_collapsed_experts_as_they_are(mixtures):
    plan = small_plan(*PASSES)
    done = mixtures(plan, grown=mixture_of_clones(plan, -1.0), fresh=mixture_of_clones(plan, 1.0))
    assert len(done.outcome.stages[1].attempts) == 1


def test_a_fresh_start_comes_before_an_extension_and_may_save_it(mixtures):
    plan = small_plan(
        *PASSES, STARTS_AFRESH, *EXTENDS, "training_sequence.stage_2_moe.success_criteria.min_win_rate=0.5"
    )
    done = mixtures(plan, grown=mixture_of_clones(plan, -1.0), fresh=mixture_of_clones(plan, 1.0))
    moe = done.outcome.stages[1]
    assert [verdict.outcome for verdict in moe.attempts] == ["FAIL", "PASS"]


def test_only_the_planned_mixture_is_begun_again(mixtures):
    """An extension that has not parted either is no reason for a third start, nor for a search where it passed."""
    plan = small_plan(
        *PASSES,
        STARTS_AFRESH,
        *EXTENDS,
        *SEARCHES,
        "training_sequence.stage_2_moe.success_criteria.min_win_rate=0.999",
    )
    done = mixtures(plan, grown=mixture_of_clones(plan, -1.0), fresh=mixture_of_clones(plan, -1.0))
    whys = [why for stage, why, _ in done.heard.started if stage == "moe"]
    assert [why for why in whys if "afresh" in why] == ["4 episodes with experts that start afresh"]
    assert any("extended" in why for why in whys)
    assert any("search" in why for why in whys)
    assert len([text for text in done.heard.texts if "have not parted" in text]) == 1


def test_the_network_beside_a_fresh_mixture_starts_afresh_too(run, monkeypatch):
    """Otherwise the comparison would be one of starts, not of forms."""
    started: list[bool] = []
    original = mixture_control.equal_parameter_training

    def watched(data, plan, parent, *, seed):
        started.append(plan.model_management.transfer_learning)
        return original(data, plan, parent, seed=seed)

    monkeypatch.setattr(mixture_control, "equal_parameter_training", watched)
    plan = small_plan(*PASSES, STARTS_AFRESH, "training_params.moe.dense_control=true")
    moe = run(plan).outcome.stages[1]
    assert len(moe.attempts) == 2
    assert started == [moe.model.metrics["transfer_learning"]]
    afresh = run(
        small_plan(
            *PASSES, "training_params.moe.dense_control=true", "model_management.transfer_learning=false"
        )
    )
    assert afresh.outcome.stages[1].control is not None
    assert started[1:] == [False]


# --- champion -------------------------------------------------------------------------------------------------------


def test_a_later_stage_that_earned_more_beyond_luck_becomes_champion(run):
    plan = small_plan(*PASSES)
    done = run(plan, ppo=model(plan, -1.0), moe=model(plan, 1.0, "moe"))
    assert done.outcome.champion == "moe"
    assert done.outcome.stages[1].champion.replaces


def test_a_later_stage_that_earned_less_does_not_take_over(run):
    plan = small_plan(*PASSES)
    done = run(plan, ppo=model(plan, 1.0), moe=model(plan, -1.0, "moe"))
    assert done.outcome.champion == "ppo"
    assert "stage 1 (ppo) stays" in done.outcome.stages[1].champion.text
    assert any("stage 1 (ppo) stays" in text for text in done.heard.texts)


def test_a_stage_trained_alone_has_to_beat_the_earlier_stages_on_disk_to_be_champion(run):
    """Otherwise `--stages moe` would promote a mixture that lost to the very model it started from."""
    plan = small_plan(*PASSES)
    run(plan, ppo=model(plan, 1.0), stages=("ppo",), name="run-1")
    later = run(plan, moe=model(plan, -1.0, "moe"), stages=("moe",), name="run-2")
    assert later.outcome.champion == "ppo"
    assert "stage 1 (ppo) stays" in later.outcome.stages[0].champion.text


def test_an_equal_later_stage_does_not_take_over(run):
    """Replacing on a tie would let noise decide, and prefer the more complicated model."""
    plan = small_plan(*PASSES)
    done = run(plan, ppo=model(plan, 1.0), moe=model(plan, 1.0, "moe"))
    assert done.outcome.champion == "ppo"


def test_a_stage_that_failed_its_gate_is_no_champion_however_much_it_earned(run):
    plan = small_plan(*PASSES, "training_sequence.stage_2_moe.success_criteria.min_win_rate=1.0")
    done = run(plan, ppo=model(plan, -1.0), moe=model(plan, 1.0, "moe"))
    assert done.outcome.stages[1].verdict.outcome == "FAIL"
    assert done.outcome.stages[1].champion.replaces
    assert done.outcome.champion == "ppo"
    assert done.outcome.promotion is not None


def test_one_network_of_the_mixtures_size_is_compared_and_decides_nothing(run, tmp_path):
    """It is no candidate: no file, no verdict, no look, no word in who is champion; its seconds stand apart."""
    control = "training_params.moe.dense_control"
    with_it = run(small_plan(*PASSES, f"{control}=true"))
    looks = [entry for entry in with_it.ledger.entries() if entry["kind"] == "look"]
    assert [entry["purpose"] for entry in looks].count("progress") == 2
    without = run(small_plan(*PASSES, f"{control}=false"), folder="without")
    (_, moe), (_, same) = with_it.outcome.stages, without.outcome.stages
    assert same.control is None
    assert moe.control is not None
    assert moe.control.episodes == moe.model.episodes == 4
    assert moe.control.mixture_against_stage_1 is not None
    assert moe.control.mixture_against_stage_1.mean == pytest.approx(moe.champion.mean_difference)
    assert moe.control.cpu_seconds > 0
    assert with_it.files == without.files
    assert moe.model.fingerprint() == same.model.fingerprint()
    assert with_it.outcome.champion == without.outcome.champion
    assert any(text.startswith("control: ") for text in with_it.heard.texts)
    assert ("moe", "one network of as many parameters, to compare with", 4) in with_it.heard.started


def test_the_comparison_is_that_of_validation_sessions(run, data):
    plan = small_plan(*PASSES)
    done = run(plan, ppo=model(plan, -1.0), moe=model(plan, 1.0, "moe"))
    difference = np.mean(
        [
            later - earlier
            for later, earlier in zip(
                *(
                    returns_by_session(
                        data,
                        replay_on(
                            data,
                            packed(model(plan, follow)),
                            "validation",
                            scheme="target",
                            capital=100_000.0,
                        ),
                        "validation",
                    )
                    for follow in (1.0, -1.0)
                ),
                strict=True,
            )
        ]
    )
    assert done.outcome.stages[1].champion.mean_difference == pytest.approx(difference, rel=1e-12)


# --- promotion ------------------------------------------------------------------------------------------------------


def test_a_champion_with_evidence_on_the_promotion_window_becomes_the_final_model(run):
    plan = small_plan(*PASSES)
    done = run(plan, ppo=model(plan, 1.0), stages=("ppo",))
    assert done.outcome.promotion.outcome == "PASS"
    assert done.outcome.promotion.window["name"] == "promotion"
    assert done.outcome.final_file == done.models / "EDGE_15_final_model.pth"
    final = load_checkpoint(done.outcome.final_file)
    assert (final.stage, final.champion_of, final.passed) == ("final", "ppo", True)
    assert final.verdict["level"] == "promotion"
    torch.testing.assert_close(
        final.weights, load_checkpoint(done.models / "EDGE_15_ppo_stage1.pth").weights, rtol=0, atol=0
    )
    assert best_available(done.models, "EDGE_15").checkpoint.stage == "final"


@pytest.mark.parametrize("follow", [-1.0, 0.0])
def test_without_evidence_no_final_model_is_written(run, follow):
    plan = small_plan(*PASSES, *TOO_LITTLE_DATA)
    done = run(plan, ppo=model(plan, follow), stages=("ppo",))
    assert not done.outcome.promotion.passed
    assert done.outcome.final_file is None
    assert done.files == ["EDGE_15_ppo_stage1.pth"]
    assert not done.outcome.everything_passed


def test_a_gate_that_was_passed_is_not_enough_to_be_promoted(run):
    """A model that loses money meets criteria of nothing; the claim of an edge it cannot make."""
    plan = small_plan(*PASSES)
    done = run(plan, ppo=model(plan, -1.0), stages=("ppo",))
    assert done.outcome.stages[0].verdict.outcome == "PASS"
    assert done.outcome.promotion.outcome == "FAIL"
    assert done.outcome.final_file is None


@pytest.mark.parametrize(("window", "promoted"), [("validation", True), ("promotion", False)])
def test_promotion_is_judged_on_its_own_window_and_no_other(run, data, window, promoted):
    """The edge turns round in one window: only where that is the promotion window is the model turned down."""
    rows = getattr(data.splits, window)
    edge = data.bars.extra["x_edge"].copy()
    edge[rows.start : rows.stop] *= -1.0
    bars = replace(data.bars, extra={**data.bars.extra, "x_edge": edge})
    plan = small_plan(*PASSES)
    done = run(plan, ppo=model(plan, 1.0), stages=("ppo",), data=symbol_of(bars, plan))
    assert done.outcome.promotion.passed is promoted
    first, last = done.outcome.promotion.window["from"], done.outcome.promotion.window["to"]
    start, stop = data.window("promotion")
    assert first[:10] == str(data.bars.label[start])[:10]
    assert last[:10] == str(data.bars.label[stop - 1])[:10]


def test_best_validation_writes_a_final_model_that_says_it_is_unproven(run):
    plan = small_plan(*PASSES, "model_management.promotion=best_validation")
    done = run(plan, ppo=model(plan, -1.0), stages=("ppo",))
    final = load_checkpoint(done.outcome.final_file)
    assert (final.stage, final.passed) == ("final", False)
    assert final.verdict["outcome"] == "FAIL"
    assert final.trading["promotion_rule"] == "best_validation"


def test_the_promotion_window_is_looked_at_once_and_only_with_the_champion(run):
    plan = small_plan(*PASSES)
    champion = model(plan, 1.0, "moe")
    done = run(plan, ppo=model(plan, -1.0), moe=champion)
    looks = [entry for entry in done.ledger.entries() if entry["kind"] == "look"]
    assert [entry["purpose"] for entry in looks] == ["progress", "progress", "promotion"]
    # Weights and costs: the same weights under other costs would be another look.
    assert looks[-1]["subject"].split()[0] == champion.fingerprint()


def test_every_fresh_set_of_weights_on_the_same_promotion_window_may_spend_less(run):
    """Looks at one window: 0.05 times 1/2, 1/6, 1/12, 1/20, however the models, folders and runs are called."""
    plan = small_plan(*PASSES)
    spent = []
    for attempt in range(4):
        tried = run(
            plan,
            ppo=model(plan, 0.01 * (1 + attempt)),
            stages=("ppo",),
            name=f"run-{attempt}",
            folder=f"m{attempt}",
        )
        spent.append((tried.outcome.promotion.attempt, tried.outcome.promotion.alpha_used))
    assert spent == [(1, 0.05 / 2), (2, 0.05 / 6), (3, 0.05 / 12), (4, 0.05 / 20)]
    assert tried.outcome.promotion.context["family"]["corrected_p"] == pytest.approx(
        min(1.0, 20 * tried.outcome.promotion.metrics["p_no_edge"])
    )


# --- files ----------------------------------------------------------------------------------------------------------


def test_files_of_an_earlier_run_are_retired(run):
    plan = small_plan(*PASSES)
    run(plan, ppo=model(plan, 1.0), moe=model(plan, 1.0, "moe"), name="run-1")
    again = run(small_plan(*FAILS), ppo=model(plan, -1.0), name="run-2")
    assert again.files == ["EDGE_15_final_model.pth", "EDGE_15_ppo_stage1.pth"]
    # The mixture grew out of a stage 1 that is no longer there; that stage 1 was replaced, and is kept.
    retired = sorted(path.name for path in (again.models / RETIRED).rglob("*.pth"))
    assert retired == ["EDGE_15_moe_stage2.pth", "EDGE_15_ppo_stage1.pth"]
    assert any("the model promoted by run run-1 stays in use" in text for text in again.heard.texts)


def test_an_unproven_model_does_not_take_the_place_of_a_promoted_one(run):
    plan = small_plan(*PASSES)
    run(plan, ppo=model(plan, 1.0), stages=("ppo",), name="run-1")
    unproven = small_plan(*PASSES, "model_management.promotion=best_validation")
    again = run(unproven, ppo=model(plan, -1.0), stages=("ppo",), name="run-2")
    assert load_checkpoint(again.models / "EDGE_15_final_model.pth").passed


def test_where_stage_models_are_not_kept_only_the_final_model_stays(run):
    plan = small_plan(*PASSES, "model_management.save_stage_models=false")
    done = run(plan, ppo=model(plan, 1.0), moe=model(plan, 1.0, "moe"))
    assert sorted(path.name for path in done.models.iterdir() if path.is_file()) == [
        "EDGE_15_final_model.pth",
        "EDGE_15_final_model.pth.json",
    ]


def test_stage_models_stay_where_there_is_no_final_model_to_use_instead(run):
    plan = small_plan(*PASSES, "model_management.save_stage_models=false")
    done = run(plan, ppo=model(plan, -1.0), stages=("ppo",))
    assert done.files == ["EDGE_15_ppo_stage1.pth"]


def test_a_passed_stage_is_kept_under_a_dated_name_and_a_failed_one_is_not(run):
    kept = "model_management.keep_best_models=true"
    plan = small_plan(*PASSES, kept)
    assert len(run(plan, ppo=model(plan, 1.0), stages=("ppo",), folder="passed").files) == 3
    plan = small_plan(*FAILS, kept)
    assert len(run(plan, ppo=model(plan, -1.0), stages=("ppo",), folder="failed").files) == 1


def test_a_stage_in_training_leaves_its_best_model_so_far_and_takes_it_away_when_done(run):
    """What an interrupted run leaves has no verdict and lies where nothing takes it for a finished stage."""
    plan = small_plan(*PASSES)
    done = run(plan, ppo=model(plan, 1.0), stages=("ppo",))
    assert done.heard.seen == ["in_training/EDGE_15_ppo_stage1.pth"]
    assert list((done.models / "in_training").iterdir()) == []
    none = run(small_plan(*PASSES, "monitoring.save_checkpoints=false"), ppo=model(plan, 1.0), folder="none")
    assert not [name for name in none.heard.seen if "in_training" in name]


def test_the_lineage_of_a_model_names_its_parents_oldest_first(run):
    plan = small_plan(*PASSES)
    parent = model(plan, -1.0)
    done = run(plan, ppo=parent, moe=model(plan, 1.0, "moe"))
    assert load_checkpoint(done.models / "EDGE_15_ppo_stage1.pth").lineage == []
    assert load_checkpoint(done.models / "EDGE_15_moe_stage2.pth").lineage == [parent.fingerprint()]


def test_the_lineage_of_a_final_model_names_its_parents_and_not_its_rivals_or_itself(run):
    """The champion is stage 1; stage 2 was trained, lost, and is no ancestor of anything."""
    plan = small_plan(*PASSES)
    done = run(plan, ppo=model(plan, 1.0), moe=model(plan, -1.0, "moe"))
    assert done.outcome.champion == "ppo"
    assert load_checkpoint(done.outcome.final_file).lineage == []


# --- stages asked for -----------------------------------------------------------------------------------------------


def test_a_later_stage_alone_starts_from_the_file_of_the_one_before(run):
    plan = small_plan(*PASSES)
    parent = model(plan, 1.0)
    run(plan, ppo=parent, stages=("ppo",), name="run-1")
    later = run(plan, moe=model(plan, 1.0, "moe"), stages=("moe",), name="run-2")
    assert [stage.stage for stage in later.outcome.stages] == ["moe"]
    assert "EDGE_15_ppo_stage1.pth" in later.files


def test_a_later_stage_without_the_one_before_says_how_to_train_it(run):
    plan = small_plan(*PASSES)
    with pytest.raises(UsageError) as refused:
        run(plan, stages=("moe", "maml"))
    text = str(refused.value)
    assert "--stages moe: EDGE_15 has no model of stage 1 (ppo) to start from" in text
    assert "python run_training.py --symbols EDGE_15 --stages ppo moe" in text


def test_a_plan_that_asks_for_no_earlier_stage_may_begin_with_the_mixture(run):
    plan = small_plan(*PASSES, "training_sequence.stage_2_moe.prerequisites=[]")
    done = run(plan, stages=("moe",))
    assert [stage.stage for stage in done.outcome.stages] == ["moe"]
    assert load_checkpoint(done.models / "EDGE_15_moe_stage2.pth").lineage == []


def test_the_last_stage_asked_for_has_nothing_to_stop(run):
    plan = small_plan(*FAILS)
    done = run(plan, ppo=model(plan, -1.0), stages=("ppo",))
    assert done.outcome.stages[0].verdict.outcome == "FAIL"
    assert done.outcome.stopped is None
    assert not done.outcome.everything_passed


def test_a_parent_that_was_never_judged_is_refused_and_not_silently_replaced_by_a_fresh_start(
    run, data, tmp_path
):
    plan = small_plan(*PASSES)
    unjudged = checkpoint_of(data, plan, model(plan, 1.0), None, lineage=[], run_name="run-0")
    write_model(tmp_path / "models", unjudged)
    with pytest.raises(CheckpointError, match="judged"):
        run(plan, stages=("moe",), name="run-1")


def test_a_parent_trained_on_other_data_is_refused(run, data, tmp_path):
    plan = small_plan(*PASSES)
    run(plan, ppo=model(plan, 1.0), stages=("ppo",))
    with pytest.raises(CheckpointError, match="was trained under other data than this run's"):
        run_sequence(
            replace(data, data_hash="another hash"),
            plan,
            stages=("moe",),
            models_dir=tmp_path / "models",
            ledger=EvidenceLedger(tmp_path / "ledger.jsonl"),
            listener=Notebook(),
            run_name="run-2",
        )


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("environment.exposure=0.5", "costs or limits"),
        ("environment.action_scheme=orders", "actions"),
    ],
)
def test_a_parent_trained_under_other_settings_is_refused_by_name(run, setting, what):
    plan = small_plan(*PASSES)
    run(plan, ppo=model(plan, 1.0), stages=("ppo",))
    other = small_plan(*PASSES, setting)
    with pytest.raises(CheckpointError, match=f"was trained under other {what} than this run's"):
        run(other, stages=("moe",), data=small_symbol(other, sessions=120))


def test_a_stage_that_history_is_too_short_for_leaves_the_earlier_ones_standing(run):
    plan = small_plan(*PASSES, "training_params.maml.support_sessions=100")
    done = run(plan, ppo=model(plan, 1.0), moe=model(plan, 1.0, "moe"), stages=STAGES)
    assert [stage.stage for stage in done.outcome.stages] == ["ppo", "moe"]
    assert done.outcome.impossible.startswith(
        "stage 3 (maml) is not possible: EDGE_15: the training window is too short"
    )
    assert done.outcome.final_file is not None
    assert any("is not possible" in text for text in done.heard.texts)


def test_criteria_of_its_own_can_lower_the_verdict_of_stage_3_but_not_raise_it(run):
    own = "training_sequence.stage_3_maml.success_criteria.max_drawdown=0.000001"
    outcomes = {}
    for name, plan in (("plain", small_plan(*PASSES)), ("own", small_plan(*PASSES, own))):
        done = run(plan, ppo=model(plan, 1.0), moe=model(plan, 1.0, "moe"), stages=STAGES, folder=name)
        outcomes[name] = done.outcome.stages[-1].verdict
    assert outcomes["plain"].outcome == "INCONCLUSIVE"
    assert outcomes["own"].outcome == "FAIL"
    assert outcomes["own"].criterion("max_drawdown").met is False
    assert set(outcomes["plain"].reasons) <= set(outcomes["own"].reasons)


def test_without_auto_progression_one_stage_is_trained_and_the_next_is_named(run):
    plan = small_plan(*PASSES, "progression_rules.auto_progression=false")
    done = run(plan, ppo=model(plan, 1.0), moe=model(plan, 1.0, "moe"))
    assert [stage.stage for stage in done.outcome.stages] == ["ppo"]
    assert any("go on with --stages moe" in text for text in done.heard.texts)
    assert not done.outcome.gate_stopped


# --- fallbacks of stage 3 -------------------------------------------------------------------------------------------

STAGE_3_FAILS = ("training_sequence.stage_3_maml.success_criteria.max_drawdown=0.000001",)
STAGE_3_EXTENDS = (
    "progression_rules.fallback_strategies.extend_training=true",
    "progression_rules.fallback_strategies.max_extension_iterations=2",
)
STAGE_3_SEARCHES = (
    "progression_rules.fallback_strategies.hyperparameter_tuning=true",
    "progression_rules.fallback_strategies.search.inner_step_size=[0.1, 1.0]",
    "progression_rules.fallback_strategies.search.meta_learning_rate=[0.001, 0.05]",
    "training_params.maml.query_sessions=4",
)


def stage_3_of(run, *overrides: str, **options: Any) -> tuple[Run, list[tuple[str, int]]]:
    """Run all stages, 1 and 2 prepared; return the run and what stage 3 was begun with."""
    plan = small_plan(*PASSES, *overrides)
    done = run(plan, ppo=model(plan, 1.0), moe=model(plan, 1.0, "moe"), stages=STAGES, **options)
    return done, [(why, total) for stage, why, total in done.heard.started if stage == "maml"]


def grown(verdict: Verdict) -> float:
    """Return the mean query growth after the plan's two steps."""
    return next(each["mean"] for each in verdict.metrics["adaptation_curve"] if each["steps"] == 2)


def test_a_missed_gate_of_stage_3_is_extended_then_searched_and_every_attempt_is_a_look(run):
    done, begun = stage_3_of(run, *STAGE_3_FAILS, *STAGE_3_EXTENDS, *STAGE_3_SEARCHES)
    # The plan's own combination, 0.1 and 0.001, is not tried again.
    assert begun == [
        ("1 iterations on EDGE_15", 1),
        ("extended by 2 iterations on EDGE_15", 2),
        ("search: meta_learning_rate 0.001, inner_step_size 1 on EDGE_15", 1),
        ("search: meta_learning_rate 0.05, inner_step_size 0.1 on EDGE_15", 1),
        ("search: meta_learning_rate 0.05, inner_step_size 1 on EDGE_15", 1),
    ]
    stage = done.outcome.stages[-1]
    looks = [entry for entry in done.ledger.entries() if entry["kind"] == "look"]
    # The extension found nothing better: the same weights are not judged again.
    assert (
        done.heard.texts.count(
            "extended by 2 iterations: no start was found that adapts better; its verdict stands"
        )
        == 1
    )
    assert [look["attempt"] for look in looks if look["purpose"] == "adaptation"] == [1, 2, 3, 4]
    assert sorted(verdict.attempt for verdict in stage.attempts) == [1, 2, 3, 4]
    for verdict in stage.attempts:
        assert verdict.outcome == "FAIL"
        assert verdict.alpha_used == pytest.approx(0.05 / (verdict.attempt * (verdict.attempt + 1)))
    # Among equal verdicts the highest growth on validation is kept, and its verdict is in the file.
    assert len({grown(verdict) for verdict in stage.attempts}) > 2
    assert grown(stage.verdict) == max(grown(verdict) for verdict in stage.attempts)
    assert stage.attempts[-1] is stage.verdict
    assert load_checkpoint(stage.file).verdict == stage.verdict.to_dict()


def test_an_extension_of_stage_3_goes_on_where_meta_training_stood(run, data):
    done, _ = stage_3_of(run, *STAGE_3_FAILS, *STAGE_3_EXTENDS)
    plan, whole = small_plan(*PASSES), []
    training = MetaTraining(data, plan, model(plan, 1.0, "moe"), [], seed=plan.seed)
    training.train(3, whole.append)
    assert [each["iteration"] for each in whole] == [1, 2, 3]
    learned = ("iteration", "query_loss", "policy_grad_norm", "step_size_median")
    assert [[each[name] for name in learned] for each in done.heard.meta_updates] == [
        [each[name] for name in learned] for each in whole
    ]


def test_a_stage_3_that_passes_or_cannot_tell_is_not_tried_again(run):
    done, begun = stage_3_of(run, *STAGE_3_EXTENDS, *STAGE_3_SEARCHES)
    assert done.outcome.stages[-1].verdict.outcome == "INCONCLUSIVE"
    assert len(begun) == 1
    _, stopped = stage_3_of(run, "progression_rules.on_inconclusive=stop", *STAGE_3_EXTENDS, folder="stopped")
    assert [why.split(" on ")[0] for why, _ in stopped] == ["1 iterations", "extended by 2 iterations"]


@pytest.mark.parametrize(
    "off",
    [
        ("progression_rules.fallback_strategies.extend_training=false",),
        (
            "progression_rules.fallback_strategies.extend_training=true",
            "progression_rules.fallback_strategies.max_extension_iterations=0",
        ),
    ],
)
def test_stage_3_is_not_extended_where_the_plan_does_not_say_so(run, off):
    _, begun = stage_3_of(run, *STAGE_3_FAILS, *off)
    assert len(begun) == 1


def test_what_stage_3_is_compared_with_is_measured_once_for_all_attempts(run, monkeypatch):
    measured = []
    real = MetaTraining.baselines

    def counted(training: MetaTraining):
        measured.append(real(training))
        return measured[-1]

    monkeypatch.setattr(MetaTraining, "baselines", counted)
    done, begun = stage_3_of(run, *STAGE_3_FAILS, *STAGE_3_SEARCHES)
    assert (len(begun), len(measured)) == (4, 1)
    for verdict in done.outcome.stages[-1].attempts:
        by_name = {each["name"]: each for each in verdict.metrics["comparisons"]}
        assert by_name["over_fine_tune"]["baseline"] == measured[0].fine_tuned.mean()
        assert by_name["over_random_start"]["baseline"] == measured[0].random_start.mean()


def test_settings_of_a_search_that_meta_learning_would_refuse_are_refused_before_anything_is_trained():
    searched = "progression_rules.fallback_strategies.search.inner_step_size=[0.0001]"
    plan = small_plan("progression_rules.fallback_strategies.hyperparameter_tuning=true", searched)
    with pytest.raises(ConfigError, match=r"search: inner_step_size \(0\.0001\) has to be at least"):
        check_learners(plan, STAGES)
    check_learners(plan, ("ppo", "moe"))


# --- a symbol held out of meta-training -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def held_out() -> SymbolData:
    return small_symbol(small_plan(), "HELD_15", sessions=120, seed=4)


def test_a_look_at_adaptation_is_counted_before_anything_is_seen(run, tmp_path, monkeypatch):
    """A process killed between seeing and counting would have had a free look."""

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("rl.stages.maml_stage.MetaTraining.proof", killed)
    plan = small_plan(*PASSES)
    with pytest.raises(KeyboardInterrupt):
        run(plan, ppo=model(plan, 1.0), moe=model(plan, 1.0, "moe"), stages=STAGES)
    looks = [entry["purpose"] for entry in EvidenceLedger(tmp_path / "ledger.jsonl").entries()]
    assert looks[-1] == "adaptation"


def maml_reasons(done: Run) -> str:
    return " ".join(done.outcome.stages[-1].verdict.reasons)


def test_without_a_third_symbol_adaptation_across_symbols_is_not_measurable(run):
    plan = small_plan(*PASSES)
    done = run(plan, ppo=model(plan, 1.0), moe=model(plan, 1.0, "moe"), stages=STAGES)
    assert "min_cross_symbol_performance is not measurable: needs three symbols" in maml_reasons(done)


def test_a_held_out_symbol_without_a_model_of_its_own_is_not_measurable_either(run, held_out):
    plan = small_plan(*PASSES)
    done = run(plan, ppo=model(plan, 1.0), moe=model(plan, 1.0, "moe"), stages=STAGES, held_out=held_out)
    assert "HELD_15 was held out, but has no stage-2 model of this run" in maml_reasons(done)


def stage_2_of(
    held_out: SymbolData, plan: Plan, folder: Path, weights: StageModel, run_name: str = "run-1"
) -> None:
    write_model(
        folder,
        checkpoint_of(held_out, plan, weights, progress_pass("HELD_15"), lineage=[], run_name=run_name),
    )


def progress_pass(symbol: str) -> Verdict:
    return Verdict(
        outcome="PASS", level="progress", symbol=symbol, stage="moe", criteria=(), trades=0, sessions=0,
        alpha_used=0.025, attempt=1, window={}, reasons=(),
    )  # fmt: skip


def test_a_held_out_symbol_with_a_model_is_compared_with_it(run, held_out, tmp_path):
    plan = small_plan(*PASSES)
    stage_2_of(held_out, plan, tmp_path / "models", model(plan, 1.0, "moe"))
    done = run(plan, ppo=model(plan, 1.0), moe=model(plan, 1.0, "moe"), stages=STAGES, held_out=held_out)
    assert done.outcome.stages[-1].verdict.criterion("cross_symbol").value == pytest.approx(1.0, abs=0.5)


def test_a_held_out_symbols_model_of_an_earlier_run_is_not_compared_with(run, held_out, tmp_path):
    """What a run measures may not depend on what an earlier one left behind."""
    plan = small_plan(*PASSES)
    stage_2_of(held_out, plan, tmp_path / "models", model(plan, 1.0, "moe"), run_name="run-0")
    done = run(plan, ppo=model(plan, 1.0), moe=model(plan, 1.0, "moe"), stages=STAGES, held_out=held_out)
    assert "not measurable" in maml_reasons(done)


def test_a_held_out_symbols_model_of_other_features_is_not_compared_with(run, held_out, tmp_path):
    """It was trained on more features than its symbol is seen with now; whatever it would do means nothing."""
    plan = small_plan(*PASSES)
    wider = replace(model(plan, 1.0, "moe"), policy_spec={**mlp_spec(plan), "observations": 9})
    count = sum(value.numel() for value in build_policy(wider.policy_spec, 0).parameters())
    wider = replace(wider, weights=np.zeros(count, dtype=np.float32))
    names = ("x_edge", "x_regime_mood", "x_gone", "x_lost")
    scaler = FeatureScaler(names=names, center=np.zeros(4), scale=np.ones(4))
    old = replace(held_out, feature_names=names, scaler=scaler, data_hash="another")
    stage_2_of(old, plan, tmp_path / "models", wider)
    done = run(plan, ppo=model(plan, 1.0), moe=model(plan, 1.0, "moe"), stages=STAGES, held_out=held_out)
    assert "not measurable" in maml_reasons(done)


# --- really trained -------------------------------------------------------------------------------------------------


def test_all_three_stages_run_and_every_one_leaves_a_file_with_its_verdict(run, data):
    plan = small_plan(*PASSES)
    done = run(plan, stages=STAGES)
    assert [stage.stage for stage in done.outcome.stages] == list(STAGES)
    for stage in done.outcome.stages:
        stored = load_checkpoint(stage.file)
        assert stored.verdict == stage.verdict.to_dict()
        assert stored.trading["run"] == "run-1"
        assert stage.validation["total_trades"] >= 0
    maml = load_checkpoint(done.outcome.stages[2].file)
    assert maml.trading["adaptation"]["support_bars"] == 128
    assert "experts" in done.outcome.stages[1].validation
    assert done.heard.updates > 0
    assert done.outcome.windows["test"][2] == data.sessions_in("test")


def test_the_whole_sequence_twice_gives_the_same_models_and_verdicts(run, tmp_path):
    plan = small_plan(*PASSES)
    one = run(plan, stages=STAGES, folder="one").outcome
    (tmp_path / "ledger.jsonl").unlink()
    two = run(plan, stages=STAGES, folder="two").outcome
    for first, second in zip(one.stages, two.stages, strict=True):
        assert first.model.fingerprint() == second.model.fingerprint()
        assert first.verdict == second.verdict
    assert one.promotion == two.promotion
