"""Put features on one scale with numbers taken from the training split alone.

A column that names a state of the market (`x_regime…` with a handful of values) is no quantity: regime 3 is not
three times regime 1. It becomes one flag for each value seen in training, so that a network can treat every regime
for itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rl.common.errors import CheckpointError, DataError
from rl.features.pipeline import REGIME_PREFIX

CLIP = 5.0
"""Scaled features lie within ± this, so that one wild bar cannot saturate a network."""

NORMAL_IQR = 1.349
"""Interquartile range of the standard normal distribution: divided by it, a range reads as a deviation."""

CONSTANT_SPREAD = 1e-9
"""A column whose spread is below this share of its size is constant: a float32 resolves 6e-8 of it."""

MOST_REGIMES = 8
"""A column `x_regime…` with at most so many values in training names its regimes; with more it is a quantity."""

FEWEST_REGIMES = 3
"""Two values are one flag already."""

_FLOAT32 = np.finfo(np.float32)


@dataclass(frozen=True)
class FeatureScaler:
    """Median and spread of each feature over the training rows. F features in, K columns out.

    The median and the interquartile range ignore how far the outer half of the rows lies out, so a crash in
    the training split does not flatten every other bar. A column whose middle half is one value (a flag) is
    scaled by its standard deviation instead; a constant column is only centred.

    A feature `x_regime…` with 3 to 8 values in training leaves as one column for each of them, in its place among the
    others: 1 where the feature has that value and else 0, less its mean over the training rows, by its standard
    deviation there. The values too come from the training rows alone; one that appears later sets none of the flags.
    """

    names: tuple[str, ...]
    """Features, in the order the scaler expects them. (F,)"""

    center: np.ndarray
    """Median, of a flag the mean. (K,) float32"""

    scale: np.ndarray
    """What one unit of the scaled column is worth; above 0. (K,) float32"""

    regimes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Values, ascending, of each feature that leaves as flags."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Name of each column that comes out: the feature's, of a flag with its value, as in `x_regime=2`. (K,)"""
        return tuple(column for _, column, _ in self._outputs())

    def feature_of_columns(self) -> tuple[str, ...]:
        """Return the feature each column that comes out was made of. (K,)"""
        return tuple(self.names[place] for place, _, _ in self._outputs())

    def _outputs(self) -> Iterator[tuple[int, str, float | None]]:
        """Yield of each column that comes out its feature's place, its name and, of a flag, the value it stands for."""
        for place, name in enumerate(self.names):
            if name in self.regimes:
                yield from ((place, f"{name}={value:g}", value) for value in self.regimes[name])
            else:
                yield place, name, None

    @classmethod
    def fit(cls, values: np.ndarray, names: Sequence[str]) -> FeatureScaler:
        """Take center and scale from the usable rows of the training split; no other row may be passed.

        Args:
            values: Features. (N, F)
            names: Name of each column. (F,)

        Raises:
            DataError: No row, a number that is not finite, or another number of columns than names.
        """
        if values.ndim != 2 or values.shape[1] != len(names):
            raise DataError(
                f"A scaler for {len(names)} features cannot be fitted to an array of shape {values.shape}."
            )
        if not len(values):
            raise DataError(
                "The scaler has no usable training row to learn from.\n"
                "  Use a longer file or a larger training split."
            )
        regimes: dict[str, tuple[float, ...]] = {}
        moments: list[tuple[float, float]] = []
        for column, name in zip(values.T.astype(np.float64), names, strict=True):
            _refuse_unfinite(column, name)
            seen = _regimes_in(column, name)
            if seen:
                regimes[name] = seen
                moments += [_mean_and_deviation(column == value) for value in seen]
            else:
                moments.append(_center_and_scale(column))
        center, scale = np.array(moments, dtype=np.float32).reshape(-1, 2).T
        return cls(tuple(names), np.ascontiguousarray(center), np.ascontiguousarray(scale), regimes)

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return (values - center) / scale within ±CLIP. A row alone gives the bytes it gives among others.

        Args:
            values: This scaler's features in their order. (N, F)

        Returns:
            (N, K) float32, a new array
        """
        if values.ndim != 2 or values.shape[1] != len(self.names):
            raise DataError(
                f"This scaler knows {len(self.names)} features, but the array has shape {values.shape}."
            )
        scaled = self._with_flags(values.astype(np.float32))
        # The difference of two enormous numbers of the user's own overflows to inf, which the clip takes in.
        with np.errstate(over="ignore"):
            scaled -= self.center
            scaled /= self.scale
        return np.clip(scaled, -CLIP, CLIP, out=scaled)

    def _with_flags(self, values: np.ndarray) -> np.ndarray:
        """Return the columns that come out, not scaled yet. (N, F) -> (N, K), both float32"""
        if not self.regimes:
            return values
        columns = np.empty((len(values), len(self.center)), dtype=np.float32)
        for column, (place, _, value) in enumerate(self._outputs()):
            columns[:, column] = values[:, place] if value is None else values[:, place] == value
        return columns

    def check_names(self, names: Sequence[str]) -> None:
        """Raise unless `names` are this scaler's columns in this order.

        Raises:
            CheckpointError: Says which features are missing, which are new, or that only the order differs.
        """
        if tuple(names) == self.names:
            return
        missing = [name for name in self.names if name not in names]
        unknown = [name for name in names if name not in self.names]
        found = [f"missing: {', '.join(missing)}"] if missing else []
        found += [f"not known to the model: {', '.join(unknown)}"] if unknown else []
        raise CheckpointError(
            "The model was trained on other features than these data have: "
            f"{'; '.join(found) or 'order differs'}.\n"
            "  Process the raw file with the instrument settings used in training, or train the model anew."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the scaler as lists of plain numbers; exact, since every float32 is a float64."""
        return {
            "names": list(self.names),
            "center": self.center.tolist(),
            "scale": self.scale.tolist(),
            "regimes": {name: list(values) for name, values in self.regimes.items()},
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> FeatureScaler:
        """Return the scaler that `to_dict` described.

        Raises:
            CheckpointError: A part is missing, of another length, not finite, or a scale is not above 0.
        """
        try:
            names = tuple(str(name) for name in stored["names"])
            # A number too large becomes infinite, which is refused below.
            with np.errstate(over="ignore"):
                center = np.asarray(stored["center"], dtype=np.float32)
                scale = np.asarray(stored["scale"], dtype=np.float32)
            # A model made before regimes became flags has none of them, and goes on seeing them as numbers.
            regimes = {
                str(name): tuple(float(value) for value in values)
                for name, values in dict(stored.get("regimes", {})).items()
            }
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"The stored feature scaler cannot be read: {error!r}.") from error
        scaler = cls(names, center, scale, regimes)
        columns = len(scaler.columns)
        fits = center.shape == scale.shape == (columns,) and regimes.keys() <= set(names)
        if not fits or not np.all(np.isfinite(center)) or not np.all(np.isfinite(scale) & (scale > 0)):
            raise CheckpointError(
                f"The stored feature scaler is damaged: {len(names)} names that make {columns} columns, "
                f"centers of shape {center.shape}, scales of shape {scale.shape}, regimes of "
                f"{', '.join(regimes) or 'no feature'}; centers have to be finite, scales finite and above 0."
            )
        return scaler


def _refuse_unfinite(column: np.ndarray, name: str) -> None:
    if not np.all(np.isfinite(column)):
        row = int(np.flatnonzero(~np.isfinite(column))[0])
        raise DataError(
            f"Feature {name} is {column[row]} in usable training row {row}; a scaler needs finite numbers."
        )


def _regimes_in(column: np.ndarray, name: str) -> tuple[float, ...]:
    """Return the values of a column that names regimes, ascending; none if it is a quantity. (N,)"""
    if not name.startswith(REGIME_PREFIX):
        return ()
    values = np.unique(column)
    return tuple(values.tolist()) if FEWEST_REGIMES <= len(values) <= MOST_REGIMES else ()


def _mean_and_deviation(is_set: np.ndarray) -> tuple[float, float]:
    """Return the mean of a flag and its standard deviation, above 0 as some rows have it and others not. (N,) bool"""
    share = float(is_set.mean())
    return share, (share * (1.0 - share)) ** 0.5


def _center_and_scale(column: np.ndarray) -> tuple[float, float]:
    """Return the median of a column and a robust standard deviation. (N,) float64"""
    lower, center, upper = np.percentile(column, [25.0, 50.0, 75.0])
    quartile_size = max(abs(lower), abs(upper))
    for spread, size in (((upper - lower) / NORMAL_IQR, quartile_size), (column.std(), np.abs(column).max())):
        # Below the smallest normal float32 the stored scale would be zero.
        if spread > max(CONSTANT_SPREAD * size, float(_FLOAT32.tiny)):
            return float(center), min(float(spread), float(_FLOAT32.max))
    return float(center), 1.0
