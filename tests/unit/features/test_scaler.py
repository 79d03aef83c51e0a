from __future__ import annotations

import json

import numpy as np
import pytest

from rl.common.errors import CheckpointError, DataError
from rl.features.pipeline import compute_features
from rl.features.scaler import FeatureScaler
from tests.builders import an_instrument, random_bars, with_later_bars_changed


def column(*numbers):
    return np.array(numbers, dtype=np.float32)[:, None]


def test_center_is_the_median_and_scale_the_interquartile_range_of_a_normal():
    # 0 … 8: quartiles 2, 4 and 6.
    scaler = FeatureScaler.fit(column(*range(9)), ["a"])
    assert scaler.center[0] == 4.0
    assert scaler.scale[0] == pytest.approx(4.0 / 1.349)
    np.testing.assert_allclose(scaler.transform(column(4, 6))[:, 0], [0.0, 1.349 / 2.0], rtol=1e-6)


def test_one_crash_in_training_does_not_flatten_the_rest():
    calm = FeatureScaler.fit(column(*range(9)), ["a"])
    crashed = FeatureScaler.fit(column(*range(8), 1e9), ["a"])
    assert crashed.scale[0] == calm.scale[0]


def test_a_normal_column_gets_deviation_one():
    values = np.random.default_rng(1).normal(3.0, 7.0, (20_000, 1)).astype(np.float32)
    scaled = FeatureScaler.fit(values, ["a"]).transform(values)
    assert scaled.std() == pytest.approx(1.0, abs=0.03)


def test_scaled_values_are_clipped_at_five():
    scaler = FeatureScaler.fit(column(*range(9)), ["a"])
    assert scaler.transform(column(1e6, -1e6))[:, 0].tolist() == [5.0, -5.0]


def test_a_constant_column_is_centred_and_nothing_else():
    scaler = FeatureScaler.fit(column(*[0.1] * 9), ["a"])
    assert scaler.scale[0] == 1.0
    assert scaler.transform(column(0.1))[0, 0] == 0.0
    assert scaler.transform(column(1.1))[0, 0] == pytest.approx(1.0)


def test_a_flag_whose_quartiles_are_equal_is_scaled_by_its_deviation():
    flags = [0.0] * 15 + [1.0]
    scaler = FeatureScaler.fit(column(*flags), ["a"])
    assert scaler.scale[0] == pytest.approx(np.sqrt(1 / 16 * 15 / 16))


def test_a_column_of_tiny_numbers_is_not_taken_for_a_constant():
    scaler = FeatureScaler.fit(column(*np.arange(9) * 1e-12), ["a"])
    assert scaler.scale[0] == pytest.approx(4e-12 / 1.349)


def test_the_largest_float32_numbers_stay_finite():
    largest = float(np.finfo(np.float32).max)
    values = column(-largest, -largest, largest, largest)
    scaled = FeatureScaler.fit(values, ["a"]).transform(values)
    assert np.isfinite(scaled).all()


def test_the_scaler_knows_only_the_rows_it_was_given():
    """A scaler that saw the test split would carry its crashes into training."""
    bars = random_bars(600, seed=6, minutes=1440)
    train = slice(255, 400)
    tables = [
        compute_features(given, an_instrument()) for given in (bars, with_later_bars_changed(bars, 400, 1))
    ]
    scalers = [FeatureScaler.fit(table.values[train], table.names) for table in tables]
    assert scalers[0].to_dict() == scalers[1].to_dict()
    whole = [FeatureScaler.fit(table.values[255:], table.names) for table in tables]
    assert whole[0].to_dict() != whole[1].to_dict(), "fitted on all bars, the later ones do show"


def test_a_row_alone_is_scaled_as_it_is_among_others():
    values = np.random.default_rng(2).normal(size=(100, 7)).astype(np.float32)
    scaler = FeatureScaler.fit(values, list("abcdefg"))
    together = scaler.transform(values)
    assert together[41:42].tobytes() == scaler.transform(values[41:42]).tobytes()


def test_a_column_of_regimes_becomes_a_flag_for_each_value_seen_in_training():
    """Regime 2 is not twice regime 1: a single number would force a network to take the regimes in their order."""
    regime = [0, 1, 1, 3, 3, 3, 3, 3]
    scaler = FeatureScaler.fit(np.column_stack([column(*range(8)), column(*regime)]), ["a", "x_regime"])
    assert scaler.columns == ("a", "x_regime=0", "x_regime=1", "x_regime=3")
    assert scaler.feature_of_columns() == ("a", "x_regime", "x_regime", "x_regime")
    # A share p of the rows has the flag: mean p, standard deviation sqrt(p (1 - p)).
    shares = np.array([1 / 8, 2 / 8, 5 / 8])
    deviations = np.sqrt(shares * (1 - shares))
    scaled = scaler.transform(np.array([[3.5, 1.0]], dtype=np.float32))
    np.testing.assert_allclose(scaled, [[0.0, *((np.array([0, 1, 0]) - shares) / deviations)]], rtol=1e-6)
    assert scaled.dtype == np.float32


def test_flags_stand_in_their_features_place_and_the_others_stay_what_they_were():
    values = np.random.default_rng(2).normal(size=(40, 3)).astype(np.float32)
    alone = FeatureScaler.fit(values[:, [0, 2]], ["a", "c"]).transform(values[:, [0, 2]])
    values[:, 1] = np.arange(40) % 3
    scaler = FeatureScaler.fit(values, ["a", "x_regime_mood", "c"])
    assert scaler.columns == ("a", "x_regime_mood=0", "x_regime_mood=1", "x_regime_mood=2", "c")
    assert scaler.transform(values)[:, [0, 4]].tobytes() == alone.tobytes()


def test_a_regime_never_seen_in_training_sets_no_flag():
    scaler = FeatureScaler.fit(column(0, 1, 2, 0, 1, 2), ["x_regime"])
    unseen, other = scaler.transform(column(7, 0))
    assert (unseen < 0).all()
    assert (other < 0).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("x_regime", [0, 1, 1, 0] * 3),  # Two values are one flag already.
        ("x_regime", list(range(9))),  # More than eight are a quantity.
        ("x_mood", [0, 1, 2] * 3),  # The name does not say that these are regimes.
    ],
)
def test_what_is_a_quantity_or_a_single_flag_stays_one_column(name, values):
    scaler = FeatureScaler.fit(column(*values), [name])
    assert scaler.columns == (name,)
    assert scaler.transform(column(*values)).shape == (len(values), 1)


def test_a_scaler_with_regimes_comes_back_from_json_exactly():
    values = np.column_stack([np.arange(30) % 4 + 0.1, np.arange(30)]).astype(np.float32)
    scaler = FeatureScaler.fit(values, ["x_regime", "a"])
    restored = FeatureScaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    assert restored.columns == scaler.columns
    assert restored.transform(values).tobytes() == scaler.transform(values).tobytes()
    assert (scaler.transform(values)[:, :4] > 0).sum() == 30


def test_a_scaler_stored_before_regimes_became_flags_sees_them_as_numbers():
    stored = {"names": ["x_regime"], "center": [1.0], "scale": [2.0]}
    assert FeatureScaler.from_dict(stored).transform(column(0, 1, 3)).tolist() == [[-0.5], [0.0], [1.0]]


def test_transform_leaves_its_input_alone():
    values = column(*range(9))
    values.flags.writeable = False
    assert FeatureScaler.fit(values, ["a"]).transform(values) is not values


def test_a_scaler_comes_back_from_json_exactly():
    values = np.random.default_rng(3).normal(size=(50, 3)).astype(np.float32)
    scaler = FeatureScaler.fit(values, ["a", "b", "x_c"])
    restored = FeatureScaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    assert restored.names == scaler.names
    assert restored.center.tobytes() == scaler.center.tobytes()
    assert restored.scale.tobytes() == scaler.scale.tobytes()
    assert restored.transform(values).tobytes() == scaler.transform(values).tobytes()


@pytest.mark.parametrize(
    "damage",
    [
        {"scale": [1.0]},
        {"scale": [1.0, 0.0]},
        {"scale": [1.0, float("inf")]},
        {"center": [float("nan"), 0.0]},
        {"center": ["far", 0.0]},
        {"names": ["a"]},
        {"names": None},
        {"regimes": {"a": [0.0, 1.0, 2.0]}},
        {"regimes": {"x_regime": []}},
        {"regimes": {"a": None}},
        {"regimes": 3},
    ],
)
def test_a_damaged_scaler_is_refused(damage):
    with pytest.raises(CheckpointError, match="scaler"):
        FeatureScaler.from_dict({"names": ["a", "b"], "center": [0.0, 0.0], "scale": [1.0, 1.0]} | damage)


def test_fitting_to_no_rows_or_to_nan_is_refused():
    with pytest.raises(DataError, match="no usable training row"):
        FeatureScaler.fit(np.zeros((0, 1), dtype=np.float32), ["a"])
    with pytest.raises(DataError, match="Feature a is nan in usable training row 1"):
        FeatureScaler.fit(column(0.0, np.nan), ["a"])
    with pytest.raises(DataError, match="2 features"):
        FeatureScaler.fit(column(0.0, 1.0), ["a", "b"])


def test_other_columns_than_the_scaler_knows_are_named():
    scaler = FeatureScaler.fit(np.zeros((2, 3), dtype=np.float32), ["a", "b", "c"])
    scaler.check_names(("a", "b", "c"))
    with pytest.raises(CheckpointError, match=r"missing: b; not known to the model: d"):
        scaler.check_names(("a", "c", "d"))
    with pytest.raises(CheckpointError, match="order differs"):
        scaler.check_names(("b", "a", "c"))
    with pytest.raises(DataError, match="3 features"):
        scaler.transform(np.zeros((2, 2), dtype=np.float32))
