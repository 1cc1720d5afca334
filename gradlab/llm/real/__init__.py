"""Experiments on a pretrained model: tasks, and runs that a slice of an hour begins and another ends."""
