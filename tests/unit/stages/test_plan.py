from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rl.backtest.config import BacktestConfig, load_backtest_config
from rl.common.errors import ConfigError, UsageError
from rl.stages.plan import Plan, load_plan, plan_settings, stage_name

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "config" / "training_sequence.yaml"
BACKTEST = ROOT / "config" / "backtest.yaml"
QUICK = ROOT / "plans" / "quick.yaml"


def origin_of(settings) -> dict[str, str]:
    return {setting.key: setting.origin for setting in settings}


@pytest.fixture
def plan_file(tmp_path, monkeypatch):
    """Write a file named plan.yaml in the current folder and return its path."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        Path("plan.yaml").write_text(text, encoding="utf-8")
        return Path("plan.yaml")

    return write


def refused(path: Path, **options) -> list[str]:
    """Return the problems a plan is refused for, without the closing count."""
    with pytest.raises(ConfigError) as caught:
        load_plan(path, **options)
    *lines, count = str(caught.value).splitlines()
    assert count == f"{len(lines)} problem{'s' if len(lines) > 1 else ''}; nothing was started."
    return lines


def leaves(value, path=()):
    """Return {dotted key: value} of nested mappings; lists and empty mappings are values."""
    if isinstance(value, dict) and value:
        return {
            key: leaf for name, inner in value.items() for key, leaf in leaves(inner, (*path, name)).items()
        }
    return {".".join(path): value}


# --- the shipped files ----------------------------------------------------------------------------


def test_the_shipped_plan_equals_the_defaults():
    """A partial plan of a user's own then means what the shipped file says."""
    assert load_plan(SHIPPED) == Plan()


def test_the_shipped_plan_lists_every_key_and_no_other():
    listed = leaves(yaml.safe_load(SHIPPED.read_text(encoding="utf-8")))
    assert set(listed) == set(leaves(Plan().as_dict()))
    assert len(listed) > 100


def test_every_value_of_the_shipped_plan_has_a_comment():
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    bare = [
        line
        for line in lines
        if ":" in line.split("#")[0] and not line.split("#")[0].rstrip().endswith(":") and "#" not in line
    ]
    assert not bare


SOURCE_VALUES = {
    "training_sequence.stage_1_ppo.algorithm": "PPO",
    "training_sequence.stage_1_ppo.episodes": 500,
    "training_sequence.stage_1_ppo.success_criteria.min_win_rate": 0.35,
    "training_sequence.stage_1_ppo.success_criteria.min_profit_factor": 0.8,
    "training_sequence.stage_1_ppo.success_criteria.max_drawdown": 0.4,
    "training_sequence.stage_2_moe.algorithm": "MoE",
    "training_sequence.stage_2_moe.episodes": 800,
    "training_sequence.stage_2_moe.success_criteria.min_win_rate": 0.40,
    "training_sequence.stage_2_moe.success_criteria.min_profit_factor": 1.0,
    "training_sequence.stage_2_moe.success_criteria.max_drawdown": 0.35,
    "training_sequence.stage_3_maml.algorithm": "MAML",
    "training_sequence.stage_3_maml.meta_iterations": 150,
    "training_sequence.stage_3_maml.success_criteria.min_adaptation_speed": 3,
    "training_sequence.stage_3_maml.success_criteria.min_cross_symbol_performance": 0.85,
    "training_params.ppo.clip_epsilon": 0.15,
    "training_params.ppo.k_epochs": 6,
    "training_params.moe.num_experts": 4,
    "training_params.moe.expert_hidden_dim": 128,
    "training_params.moe.gating_hidden_dim": 64,
    "training_params.moe.gating_temperature": 0.8,
    "training_params.moe.diversity_loss_weight": 0.02,
    "training_params.maml.inner_loop_steps": 7,
    "training_params.maml.evaluation_steps": 5,
    "training_params.maml.meta_batch_size": 2,
    "progression_rules.auto_progression": True,
    "progression_rules.advancement_criteria.stage_1_to_2.min_episodes": 50,
    "progression_rules.advancement_criteria.stage_1_to_2.min_win_rate": 0.35,
    "progression_rules.advancement_criteria.stage_1_to_2.min_profit_factor": 0.8,
    "progression_rules.advancement_criteria.stage_2_to_3.min_episodes": 100,
    "progression_rules.advancement_criteria.stage_2_to_3.min_win_rate": 0.40,
    "progression_rules.advancement_criteria.stage_2_to_3.min_profit_factor": 1.0,
    "progression_rules.fallback_strategies.extend_training": True,
    "progression_rules.fallback_strategies.max_extension_episodes": 200,
    "progression_rules.fallback_strategies.hyperparameter_tuning": True,
    "monitoring.save_checkpoints": True,
    "monitoring.checkpoint_frequency": 50,
    "monitoring.generate_reports": True,
    "monitoring.compare_stages": True,
    "model_management.save_stage_models": True,
    "model_management.model_naming_convention": "{symbol}_{stage}_{algorithm}_{timestamp}",
    "model_management.keep_best_models": True,
    "model_management.transfer_learning": True,
}


def test_a_plan_of_the_source_system_keeps_its_meaning():
    """Values that the shipped plan changes on purpose (learning rates, batch size, discounts) are not listed."""
    shipped = leaves(Plan().as_dict())
    assert {key: shipped[key] for key in SOURCE_VALUES} == SOURCE_VALUES
    for key in (
        "training_params.ppo.learning_rate",
        "training_params.ppo.batch_size",
        "training_params.ppo.gamma",
        "training_params.ppo.gae_lambda",
        "training_params.maml.meta_learning_rate",
    ):
        assert key in shipped


def test_the_quick_profile_is_smaller_and_holds_differences_only():
    full, quick = load_plan(SHIPPED), load_plan(SHIPPED, profile="quick")
    for name in ("ppo", "moe"):
        assert quick.stage(name).episodes * 3 < full.stage(name).episodes
    assert quick.stage("maml").meta_iterations * 3 < full.stage("maml").meta_iterations
    assert quick.evidence == full.evidence  # a quick look is no reason to believe more
    written = leaves(yaml.safe_load(QUICK.read_text(encoding="utf-8")))
    shipped = leaves(full.as_dict())
    assert len(written) > 5
    assert all(shipped[key] != value for key, value in written.items())


def test_the_shipped_backtest_settings_equal_the_defaults_and_list_every_key():
    assert load_backtest_config(BACKTEST) == BacktestConfig()
    listed = leaves(yaml.safe_load(BACKTEST.read_text(encoding="utf-8")))
    assert set(listed) == set(leaves(BacktestConfig().model_dump()))


def test_a_cost_frontier_out_of_order_is_refused():
    with pytest.raises(ConfigError, match=r"cost_frontier_bp=.*: has to rise .* \(got 0, 10, 5\)"):
        load_backtest_config(BACKTEST, overrides=["cost_frontier_bp=[0, 10, 5]"])


def test_reading_a_plan_loads_no_heavy_package():
    """A mistake in a plan is then reported in a fraction of a second."""
    code = (
        "import sys; from pathlib import Path; from rl.stages.plan import load_plan; "
        f"load_plan(Path({str(SHIPPED)!r})); "
        "print(sorted({'torch', 'numba', 'pandas', 'numpy', 'scipy', 'gymnasium'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- what is refused ------------------------------------------------------------------------------


def test_all_mistakes_of_a_plan_come_at_once_in_the_order_of_its_lines(plan_file):
    text = """\
training_sequence:
  stage_1_ppo:
    episodes: eight hundred
    success_criteria:
      min_win_rate: 40
training_params:
  ppo:
    learning_rate: 1e-4
    batch_size: '512'
    batch_size: 100
  moe:
    num_expert: 4
    num_experts: 1
evidence: {alpha: 0.05, min_trade: 3}
seed: -1
"""
    ppo, moe = "training_params.ppo", "training_params.moe"
    quotes = "write 512, without quotes, commas or leading zeros"
    percent = "40 % is written 0.40"
    stage = "training_sequence.stage_1_ppo"
    assert refused(plan_file(text), overrides=["training_params.ppo.learning_rat=0.1"]) == [
        f"plan.yaml:3:5: {stage}.episodes: must be a whole number (got 'eight hundred')",
        f"plan.yaml:5:7: {stage}.success_criteria.min_win_rate: must be at most 1 (got 40); {percent}",
        f"plan.yaml:9:5: {ppo}.batch_size: must be a whole number (got the text '512'); {quotes}",
        f"plan.yaml:10:5: {ppo}.batch_size: is written twice in this block; the first one is on line 9",
        f"plan.yaml:12:5: {moe}.num_expert: unknown key; did you mean num_experts?",
        f"plan.yaml:13:5: {moe}.num_experts: must be at least 2 (got 1)",
        "plan.yaml:14:25: evidence.min_trade: unknown key; did you mean min_trades?",
        "plan.yaml:15:1: seed: must be at least 0 (got -1)",
        "--set training_params.ppo.learning_rat=0.1: unknown key; did you mean learning_rate?",
    ]


STAGE_3 = "training_sequence.stage_3_maml.success_criteria"
NAMING = "1:20: model_management.model_naming_convention"
NAME_PARTS = "{symbol}, {stage}, {algorithm}, {timestamp}"
NO_CRITERIA = """\
training_sequence: {stage_3_maml: {success_criteria: {
  min_adaptation_speed: null, min_cross_symbol_performance: null}}}"""
TOO_SHORT = """\
training_sequence: {stage_1_ppo: {episodes: 10}}
progression_rules: {fallback_strategies: {max_extension_episodes: 30}}"""
NO_EPISODES = "is 50, but stage_1_ppo is trained for 10 episodes and 30 of extension only"


@pytest.mark.parametrize(
    ("text", "place", "sentence"),
    [
        (
            "splits: {train: 0.7}",
            "1:1: splits",
            "train, validation, promotion and test have to add up to 1 (got 1.1)",
        ),
        (
            "training_params: {ppo: {batch_size: 100}}",
            "1:25: training_params.ppo.batch_size",
            "has to divide num_envs * rollout_steps (256 * 64 = 16384) (got 100)",
        ),
        (
            "training_params: {ppo: {num_envs: 1}}",
            "1:19: training_params.ppo.batch_size",
            "has to divide num_envs * rollout_steps (1 * 64 = 64) (got 512)",
        ),
        (
            "training_params: {moe: {expert_init_noise: 0}}",
            "1:25: training_params.moe.expert_init_noise",
            "must be more than 0 (got 0)",
        ),
        (
            "training_params: {maml: {evaluation_steps: 2}}",
            f" {STAGE_3}.min_adaptation_speed",
            "is 3, but training_params.maml.evaluation_steps tries 2 episodes only",
        ),
        (
            NO_CRITERIA,
            "1:36: training_sequence.stage_3_maml.success_criteria",
            "names no criterion; a gate without a number would always pass",
        ),
        (
            "training_sequence: {stage_1_ppo: {min_adaptation_speed: 3}}",
            "1:35: training_sequence.stage_1_ppo.min_adaptation_speed",
            f"unknown key here; did you mean {STAGE_3}.min_adaptation_speed?",
        ),
        (
            "training_sequence: {fourth: {}}",
            "1:21: training_sequence.fourth",
            "unknown key; known here: stage_1_ppo, stage_2_moe, stage_3_maml",
        ),
        (
            "training_sequence: {stage_2_moe: {algorithm: PPO}}",
            "1:35: training_sequence.stage_2_moe.algorithm",
            "must be MoE (got 'PPO')",
        ),
        (
            "training_sequence: {stage_1_ppo: {prerequisites: [3]}}",
            "1:51: training_sequence.stage_1_ppo.prerequisites[0]",
            "must be text (got 3)",
        ),
        (
            "training_sequence: {stage_2_moe: {prerequisites: [MAML first]}}",
            "1:51: training_sequence.stage_2_moe.prerequisites[0]",
            "names no earlier stage (PPO): 'MAML first'",
        ),
        (
            "training_sequence: {stage_1_ppo: {prerequisites: [PPO]}}",
            "1:51: training_sequence.stage_1_ppo.prerequisites[0]",
            "the first stage has no earlier one: 'PPO'",
        ),
        (
            TOO_SHORT,
            "2:1: progression_rules.advancement_criteria.stage_1_to_2.min_episodes",
            NO_EPISODES,
        ),
        (
            "progression_rules: {fallback_strategies: {max_extension_episodes: 0}}",
            "1:43: progression_rules.fallback_strategies.max_extension_episodes",
            "is 0 while extend_training is true; write extend_training: false to train no longer",
        ),
        (
            "progression_rules: {fallback_strategies: {search: {learning_rate: null}}}",
            "1:21: progression_rules.fallback_strategies.hyperparameter_tuning",
            "is true while search lists no value to try",
        ),
        (
            "model_management: {model_naming_convention: '{symbol}_{stage}_{timestamp}_{time}'}",
            NAMING,
            f"has the unknown part {{time}}; it is made of {NAME_PARTS}",
        ),
        (
            "model_management: {model_naming_convention: '{stage}'}",
            NAMING,
            "has to hold {symbol}, {timestamp} and {stage} or {algorithm}, or models would overwrite each other",
        ),
        (
            "model_management: {model_naming_convention: 'a/{symbol}_{stage}_{timestamp}'}",
            NAMING,
            "may hold letters, digits and _ . - = ^ between its parts, and not start with a dot",
        ),
        (
            "model_management: {model_naming_convention: '{symbol}_{stage'}",
            NAMING,
            f"has unbalanced braces (expected '}}' before end of string); it is made of {NAME_PARTS}",
        ),
        (
            "model_management: {model_naming_convention: '{symbol!r}_{stage}_{timestamp}'}",
            NAMING,
            f"has a format after : or !; its parts are just {NAME_PARTS}",
        ),
        (
            "environment: {reward: {log_equity: 0, turnover: 1}}",
            "1:24: environment.reward.log_equity",
            "is 0, so nothing would reward earning; the other parts only punish",
        ),
        (
            "environment: {stops: {stop_loss: 2, unit: rate}}",
            "1:23: environment.stops.stop_loss",
            "must be less than 1 where unit is rate (got 2); 2 % is written 0.02",
        ),
        (
            "splits: {dates: {validation: 2024-01-01, promotion: 2023-01-01, test: 2025-01-01}}",
            "1:42: splits.dates.promotion",
            "has to be later than validation",
        ),
        (
            "splits: {dates: {validation: 2024-01-01, test: 2025-01-01}}",
            "1:10: splits.dates",
            "has to name the first day of promotion too",
        ),
        (
            "splits: {dates: {validation: soon, promotion: 2024-01-01, test: 2025-01-01}}",
            "1:18: splits.dates.validation",
            "must be a date such as 2024-03-28 (got 'soon')",
        ),
        (
            "splits: {dates: {last: 2026-01-01}}",
            "1:18: splits.dates.last",
            "must be one of train, validation, promotion, test, end (got 'last')",
        ),
        (
            "embargo_bars: atuo",
            "1:1: embargo_bars",
            "must be auto or a whole number (got 'atuo'); did you mean auto?",
        ),
        (
            "features: {include: [rsi_14, adx_14], exclude: [adx_14]}",
            "1:49: features.exclude[0]",
            "adx_14 is listed under include too",
        ),
        ("features: {include: most}", "1:12: features.include", "must be all or a list (got 'most')"),
    ],
)
def test_an_impossible_plan_is_refused(plan_file, text, place, sentence):
    assert refused(plan_file(text + "\n")) == [f"plan.yaml:{place}: {sentence}"]


def test_an_unknown_profile_is_refused_beside_the_known_ones(plan_file):
    with pytest.raises(
        ConfigError, match=r"--profile quik: .*\(known: full, quick.*\); did you mean quick\?"
    ):
        load_plan(plan_file("seed: 1\n"), profile="quik")


# --- what a plan says -----------------------------------------------------------------------------


def test_a_plan_of_ones_own_may_hold_only_what_differs(plan_file):
    plan = load_plan(plan_file("training_params:\n  ppo:\n    gamma: 0.9\n"))
    assert plan.training_params.ppo.gamma == 0.9
    assert plan.with_ppo(gamma=Plan().training_params.ppo.gamma) == Plan()


def test_overrides_win_over_the_profile_and_the_profile_over_the_file(plan_file):
    plan = plan_file(
        "training_sequence: {stage_1_ppo: {episodes: 300}, stage_2_moe: {episodes: 300}}\nseed: 3\n"
    )
    Path("plans").mkdir()
    Path("plans/short.yaml").write_text(
        "training_sequence: {stage_1_ppo: {episodes: 70}, stage_2_moe: {episodes: 170}}\n"
    )
    read = load_plan(plan, profile="short", overrides=["training_sequence.stage_1_ppo.episodes=60"])
    assert (read.stage("ppo").episodes, read.stage("moe").episodes, read.seed) == (60, 170, 3)
    listed = origin_of(plan_settings(plan, profile="short", overrides=["seed=4"]))
    assert listed["training_sequence.stage_1_ppo.episodes"] == "--profile short"
    assert listed["seed"] == "--set"
    assert listed["evidence.alpha"] == "default"
    assert origin_of(plan_settings(plan))["seed"] == "plan.yaml:2"
    assert origin_of(plan_settings(plan, overrides=["seed=4"], seed=5))["seed"] == "--seed"
    assert load_plan(plan, overrides=["seed=4"], seed=5).seed == 5


def test_a_mistake_in_a_profile_is_reported_with_the_profiles_file(plan_file):
    plan = plan_file("seed: x\n")
    Path("plans").mkdir()
    Path("plans/short.yaml").write_text("evidence:\n  alpha: 5\n")
    assert refused(plan, profile="short") == [
        "plan.yaml:1:1: seed: must be a whole number (got 'x')",
        "plans/short.yaml:2:3: evidence.alpha: must be at most 0.5 (got 5); 5 % is written 0.05",
    ]


def test_settings_list_every_key_of_the_plan():
    listed = [setting.key for setting in plan_settings(SHIPPED)]
    assert sorted(listed) == sorted(leaves(Plan().as_dict()))


def test_the_resolved_plan_reads_back_as_the_same_plan(plan_file):
    plan = load_plan(
        plan_file(
            "training_sequence: {stage_1_ppo: {description: 'no: 1e-4 # 9:15'}}\n"
            "training_params: {ppo: {learning_rate: 1e-7, target_kl: 0.02}}\n"
            "splits: {dates: {validation: 2023-01-02, promotion: 2023-07-03, test: 2024-01-01}}\n"
            "symbols: {BHP.AX: {seed: 3}, 600519: {environment: {exposure: 0.5}}}\n"
        )
    )
    assert plan.splits.dates["promotion"] == "2023-07-03"
    again = plan_file(plan.resolved_yaml())
    assert load_plan(again) == plan
    assert set(leaves(yaml.safe_load(again.read_text()))) == set(leaves(plan.as_dict()))


def test_the_stricter_of_two_thresholds_counts(plan_file):
    plan = load_plan(
        plan_file(
            "training_sequence:\n"
            "  stage_1_ppo:\n"
            "    success_criteria: {min_win_rate: 0.5, min_profit_factor: 0.9, max_drawdown: 0.2}\n"
            "  stage_2_moe: {success_criteria: {min_win_rate: null, min_profit_factor: 1.3}}\n"
            "progression_rules:\n"
            "  advancement_criteria:\n"
            "    stage_1_to_2: {min_win_rate: 0.3, min_profit_factor: 1.1, min_episodes: 7}\n"
            "    stage_2_to_3: {min_win_rate: 0.45, min_profit_factor: null}\n"
        )
    )
    ppo, moe, maml = (plan.criteria(name) for name in ("ppo", "moe", "maml"))
    assert (ppo.min_win_rate, ppo.min_profit_factor, ppo.max_drawdown, ppo.min_episodes) == (0.5, 1.1, 0.2, 7)
    assert (moe.min_win_rate, moe.min_profit_factor, moe.max_drawdown, moe.min_episodes) == (
        0.45,
        1.3,
        0.35,
        100,
    )
    assert (maml.min_win_rate, maml.min_profit_factor, maml.max_drawdown, maml.min_episodes) == (
        None,
        None,
        None,
        0,
    )
    assert (maml.min_adaptation_speed, maml.min_cross_symbol_performance) == (3, 0.85)
    assert (ppo.min_adaptation_speed, ppo.min_cross_symbol_performance) == (None, None)


def test_a_stage_may_ask_for_more_or_less_evidence_than_the_rest(plan_file):
    stage = "training_sequence: {stage_2_moe: {success_criteria: {min_trades: 30}}}\n"
    plan = load_plan(plan_file(stage + "evidence: {min_sessions: 40}\n"))
    assert (plan.criteria("ppo").min_trades, plan.criteria("ppo").min_sessions) == (100, 40)
    assert (plan.criteria("moe").min_trades, plan.criteria("moe").min_sessions) == (30, 40)


def test_a_stage_goes_by_its_short_name_or_its_key():
    assert [stage_name(text) for text in ("ppo", "MoE", "stage_3_maml")] == ["ppo", "moe", "maml"]
    with pytest.raises(
        UsageError, match=r"'mo' is not a stage; the stages are ppo, moe, maml; did you mean moe\?"
    ):
        stage_name("mo")


def test_prerequisites_name_the_stages_that_must_come_first(plan_file):
    assert [Plan().prerequisite_stages(name) for name in ("ppo", "moe", "maml")] == [(), ("ppo",), ("moe",)]
    text = (
        "training_sequence: {stage_3_maml: {prerequisites: ['a PPO model', 'successful MoE completion']}}\n"
    )
    assert load_plan(plan_file(text)).prerequisite_stages("maml") == ("ppo", "moe")


def test_the_search_tries_every_combination_but_the_plans_own(plan_file):
    text = (
        "training_params: {ppo: {learning_rate: 0.001, entropy_coef: 0.02}}\n"
        "progression_rules:\n"
        "  fallback_strategies: {search: {learning_rate: [1e-3, 1e-2], entropy_coef: [0, 0.02]}}\n"
    )
    assert load_plan(plan_file(text)).search_candidates("ppo") == (
        {"learning_rate": 0.001, "entropy_coef": 0.0},
        {"learning_rate": 0.01, "entropy_coef": 0.0},
        {"learning_rate": 0.01, "entropy_coef": 0.02},
    )
    assert Plan().search_candidates("ppo") == ({"learning_rate": 0.0002}, {"learning_rate": 0.001})
    assert Plan().with_ppo(learning_rate=0.001).training_params.ppo.learning_rate == 0.001


def test_the_search_of_stage_3_has_settings_of_its_own(plan_file):
    text = (
        "progression_rules:\n  fallback_strategies:\n"
        "    search: {learning_rate: [1e-3], inner_step_size: [0.1, 0.3], meta_learning_rate: [1e-4]}\n"
    )
    plan = load_plan(plan_file(text))
    assert plan.search_candidates("ppo") == ({"learning_rate": 0.001},)
    assert plan.search_candidates("maml") == (
        {"meta_learning_rate": 0.0001, "inner_step_size": 0.1},
        {"meta_learning_rate": 0.0001, "inner_step_size": 0.3},
    )
    assert Plan().search_candidates("maml") == ()
    assert Plan().with_maml(inner_step_size=0.3).training_params.maml.inner_step_size == 0.3


# --- per symbol -----------------------------------------------------------------------------------


def test_a_symbol_overrides_single_keys_and_inherits_the_rest(plan_file):
    text = """\
training_params: {ppo: {gamma: 0.9}}
symbols:
  BHP.AX:
    environment: {exposure: 0.5, stops: {stop_loss: 2}}
    training_params: {ppo: {learning_rate: 1e-3}}
    seed: 7
"""
    plan = load_plan(plan_file(text))
    own, other = plan.for_symbol("BHP.AX"), plan.for_symbol("Nifty_2")
    assert (own.environment.exposure, own.environment.stops.stop_loss, own.environment.stops.unit) == (
        0.5,
        2.0,
        "atr",
    )
    assert (own.training_params.ppo.learning_rate, own.training_params.ppo.gamma, own.seed) == (0.001, 0.9, 7)
    assert (other.environment.exposure, other.training_params.ppo.gamma, other.seed) == (1.0, 0.9, 0)
    assert own.symbols == other.symbols == {}


def test_a_mistake_in_a_symbols_block_is_reported_there_and_once(plan_file):
    text = """\
seed: x
training_params: {ppo: {batch_size: 256}}
symbols:
  Nifty_2:
    environment: {exposur: 0.5}
    training_params:
      ppo: {num_envs: 3}
    monitoring: {checkpoint_frequency: 3}
    splits: {train: 60}
  Nifty_5:
    training_params:
      ppo: {batch_size: 100}
"""
    symbol, batch = "symbols.Nifty_2", "training_params.ppo.batch_size"
    divides = "has to divide num_envs * rollout_steps"
    assert refused(plan_file(text)) == [
        "plan.yaml:1:1: seed: must be a whole number (got 'x')",
        f"plan.yaml:4:3: {symbol}: makes {batch} wrong: {divides} (3 * 64 = 192) (got 256)",
        f"plan.yaml:5:19: {symbol}.environment.exposur: unknown key; did you mean exposure?",
        f"plan.yaml:8:5: {symbol}.monitoring: is the same for all symbols; write it at the top of the plan",
        f"plan.yaml:9:14: {symbol}.splits.train: must be at most 1 (got 60); 60 % is written 0.60",
        f"plan.yaml:12:13: symbols.Nifty_5.{batch}: {divides} (256 * 64 = 16384) (got 100)",
    ]


def test_how_often_a_run_may_be_wrong_is_one_promise_for_all_its_symbols(plan_file):
    """Each symbol with a rate of its own would have no family to be corrected with, and an alpha of its own would be
    loosened where a model failed."""
    text = "symbols:\n  Nifty_2:\n    evidence: {min_trades: 50, alpha: 0.01, false_discovery_rate: 0.5}\n"
    says = "is the same for all symbols; write it at the top of the plan"
    assert refused(plan_file(text)) == [
        f"plan.yaml:3:32: symbols.Nifty_2.evidence.alpha: {says}",
        f"plan.yaml:3:45: symbols.Nifty_2.evidence.false_discovery_rate: {says}",
    ]
    (line,) = refused(plan_file("evidence: {false_discovery_rate: 0.6}\n"))
    assert "false_discovery_rate: must be at most 0.5" in line


def test_keys_of_a_symbols_block_may_be_dotted(plan_file):
    dotted = """\
symbols:
  BHP.AX:
    training_params.ppo.learning_rate: 1e-3
    environment.stops: {stop_loss: 2, unit: atr}
    splits.dates: {validation: 2023-01-02, promotion: 2023-07-03, test: 2024-01-01}
    environment: {exposure: 0.5}
    features.exclude: [volume_ratio]
"""
    nested = """\
symbols:
  BHP.AX:
    environment: {exposure: 0.5, stops: {stop_loss: 2, unit: atr}}
    training_params: {ppo: {learning_rate: 1e-3}}
    splits: {dates: {validation: 2023-01-02, promotion: 2023-07-03, test: 2024-01-01}}
    features: {exclude: [volume_ratio]}
"""
    plan = load_plan(plan_file(dotted))
    assert plan == load_plan(plan_file(nested))
    assert plan.for_symbol("BHP.AX").environment.stops.stop_loss == 2


def test_a_mistake_in_a_dotted_key_of_a_symbol_is_reported_at_its_line(plan_file):
    text = """\
symbols:
  Nifty_2:
    training_params.ppo.learning_rat: 1e-3
    training_params.ppo.gamma: 2
    evidence.alpha: 0.2
    environment.exposure: 0.5
    environment: {exposure: 0.4}
    trainig_params.ppo.gamma: 0.9
    splits: 5
    splits.train: 0.5
"""
    own = "symbols.Nifty_2"
    assert refused(plan_file(text)) == [
        f"plan.yaml:3:5: {own}.training_params.ppo.learning_rat: unknown key; did you mean learning_rate?",
        f"plan.yaml:4:5: {own}.training_params.ppo.gamma: must be at most 1 (got 2); 2 % is written 0.02",
        f"plan.yaml:5:5: {own}.evidence.alpha: is the same for all symbols; write it at the top of the plan",
        f"plan.yaml:6:5: {own}.environment.exposure: is written twice in this block; it also stands at plan.yaml:7:19",
        f"plan.yaml:8:5: {own}.trainig_params: unknown key; did you mean training_params?",
        f"plan.yaml:9:5: {own}.splits: must be a block of keys (got 5)",
        f"plan.yaml:10:5: {own}.splits.train: is written twice in this block; it also stands at plan.yaml:9:5",
    ]


@pytest.mark.parametrize(
    "block",
    ["training_params.ppo.gamma: 0.9", "training_params: {ppo: {gamma: 0.9}}"],
    ids=["dotted", "nested"],
)
@pytest.mark.parametrize(
    "option",
    ["symbols.A.training_params.ppo.gamma=0.8", "symbols.A={training_params.ppo.gamma: 0.8}"],
    ids=["key", "block"],
)
def test_an_option_wins_over_a_symbols_block_however_both_are_written(plan_file, block, option):
    path = plan_file(f"symbols:\n  A:\n    {block}\n")
    assert load_plan(path, overrides=[option]).for_symbol("A").training_params.ppo.gamma == 0.8
    listed = plan_settings(path, overrides=[option])
    (found,) = [setting for setting in listed if setting.key == "symbols.A.training_params.ppo.gamma"]
    assert (found.value, found.origin, found.kind, found.instead_of) == (0.8, "--set", "symbol", 0.99)


def test_settings_of_one_symbol_say_what_its_own_block_set(plan_file):
    path = plan_file("seed: 1\nsymbols:\n  A:\n    environment.exposure: 0.5\n  B: {seed: 3}\n")
    own = {setting.key: setting for setting in plan_settings(path, symbol="A")}
    assert own["environment.exposure"][1:4] == (0.5, "plan.yaml:4", "symbol")
    assert own["seed"][1:4] == (1, "plan.yaml:1", "file")
    assert own["evidence.alpha"][1:4] == (0.05, "default", "default")
    assert own["symbols"].value == {}


def test_the_quick_profile_is_a_plan_of_its_own():
    """One file for both: what `--profile quick` does, `--config plans/quick.yaml` does."""
    assert load_plan(QUICK) == load_plan(SHIPPED, profile="quick")


def test_a_symbol_that_could_leave_the_models_folder_is_refused(plan_file):
    (line,) = refused(plan_file("symbols:\n  ../evil: {seed: 1}\n"))
    assert line.startswith('plan.yaml:2:3: symbols."../evil": ')


def test_overrides_reach_a_symbols_block(plan_file):
    path = plan_file("seed: 1\n")
    plan = load_plan(path, overrides=['symbols."BHP.AX".environment.exposure=0.25'])
    assert plan.for_symbol("BHP.AX").environment.exposure == 0.25
    assert refused(path, overrides=["symbols.A.environment.exposure=x"]) == [
        "--set symbols.A.environment.exposure=x: must be a number (got 'x')"
    ]
