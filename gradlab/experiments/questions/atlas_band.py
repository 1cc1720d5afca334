"""Where both sides of a loss lie in the band, does the winner's log-probability keep from falling? Runs for the atlas.

The band is that of ``gradlab.theory.band``, of each prompt's batch: its g_w and g_l are sums over the prompt's pairs.
Inside of it a small step of gradient descent raises a mean of log π_w that is weighted by the slopes (algebra).
Measured is the plain mean over the pairs: in single pairs, where both are one, and in batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.lab.descent import steady
from gradlab.lab.fit import fit
from gradlab.lab.training import Training
from gradlab.lab.world import draw_pairs, gaussian_world
from gradlab.losses import PairLogps, PairLoss, named_loss, slopes
from gradlab.theory import side_moves

STEP = 0.5  # learning rate times the larger slope at the reference, so that every loss begins with steps of one size
FELL = 1e-10  # nats: a change of the winners' mean above minus this is rounding or a rise
NO_GRADIENT = 1e-12  # a prompt with a smaller g_w or g_l, times the learning rate, has no band
SETTINGS: dict[str, Any] = {
    "policies": ["free", "shared"],
    "pairs": [1, 100],
    "training": Training(optimizer="gd", learning_rate=1.0, steps=800, record=8),
    "world": {"mask_rate": 0.2},
    "first_seed": 2000,
    "seeds": 6,
}
QUICK: dict[str, Any] = {
    "policies": ["free"],
    "training": SETTINGS["training"].but(steps=30, record=3),
    "first_seed": 0,
    "seeds": 2,
}


@steady("cpu")
def band(loss: str, preset: str, hyper: Mapping[str, float], policy: str, pairs: int, **settings: Any) -> pd.DataFrame:
    """Return how often the winners' mean log π fell in the next step, in the band and outside, a row per seed.

    Counted are prompts at recorded steps whose sides both have a gradient, and whose pairs all have slopes of the usual
    signs, so that each pair asks for a higher winner and a lower loser: ``inside`` and ``outside`` say how many,
    ``inside_kept`` and ``outside_kept`` in how many the mean of log π_w over the prompt's pairs did not fall.
    """
    trained: Any = named_loss(loss, **hyper)
    numbers = list(range(settings["first_seed"], settings["first_seed"] + settings["seeds"]))
    worlds = [gaussian_world(**settings["world"], seed=seed) for seed in numbers]
    training = settings["training"].but(policy=policy, pairs=pairs, learning_rate=STEP / _slope(trained))
    drawn = [draw_pairs(world, pairs, seed=seed) for world, seed in zip(worlds, numbers, strict=True)]
    data = torch.as_tensor(np.stack(drawn))
    reference = torch.as_tensor(np.stack([world.ref_logp for world in worlds]))
    features = training.features(worlds[0].responses).double()
    counts = np.zeros((4, len(numbers)), int)
    followed = fit(worlds, trained, training, seed=numbers)
    for logp in followed.policies[:-1]:
        after = fit(worlds, trained, training.but(steps=1, record=1), seed=numbers, start=logp).logp
        kept = (data.sum(-1) * (after - logp)).sum(-1) >= -FELL
        inside, outside = _where(trained, logp, reference, data, features, training.learning_rate)
        for row, chosen in enumerate((inside, inside & kept, outside, outside & kept)):
            counts[row] += chosen.sum(-1).numpy()
    named = dict(zip(("inside", "inside_kept", "outside", "outside_kept"), counts, strict=True))
    return pd.DataFrame({"loss": loss, "preset": preset, "policy": policy, "pairs": pairs, "seed": numbers, **named})


def _slope(loss: PairLoss) -> float:
    """Return the larger slope of a loss on a pair of a uniform reference with 20 responses, both one token long."""
    at = torch.full((1,), -float(np.log(20)), dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    win, lose = slopes(loss, PairLogps(at, at, at, at, one, one))
    return float(torch.maximum(win.abs(), lose.abs()))


def _where(
    loss: PairLoss, logp: Tensor, ref_logp: Tensor, data: Tensor, features: Tensor, rate: float
) -> tuple[Tensor, Tensor]:
    """Return which of the prompts that count have both sides in the band, and which have not; both (R, X)."""
    shape = data.shape
    win, lose, ref_win, ref_lose = (
        values.expand(shape) for side in (logp, ref_logp) for values in (side[..., :, None], side[..., None, :])
    )
    length = torch.ones(shape, dtype=logp.dtype)
    by_pair = slopes(loss, PairLogps(win, lose, ref_win, ref_lose, length, length))
    mean = logp.exp() @ features
    sides = []
    for slope, axis in zip(by_pair, (-1, -2), strict=True):
        of_response = torch.where(data > 0, slope * data, 0.0).sum(axis)
        sides.append(of_response @ features - of_response.sum(-1, keepdim=True) * mean)
    norms = [side.norm(dim=-1) for side in sides]
    cosine = (sides[0] * sides[1]).sum(-1) / (norms[0] * norms[1]).clamp_min(torch.finfo(logp.dtype).tiny)
    win_rises, lose_falls = side_moves(norms[0].numpy(), norms[1].numpy(), cosine.numpy())
    inside = torch.as_tensor((win_rises > 0) & (lose_falls > 0))
    unusual = (data > 0) & ((by_pair[0] > 0) | (by_pair[1] < 0))
    moves = (torch.minimum(*norms) * rate > NO_GRADIENT) & ~unusual.any(-1).any(-1)
    return inside & moves, ~inside & moves
