"""Grids of settings, and the thousands of trainings that they ask for."""
