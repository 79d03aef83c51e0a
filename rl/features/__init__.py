"""Market features: causal indicators, their scaler, and the store of processed files."""
