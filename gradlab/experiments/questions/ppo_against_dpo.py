"""Does PPO on a reward model beat DPO on the same pairs?

Where the reward model has the policy's parameters and scores unobserved responses itself, it has DPO's likelihood with
r/β in place of log π/π_ref. Fully descended, PPO then ends at π_ref exp(r/β), which is where DPO ends, on observed and
on unobserved responses (identity 14; it needs no free logits: scores and logits are linear in the same features). Such
rows show only what the finite budget of Adam leaves, so they are no evidence. What can differ is judged: a policy with
free logits on a reward model with shared parameters, and the other way round. PPO then ends at other policies than DPO,
at each mask rate. One of both is explained by parameters alone: with free logits PPO can represent exp(r/β) of a shared
reward model, so by the same algebra it ends where DPO with shared parameters does. A row shows this.

PPO on the true utility is for orientation and not an upper bound: at β = 1 its optimum trades reward for KL. Claim:
ppo.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, Role, judged
from gradlab.experiments.experiment import FIRST_SEED, Experiment
from gradlab.experiments.methods import final, seeds_from, train, train_ppo
from gradlab.experiments.outcomes import REWARD
from gradlab.experiments.precision import Endpoint, runs_to_add
from gradlab.lab.policy import tabular_policy
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world
from gradlab.stats.precision import Design

TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=500, pairs=100, record=1)
SETTINGS: dict[str, Any] = {
    "mask_rates": [0.0, 0.2, 0.4],
    "policies": ["free", "shared"],
    # (reward of unobserved responses, kind of the reward model); without a mask all fillings are the same.
    "rewards": [
        ["model", "free"], ["minimum", "free"], ["mean", "free"], ["maximum", "free"],
        ["model", "shared"], ["minimum", "shared"], ["mean", "shared"], ["maximum", "shared"],
        ["oracle", "free"],
    ],
    "training": TRAINING,  # of the reward model, of PPO and of DPO alike
    "first_seed": FIRST_SEED,
    # What is judged has this many seeds, and gets blocks up to the cap where a cell is too wide.
    "seeds": 24,
    "block": 24,
    "cap": 240,
    "other_seeds": 6,
}  # fmt: skip
QUICK: dict[str, Any] = {
    "first_seed": 0, "seeds": 3, "block": 3, "cap": 6, "other_seeds": 2, "training": TRAINING.but(steps=100),
    "mask_rates": [0.0, 0.4],
}  # fmt: skip

MARGIN = REWARD.margin
_CELL = ("mask", "policy")


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per mask rate and policy for DPO, and for PPO on each reward."""
    return [
        _part(settings, reward, mask_rate, policy, 0,
              settings["seeds" if reward is None or is_evidence(reward, policy) else "other_seeds"])
        for policy in settings["policies"]
        for mask_rate in settings["mask_rates"]
        for reward in [None, *settings["rewards"]]
        if mask_rate > 0 or reward is None or reward[0] in ("model", "oracle")
    ]  # fmt: skip


def more(frame: pd.DataFrame, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the next block of seeds of each cell that is not yet precise enough, for PPO and for DPO."""
    design = Design(MARGIN, 1, settings["seeds"], settings["block"], settings["cap"])
    asked = runs_to_add(by_parameters(frame), [Endpoint(REWARD.value, "other model", "dpo", _CELL, design)], _CELL)
    return [
        _part(settings, None if row["method"] == "dpo" else ["model", other_kind(row["policy"])], row["mask"],
              row["policy"], row["seeds"], row["more"])
        for row in asked.to_dict("records")
    ]  # fmt: skip


def is_evidence(reward: list[str], policy: str) -> bool:
    """Return whether PPO on this reward (its filling, its kind) is what is judged: no identity, and no other reward."""
    filling, kind = reward
    return filling == "model" and kind == other_kind(policy)


def other_kind(policy: str) -> str:
    """Return the kind of parameters that a policy does not have."""
    return {"free": "shared", "shared": "free"}[policy]


def _part(
    settings: dict[str, Any], reward: list[str] | None, mask_rate: float, policy: str, before: int, seeds: int
) -> dict[str, Any]:
    """Return a part with so many seeds, after those ``before``."""
    return {
        "reward": reward, "mask_rate": mask_rate, "policy": policy, "training": settings["training"],
        "first_seed": settings["first_seed"] + before, "seeds": seeds,
    }  # fmt: skip


def run_part(
    reward: list[str] | None, mask_rate: float, policy: str, training: Training, first_seed: int, seeds: int
) -> pd.DataFrame:
    """Return the end of DPO's runs (``reward`` None), or of PPO's on one reward."""
    drawn = seeds_from(first_seed, seeds)
    worlds = [gaussian_world(mask_rate=mask_rate, seed=seed) for seed in drawn]
    training = training.but(policy=policy)
    if reward is None:
        name, fitted = "dpo", train("dpo", worlds, training, seeds=drawn)
    else:
        filling, kind = reward
        name = "ppo oracle" if filling == "oracle" else f"ppo {kind} {filling}"
        fitted = train_ppo(filling, worlds, training, reward_policy=tabular_policy(kind), seeds=drawn)
    frame = final(fitted, drawn, method=name, mask=mask_rate, policy=policy)
    return frame.drop(columns=["loss", "held_out_loss"])


def by_parameters(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with PPO named by whether its reward model has the policy's parameters: "same model" and so on.

    Beside policies with free logits, DPO with shared parameters is there too, as "dpo shared".
    """
    names = frame["method"].str.split(" ", expand=True).reindex(columns=range(3))
    modelled = names[2].notna()
    which = (names[1] == frame["policy"]).map({True: "same ", False: "other "}) + names[2]
    frame = frame.assign(method=frame["method"].where(~modelled, which))
    shared = frame[(frame["method"] == "dpo") & (frame["policy"] == "shared")]
    return pd.concat([frame, shared.assign(method="dpo shared", policy="free")], ignore_index=True)


def contrasts(settings: dict[str, Any]) -> list[Contrast]:
    """Return the contrasts; context is compared on the seeds that it has."""
    few = f"seed < {settings['first_seed'] + settings['other_seeds']}"

    def contrast(
        subject: str, method: str, role: Role, label: str, *, where: str = few, statement: str = "", same: str = "",
        baseline: str = "dpo", words: str = "DPO", by: tuple[str, ...] = _CELL,
    ) -> Contrast:  # fmt: skip
        return Contrast(
            claim="ppo", statement=statement or f"{subject} against {words}", method=method, baseline=baseline,
            value=REWARD.value, by=by, margin=MARGIN, where=where, role=role, label=label, unit=REWARD.unit, same=same,
            better=f"{subject} reaches {{size}} more than {words}",
            worse=f"{subject} reaches {{size}} less than {words}",
        )  # fmt: skip

    other = "PPO on a reward model with other parameters than the policy's"
    same = "PPO on a reward model with the policy's parameters"
    return [
        contrast(
            other, "other model", "primary", "other parameters", where="", statement="PPO on a reward model with other "
            "parameters than the policy's (shared for a free policy, free for a shared one) against DPO on the same "
            "pairs",
        ),
        *(
            contrast(f"{other}, unobserved rewards at the {filling},", f"other {filling}", "robustness",
                     f"unobserved at the {filling}", where=f"mask > 0 and {few}")
            for filling in ("minimum", "mean", "maximum")
        ),
        contrast(
            same, "same model", "context", "the policy's parameters",
            statement=f"{same} against DPO: equal by algebra, but for the finite budget",
            same=f"{same} ends where DPO ends, within {{margin}}, as algebra says",
        ),
        contrast(
            f"{other} and free logits", "other model", "context", "DPO with shared parameters",
            where=f"policy == 'free' and {few}", baseline="dpo shared", words="DPO with the reward model's parameters",
            by=("mask",), statement="PPO with free logits on a shared-parameter reward model against DPO with shared "
            "parameters: equal by algebra, but for the finite budget",
            same="PPO with free logits on a shared-parameter reward model ends where DPO with shared parameters ends, "
            "within {margin}: parameters, and not PPO, make its difference from DPO",
        ),
        *(
            contrast(f"{same}, unobserved rewards at the {filling},", f"same {filling}", "context",
                     f"the policy's parameters, unobserved at the {filling}", where=f"mask > 0 and {few}")
            for filling in ("minimum", "mean", "maximum")
        ),
        contrast("PPO on the true utility", "ppo oracle", "context", "true utility"),
    ]  # fmt: skip


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Return the answers on reward at the end of training.

    Judged are all rows. PPO is named by whether its reward model has the policy's parameters and by the reward of
    unobserved responses: "ppo free minimum" is "same minimum" for a free policy, and "other minimum" for a shared one.
    The rows of DPO with shared parameters count beside free policies too, as "dpo shared".
    """
    levels = {"mask": settings["mask_rates"], "policy": settings["policies"]}
    return judged(by_parameters(frame), contrasts(settings), levels)


CAPTIONS = {
    "ppo": (
        "PPO against DPO on the same 100 pairs per prompt: share of the reachable reward at the end of training. "
        "'free' and 'shared' name the reward model's parameters, the last word how it values unobserved responses. "
        "Where these are the policy's own parameters and the word is 'model', PPO equals DPO by algebra but for the "
        "finite budget: 'free model' beside free policies, and 'shared model' beside shared ones, are no evidence. "
        "Small dots are seeds, large dots their mean with a 95% t interval; 'true utility' is PPO on u. "
        "PPO on the true utility is no upper bound of reward. What it maximises is u − β KL, with exact expectations "
        "instead of samples; at β = 1 the best policy for that is π_ref exp(u/β), where it comes to rest. DPO on 100 "
        "hard-labelled pairs goes on beyond: without a mask they cover the 190 pairs of responses less than once, so "
        "most are labelled one way only, which asks for larger differences of log π than u has. With free logits and "
        "no mask it so ends about twice as far from the reference, with more reward, but less u − β KL. With exact "
        "labels and no mask, DPO ends where PPO on the true utility does."
    )
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw the reward at the end, one column per mask rate, one row per policy."""
    return {
        "ppo": plotting.ends(frame, {"utility_share": "share of the reachable reward"}, columns="mask", rows="policy")
    }


EXPERIMENT = Experiment(
    name="ppo-against-dpo",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=figures,
    captions=CAPTIONS,
    more=more,
)
