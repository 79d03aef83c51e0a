"""The largest things a plan or a model file may ask for.

Far above what anybody trains, and far below what fills the memory of a machine: a slip of the keyboard and a file of
a stranger are refused by arithmetic, before anything of their size is made. One place, so that what a plan may ask
for is what a model file may hold.
"""

from __future__ import annotations

MOST_PARAMETERS = 64 << 20
"""Numbers in a network; the main plan's largest has about 100,000."""

WIDEST_LAYER = 1 << 16
MOST_LAYERS = 64
MOST_EXPERTS = 256

MOST_INNER_STEPS = 1_000
"""Steps of one adaptation; the main plan takes 7."""

MOST_SUPPORT_STEPS = 1 << 18
"""Transitions of one inner step; each keeps two observations in memory."""

MOST_SUPPORT_BARS = 1 << 24
"""Bars to adapt on; more than any file has."""
