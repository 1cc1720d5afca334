"""Exact training in JAX, for comparison: the losses written a second time, Adam from scratch, jit and scan.

Twice: as one would write it, and as fast as we could make it. JAX is no dependency of gradlab;
``pip install 'gradlab[bench]'`` adds it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from scripts.benchmarks.timing import environment

# JAX reads these at its import and its first device: one thread on the CPU, as everything that it is compared with. The
# flags do not bind XLA's pool of threads, whose size is NPROC.
ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1", "NPROC": "1",
    "JAX_PLATFORMS": "cpu",
}  # fmt: skip
with environment(**ONE_THREAD):
    import jax  # pyright: ignore[reportMissingImports]
    import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

    # JAX's own settings stay for the process: a thread pool cannot be had back, and nothing else here uses JAX.
    jax.config.update("jax_enable_x64", True)  # arrays keep the precision that they come in
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # in the thread that asks, whose processor time is known
    jax.devices()

BETAS, EPSILON = (0.9, 0.999), 1e-8
Array = Any  # JAX's, which a type checker without JAX does not know
Margin = Callable[[Array, Array, Array, Array], Array]  # log π, then log π_ref, of winner and loser


def dpo(win: Array, lose: Array, ref_win: Array, ref_lose: Array) -> Array:
    """Return DPO's margin at β = 1."""
    return (win - ref_win) - (lose - ref_lose)


def bdpo(win: Array, lose: Array, ref_win: Array, ref_lose: Array) -> Array:
    """Return Balanced-DPO's margin at β = 1."""
    tiny = jnp.finfo(win.dtype).tiny  # 0/0 becomes ½, as in gradlab
    fixed_win, fixed_lose = jax.lax.stop_gradient(win) - tiny, jax.lax.stop_gradient(lose) - tiny
    total = fixed_win + fixed_lose
    return fixed_lose / total * (win - ref_win) - fixed_win / total * (lose - ref_lose)


MARGINS: dict[str, Margin] = {"dpo": dpo, "bdpo": bdpo}


def training(
    loss: str, weights: np.ndarray, reference: np.ndarray, dtype: str, steps: int, rate: float, tuned: bool = False
) -> Callable[[], np.ndarray]:
    """Return a function that trains every run and gives log π (R, X, Y); its first call compiles.

    weights    (R, X, Y, Y) shares of the ordered pairs.
    reference  (R, X, Y) log π_ref, where training starts.
    tuned      False: as one would write it. True: each unordered pair once, −σ(−m) as the slope of log σ(m), and
               responses first, so that vectors run over the columns of all runs and prompts.
    """
    if not tuned:
        given = jnp.asarray(weights, dtype), jnp.asarray(reference, dtype)
        return lambda: np.asarray(_batch(*given, MARGINS[loss], steps, rate))
    responses = reference.shape[-1]
    one, other = np.triu_indices(responses, 1)
    columns = np.moveaxis(weights.reshape(-1, responses, responses), 0, 2)
    sides = np.stack([columns[one, other], columns[other, one]])
    packed = jnp.asarray(sides, dtype), jnp.asarray(reference.reshape(-1, responses).T, dtype)
    return lambda: np.asarray(_columns(*packed, MARGINS[loss], steps, rate)).T.reshape(reference.shape)


def mean_loss(logits: Array, weights: Array, reference: Array, margin: Margin) -> Array:
    """Return −log σ(m) expected over all ordered pairs, summed over prompts; logits (X, Y), weights (X, Y, Y)."""
    logp = jax.nn.log_softmax(logits, -1)
    sides = (logp[:, :, None], logp[:, None, :], reference[:, :, None], reference[:, None, :])
    return -(weights * jax.nn.log_sigmoid(margin(*sides))).sum()


def same_slope(logits: Array, weights: Array, reference: Array, margin: Margin) -> Array:
    """Return a sum with the gradient of ``mean_loss``; logits (Y, C), weights (2, pairs, C) of both orders."""
    logp = jax.nn.log_softmax(logits, 0)
    one, other = np.triu_indices(len(logits), 1)
    margins = margin(logp[one], logp[other], reference[one], reference[other])
    won, lost = weights
    slope = lost - (won + lost) * jax.nn.sigmoid(-margins)
    return (jax.lax.stop_gradient(slope) * margins).sum()


_fixed = partial(jax.jit, static_argnames=("margin", "steps", "rate"))


@_fixed
def _batch(weights: Array, reference: Array, margin: Margin, steps: int, rate: float) -> Array:
    def one(weights: Array, reference: Array) -> Array:
        gradient = jax.grad(partial(mean_loss, weights=weights, reference=reference, margin=margin))
        return jax.nn.log_softmax(_adam(gradient, reference, steps, rate), -1)

    return jax.vmap(one)(weights, reference)


@_fixed
def _columns(weights: Array, reference: Array, margin: Margin, steps: int, rate: float) -> Array:
    gradient = jax.grad(partial(same_slope, weights=weights, reference=reference, margin=margin))
    return jax.nn.log_softmax(_adam(gradient, reference, steps, rate), 0)


def _adam(gradient: Callable[[Array], Array], start: Array, steps: int, rate: float) -> Array:
    def step(state: tuple[Array, Array, Array], taken: Array) -> tuple[tuple[Array, Array, Array], None]:
        logits, momentum, square = state
        slope = gradient(logits)
        momentum = BETAS[0] * momentum + (1 - BETAS[0]) * slope
        square = BETAS[1] * square + (1 - BETAS[1]) * slope**2
        deviation = jnp.sqrt(square / (1 - BETAS[1] ** taken))
        logits = logits - rate * momentum / (1 - BETAS[0] ** taken) / (deviation + EPSILON)
        return (logits, momentum, square), None

    zeros = jnp.zeros_like(start)
    taken = jnp.arange(1, steps + 1, dtype=start.dtype)
    return jax.lax.scan(step, (start, zeros, zeros), taken)[0][0]
