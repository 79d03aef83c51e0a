"""From stage to stage nothing is lost: how the policy acts, scaler, features, actions, costs, and where it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rl.backtest.engine import replay_policy
from rl.checkpoints.checkpoint import Checkpoint, load_checkpoint
from rl.checkpoints.predictor import META_WEIGHTS, Predictor
from rl.envs.vector_env import VectorTradingEnv
from rl.features.scaler import FeatureScaler
from rl.policies.actor_critic import ActorCritic
from rl.stages.backtest_looks import todays_rules
from rl.stages.evaluation import packed, replay_on
from rl.stages.evidence import EvidenceLedger
from rl.stages.maml_stage import MetaTraining
from rl.stages.model_files import differences, model_from
from rl.stages.moe_stage import moe_training
from rl.stages.outcomes import SymbolOutcome
from rl.stages.plan import STAGES
from rl.stages.sequence import run_sequence
from rl.stages.stage_model import StageModel
from rl.stages.symbol_data import SymbolData
from rl.trading.rules import TradingRules
from tests.unit.stages.promotions import Heard
from tests.unit.stages.small_symbol import small_plan, small_symbol
from tests.unit.stages.test_sequence import PASSES

PLAN = small_plan(
    *PASSES,
    # Enough training for a policy that is sure of what it does: from a uniform one nothing could be lost.
    "training_sequence.stage_1_ppo.episodes=240",
    "training_params.ppo.learning_rate=0.01",
    "training_params.ppo.hidden_dim=16",
    "training_params.moe.expert_hidden_dim=24",
)
CAPITAL = PLAN.environment.initial_capital


class Quiet(Heard):
    """A listener for real trainings that keeps the figures of every update."""

    def __init__(self) -> None:
        super().__init__()
        self.updates: list[tuple[str, dict[str, Any]]] = []

    def stage_started(
        self, symbol: str, stage: str, total: int, unit: str, why: str, attempt: int = 1
    ) -> None:
        """A stage begins."""

    def progressed(self, symbol: str, stage: str, figures: dict[str, Any]) -> None:
        """Keep what does not depend on the clock."""
        kept = {
            name: value for name, value in figures.items() if "second" not in name or name == "second_order"
        }
        self.updates.append((stage, kept))

    def judged(self, *_: Any) -> None:
        """A stage is over."""


@dataclass
class Trained:
    """What a run left behind."""

    outcome: SymbolOutcome
    heard: Quiet

    def model(self, stage: str) -> StageModel:
        return next(each.model for each in self.outcome.stages if each.stage == stage)

    def file(self, stage: str) -> Checkpoint:
        return load_checkpoint(next(each.file for each in self.outcome.stages if each.stage == stage))


def trained(data: SymbolData, folder: Path, stages: tuple[str, ...] = STAGES) -> Trained:
    heard = Quiet()
    outcome = run_sequence(
        data,
        PLAN,
        stages=stages,
        models_dir=folder / "models",
        ledger=EvidenceLedger(folder / "ledger.jsonl"),
        listener=heard,
        run_name="run-1",
    )
    return Trained(outcome, heard)


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return small_symbol(PLAN, sessions=120)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Trained:
    """All three stages, really trained one after the other."""
    return trained(data, tmp_path_factory.mktemp("whole"))


def held_out_observations(data: SymbolData, model: StageModel) -> torch.Tensor:
    """Return what a policy comes to see as it trades the validation window, which it was not trained on. (B, D)"""
    env = VectorTradingEnv(
        data.market, [data.window("validation")], [data.rules], num_envs=16, episode_bars=400
    )
    env.reset(seed=0)
    found = env.act(packed(model), np.random.default_rng(0).random((200, 16)))
    return torch.from_numpy(found.observations.reshape(-1, found.observations.shape[2]))


def divergence(one: ActorCritic, other: ActorCritic, obs: torch.Tensor) -> float:
    """Return KL(one ‖ other) of the action distributions in nats, mean over observations."""
    with torch.no_grad():
        log_p, log_q = (torch.log_softmax(policy.logits(obs), -1) for policy in (one, other))
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())


# --- how it acts ----------------------------------------------------------------------------------------------------


def test_the_mixture_begins_as_the_policy_of_stage_1_on_bars_neither_has_seen(data, whole):
    ppo = whole.model("ppo")
    obs = held_out_observations(data, ppo)
    with torch.no_grad():
        chances = torch.softmax(ppo.policy().logits(obs), -1)
    assert float(chances.max(-1).values.mean()) > 0.6
    for seed in range(3):
        start = moe_training(data, PLAN, ppo, seed=seed)._policy
        assert start.spec["encoder"] == "mixture"
        assert 0.0 < divergence(ppo.policy(), start, obs) < 0.01
    from_scratch = moe_training(
        data, small_plan("model_management.transfer_learning=false"), ppo, seed=0
    )._policy
    assert divergence(ppo.policy(), from_scratch, obs) > 0.1


def test_meta_learning_begins_as_the_mixture_to_the_last_bit(data, whole):
    moe = whole.model("moe")
    start = MetaTraining(data, PLAN, moe, [], seed=0)
    np.testing.assert_array_equal(start.policy.flat_parameters().numpy(), moe.weights)
    obs = held_out_observations(data, moe)
    with torch.no_grad():
        assert torch.equal(start.policy.logits(obs), moe.policy().logits(obs))
    np.testing.assert_array_equal(start.model().extra[META_WEIGHTS].numpy(), moe.weights)
    # And leaves it with the first outer update.
    start.train(1, lambda _: None)
    assert (start.policy.flat_parameters().numpy() != moe.weights).any()


def test_stage_3_from_its_file_is_what_was_trained_and_adapts_to_the_same_weights(data, whole):
    model, file = whole.model("maml"), whole.file("maml")
    again = model_from(file)
    assert again.fingerprint() == model.fingerprint()
    np.testing.assert_array_equal(again.weights, model.weights)
    assert list(again.extra) == list(model.extra)
    for name, tensor in model.extra.items():
        assert torch.equal(again.extra[name], tensor)
    assert (again.extra[META_WEIGHTS].numpy() != model.weights).any()
    predictor = Predictor(file)
    prepared = predictor.policy_for(
        predictor.market(data.bars, data.table),
        data.rules,
        span_start=data.window("validation")[0],
        capital=CAPITAL,
    )
    np.testing.assert_array_equal(prepared.packed.net, packed(model).net)


# --- what travels in the files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_every_file_carries_scaler_features_actions_and_costs_of_the_run(data, whole, stage):
    file = whole.file(stage)
    train = slice(*data.window("train"))
    by_hand = FeatureScaler.fit(data.table.values[train], data.table.names)
    assert FeatureScaler.from_dict(file.scaler).to_dict() == by_hand.to_dict()
    assert tuple(file.feature_names) == data.feature_names == ("x_edge", "x_regime_mood")
    assert file.action_scheme == "target"
    assert file.instrument["commission"]["rate"] == 1e-5
    assert file.trading["rules"]["commission_rate"] == 1e-5
    assert file.trading["capital"] == CAPITAL
    assert differences(file, data, PLAN) == []


def traded(file: Checkpoint, data: SymbolData) -> np.ndarray:
    """Return equity on validation of a model made of its file and raw bars alone, as the backtest makes it."""
    predictor = Predictor(file)
    market = predictor.market(data.bars, data.table)
    rules = TradingRules(**file.trading["rules"])
    window = data.window("validation")
    prepared = predictor.policy_for(market, rules, span_start=window[0], capital=CAPITAL)
    replay = replay_policy(market, window, rules, prepared.packed, scheme=file.action_scheme, capital=CAPITAL)
    return replay.equity


@pytest.mark.parametrize("stage", STAGES)
def test_the_backtest_of_a_file_trades_as_the_stage_that_was_judged(data, whole, stage):
    judged = replay_on(data, packed(whole.model(stage)), "validation", scheme="target", capital=CAPITAL)
    assert len(judged.trades) > 0
    np.testing.assert_array_equal(traded(whole.file(stage), data), judged.equity)
    rules, notes = todays_rules(whole.file(stage), data.found)
    assert (rules, notes) == (data.rules, [])


def other_scaler(file: Checkpoint, data: SymbolData) -> Checkpoint:
    values = data.table.values[slice(*data.window("validation"))] + np.float32(1.0)
    return replace(file, scaler=FeatureScaler.fit(values, data.table.names).to_dict())


def permuted_features(file: Checkpoint, data: SymbolData) -> Checkpoint:
    names = tuple(reversed(file.feature_names))
    scaler = FeatureScaler.fit(data.table.values[slice(*data.window("train"))][:, ::-1], names)
    return replace(file, feature_names=list(names), scaler=scaler.to_dict())


def no_costs(file: Checkpoint, data: SymbolData) -> Checkpoint:
    return replace(file, trading={**file.trading, "rules": {**file.trading["rules"], "commission_rate": 0.0}})


@pytest.mark.parametrize("broken", [other_scaler, permuted_features, no_costs])
@pytest.mark.parametrize("stage", STAGES)
def test_a_file_that_lost_one_of_them_trades_otherwise_and_is_no_start_for_the_next_stage(
    data, whole, stage, broken: Callable[[Checkpoint, SymbolData], Checkpoint]
):
    """So the two tests above would see it."""
    file = broken(whole.file(stage), data)
    assert (traded(file, data) != traded(whole.file(stage), data)).any()
    assert differences(file, data, PLAN)


# --- where it stands ------------------------------------------------------------------------------------------------


def test_a_run_interrupted_between_stages_goes_on_with_the_same_numbers(data, whole, tmp_path):
    """Every update, every weight and every figure of the verdicts, however the stages are spread over runs."""
    parts = [trained(data, tmp_path, (stage,)) for stage in STAGES]
    assert [update for part in parts for update in part.heard.updates] == whole.heard.updates
    for stage, part in zip(STAGES, parts, strict=True):
        assert part.model(stage).fingerprint() == whole.model(stage).fingerprint()
        one, two = (
            each.outcome.stages[-1 if each is part else STAGES.index(stage)] for each in (part, whole)
        )
        assert one.verdict == two.verdict
        assert one.validation == two.validation
        assert part.file(stage).lineage == whole.file(stage).lineage
