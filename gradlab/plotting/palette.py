"""The colours of figures and explorers: one palette per meaning, defined here and nowhere else.

A method's colour is a fact of its loss (``gradlab.losses``); methods that are no losses have theirs in
``gradlab.plotting.looks``. They form families: DPO black, Balanced-DPO orange, its naive variants green, PPO blue,
constant λ grey, permuted λ pink. No other meaning uses these for lines.
"""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_hex

# A statement is true, or Balanced-DPO does better; the opposite. Teal and brown, which no colour blindness confuses.
# Both ends are dark in grey: maps also print signs or numbers.
TRUE, NOT_TRUE = "#01665E", "#8C510A"
SIGNED = LinearSegmentedColormap.from_list("signed", ["#543005", "#BF812D", "#F5F5F5", "#35978F", "#003C30"])

BALANCED_WEIGHT = "#E69F00"  # w·p of Theorem 3: no loss, but of Balanced-DPO's family

# The two responses of a pair. In grey the winner is dark and the loser light.
WINNER, LOSER = "#0F3D21", "#C77FD6"
SIDES = LinearSegmentedColormap.from_list("sides", [LOSER, "#7A7A7A", WINNER])

# A side goes where the label asks, stays, or goes the other way: light, grey and dark.
TURNED = LinearSegmentedColormap.from_list("turned", ["#543005", "#B5AFA6", "#F5F5F5"])

# The trainings that an explorer compares, whatever their losses are.
CHOSEN = ("#4B3FA7", "#9A7400", "#C2418B")
MORE_OF_B = LinearSegmentedColormap.from_list("chosen", [CHOSEN[0], "#F5F5F5", CHOSEN[1]])

# Settings of one method, such as widths, sizes of models and kinds of parameters: Paul Tol's muted set.
SETTINGS = ("#332288", "#CC6677", "#44AA99", "#999933", "#AA4499", "#88CCEE")

INK, FAINT = "#444444", "#999999"  # lines of reference, and those that should stay behind

# A cell or world by its state: colour, marker, and whether it is filled. They differ in grey too.
STATES = {
    "for": (TRUE, "^", True), "against": (NOT_TRUE, "v", True), "none": (INK, "o", False),
    "undecided": (FAINT, ".", True),
}  # fmt: skip

LEAST = 1e-3  # probabilities at or below it are all equally dark


def policies() -> LogNorm:
    """Return the scale of maps of policies: logarithmic from LEAST to 1, so that 1/20 lies in its middle greys."""
    return LogNorm(LEAST, 1, clip=True)


def side_colors(shares: np.ndarray) -> list[str]:
    """Return colours of ``SIDES`` as #RRGGBB for numbers (n,) from −1, the loser's end, to 1, the winner's."""
    return [to_hex(color) for color in SIDES((np.clip(shares, -1, 1) + 1) / 2)]
