"""All weights of a network as one vector, and Adam on that vector in one compiled pass.

A step over a dozen small tensors costs more in calls than in arithmetic; over one vector it is a single loop.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from rl.common.compiled import njit
from rl.common.errors import CheckpointError

BETA_1 = 0.9
BETA_2 = 0.999


@njit(cache=True, nogil=True, error_model="numpy")
def _norm(vector):
    """Return the Euclidean length, float64; four sums in turn, for one alone would wait on itself."""
    a = b = c = d = 0.0
    whole = vector.shape[0] - vector.shape[0] % 4
    for i in range(0, whole, 4):
        a += np.float64(vector[i]) * vector[i]
        b += np.float64(vector[i + 1]) * vector[i + 1]
        c += np.float64(vector[i + 2]) * vector[i + 2]
        d += np.float64(vector[i + 3]) * vector[i + 3]
    for i in range(whole, vector.shape[0]):
        a += np.float64(vector[i]) * vector[i]
    return math.sqrt((a + b) + (c + d))


@njit(cache=True, nogil=True, error_model="numpy")
def _adam(weights, gradient, first, second, scale, rate, correction, epsilon):
    beta_1 = np.float32(BETA_1)
    beta_2 = np.float32(BETA_2)
    # Rounded after the subtraction: 1 - 0.999 in float32 is off by 5 in 100,000.
    rest_1 = np.float32(1.0 - BETA_1)
    rest_2 = np.float32(1.0 - BETA_2)
    for i in range(weights.shape[0]):
        g = gradient[i] * scale
        m = beta_1 * first[i] + rest_1 * g
        v = beta_2 * second[i] + rest_2 * g * g
        first[i] = m
        second[i] = v
        weights[i] -= rate * m / (math.sqrt(v) * correction + epsilon)


class FlatAdam:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1) with the gradient's norm clipped beforehand.

    The network's parameters become views of one vector (`weights`), their gradients views of another.
    """

    def __init__(self, network: nn.Module, *, epsilon: float) -> None:
        """Take hold of a network's parameters, float32 on the CPU.

        Args:
            network: Its parameters keep their values; their storage moves.
            epsilon: Added to the root of the second moment.
        """
        parameters = list(network.parameters())
        self.weights = torch.cat([parameter.detach().reshape(-1) for parameter in parameters]).float()
        """Every parameter, end to end; writing to it changes the network. (P,)"""
        self.gradient = torch.zeros_like(self.weights)
        """Their gradients; `backward` adds to it. (P,)"""
        self.first_moment = torch.zeros_like(self.weights)
        self.second_moment = torch.zeros_like(self.weights)
        self.steps = 0
        self._epsilon = epsilon
        sizes = [parameter.numel() for parameter in parameters]
        pieces = zip(parameters, self.weights.split(sizes), self.gradient.split(sizes), strict=True)
        for parameter, weight, gradient in pieces:
            parameter.data = weight.view_as(parameter)
            parameter.grad = gradient.view_as(parameter)

    def zero_gradient(self) -> None:
        """Forget the gradient. Setting it to None instead would cut its tie to the vector."""
        self.gradient.zero_()

    def gradient_norm(self) -> float:
        """Return the Euclidean length of the whole gradient."""
        return _norm(self.gradient.numpy())

    def step(self, learning_rate: float, max_norm: float, norm: float) -> None:
        """Take one step.

        Args:
            learning_rate: Step size.
            max_norm: Longest gradient used; a longer one is shortened to it.
            norm: `gradient_norm`, which the caller has looked at.
        """
        self.steps += 1
        root = math.sqrt(1.0 - BETA_2**self.steps)
        _adam(
            self.weights.numpy(),
            self.gradient.numpy(),
            self.first_moment.numpy(),
            self.second_moment.numpy(),
            np.float32(min(1.0, max_norm / (norm + 1e-6))),
            np.float32(learning_rate / (1.0 - BETA_1**self.steps)),
            np.float32(1.0 / root),
            np.float32(self._epsilon),
        )

    def state(self) -> dict[str, torch.Tensor | int]:
        """Return a copy of weights, moments and step count."""
        return {
            "weights": self.weights.clone(),
            "first_moment": self.first_moment.clone(),
            "second_moment": self.second_moment.clone(),
            "steps": self.steps,
        }

    def load_state(self, state: dict[str, torch.Tensor | int]) -> None:
        """Go on exactly where `state` was taken.

        Raises:
            CheckpointError: If it belongs to a network of another size.
        """
        for name in ("weights", "first_moment", "second_moment"):
            given = state[name]
            if not isinstance(given, torch.Tensor) or given.shape != self.weights.shape:
                raise CheckpointError(
                    f"The saved {name} does not fit this network of {len(self.weights)} parameters; it has "
                    f"shape {tuple(getattr(given, 'shape', ()))}. Train again from the start."
                )
        with torch.no_grad():
            self.weights.copy_(torch.as_tensor(state["weights"]))
            self.first_moment.copy_(torch.as_tensor(state["first_moment"]))
            self.second_moment.copy_(torch.as_tensor(state["second_moment"]))
        self.steps = int(state["steps"])
