"""Small worlds of every reference and both kinds of mask, with and without lengths, on which engines are compared."""

import torch

from gradlab.lab.world import gaussian_world
from gradlab.losses import PairLogps, slopes

WORLDS = [
    gaussian_world(
        7,
        9,
        mask_rate=rate,
        reference=reference,
        mask_kind=kind,
        length=length,
        length_spread=0.5 * (length > 1),
        seed=seed,
    )
    for seed, (rate, reference, kind, length) in enumerate(
        [
            (0.0, "uniform", "responses", 1.0),
            (0.2, "random", "responses", 3.0),
            (0.4, "shifted", "responses", 3.0),
            (0.5, "random", "pairs", 3.0),
        ]
    )
]


def largest_slope(loss, world=WORLDS[1]):
    """The largest slope at the reference, on either side of any pair, in the units of log π."""
    tables = (world.ref_logp, world.ref_logp, world.token_counts)
    sides = (torch.tensor(side) for table in tables for side in (table[:, :, None], table[:, None]))
    return max(side.abs().max().item() for side in slopes(loss, PairLogps(*sides)))
