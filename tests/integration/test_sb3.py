"""The page on Stable-Baselines3 does what it says, and a model from there is held to what every other model is."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import PPO

from rl.apps.sb3 import backtest_model, replay_model, training_env
from rl.common.errors import UsageError
from rl.envs.scaled_market import scaled_market
from rl.features.processed_store import load_processed
from rl.features.scaler import FeatureScaler
from rl.stages.backtest_looks import usable_window
from rl.trading.rules import TradingRules
from tests.integration.command_line import ROOT, Workplace

PAGE = ROOT / "docs" / "how-to" / "sb3.md"
SYMBOL = "SYN_planted_2"
SHORT_OF = {"100_000": "1_024", "2_000": "200"}
"""Training steps as the page has them, and as many as a test can wait for."""


def code_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Return a checkout's folders with one made-up market, as the page has the reader make it."""
    root = tmp_path_factory.mktemp("checkout")
    Workplace(root / "data").synth(SYMBOL)
    shutil.copytree(ROOT / "config", root / "config")
    return root


@pytest.fixture(scope="module")
def ran(place) -> dict:
    """Run the blocks of the page one after the other, each as a script of its own; return what the last names mean."""
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for block in code_blocks():
            (steps,) = re.findall(r"total_timesteps=([\d_]+)", block) or [None]
            code = block if steps is None else block.replace(steps, SHORT_OF[steps])
            exec(compile(code, str(PAGE), "exec"), names)
    return names


def test_training_takes_five_lines():
    first = [line for line in code_blocks()[0].splitlines() if line.strip()]
    assert len(first) == 5


def test_the_blocks_of_the_page_train_and_report(place, ran, capsys):
    report = (place / "reports" / "sb3_planted.html").read_text(encoding="utf-8")
    assert "No gate has judged this model" in report
    result = ran["result"]
    assert result.span["split"] == "test"
    assert result.model["stage"] == "sb3 PPO"
    assert result.model["promoted"] is False
    # 15 % of 40 sessions, less the embargo.
    assert 3 <= result.span["sessions"] <= 6
    assert set(result.baselines) == {"flat", "buy_and_hold", "always_short", "random", "last_bar_sign"}


@pytest.fixture
def model(place, ran) -> PPO:
    return PPO.load(place / "models" / "sb3_planted.zip", device="cpu")


def folders(place: Path) -> dict[str, Any]:
    return {"raw_data_dir": place / "data" / "raw", "processed_data_dir": place / "data" / "processed"}


def backtested(place: Path, model: PPO, **options):
    where: dict[str, Any] = {"config": ROOT / "config" / "backtest.yaml", "reports_dir": place / "reports"}
    return backtest_model(model, **where, **folders(place), **options)


def looks(place: Path) -> list[dict]:
    lines = (place / "reports" / "evidence_ledger.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == "look"]


def test_a_look_at_the_test_window_is_counted_once_for_the_same_weights(place, model):
    counted = looks(place)
    assert [(look["purpose"], look["attempt"], look["stage"]) for look in counted] == [("test", 1, "sb3 PPO")]
    assert backtested(place, model).span["looks"] == 1
    assert looks(place) == counted
    model.policy.state_dict()["action_net.weight"].mul_(-1.0)
    assert backtested(place, model).span["looks"] == 2


def test_validation_is_no_counted_look_and_is_called_in_sample(place, model):
    before = looks(place)
    result = backtested(place, model, split="validation")
    assert result.span["seen_in_training_or_choosing"] is True
    assert result.span["looks"] is None
    assert looks(place) == before


def test_what_the_model_met_bar_by_bar_is_what_the_engine_replays(place, model):
    processed = load_processed(SYMBOL, place / "data" / "processed")
    facts = model.observation_space.facts
    scaler = FeatureScaler.from_dict(facts["scaler"])
    market = scaled_market(processed.bars, processed.features, facts["feature_names"], scaler)
    stored = type("Stored", (), {"symbol": SYMBOL, "splits": facts["splits"], "trading": facts["trading"]})()
    (start, _), _ = usable_window(stored, processed.bars, market, "test")
    rules = TradingRules(**facts["trading"]["rules"])
    replay = replay_model(model, market, (start, start + 100), rules, scheme="target", capital=1e5)
    # Its first action is what it says of an empty account.
    first = np.concatenate([market.features[start], [0.0, 0.0, 0.0, 0.0, 1.0]]).astype(np.float32)
    assert replay.actions[0] == model.predict(first, deterministic=True)[0]
    assert replay.decisions == 99


@pytest.mark.parametrize("window", ["test", "promotion", "all"])
def test_windows_that_judge_are_closed_to_training(place, window):
    with pytest.raises(UsageError, match="closed to training"):
        training_env(SYMBOL, window=window, plan=ROOT / "config" / "training_sequence.yaml", **folders(place))


def test_the_promotion_window_is_not_opened(place, model):
    with pytest.raises(UsageError, match="promotion window belongs to the promotion"):
        backtested(place, model, split="promotion")


def test_a_model_that_does_not_say_what_it_saw_is_refused(place):
    with pytest.raises(UsageError, match="training_env"):
        backtested(place, PPO("MlpPolicy", "CartPole-v1", device="cpu"))
