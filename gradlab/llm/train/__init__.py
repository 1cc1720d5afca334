"""A training run: its settings and stages, the loop, checkpoints, and what it writes to its log."""
