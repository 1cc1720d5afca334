"""A frozen plan of many runs of language models: its commands, what they cost, and how likely they are to show it."""
