"""Samplers: which pairs a training sees, as weights of pairs that may follow the current policy; no gradient flows.

Most samplers are sums of ``Term``: both sides of a pair come from laws that are log-linear in log π, log π_ref and u.
Those three numbers per side are the sampler's one definition: the eager loop, the engine and the tests read them.
To add a sampler, write a class in ``laws``, and list it in ``registry``; one of your own is a subclass
of ``Sampler``.
"""

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
from gradlab.lab.samplers.registry import SAMPLERS, Importance, from_text, sampler_of
from gradlab.lab.samplers.sampler import NoWeight, Sampler, Side, Term, pair_weights

__all__ = [
    "PILAF",
    "SAMPLERS",
    "WPO",
    "BestWorst",
    "FromReference",
    "Importance",
    "MixP",
    "MixR",
    "Mixture",
    "NoWeight",
    "OnPolicy",
    "Rejection",
    "Sampler",
    "Side",
    "Tempered",
    "Term",
    "TopK",
    "Uniform",
    "from_text",
    "pair_weights",
    "sampler_of",
]
