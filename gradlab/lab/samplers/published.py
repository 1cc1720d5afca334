"""Samplers that papers propose for speed or for a better gradient: mix-R, mix-P, PILAF and WPO's weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gradlab.checks import keep_plain, positive, shown
from gradlab.lab.samplers.sampler import Sampler, Side, Term

_EVEN, _POLICY = Side(), Side(policy=1.0)


@dataclass(frozen=True)
class MixR(Sampler):
    """Uniform pairs, and pairs of e^u against e^−u: s = 1/(σ(d)σ(−d)) = 2 + e^d + e^−d with d = u_i − u_j.

    normalised: as for ``MixP``. Source: Shi et al. 2024, arXiv 2409.19605, DPO-Mix-R; the weight is that of the
    authors' code, the theorem is tested here.
    """

    normalised: bool = True

    name = "mix-r"
    label = "mix-R"
    equation = "s = 2 + e^d + e^−d,  d = u_i − u_j"
    source = "Shi et al. 2024, arXiv 2409.19605"
    moves = False
    fixed_terms = Term(_EVEN, _EVEN), Term(Side(utility=1.0), Side(utility=-1.0))

    def __post_init__(self) -> None:
        _check_flag("normalised", self.normalised)


@dataclass(frozen=True)
class MixP(Sampler):
    """Mix-R with the policy's own reward: s = 2 + e^d + e^−d with d = β(h_i − h_j), h = log π − log π_ref.

    beta        β > 0, that of DPO.
    normalised  True: weights sum to one per prompt. False: the mean weight over the data grows with d, as in the
                paper's closed form.

    DPO with exact soft labels on all n(n − 1)/2 pairs then converges quadratically, by gradient descent on free logits,
    at the learning rate (n − 1)/(2β²) where not normalised; where normalised, at Z/(2β²n) of each step's
    Z = Σ_{i≠j}(2 + e^d + e^−d), which no constant rate follows. With log π alone for h, the optimum is the same and the
    speed is lost unless the reference is uniform. Source: Shi et al. 2024, arXiv 2409.19605, DPO-Mix-P; the weight is
    that of the authors' code, the theorem is tested here.
    """

    beta: float = 1.0
    normalised: bool = True

    name = "mix-p"
    label = "mix-P"
    equation = "s = 2 + e^d + e^−d,  d = β(h_i − h_j)"
    source = "Shi et al. 2024, arXiv 2409.19605"

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))
        _check_flag("normalised", self.normalised)

    @property
    def terms(self) -> tuple[Term, ...]:
        """Two parts."""
        return Term(_EVEN, _EVEN), Term(Side(self.beta, -self.beta), Side(-self.beta, self.beta))


@dataclass(frozen=True)
class PILAF(Sampler):
    """On-policy pairs, and pairs of π e^(βh) against π e^(−βh): s = π_i π_j (2 + e^d + e^−d), d = β(h_i − h_j).

    beta: β > 0, that of DPO. The two kinds of pairs come as 1 to Z⁺Z⁻, the product of both normalisers. Near the
    optimum the gradient of DPO is then that of E[u] − β KL up to a factor, the paper's theorem, which is tested here.
    Source: Feng et al. 2025, arXiv 2502.04270, its theoretical scheme, from memory: only the abstract was at hand. The
    practical scheme there takes both kinds equally often.
    """

    beta: float = 1.0

    name = "pilaf"
    label = "PILAF"
    equation = "s = π(i) π(j) (2 + e^d + e^−d),  d = β(h_i − h_j)"
    source = "Feng et al. 2025, arXiv 2502.04270"

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))

    @property
    def terms(self) -> tuple[Term, ...]:
        """Two parts."""
        up, down = Side(1 + self.beta, -self.beta), Side(1 - self.beta, self.beta)
        return Term(_POLICY, _POLICY), Term(up, down)


@dataclass(frozen=True)
class WPO(Sampler):
    """Pairs as the data have them, each weighted by w = π_i π_j/(Σ π²)²: 1 under a uniform policy. Not normalised.

    A response is one token of a vocabulary of Y, so that this is the paper's sampled alignment. Source: Zhou et al.
    2024, arXiv 2406.11827, eq. 2, as TRL 1.16.0 computes it.
    """

    name = "wpo"
    label = "WPO"
    equation = "s = π(i) π(j)/(Σ π²)²"
    source = "Zhou et al. 2024, arXiv 2406.11827"
    drawn = False
    normalised = False

    def pairs(self, logp: Tensor, ref_logp: Tensor, utility: Tensor) -> Tensor:
        """Return w, (..., Y, Y)."""
        aligned = logp.detach().double()
        aligned = aligned - (2 * aligned).logsumexp(-1, keepdim=True)
        return Term(_POLICY, _POLICY).exponents(aligned, aligned, aligned).exp_()


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
