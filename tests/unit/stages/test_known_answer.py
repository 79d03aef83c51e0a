"""What is drawn, and what a policy earned beside the best one: worked out on draws small enough to follow."""

from __future__ import annotations

import numpy as np
import pytest

from rl.backtest.baselines import buy_and_hold
from rl.backtest.engine import replay_actions
from rl.envs.scaled_market import scaled_market
from rl.features.processed_store import process
from rl.features.scaler import FeatureScaler
from rl.market.oracles import earned_by_bar
from rl.market.synthetic import write_raw_csv
from rl.stages.known_answer import KnownMarket, UnseenBars
from rl.stages.known_answer_stages import KnownAnswer, Trained, known_symbol
from rl.stages.maml_stage import MetaTraining
from rl.stages.symbol_data import prepare, symbol_rules
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules
from tests.unit.stages.small_symbol import small_plan

PLANTED = KnownMarket(kind="planted", cost_bp=0.5, params={"r2": 0.05, "rho": 0.9})
SESSIONS = 40
FLAT = 1
"""The action that holds nothing; -1 is short and +1 long, each one further."""


@pytest.fixture(scope="module")
def unseen() -> UnseenBars:
    return PLANTED.unseen(0, SESSIONS)


@pytest.fixture(scope="module")
def arrays(unseen) -> MarketArrays:
    table = unseen.table
    scaler = FeatureScaler.fit(table.values[table.usable], table.names)
    return scaled_market(unseen.bars, table, table.names, scaler)


@pytest.fixture(scope="module")
def rules() -> TradingRules:
    return symbol_rules(small_plan(), PLANTED.instrument(), 6e-4)


def traded(unseen, arrays, rules, positions):
    window = (unseen.first, len(arrays))
    actions = (FLAT + np.asarray(positions)[unseen.first : len(arrays) - 1]).astype(np.int8)
    return unseen.compared(replay_actions(arrays, window, rules, actions))


# --- scoring ----------------------------------------------------------------------------------------------------------


def test_the_best_policys_own_positions_score_all_of_what_it_earns(unseen, arrays, rules):
    """Through the account, fills at the open, commission and all; what is left is log growth against simple returns."""
    learned = traded(unseen, arrays, rules, unseen.best)
    assert learned.oracle > 0.5
    assert learned.share == pytest.approx(1.0, abs=0.01)
    assert abs(learned.excess) < 0.005
    assert learned.trades_per_session > 1


def test_a_policy_that_stays_flat_scores_nothing(unseen, arrays, rules):
    learned = traded(unseen, arrays, rules, np.zeros(len(arrays)))
    assert (learned.earned, learned.share, learned.trades_per_session) == (0.0, 0.0, 0.0)
    assert learned.earned_error == 0.0


def test_the_opposite_of_the_best_policy_loses_what_that_one_earns_and_its_costs_again(unseen, arrays, rules):
    learned = traded(unseen, arrays, rules, -unseen.best)
    held = unseen.best[unseen.first :].astype(float)
    costs = 0.5 * np.abs(np.diff(held[:-1], prepend=0.0)).mean()
    assert learned.earned == pytest.approx(-learned.oracle - 2 * costs, abs=0.01)


def test_another_cost_is_charged_to_policy_and_best_policy_alike():
    cheap, dear = (KnownMarket(kind="planted", cost_bp=cost).unseen(0, 15) for cost in (0.0, 2.0))
    np.testing.assert_array_equal(cheap.bars.close, dear.bars.close)
    instrument = KnownMarket(kind="planted", cost_bp=2.0).instrument().instrument
    assert instrument.commission.rate == pytest.approx(2e-4)
    assert (instrument.slippage.rate, instrument.slippage.ticks, instrument.tax_on_sale_rate) == (0, 0, 0)
    by_bar = earned_by_bar(np.array([1, 1, -1, 0]), np.array([0.0, 1e-4, 2e-4, 3e-4]), 2.0)
    # One bp and the cost of getting in; two bp; three lost and twice the cost.
    np.testing.assert_allclose(by_bar, [-1.0, 2.0, -7.0])


def test_where_holding_is_best_the_excess_is_that_over_holding():
    drift = KnownMarket(kind="noise_drift", cost_bp=0.5).unseen(0, SESSIONS)
    scaler = FeatureScaler.fit(drift.table.values[drift.table.usable], drift.table.names)
    arrays = scaled_market(drift.bars, drift.table, drift.table.names, scaler)
    held = buy_and_hold(arrays, (drift.first, len(arrays)), TradingRules(commission_rate=0.5e-4), 100_000.0)
    assert drift.compared(held).excess == pytest.approx(0.0, abs=0.005)


def test_the_error_is_the_spread_of_the_difference_bar_by_bar(unseen, arrays, rules):
    """By hand, for an account that does nothing: the difference is the best policy's own result."""
    learned = traded(unseen, arrays, rules, np.zeros(len(arrays)))
    best = earned_by_bar(unseen.best[unseen.first :], unseen.returns[unseen.first :], 0.5)
    assert learned.error == pytest.approx(best.std() / len(best) ** 0.5)
    assert learned.oracle == pytest.approx(best.mean())


# --- draws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 4])
def test_the_unseen_draw_shares_no_bar_with_the_seen_one(seed):
    seen = PLANTED.seen(seed, SESSIONS)
    unseen = PLANTED.unseen(seed, SESSIONS)
    assert not np.intersect1d(seen.returns, unseen.returns).size
    assert not np.intersect1d(seen.signals["x_f1"], unseen.bars.extra["x_f1"]).size


def test_a_known_symbol_is_what_prepare_makes_of_the_markets_raw_file(tmp_path):
    """The stages train on the very arrays, windows, scaler and rules of a run on the file `rl synth` writes."""
    plan = small_plan("embargo_bars=auto")
    # 0.5 bp is what the shipped instruments charge for a made-up market.
    known = known_symbol(PLANTED, plan, seed=3, sessions=SESSIONS)
    raw = tmp_path / "SYN_planted_2.csv"
    write_raw_csv(PLANTED.seen(3, SESSIONS), raw)
    found = PLANTED.instrument()
    process("SYN_planted_2", raw, found.instrument, tmp_path / "processed")
    filed = prepare("SYN_planted_2", plan, found, tmp_path / "processed")
    for name in ("ohlc", "features", "session", "tradable", "atr"):
        np.testing.assert_array_equal(getattr(known.market, name), getattr(filed.market, name))
    assert known.splits == filed.splits
    assert known.rules == filed.rules
    assert known.scaler.to_dict() == filed.scaler.to_dict()
    assert (known.feature_names, known.gate_columns) == (filed.feature_names, filed.gate_columns)
    assert (known.embargo_bars, known.notes) == (filed.embargo_bars, filed.notes)


def test_shuffled_features_stay_within_their_window_and_no_longer_foretell():
    plan = small_plan()
    plain, shuffled = (
        known_symbol(PLANTED, plan, seed=0, sessions=SESSIONS, shuffle_features=flag)
        for flag in (False, True)
    )
    np.testing.assert_array_equal(plain.market.ohlc, shuffled.market.ohlc)
    column = plain.feature_names.index("x_f1")
    following = np.append(np.diff(plain.bars.close) / plain.bars.close[:-1], 0.0)
    for window in ("train", "validation"):
        start, stop = plain.window(window)
        before, after = (data.market.features[start:stop, column] for data in (plain, shuffled))
        np.testing.assert_array_equal(np.sort(before), np.sort(after))
        assert (before != after).any()
    start, stop = plain.window("train")
    correlation = [
        np.corrcoef(data.market.features[start:stop, column], following[start:stop])[0, 1]
        for data in (plain, shuffled)
    ]
    assert correlation[0] > 0.15
    assert abs(correlation[1]) < 0.05


# --- the stages -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trial() -> KnownAnswer:
    return KnownAnswer(PLANTED, small_plan(), seed=0, sessions=SESSIONS, unseen_sessions=15)


@pytest.fixture(scope="module")
def trained(trial) -> dict[str, Trained]:
    ppo = trial.ppo(128)
    moe = trial.moe(ppo.model, 128)
    dense = trial.dense(ppo.model, 128)
    return {"ppo": ppo, "dense": dense, "moe": moe, "maml": trial.maml(moe.model, 1)}


def test_every_stage_trains_as_long_as_asked_and_trades_the_unseen_bars(trial, trained):
    # Episodes of 32 bars.
    assert [each.model.episodes for each in trained.values()] == [4, 4, 4, 1]
    assert [each.model.stage for each in trained.values()] == ["ppo", "dense", "moe", "maml"]
    assert trained["maml"].model.metrics["task_symbols"] == ["SYN_planted_2"]
    for each in trained.values():
        assert np.isfinite(trial.learned(each).earned)


def test_stage_3_trades_the_bars_after_those_it_adapted_on_and_so_does_its_start(trial, trained):
    recipe = trained["maml"].recipe
    assert recipe is not None
    start = trial.unseen.first + recipe.support_bars
    best = earned_by_bar(trial.unseen.best[start:], trial.unseen.returns[start:], 0.5)
    adapted, start_alone = trial.learned(trained["maml"]), trial.unadapted(trained["maml"])
    assert adapted.oracle == start_alone.oracle == pytest.approx(best.mean())
    assert trial.learned(trained["moe"]).oracle != adapted.oracle


def test_stage_3_is_adapted_as_meta_training_itself_adapts(trial, trained):
    """The same support, start and step sizes give the weights that the stage stored for its validation window."""
    recipe = trained["maml"].recipe
    training = MetaTraining(trial.data, trial._plan, trained["moe"].model, (), seed=0)
    assert recipe == training.recipe()
    support = training.support_before("validation")
    assert support is not None
    predictor = trial._predictor(trained["maml"])
    weights = predictor.weights_adapted_on(
        trial.data.market, trial.data.rules, support, capital=trial._plan.environment.initial_capital
    )
    np.testing.assert_array_equal(weights, trained["maml"].model.weights)


def test_what_the_experts_do_is_said_of_the_mixture(trial, trained):
    found = trial.experts(trained["moe"])
    assert found["window"] == "validation"
    assert {"nats", "p"} <= found["information"].keys()


def test_no_stage_sees_a_bar_of_a_later_window(trained):
    """Other bars from the promotion window on leave every weight of every stage as it was."""
    plan = small_plan()
    other = KnownAnswer(PLANTED, plan, seed=0, sessions=SESSIONS, unseen_sessions=15)
    start = other.data.splits.promotion.start
    other.data.market.ohlc[start:] *= 1.5
    other.data.market.features[start:] *= -1.0
    ppo = other.ppo(128)
    moe = other.moe(ppo.model, 128)
    for stage, again in (("ppo", ppo), ("moe", moe), ("maml", other.maml(moe.model, 1))):
        np.testing.assert_array_equal(again.model.weights, trained[stage].model.weights)
