"""Families of distributions over the responses to one prompt: the policies p and preferences q of the theory.

A support is an interval of responses, cut into n equal cells; log-distributions are arrays (n,) that sum to one. The
families are ours: the paper leaves open which distributions it means.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import log_softmax

from gradlab.checks import between, count, one_of, positive
from gradlab.streams import Purpose, stream
from gradlab.theory.continuous import LogDensity
from gradlab.theory.inputs import Array

Pair = tuple[Array, Array]  # log p, log q

SUPPORT = 20.0  # length of the usual support: its unit is one response of a grid of 20
SHAPES: dict[str, Callable[[Array], Array]] = {  # log-densities of width 1, up to a constant
    "gaussian": lambda z: -0.5 * z**2,
    "laplace": lambda z: -np.sqrt(2) * np.abs(z),
    "student": lambda z: -2 * np.log1p(z**2 / 3),  # 3 degrees of freedom
}


def cells(n: int, support: float = SUPPORT, start: float | None = None) -> Array:
    """Return the centres of n equal cells of a support that begins at ``start``, (n,); by default 0 is its middle."""
    centres = (np.arange(count("n", n, least=2)) + 0.5) * positive("support", support) / n
    return centres + (-support / 2 if start is None else start)


def log_density(shape: str, mode: float, width: float) -> LogDensity:
    """Return the log-density of a shape of ``SHAPES`` as a function of y, up to a constant; lengths in units of y."""
    of_width_1, width = SHAPES[one_of("shape", shape, SHAPES)], positive("width", width)
    return lambda y: of_width_1((y - mode) / width)


def on_cells(shape: str, y: Array, mode: float, width: float) -> Array:
    """Return the log-distribution of a shape of ``SHAPES`` over responses at ``y``, (n,); lengths in units of y."""
    return log_softmax(log_density(shape, mode, width)(y))


def gaussian(n: int, mode: float, width: float) -> Array:
    """Return the log-distribution of a Gaussian on n cells of the usual support, (n,); 0 is its middle."""
    return on_cells("gaussian", cells(n), mode, width)


def one_peak(n: int, at: int, rest: float) -> Array:
    """Return the log-distribution, (n,), of one likely response, number ``at``; the others share ``rest`` evenly."""
    between("rest", rest, 0, 1, open_low=True, open_high=True)
    if count("at", at) >= count("n", n, least=2):
        raise ValueError(f"at must be the number of a response, less than {n}, got {at}")
    return _log(np.where(np.arange(n) == at, 1 - rest, rest / (n - 1)))


def random_peak(n: int, rest: float, seed: int) -> tuple[Array, int]:
    """Draw where ``one_peak`` has its likely response; return the log-distribution, (n,), and the response's number."""
    at = int(stream(seed, Purpose.CONFIDENT, n).integers(count("n", n, least=2)))
    return one_peak(n, at, rest), at


def gaussian_pair(n: int, distance: float, sigma_p: float, sigma_q: float) -> Pair:
    """Return log p and log q, (n,) each: Gaussians with their modes ``distance`` apart; lengths in units of y."""
    sigma_p, sigma_q = positive("sigma_p", sigma_p), positive("sigma_q", sigma_q)
    return gaussian(n, -distance / 2, sigma_p), gaussian(n, distance / 2, sigma_q)


def peak_pair(n: int, distance: float, rest: float, sigma_q: float) -> Pair:
    """Return log p and log q, (n,) each: one likely response, the others sharing ``rest``, and a Gaussian away."""
    at = int(np.abs(cells(n) + distance / 2).argmin())
    return one_peak(n, at, rest), gaussian(n, distance / 2, positive("sigma_q", sigma_q))


def dirichlet_pair(n: int, alpha_p: float, alpha_q: float, seed: int) -> Pair:
    """Draw log p and log q, (n,) each, from Dirichlet distributions of these concentrations."""
    rng = stream(seed, Purpose.VARIANCE_DIRICHLET, n)
    return _dirichlet(n, alpha_p, rng), _dirichlet(n, alpha_q, rng)


def dirichlet_twins(n: int, alpha: float, seed: int) -> Pair:
    """Draw log p and log q, (n,) each, from one Dirichlet distribution; the draws are not ``dirichlet_pair``'s."""
    rng = stream(seed, Purpose.SHIFT_DIRICHLET)
    return _dirichlet(n, alpha, rng), _dirichlet(n, alpha, rng)


def random_policy(family: str, n: int, level: float, rng: np.random.Generator) -> Array:
    """Draw one policy over n responses, probabilities (n,).

    family  ``dirichlet``: level is the concentration. ``gaussian``: level is the width as a share of n, and the mode is
            drawn. ``one-hot``: level is the probability of one response, which is drawn; the others share the rest as
            Dirichlet(1) draws it.
    """
    one_of("family", family, ("dirichlet", "gaussian", "one-hot"))
    count("n", n, least=2)
    between("level", level, 0, 1 if family == "one-hot" else math.inf, open_low=True)
    if family == "dirichlet":
        return rng.dirichlet(np.full(n, level))
    if family == "gaussian":
        logits = SHAPES["gaussian"]((np.arange(n) - rng.uniform(0, n - 1)) / (level * n))
        p = np.exp(logits - logits.max())
        return p / p.sum()
    rest = (1 - level) * rng.dirichlet(np.ones(n - 1))
    return np.insert(rest, rng.integers(n), level)


def _dirichlet(n: int, alpha: float, rng: np.random.Generator) -> Array:
    return _log(rng.dirichlet(np.full(count("n", n, least=2), positive("alpha", alpha))))


def _log(p: Array) -> Array:
    """Return log p of probabilities, where those that underflow to 0 are tiny."""
    return log_softmax(np.log(np.maximum(p, 1e-300)))
