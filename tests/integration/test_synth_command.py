"""`python -m rl synth` for every market: does the file hold what was drawn, and can it be processed?"""

from __future__ import annotations

import numpy as np
import pytest

import rl.__main__
from rl.market.ingest import read_raw
from rl.market.instruments import load_instruments
from rl.market.synthetic import MARKETS, generate

ONE_OTHER_NUMBER = {"bounce": "half_spread_bp=2", "noise_drift": "yearly_drift=0.3", "task": "theta=1.5"}


@pytest.mark.parametrize("name", MARKETS)
def test_the_command_writes_the_market_that_is_read_back_bit_for_bit(tmp_path, name, capsys):
    path = tmp_path / f"SYN_{name}_2.csv"
    given = ONE_OTHER_NUMBER.get(name)
    arguments = ["--market", name, "--sessions", "25", "--seed", "4", "--out", str(path)]
    code = rl.__main__.main(["synth", *arguments, *(["--param", given] if given else [])])
    assert code == 0
    assert f"4,675 made-up bars of the market {name}, seed 4" in capsys.readouterr().out
    params = {given.split("=")[0]: float(given.split("=")[1])} if given else {}
    market = generate(name, 25, seed=4, **params)
    bars = read_raw(path, path.stem, load_instruments().find(path.stem).instrument).bars
    np.testing.assert_array_equal(bars.close, market.closes)
    assert set(bars.extra) == set(market.signals)
    for column, values in market.signals.items():
        np.testing.assert_array_equal(bars.extra[column], values)
