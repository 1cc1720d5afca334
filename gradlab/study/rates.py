"""Win-rates with intervals for raters and prompts that are both samples, crossed with one another.

The model of an answer is y = μ + rater + prompt + rest, with independent parts of variance σ_r², σ_p² and σ_e². Half
the mean squared difference of two answers is σ_r² + σ_e² where they share the prompt, σ_p² + σ_e² where they share the
rater, and the sum of all three where they share neither: three numbers that give the three variances without bias,
whoever saw what (the idea of Henderson 1953, as U-statistics). The variance of the mean follows from its weights; its
degrees of freedom are Satterthwaite's (1946).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pandas as pd

from gradlab.stats.agreement import wilson_interval
from gradlab.stats.equivalence import Mean
from gradlab.study.plan import Population

NO_SPREAD = 1e-9  # a standard error below this is rounding
NORMAL = NormalDist().inv_cdf(0.975)  # standard errors to each end of a 95% interval of normal means


@dataclass(frozen=True)
class Rate:
    """A win-rate of b over a, ties ½: the mean over prompts of the prompt's mean answer.

    error    its standard error; freedom: its degrees of freedom.
    low, high  its 95% interval.
    """

    rate: float
    low: float
    high: float
    error: float
    freedom: float
    answers: int
    prompts: int
    raters: int

    @staticmethod
    def tied(number: int) -> Rate:
        """Return the rate of so many prompts that are ties without doubt, and of no answer: ½, without an error."""
        return Rate(0.5, 0.5, 0.5, 0.0, math.inf, 0, number, 0)

    def with_ties(self, number: int, shown: int) -> Rate:
        """Return the rate where so many prompts beside those that are shown count as ties without doubt.

        The rate is taken for that of all ``shown`` prompts, however many of them are answered so far.
        """
        share = shown / (shown + number)

        def moved(value: float) -> float:
            return 0.5 + (value - 0.5) * share

        return replace(
            self, rate=moved(self.rate), low=moved(self.low), high=moved(self.high), error=self.error * share,
            prompts=self.prompts + number,
        )  # fmt: skip

    @property
    def beyond_half(self) -> Mean:
        """Return the rate − ½ with its t tests: does it differ from 0, is it equivalent to 0 within a margin?"""
        return Mean(np.asarray(self.rate - 0.5), np.asarray(self.error), np.asarray(self.freedom))


def win_rate(answers: pd.DataFrame, population: Population = "like these") -> Rate:
    """Return the win-rate of one pair of systems and goal; NaN where nobody answered.

    answers     rows with ``rater``, ``prompt`` and ``score``; skips (NaN) are no answers.
    population  ``like these``: raters and prompts are samples. ``these``: only prompts are.

    Where all answers are equal, or these raters disagree alike on every prompt, no spread can be seen. The interval is
    then Wilson's with the number of prompts n, and the standard error is 1/2√n, that of the score test which this
    interval inverts: a few equal answers show nothing. It is cut at 0 and 1.
    """
    kept = answers[answers["score"].notna()]
    rater, prompt = (pd.factorize(kept[name])[0] for name in ("rater", "prompt"))
    return rate_of(kept["score"].to_numpy(float), rater, prompt, population)


def rate_of(score: np.ndarray, rater: np.ndarray, prompt: np.ndarray, population: Population) -> Rate:
    """Return the win-rate of answers (n,), none of them a skip; rater and prompt are numbers from 0.

    All else is as in ``win_rate``.
    """
    if not len(score):
        return Rate(math.nan, math.nan, math.nan, math.nan, math.nan, 0, 0, 0)
    per_prompt = np.bincount(prompt)
    number = len(per_prompt)
    weight = 1.0 / (number * per_prompt[prompt])
    mean = float(score[0]) if np.ptp(score) == 0 else float(weight @ score)
    rate = estimated(mean, score, weight, rater, prompt, raters_vary=population == "like these")
    if rate.error > NO_SPREAD:
        return rate
    low, high = wilson_interval(mean, number)
    return replace(rate, low=low, high=high, error=0.5 / math.sqrt(number), freedom=math.inf)


def estimated(
    rate: float, values: np.ndarray, weight: np.ndarray, rater: np.ndarray, prompt: np.ndarray, *, raters_vary: bool
) -> Rate:
    """Return a rate that is, to first order, a weighted sum of ``values`` (n,), with its interval.

    rater, prompt  (n,) numbers from 0 of who answered to what.
    """
    variance, freedom = _variance(values, weight, rater, prompt, raters_vary=raters_vary)
    mean = Mean(np.asarray(rate), np.asarray(math.sqrt(variance)), np.asarray(freedom))
    low, high = (float(end) for end in mean.interval())
    number = len(values), len(np.unique(prompt)), len(np.unique(rater))
    return Rate(rate, max(low, 0.0), min(high, 1.0), math.sqrt(variance), freedom, *number)


def _variance(
    score: np.ndarray, weight: np.ndarray, rater: np.ndarray, prompt: np.ndarray, *, raters_vary: bool
) -> tuple[float, float]:
    """Return the variance of Σ weight · score, and its degrees of freedom."""
    by_rater, by_prompt, rest = components(score, rater, prompt)
    number = [len(np.unique(group)) for group in (rater, prompt)]
    own = float(weight @ weight) * rest
    parts = [  # of the mean's variance, were answers clustered by one of the two alone
        float(np.square(np.bincount(group, weight)).sum()) * component + own
        for group, component in ((rater, by_rater), (prompt, by_prompt))
    ]
    terms = [(parts[1], number[1] - 1)]
    if raters_vary and number[0] > 1:
        terms.append((parts[0], number[0] - 1))
        several = len(score) > number[1]  # else prompt and rest are one, and the rest is judged within raters
        terms.append((-own, max(len(score) - number[0] - (number[1] - 1) * several, 1)))
    variance = max(sum(term for term, _ in terms), parts[1], np.finfo(float).tiny)
    spread = sum(term**2 / max(freedom, 1) for term, freedom in terms)
    return variance, variance**2 / spread if spread else math.inf


def components(score: np.ndarray, rater: np.ndarray, prompt: np.ndarray) -> tuple[float, float, float]:
    """Return σ_r², σ_p² and σ_e² of answers; 0 for what cannot be told, and where an estimate is below 0.

    Without two raters of one prompt, σ_p² cannot be told from the rest, and is counted as rest; likewise σ_r².
    """
    whole = _half_squares(score, np.zeros(len(score), int))
    cell = np.unique(rater * (int(prompt.max()) + 1) + prompt, return_inverse=True)[1]
    both = _half_squares(score, cell)
    same_rater, same_prompt = (
        tuple(one - other for one, other in zip(_half_squares(score, group), both, strict=True))
        for group in (rater, prompt)
    )
    neither = tuple(total - sum(parts) for total, *parts in zip(whole, same_rater, same_prompt, both, strict=True))
    apart, by_rater, by_prompt = (
        sums / pairs if pairs else math.nan for sums, pairs in (neither, same_rater, same_prompt)
    )
    if math.isnan(apart):  # one rater, or one prompt
        apart = whole[0] / whole[1] if whole[1] else 0.0
    between_raters = max(apart - by_rater, 0.0) if same_rater[1] else 0.0
    between_prompts = max(apart - by_prompt, 0.0) if same_prompt[1] else 0.0
    return between_raters, between_prompts, max(apart - between_raters - between_prompts, 0.0)


def _half_squares(score: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """Return the sum of (y − y′)²/2 over all pairs within groups, and the number of pairs."""
    number = np.bincount(group).astype(float)
    total, squares = np.bincount(group, score), np.bincount(group, score**2)
    return float((number * squares - total**2).sum() / 2), float((number * (number - 1)).sum() / 2)
