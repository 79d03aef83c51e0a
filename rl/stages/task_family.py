"""Stage 3 on a family of markets where it is known what adapting can earn.

In every market of the family (`task` of `rl.market.synthetic`) the next return follows two observed features along one
direction, an angle drawn anew for each market. What holds in one market loses in another, so a policy that does not
adapt cannot earn; one that has seen enough bars of a market can earn nearly what knowing its direction would.

Everything else is the product's own: features, scaler, kernel, the policy of the stage before, the meta-learner, its
tasks and the deterministic replay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rl.algorithms.adaptation import Parameters, adapt
from rl.algorithms.maml import MAML, MAMLConfig
from rl.algorithms.ppo import PPO
from rl.checkpoints.adaptation import flat_weights
from rl.common.seeding import generator
from rl.envs.scaled_market import bar_volatility, scaled_market
from rl.envs.tasks import task_windows
from rl.envs.vector_env import VectorTradingEnv
from rl.features.pipeline import FeatureTable, longest_lookback_bars
from rl.features.scaler import FeatureScaler
from rl.market.bars import Bars
from rl.market.oracles import evaluate_positions, oracle_of
from rl.market.synthetic import SyntheticMarket, generate
from rl.policies.actor_critic import ActorCritic, build_policy
from rl.policies.mixture import warm_start_mixture
from rl.stages.adaptation_proof import PlainSteps, plain_growth, tuned_steps
from rl.stages.known_answer import BARS_PER_SESSION, KnownMarket
from rl.stages.maml_stage import TaskPool, expert_losses, maml_config
from rl.stages.meta_selection import MetaSelection, meta_trained
from rl.stages.moe_stage import regulariser
from rl.stages.plan import Plan
from rl.stages.policy_training import ppo_config
from rl.stages.symbol_data import gate_columns, symbol_rules
from rl.stages.trading_tasks import TaskMarket, TradingTask
from rl.trading.kernel import ACCOUNT_FEATURES, ACTION_COUNTS
from rl.trading.market_arrays import joined

Start = Literal["ppo", "moe"]

MARKET = KnownMarket(kind="task", cost_bp=0.25)
PURGE_BARS = 1
"""A position taken on the last support bar is held over the next one."""

TRAINING_MARKETS = 400
TUNING_MARKETS = 30
TEST_MARKETS = 300

PARENT_STEPS = {"ppo": 81_920, "moe": 40_960}
"""Steps of training on all training markets together. There is nothing to learn but to stay flat."""

MEASURED_STEPS = (0, 1, 3, 7)


@dataclass(frozen=True, kw_only=True)
class FamilyResult:
    """What was earned on the query bars of each test market, in bp per bar, net of costs. Axes: W markets."""

    support_bars: int
    steps: tuple[int, ...]
    """Inner steps after which the meta-learned policy was judged, rising. (C,)"""
    adapted: np.ndarray
    """Of the meta-learned policy after so many steps. (W, C)"""
    other_support: np.ndarray
    """Of it after the last number of steps on the support of another market. (W,)"""
    fine_tuned: np.ndarray
    """Of the policy meta-training began from, after as many plain steps, tuned in size and in what they change. (W,)"""
    fine_tune: PlainSteps
    random_start: np.ndarray
    """Of a network of the same shape started at random, another for each market, tuned likewise. (W,)"""
    random_start_steps: PlainSteps
    oracle: np.ndarray
    """Of the best policy that knows the direction. (W,)"""
    entropy_at_start: float
    """Of the policy meta-training began from, on its first rollouts, in nats; ln 3 = 1.10 is undecided."""
    step_sizes: dict[str, float]
    """Learned inner step size of each tensor."""

    def share(self, earned: np.ndarray) -> float:
        """Return earnings as a share of the oracle's, both means over markets: in one market alone it may earn 0."""
        return float(earned.mean() / self.oracle.mean())

    def after(self, steps: int) -> np.ndarray:
        """Return what the meta-learned policy earned after a measured number of steps. (W,)"""
        return self.adapted[:, self.steps.index(steps)]


@dataclass(frozen=True, kw_only=True)
class FamilyMarket:
    """One market of the family, drawn. T bars."""

    drawn: SyntheticMarket
    bars: Bars
    table: FeatureTable
    first: int
    """First row whose features are defined."""


class Family:
    """Markets to train on, to tune step sizes on and to be judged on, each with a direction of its own."""

    def __init__(self, seed: int, plan: Plan, support_bars: int, test_markets: int) -> None:
        """Draw all markets and fit the scaler on those of training."""
        self.plan = plan
        self.support_bars = support_bars
        self.query_bars = plan.training_params.maml.query_sessions * BARS_PER_SESSION
        bars = longest_lookback_bars() + support_bars + PURGE_BARS + self.query_bars
        self.training = drawn_markets(TRAINING_MARKETS, bars, seed, "training")
        self.tuning = drawn_markets(TUNING_MARKETS, bars, seed, "tuning")
        self.test = drawn_markets(test_markets, bars, seed, "test")
        tables = [each.table for each in self.training]
        self.scaler = FeatureScaler.fit(
            np.concatenate([table.values[table.usable] for table in tables]), tables[0].names
        )
        volatilities = [bar_volatility(each.bars, (each.first, len(each.bars))) for each in self.training]
        self.rules = symbol_rules(plan, MARKET.instrument(), float(np.sqrt(np.mean(np.square(volatilities)))))

    def on(self, market: FamilyMarket) -> TaskMarket:
        """Return a market as tasks take it."""
        return TaskMarket(
            symbol=MARKET.symbol,
            market=scaled_market(market.bars, market.table, market.table.names, self.scaler),
            rules=self.rules,
            first=market.first,
            stop=len(market.bars),
        )

    def tasks(self, markets: Sequence[FamilyMarket], spec: dict[str, Any]) -> list[TradingTask]:
        """Return one task for each market: support from its first usable bar on, the query after it."""
        tasks = []
        for each in markets:
            window = task_windows(
                MARKET.symbol,
                (each.first, len(each.bars)),
                support_bars=self.support_bars,
                query_bars=self.query_bars,
                purge_bars=PURGE_BARS,
            )[0]
            tasks.append(TradingTask(self.on(each), window, spec, self.plan))
        return tasks


def drawn_markets(count: int, bars: int, seed: int, purpose: str) -> list[FamilyMarket]:
    """Draw markets of at least so many bars, directions uniform on the circle."""
    rng = generator(seed, "task family", purpose)
    markets = []
    for _ in range(count):
        drawn = generate(
            MARKET.kind,
            -(-bars // BARS_PER_SESSION),
            int(rng.integers(2**31)),
            BARS_PER_SESSION,
            theta=float(rng.uniform(0.0, 2.0 * math.pi)),
        )
        shown, table = MARKET.features(drawn)
        markets.append(FamilyMarket(drawn=drawn, bars=shown, table=table, first=int(np.argmax(table.usable))))
    return markets


def oracle_growth(market: FamilyMarket, query: tuple[int, int]) -> float:
    """Return what knowing the direction earns on the query bars, in bp per bar."""
    rows = slice(*query)
    signals = {name: column[rows] for name, column in market.drawn.signals.items()}
    positions = oracle_of(market.drawn, cost_bp=MARKET.cost_bp).positions(signals)
    return evaluate_positions(positions, market.drawn.returns[rows], MARKET.cost_bp)


def trained_start(family: Family, start: Start, seed: int) -> ActorCritic:
    """Return what stage 3 begins from: PPO on all training markets, for `moe` a mixture grown out of that network."""
    plan = family.plan
    markets = [family.on(each) for each in family.training]
    arrays, offsets = joined([each.market for each in markets])
    windows = [
        (int(offset) + each.first, int(offset) + each.stop)
        for offset, each in zip(offsets, markets, strict=False)
    ]

    def envs() -> VectorTradingEnv:
        return VectorTradingEnv(
            arrays,
            windows,
            [family.rules] * len(windows),
            num_envs=plan.training_params.ppo.num_envs,
            episode_bars=plan.environment.episode_bars,
        )

    ppo = plan.training_params.ppo
    hidden = [ppo.hidden_dim] * ppo.hidden_layers
    sizes = {"observations": arrays.feature_count + ACCOUNT_FEATURES, "actions": ACTION_COUNTS["target"]}
    policy = build_policy({"encoder": "mlp", **sizes, "hidden": hidden}, seed)
    PPO(policy, envs(), ppo_config(plan), seed).train(PARENT_STEPS["ppo"])
    if start == "ppo":
        return policy
    moe = plan.training_params.moe
    spec = {
        "encoder": "mixture",
        **sizes,
        "experts": moe.num_experts,
        "expert_hidden": [moe.expert_hidden_dim] * ppo.hidden_layers,
        "gate_hidden": moe.gating_hidden_dim,
        "gate_inputs": list(gate_columns(family.scaler.feature_of_columns(), family.training[0].table)),
        "temperature": moe.gating_temperature,
        "value_hidden": hidden,
    }
    mixture = warm_start_mixture(policy, spec, noise=moe.expert_init_noise, seed=seed)
    PPO(mixture, envs(), ppo_config(plan), seed, auxiliary_loss=regulariser(plan)).train(PARENT_STEPS["moe"])
    return mixture


def adapt_to_family(
    seed: int,
    plan: Plan | None = None,
    support_bars: int = BARS_PER_SESSION,
    *,
    start: Start = "moe",
    test_markets: int = TEST_MARKETS,
    report: Callable[[dict[str, float]], None] | None = None,
) -> FamilyResult:
    """Meta-train on the family and judge adaptation on markets of other directions.

    Args:
        seed: Decides every draw.
        plan: Settings of all stages; the shipped ones where None.
        support_bars: Bars of each market that may be adapted on.
        start: What meta-training starts from: the PPO network, or the mixture grown out of it, as in the product.
        test_markets: W.
        report: Called after every meta-iteration with its figures.
    """
    plan = plan or Plan()
    family = Family(seed, plan, support_bars, test_markets)
    policy = trained_start(family, start, seed)
    parent = _copied(policy)
    config = maml_config(plan)
    pool = TaskPool({MARKET.symbol: family.tasks(family.training, policy.spec)})
    learner = MAML(policy, pool, config, seed, auxiliary_loss=expert_losses(policy.spec, plan))
    tuning = family.tasks(family.tuning, policy.spec)
    selection = MetaSelection(policy, learner.step_sizes(), tuning, config, seed)
    history = meta_trained(learner, policy, selection, config.iterations, report).history
    entropy = float(history[0]["entropy_before"])
    return _judged(family, selection.policy, selection.step_sizes, parent, config, seed, entropy)


def _judged(
    family: Family,
    policy: ActorCritic,
    step_sizes: Parameters,
    parent: ActorCritic,
    config: MAMLConfig,
    seed: int,
    entropy: float,
) -> FamilyResult:
    steps = config.inner_loop_steps
    measured = tuple(sorted({*(step for step in MEASURED_STEPS if step <= steps), steps}))
    tuning = family.tasks(family.tuning, policy.spec)
    tests = family.tasks(family.test, policy.spec)

    def fine_tuned(task: TradingTask, steps: PlainSteps, stream: str, row: int) -> float:
        return plain_growth(parent, task, steps, generator(seed, stream, row), config)

    def from_random(task: TradingTask, steps: PlainSteps, stream: str, row: int) -> float:
        own = int(generator(seed, "random start", stream, row).integers(2**31))
        start = build_policy(policy.spec, own)
        return plain_growth(start, task, steps, generator(seed, stream, row), config)

    adapted = np.empty((len(tests), len(measured)))
    reached: list[np.ndarray] = []
    for row, task in enumerate(tests):

        def note(step: int, params: Parameters, row: int = row, task: TradingTask = task) -> None:
            if step in measured:
                weights = flat_weights(params)
                adapted[row, measured.index(step)] = task.query_growth(weights)
                if step == steps:
                    reached.append(weights)

        adapt(policy, step_sizes, task.support, steps, generator(seed, "test", row), config, on_step=note)
    of_parent, of_random = tuned_steps(tuning, fine_tuned), tuned_steps(tuning, from_random)
    others = [reached[row - 1] for row in range(len(tests))]
    return FamilyResult(
        support_bars=family.support_bars,
        steps=measured,
        adapted=1e4 * adapted,
        other_support=_bp(task.query_growth(weights) for task, weights in zip(tests, others, strict=True)),
        fine_tuned=_bp(fine_tuned(task, of_parent, "test", row) for row, task in enumerate(tests)),
        fine_tune=of_parent,
        random_start=_bp(from_random(task, of_random, "test", row) for row, task in enumerate(tests)),
        random_start_steps=of_random,
        oracle=np.array(
            [
                oracle_growth(market, task.window.query)
                for market, task in zip(family.test, tests, strict=True)
            ]
        ),
        entropy_at_start=entropy,
        step_sizes={name: float(size) for name, size in step_sizes.items()},
    )


def _copied(policy: ActorCritic) -> ActorCritic:
    copy = build_policy(policy.spec, 0)
    copy.load_flat(policy.flat_parameters())
    return copy


def _bp(growths: Iterable[float]) -> np.ndarray:
    return 1e4 * np.array(list(growths))
