"""What a gradient does to a policy: inner products of ∇π_i, and the step that is really taken.

A partial derivative with respect to a probability is not the change that is realised: all probabilities share the
logits. Arrays (..., n), responses last.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax

from gradlab.theory.inputs import Array, distribution, finite, log_distribution
from gradlab.theory.weights import in_logits


def gradient_inner_products(p: ArrayLike, kernel: ArrayLike | None = None) -> Array:
    """⟨∇_θ π_i, ∇_θ π_j⟩, (..., n, n).

    p       probabilities (..., n).
    kernel  ⟨∇_θ z_i, ∇_θ z_j⟩ of the logits z, (..., n, n); None: one free logit a response (the identity).

    For free logits this is π_i π_j(δ_ij − π_i − π_j + ‖π‖²). Over all responses the entries sum to zero, for every
    model: Σ_i π_i = 1 does not move. Source: the paper's inner-product assumption; closed form ours.
    """
    p = distribution("p", p)
    if kernel is None:
        return p[..., :, None] * p[..., None, :] * _score_products(p)
    kernel = finite("kernel", kernel)
    if kernel.shape[-2:] != (p.shape[-1],) * 2:
        raise ValueError(f"kernel must have shape (..., n, n) with p's n = {p.shape[-1]}, got {kernel.shape}")
    jacobian = p[..., :, None] * (np.eye(p.shape[-1]) - p[..., None, :])  # ∂π_i/∂z_j
    return jacobian @ kernel @ jacobian.swapaxes(-1, -2)


def gradient_cosines(p: ArrayLike, kernel: ArrayLike | None = None) -> Array:
    """Cosines of the angles between ∇_θ π_i and ∇_θ π_j, (..., n, n); arguments as above. NaN for a gradient of zero.

    They are also those between ∇_θ log π_i and ∇_θ log π_j. With free logits p_i may underflow; the cosine does not.
    """
    products = _score_products(distribution("p", p)) if kernel is None else gradient_inner_products(p, kernel)
    norms = np.sqrt(np.diagonal(products, axis1=-2, axis2=-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return products / (norms[..., :, None] * norms[..., None, :])


def mean_off_diagonal(matrix: ArrayLike, observed: ArrayLike | None = None) -> Array:
    """Mean of the entries i ≠ j of (..., n, n), (...); over the pairs of ``observed`` (n,) bool alone if given."""
    matrix = np.asarray(matrix, float)
    if observed is not None:
        observed = np.asarray(observed)
        if observed.dtype != bool or observed.shape != matrix.shape[-1:] or observed.sum() < 2:
            raise ValueError(f"observed must be {matrix.shape[-1]} booleans, at least two of them true")
        matrix = matrix[..., observed, :][..., observed]
    n = matrix.shape[-1]
    return (matrix.sum((-2, -1)) - np.trace(matrix, axis1=-2, axis2=-1)) / (n * (n - 1))


def pair_weight(n: int, win: int, lose: int, win_weight: float = 1.0, lose_weight: float = 1.0) -> Array:
    """−∂L/∂log π of one pair, up to its slope σ(−m) β: λ_w at the winner, −λ_l at the loser, (n,)."""
    for name, index in (("win", win), ("lose", lose)):
        if not 0 <= index < n:
            raise ValueError(f"{name} must be one of the {n} responses, 0 to {n - 1}, got {index}")
    weight = np.zeros(n)
    weight[win] += win_weight
    weight[lose] -= lose_weight
    return weight


def first_order_change(log_p: ArrayLike, weight: ArrayLike) -> Array:
    """d log π/dt when softmax logits follow the gradient: Δθ = w − p Σw, Δ log π = Δθ − Σ_j p_j Δθ_j, (..., n).

    weight: w = −∂L/∂log π. For one pair and an unobserved response k this is −(λ_w π_w − λ_l π_l) + (λ_w − λ_l)(‖π‖² −
    π_k). Source: ours.
    """
    move = in_logits(weight, log_p)
    return move - (np.exp(np.asarray(log_p, float)) * move).sum(-1, keepdims=True)


def realised_change(log_p: ArrayLike, weight: ArrayLike, step: float) -> Array:
    """Δ log π after one step of gradient descent of size ``step`` on softmax logits, exactly, (..., n)."""
    log_p = log_distribution("log_p", log_p)
    return log_softmax(log_p + step * in_logits(weight, log_p), axis=-1) - log_p


def _score_products(p: Array) -> Array:
    """⟨∇ log π_i, ∇ log π_j⟩ = δ_ij − π_i − π_j + ‖π‖² with free logits, free of cancellation near one-hot policies."""
    n = p.shape[-1]
    hollow = 1 - np.eye(n)
    others, squares = p @ hollow, (p**2) @ hollow  # 1 − π_i and ‖π‖² − π_i², as sums
    # ‖π‖² − π_i − π_j = Σ_{k ≠ i,j} π_k² − π_i(1 − π_i) − π_j(1 − π_j). The sum leaves the more probable of i and j out
    # first: its square would swallow what is left.
    more = p[..., :, None] >= p[..., None, :]
    rest = np.where(more, squares[..., :, None] - (p**2)[..., None, :], squares[..., None, :] - (p**2)[..., :, None])
    own = p * others
    products = np.maximum(rest, 0.0) - own[..., :, None] - own[..., None, :]
    diagonal = np.arange(n)
    products[..., diagonal, diagonal] = others**2 + squares
    return products
