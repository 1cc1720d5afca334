"""Does PPO on a reward model beat DPO on the same pairs?

Where the reward model has the policy's parameters and both descend to the end, PPO and DPO have the same optimum,
π_ref exp(r/β), on observed and unobserved responses. So the experiment varies what can break that: other parameters in
the reward model, the reward that unobserved responses get, and a finite budget of Adam. PPO on the true utility is for
orientation and not an upper bound: at β = 1 its optimum trades reward for KL. Claim: ppo.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, Role, judged
from gradlab.experiments.experiment import Experiment
from gradlab.experiments.methods import final, train, train_ppo
from gradlab.lab.policy import tabular_policy
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world

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
    "seeds": 20,
}  # fmt: skip
QUICK: dict[str, Any] = {"seeds": 3, "training": TRAINING.but(steps=100), "mask_rates": [0.0, 0.4]}


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per mask rate and policy for DPO, and for PPO on each reward."""
    shared = {key: settings[key] for key in ("training", "seeds")}
    return [
        {"reward": reward, "mask_rate": mask_rate, "policy": policy, **shared}
        for policy in settings["policies"]
        for mask_rate in settings["mask_rates"]
        for reward in [None, *settings["rewards"]]
        if mask_rate > 0 or reward is None or reward[0] in ("model", "oracle")
    ]


def run_part(
    reward: list[str] | None, mask_rate: float, policy: str, training: Training, seeds: int
) -> pd.DataFrame:  # fmt: skip
    """Return the end of DPO's runs (``reward`` None), or of PPO's on one reward."""
    worlds = [gaussian_world(mask_rate=mask_rate, seed=seed) for seed in range(seeds)]
    training = training.but(policy=policy)
    if reward is None:
        name, fitted = "dpo", train("dpo", worlds, training, seeds=range(seeds))
    else:
        filling, kind = reward
        name = "ppo oracle" if filling == "oracle" else f"ppo {kind} {filling}"
        fitted = train_ppo(filling, worlds, training, reward_policy=tabular_policy(kind), seeds=range(seeds))
    frame = final(fitted, range(seeds), method=name, mask=mask_rate, policy=policy)
    return frame.drop(columns=["loss", "held_out_loss"])


def _contrast(statement: str, method: str, where: str = "", *, role: Role = "context") -> Contrast:
    return Contrast(
        claim="ppo", statement=statement, method=method, baseline="dpo", value="utility_share", by=("mask", "policy"),
        margin=0.01, where=where, role=role,
    )  # fmt: skip


CONTRASTS = [
    _contrast("PPO on a free reward model against DPO (as stated)", "ppo free model", role="primary"),
    _contrast("PPO on a shared-parameter reward model against DPO (as stated)", "ppo shared model", role="primary"),
    *(
        _contrast(f"PPO on a {kind} reward model, unobserved rewards at the {filling}, against DPO",
                  f"ppo {kind} {filling}", "mask > 0")
        for kind in ("free", "shared")
        for filling in ("minimum", "mean", "maximum")
    ),
    _contrast("PPO on the true utility against DPO (a line of reference)", "ppo oracle"),
]  # fmt: skip


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Return verdicts on reward at the end of training."""
    return judged(frame, CONTRASTS)


CAPTIONS = {
    "ppo": (
        "PPO against DPO on the same 100 pairs per prompt: share of the reachable reward at the end of training. "
        "'free' and 'shared' name the reward model's parameters, the last word how it values unobserved responses. "
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
)
