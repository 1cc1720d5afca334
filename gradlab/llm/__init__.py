"""Preference losses on language models: pairs, sequence log-probabilities, training and evaluation."""
