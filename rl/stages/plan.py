"""The training plan: every key of `config/training_sequence.yaml`, checked, with that file's defaults.

`load_plan` reads a plan file, lays a profile and the command line's `--set` over it, and refuses every
mistake at once. A file may hold only what differs from the defaults below.
"""

from __future__ import annotations

import itertools
import json
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue

from rl.common.errors import ConfigError, UsageError, nearest
from rl.common.paths import checked_symbol
from rl.common.sizes import MOST_INNER_STEPS, MOST_PARAMETERS, MOST_SUPPORT_STEPS
from rl.common.strict_config import (
    Finding,
    KeyPath,
    LoadedYaml,
    Problem,
    Setting,
    StrictModel,
    apply_options,
    apply_overrides,
    check,
    dotted,
    dump_yaml,
    in_order,
    layered,
    load_yaml,
    origins,
    refusal,
    written_out,
)

StageName = Literal["ppo", "moe", "maml"]

STAGES: tuple[StageName, ...] = ("ppo", "moe", "maml")
"""The stages, in the order they are trained."""

STAGE_KEYS: dict[StageName, str] = {"ppo": "stage_1_ppo", "moe": "stage_2_moe", "maml": "stage_3_maml"}
"""What the plan file calls each stage."""

FULL = "full"
"""The profile that changes nothing."""

SHIPPED_PROFILES = Path(__file__).resolve().parents[2] / "plans"
"""Each file here is a profile, and a plan of its own: it holds what differs from the defaults below."""

SAME_FOR_ALL_SYMBOLS = ("symbols", "monitoring", "model_management")
"""Blocks that a symbol cannot override: they are about the whole run and its files."""

SAME_KEYS_FOR_ALL_SYMBOLS = (("evidence", "alpha"), ("evidence", "false_discovery_rate"))
"""Single keys of which the same holds: how often a run may be wrong is promised for the run as a whole. Whoever could
choose it symbol by symbol would loosen it where a model failed."""

Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
CountOrNone = Annotated[int, Field(ge=0, le=1_000_000_000)]
AtLeastTwo = Annotated[int, Field(ge=2, le=1_000_000_000)]
Width = Annotated[int, Field(ge=1, le=4096)]
"""Units of a layer. A slip of the keyboard must not ask for more memory than there is."""
Layers = Annotated[int, Field(ge=1, le=16)]
Experts = Annotated[int, Field(ge=2, le=64)]
Lanes = Annotated[int, Field(ge=1, le=65_536)]
Rollout = Annotated[int, Field(ge=1, le=65_536)]
TaskSteps = Annotated[int, Field(ge=2, le=MOST_SUPPORT_STEPS)]
InnerSteps = Annotated[int, Field(ge=1, le=MOST_INNER_STEPS)]

MOST_TRANSITIONS = 1 << 24
"""Of one rollout over all accounts; each keeps an observation of about a hundred numbers in memory."""


# --- training_sequence --------------------------------------------------------------------------------------


class SuccessCriteria(StrictModel):
    """What a stage's model has to show on the validation window, after costs. null: not asked for."""

    min_win_rate: Share | None = None
    """Winning trades / closed trades."""

    min_profit_factor: NotNegative | None = None
    """Money won / money lost over closed trades; 1 is break-even."""

    max_drawdown: PositiveShare | None = None
    """Deepest fall of marked equity from its peak, as a fraction of the peak."""

    min_trades: Count | None = None
    """Closed trades needed before a verdict; null: `evidence.min_trades`."""

    min_sessions: AtLeastTwo | None = None
    """Trading days needed before a verdict; null: `evidence.min_sessions`."""


class PPOCriteria(SuccessCriteria):
    """Criteria of stage 1."""

    min_win_rate: Share | None = 0.35
    min_profit_factor: NotNegative | None = 0.8
    max_drawdown: PositiveShare | None = 0.4


class MoECriteria(SuccessCriteria):
    """Criteria of stage 2."""

    min_win_rate: Share | None = 0.40
    min_profit_factor: NotNegative | None = 1.0
    max_drawdown: PositiveShare | None = 0.35


class MAMLCriteria(SuccessCriteria):
    """Criteria of stage 3."""

    min_adaptation_speed: Count | None = 3
    """Most adaptation episodes until the adapted policy's mean query return is above the unadapted one's."""

    min_cross_symbol_performance: NotNegative | None = 0.85
    """Adapted return on held-out symbols / return there of the stage-2 model trained on that symbol."""


class Stage(StrictModel):
    """What all stages state."""

    algorithm: str
    """Which stage this is; each stage allows its own only."""

    description: str = ""
    """One line for reports."""

    prerequisites: tuple[str, ...] = ()
    """Each names, in any wording, an earlier stage (PPO, MoE) whose model has to exist before this starts."""

    objectives: tuple[str, ...] = ()
    """Lines for reports."""


class PPOStage(Stage):
    """Stage 1: one policy network, trained by PPO."""

    algorithm: Literal["PPO"] = "PPO"
    episodes: Count = 500
    description: str = "Baseline trader, and proof that environment and reward work"
    objectives: tuple[str, ...] = (
        "Learn patterns that pay after costs",
        "Validate the environment and the reward",
        "Set the baseline that later stages have to beat",
    )
    success_criteria: PPOCriteria = PPOCriteria()


class MoEStage(Stage):
    """Stage 2: a mixture of expert networks, started from stage 1 and trained by PPO."""

    algorithm: Literal["MoE"] = "MoE"
    episodes: Count = 800
    description: str = "Experts for different market conditions"
    prerequisites: tuple[str, ...] = ("Successful completion of PPO",)
    objectives: tuple[str, ...] = (
        "Train experts that differ",
        "Send each market condition to the expert that earns in it",
        "Improve on the baseline",
    )
    success_criteria: MoECriteria = MoECriteria()


class MAMLStage(Stage):
    """Stage 3: the start from which a few adaptation steps go furthest."""

    algorithm: Literal["MAML"] = "MAML"
    meta_iterations: Count = 150
    description: str = "Fast adaptation to new conditions"
    prerequisites: tuple[str, ...] = ("Successful completion of MoE",)
    objectives: tuple[str, ...] = (
        "Adapt within a few episodes to new conditions and symbols",
        "Generalise across symbols and bar lengths",
        "Fine-tune for the newest data",
    )
    success_criteria: MAMLCriteria = MAMLCriteria()


class TrainingSequence(StrictModel):
    """The three stages."""

    stage_1_ppo: PPOStage = PPOStage()
    stage_2_moe: MoEStage = MoEStage()
    stage_3_maml: MAMLStage = MAMLStage()

    def problems(self) -> Iterable[Finding]:
        """Every prerequisite has to name an earlier stage."""
        for number, name in enumerate(STAGES):
            key = STAGE_KEYS[name]
            for index, text in enumerate(getattr(self, key).prerequisites):
                if not _stages_named(text, STAGES[:number]):
                    earlier = [getattr(self, STAGE_KEYS[other]).algorithm for other in STAGES[:number]]
                    says = (
                        f"names no earlier stage ({' or '.join(earlier)})"
                        if earlier
                        else "the first stage has no earlier one"
                    )
                    yield Finding((key, "prerequisites", index), f"{says}: {text!r}")


def _stages_named(text: str, among: Sequence[StageName]) -> tuple[StageName, ...]:
    words = set(re.findall(r"[a-z]+", text.lower()))
    return tuple(name for name in among if name in words)


# --- training_params ----------------------------------------------------------------------------------------


class PPOParams(StrictModel):
    """PPO, in stage 1 and, for the mixture, in stage 2."""

    learning_rate: Positive = 0.0005
    batch_size: AtLeastTwo = 512
    gamma: Share = 0.99
    gae_lambda: Share = 0.5
    clip_epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.15
    k_epochs: Count = 6
    hidden_dim: Width = 64
    hidden_layers: Layers = 2
    num_envs: Lanes = 256
    rollout_steps: Rollout = 64
    entropy_coef: NotNegative = 0.01
    value_coef: NotNegative = 0.5
    max_grad_norm: Positive = 0.5
    target_kl: Positive | None = None
    learning_rate_schedule: Literal["constant", "linear", "exponential", "cosine"] = "linear"

    def problems(self) -> Iterable[Finding]:
        """Minibatches have to cover a rollout exactly, or some transitions would weigh more than others."""
        rollout = self.num_envs * self.rollout_steps
        if rollout > MOST_TRANSITIONS:
            yield Finding(
                ("rollout_steps",),
                f"times num_envs ({self.num_envs}) has to be at most {MOST_TRANSITIONS:,} (got {rollout:,})",
                (("num_envs",),),
            )
        elif rollout % self.batch_size:
            product = f"num_envs * rollout_steps ({self.num_envs} * {self.rollout_steps} = {rollout})"
            yield Finding(
                ("batch_size",),
                f"has to divide {product} (got {self.batch_size})",
                (("num_envs",), ("rollout_steps",)),
            )


class MoEParams(StrictModel):
    """The mixture; its PPO settings are those of `ppo`."""

    num_experts: Experts = 4
    expert_hidden_dim: Width = 128
    gating_hidden_dim: Width = 64
    gating_temperature: Positive = 0.8
    diversity_loss_weight: NotNegative = 0.02
    balance_weight: NotNegative = 0.01
    diversity_cap: Positive = 0.3
    expert_init_noise: Positive = 0.1
    """Above 0, because exact copies of one network receive equal gradients and never part."""
    fresh_start_if_collapsed: bool = True
    """Where the experts that grew out of stage 1 have not parted, train the stage once more from random weights."""
    dense_control: bool = True
    """After stage 2, train one network of as many parameters, to see what the mixture form earns."""


class MAMLParams(StrictModel):
    """Meta-learning."""

    meta_learning_rate: Positive = 0.001
    inner_loop_steps: InnerSteps = 7
    evaluation_steps: InnerSteps = 5
    meta_batch_size: Count = 2
    engine: Literal["native", "learn2learn"] = "native"
    support_steps: TaskSteps = 1024
    query_steps: TaskSteps = 2048
    inner_step_size: Positive = 3.0
    support_sessions: Count = 5
    query_sessions: Count = 5
    gae_lambda: Share = 0.95
    """Not PPO's: a task's baseline is a line, which cannot know what a position is worth later."""
    meta_accumulation: Count = 1
    first_order_fraction: Share = 0.1
    adapt: Literal["all", "heads", "gate+heads"] = "heads"


class TrainingParams(StrictModel):
    """Settings of the three algorithms."""

    ppo: PPOParams = PPOParams()
    moe: MoEParams = MoEParams()
    maml: MAMLParams = MAMLParams()

    def problems(self) -> Iterable[Finding]:
        """An expert holds a copy of the stage-1 network."""
        # Layers of every expert; inputs and heads are small beside them where this matters.
        size = self.moe.num_experts * self.ppo.hidden_layers * self.moe.expert_hidden_dim**2
        if size > MOST_PARAMETERS:
            yield Finding(
                ("moe", "expert_hidden_dim"),
                f"makes experts of {size:,} parameters together, and at most {MOST_PARAMETERS:,} are built "
                f"(got {self.moe.expert_hidden_dim})",
                (("moe", "num_experts"), ("ppo", "hidden_layers")),
            )
        if self.moe.expert_hidden_dim < self.ppo.hidden_dim:
            yield Finding(
                ("moe", "expert_hidden_dim"),
                f"has to be at least ppo.hidden_dim, {self.ppo.hidden_dim}, for each expert starts as a copy of stage 1"
                f" (got {self.moe.expert_hidden_dim})",
                (("ppo", "hidden_dim"),),
            )


# --- progression_rules, monitoring, model_management --------------------------------------------------------


class Advancement(StrictModel):
    """What it takes to go on to the next stage; where `success_criteria` asks for more, that counts."""

    min_episodes: CountOrNone = 0
    min_win_rate: Share | None = None
    min_profit_factor: NotNegative | None = None


class PPOAdvancement(Advancement):
    """From stage 1 to stage 2."""

    min_episodes: CountOrNone = 50
    min_win_rate: Share | None = 0.35
    min_profit_factor: NotNegative | None = 0.8


class MoEAdvancement(Advancement):
    """From stage 2 to stage 3."""

    min_episodes: CountOrNone = 100
    min_win_rate: Share | None = 0.40
    min_profit_factor: NotNegative | None = 1.0


class AdvancementCriteria(StrictModel):
    """The two steps between three stages."""

    stage_1_to_2: PPOAdvancement = PPOAdvancement()
    stage_2_to_3: MoEAdvancement = MoEAdvancement()


class Search(StrictModel):
    """Values tried, in every combination, after an extension did not help; null: the plan's value."""

    learning_rate: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = (0.0002, 0.001)
    entropy_coef: Annotated[tuple[NotNegative, ...], Field(min_length=1)] | None = None
    meta_learning_rate: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    inner_step_size: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None


SearchedBlock = Literal["ppo", "maml"]
"""Blocks of `training_params` that the search changes: the first trains stages 1 and 2, the other stage 3."""

SEARCHED: dict[SearchedBlock, tuple[str, ...]] = {
    "ppo": ("learning_rate", "entropy_coef"),
    "maml": ("meta_learning_rate", "inner_step_size"),
}
"""Which keys of `search` are values of which block."""


class FallbackStrategies(StrictModel):
    """What to do where a gate was not passed."""

    extend_training: bool = True
    max_extension_episodes: CountOrNone = 200
    max_extension_iterations: CountOrNone = 40
    hyperparameter_tuning: bool = True
    search: Search = Search()

    def problems(self) -> Iterable[Finding]:
        """A fallback that is switched on needs something to do."""
        if self.extend_training and not self.max_extension_episodes:
            yield Finding(
                ("max_extension_episodes",),
                "is 0 while extend_training is true; write extend_training: false to train no longer",
                (("extend_training",),),
            )
        searched = [name for names in SEARCHED.values() for name in names]
        if self.hyperparameter_tuning and all(getattr(self.search, name) is None for name in searched):
            yield Finding(
                ("hyperparameter_tuning",),
                "is true while search lists no value to try",
                tuple(("search", name) for name in searched),
            )


class ProgressionRules(StrictModel):
    """How the sequence moves on."""

    auto_progression: bool = True
    on_inconclusive: Literal["continue", "stop"] = "continue"
    advancement_criteria: AdvancementCriteria = AdvancementCriteria()
    fallback_strategies: FallbackStrategies = FallbackStrategies()


class Monitoring(StrictModel):
    """What a run writes down."""

    save_checkpoints: bool = True
    checkpoint_frequency: Count = 50
    generate_reports: bool = True
    compare_stages: bool = True


NAME_PARTS = ("symbol", "stage", "algorithm", "timestamp")


class ModelManagement(StrictModel):
    """Which models are kept, under which names."""

    save_stage_models: bool = True
    model_naming_convention: str = "{symbol}_{stage}_{algorithm}_{timestamp}"
    keep_best_models: bool = True
    transfer_learning: bool = True
    promotion: Literal["evidence", "best_validation"] = "evidence"

    def problems(self) -> Iterable[Finding]:
        """The names have to be file names, one for each model."""
        at, pattern = ("model_naming_convention",), self.model_naming_convention
        allowed = ", ".join(f"{{{name}}}" for name in NAME_PARTS)
        try:
            parts = list(string.Formatter().parse(pattern))
        except ValueError as error:
            yield Finding(at, f"has unbalanced braces ({error}); it is made of {allowed}")
            return
        names = [name for _, name, _, _ in parts if name is not None]
        if unknown := [name for name in names if name not in NAME_PARTS]:
            yield Finding(at, f"has the unknown part {{{unknown[0]}}}; it is made of {allowed}")
        if any(style or conversion for _, _, style, conversion in parts):
            yield Finding(at, f"has a format after : or !; its parts are just {allowed}")
        if not {"symbol", "timestamp"} <= set(names) or not {"stage", "algorithm"} & set(names):
            yield Finding(
                at,
                "has to hold {symbol}, {timestamp} and {stage} or {algorithm}, or models would overwrite each other",
            )
        literal = "".join(text for text, _, _, _ in parts)
        if re.search(r"[^A-Za-z0-9_.=^-]", literal) or pattern.startswith("."):
            yield Finding(
                at, "may hold letters, digits and _ . - = ^ between its parts, and not start with a dot"
            )


# --- environment, splits, features, evidence ----------------------------------------------------------------


class RewardWeights(StrictModel):
    """Weights of the parts of a bar's reward; 0 leaves a part out."""

    log_equity: NotNegative = 1.0
    drawdown: NotNegative = 0.0
    turnover: NotNegative = 0.0

    def problems(self) -> Iterable[Finding]:
        """Only a change of equity says what was earned; the other parts are penalties."""
        if self.log_equity == 0:
            yield Finding(
                ("log_equity",), "is 0, so nothing would reward earning; the other parts only punish"
            )


class Stops(StrictModel):
    """Exits within a bar, as distances from the entry price; null: none."""

    stop_loss: Positive | None = None
    take_profit: Positive | None = None
    trailing_stop: Positive | None = None
    unit: Literal["atr", "rate"] = "atr"

    def problems(self) -> Iterable[Finding]:
        """A rate is a fraction of a price."""
        for name in ("stop_loss", "take_profit", "trailing_stop"):
            distance = getattr(self, name)
            if self.unit == "rate" and distance is not None and distance >= 1:
                percent = f"{distance:g} % is written {distance / 100:g}"
                says = f"must be less than 1 where unit is rate (got {distance:g}); {percent}"
                yield Finding((name,), says, (("unit",),))


class Environment(StrictModel):
    """The account that is trained, judged and backtested."""

    initial_capital: Positive = 100_000.0
    episode_bars: AtLeastTwo = 1000
    action_scheme: Literal["target", "orders"] = "target"
    exposure: Positive = 1.0
    ruin_level: Annotated[float, Field(ge=0, lt=1)] = 0.1
    reward: RewardWeights = RewardWeights()
    stops: Stops = Stops()


def _calendar_day(text: str) -> str:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"must be a date such as 2024-03-28 (got {text!r})") from None
    return text


CalendarDay = Annotated[str, AfterValidator(_calendar_day)]
WindowDates = dict[Literal["train", "validation", "promotion", "test", "end"], CalendarDay]


class Splits(StrictModel):
    """Four windows, oldest first; `dates` takes the place of the shares."""

    train: PositiveShare = 0.60
    validation: PositiveShare = 0.15
    promotion: PositiveShare = 0.10
    test: PositiveShare = 0.15
    dates: WindowDates | None = None
    """First day of validation, promotion and test; train and end may bound the first and the last window."""

    def problems(self) -> Iterable[Finding]:
        """The shares cover the data exactly once, and dated windows follow one another."""
        names = ("train", "validation", "promotion", "test")
        total = sum(getattr(self, name) for name in names)
        if abs(total - 1) > 1e-9:
            reads = tuple((name,) for name in names)
            yield Finding(
                (), f"train, validation, promotion and test have to add up to 1 (got {total:g})", reads
            )
        if self.dates is None:
            return
        if missing := [name for name in names[1:] if name not in self.dates]:
            yield Finding(("dates",), f"has to name the first day of {' and '.join(missing)} too")
        windows = (*names, "end")
        begins = sorted((windows.index(name), date.fromisoformat(day)) for name, day in self.dates.items())
        for (earlier, before), (later, after) in itertools.pairwise(begins):
            if after <= before:
                yield Finding(("dates", windows[later]), f"has to be later than {windows[earlier]}")


class FeatureChoice(StrictModel):
    """Which computed features the policy sees."""

    include: Literal["all"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all"
    exclude: tuple[str, ...] = ()

    def problems(self) -> Iterable[Finding]:
        """A feature is either wanted or not."""
        for index, name in enumerate(self.exclude):
            if self.include != "all" and name in self.include:
                yield Finding(("exclude", index), f"{name} is listed under include too", (("include",),))


class Evidence(StrictModel):
    """How much has to be seen before a verdict."""

    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    false_discovery_rate: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Expected share of promotions without an edge, over all symbols of a run."""

    min_trades: Count = 100
    min_sessions: AtLeastTwo = 20


# --- the plan -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """What one stage's gate asks for; None: not asked."""

    min_win_rate: float | None
    min_profit_factor: float | None
    max_drawdown: float | None
    min_trades: int
    min_sessions: int
    min_episodes: int | None
    min_adaptation_speed: int | None
    min_cross_symbol_performance: float | None


class Plan(StrictModel):
    """A whole training plan."""

    training_sequence: TrainingSequence = TrainingSequence()
    training_params: TrainingParams = TrainingParams()
    progression_rules: ProgressionRules = ProgressionRules()
    monitoring: Monitoring = Monitoring()
    model_management: ModelManagement = ModelManagement()
    environment: Environment = Environment()
    splits: Splits = Splits()
    embargo_bars: Literal["auto"] | CountOrNone = "auto"
    features: FeatureChoice = FeatureChoice()
    evidence: Evidence = Evidence()
    symbols: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def stage(self, name: str) -> PPOStage | MoEStage | MAMLStage:
        """Return the block of stage `ppo`, `moe` or `maml`.

        Raises:
            UsageError: There is no such stage.
        """
        return getattr(self.training_sequence, STAGE_KEYS[stage_name(name)])

    def prerequisite_stages(self, name: str) -> tuple[StageName, ...]:
        """Return the earlier stages whose models have to exist before this one starts."""
        found = [_stages_named(text, STAGES) for text in self.stage(name).prerequisites]
        return tuple(stage for stage in STAGES if any(stage in names for names in found))

    def criteria(self, name: str) -> Criteria:
        """Return what the gate after a stage asks for.

        A win rate or profit factor may be stated twice, as the stage's own success and as the condition to
        advance. The higher one counts, so that neither statement can be passed by a model that misses the
        other.
        """
        success = self.stage(name).success_criteria
        rules = self.progression_rules.advancement_criteria
        steps: dict[StageName, Advancement] = {
            "ppo": rules.stage_1_to_2,
            "moe": rules.stage_2_to_3,
            "maml": Advancement(),
        }
        advance = steps[stage_name(name)]
        return Criteria(
            min_win_rate=_stricter(success.min_win_rate, advance.min_win_rate),
            min_profit_factor=_stricter(success.min_profit_factor, advance.min_profit_factor),
            max_drawdown=success.max_drawdown,
            min_trades=success.min_trades or self.evidence.min_trades,
            min_sessions=success.min_sessions or self.evidence.min_sessions,
            min_episodes=advance.min_episodes,
            min_adaptation_speed=getattr(success, "min_adaptation_speed", None),
            min_cross_symbol_performance=getattr(success, "min_cross_symbol_performance", None),
        )

    def for_symbol(self, symbol: str) -> Plan:
        """Return the plan of one symbol: its block under `symbols` laid over the rest."""
        rest = self.as_dict() | {"symbols": {}}
        return _plan_of(_laid_over(rest, self.symbols.get(symbol, {})))

    def own_settings(self, symbol: str) -> list[tuple[str, Any, Any]]:
        """Return what a symbol's block sets: dotted key, its value, and what holds for the others."""
        rest = self.as_dict()
        return [
            (dotted(path), value, _value_at(rest, path))
            for path, value in _leaves(self.symbols.get(symbol, {}))
        ]

    def search_candidates(self, block: SearchedBlock) -> tuple[dict[str, float], ...]:
        """Return the settings of a block the search tries, in order, without the plan's own combination."""
        search, own = self.progression_rules.fallback_strategies.search, getattr(self.training_params, block)
        listed = {name: values for name in SEARCHED[block] if (values := getattr(search, name))}
        found = [dict(zip(listed, chosen, strict=True)) for chosen in itertools.product(*listed.values())]
        return tuple(
            candidate
            for candidate in found
            if any(value != getattr(own, name) for name, value in candidate.items())
        )

    def searched_settings(self) -> dict[str, float]:
        """Return the PPO settings that a search may change, as they are here; `with_ppo` takes them back."""
        return {name: getattr(self.training_params.ppo, name) for name in SEARCHED["ppo"]}

    def with_ppo(self, **changes: Any) -> Plan:
        """Return the plan with other PPO settings (a candidate of the search)."""
        return _plan_of(_laid_over(self.as_dict(), {"training_params": {"ppo": changes}}))

    def with_fresh_experts(self) -> Plan:
        """Return the plan with a stage 2 that starts from random weights."""
        return _plan_of(_laid_over(self.as_dict(), {"model_management": {"transfer_learning": False}}))

    def with_maml(self, **changes: Any) -> Plan:
        """Return the plan with other meta-learning settings (a candidate of the search)."""
        return _plan_of(_laid_over(self.as_dict(), {"training_params": {"maml": changes}}))

    def as_dict(self) -> dict[str, Any]:
        """Return the whole plan as plain values, defaults included."""
        return self.model_dump(mode="json")

    def resolved_yaml(self) -> str:
        """Return the whole plan as YAML, defaults included; loading it gives an equal plan."""
        return dump_yaml(self.as_dict())

    def problems(self) -> Iterable[Finding]:
        """Return what is wrong between the blocks."""
        yield from self._gates_without_numbers()
        yield from self._gates_out_of_reach()
        for symbol in self.symbols:
            try:
                checked_symbol(symbol)
            except UsageError as error:
                yield Finding(("symbols", symbol), str(error).splitlines()[0])

    def _gates_without_numbers(self) -> Iterable[Finding]:
        for name in STAGES:
            asked = self.criteria(name)
            numbers = (asked.min_win_rate, asked.min_profit_factor, asked.max_drawdown)
            numbers += (asked.min_adaptation_speed, asked.min_cross_symbol_performance)
            if all(number is None for number in numbers):
                at = ("training_sequence", STAGE_KEYS[name], "success_criteria")
                says = "names no criterion; a gate without a number would always pass"
                yield Finding(at, says, (("progression_rules", "advancement_criteria"),))

    def _gates_out_of_reach(self) -> Iterable[Finding]:
        rules = self.progression_rules.advancement_criteria
        fallback = self.progression_rules.fallback_strategies
        extension = fallback.max_extension_episodes if fallback.extend_training else 0
        for step, stage in (("stage_1_to_2", "stage_1_ppo"), ("stage_2_to_3", "stage_2_moe")):
            wanted = getattr(rules, step).min_episodes
            planned = getattr(self.training_sequence, stage).episodes
            if wanted > planned + extension:
                longer = f" and {extension} of extension" if extension else ""
                yield Finding(
                    ("progression_rules", "advancement_criteria", step, "min_episodes"),
                    f"is {wanted}, but {stage} is trained for {planned} episodes{longer} only",
                    (("training_sequence", stage, "episodes"), ("progression_rules", "fallback_strategies")),
                )
        speed = self.training_sequence.stage_3_maml.success_criteria.min_adaptation_speed
        tried = self.training_params.maml.evaluation_steps
        if speed is not None and speed > tried:
            yield Finding(
                ("training_sequence", "stage_3_maml", "success_criteria", "min_adaptation_speed"),
                f"is {speed}, but training_params.maml.evaluation_steps tries {tried} episodes only",
                (("training_params", "maml", "evaluation_steps"),),
            )


def stage_name(text: str) -> StageName:
    """Return the stage that `ppo`, `PPO` or `stage_1_ppo` means.

    Raises:
        UsageError: There is no such stage.
    """
    for name, key in STAGE_KEYS.items():
        if text.casefold() in (name, key):
            return name
    close = nearest(text, [*STAGES, *STAGE_KEYS.values()], count=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UsageError(f"{text!r} is not a stage; the stages are {', '.join(STAGES)}{hint}")


def _stricter(one: float | None, other: float | None) -> float | None:
    stated = [number for number in (one, other) if number is not None]
    return max(stated) if stated else None


def _plan_of(data: dict[str, Any]) -> Plan:
    return Plan.model_validate_json(json.dumps(data), strict=True)


def _laid_over(base: Any, over: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return base | {name: _laid_over(base.get(name), value) for name, value in over.items()}


def _leaves(value: Any, path: KeyPath = ()) -> Iterable[tuple[KeyPath, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    else:
        yield path, value


def _value_at(data: Any, path: KeyPath) -> Any:
    for step in path:
        if not isinstance(data, dict):
            return data
        data = data.get(step)
    return data


# --- reading ------------------------------------------------------------------------------------------------


def load_plan(
    path: Path, *, overrides: Sequence[str] = (), profile: str = FULL, seed: int | None = None
) -> Plan:
    """Read a plan, lay a profile, `KEY=VALUE` overrides and a seed over it, and check it.

    Args:
        path: The plan file; keys it leaves out have the defaults of this module.
        overrides: As given to `--set`; they win over the profile.
        profile: `full` for the file alone, or the name of a file in the folder `plans` beside it, or in the
            shipped `plans`; its keys win over those of the plan file.
        seed: As given to `--seed`; wins over all others.

    Raises:
        ConfigError: Every problem of file, profile, overrides and per-symbol blocks at once.
    """
    plan, _ = _read(path, overrides, profile, seed)
    return plan


def plan_settings(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    profile: str = FULL,
    seed: int | None = None,
    symbol: str | None = None,
) -> list[Setting]:
    """Return every setting of a plan with its origin: default, file and line, profile or option.

    Args:
        path: As `load_plan` takes it, and so are `overrides`, `profile` and `seed`.
        overrides: `--set`.
        profile: `--profile`.
        seed: `--seed`.
        symbol: Whose own plan is wanted, its block laid over the rest. None: the plan as a whole; what a symbol's
            block says stands under `symbols` then, with the value of the rest of the plan beside it.
    """
    plan, loaded = _read(path, overrides, profile, seed)
    if symbol is not None:
        return origins(plan.for_symbol(symbol), _of_symbol(loaded, symbol))
    rest = plan.as_dict()
    return [
        setting._replace(instead_of=_value_at(rest, setting.path[2:]))
        if setting.path[0] == "symbols" and len(setting.path) > 2
        else setting
        for setting in origins(plan, loaded)
    ]


def _read(path: Path, overrides: Sequence[str], profile: str, seed: int | None) -> tuple[Plan, LoadedYaml]:
    loaded = load_yaml(path)
    if profile != FULL:
        over = load_yaml(_profile_file(path, profile), label=f"--profile {profile}", layer=1)
        loaded = layered(loaded, over)
    loaded = apply_overrides(loaded, overrides)
    if seed is not None:
        loaded = apply_options(loaded, {"seed": ("--seed", seed)})
    for symbol in _symbol_blocks(loaded):
        loaded = written_out(loaded, ("symbols", symbol))
    plan, problems = check(Plan, loaded)
    own = set(problems)
    problems += [
        found for symbol in _symbol_blocks(loaded) for found in _symbol_problems(loaded, symbol, own)
    ]
    if plan is None or problems:
        raise refusal(in_order(problems))
    return plan, loaded


def _profile_file(plan_file: Path, profile: str) -> Path:
    shipped = SHIPPED_PROFILES
    if shipped.is_relative_to(Path.cwd()):
        shipped = shipped.relative_to(Path.cwd())
    folders = (shipped, plan_file.parent / "plans")
    files = {file.stem: file for folder in folders for file in folder.glob("*.yaml")}
    if profile not in files:
        known = [FULL, *sorted(files)]
        close = nearest(profile, known, count=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"--profile {profile}: there is no such profile (known: {', '.join(known)}){hint}")
    return files[profile]


def _symbol_blocks(loaded: LoadedYaml) -> list[str]:
    blocks = loaded.data.get("symbols")
    if not isinstance(blocks, dict):
        return []  # refused with the plan
    return [symbol for symbol, block in blocks.items() if isinstance(block, dict)]


def _symbol_problems(loaded: LoadedYaml, symbol: str, of_the_plan: set[Problem]) -> Iterable[Problem]:
    """Yield what is wrong with one symbol's block, by checking the whole plan with the block laid over it."""
    here: KeyPath = ("symbols", symbol)
    block = loaded.block(here)
    for name in SAME_FOR_ALL_SYMBOLS:
        if name in block.data:
            yield loaded.problem(
                (*here, name), "is the same for all symbols; write it at the top of the plan"
            )
    for outer, name in SAME_KEYS_FOR_ALL_SYMBOLS:
        if isinstance(inner := block.data.get(outer), dict) and name in inner:
            yield loaded.problem(
                (*here, outer, name), "is the same for all symbols; write it at the top of the plan"
            )
    _, problems = check(Plan, _of_symbol(loaded, symbol))
    places = {origin.place for origin in block.origins.values()}
    for problem in problems:
        if problem.place in places:
            yield problem
        elif problem not in of_the_plan:
            # The key stands elsewhere in the plan, but it is this block that makes it wrong.
            yield loaded.problem(here, f"makes {problem.key} wrong: {problem.says}")


def _of_symbol(loaded: LoadedYaml, symbol: str) -> LoadedYaml:
    """Return the settings of one symbol: what it may override laid over the rest; keys are named as written."""
    rest = {name: value for name, value in loaded.data.items() if name != "symbols"}
    base = LoadedYaml(loaded.path, rest, loaded.origins)
    if symbol not in _symbol_blocks(loaded):
        return base
    block = loaded.block(("symbols", symbol))
    kept = {name: value for name, value in block.data.items() if name not in SAME_FOR_ALL_SYMBOLS}
    return layered(base, LoadedYaml(loaded.path, kept, block.origins))
