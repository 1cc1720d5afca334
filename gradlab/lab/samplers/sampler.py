"""The interface of a sampler, and the sums of products that most samplers are."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from gradlab.checks import of_kind, shown


class NoWeight(ValueError):
    """Raised where a sampler gives no weight to any pair of a prompt's data, in the course of a training."""


class Side(NamedTuple):
    """The law of one side of a pair: log p(y) = policy · log π(y) + reference · log π_ref(y) + utility · u(y) + c."""

    policy: float = 0.0
    reference: float = 0.0
    utility: float = 0.0

    def log_density(self, logp: Tensor, ref_logp: Tensor, utility: Tensor) -> Tensor:
        """Return log p without its constant c, of the tensors' shape (..., Y)."""
        parts = zip(self, (logp, ref_logp, utility), strict=True)
        return reduce(torch.add, (factor * values for factor, values in parts if factor), torch.zeros_like(logp))


class Term(NamedTuple):
    """A part of a sampler: one side of the pair is drawn from ``first``, the other from ``second``.

    share  of this part in the sum, once it is normalised over all pairs i < j. None: the densities add up as they are.
    """

    first: Side
    second: Side
    share: float | None = None

    def exponents(self, logp: Tensor, ref_logp: Tensor, utility: Tensor) -> Tensor:
        """Return log p(i) + log q(j), (..., Y, Y); −∞ on the diagonal."""
        first, second = (side.log_density(logp, ref_logp, utility) for side in (self.first, self.second))
        table = first[..., :, None] + second[..., None, :]
        return table.masked_fill_(torch.eye(logp.shape[-1], dtype=torch.bool, device=logp.device), -torch.inf)


class Sampler:
    """A rule that says how often each pair is seen; a frozen dataclass of numbers with these facts.

    name, label, equation, source  as a loss states them; the equation is that of the pair's weight s(i, j).
    moves          True if the weights depend on log π.
    full_support   True if every pair has a positive weight under every policy with full support.
    drawn          True if mini-batches are drawn by the weights. False: they are drawn evenly, and weights multiply.
    normalised     True if weights are divided by their sum over a prompt's data.
    fixed_terms    ``terms``, where they do not depend on the sampler's numbers.

    A sampler of your own defines ``pairs``, or ``terms``.
    """

    name: str = "sampler"
    label: str = "sampler"
    equation: str = ""
    source: str = "yours"
    moves: bool = True
    full_support: bool = True
    drawn: bool = True
    normalised: bool = True
    fixed_terms: tuple[Term, ...] | None = None

    @property
    def terms(self) -> tuple[Term, ...] | None:
        """The parts of a sampler that is a sum of them; None for any other."""
        return self.fixed_terms

    def pairs(self, logp: Tensor, ref_logp: Tensor, utility: Tensor) -> Tensor:
        """Return the weight of each unordered pair, (..., Y, Y) float64: symmetric, ≥ 0, 0 on the diagonal, detached.

        logp, ref_logp, utility (..., Y). A ``normalised`` sampler's weights are determined up to a factor per prompt.
        """
        if self.terms is None:
            raise ValueError(f"sampler must define pairs or terms, got {type(self).__name__}, which has neither")
        given = [values.detach().double() for values in (logp, ref_logp, utility)]
        tables = [self.cut(term.exponents(*given), given[0]) for term in self.terms]
        if any(term.share is not None for term in self.terms):
            parts = [_both_orders(term, table, _peak(table)) for term, table in zip(self.terms, tables, strict=True)]
            return reduce(
                torch.add,
                (
                    (term.share or 0.0) * part / (part.sum((-2, -1), keepdim=True) / 2)
                    for term, part in zip(self.terms, parts, strict=True)
                ),
            )
        peak = (
            reduce(torch.maximum, map(_peak, tables)) if self.normalised else torch.zeros_like(given[0][..., :1, None])
        )
        parts = zip(self.terms, tables, strict=True)
        return reduce(torch.add, (_both_orders(term, table, peak) for term, table in parts))

    def cut(self, exponents: Tensor, logp: Tensor) -> Tensor:
        """Return the exponents (..., Y, Y) with −∞ where pairs are never seen."""
        return exponents

    def reweighted(self, data: Tensor, pairs: Tensor, comparable: Tensor) -> Tensor:
        """Return the weights to train on, all (..., Y, Y): the data's shares times the weights of ``pairs``.

        comparable  1 for pairs that could be in data, else 0.
        """
        weights = data * pairs
        if not self.normalised:
            return weights
        total = weights.sum((-2, -1), keepdim=True)
        return weights / torch.where(total > 0, total, 1.0)

    def __str__(self) -> str:
        """Return the text that ``from_text`` reads."""
        values = [(field.name, getattr(self, field.name)) for field in fields(self)] if is_dataclass(self) else []
        return self.name + (":" + ",".join(f"{name}={value}" for name, value in values) if values else "")


def _peak(table: Tensor) -> Tensor:
    """Return the largest exponent of each prompt, (..., 1, 1)."""
    return table.amax((-2, -1), keepdim=True)


def _both_orders(term: Term, table: Tensor, peak: Tensor) -> Tensor:
    """Return exp(table − peak) summed over both orders of a pair."""
    ordered = (table - peak).exp_()
    return ordered.mul_(2) if term.first == term.second else ordered + ordered.mT


def pair_weights(sampler: Sampler, logp: Tensor, ref_logp: Tensor, utility: Tensor) -> Tensor:
    """Return ``sampler.pairs``, checked, which a sampler of a user's own needs: (..., Y, Y) float64, detached."""
    for name, values in (("logp", logp), ("ref_logp", ref_logp), ("utility", utility)):
        of_kind(name, values, Tensor, "a tensor of shape (..., Y)")
        if not values.ndim or values.shape[-1] < 2 or values.shape != logp.shape:
            raise ValueError(f"{name} must have logp's shape (..., Y ≥ 2), got {tuple(values.shape)}")
    weights = sampler.pairs(logp, ref_logp, utility)
    wanted = (*logp.shape, logp.shape[-1])
    if not isinstance(weights, Tensor) or weights.shape != wanted:
        got = tuple(weights.shape) if isinstance(weights, Tensor) else shown(weights)
        raise ValueError(f"pairs of {sampler} must return a tensor of shape {wanted}, got {got}")
    weights = weights.detach().double()
    low, high = weights.aminmax()
    if not (low >= 0 and high < torch.inf):
        wrong = weights[~((weights >= 0) & weights.isfinite())][0].item()
        raise ValueError(f"pairs of {sampler} must return finite weights ≥ 0, got {wrong:g}")
    ours = type(sampler).__module__.startswith("gradlab.")
    if not ours and not torch.allclose(weights, weights.mT, rtol=1e-9, atol=0):
        raise ValueError(f"pairs of {sampler} must return one weight for both orders of a pair, got two")
    return weights
