"""Networks that choose actions and value states, in torch to learn and in numba to act."""
