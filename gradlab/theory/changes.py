"""Inner products of ∇π_i, and the change of a policy in a real step.

A partial derivative with respect to a probability is not the change in a step: all probabilities share the logits.
Arrays are (..., n), responses last.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax

from gradlab.arrays import bool_array
from gradlab.checks import between, count, positive
from gradlab.theory.inputs import Array, distribution, finite, log_distribution, numbers
from gradlab.theory.weights import in_logits


def gradient_inner_products(p: ArrayLike, kernel: ArrayLike | None = None) -> Array:
    """Return the inner products ⟨∇_θ π_i, ∇_θ π_j⟩, (..., n, n).

    p       probabilities (..., n).
    kernel  ⟨∇_θ z_i, ∇_θ z_j⟩ of the logits z, (..., n, n); None: one free logit per response (the identity).

    For free logits this is π_i π_j(δ_ij − π_i − π_j + ‖π‖²). Over all responses the entries sum to zero, for every
    model: Σ_i π_i = 1 does not move. Source: the paper's inner-product assumption; closed form ours.
    """
    p = distribution("p", p)
    return p[..., :, None] * p[..., None, :] * _score_products(p, kernel)


def gradient_cosines(p: ArrayLike, kernel: ArrayLike | None = None) -> Array:
    """Return the cosines between ∇_θ π_i and ∇_θ π_j, (..., n, n); NaN for a gradient of zero.

    Arguments as in ``gradient_inner_products``. ∇_θ log π_i and ∇_θ log π_j have the same cosines, so a cosine is right
    even where p_i underflows.
    """
    products = _score_products(distribution("p", p), kernel)
    with np.errstate(divide="ignore", invalid="ignore"):
        norms = np.sqrt(np.diagonal(products, axis1=-2, axis2=-1))
        return products / (norms[..., :, None] * norms[..., None, :])


def mean_off_diagonal(matrix: ArrayLike, observed: ArrayLike | None = None) -> Array:
    """Return the mean of the entries i ≠ j of (..., n, n), (...); if given, over ``observed`` (n,) bool responses."""
    matrix = numbers("matrix", matrix)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1] < 2:
        raise ValueError(f"matrix must have shape (..., n, n) with n ≥ 2, got {matrix.shape}")
    if observed is not None:
        observed = bool_array("observed", observed)
        if observed.shape != matrix.shape[-1:] or observed.sum() < 2:
            needs = f"{matrix.shape[-1]} booleans, at least two of them true"
            raise ValueError(
                f"observed must be {needs}, got {observed.dtype} of shape {observed.shape}: {observed!s:.40}"
            )
        matrix = matrix[..., observed, :][..., observed]
    n = matrix.shape[-1]
    return (matrix.sum((-2, -1)) - np.trace(matrix, axis1=-2, axis2=-1)) / (n * (n - 1))


def pair_weight(n: int, win: int, lose: int, win_weight: float = 1.0, lose_weight: float = 1.0) -> Array:
    """Return −∂L/∂log π of one pair, up to its slope σ(−m) β: λ_w at the winner, −λ_l at the loser, (n,)."""
    weight = np.zeros(count("n", n, least=2))
    for name, index in (("win", win), ("lose", lose)):
        if count(name, index) >= n:
            raise ValueError(f"{name} must be one of the {n} responses, 0 to {n - 1}, got {index}")
    for name, share in (("win_weight", win_weight), ("lose_weight", lose_weight)):
        between(name, share, -np.inf, open_low=True)
    weight[win] += win_weight
    weight[lose] -= lose_weight
    return weight


def first_order_change(log_p: ArrayLike, weight: ArrayLike) -> Array:
    """Return d log π/dt if softmax logits follow the gradient: Δθ = w − p Σw, Δ log π = Δθ − Σ_j p_j Δθ_j, (..., n).

    weight: w = −∂L/∂log π. For one pair and an unobserved response k this is −(λ_w π_w − λ_l π_l) + (λ_w − λ_l)(‖π‖² −
    π_k). Source: ours.
    """
    move = in_logits(weight, log_p)
    return move - (np.exp(np.asarray(log_p, float)) * move).sum(-1, keepdims=True)


def realised_change(log_p: ArrayLike, weight: ArrayLike, step: float) -> Array:
    """Return the exact Δ log π of one step of gradient descent of size ``step`` on softmax logits, (..., n)."""
    log_p = log_distribution("log_p", log_p)
    return log_softmax(log_p + positive("step", step) * in_logits(weight, log_p), axis=-1) - log_p


def _score_products(p: Array, kernel: ArrayLike | None) -> Array:
    """Return ⟨∇ log π_i, ∇ log π_j⟩ without cancellation near one-hot policies; free: δ_ij − π_i − π_j + ‖π‖²."""
    n = p.shape[-1]
    diagonal = np.arange(n)
    hollow = 1 - np.eye(n)
    others, squares = p @ hollow, (p**2) @ hollow  # 1 − π_i and ‖π‖² − π_i², as sums
    if kernel is not None:
        kernel = finite("kernel", kernel)
        if kernel.shape[-2:] != (n, n):
            raise ValueError(f"kernel must have shape (..., n, n) with p's n = {n}, got {kernel.shape}")
        try:
            np.broadcast_shapes(p.shape[:-1], kernel.shape[:-2])
        except ValueError:
            raise ValueError(f"leading axes must broadcast, got p {p.shape}, kernel {kernel.shape}") from None
        scores = -np.repeat(p[..., None, :], n, axis=-2)  # ∂ log π_i/∂z_j = δ_ij − π_j
        scores[..., diagonal, diagonal] = others
        return scores @ kernel @ scores.swapaxes(-1, -2)
    # ‖π‖² − π_i − π_j = Σ_{k ≠ i,j} π_k² − π_i(1 − π_i) − π_j(1 − π_j). The sum first leaves out the more probable of
    # i and j: rounding at the size of its square would swallow the rest.
    more = p[..., :, None] >= p[..., None, :]
    rest = np.where(more, squares[..., :, None] - (p**2)[..., None, :], squares[..., None, :] - (p**2)[..., :, None])
    variance = p * others
    products = np.maximum(rest, 0.0) - variance[..., :, None] - variance[..., None, :]
    products[..., diagonal, diagonal] = others**2 + squares
    return products
