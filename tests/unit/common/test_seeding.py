"""Named streams: the same for the same names, independent otherwise, and continued exactly."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rl.common.errors import CheckpointError, UsageError
from rl.common.seeding import generator, restored, state_of

ROOT = Path(__file__).resolve().parents[3]


def test_the_same_seed_and_names_give_the_same_draws():
    np.testing.assert_array_equal(
        generator(7, "rollout", 3).random(50), generator(7, "rollout", 3).random(50)
    )


def test_another_process_draws_the_same():
    """Python's own hash of a text differs from process to process; a seed must not."""
    program = "from rl.common.seeding import generator; print(generator(7, 'rollout', 3).integers(2**62))"
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(printed.stdout) == generator(7, "rollout", 3).integers(2**62)


def test_any_other_seed_or_name_gives_other_draws():
    streams = [
        (7,),
        (8,),
        (7, "a"),
        (7, "b"),
        (7, "a", "bc"),
        (7, "ab", "c"),
        (7, "abc"),
        (7, 1),
        (7, "1"),
        (7, 1, 2),
        (7, 12),
        (7, "a", 0),
        (7, "a", 0, 0),
    ]
    first = [int(generator(*stream).integers(2**62)) for stream in streams]
    assert len(set(first)) == len(streams)


def test_streams_of_neighbouring_names_are_not_correlated():
    draws = [generator(0, "lane", lane).standard_normal(4000) for lane in range(6)]
    for one, other in itertools.combinations(draws, 2):
        # The correlation of independent draws has a standard deviation of 1 / sqrt(4000) = 0.016.
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 * 0.016


def test_drawing_from_one_stream_leaves_the_others_alone():
    undisturbed = generator(7, "b").random(10)
    first, second = generator(7, "a"), generator(7, "b")
    first.random(1000)
    np.testing.assert_array_equal(second.random(10), undisturbed)


def test_a_numpy_integer_names_the_stream_of_its_number():
    assert generator(7, "lane", np.int64(3)).random() == generator(7, "lane", 3).random()


def test_a_negative_seed_is_refused():
    with pytest.raises(UsageError, match="seed has to be 0 or more, but is -1"):
        generator(-1)


def test_a_restored_generator_continues_where_the_saved_one_stood():
    one = generator(7, "rollout")
    one.random(33)
    # 32-bit draws come in pairs; stopping after one leaves half of a pair waiting, which has to survive too.
    one.integers(0, 100, size=1, dtype=np.uint32)
    state = json.loads(json.dumps(state_of(one)))
    other = restored(state)
    np.testing.assert_array_equal(one.integers(0, 100, 5, np.uint32), other.integers(0, 100, 5, np.uint32))
    np.testing.assert_array_equal(one.standard_normal(50), other.standard_normal(50))


def test_a_saved_state_does_not_move_with_its_generator():
    one = generator(7)
    state = state_of(one)
    expected = one.random(5)
    np.testing.assert_array_equal(restored(state).random(5), expected)
    np.testing.assert_array_equal(restored(state).random(5), expected)


def test_a_state_survives_a_file_that_can_hold_no_code():
    one = generator(7)
    file = io.BytesIO()
    torch.save(state_of(one), file)
    file.seek(0)
    other = restored(torch.load(file, weights_only=True))
    np.testing.assert_array_equal(one.random(5), other.random(5))


@pytest.mark.parametrize(
    "state",
    [{}, {"bit_generator": "MT19937"}, {"bit_generator": "PCG64"}, {"bit_generator": "PCG64", "state": "x"}],
)
def test_a_state_of_something_else_is_refused(state):
    with pytest.raises(CheckpointError, match="random state"):
        restored(state)
