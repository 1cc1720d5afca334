"""The registry of samplers, their texts, and importance weights, which take any of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Literal, get_args, get_type_hints

import torch
from torch import Tensor

from gradlab.checks import keep_plain, named_values, one_of, positive, shown
from gradlab.lab.samplers.laws import (
    BestWorst,
    FromReference,
    Mixture,
    OnPolicy,
    Rejection,
    Tempered,
    TopK,
    Uniform,
)
from gradlab.lab.samplers.published import PILAF, WPO, MixP, MixR
from gradlab.lab.samplers.sampler import Sampler

How = Literal["plain", "self-normalised", "clipped"]


@dataclass(frozen=True)
class Importance(Sampler):
    """Pairs as the data have them, each weighted by ρ, a sampler's probability of it over the uniform one.

    how      "plain": ρ, whose mean is one over all comparable pairs but not over finite data; "self-normalised": ρ over
             its mean in the data; "clipped": min(ρ, clip), which no longer is the sampler's law.
    clip     > 0, for "clipped" alone.
    sampler  whose law it is, by name or as an object; its own importance weights are not accepted.

    With exact data the first two are the sampler itself. Mini-batches are drawn evenly and then weighted, so that only
    noise tells them from the sampler's own. Source: importance sampling, textbook.
    """

    how: How = "self-normalised"
    clip: float = 5.0
    sampler: Sampler | str = "on-policy"

    name = "importance"
    label = "importance weights"
    equation = "s = ρ, over its mean, or min(ρ, clip)"
    source = "importance sampling"
    drawn = False

    def __post_init__(self) -> None:
        one_of("how", self.how, get_args(How))
        keep_plain(self, clip=positive("clip", self.clip))
        law = sampler_of(self.sampler)
        if not law.drawn:
            raise ValueError(f"sampler of Importance must draw its pairs, such as on-policy, got {law}")
        for name, value in (("sampler", law), ("moves", law.moves), ("full_support", law.full_support)):
            object.__setattr__(self, name, value)

    def pairs(self, logp: Tensor, ref_logp: Tensor, utility: Tensor) -> Tensor:
        """Return the sampler's weights."""
        return sampler_of(self.sampler).pairs(logp, ref_logp, utility)

    def reweighted(self, data: Tensor, pairs: Tensor, comparable: Tensor) -> Tensor:
        """Return the data's shares times ρ, as ``how`` says; all (..., Y, Y)."""
        if self.how == "self-normalised":
            return super().reweighted(data, pairs, comparable)
        pairs = pairs * comparable
        total = pairs.sum((-2, -1), keepdim=True)
        ratio = pairs * (comparable.sum((-2, -1), keepdim=True) / torch.where(total > 0, total, 1.0))
        return data * (ratio.clamp(max=self.clip) if self.how == "clipped" else ratio)


_ALL: tuple[type[Sampler], ...] = (
    Uniform, FromReference, OnPolicy, Mixture, Tempered, TopK, BestWorst, MixR, MixP, PILAF, WPO, Rejection, Importance,
)  # fmt: skip
SAMPLERS: Mapping[str, type[Sampler]] = {kind.name: kind for kind in _ALL}


def from_text(text: str) -> Sampler:
    """Return the sampler that a text names: "on-policy", "mixture:alpha=0.3", "importance:how=plain,sampler=top-k:k=5".

    ``sampler=`` comes last, since all after it is the inner sampler's text. ValueError, in one line, for another text.
    """
    name, colon, rest = text.partition(":") if isinstance(text, str) else (text, "", "")
    kind = SAMPLERS[one_of("sampler", name, SAMPLERS)]
    hints = get_type_hints(kind)
    known = {field: hints[field] for field in signature(kind).parameters}
    outer, inner, law = rest.partition("sampler=") if kind is Importance else (rest, "", "")
    if inner:
        outer = outer.strip().removesuffix(",")
    spelled = bool(colon) and not (inner and not outer)
    given = named_values("sampler must be NAME or NAME:NUMBER=VALUE,…", name, known, outer) if spelled else {}
    if inner:
        given["sampler"] = from_text(law)
    return kind(**given)


def sampler_of(sampler: Sampler | str) -> Sampler:
    """Return a sampler that is given as such or as a text; ValueError for anything else, such as a class."""
    if isinstance(sampler, Sampler):
        return sampler
    if not isinstance(sampler, str):
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, or a Sampler, got {shown(sampler)}")
    return from_text(sampler)
