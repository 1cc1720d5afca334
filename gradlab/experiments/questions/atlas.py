"""What does each preference loss do to winner, loser and all else, and does any of them beat DPO?

Every registered loss, trained in the lab as published, over β, and one factor at a time. Claims of other papers:
exactly-balanced, smaller-beta, pairing-decides, none-beats-dpo, discopop-start and band-keeps-winner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from gradlab.experiments.contrasts import Contrast, Judged, Role, Scan, Unit, not_run
from gradlab.experiments.experiment import Frames, Measurement
from gradlab.experiments.frame_checks import check_rows
from gradlab.experiments.outcomes import MASS, REWARD, Outcome
from gradlab.experiments.questions import atlas_elsewhere, atlas_figures, atlas_frames
from gradlab.experiments.questions.atlas_frames import method_of
from gradlab.experiments.questions.atlas_groups import BALANCED, OPPOSITE, PAIRWISE, POINTWISE, variants
from gradlab.experiments.questions.atlas_runs import ENDPOINTS, VALUES
from gradlab.experiments.questions.frontier import overlap
from gradlab.losses import PAIR_LOSSES, PairLogps, pair_loss, slopes
from gradlab.stats.equivalence import ALPHA, false_discoveries_controlled, holm, mean_of

CELL = ["reference", "policy", "kl"]
SETTING = ["reference", "policy"]
KEPT = 0.95  # share of a prompt's steps in which winners must keep from falling
KEPT_MARGIN = 0.02  # of such a share: a smaller difference counts as none
_STEPS = Unit("points of the steps", 100, 1)


def verdict(frames: Frames) -> list[Judged]:
    """Return the answers on the claims of other papers.

    ``method`` of a row is its loss, with the preset behind it where that is a variant's. Levels: ``how`` "pooled" is
    judged, where a method's values at a KL level are averaged over the trainings of all β that pass it; "ends" takes
    one path per seed, through the ends of training from the largest β to the smallest. A level counts for two methods
    as in *frontier*: both must reach it with two seeds, and with half of the seeds that both have.

    A mean of several losses has a value where each of them has one. ``best`` is chosen on the seeds with odd numbers
    and judged on the others; in drawn worlds, by the worlds' numbers. ``effect`` is what pairing, or the score, changes
    of ``utility_share``. ``kept`` is ``inside_kept`` over ``inside``, or the same outside of the band, and ``above`` is
    ``kept`` minus 0.95. In drawn worlds a value at equal KL is a mean over the levels that both methods reach there
    with each seed.
    """
    ends, levels, band, worlds = (frames[name] for name in ("ends", "levels", "band", "worlds"))
    check_rows(levels, ["loss", "preset", *CELL, "how", "seed"], VALUES)
    ends = ends.assign(method=method_of(ends)).dropna(subset=ENDPOINTS)
    levels = levels.assign(method=method_of(levels))
    pooled, at_ends = (levels[levels["how"] == how] for how in ("pooled", "ends"))
    return [
        *_balanced(pooled, at_ends), *_smaller_beta(ends), *_pairing(pooled, at_ends), *_none_beats(pooled, ends),
        *_discopop(ends), *_band(band), *atlas_elsewhere.answers(worlds.assign(method=method_of(worlds))),
    ]  # fmt: skip


def _compared(
    levels: pd.DataFrame, outcome: Outcome, method: str, baseline: str, statement: str, **given: object
) -> Judged:
    """Return the answer on two methods at the KL levels that both reach."""
    contrast = outcome.contrast(statement, method, baseline, tuple(CELL), words="at equal KL, {}", complete=False,
                                **given)  # fmt: skip
    both = overlap(levels, method, baseline, CELL)
    return contrast.judged(both) if len(both) else not_run(contrast, "no KL level that both methods reach")


def _said(outcome: Outcome, method: str, baseline: str) -> dict[str, str]:
    """Return the sentences of an outcome for two methods by the words for them."""
    named = {"method": method, "baseline": baseline, "size": "{size}"}
    return {name: f"at equal KL, {getattr(outcome, name).format(**named)}" for name in ("better", "worse")}


# --- exactly balanced losses ---


def _balanced(pooled: pd.DataFrame, at_ends: pd.DataFrame) -> list[Judged]:
    claim, rows = "exactly-balanced", list[Judged]()
    for method, words in BALANCED.items():
        rows.append(_compared(
            pooled, REWARD, method, "dpo", f"reward at equal KL, {words} against DPO", claim=claim, label=words,
            co_primaries=len(BALANCED), **_said(REWARD, words, "DPO"),
        ))  # fmt: skip
    for method, words in BALANCED.items():
        for outcome, levels, how in ((MASS, pooled, ""), (REWARD, at_ends, ", ends of training only")):
            name = "unobserved mass" if outcome is MASS else "reward"
            rows.append(_compared(
                levels, outcome, method, "dpo", f"{name} at equal KL{how}, {words} against DPO", claim=claim,
                label=words + (" (ends)" if how else ""), role="robustness", **_said(outcome, words, "DPO"),
            ))  # fmt: skip
    rows.append(_compared(
        pooled, REWARD, "link-u", OPPOSITE, "reward at equal KL, the link u against forward KL's link, which "
        "leans to the other side", claim=claim, label="forward KL's link", role="explains away",
        **_said(REWARD, "the link u", "forward KL's link"),
    ))  # fmt: skip
    return rows


# --- a smaller β ---


def _smaller_beta(ends: pd.DataFrame) -> list[Judged]:
    grid = ends[ends["preset"] == "grid"]
    half, whole, balanced = "DPO at β = ½", "DPO at β = 1", "bDPO at β = 1"
    named = {("dpo", 0.5): half, ("dpo", 1.0): whole, ("bdpo", 1.0): balanced}
    chosen = pd.concat([
        grid[(grid["loss"] == loss) & (grid["beta"] == beta)].assign(method=name)
        for (loss, beta), name in named.items()
    ])  # fmt: skip
    rows, missing = list[Judged](), "no training at these β"
    for outcome, value in ((REWARD, "reward"), (MASS, "unobserved mass")):
        for method, baseline, label, role in (
            (half, balanced, half, "primary"),
            (balanced, whole, "the gain at β = 1", "context"),
        ):
            contrast = outcome.contrast(
                f"{value} at the end, {method} against {baseline}", method, baseline, tuple(SETTING),
                claim="smaller-beta", label=label, role=role,
                co_primaries=2 if role == "primary" else 1,
                same=f"{method} does as well as {baseline} in {value}, within {{margin}}",
            )  # fmt: skip
            rows.append(
                contrast.judged(chosen) if {method, baseline} <= set(chosen["method"]) else not_run(contrast, missing)
            )
    return rows


# --- pairwise or pointwise ---


def _mean(levels: pd.DataFrame, members: Sequence[str], name: str) -> pd.DataFrame:
    """Return the mean over some methods, as a method, where each of them has a value."""
    rows = levels[levels["method"].isin(members)]
    whole = rows[rows.groupby([*CELL, "seed"])["method"].transform("nunique") == len(members)]
    return whole.groupby([*CELL, "seed"], as_index=False)[VALUES].mean().assign(method=name)


def _pairing(pooled: pd.DataFrame, at_ends: pd.DataFrame) -> list[Judged]:
    claim, words = "pairing-decides", {"pairwise": "a pairwise loss", "pointwise": "a pointwise loss"}
    rows = list[Judged]()
    for levels, how, role in ((pooled, "", "primary"), (at_ends, ", ends of training only", "robustness")):
        groups = _groups(levels)
        rows.append(_compared(
            groups, REWARD, "pairwise", "pointwise", f"reward at equal KL{how}, pairwise against pointwise losses",
            claim=claim, label=f"pairwise against pointwise{' (ends)' if how else ''}", role=role,
            **_said(REWARD, *words.values()),
        ))  # fmt: skip
    groups = _groups(pooled)
    effects = _two_effects(groups)
    for sign, name in ((-1, "the log-ratio against other scores"), (1, "other scores against the log-ratio")):
        contrast = Contrast(
            claim=claim, statement=f"what pairing changes, against what the score changes: {name}", method="pairing",
            baseline="score", value="effect", by=tuple(CELL), margin=REWARD.margin, unit=REWARD.unit, label=name,
            role="explains away", complete=False,
            better=f"at equal KL, pairing changes {{size}} more than {name}",
            worse=f"at equal KL, pairing changes {{size}} less than {name}",
        )  # fmt: skip
        signed = effects.assign(effect=np.where(effects["method"] == "score", -sign, 1) * effects["effect"])
        rows.append(contrast.judged(signed) if len(signed) else not_run(contrast, "no KL level that all losses reach"))
    rows.append(_compared(
        groups, REWARD, "log-ratio", "other score", "reward at equal KL, pairwise losses of the log-ratio to the "
        "reference against those of other scores", claim=claim, label="the score", role="context",
        **_said(REWARD, "the log-ratio to the reference", "another score"),
    ))  # fmt: skip
    return rows


def _groups(levels: pd.DataFrame) -> pd.DataFrame:
    """Return the means of the groups of losses, each as a method."""
    pairwise = [name for members in PAIRWISE.values() for name in members]
    parts = {"pairwise": pairwise, "pointwise": POINTWISE, **PAIRWISE}
    return pd.concat([_mean(levels, members, name) for name, members in parts.items()])


def _two_effects(groups: pd.DataFrame) -> pd.DataFrame:
    """Return what pairing and what the score changes of the reward, in cells where both have two seeds, each a method.

    The score's effect is that of the log-ratio to the reference against other scores, among pairwise losses.
    """
    wide = groups.pivot_table(index=[*CELL, "seed"], columns="method", values="utility_share").reset_index()
    if not {"pairwise", "pointwise", *PAIRWISE} <= set(wide):
        return pd.DataFrame(columns=[*CELL, "seed", "effect", "method"])
    effects = {"pairing": wide["pairwise"] - wide["pointwise"], "score": wide["log-ratio"] - wide["other score"]}
    both = pd.concat([wide[[*CELL, "seed"]].assign(effect=effect, method=name) for name, effect in effects.items()])
    both = both.dropna(subset=["effect"])
    return overlap(both, "pairing", "score", CELL)


# --- none beats DPO ---


def _none_beats(pooled: pd.DataFrame, ends: pd.DataFrame) -> list[Judged]:
    names = set(variants())
    published = pooled[(pooled["preset"] == "published") & pooled["loss"].isin({"dpo", *names})]
    at_kl = _against_dpo(published, CELL)
    over = ends[ends["preset"].isin(["grid", "published"]) & ends["loss"].isin({"dpo", *names})]
    at_best = _against_dpo(_at_best_beta(over), SETTING)
    return [
        *_best_of_all(at_kl, CELL, "at equal KL", "at equal KL"),
        *_best_of_all(at_best, SETTING, "each at its best β", "where each loss has the β that is best for it"),
    ]  # fmt: skip


def _at_best_beta(ends: pd.DataFrame) -> pd.DataFrame:
    """Return each loss's rows at the β with the highest reward over the cells on odd seeds, of all seeds."""
    choosing = ends[ends["seed"] % 2 == 1]
    means = choosing.fillna({"beta": 0.0}).groupby(["method", "beta"])["utility_share"].mean().reset_index()
    best = means.loc[means.groupby("method")["utility_share"].idxmax(), ["method", "beta"]]
    rows = ends.fillna({"beta": 0.0}).merge(best, on=["method", "beta"])
    return rows.drop_duplicates(["method", *SETTING, "seed"])  # as published may be a β of the grid, too


def _against_dpo(rows: pd.DataFrame, cell: list[str]) -> pd.DataFrame:
    """Return each loss's reward minus DPO's: the columns ``cell``, method, seed, difference."""
    dpo = rows[rows["method"] == "dpo"][[*cell, "seed", "utility_share"]]
    both = rows[rows["method"] != "dpo"].merge(dpo, on=[*cell, "seed"], suffixes=("", "_dpo"))
    return both[[*cell, "method", "seed"]].assign(difference=both["utility_share"] - both["utility_share_dpo"])


def _best_of_all(differences: pd.DataFrame, cell: list[str], short: str, words: str) -> list[Judged]:
    """Return whether the loss that does best on odd seeds beats DPO on the others, and which losses beat it at all."""
    claim, statement = "none-beats-dpo", f"reward {short}, DPO against the loss that does best on other seeds"
    choosing = differences[differences["seed"] % 2 == 1]
    judging = differences[differences["seed"] % 2 == 0]
    given = {"claim": claim, "label": f"best of all, {short}", "co_primaries": 2, "complete": False}
    if not len(choosing):
        return [not_run(REWARD.contrast(statement, "dpo", "best", tuple(cell), **given), "no loss but DPO was trained")]
    best = str(_means(choosing, cell).idxmax())
    rows = judging[judging["method"] == best]
    sides = pd.concat([rows.assign(method="best", utility_share=rows["difference"]),
                       rows.assign(method="dpo", utility_share=0.0)])  # fmt: skip
    sides = sides[sides.groupby(cell)["seed"].transform("nunique") >= 2]
    contrast = REWARD.contrast(
        statement, "dpo", "best", tuple(cell), **given,
        better=f"{words}, DPO reaches {{size}} more than {best} (which does best on other seeds)",
        worse=f"{words}, {best} (which does best on other seeds) reaches {{size}} more than DPO",
        same=f"{words}, no loss beats DPO: {best} (which does best on other seeds) is within {{margin}} of it",
    )  # fmt: skip
    answer = contrast.judged(sides) if len(sides) else not_run(contrast, "too few seeds")
    reached, every = len(answer.rows), len(differences.drop_duplicates(cell))
    if reached < every:
        answer = replace(answer, note=f"{best} reaches {reached} of the {every} cells")
    return [answer, _map_of_losses(judging, cell, short, words)]


def _means(differences: pd.DataFrame, cell: list[str]) -> pd.Series:
    """Return each loss's mean difference over the cells, which count equally."""
    return differences.groupby(["method", *cell])["difference"].mean().groupby("method").mean()


def _map_of_losses(judging: pd.DataFrame, cell: list[str], short: str, words: str) -> Judged:
    """Return which losses beat DPO by more than the margin, corrected over losses: a case per loss.

    A loss's seeds are the means over its cells, weighted so that the cells count equally. Holm corrects the one-sided
    p-values that a difference lies above the margin over all losses; Benjamini and Hochberg's number is in the note.
    ``slack`` is 1 where a loss is not shown to beat DPO, and −1 where it is.
    """
    centred = judging["difference"] - judging.groupby(["method", *cell])["difference"].transform("mean")
    moved = judging.assign(difference=centred).groupby(["method", "seed"])["difference"].mean().unstack("seed")
    values = moved.add(_means(judging, cell), axis=0)
    values = values[values.notna().sum(axis=1) >= 2]
    p_values = mean_of(values.to_numpy()).p_above(REWARD.margin)
    beats, by_bh = holm(p_values) <= ALPHA, false_discoveries_controlled(p_values) <= ALPHA
    effect = values.mean(axis=1)
    named = ", ".join(effect[beats].sort_values(ascending=False).index) or "none"
    text = f"{words}, {int(beats.sum())} of {len(values)} losses beat DPO by more than the margin: {named}"
    scan = Scan(
        "none-beats-dpo", f"reward {short}: no loss beats DPO by more than the margin, Holm over losses", "slack",
        ("method",), role="context", label=f"all losses, {short}", holds=text, fails=text,
    )  # fmt: skip
    cases = pd.DataFrame({"method": values.index, "slack": np.where(beats, -1.0, 1.0), "difference": effect.to_numpy()})
    answer = scan.judged(cases)
    note = f"{int(by_bh.sum())} at a false discovery rate of {ALPHA:.0%}"
    return answer.ruled("reversed" if beats.any() else "holds throughout", note)


# --- discopop ---


def _discopop(ends: pd.DataFrame) -> list[Judged]:
    scan = Scan(
        "discopop-start", "at π = π_ref and τ = 0.05 descent lowers the winner and raises the loser", "slack",
        ("beta", "log_win", "log_lose"), proof="discopop-start", label="DiscoPOP at τ = 0.05",
        holds="at the reference DiscoPOP with τ = 0.05 descends away from the labels",
        fails="at the reference DiscoPOP with τ = 0.05 descends towards the labels",
    )  # fmt: skip
    reward = REWARD.contrast(
        "reward at the end, DiscoPOP as published against the reference", "discopop", "", tuple(SETTING),
        claim="discopop-start", role="context", label="after the whole training",
        better="after the whole training DiscoPOP as published reaches {size} more than the reference",
        worse="after the whole training DiscoPOP as published reaches {size} less than the reference",
    )  # fmt: skip
    trained = ends[(ends["method"] == "discopop") & (ends["preset"] == "published")]
    if "discopop" not in PAIR_LOSSES or not len(trained):
        return [not_run(scan, "no loss of that name"), not_run(reward, "no loss of that name")]
    return [scan.judged(_discopop_cases()), replace(reward, baseline=None).judged(trained)]


def _discopop_cases() -> pd.DataFrame:
    """Return autograd's slopes of DiscoPOP at the reference for declared β and log-probabilities.

    ``slack`` is the smaller one of ∂L/∂log π_w and −∂L/∂log π_l, over β: positive where descent works against both.
    """
    places = (-0.1, -3.0, -100.0)
    cases = [(beta, win, lose) for beta in (0.01, 0.1, 1.0) for win in places for lose in places]
    slack = []
    for beta, *at in cases:
        win, lose = (torch.tensor([place], dtype=torch.float64) for place in at)
        up, down = slopes(pair_loss("discopop", beta=beta, temperature=0.05), PairLogps(win, lose, win, lose))
        slack.append(float(torch.minimum(up, -down)) / beta)
    return pd.DataFrame(cases, columns=["beta", "log_win", "log_lose"]).assign(slack=slack)


# --- the band ---


def _band(band: pd.DataFrame) -> list[Judged]:
    rows = band.assign(method=method_of(band)) if len(band) else band.assign(method=[])
    shares = pd.concat([
        rows[["method", "policy", "pairs", "seed"]].rename(columns={"method": "loss"}).assign(
            method=where, kept=(rows[f"{where}_kept"] / rows[where].where(rows[where] > 0)).astype(float)
        )
        for where in ("inside", "outside")
    ]).dropna(subset=["kept"])  # fmt: skip
    shares["above"] = shares["kept"] - KEPT
    answers = list[Judged]()
    kinds: tuple[tuple[str, str, Role, Role], ...] = (
        ("pairs > 1", "batches", "primary", "explains away"),
        ("pairs == 1", "single pairs", "robustness", "context"),
    )
    for where, name, role, other in kinds:
        told = f"winners of {name} keep from falling in {{size}}"
        alone = Contrast(
            claim="band-keeps-winner", method="inside", baseline=None, value="above", by=("loss", "policy"),
            margin=KEPT_MARGIN, unit=_STEPS, complete=False, where=where, role=role, label=name,
            statement=f"{name}: in the band winners keep from falling in more than {KEPT:.0%} of the steps",
            better=f"in the band {told} more than the {KEPT:.0%} asked for",
            worse=f"in the band {told} less than the {KEPT:.0%} asked for",
        )  # fmt: skip
        against = replace(
            alone, baseline="outside", value="kept", role=other, label=f"outside of the band, {name}",
            statement=f"{name}: winners keep from falling more often in the band than outside",
            better=f"{told} more inside of the band than outside", worse=f"{told} less inside of the band than outside",
        )  # fmt: skip
        for contrast, sides in ((alone, ["inside"]), (against, ["inside", "outside"])):
            there = _with_seeds(shares[shares["method"].isin(sides)], len(sides))
            any_there = len(there) and len(there.query(where))
            answers.append(contrast.judged(there) if any_there else not_run(contrast, "no step of that kind"))
    return answers


def _with_seeds(rows: pd.DataFrame, sides: int) -> pd.DataFrame:
    """Return the cells that have two seeds with every side."""
    cell = ["loss", "policy", "pairs"]
    whole = rows[rows.groupby([*cell, "seed"])["method"].transform("nunique") == sides]
    return whole[whole.groupby(cell)["seed"].transform("nunique") >= 2]


MEASUREMENT = Measurement(
    "atlas", atlas_frames.FILES, atlas_frames.COMMAND, verdict, atlas_figures.figures, atlas_figures.CAPTIONS
)
