"""The groups of losses that the claims of the atlas compare."""

from __future__ import annotations

from gradlab.losses import PAIR_LOSSES

# Exactly balanced by construction: π_w/π_l without its clip, and the link u = π/π_ref.
BALANCED = {"ada-dpo unclipped": "AdaDPO without its clip", "link-u": "the link u"}
OPPOSITE = "forward-kl"  # ρ = u_l/u_w: as far from balance as DPO, to the other side
# The losses that arXiv 2502.01237 compares, by its two distinctions; it has ASFT, too, which no class here is.
PAIRWISE = {"log-ratio": ("dpo", "ipo"), "other score": ("simpo", "orpo")}
POINTWISE = ("nca", "cal-dpo", "apo-zero")


def variants() -> list[str]:
    """Return the losses that could beat DPO: every registered loss of pairs but DPO and those that are ours."""
    return [name for name, make in PAIR_LOSSES.items() if name != "dpo" and not make().source.startswith("ours")]
