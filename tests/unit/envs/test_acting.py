"""Many bars in one compiled call are the same bars as one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rl.common.errors import TrainingDivergedError
from rl.envs.vector_env import VectorTradingEnv
from rl.policies.actor_critic import build_policy
from rl.policies.forward import PackedPolicy, forward_batch, pack, sample_actions
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

LANES, STEPS, BARS, FEATURES = 5, 40, 300, 3
RULES = TradingRules(commission_rate=0.0005, margin_rate=0.5, bar_volatility=0.01)
MLP = {"encoder": "mlp", "hidden": [9, 8]}
MIXTURE = {
    "encoder": "mixture",
    "experts": 3,
    "expert_hidden": [9, 8],
    "gate_hidden": 4,
    "gate_inputs": [1, 2],
    "temperature": 0.8,
    "value_hidden": [4],
}


def market() -> MarketArrays:
    rng = np.random.default_rng(1)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, BARS)))
    open_ = np.roll(close, 1)
    return MarketArrays(
        ohlc=np.column_stack([open_, np.maximum(open_, close), np.minimum(open_, close), close]),
        features=rng.normal(size=(BARS, FEATURES)).astype(np.float32),
        session=(np.arange(BARS) // 25).astype(np.int32),
        session_end=np.arange(BARS) % 25 == 24,
        tradable=np.ones(BARS, dtype=np.bool_),
        atr=np.full(BARS, 1.0),
    )


def envs(window: tuple[int, int], scheme: str) -> VectorTradingEnv:
    made = VectorTradingEnv(
        market(), [window], [RULES], num_envs=LANES, episode_bars=12, scheme=scheme, capital=100_000.0
    )
    made.reset(seed=4)
    return made


def lively(spec: dict[str, Any], actions: int) -> PackedPolicy:
    """Return a policy that does different things in different states."""
    policy = build_policy({**spec, "observations": FEATURES + 5, "actions": actions}, 0)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in policy.parameters():
            tensor += 0.3 * torch.randn(tensor.shape, generator=source)
    return pack(policy)


def one_by_one(env: VectorTradingEnv, policy: PackedPolicy, uniforms: np.ndarray) -> dict[str, np.ndarray]:
    """Return what `act` returns, from the public pieces."""
    names = (
        "observations",
        "reached",
        "actions",
        "log_probs",
        "rewards",
        "terminated",
        "truncated",
        "action_masks",
    )
    kept: dict[str, list[np.ndarray]] = {name: [] for name in names}
    obs, infos = env.reset(seed=4)
    for drawn in uniforms:
        mask = infos["action_mask"]
        actions, log_probs = sample_actions(forward_batch(policy, obs)[0], drawn, mask)
        after, rewards, terminated, truncated, infos = env.step(actions)
        ended = terminated | truncated
        reached = np.where(ended[:, None], infos["final_obs"], after) if ended.any() else after
        row = (obs, reached, actions, log_probs, rewards, terminated, truncated, mask)
        for name, values in zip(names, row, strict=True):
            kept[name].append(values)
        obs = after
    return {name: np.stack(values) for name, values in kept.items()}


@pytest.mark.parametrize("window", [(20, 90), (0, BARS)], ids=["few bars, known beforehand", "many bars"])
@pytest.mark.parametrize("spec", [MLP, MIXTURE], ids=["mlp", "mixture"])
@pytest.mark.parametrize(("scheme", "actions"), [("target", 3), ("orders", 5)])
def test_acting_at_once_gives_the_same_bits_as_bar_by_bar(window, spec, scheme, actions):
    policy = lively(spec, actions)
    uniforms = np.random.default_rng(2).random((STEPS, LANES))
    expected = one_by_one(envs(window, scheme), policy, uniforms)

    acted = envs(window, scheme).act(policy, uniforms)

    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(acted, name), values, err_msg=name)
    assert acted.truncated.any()
    assert len(np.unique(acted.actions)) > 1
    assert scheme == "target" or not acted.action_masks.all()


def test_acting_goes_on_where_the_last_call_stopped():
    policy = lively(MIXTURE, 3)
    uniforms = np.random.default_rng(2).random((STEPS, LANES))
    whole = envs((20, 90), "target").act(policy, uniforms)
    env = envs((20, 90), "target")
    # The second call has fewer looks than the window has bars: the first layer is not begun beforehand there.
    parts = [env.act(policy, uniforms[:30]), env.act(policy, uniforms[30:])]
    assert uniforms[30:].size < 70 < uniforms[:30].size
    for name in ("observations", "actions", "rewards", "reached"):
        both = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(both, getattr(whole, name))


def test_a_policy_whose_logits_are_no_numbers_stops_with_the_step():
    policy = lively(MLP, 3)
    policy.net[:] = np.nan
    with pytest.raises(TrainingDivergedError, match="step 1 of 40: the policy's logits are not finite"):
        envs((0, BARS), "target").act(policy, np.full((STEPS, LANES), 0.5))
