"""Does PPO of Stable-Baselines3 learn on our environment? On a market with a planted edge it has to earn.

    python -m benchmarks.sb3_learning --steps 50000 --seeds 0

Exit code 1 where a seed's model does not earn on the test window after costs, or does not beat every random trader.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from stable_baselines3 import PPO

from rl.apps.sb3 import backtest_model, training_env
from rl.common.threads import use_one_thread
from rl.market.synthetic import generate, write_raw_csv

SYMBOL, BARS_PER_SESSION = "SYN_planted_2", 187


def main() -> int:
    """Train a model for each seed and print what it earns."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    use_one_thread()
    earned_by_all = True
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            earned_by_all &= _earns(Path(folder), seed, options.steps)
    return 0 if earned_by_all else 1


def _earns(folder: Path, seed: int, steps: int) -> bool:
    where: dict[str, Any] = {"raw_data_dir": folder / "raw", "processed_data_dir": folder / "processed"}
    write_raw_csv(generate("planted", 100, 7 + seed, BARS_PER_SESSION), folder / "raw" / f"{SYMBOL}.csv")
    env = training_env(SYMBOL, **where)
    model = PPO("MlpPolicy", env, n_steps=64, seed=seed, device="cpu").learn(steps)
    result = backtest_model(model, reports_dir=folder / "reports", **where)
    made, random = float(result.replay.equity[-1] / result.replay.capital - 1.0), result.baselines["random"]
    print(
        f"seed {seed}: {100 * made:+.2f} % on {result.span['sessions']} sessions it has not seen, "
        f"beats {random['draws_beaten']} of {random['draws']} random traders"
    )
    return made > 0.0 and random["draws_beaten"] == random["draws"]


if __name__ == "__main__":
    sys.exit(main())
