"""Bars: arrays that belong together, and slices that share them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.builders import bars_from_closes, rising_bars


def test_bars_of_a_day_are_daily_and_shorter_ones_are_not():
    assert rising_bars(3, minutes=1440).is_daily
    assert not rising_bars(3, minutes=240).is_daily


def test_a_slice_keeps_session_numbers_and_shares_the_memory():
    bars = bars_from_closes(
        [1, 2, 3, 4], bars_per_session=2, volume=[5, 6, 7, 8], extra={"x_a": [9, 10, 11, 12]}
    )
    part = bars.slice(1, 3)
    assert len(part) == 2
    assert part.close.tolist() == [2, 3]
    assert part.session.tolist() == [0, 1]
    assert part.volume.tolist() == [6, 7]
    assert part.extra["x_a"].tolist() == [10, 11]
    assert part.label.tolist() == bars.label[1:3].tolist()
    assert np.shares_memory(part.close, bars.close)


def test_arrays_of_different_length_are_refused():
    with pytest.raises(ValueError, match="high has shape"):
        replace(rising_bars(3), high=np.zeros(2))


def test_a_users_column_of_another_length_is_refused():
    with pytest.raises(ValueError, match="extra:x_a has shape"):
        replace(rising_bars(3), extra={"x_a": np.zeros(4)})


def test_times_that_stand_still_are_refused():
    bars = rising_bars(3)
    with pytest.raises(ValueError, match="close_time has to increase"):
        replace(bars, close_time=bars.close_time[[0, 0, 1]])


def test_session_numbers_that_decrease_are_refused():
    with pytest.raises(ValueError, match="session numbers may not decrease"):
        replace(rising_bars(3), session=np.array([0, 1, 0], dtype=np.int32))
