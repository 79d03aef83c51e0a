"""Gymnasium environments over the trading kernel."""
