"""Settings of a backtest: read strictly, every problem at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from rl.backtest.config import BacktestConfig, load_backtest_config
from rl.common.errors import ConfigError


def written(folder: Path, text: str) -> Path:
    path = folder / "backtest.yaml"
    path.write_text(text)
    return path


def test_keys_left_out_have_their_defaults_and_options_win(tmp_path):
    path = written(tmp_path, "split: validation\nseed: 3\n")
    config = load_backtest_config(path, overrides=["seed=5", "initial_capital=50000"])
    assert (config.split, config.seed, config.initial_capital) == ("validation", 5, 50_000.0)
    assert config.random_baseline_seeds == BacktestConfig().random_baseline_seeds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("splitt: test\n", "did you mean split?"),
        ("split: tests\n", "split"),
        ("initial_capital: 0\n", "initial_capital"),
        ("initial_capital: '1000'\n", "initial_capital"),
        ("seed: -1\n", "seed"),
        ("seed: 1\nseed: 2\n", "seed"),
        ("random_baseline_seeds: 0\n", "random_baseline_seeds"),
        ("cost_frontier_bp: []\n", "cost_frontier_bp"),
        ("cost_frontier_bp: [5, 0]\n", "has to rise from each number to the next"),
        ("cost_frontier_bp: [0, 5, 5]\n", "has to rise from each number to the next"),
        ("report: {interval_confidence: 95}\n", "interval_confidence"),
    ],
)
def test_a_mistake_is_refused_with_its_place(tmp_path, text, says):
    with pytest.raises(ConfigError) as refused:
        load_backtest_config(written(tmp_path, text))
    assert says in str(refused.value)
    assert "backtest.yaml:" in str(refused.value)


def test_every_mistake_is_named_at_once(tmp_path):
    with pytest.raises(ConfigError) as refused:
        load_backtest_config(written(tmp_path, "splitt: test\nseed: -1\n"))
    assert "2 problems" in str(refused.value)
