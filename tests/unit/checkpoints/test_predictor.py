"""The one inference path: what a checkpoint does with bars, and what it learns from before it acts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rl.backtest.engine import replay_policy
from rl.checkpoints.checkpoint import Checkpoint, load_checkpoint
from rl.checkpoints.predictor import STEP_SIZE_PREFIX, Predictor
from rl.common.errors import CheckpointError, DataError
from rl.features.pipeline import FeatureTable
from rl.market.bars import Bars
from rl.stages.gates import Verdict
from rl.stages.maml_stage import MetaTraining
from rl.stages.model_files import checkpoint_of, write_model
from rl.stages.stage_model import StageModel
from rl.stages.symbol_data import SymbolData
from tests.unit.stages.small_symbol import (
    edge_bars,
    edge_model,
    edge_table,
    small_plan,
    symbol_of,
    with_bars_changed_from,
)

PLAN = small_plan()
CAPITAL = 100_000.0
VERDICT = Verdict(
    outcome="PASS",
    level="adaptation",
    symbol="EDGE_15",
    stage="maml",
    criteria=(),
    trades=0,
    sessions=0,
    alpha_used=0.025,
    attempt=1,
    window={},
    reasons=(),
)


def silent(_: dict) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return symbol_of(edge_bars(sessions=80), PLAN)


def checkpoint(data: SymbolData, model: StageModel, recipe: dict | None = None) -> Checkpoint:
    return checkpoint_of(data, PLAN, model, VERDICT, lineage=[], run_name="r", adaptation=recipe)


@pytest.fixture(scope="module")
def adaptive(data) -> Checkpoint:
    training = MetaTraining(data, PLAN, edge_model(PLAN), [], seed=1)
    return checkpoint(data, training.train(1, silent), training.recipe().to_dict())


def prepared(predictor: Predictor, data: SymbolData, bars: Bars, start: int, **options):
    market = predictor.market(bars, edge_table(bars))
    return predictor.policy_for(market, data.rules, span_start=start, capital=CAPITAL, **options)


def test_a_model_that_does_not_adapt_acts_with_the_weights_in_its_file(data):
    model = edge_model(PLAN)
    predictor = Predictor(checkpoint(data, model))
    assert not predictor.adapts
    policy = prepared(predictor, data, data.bars, 1500)
    assert (policy.note, policy.support) == (None, None)
    market = predictor.market(data.bars, data.table)
    one = replay_policy(market, (1500, 2000), data.rules, policy.packed)
    # By hand: long where the scaled edge is above zero, short elsewhere.
    expected = np.where(market.features[1500:1999, 0] > 0, 2, 0)
    np.testing.assert_array_equal(one.actions, expected)


def test_an_adapting_model_learns_from_the_bars_just_before_the_span(data, adaptive):
    predictor = Predictor(adaptive)
    assert predictor.adapts
    policy = prepared(predictor, data, data.bars, 1500)
    assert policy.support == (1500 - 128, 1500)
    assert policy.note == "adapted by 2 steps on the 128 bars before the span"
    assert (policy.packed.net != prepared(predictor, data, data.bars, 1700).packed.net).any()


@pytest.mark.parametrize("start", [200, 1500, 1999])
def test_bars_from_the_span_on_change_no_bit_of_the_adapted_weights(data, adaptive, start):
    """A model adapted on the bars it is then tested on has seen the answers."""
    predictor = Predictor(adaptive)
    changed = with_bars_changed_from(data.bars, start)
    one, two = (prepared(predictor, data, bars, start) for bars in (data.bars, changed))
    np.testing.assert_array_equal(one.packed.net, two.packed.net)


def test_the_bar_before_the_span_does_change_them(data, adaptive):
    """The check above would pass for a model that looks at nothing at all; this one has to see the last bars."""
    predictor = Predictor(adaptive)
    changed = with_bars_changed_from(data.bars, 1450, until=1500)
    one, two = (prepared(predictor, data, bars, 1500) for bars in (data.bars, changed))
    assert (one.packed.net != two.packed.net).any()


def test_adapting_can_be_switched_off_and_the_note_says_so(data, adaptive):
    policy = prepared(Predictor(adaptive), data, data.bars, 1500, adapt_before_use=False)
    assert policy.note == "adapted once, before validation (adapt_before_use is off)"
    assert policy.support is None
    stored = Predictor(replace(adaptive, extra_tensors={}))
    np.testing.assert_array_equal(policy.packed.net, prepared(stored, data, data.bars, 1500).packed.net)


def test_with_too_little_history_the_weights_adapted_before_validation_act(data, adaptive):
    policy = prepared(Predictor(adaptive), data, data.bars, 127)
    assert policy.note == "adapted once, before validation: fewer than 128 usable bars precede the span"
    off = prepared(Predictor(adaptive), data, data.bars, 127, adapt_before_use=False)
    np.testing.assert_array_equal(policy.packed.net, off.packed.net)


def test_history_without_features_is_no_history_to_adapt_on(data, adaptive):
    predictor = Predictor(adaptive)
    table = edge_table(data.bars)
    blind = np.arange(len(data.bars)) >= 1500
    market = predictor.market(data.bars, replace(table, usable=blind))
    policy = predictor.policy_for(market, data.rules, span_start=1500, capital=CAPITAL)
    assert policy.support is None


def test_before_validation_the_model_in_use_is_the_one_its_gate_saw(data, adaptive):
    """Training, gate and backtest adapt by the same path: on the same bars they get the same weights."""
    start = data.window("validation")[0]
    policy = prepared(Predictor(adaptive), data, data.bars, start)
    stored = prepared(Predictor(adaptive), data, data.bars, start, adapt_before_use=False)
    np.testing.assert_array_equal(policy.packed.net, stored.packed.net)


def test_a_checkpoint_from_a_file_acts_exactly_as_the_one_in_memory(data, adaptive, tmp_path: Path):
    read = load_checkpoint(write_model(tmp_path, adaptive))
    one, two = (prepared(Predictor(each), data, data.bars, 1500) for each in (adaptive, read))
    np.testing.assert_array_equal(one.packed.net, two.packed.net)


def test_the_learned_step_sizes_travel_in_the_file_and_decide_what_is_learned(data, tmp_path: Path):
    """A model adapted by the step size it started training from would not be the one that was judged."""
    training = MetaTraining(data, PLAN, edge_model(PLAN), [], seed=1)
    trained = checkpoint(data, training.train(2, silent), training.recipe().to_dict())
    read = load_checkpoint(write_model(tmp_path, trained))
    stored = {
        name.removeprefix(STEP_SIZE_PREFIX): size
        for name, size in read.extra_tensors.items()
        if name.startswith(STEP_SIZE_PREFIX)
    }
    learned = training.step_sizes()
    assert stored.keys() == learned.keys()
    start = PLAN.training_params.maml.inner_step_size
    assert all(torch.equal(stored[name], learned[name]) for name in learned)
    assert all(size.item() != pytest.approx(start, rel=1e-3) for size in learned.values())
    as_trained = prepared(Predictor(read), data, data.bars, 1500).packed.net
    for name in learned:
        key = STEP_SIZE_PREFIX + name
        other = replace(read, extra_tensors={**read.extra_tensors, key: torch.tensor(start)})
        assert (prepared(Predictor(other), data, data.bars, 1500).packed.net != as_trained).any()


def test_an_adapting_model_that_does_not_say_how_is_refused(data, adaptive):
    trading = {name: value for name, value in adaptive.trading.items() if name != "adaptation"}
    predictor = Predictor(replace(adaptive, trading=trading))
    with pytest.raises(CheckpointError, match="does not say how it is adapted; train it again"):
        prepared(predictor, data, data.bars, 1500)


def test_features_are_scaled_by_the_models_own_scaler_not_by_the_bars_at_hand(data):
    predictor = Predictor(checkpoint(data, edge_model(PLAN)))
    later = data.bars.slice(1000, 2000)
    seen = predictor.market(later, edge_table(later))
    np.testing.assert_array_equal(seen.features, data.market.features[1000:2000])


def test_bars_without_a_feature_of_the_model_are_refused(data):
    predictor = Predictor(checkpoint(data, edge_model(PLAN)))
    table = edge_table(data.bars)
    poorer = FeatureTable(
        table.values[:, 1:], ("x_regime_mood",), table.usable, table.atr, ("x_regime_mood",)
    )
    with pytest.raises(DataError, match="EDGE_15: the features x_edge do not exist"):
        predictor.market(data.bars, poorer)


def test_a_damaged_scaler_is_refused_before_anything_is_done(data):
    broken = checkpoint(data, edge_model(PLAN))
    scaler = {**broken.scaler, "scale": [0.0, 1.0]}
    with pytest.raises(CheckpointError, match="scaler is damaged"):
        Predictor(replace(broken, scaler=scaler))
