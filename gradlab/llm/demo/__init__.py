"""The run that a laptop can do: small Llamas, real pairs, and a task whose true reward is known."""
