"""Put features on one scale with numbers taken from the training split alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rl.common.errors import CheckpointError, DataError

CLIP = 5.0
"""Scaled features lie within ± this, so that one wild bar cannot saturate a network."""

NORMAL_IQR = 1.349
"""Interquartile range of the standard normal distribution: divided by it, a range reads as a deviation."""

CONSTANT_SPREAD = 1e-9
"""A column whose spread is below this share of its size is constant: a float32 resolves 6e-8 of it."""

_FLOAT32 = np.finfo(np.float32)


@dataclass(frozen=True)
class FeatureScaler:
    """Median and spread of each feature over the training rows. F features.

    The median and the interquartile range ignore how far the outer half of the rows lies out, so a crash in
    the training split does not flatten every other bar. A column whose middle half is one value (a flag) is
    scaled by its standard deviation instead; a constant column is only centred.
    """

    names: tuple[str, ...]
    """Columns, in the order the scaler expects them. (F,)"""

    center: np.ndarray
    """Median. (F,) float32"""

    scale: np.ndarray
    """What one unit of the scaled feature is worth; above 0. (F,) float32"""

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
        center = np.empty(len(names), dtype=np.float32)
        scale = np.empty(len(names), dtype=np.float32)
        for column, name in enumerate(names):
            center[column], scale[column] = _center_and_scale(values[:, column].astype(np.float64), name)
        return cls(tuple(names), center, scale)

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return (values - center) / scale within ±CLIP. A row alone gives the bytes it gives among others.

        Args:
            values: Features with this scaler's columns in this order. (N, F)

        Returns:
            (N, F) float32, a new array
        """
        if values.ndim != 2 or values.shape[1] != len(self.names):
            raise DataError(
                f"This scaler knows {len(self.names)} features, but the array has shape {values.shape}."
            )
        scaled = values.astype(np.float32)
        # The difference of two enormous numbers of the user's own overflows to inf, which the clip takes in.
        with np.errstate(over="ignore"):
            scaled -= self.center
            scaled /= self.scale
        return np.clip(scaled, -CLIP, CLIP, out=scaled)

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
        return {"names": list(self.names), "center": self.center.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> FeatureScaler:
        """Return the scaler that `to_dict` described.

        Raises:
            CheckpointError: A part is missing, of another length, not finite, or a scale is not above 0.
        """
        try:
            names = tuple(str(name) for name in stored["names"])
            center = np.asarray(stored["center"], dtype=np.float32)
            scale = np.asarray(stored["scale"], dtype=np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"The stored feature scaler cannot be read: {error!r}.") from error
        fits = center.shape == scale.shape == (len(names),)
        if not fits or not np.all(np.isfinite(center)) or not np.all(np.isfinite(scale) & (scale > 0)):
            raise CheckpointError(
                f"The stored feature scaler is damaged: {len(names)} names, centers of shape {center.shape}, "
                f"scales of shape {scale.shape}; centers have to be finite, scales finite and above 0."
            )
        return cls(names, center, scale)


def _center_and_scale(column: np.ndarray, name: str) -> tuple[float, float]:
    """Return the median of a column and a robust standard deviation. (N,) float64"""
    if not np.all(np.isfinite(column)):
        row = int(np.flatnonzero(~np.isfinite(column))[0])
        raise DataError(
            f"Feature {name} is {column[row]} in usable training row {row}; a scaler needs finite numbers."
        )
    lower, center, upper = np.percentile(column, [25.0, 50.0, 75.0])
    quartile_size = max(abs(lower), abs(upper))
    for spread, size in (((upper - lower) / NORMAL_IQR, quartile_size), (column.std(), np.abs(column).max())):
        # Below the smallest normal float32 the stored scale would be zero.
        if spread > max(CONSTANT_SPREAD * size, float(_FLOAT32.tiny)):
            return float(center), min(float(spread), float(_FLOAT32.max))
    return float(center), 1.0
