"""The work behind run_training.py, run_backtest.py and `python -m rl`."""
