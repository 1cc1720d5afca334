"""Small worlds of every reference and both kinds of mask, on which engines are compared."""

from gradlab.lab.world import gaussian_world

WORLDS = [
    gaussian_world(7, 9, mask_rate=rate, reference=reference, mask_kind=kind, seed=seed)
    for seed, (rate, reference, kind) in enumerate(
        [
            (0.0, "uniform", "responses"),
            (0.2, "random", "responses"),
            (0.4, "shifted", "responses"),
            (0.5, "random", "pairs"),
        ]
    )
]
