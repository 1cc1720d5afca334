"""Trained models judged: rewards, samples, held-out pairs, and the table of all runs."""
