"""Who leads in which regime on the bars of a backtest, and what the account did then."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from rl.backtest.engine import Replay
from rl.common.seeding import generator
from rl.policies.actor_critic import build_policy
from rl.stages.regimes import regimes_of
from rl.stages.specialisation import expert_records, expert_use, parts_of_flat_account, shared_information
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
    # The last bar decides nothing.
    rows = np.arange(replay.start, replay.stop - 1)
    rows = rows[data.table.usable[rows]]
    parts = parts_of_flat_account(policy, data.market.features[rows])
    gate = parts.gate_probs.numpy()
    found = regimes_of(data)
    present, regime = np.unique(found.labels[rows], return_inverse=True)
    experts, by_regime = expert_records(gate, regime, len(present), rows - replay.start, replay)
    stream = generator(seed, "specialisation", data.symbol, split)
    return {
        "window": split,
        "regime_source": found.source,
        "regimes": [found.names[place] for place in present],
        "regime_bars": [int(count) for count in np.bincount(regime)],
        "use": {**asdict(expert_use(parts))},
        "information": asdict(shared_information(gate.argmax(1), regime, stream)),
        "experts": [asdict(record) for record in experts],
        "by_regime": [[asdict(record) for record in row] for row in by_regime],
    }
