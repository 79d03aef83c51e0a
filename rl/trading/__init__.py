"""Execution: the one kernel every part trades through, its costs, its ledger and its figures."""
