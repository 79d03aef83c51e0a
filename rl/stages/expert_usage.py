"""Who leads in which regime on the bars of a backtest, and what the account did then."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from rl.backtest.engine import Replay
from rl.policies.actor_critic import build_policy
from rl.stages.specialisation import expert_activity
from rl.stages.symbol_data import SymbolData


def expert_usage(
    data: SymbolData, spec: dict[str, Any], weights: np.ndarray, replay: Replay, *, split: str, seed: int
) -> dict[str, Any] | None:
    """Return each expert's record on the bars of a replay, overall and by regime; None where there are no experts.

    The same figures as `rl.stages.specialisation` has for the validation window, without its trials of taking experts
    out and of shifting the gate's choice in time.

    Args:
        data: The symbol.
        spec: What the policy was built from.
        weights: The weights that acted. (P,)
        replay: What they did.
        split: Name of the span.
        seed: Decides by how much regimes are shifted for the p value.
    """
    if spec["encoder"] != "mixture":
        return None
    policy = build_policy(spec, seed=0)
    policy.load_flat(torch.from_numpy(np.ascontiguousarray(weights)))
    found = expert_activity(data, policy, split, replay, seed=seed)
    return {
        **found,
        "regimes": list(found["regimes"]),
        "regime_bars": list(found["regime_bars"]),
        "use": asdict(found["use"]),
        "information": asdict(found["information"]),
        "experts": [asdict(record) for record in found["experts"]],
        "by_regime": [[asdict(record) for record in row] for row in found["by_regime"]],
    }
