"""The figures of the trained side of the atlas: the map of all losses, their trades, and one factor at a time."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.experiment import Frames
from gradlab.experiments.questions.atlas_runs import BASE, OF_LENGTHS
from gradlab.losses import BATCH_LOSSES, PAIR_LOSSES
from gradlab.plotting import Place

AT = 1.0  # nats from the reference, where the map compares losses
_SAME = 0.005  # nats: losses nearer than this to each other share a place and a name
_REST = 0.01  # nats: a change of all else that is nearer to DPO's counts as the same
_FACTORS = {
    "mask": "mask rate", "scale": "height R", "pairs": "pairs", "noise": "flipped labels", "shift": "shift",
    "lengths": "tokens", "spread": "spread",
}  # fmt: skip

CAPTIONS = {
    "atlas-map": (
        f"All losses by what training does to both sides of a pair, at equal distance: {AT:g} nat from a uniform "
        "reference, free logits, β and checkpoints pooled. Across: how much farther than under DPO the loser's log π "
        "falls (left) or how much less (right); up: how much less the winner's log π falls than under DPO, or even "
        "rises. DPO is the square in the middle, and both axes are linear near it and logarithmic farther out. The "
        "marker says what becomes of the mass outside of the pair, against DPO. Losses that do the same share a name "
        "joined by ≡; losses that never get so far from the reference are not on the map."
    ),
    "atlas-frontier-reward": (
        "The share of the reachable reward against KL from the reference as β changes, one panel per loss, means over "
        "seeds at the end of training: the blue line is this loss, the thick grey one DPO, the same in every panel. "
        "Where blue lies above grey, the loss gets more reward for the same distance. The ring is the loss as its "
        "source publishes it. A loss without β has only the ring. A "
        "triangle at the lower edge stands for a value below it."
    ),
    "atlas-frontier-unobserved": (
        "The same trainings: mass on responses that appear in no pair, against KL; a fifth of the responses is hidden, "
        "and the uniform reference has that much mass on them. Where blue lies below grey, the loss spares them more."
    ),
    "atlas-factors": (
        "Reward at the end of training minus DPO's, in points of the reachable reward, when one setting is changed at "
        "a time and everything else stays: each loss at the β that brings it nearest to 1 nat from the reference. The "
        "first column is the setting from which all others start (mask 0.2, R = 4, 100 pairs, no flipped labels, "
        "uniform reference, one token). Lengths matter only to losses that read them. Teal is more than DPO, brown "
        "less; the numbers say the same. The grid of β is coarse, so part of a difference is one of distance: at equal "
        "distance compare the trades above."
    ),
}


def figures(frames: Frames) -> dict[str, Figure]:
    """Draw the map, the trades and the table of factors."""
    ends, levels = frames["ends"], frames["levels"]
    names = {name: _label(name) for name in dict.fromkeys(ends["loss"]) if _is_known(name)}
    grid = _means(ends[(ends["factor"] == "beta") & (ends["preset"] == "grid")], ["loss", "beta"])
    published = _means(ends[(ends["factor"] == "base") & (ends["preset"] == "published")], ["loss"])
    shown = {"dpo": names["dpo"], **names}
    return {
        "atlas-map": plotting.map_of_losses(places(levels, names)),
        "atlas-frontier-reward": plotting.trades(
            grid, shown, "utility_share", "share of the reachable reward", published, floor=-0.1
        ),
        "atlas-frontier-unobserved": plotting.trades(
            grid, shown, "unobserved_mass", "mass on unobserved responses", published
        ),
        "atlas-factors": plotting.factor_table(
            factors(ends, names), "reward minus DPO's (points of the reachable reward)", 30.0
        ),
    }


def _is_known(name: str) -> bool:
    return name in PAIR_LOSSES or name in BATCH_LOSSES


def _label(name: str) -> str:
    return (PAIR_LOSSES[name]() if name in PAIR_LOSSES else BATCH_LOSSES[name]()).label


def _means(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    values = ["kl_to_reference", "utility_share", "unobserved_mass"]
    means = rows.groupby(by, sort=False)[values].mean().reset_index().rename(columns={"kl_to_reference": "kl"})
    return means.sort_values([name for name in by if name == "beta"] or by, kind="stable")


def places(levels: pd.DataFrame, names: dict[str, str]) -> list[Place]:
    """Return the losses on the map, without DPO and those that do the same as DPO; equal ones in one place."""
    there = levels[
        (levels["how"] == "pooled") & (levels["preset"] == "published") & (levels["kl"] == AT)
        & (levels["reference"] == BASE[0]) & (levels["policy"] == BASE[1])
    ]  # fmt: skip
    columns = ["win_logp_change", "lose_logp_change", "rest_logp_change"]
    means = there.groupby("loss", sort=False)[columns].mean()
    if "dpo" not in means.index:
        return []
    apart = {str(name): row for name, row in zip(means.index, (means - means.loc["dpo"]).to_numpy(), strict=True)}
    groups = dict[str, list[str]]()
    for name, row in apart.items():
        first = next((one for one in groups if np.abs(apart[one] - row).max() < _SAME), name)
        groups.setdefault(first, []).append(name)
    found = list[Place]()
    for first, members in groups.items():
        win, lose, rest = map(float, apart[first])
        kind = "same" if abs(rest) < _REST else "more" if rest > 0 else "less"
        said = " ≡ ".join(names[member] for member in members if member in names)
        if "dpo" not in members and said:
            found.append(Place(said, win, lose, kind))
    return found


def factors(ends: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Return each loss's reward minus DPO's in points, with one factor at a time varied; columns (factor, level).

    DPO reads no lengths, so its rows of the base setting stand for its rows with other lengths.
    """
    rows = ends[(ends["preset"] == "") & ends["loss"].isin(list(names))]
    rows = rows.assign(level=np.where(rows["factor"] == "base", 0.0, rows["level"]))
    plain = rows["factor"].isin([*OF_LENGTHS, "base"])
    at = rows.assign(at=np.where(plain, "base", rows["factor"]), at_level=np.where(plain, 0.0, rows["level"]))
    key = ["at", "at_level", "seed"]
    dpo = at[at["loss"] == "dpo"][[*key, "utility_share"]]
    both = at.merge(dpo, on=key, suffixes=("", "_dpo"))
    both = both.assign(points=100 * (both["utility_share"] - both["utility_share_dpo"]))
    means = both.pivot_table(index="loss", columns=["factor", "level"], values="points")
    levels = {name: sorted(set(rows.loc[rows["factor"] == name, "level"])) for name in ("base", *_FACTORS)}
    columns = [(name, level) for name, there in levels.items() for level in there]
    shown = means.reindex(columns=pd.MultiIndex.from_tuples(columns))
    shown = shown.reindex([name for name in names if name != "dpo" and name in means.index])
    shown.index = pd.Index([names[str(name)] for name in shown.index])
    shown.columns = pd.MultiIndex.from_tuples(
        [("", "base") if name == "base" else (_FACTORS[name], f"{level:g}") for name, level in columns]
    )
    return shown
