"""Stagegate: train, judge and backtest reinforcement-learning traders through a gated curriculum."""

__version__ = "0.1.0"
