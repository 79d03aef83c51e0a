"""Market data: bars in memory, the files they come from, the hours they trade, and how they are split."""
