"""Learning algorithms over tensors and Gymnasium environments; nothing here knows what a market is."""
