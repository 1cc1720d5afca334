"""Samplers by name: each says where both sides of a pair come from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.checks import between, count, keep_plain, positive
from gradlab.lab.samplers.sampler import Sampler, Side, Term

MOST_DRAWS = 1000
_EVEN, _POLICY, _REFERENCE = Side(), Side(policy=1.0), Side(reference=1.0)


@dataclass(frozen=True)
class Uniform(Sampler):
    """Every comparable pair is equally likely. Source: stated, as we read it."""

    name = "uniform"
    label = "uniform"
    equation = "s = 1"
    source = "Ma et al. 2025, arXiv 2502.20847"
    moves = False
    fixed_terms = (Term(_EVEN, _EVEN),)

    def reweighted(self, data: Tensor, pairs: Tensor, comparable: Tensor) -> Tensor:
        """Return the data's shares as they are, to the bit."""
        return data


@dataclass(frozen=True)
class FromReference(Sampler):
    """Both sides are drawn from the reference."""

    name = "reference"
    label = "from the reference"
    equation = "s = π_ref(i) π_ref(j)"
    source = "Rafailov et al. 2023, arXiv 2305.18290"
    moves = False
    fixed_terms = (Term(_REFERENCE, _REFERENCE),)


@dataclass(frozen=True)
class OnPolicy(Sampler):
    """Both sides are drawn from the current policy."""

    name = "on-policy"
    label = "on-policy"
    equation = "s = π(i) π(j)"
    source = "Guo et al. 2024, arXiv 2402.04792"
    fixed_terms = (Term(_POLICY, _POLICY),)


@dataclass(frozen=True)
class Mixture(Sampler):
    """A share α of pairs on-policy, the rest uniform; both parts are normalised over all pairs, masked ones too.

    alpha: α in [0, 1].
    """

    alpha: float = 0.5

    name = "mixture"
    label = "mixture"
    equation = "s = α π(i) π(j)/Σ + (1 − α)/Σ"
    source = "ours"

    def __post_init__(self) -> None:
        keep_plain(self, alpha=between("alpha", self.alpha, 0, 1))

    @property
    def terms(self) -> tuple[Term, ...]:
        """Two parts, each with its share."""
        return Term(_POLICY, _POLICY, self.alpha), Term(_EVEN, _EVEN, 1 - self.alpha)


@dataclass(frozen=True)
class Tempered(Sampler):
    """Both sides are drawn from the policy at a temperature, μ ∝ π^(1/τ): τ > 1 is flatter, τ < 1 is sharper.

    temperature: τ > 0.
    """

    temperature: float = 2.0

    name = "tempered"
    label = "tempered"
    equation = "s = (π(i) π(j))^(1/τ)"
    source = "ours; temperatures as language models are sampled with"

    def __post_init__(self) -> None:
        keep_plain(self, temperature=positive("temperature", self.temperature))

    @property
    def terms(self) -> tuple[Term, ...]:
        """One part."""
        side = Side(policy=1 / self.temperature)
        return (Term(side, side),)


@dataclass(frozen=True)
class TopK(Sampler):
    """Both sides are drawn from the policy's k most probable responses; all that tie with the k-th belong to them.

    k: a whole number ≥ 2. Pairs outside have no weight, so that no loss learns of them.
    """

    k: int = 10

    name = "top-k"
    label = "top-k"
    equation = "s = π(i) π(j) [i, j among the k most probable]"
    source = "Fan et al. 2018, arXiv 1805.04833, for single tokens"
    full_support = False

    def __post_init__(self) -> None:
        keep_plain(self, k=count("k", self.k, least=2))

    fixed_terms = (Term(_POLICY, _POLICY),)

    def cut(self, exponents: Tensor, logp: Tensor) -> Tensor:
        """Return the exponents with −∞ outside the k most probable responses."""
        outside = logp < logp.topk(min(self.k, logp.shape[-1]), -1).values[..., -1:]
        return exponents.masked_fill(outside[..., :, None] | outside[..., None, :], -torch.inf)


@dataclass(frozen=True)
class BestWorst(Sampler):
    """The best against the worst of m draws from the policy, by the true utility; labels stay Bradley–Terry draws.

    draws: m from 2 to 1,000. Of equal utilities the response with the lower number counts as better. Draws that are
    all one response make no pair. The law is exact: with mass c strictly between i and j in the order of utility,
    s = (π_i + π_j + c)^m − (π_i + c)^m − (π_j + c)^m + c^m, which m = 2 makes on-policy sampling.
    """

    draws: int = 4

    name = "best-worst"
    label = "best against worst"
    equation = "s = P(i and j are the best and the worst of m draws from π)"
    source = "ours, by order statistics; pairs as in Yuan et al. 2024, arXiv 2401.10020"

    def __post_init__(self) -> None:
        keep_plain(self, draws=count("draws", self.draws, least=2, most=MOST_DRAWS))

    def pairs(self, logp: Tensor, ref_logp: Tensor, utility: Tensor) -> Tensor:
        """Return the probability of each pair, (..., Y, Y); every term of the recurrence is positive."""
        order = torch.argsort(utility.detach(), dim=-1, descending=True, stable=True).expand(logp.shape)
        prob = logp.detach().double().exp().gather(-1, order)
        better, worse = prob[..., :, None], prob[..., None, :]
        inside = _between(prob)
        both, power = torch.zeros_like(inside), torch.ones_like(inside)  # for 0 draws: nothing, and c^0
        with_better, with_worse = torch.zeros_like(inside), torch.zeros_like(inside)  # (π + c)^n − c^n
        for _ in range(self.draws):
            both = (better + worse + inside) * both + worse * with_better + better * with_worse
            with_better, with_worse = (
                (side + inside) * reached + side * power
                for side, reached in ((better, with_better), (worse, with_worse))
            )
            power = power * inside
        both = both.triu(1)
        place = order.argsort(-1)
        both = (both + both.mT).gather(-2, place[..., :, None].expand(both.shape))
        return both.gather(-1, place[..., None, :].expand(both.shape))


def _between(prob: Tensor) -> Tensor:
    """Return the mass strictly between i and j > i, (..., Y, Y): running sums, so that tiny ones keep their digits."""
    places = torch.arange(prob.shape[-1], device=prob.device)
    columns = [torch.zeros_like(prob)]
    for last in range(prob.shape[-1] - 1):  # and not ``cumsum``, which is not deterministic on CUDA
        columns.append(columns[-1] + prob[..., last : last + 1] * (places < last))
    return torch.stack(columns, -1)


@dataclass(frozen=True)
class Rejection(Sampler):
    """Both sides are drawn from the best policy, π_ref e^(u/β)/Z, as rejection sampling does in the limit.

    beta: β > 0. Source: Liu et al. 2023, arXiv 2309.06657 (RSO), with the true utility for its reward model.
    """

    beta: float = 1.0

    name = "rejection"
    label = "rejection sampling"
    equation = "s = π*(i) π*(j),  π* ∝ π_ref e^(u/β)"
    source = "Liu et al. 2023, arXiv 2309.06657"
    moves = False

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))

    @property
    def terms(self) -> tuple[Term, ...]:
        """One part."""
        side = Side(reference=1.0, utility=1 / self.beta)
        return (Term(side, side),)
