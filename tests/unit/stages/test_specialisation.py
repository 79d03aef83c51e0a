"""Is it said that experts specialise only where they do, and is every way in which they don't called by its name?"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
import torch

from rl.backtest.engine import Replay, replay_actions
from rl.policies.actor_critic import ActorCritic, build_policy
from rl.policies.encoders import MixtureParts
from rl.policies.forward import pack
from rl.stages.evaluation import replay_on
from rl.stages.expert_usage import expert_usage
from rl.stages.specialisation import (
    NEVER,
    KnockOut,
    Specialisation,
    expert_use,
    knock_out,
    mutual_information,
    shared_information,
    specialisation,
    without_expert,
)
from rl.stages.stage_model import StageModel, model_of
from rl.stages.symbol_data import SymbolData
from tests.builders import bars_from_closes
from tests.unit.stages.small_symbol import (
    BARS_PER_SESSION,
    MOVE,
    edge_bars,
    edge_table,
    small_plan,
    symbol_of,
)

PLAN = small_plan()
CAPITAL = 100_000.0
SHORT, FLAT, LONG = 0, 1, 2
MOOD = 1
"""Column of x_regime_mood, the only one the gate sees."""


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return symbol_of(edge_bars(sessions=200), PLAN)


# --- mixtures made by hand --------------------------------------------------------------------------------------------


def mixture(actions: list[int]) -> ActorCritic:
    """Return a mixture in which each expert knows one action, and the gate weighs all alike."""
    spec = {
        "encoder": "mixture",
        "observations": 7,
        "actions": 3,
        "experts": len(actions),
        "expert_hidden": [1],
        "gate_hidden": 2,
        "gate_inputs": [MOOD],
        "temperature": 1.0,
        "value_hidden": [1],
    }
    policy = build_policy(spec, seed=0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
        _, bias = policy.actor.expert_layers()[-1]
        for expert, action in enumerate(actions):
            bias[expert, action] = 20.0
    return policy


def gate_layers(policy: ActorCritic) -> list[torch.Tensor]:
    (hidden, hidden_bias), (out, bias) = policy.actor.gate.layers()
    return [hidden, hidden_bias, out, bias]


def led_by_mood(data: SymbolData, actions: list[int]) -> ActorCritic:
    """Return three experts of which the gate picks one by thirds of the mood on the training window."""
    policy = mixture(actions)
    start, stop = data.window("train")
    first, second = np.quantile(data.market.features[start:stop, MOOD], [1 / 3, 2 / 3])
    hidden, hidden_bias, out, _ = gate_layers(policy)
    with torch.no_grad():
        hidden[0, :] = 1e4
        hidden_bias[:] = torch.tensor([-1e4 * first, -1e4 * second])
        # Each unit is -1 below its limit and 1 above: scores (20, 0, -20), (-20, 40, -20), (-20, 0, 20).
        out[:] = torch.tensor([[-20.0, 20.0, 0.0], [0.0, -20.0, 20.0]])
    return policy


def with_constant_weights(policy: ActorCritic, weights: list[float]) -> ActorCritic:
    with torch.no_grad():
        gate_layers(policy)[3][:] = torch.tensor(weights).log()
    return policy


def moe(policy: ActorCritic) -> StageModel:
    return model_of("moe", policy, episodes=1, metrics={})


def replayed(data: SymbolData, policy: ActorCritic) -> Replay:
    return replay_on(data, pack(policy), "validation", scheme="target", capital=CAPITAL)


def found_on(data: SymbolData, policy: ActorCritic) -> Specialisation:
    return specialisation(data, moe(policy), "validation", replayed(data, policy), scheme="target", seed=1)


def moods(data: SymbolData) -> np.ndarray:
    """Return the third of the mood at each decision of the validation window, by hand."""
    start, stop = data.window("train")
    limits = np.quantile(data.table.values[start:stop, MOOD], [1 / 3, 2 / 3])
    start, stop = data.window("validation")
    return np.array([int((mood >= limits).sum()) for mood in data.table.values[start : stop - 1, MOOD]])


# --- the table --------------------------------------------------------------------------------------------------------


def test_experts_that_split_the_work_by_regime_are_seen_to_do_so(data):
    """The mood says nothing about what comes next: the split is a fact, and that it pays is not claimed."""
    found = found_on(data, led_by_mood(data, [LONG, FLAT, SHORT]))
    third = moods(data)
    assert found.regimes == ("low x_regime_mood", "middle x_regime_mood", "high x_regime_mood")
    assert found.regime_bars == tuple((third == place).sum() for place in range(3))
    for expert in range(3):
        assert found.experts[expert].leads == pytest.approx((third == expert).mean())
        for regime in range(3):
            cell = found.by_regime[expert][regime]
            assert cell.leads == (1.0 if expert == regime else 0.0)
            assert cell.gate_weight == pytest.approx(1.0 if expert == regime else 0.0, abs=1e-6)
    assert found.use.switching_rate == pytest.approx(np.mean(third[1:] != third[:-1]))
    assert found.use.gate_entropy < 1e-6
    assert found.information.normalised == pytest.approx(1.0)
    assert found.follows_regimes
    assert not found.assignment.pays
    assert not found.specialises
    assert found.verdict().startswith("The gate follows the regimes (")
    assert "that it pays who leads when is not shown" in found.verdict()


def moody_edge() -> SymbolData:
    """Return a symbol that rises in the highest third of its mood and falls in the lowest, by more than chance."""
    bars = edge_bars(sessions=200)
    mood = bars.extra["x_regime_mood"]
    drift = 0.2 * MOVE * np.where(mood > 0.43, 1.0, np.where(mood < -0.43, -1.0, 0.0))
    closes = bars.close * np.exp(np.concatenate([[0.0], np.cumsum(drift[:-1])]))
    moved = bars_from_closes(closes, symbol=bars.symbol, bars_per_session=BARS_PER_SESSION, extra=bars.extra)
    return symbol_of(moved, PLAN)


def test_a_backtest_finds_of_the_same_bars_what_the_training_report_found(data):
    """Two reports of one thing may not differ, and the backtest leaves out only the trials."""
    policy = led_by_mood(data, [LONG, FLAT, SHORT])
    replay = replayed(data, policy)
    whole = json.loads(json.dumps(found_on(data, policy).as_dict()))
    weights = policy.flat_parameters().detach().numpy()
    usage = expert_usage(data, policy.spec, weights, replay, split="validation", seed=1)
    assert usage is not None
    assert set(whole) - set(usage) == {
        "knock_outs", "assignment", "follows_regimes", "collapses", "specialises", "verdict",
    }  # fmt: skip
    assert json.loads(json.dumps(usage)) == {name: whole[name] for name in usage}
    assert expert_usage(data, {"encoder": "mlp"}, weights, replay, split="validation", seed=1) is None


def test_experts_specialise_where_the_gate_follows_the_regimes_and_that_pays():
    moody = moody_edge()
    found = found_on(moody, led_by_mood(moody, [SHORT, FLAT, LONG]))
    assert found.follows_regimes
    assert found.assignment.pays
    assert found.specialises
    assert found.verdict().startswith("Experts specialise, and it pays: who leads depends on the regime (")
    against = found_on(moody, led_by_mood(moody, [LONG, FLAT, SHORT]))
    assert against.follows_regimes
    assert not against.specialises


def quick_moods() -> SymbolData:
    """Return a symbol whose mood is drawn anew on every bar, so that the lead seldom lasts."""
    bars = edge_bars(sessions=200)
    mood = np.random.default_rng(4).normal(size=len(bars))
    return symbol_of(replace(bars, extra={**bars.extra, "x_regime_mood": mood}), PLAN)


@pytest.mark.parametrize("moods_last", ["a session", "a bar"])
def test_what_the_account_does_is_counted_for_the_expert_that_leads(data, moods_last):
    data = data if moods_last == "a session" else quick_moods()
    policy = led_by_mood(data, [LONG, FLAT, SHORT])
    replay, third = replayed(data, policy), moods(data)
    found = specialisation(data, moe(policy), "validation", replay, scheme="target", seed=1)
    for expert, side in enumerate(("long", "flat", "short")):
        record = found.experts[expert]
        assert {name: getattr(record, name) for name in ("short", "flat", "long")} == {
            "short": 0.0,
            "flat": 0.0,
            "long": 0.0,
            side: 1.0,
        }
        gained = np.diff(replay.equity)[third == expert].sum() / CAPITAL
        assert record.return_contribution == pytest.approx(gained, abs=1e-12)
    total = sum(record.return_contribution for record in found.experts)
    assert total == pytest.approx(replay.equity[-1] / CAPITAL - 1.0, abs=1e-12)
    # A position lasts as long as its mood does; the one still open at the end is no trade.
    runs = [(int(mood), len(list(run))) for mood, run in groupby(third)]
    for expert in (0, 2):
        lengths = [length for mood, length in runs[:-1] if mood == expert]
        assert found.experts[expert].mean_holding_bars == pytest.approx(np.mean(lengths))
    assert found.experts[1].mean_holding_bars is None


def test_the_cells_of_an_expert_add_up_to_its_record(data):
    """Weights (0.5, 0.3, 0.2): the first always leads, whatever the regime."""
    found = found_on(data, with_constant_weights(mixture([LONG, SHORT, FLAT]), [0.5, 0.3, 0.2]))
    assert [record.leads for record in found.experts] == [1.0, 0.0, 0.0]
    assert [record.gate_weight for record in found.experts] == pytest.approx([0.5, 0.3, 0.2])
    for expert in range(3):
        parts = [cell.return_contribution for cell in found.by_regime[expert]]
        assert sum(parts) == pytest.approx(found.experts[expert].return_contribution)
    assert found.experts[1].long is None
    assert found.experts[1].return_contribution == 0.0


def test_a_ruined_account_decides_nothing_more(data):
    """Short at the largest exposure through a rise of 1 % a bar: ruined long before the window ends."""
    bars = edge_bars(sessions=200)
    closes = 100.0 * np.exp(0.01 * np.arange(len(bars)))
    opens = np.concatenate([closes[:1], closes[:-1]])
    rising = replace(bars, open=opens, high=closes, low=opens, close=closes)
    symbol = symbol_of(rising, small_plan("environment.ruin_level=0.9"))
    policy = mixture([SHORT, SHORT])
    replay = replayed(symbol, policy)
    assert replay.was_ruined
    assert replay.decisions < len(replay.decided)
    found = specialisation(symbol, moe(policy), "validation", replay, scheme="target", seed=1)
    assert found.experts[0].short == 1.0
    assert found.experts[0].flat == 0.0


def test_bars_without_features_on_which_nobody_decides_are_left_out():
    bars = edge_bars(sessions=200)
    start, stop = symbol_of(bars, PLAN).window("validation")
    usable = np.ones(len(bars), dtype=bool)
    usable[start + 40 : start + 90] = False
    data = symbol_of(bars, PLAN, table=replace(edge_table(bars), usable=usable))
    found = found_on(data, with_constant_weights(mixture([LONG, SHORT]), [0.6, 0.4]))
    assert sum(found.regime_bars) == stop - 1 - start - 50
    assert found.experts[0].long == 1.0, "an account that may not decide is flat, but that is nobody's choice"


def test_everything_found_can_be_written_as_json(data):
    found = found_on(data, led_by_mood(data, [LONG, FLAT, SHORT])).as_dict()
    assert json.loads(json.dumps(found, allow_nan=False))["verdict"].startswith("The gate follows")
    assert [len(row) for row in found["by_regime"]] == [3, 3, 3]
    assert found["knock_outs"][0].keys() == {"return_change", "actions_changed", "is_dispensable"}


# --- the verdict ------------------------------------------------------------------------------------------------------


def test_a_gate_that_has_learned_nothing_is_not_called_specialised(data):
    found = found_on(data, mixture([LONG, FLAT, SHORT, LONG]))
    assert found.information.nats == 0.0
    assert found.information.p == 1.0
    assert found.use.effective_experts == pytest.approx(4.0)
    assert found.use.gate_entropy == pytest.approx(math.log(4))
    assert found.use.switching_rate == 0.0
    assert not found.specialises
    assert found.verdict().startswith("Experts do not specialise: uniform gate")


def test_clones_led_by_regime_are_not_called_specialised(data):
    """Who leads depends on the regime perfectly, and nothing depends on who leads."""
    found = found_on(data, led_by_mood(data, [LONG, LONG, LONG]))
    assert found.information.p < 0.05
    assert not found.specialises
    assert found.verdict().startswith("Experts do not specialise: clones")


def test_different_experts_led_by_something_else_than_the_regime_are_not_called_specialised(data):
    """The healthy gate of the first test, while regimes are another column's: of the same length, drawn apart."""
    other = np.repeat(np.random.default_rng(5).integers(0, 3, size=200), 25)
    values = np.column_stack([data.table.values, other]).astype(np.float32)
    table = replace(data.table, values=values, names=("x_edge", "mood", "x_regime"))
    found = found_on(replace(data, table=table), led_by_mood(data, [LONG, FLAT, SHORT]))
    assert found.use.collapses() == []
    assert found.information.nats > 0.01, "two columns of few sessions always share something"
    assert not found.specialises
    assert found.verdict().startswith(
        "Experts do not specialise: who leads depends on the regime no more than"
    )


def test_a_window_of_one_regime_leaves_nothing_to_specialise_in(data):
    values = np.column_stack([data.table.values, np.ones(len(data.bars))]).astype(np.float32)
    table = replace(data.table, values=values, names=("x_edge", "mood", "x_regime"))
    found = found_on(replace(data, table=table), led_by_mood(data, [LONG, FLAT, SHORT]))
    assert found.regimes == ("x_regime 1",)
    assert found.information.nats == 0.0
    assert "the window holds one regime only" in found.verdict()


def test_one_seed_gives_one_finding(data):
    policy = led_by_mood(data, [LONG, FLAT, SHORT])
    assert found_on(data, policy) == found_on(data, policy)


# --- collapses --------------------------------------------------------------------------------------------------------

DISTINCT = torch.tensor(
    [[0.90, 0.05, 0.05], [0.05, 0.90, 0.05], [0.05, 0.05, 0.90], [0.45, 0.10, 0.45]]
).log()
TURNS = 0.05 + 0.80 * torch.eye(4)
"""Bar t is expert t's, with 0.85 of the weight."""


def parts(gate: torch.Tensor, experts: torch.Tensor = DISTINCT) -> MixtureParts:
    """Return 400 bars: the rows of gate over and over, and experts that always say the same."""
    bars = gate.repeat(400 // len(gate), 1)
    return MixtureParts(bars.log(), experts.expand(len(bars), -1, -1))


def constant(*weights: float) -> torch.Tensor:
    return torch.tensor([weights])


def test_a_healthy_mixture_is_not_flagged():
    use = expert_use(parts(TURNS))
    assert use.collapses() == []
    assert use.mean_gate_weight == pytest.approx([0.25] * 4)
    assert use.effective_experts == pytest.approx(4.0)
    assert use.gate_entropy == pytest.approx(-0.85 * math.log(0.85) - 3 * 0.05 * math.log(0.05), rel=1e-5)
    assert use.gate_information == pytest.approx(math.log(4) - use.gate_entropy)
    assert use.switching_rate == 1.0
    assert use.divergence == pytest.approx(use.plain_divergence, rel=1e-5)


@pytest.mark.parametrize(
    ("gate", "experts", "words"),
    [
        (TURNS, DISTINCT[:1].repeat(4, 1), "clones: "),
        (constant(0.001, 0.997, 0.001, 0.001), DISTINCT, "one-hot gate: expert 2 has 99.7% of the weight"),
        (constant(0.25, 0.25, 0.25, 0.25), DISTINCT, "uniform gate: "),
        (torch.tensor([[0.980, 0.010, 0.005, 0.005], [0.010, 0.980, 0.005, 0.005]]), DISTINCT,
         "unused experts: 3, 4 "),
        (torch.tensor([[0.90, 0.04, 0.03, 0.03], [0.70, 0.24, 0.03, 0.03]]), DISTINCT, "lopsided gate: "),
        (TURNS, DISTINCT[:1].repeat(4, 1) + torch.tensor([[0.0, 0.0, 0.1]]), "clones: "),
        (torch.tensor([[0.970, 0.020, 0.005, 0.005], [0.020, 0.970, 0.005, 0.005]]), DISTINCT[[0, 0, 1, 2]],
         "clones in use: "),
        (constant(0.6, 0.2, 0.1, 0.1), DISTINCT, "constant gate: "),
    ],
    ids=["clones", "one-hot", "uniform", "unused", "lopsided", "near clones", "clones in use", "constant"],
)  # fmt: skip
def test_each_collapse_is_called_by_its_name(gate, experts, words):
    found = expert_use(parts(gate, experts)).collapses()
    assert any(reason.startswith(words) for reason in found), found


@pytest.mark.parametrize("gate", [TURNS, constant(0.25, 0.25, 0.25, 0.25)], ids=["clones", "uniform gate"])
def test_usage_alone_cannot_tell_a_dead_mixture(gate):
    """Both dead mixtures use their experts exactly as the healthy one does."""
    dead = expert_use(parts(gate, DISTINCT[:1].repeat(4, 1)))
    healthy = expert_use(parts(TURNS))
    assert dead.mean_gate_weight == pytest.approx(healthy.mean_gate_weight)
    assert dead.effective_experts == pytest.approx(healthy.effective_experts)
    assert dead.collapses()


def test_a_one_hot_gate_between_different_experts_is_not_called_clones():
    found = expert_use(parts(constant(0.001, 0.997, 0.001, 0.001))).collapses()
    assert len(found) == 1


def test_a_mixture_that_collapsed_in_two_ways_is_told_both():
    found = expert_use(parts(constant(0.25, 0.25, 0.25, 0.25), DISTINCT[:1].repeat(4, 1))).collapses()
    assert [reason.split(":")[0] for reason in found] == ["clones", "uniform gate"]


def test_two_experts_can_be_healthy_too():
    """With two experts 2.5 in effect cannot be: the demand is the same share of them."""
    gate = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    assert expert_use(parts(gate, DISTINCT[:2])).collapses() == []


# --- mutual information -----------------------------------------------------------------------------------------------


def test_mutual_information_by_hand():
    # p(e, r) is 0.4 on the diagonal and 0.1 beside it; every row and column has a half.
    expected = 2 * 0.4 * math.log(0.4 / 0.25) + 2 * 0.1 * math.log(0.1 / 0.25)
    assert mutual_information(np.array([[40, 10], [10, 40]])) == pytest.approx(expected, rel=1e-12)
    assert mutual_information(np.array([[7, 0, 0], [0, 7, 0], [0, 0, 7]])) == pytest.approx(math.log(3))
    assert mutual_information(np.array([[10, 20, 30], [20, 40, 60]])) == pytest.approx(0.0, abs=1e-15)


def test_normalised_information_by_hand():
    leader = np.array([0] * 50 + [1] * 50)
    regime = np.array([0] * 40 + [1] * 10 + [0] * 10 + [1] * 40)
    found = shared_information(leader, regime, np.random.default_rng(0))
    nats = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    assert found.nats == pytest.approx(nats)
    # Both entropies are ln 2.
    assert found.normalised == pytest.approx(nats / math.log(2))


def persistent(rng: np.random.Generator, bars: int, states: int = 3, stay: float = 0.97) -> np.ndarray:
    """Return a chain that keeps its state with probability `stay`, else draws one anew."""
    drawn = rng.integers(0, states, size=bars)
    begins = np.flatnonzero((rng.random(bars) > stay) | (np.arange(bars) == 0))
    return drawn[begins[np.searchsorted(begins, np.arange(bars), side="right") - 1]]


def shuffled_p(leader: np.ndarray, regime: np.ndarray, rng: np.random.Generator) -> float:
    """Return the p value that shuffling single bars would give: not this module's, and wrong."""

    def nats(moved: np.ndarray) -> float:
        return mutual_information(np.bincount(3 * leader + moved, minlength=9).reshape(3, 3))

    seen = nats(regime)
    return (1 + sum(nats(rng.permutation(regime)) >= seen for _ in range(99))) / 100


def test_p_is_uniform_where_persistent_regimes_and_leaders_have_nothing_to_do_with_each_other():
    rng = np.random.default_rng(2)
    p, shuffled = [], []
    for _ in range(150):
        leader, regime = persistent(rng, 500), persistent(rng, 500)
        p.append(shared_information(leader, regime, rng, shifts=99).p)
        if len(shuffled) < 40:
            shuffled.append(shuffled_p(leader, regime, rng))
    # Standard errors of these shares of 150: 0.018 and 0.041.
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * 0.018
    assert abs(np.mean(np.array(p) <= 0.5) - 0.5) <= 3 * 0.041
    assert np.mean(np.array(shuffled) <= 0.05) > 0.5, "shuffled bars would find regimes everywhere"


def test_p_is_small_where_the_leader_follows_the_regime_some_of_the_time():
    rng = np.random.default_rng(3)
    p = []
    for _ in range(20):
        regime = persistent(rng, 2000)
        follows = persistent(rng, 2000, states=10) < 6
        leader = np.where(follows, regime, persistent(rng, 2000))
        p.append(shared_information(leader, regime, rng, shifts=199).p)
    assert np.mean(np.array(p) < 0.05) >= 0.9


def test_p_counts_the_table_as_it_is_and_never_is_0():
    regime = np.array([0] * 8 + [1] * 8)
    found = shared_information(regime, regime, np.random.default_rng(0))
    # Of the 15 shifts only the one by half the window gives as much: there each leader has the other regime.
    assert found.shifts == 15
    assert found.p == 2 / 16


def test_one_leader_throughout_says_nothing():
    found = shared_information(np.zeros(100, dtype=int), np.arange(100) % 3, np.random.default_rng(0))
    assert (found.nats, found.normalised, found.p) == (0.0, 0.0, 1.0)


# --- knock-out --------------------------------------------------------------------------------------------------------


def test_the_others_share_the_weight_of_an_expert_taken_out_in_proportion():
    policy = with_constant_weights(mixture([LONG, FLAT, SHORT]), [0.5, 0.3, 0.2])
    before = policy.flat_parameters()
    with torch.no_grad():
        weights = without_expert(policy, 0).mixture_parts(torch.zeros((1, 7))).gate_probs[0]
    assert weights.tolist() == pytest.approx([0.0, 0.6, 0.4])
    assert weights[0] == 0.0
    assert torch.equal(policy.flat_parameters(), before)


def test_taking_out_an_expert_that_has_no_weight_changes_nothing(data):
    policy = led_by_mood(data, [LONG, FLAT, SHORT])
    with torch.no_grad():
        gate_layers(policy)[3][1] = NEVER
    replay = replayed(data, policy)
    found = knock_out(data, policy, 1, "validation", replay, scheme="target")
    assert found == KnockOut(return_change=0.0, actions_changed=0.0)
    assert found.is_dispensable
    listed = specialisation(data, moe(policy), "validation", replay, scheme="target", seed=1)
    assert listed.knock_outs[1] is None
    assert listed.knock_outs[0] is not None


def test_taking_out_an_expert_leaves_its_bars_to_the_next_in_line(data):
    """Weights (0.6, 0.4) of always long and always short: without the first the account is short throughout."""
    policy = with_constant_weights(mixture([LONG, SHORT]), [0.6, 0.4])
    replay = replayed(data, policy)
    window = data.window("validation")
    short = replay_actions(
        data.market, window, data.rules, np.full(len(replay.actions), SHORT), capital=CAPITAL
    )
    found = knock_out(data, policy, 0, "validation", replay, scheme="target")
    assert found.actions_changed == 1.0
    assert found.return_change == pytest.approx((short.equity[-1] - replay.equity[-1]) / CAPITAL, abs=1e-12)
    assert abs(found.return_change) > 0.001
    assert not found.is_dispensable


def test_an_expert_that_never_has_its_way_is_dispensable(data):
    """It is in use by weight, but the others outvote it on every bar."""
    policy = with_constant_weights(mixture([LONG, LONG, SHORT]), [0.4, 0.4, 0.2])
    found = found_on(data, policy)
    assert found.knock_outs[2] == KnockOut(return_change=0.0, actions_changed=0.0)
    assert found.knock_outs[2].is_dispensable
