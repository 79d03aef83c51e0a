"""The sequence of training stages: its plan, its gates, and what each stage does."""
