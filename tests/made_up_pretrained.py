"""Made-up frames of runs on a pretrained model, as ``make llm-real`` writes them; a seed makes the noise."""

import numpy as np
import pandas as pd

from gradlab.experiments.questions.pretrained_runs import (
    BEYOND,
    CORE,
    PARTS,
    REFERENCE,
    SEEDS,
    TASKS,
    unit,
)

BETAS = {"dpo-half": 0.7, "dpo": 1.0, "dpo-double": 1.2, "bdpo": 0.7, "bdpo-double": 1.0, "length-dpo": 0.7,
         "length-dpo-double": 1.0}  # fmt: skip
LOOKS = (50, 100, 200)


def run(task, method, seed, *, bonus=0.0, noise=0.01, spikes=0, slope=0.0, elsewhere=0.0, aimless=False, harder=0.0):
    """One run's frame: reward and accuracy grow with √KL, and ``bonus`` is added to both at the end."""
    rng = np.random.default_rng([SEEDS.index(seed), len(method), sum(map(ord, task + method))])
    steps = (0,) if method == REFERENCE else LOOKS
    tables = []
    lengths = np.random.default_rng(seed).integers(4, 40, (80, 2))
    ref = -1.5 * lengths * np.exp(np.random.default_rng(seed + 1).normal(0, 0.1, (80, 2)))
    for step in steps:
        size = BETAS.get(method, 1.0) * step / LOOKS[-1]
        push = rng.normal(0, 1, 80) + (1.0 * size + bonus) * 2 if step else np.zeros(80)
        fall = -1.0 * size - (elsewhere if step else 0.0)
        push *= np.where(np.arange(80) % 2, 1, -1) if aimless else 1  # right once, wrong once
        moved = np.stack([push / 2, -push / 2], 1) + fall
        tables.append(pd.DataFrame({
            "kind": "pair", "step": step, "index": np.arange(80), "win": ref[:, 0] + moved[:, 0],
            "lose": ref[:, 1] + moved[:, 1], "ref_win": ref[:, 0], "ref_lose": ref[:, 1],
            "win_len": lengths[:, 0], "lose_len": lengths[:, 1],
        }))  # fmt: skip
        logp = rng.normal(-30, 1, 60)
        h = 2.0 * size**2 * np.ones(60)
        samples = {"kind": "sample", "step": step, "index": np.arange(60) // 2, "logp": logp, "ref_logp": logp - h,
                   "tokens": 12, "finished": True}  # fmt: skip
        if task == "known":
            samples |= {"words": 8, "sentiment": 0.2 + 0.3 * size + (bonus if step else 0) + rng.normal(0, noise)}
        tables.append(pd.DataFrame(samples))
    if method != REFERENCE:
        tables.append(_log(rng, spikes, slope, harder))
    tables.append(pd.DataFrame({"kind": ["run"], "seconds": [600.0]}))
    return pd.concat(tables, ignore_index=True).assign(task=task, method=method, seed=seed)


def _log(rng, spikes, slope, harder):
    steps = np.arange(1, 201)
    imbalance = rng.normal(0, 5, len(steps))
    loss = 0.69 - 0.0005 * steps + rng.normal(0, 1e-3, len(steps))
    loss[19 : 19 + 40 * spikes : 40] += 1.0
    sides = {
        f"{name}_{side}": np.exp(sign * 0.5 * (slope * imbalance + rng.normal(0, 0.05, len(steps))))
        for name in ("grad_norm", "delta") for side, sign in (("win", 1), ("lose", -1))
    }  # fmt: skip
    sides["grad_norm_lose"] *= np.exp(harder)
    sides["grad_cosine"] = rng.uniform(-0.5, -0.1, len(steps))
    frame = pd.DataFrame({"kind": "log", "step": steps, "logp_win": -80.0, "logp_lose": -80.0 + imbalance, **sides})
    frame["validation_loss"] = np.where(steps % 10 == 0, loss, np.nan)
    frame.loc[steps % 10 != 1, list(sides)] = np.nan
    return frame


def frames(changes=None, *, beyond=False):
    """All core runs by name, those beyond if asked for; ``changes`` are options of ``run`` by method."""
    names = {}
    for task in TASKS:
        for method in (REFERENCE, *CORE, *(BEYOND[task] if beyond else ())):
            for seed in SEEDS:
                names[unit(task, method, seed)] = run(task, method, seed, **(changes or {}).get(method, {}))
    assert all(set(part) <= set(names) for part in PARTS)
    return names
