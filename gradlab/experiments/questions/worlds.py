"""In which worlds does Balanced-DPO help? Worlds that a declared distribution draws, see ``worlds_drawn``.

Claims: grid-reward, grid-unobserved and ablation, transported to these worlds; and ppo.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, judged
from gradlab.experiments.experiment import FIRST_SEED, Experiment
from gradlab.experiments.methods import final, train, train_ppo
from gradlab.experiments.outcomes import MASS, REWARD, WINS, Outcome
from gradlab.experiments.panels import dose_panel
from gradlab.experiments.precision import Endpoint, worlds_to_add
from gradlab.experiments.questions.worlds_drawn import BETA, dose, drawn
from gradlab.lab.policy import FREE_LOGITS
from gradlab.lab.training import Training
from gradlab.stats.precision import Design

TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=500, record=1)
_WORLD = ("world",)
PRIMARY_METHODS = ["dpo", "bdpo", "nbdpo", "nbdpo-symmetric"]
_CONTROLS = ["bdpo at 2β", "fixed λ=0.5", "permuted λ", "permuted |λ−½|"]
SETTINGS: dict[str, Any] = {
    "first_seed": FIRST_SEED,
    "seeds": 6,  # of each world
    "worlds": 120,  # with all methods
    # PPO's reward model is free: with free logits PPO and DPO would have one optimum, and nothing would be compared.
    "methods": {"free": [*PRIMARY_METHODS, *_CONTROLS], "shared": [*PRIMARY_METHODS, *_CONTROLS, "ppo"]},
    "block": 120,  # worlds that are then added at a time, with the primaries' methods alone
    "cap": 480,
    "training": TRAINING,  # with each world's policy and number of pairs
}
QUICK: dict[str, Any] = {
    "first_seed": 0, "seeds": 2, "worlds": 12, "block": 12, "cap": 12, "training": TRAINING.but(steps=100),
}  # fmt: skip
# The primaries: outcome, baseline, how many share Holm's correction, and the worlds that count.
_PRIMARIES = (
    (REWARD, "dpo", 1, ""), (MASS, "dpo", 1, "mask > 0"), (WINS, "nbdpo", 2, ""), (WINS, "nbdpo-symmetric", 2, ""),
)  # fmt: skip


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of the first worlds, with every method."""
    return _parts(settings, range(settings["worlds"]), settings["methods"])


def more(frame: pd.DataFrame, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of the next worlds, with the primaries' methods; none once the averages are precise enough."""
    endpoints = [
        Endpoint(outcome.value, "bdpo", baseline, _WORLD, where=where,
                 design=Design(outcome.margin, number, settings["worlds"], settings["block"], settings["cap"]))
        for outcome, baseline, number, where in _PRIMARIES
    ]  # fmt: skip
    return _parts(settings, worlds_to_add(frame, endpoints), dict.fromkeys(settings["methods"], PRIMARY_METHODS))


def _parts(settings: dict[str, Any], numbers: Sequence[int], methods: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Return one part per method, policy and number of pairs: worlds that have these in common train together."""
    shared = {key: settings[key] for key in ("first_seed", "seeds")}
    groups: dict[tuple[str, int], list[int]] = {}
    for number in numbers:
        world = drawn(number, **shared)
        groups.setdefault((world.policy, world.pairs), []).append(number)
    return [
        {"method": method, "numbers": group, "training": settings["training"].but(policy=policy, pairs=pairs), **shared}
        for (policy, pairs), group in sorted(groups.items())
        for method in methods[policy]
    ]


def run_part(method: str, numbers: list[int], training: Training, first_seed: int, seeds: int) -> pd.DataFrame:
    """Return the end of every run of one method on the worlds of these numbers, with each world's seeds."""
    settings = [drawn(number, first_seed, seeds) for number in numbers]
    by_world = [world.worlds() for world in settings]
    worlds = [one for of_world in by_world for one in of_world]
    runs = [seed for world in settings for seed in world.seeds]
    if method == "ppo":
        fitted = train_ppo("model", worlds, training, beta=BETA, seeds=runs, reward_policy=FREE_LOGITS)
    else:
        fitted = train(method, worlds, training, beta=BETA, seeds=runs)
    columns = pd.DataFrame([
        {**world.columns(), "dose": float(np.mean(list(map(dose, of_world)))), "seed": seed}
        for world, of_world in zip(settings, by_world, strict=True) for seed in world.seeds
    ])  # fmt: skip
    return columns.merge(final(fitted, runs, method=method), on="seed", validate="one_to_one")


_FIRST = f"world < {SETTINGS['worlds']}"
MODERATORS = ("dose", "mask", "policy", "pairs", "reference", "utility_kind")


def _contrast(outcome: Outcome, statement: str, method: str, baseline: str, label: str, **changes: Any) -> Contrast:
    return outcome.contrast(statement, method, baseline, _WORLD, words="in drawn worlds, {}", label=label,
                            population="worlds", moderators=MODERATORS, **changes)  # fmt: skip


def _against_controls(outcome: Outcome, where: str) -> list[Contrast]:
    """Return the comparisons with what could explain an effect away, on the first worlds."""
    first = {"where": " and ".join(filter(None, [where, _FIRST])), "role": "explains away"}
    return [
        _contrast(outcome, "bDPO against a constant λ = ½, which is DPO at β/2", "bdpo", "fixed λ=0.5", "DPO at β/2",
                  **first),
        _contrast(outcome, "bDPO at 2β, which has DPO's effective β, against DPO", "bdpo at 2β", "dpo",
                  "DPO at equal scale", **first),
        _contrast(outcome, "bDPO against its λ permuted among the pairs", "bdpo", "permuted λ",
                  "λ permuted among pairs", **first),
        _contrast(outcome, "bDPO against its |λ − ½| permuted, each pair's direction kept", "bdpo", "permuted |λ−½|",
                  "|λ − ½| permuted among pairs", **{**first, "role": "context"}),
    ]  # fmt: skip


_NAMES = {"dpo": "DPO", "nbdpo": "naive bDPO", "nbdpo-symmetric": "symmetric naive bDPO"}
CONTRASTS = [
    *(
        _contrast(outcome, f"{'win-rate, ' if outcome is WINS else ''}bDPO against {_NAMES[baseline]} at β = 1", "bdpo",
                  baseline, f"against {_NAMES[baseline]}", where=where, co_primaries=number)
        for outcome, baseline, number, where in _PRIMARIES
    ),
    *(one for outcome, _, number, where in _PRIMARIES if number == 1 for one in _against_controls(outcome, where)),
    *(
        _contrast(outcome, "bDPO against DPO at β = 1, in the worlds that the controls have", "bdpo", "dpo",
                  "against DPO", role="context", where=" and ".join(filter(None, [where, _FIRST])))
        for outcome, _, number, where in _PRIMARIES if number == 1
    ),
    _contrast(WINS, "win-rate, bDPO against DPO at β = 1", "bdpo", "dpo", "against DPO", role="context"),
    _contrast(REWARD, "PPO on a free reward model against DPO, shared parameters", "ppo", "dpo", "drawn worlds",
              claim="ppo", where=f"policy == 'shared' and {_FIRST}", role="robustness"),
]  # fmt: skip


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Return the answers over all worlds, at the end of training. Judged are all rows of the frame."""
    return judged(frame, CONTRASTS, {"world": range(_number_of_worlds(frame, settings))})


def _number_of_worlds(frame: pd.DataFrame, settings: dict[str, Any]) -> int:
    """Return how many worlds the frame must have: the first ones and whole blocks, up to the cap."""
    first, block, cap = (settings[key] for key in ("worlds", "block", "cap"))
    blocks = -(-max(int(frame["world"].max()) + 1 - first, 0) // block)
    return min(first + blocks * block, cap)


_READ = (
    "Each small mark is a world: ▲ and ▼ lie beyond the margin with 95% confidence, ○ within it, and dots are "
    "undecided. To the right grows the dose, the mean over prompts of (max u − min u)/β, which is R/β for a Gaussian "
    "utility. Squares are averages over a sixth of the worlds, with 95% intervals. The grey band is the margin; above "
    "it bDPO does better."
)
CAPTIONS = {
    "worlds-reward": (
        "Does bDPO reach more reward than DPO in worlds that a declared distribution draws? The difference in the "
        f"share of the reachable reward, in percentage points. {_READ} Beside them are the averages over worlds: first "
        "bDPO − DPO, then the controls, which could explain it away. Below are the controls by dose, in the first "
        f"{SETTINGS['worlds']} worlds: bDPO − (λ = ½), bDPO at 2β − DPO, and bDPO − permuted λ."
    ),
    "worlds-unobserved": (
        "The same for the probability on unobserved responses, in worlds with a mask. Upwards bDPO puts less there."
    ),
    "worlds-ablation": (
        "Does full bDPO win more often against the reference than its naive variants? The difference in win-rate, in "
        f"percentage points. {_READ}"
    ),
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw effects by dose: the comparisons with DPO with their controls beside and below, and the ablation."""
    answers = [contrast.judged(frame) for contrast in CONTRASTS if contrast.role in ("primary", "explains away")]
    claims = ("grid-reward", "grid-unobserved", "ablation")
    reward, unobserved, ablation = ([one for one in answers if one.statement.claim == claim] for claim in claims)
    return {
        "worlds-reward": _with_controls(reward),
        "worlds-unobserved": _with_controls(unobserved),
        "worlds-ablation": plotting.effect_by_dose({
            title: dose_panel(one, title)
            for title, one in zip(("bDPO − naive bDPO", "bDPO − symmetric naive bDPO"), ablation, strict=True)
        }),
    }  # fmt: skip


def _with_controls(answers: Sequence[Judged]) -> Figure:
    """Draw the answer on DPO with the controls' averages beside it, and below it the controls by dose."""
    titles = ("bDPO − DPO", "bDPO − (λ = ½)", "bDPO at 2β − DPO", "bDPO − permuted λ")
    first, *controls = zip(titles, answers, strict=True)
    return plotting.effect_by_dose({
        first[0]: dose_panel(first[1], first[0], dict(controls)),
        **{title: dose_panel(one, title) for title, one in controls},
    })  # fmt: skip


EXPERIMENT = Experiment(
    name="worlds",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=figures,
    captions=CAPTIONS,
    more=more,
)
