"""Small worlds of every reference and both kinds of mask, with and without lengths, on which engines are compared."""

from gradlab.lab.world import gaussian_world

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
