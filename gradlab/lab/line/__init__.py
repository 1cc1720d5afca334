"""Continuous responses: policies on a line, trained by the same losses on log densities, in any coordinate (ours)."""

from gradlab.lab.line.bump_world import LineWorld, bump_world
from gradlab.lab.line.coordinates import Coordinate, cells, coordinate, hyperbolic, quantiles, scaled
from gradlab.lab.line.densities import REFERENCES, Density, GaussianMixture
from gradlab.lab.line.interval import Interval, gaussian_error
from gradlab.lab.line.line_fit import LINE_TRAINING, LineFit, fit_line, loss_slopes
from gradlab.lab.line.line_policies import POLICIES, EnergyNetwork, GaussianPolicy, LinePolicy, MixturePolicy

__all__ = [
    "LINE_TRAINING",
    "POLICIES",
    "REFERENCES",
    "Coordinate",
    "Density",
    "EnergyNetwork",
    "GaussianMixture",
    "GaussianPolicy",
    "Interval",
    "LineFit",
    "LinePolicy",
    "LineWorld",
    "MixturePolicy",
    "bump_world",
    "cells",
    "coordinate",
    "fit_line",
    "gaussian_error",
    "hyperbolic",
    "loss_slopes",
    "quantiles",
    "scaled",
]
