"""Stages 1 and 2: one PPO on the training window, watched on the validation window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rl.algorithms.ppo import PPO, AuxiliaryLoss, PPOConfig
from rl.common.errors import CheckpointError, ConfigError
from rl.common.stopping import finishing, is_requested
from rl.envs.vector_env import VectorTradingEnv
from rl.policies.actor_critic import ActorCritic
from rl.policies.forward import pack
from rl.stages.evaluation import replay_on, returns_by_session
from rl.stages.plan import Plan
from rl.stages.stage_model import StageModel, model_of
from rl.stages.symbol_data import SymbolData
from rl.trading.metrics import profit_factor, win_rate

Report = Callable[[dict[str, Any]], None]

Keep = Callable[[dict[str, Any]], None]
"""Takes the state of a training and keeps it where it outlives the process."""


@dataclass
class _Round:
    """A call of `train` that has not come to its end."""

    learner: PPO
    before: int
    """Episodes trained when it began."""
    next_check: int
    """Episodes after which validation is looked at next."""


def ppo_config(plan: Plan) -> PPOConfig:
    """Return PPO's settings under a plan."""
    params = plan.training_params.ppo
    config = PPOConfig(
        learning_rate=params.learning_rate,
        schedule=params.learning_rate_schedule,
        rollout_steps=params.rollout_steps,
        batch_size=params.batch_size,
        epochs=params.k_epochs,
        gamma=params.gamma,
        gae_lambda=params.gae_lambda,
        clip_epsilon=params.clip_epsilon,
        value_coef=params.value_coef,
        entropy_coef=params.entropy_coef,
        max_grad_norm=params.max_grad_norm,
        target_kl=params.target_kl,
    )
    problems = config.problems()
    if problems:
        raise ConfigError("training_params.ppo:\n  " + "\n  ".join(problems))
    return config


def training_env(data: SymbolData, plan: Plan) -> VectorTradingEnv:
    """Return the lanes that trade the training window, and nothing but it."""
    environment = plan.environment
    return VectorTradingEnv(
        data.market,
        [data.window("train")],
        [data.rules],
        num_envs=plan.training_params.ppo.num_envs,
        episode_bars=environment.episode_bars,
        scheme=environment.action_scheme,
        capital=environment.initial_capital,
    )


class PolicyTraining:
    """PPO on one policy; the best of its checkpoints by validation is the stage's model.

    An episode is `episode_bars` decisions of one account; `episodes: 500` means 500 times that many, spread over the
    lanes. Every `checkpoint_frequency` episodes the greedy policy trades the validation window; the weights with the
    highest mean session return there are kept. That looks at validation, never at promotion or test.
    """

    def __init__(
        self,
        stage: str,
        data: SymbolData,
        plan: Plan,
        policy: ActorCritic,
        *,
        seed: int,
        auxiliary_loss: AuxiliaryLoss | None = None,
    ) -> None:
        self._stage = stage
        self._data = data
        self._plan = plan
        self._policy = policy
        self._auxiliary_loss = auxiliary_loss
        self._seed = seed
        self._episodes = 0
        self._rounds: list[int] = []
        self._best_score = -np.inf
        self._best_weights: np.ndarray | None = None
        self._best_episodes = 0
        self._curve: list[dict[str, Any]] = []
        self._rolled_back = 0
        """Updates of the rounds that are over."""
        self._round: _Round | None = None

    def train(
        self,
        episodes: int,
        report: Report,
        on_better: Callable[[StageModel], None] | None = None,
        keep: Keep | None = None,
    ) -> StageModel:
        """Train for so many more episodes and return the best model so far.

        A training that `load_state` left inside a round goes on with that round. A signal ends the call after the
        update at hand, and after `keep`.

        Args:
            episodes: How many; a further call extends the training with a fresh learning-rate schedule.
            report: Called after every update with its figures.
            on_better: Called with the model whenever a check on validation found a better one.
            keep: Called with the state after every check on validation, and where a signal ends the call.
        """
        bars = self._plan.environment.episode_bars
        if self._round is None:
            self._rounds.append(episodes)
            frequency = self._plan.monitoring.checkpoint_frequency
            self._round = _Round(self._learner(), self._episodes, self._episodes + frequency)
            if self._best_weights is None:
                self._check()
        now = self._round

        def on_update(update: dict[str, Any]) -> None:
            self._episodes = now.before + min(episodes, int(update["steps"] // bars))
            if self._episodes >= now.next_check or self._episodes == now.before + episodes:
                is_better = self._check()
                now.next_check += self._plan.monitoring.checkpoint_frequency
                if is_better and on_better is not None:
                    on_better(self.model())
                if keep is not None:
                    keep(self.state())
            latest = self._curve[-1]
            report(
                {
                    **update,
                    "episodes": self._episodes,
                    "episodes_this_call": self._episodes - now.before,
                    "validation": latest,
                }
            )

        with finishing():
            now.learner.train(episodes * bars, on_update=on_update, should_stop=is_requested)
            if is_requested() and keep is not None:
                keep(self.state())
        self._episodes = now.before + episodes
        if self._curve[-1]["episodes"] != self._episodes:
            self._check()
        self._rolled_back += now.learner.rolled_back
        self._round = None
        return self.model()

    def _learner(self) -> PPO:
        """Return PPO for the round begun last; each round has a seed of its own."""
        return PPO(
            self._policy,
            training_env(self._data, self._plan),
            ppo_config(self._plan),
            self._seed + 7919 * (len(self._rounds) - 1),
            auxiliary_loss=self._auxiliary_loss,
        )

    def state(self) -> dict[str, Any]:
        """Return everything that going on depends on, and everything `model` tells: plain values and tensors."""
        now, best = self._round, self._best_weights
        return {
            "episodes": self._episodes,
            "rounds": list(self._rounds),
            "best_score": float(self._best_score),
            "best_weights": None if best is None else torch.tensor(best),
            "best_episodes": self._best_episodes,
            "curve": [dict(point) for point in self._curve],
            "rolled_back": self._rolled_back,
            "weights": self._policy.flat_parameters().clone(),
            "round": now
            and {"learner": now.learner.state(), "before": now.before, "next_check": now.next_check},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Stand exactly where `state` was taken: same symbol, plan, start and seed.

        Raises:
            CheckpointError: If it was taken of another network or another number of lanes.
        """
        self._episodes = int(state["episodes"])
        self._rounds = list(state["rounds"])
        self._best_score = float(state["best_score"])
        best = state["best_weights"]
        self._best_weights = None if best is None else best.numpy().copy()
        self._best_episodes = int(state["best_episodes"])
        self._curve = [dict(point) for point in state["curve"]]
        self._rolled_back = int(state["rolled_back"])
        if len(state["weights"]) != len(self._policy.flat_parameters()):
            raise CheckpointError(
                f"The saved state of this training has {len(state['weights'])} weights, its network has "
                f"{len(self._policy.flat_parameters())}. Train again from the start: --resume never."
            )
        self._policy.load_flat(state["weights"])
        self._round = None
        if (now := state["round"]) is not None:
            learner = self._learner()
            learner.load_state(now["learner"])
            self._round = _Round(learner, int(now["before"]), int(now["next_check"]))

    def model(self) -> StageModel:
        """Return the best model so far."""
        final = self._policy.flat_parameters().numpy().copy()
        assert self._best_weights is not None
        self._policy.load_flat(torch.from_numpy(self._best_weights))
        metrics = {
            # A copy: a later extension of this training must not rewrite what an earlier model looked like.
            "validation_curve": [dict(point) for point in self._curve],
            "best_score": self._best_score,
            "best_episodes": self._best_episodes,
            "validation_looks": len(self._curve),
            "episodes_by_round": list(self._rounds),
            "rolled_back": self._rolled_back + (self._round.learner.rolled_back if self._round else 0),
            "searched": self._plan.searched_settings(),
            "transfer_learning": self._plan.model_management.transfer_learning,
        }
        model = model_of(self._stage, self._policy, episodes=self._episodes, metrics=metrics)
        self._policy.load_flat(torch.from_numpy(final))
        return model

    def _check(self) -> bool:
        """Trade the validation window with the present weights, keep them if none did better, and say whether so."""
        environment = self._plan.environment
        replay = replay_on(
            self._data,
            pack(self._policy),
            "validation",
            scheme=environment.action_scheme,
            capital=environment.initial_capital,
        )
        returns = returns_by_session(self._data, replay, "validation")
        score = float(np.mean(returns))
        self._curve.append(
            {
                "episodes": self._episodes,
                "mean_session_return": score,
                "win_rate": _plain(win_rate(replay.trades.net_pnl)),
                "profit_factor": _plain(profit_factor(replay.trades.net_pnl)),
                "trades": len(replay.trades),
            }
        )
        # The untrained start is shown in the curve but is never the stage's model.
        is_better = self._episodes > 0 and score > self._best_score
        if is_better:
            self._best_score = score
            self._best_episodes = self._episodes
            self._best_weights = self._policy.flat_parameters().numpy().copy()
        return is_better


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
