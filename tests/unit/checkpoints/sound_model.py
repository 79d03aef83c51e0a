"""The smallest content of a model file that can be used, for tests of files."""

from __future__ import annotations

from typing import Any

import torch

from rl.policies.spec import parameter_count
from rl.trading.kernel import ACCOUNT_FEATURES
from rl.trading.rules import TradingRules

SPEC: dict[str, Any] = {"encoder": "mlp", "hidden": [4], "observations": 2 + ACCOUNT_FEATURES, "actions": 3}
COUNT = parameter_count(SPEC)


def verdict(outcome: str = "PASS") -> dict[str, Any]:
    """Return what a gate's verdict has at the least."""
    return {
        "outcome": outcome,
        "level": "progress",
        "window": {},
        "context": {},
        "attempt": 1,
        "criteria": [{"name": "win_rate", "met": True}],
    }


def sound_content(first_weight: float = 0.5) -> dict[str, Any]:
    """Return the fields of a `Checkpoint` of two features."""
    weights = torch.zeros(COUNT, dtype=torch.float32)
    weights[:3] = torch.tensor([first_weight, -1.25, 3e-8])
    span = {"first": "2024-01-01T00:00:00Z", "last": "2024-02-01T00:00:00Z"}
    return {
        "stage": "maml",
        "symbol": "Nifty_2",
        "policy_spec": dict(SPEC),
        "weights": weights,
        "extra_tensors": {},
        "scaler": {
            "names": ["return_1", "x_regime"],
            "center": [0.5, 0.25],
            "scale": [1.0, 2.0],
            "regimes": {},
        },
        "feature_names": ["return_1", "x_regime"],
        "action_scheme": "target",
        "instrument": {"name": "Nifty", "lot_size": 75, "tax": None},
        "trading": {"rules": TradingRules().as_dict(), "capital": 100_000.0, "adaptation": None},
        "splits": {name: dict(span) for name in ("train", "validation", "promotion", "test")},
        "data_hash": "d" * 64,
        "seed": 7,
        "plan": {"episodes": 500},
        "versions": {"torch": "2.13.0"},
        "lineage": [{"stage": "moe", "sha256": "a" * 64}],
        "metrics": {"sharpe_ratio": 1.5, "profit_factor": None},
        "verdict": verdict(),
        "champion_of": None,
    }
