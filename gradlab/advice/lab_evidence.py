"""Evidence from the lab: how losses fare against DPO in the atlas's trainings, at one setting of one factor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradlab.stats.equivalence import holm, mean_of

MARGIN = 0.02  # of the reachable reward: a smaller difference does not matter
NO_FARTHER = 1.05  # times DPO's KL: a loss that ends farther from the reference than this is no fair comparison
VALUE, KL = "utility_share", "kl_to_reference"
LEVEL = 0.05


@dataclass(frozen=True)
class Against:
    """A loss against DPO at one setting: the mean difference in shares of the reachable reward, with 95% interval."""

    loss: str
    effect: float
    low: float
    high: float
    seeds: int
    beyond: bool
    """True where the difference lies beyond the margin after Holm's correction over all losses, at no larger KL."""
    undecided: bool
    """True where it lies beyond the margin so, but at a larger KL: not decided at equal KL."""
    kl: float
    """The mean KL from the reference, nats."""
    dpo_kl: float
    """DPO's mean KL from the reference, nats."""

    def __str__(self) -> str:
        return (
            f"{self.loss} − dpo = {self.effect:+.3f} [{self.low:+.3f}, {self.high:+.3f}] of the reachable reward, "
            f"{self.seeds} seeds, at a KL of {self.kl:.2f} nats (dpo {self.dpo_kl:.2f})"
        )


def levels(trained: pd.DataFrame, factor: str) -> list[float]:
    """Return the levels of a factor at which DPO was trained at matched KL, in order."""
    rows = _matched(trained)
    return sorted(set(rows.loc[(rows["factor"] == factor) & (rows["loss"] == "dpo"), "level"]))


def nearest(trained: pd.DataFrame, factor: str, level: float, *, logarithmic: bool = False) -> float | None:
    """Return the level of a factor that is nearest to this one; None where the atlas does not vary it."""
    known = np.array(levels(trained, factor))
    if not len(known):
        return None
    scale = np.log if logarithmic else np.asarray
    return float(known[np.abs(scale(known) - scale(level)).argmin()])


def against_dpo(trained: pd.DataFrame, factor: str, level: float | None = None) -> list[Against]:
    """Return all losses against DPO at this level of a factor, paired by seed: those that are better first.

    Every loss stands at its matched β, which brings it near 1 nat from the reference in the base setting. Elsewhere,
    and on a coarse grid of β, losses end at different KL. So a loss counts as better only where it also ends no farther
    from the reference than DPO, within ``NO_FARTHER``. level: None for the only level. A loss with fewer than two
    finite seeds is left out.
    """
    rows = _matched(trained)
    rows = rows[rows["factor"] == factor]
    if factor != "base":
        rows = rows[rows["level"] == level]
    wide = rows.pivot_table(index="seed", columns="loss", values=VALUE)
    if "dpo" not in wide:
        return []
    kl = rows.groupby("loss")[KL].mean()
    gaps = {str(name): (wide[name] - wide["dpo"]).dropna().to_numpy() for name in wide if name != "dpo"}
    gaps = {name: gap for name, gap in gaps.items() if len(gap) > 1}
    if not gaps:
        return []
    means = {name: mean_of(gap) for name, gap in gaps.items()}
    corrected = holm(np.array([float(mean.p_above(MARGIN)) for mean in means.values()]))
    found = []
    for (name, mean), p_value in zip(means.items(), corrected, strict=True):
        low, high = (float(end) for end in mean.interval())
        above, fair = bool(p_value < LEVEL), bool(kl[name] <= NO_FARTHER * kl["dpo"])
        found.append(Against(
            name, float(mean.effect), low, high, len(gaps[name]), beyond=above and fair, undecided=above and not fair,
            kl=float(kl[name]), dpo_kl=float(kl["dpo"]),
        ))  # fmt: skip
    return sorted(found, key=lambda row: (not row.beyond, -row.effect))


def _matched(trained: pd.DataFrame) -> pd.DataFrame:
    """Return the ends of training at matched β: one factor at a time."""
    return trained[(trained["preset"] == "") & trained[VALUE].notna()]
