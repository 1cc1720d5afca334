"""The rules of advice: each looks at the data's facts and at the evidence, and says what to do, why, and what would
change it. A rule without evidence says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from gradlab.advice import lab_evidence
from gradlab.advice.data_facts import DataFacts, flip_rate
from gradlab.advice.lab_evidence import MARGIN, NO_FARTHER, Against
from gradlab.checks import between
from gradlab.losses.averaged import NormalizedDPO
from gradlab.losses.margin import DPO

# From here on a fact counts. All ours.
NOISY = 0.05  # flipped labels, beyond what the lab's base setting has
FEW = 50.0  # pairs per prompt: fewer count as a small set in the lab's units
LENGTH = 0.55  # share of pairs in which one rule of length is right
FOLLOWS = 0.8  # R² from which bDPO's λ counts as a share of lengths
ALIKE = 0.2  # share of pairs with nearly equal responses
DISPLACED = 0.2  # share of pairs whose winner DPO would push down
SMALL = 2_000  # pairs in all


@dataclass(frozen=True)
class Advice:
    """One piece of advice.

    topic     loss, beta, labels, lengths, displacement, control or size.
    what      what to do, in one sentence.
    why       what was seen in the data or under the model.
    evidence  where the advice comes from: claims, rows of the atlas, papers.
    changes   what would change it.
    losses    keys of the losses that it speaks for, the first choice first.
    """

    topic: str
    what: str
    why: str
    evidence: str
    changes: str
    losses: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([
            f"{self.topic.upper()}: {self.what}", f"  Seen: {self.why}", f"  Evidence: {self.evidence}",
            f"  Would change it: {self.changes}",
        ])  # fmt: skip

    def record(self) -> dict[str, Any]:
        """Return the advice as JSON-able data."""
        return {**asdict(self), "losses": list(self.losses)}


@dataclass(frozen=True)
class ModelFacts:
    """Facts of pairs under the model that training starts from, from ``gradlab inspect``.

    imbalance        the median of |log π_l/π_w|, nats.
    length_r2        R² of bDPO's λ_w on the loser's share of the tokens; NaN where it cannot be told.
    preferred        the share of pairs whose winner is the more probable response per token.
    displaced        by loss, the share of pairs whose winner a small step would lower; {} without gradients.
    """

    imbalance: float
    length_r2: float
    preferred: float
    displaced: Mapping[str, float] = field(default_factory=dict)


def advise(
    facts: DataFacts,
    trained: pd.DataFrame,
    disagreements: Mapping[float, float],
    claims: Mapping[str, str],
    *,
    model: ModelFacts | None = None,
    noise: float | None = None,
) -> list[Advice]:
    """Return the advice on these pairs, the choice of the loss first.

    trained        the atlas's trainings (``gradlab.atlas.trained``), which are the evidence.
    disagreements  how often two labels of one question disagree in the lab at each level of the factor "noise"; 0 is
                   the base setting. The data's disagreement is compared with these.
    claims         the words of verdicts by claim, such as "mixed".
    noise          the share of flipped labels in [0, ½), where the user knows it; it replaces the estimate, and is
                   the label smoothing that is advised. Evidence is from the lab's nearest level.

    ValueError for a noise out of its range.
    """
    if noise is not None:
        noise = between("noise", noise, 0, 0.5, open_high=True)
    level, source = _noise_level(facts, trained, disagreements, noise)
    setting = _setting(facts, trained, level)
    given = _Given(facts, trained, claims, model, noise, level, source, *setting)
    return [piece for rule in _RULES for piece in rule(given)]


@dataclass(frozen=True)
class _Given:
    facts: DataFacts
    trained: pd.DataFrame
    claims: Mapping[str, str]
    model: ModelFacts | None
    stated_noise: float | None
    noise: float | None
    """The lab's level of label noise that is nearest to the data's."""
    noise_source: str
    factor: str
    factor_level: float | None
    seen: str

    def rows(self) -> list[Against]:
        """Return all losses against DPO at the setting that is nearest to the data."""
        return lab_evidence.against_dpo(self.trained, self.factor, self.factor_level)

    @property
    def flipped(self) -> float:
        """Return the share of labels that are flipped: as stated, or else estimated, at most the lab's level."""
        if self.stated_noise is not None:
            return self.stated_noise
        level = self.noise or 0.0
        return level if self.facts.disagreement is None else min(level, flip_rate(self.facts.disagreement.share))

    @property
    def place(self) -> str:
        """Return the setting in words."""
        return "the base setting" if self.factor == "base" else f"{self.factor} = {self.factor_level:g}"

    def claim(self, name: str) -> str:
        """Return a claim with its verdict."""
        return f"claim *{name}*: {self.claims.get(name, 'not judged')} (figures/CLAIMS.md)"


def _noise_level(
    facts: DataFacts, trained: pd.DataFrame, disagreements: Mapping[float, float], noise: float | None
) -> tuple[float | None, str]:
    """Return the level of the lab's label noise that is nearest to the data's, and where that is known from."""
    known = [level for level in disagreements if level == 0 or level in lab_evidence.levels(trained, "noise")]
    if noise is not None and known:
        return min(known, key=lambda level: abs(level - noise)), f"you say that {noise:.0%} of the labels are flipped"
    if facts.disagreement is None or not known:
        return None, f"{facts.repeated} questions have a second label, too few to estimate the labels' noise"
    share = facts.disagreement.share
    level = min(known, key=lambda level: abs(disagreements[level] - share))
    return level, (
        f"two labels of one question disagree in {facts.disagreement} of {facts.repeated} comparisons, as in the lab "
        f"with {level:.0%} of the labels flipped ({disagreements[level]:.1%})"
    )


def _setting(facts: DataFacts, trained: pd.DataFrame, noise: float | None) -> tuple[str, float | None, str]:
    """Return the factor and level of the lab's trainings that are nearest to the data, and what was seen."""
    if noise is not None and noise >= NOISY:
        return "noise", noise, "the labels' noise decides"
    if facts.per_prompt < FEW and lab_evidence.levels(trained, "pairs"):
        level = lab_evidence.nearest(trained, "pairs", facts.per_prompt, logarithmic=True)
        return "pairs", level, f"pairs per prompt: {facts.per_prompt:.3g}"
    return "base", None, "nothing that sets the data apart"


def _loss(given: _Given) -> Iterator[Advice]:
    """Choose the loss by the lab's trainings at the nearest setting."""
    rows = given.rows()
    if not rows:
        return
    better = [row for row in rows if row.beyond]
    why = f"{given.seen}; {given.noise_source}; {given.facts.pairs:,} pairs of {given.facts.prompts:,} prompts."
    tried = f"{len(rows)} losses against DPO in the lab, each at its matched β, at {given.place}"
    if better:
        best = better[0]
        yield Advice(
            "loss", f"Train with {best.loss}, beside DPO as its control.", why,
            f"{tried}: {best} ({len(better)} beyond +{MARGIN:g} after Holm's correction, at no larger KL: "
            f"{', '.join(row.loss for row in better[:6])}). {_capital(given.claim('none-beats-dpo'))}.",
            "a comparison on your own held-out pairs at equal KL in which DPO does as well; another estimate of the "
            "labels' noise.",
            tuple(row.loss for row in better),
        )  # fmt: skip
    else:
        best = max(
            (row for row in rows if row.kl <= NO_FARTHER * row.dpo_kl), default=rows[0], key=lambda row: row.effect
        )
        yield Advice(
            "loss", "Train with DPO.", why,
            f"{tried}: none lies beyond +{MARGIN:g} of the reachable reward, after Holm's correction and at no larger "
            f"KL from the reference; the nearest is {best}.{_farther(rows)} Over other worlds and at equal KL: "
            f"{given.claim('none-beats-dpo')}.",
            "noisier labels, a smaller set, or a comparison on your own held-out pairs at equal KL that another loss "
            "wins.",
            ("dpo",),
        )  # fmt: skip


def _farther(rows: Sequence[Against]) -> str:
    """Name the losses that are better at a larger KL alone, up to six; "" for none."""
    names = [row.loss for row in rows if row.undecided]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return f" Beyond it at a larger KL, so not decided at equal KL: {', '.join(names[:6])}{more}." if names else ""


def _beta(given: _Given) -> Iterator[Advice]:
    """Say how to choose β."""
    yield Advice(
        "beta", "Try β = 0.03, 0.1 and 0.3 for summed losses, and compare runs at equal KL from the reference, not at "
        "equal β. For bDPO and length-dpo double them: their two weights add up to one. Averaged losses (simpo, "
        "sigmoid-norm) need β about L times as large, at L tokens per response.",
        "no data set tells its β before training.",
        f"{given.claim('smaller-beta')}; {given.claim('grid-reward')}. A good part of what tells losses apart at "
        "equal β is the size of the step from the reference. "
        f"DPO was published with β = {DPO.published['beta']:g}, sigmoid-norm with "
        f"{NormalizedDPO.published['beta']:g}.",
        "your budget of KL: how far from the reference the policy may go.",
    )  # fmt: skip


def _labels(given: _Given) -> Iterator[Advice]:
    """Say what noisy labels ask for."""
    if given.noise is None or given.noise < NOISY:
        return
    rows = {row.loss: row for row in given.rows()}
    smoothed = [rows[name] for name in ("robust", "cdpo") if name in rows]
    if not smoothed:
        return
    helped = [row.loss for row in smoothed if row.beyond]
    undecided = [row.loss for row in smoothed if row.undecided]
    if helped:
        what = f"Smooth the labels: {helped[0]} with label_smoothing = {given.flipped:.2g}."
    elif undecided:
        what = (
            f"Compare {' and '.join(undecided)} with DPO at equal KL on your own held-out pairs: whether smoothing "
            "the labels helps is not decided at equal KL in the lab."
        )
    else:
        what = "Clean the labels rather than smooth them."
    yield Advice(
        "labels", what, given.noise_source + ".", f"in the lab at {given.place}: {'; '.join(map(str, smoothed))}.",
        "a second label for a few hundred pairs, which measures the noise.", tuple(helped),
    )  # fmt: skip


def _lengths(given: _Given) -> Iterator[Advice]:
    """Say what a preference for one length asks for."""
    share = given.facts.shorter
    if max(share.low, 1 - share.high) <= LENGTH:
        return
    which, beside = ("shorter", ("sigmoid-norm",)) if share.share > 0.5 else ("longer", ("sigmoid-norm", "r-dpo"))
    yield Advice(
        "lengths",
        f"Report win rates at equal length, and train {' or '.join(beside)} beside DPO: “prefer the {which} response” "
        "alone ranks many of the pairs right.",
        f"the winner is the shorter response in {share} of the pairs; the sd of log L_w/L_l is "
        f"{given.facts.length_spread:.2f}.",
        "log π is a sum over tokens, so every summed loss moves long responses more; averaged losses have "
        "ρ = L_l/L_w (figures/ATLAS.md).",
        "a set whose winners have the losers' lengths.",
        beside,
    )  # fmt: skip


def _control(given: _Given) -> Iterator[Advice]:
    """Say which control Balanced-DPO needs."""
    if given.model is None or not given.model.length_r2 >= FOLLOWS:
        return
    yield Advice(
        "control", "With bDPO train length-dpo and DPO at β/2 as well: under this model its λ is mostly a share of "
        "lengths.",
        f"R² = {given.model.length_r2:.2f} of λ_w on the loser's share of the tokens; the median |log π_l/π_w| is "
        f"{given.model.imbalance:.3g} nats.",
        f"`gradlab inspect`; {given.claim('ratio-corrected')}, {given.claim('smaller-beta')}.",
        "--reduction mean, which takes lengths out of λ.",
        ("length-dpo", "dpo"),
    )  # fmt: skip


def _displacement(given: _Given) -> Iterator[Advice]:
    """Say what responses that are nearly alike ask for."""
    pushed = given.model.displaced.get("dpo", 0.0) if given.model else 0.0
    alike = given.facts.alike
    if not (pushed >= DISPLACED or alike.low > ALIKE):
        return
    under = f" Under the model DPO would push the winner down in {pushed:.0%} of the pairs." if pushed else ""
    yield Advice(
        "displacement", "Watch log π of the winners (`gradlab doctor`), and train dpop or cpo beside DPO, or drop the "
        "pairs that are nearly alike.",
        f"the two responses are nearly alike in {alike} of the pairs.{under}",
        f"likelihood displacement (Razin et al. 2024, arXiv 2410.08847); the band (Chen et al. 2026, arXiv "
        f"2604.18239), {given.claim('band-keeps-winner')}.",
        "`gradlab inspect --gradients 16`, which measures it under your model.",
        ("dpop", "cpo"),
    )  # fmt: skip


def _size(given: _Given) -> Iterator[Advice]:
    """Say what a small set asks for."""
    if given.facts.pairs >= SMALL:
        return
    yield Advice(
        "size", "One epoch, and at least 200 held-out pairs of other prompts; stop by the validation loss.",
        f"{given.facts.pairs:,} pairs of {given.facts.prompts:,} prompts.",
        f"{given.claim('grid-stability')}. With few pairs the held-out loss rises again, whatever the loss.",
        "more pairs, or more prompts.",
    )  # fmt: skip


_RULES = (_loss, _beta, _labels, _lengths, _control, _displacement, _size)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def words_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the word of each claim from the rows of figures/claims.csv."""
    return {str(row["claim"]): str(row["word"]) for row in rows if row["row"] == "claim"}
