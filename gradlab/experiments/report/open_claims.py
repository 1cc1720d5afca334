"""Claims on the questions that the paper leaves open, and on the next checks of its summary: no verdict is here.

Each says what was expected before the first full run of its experiment, as a claim of another paper does.
"""

from __future__ import annotations

from gradlab.experiments.questions import scale
from gradlab.experiments.report.claims import Claim

_SAMPLING: dict[str, Claim] = {}  # next check 2: the experiment sampling

_TWO_GOALS: dict[str, Claim] = {}  # open question 1: the experiment two-goals

_CONTINUOUS: dict[str, Claim] = {}  # open question 2: the experiment continuous

_CHAINS = (
    f"Sequences of {min(scale.SETTINGS['lengths'])} to {max(scale.SETTINGS['lengths']):,} tokens of a vocabulary of "
    f"{scale.SETTINGS['vocabulary']}, by chains, whose token log-probabilities add up; a utility that does not grow "
    f"with length; β = 1, {scale.SETTINGS['pairs']} hard-labelled pairs that the reference draws, Adam, "
    f"{scale.SETTINGS['steps']} steps, {scale.SETTINGS['seeds']} seeds from {scale.SETTINGS['first_seed']:,} on"
)
_DISTANCE = (
    "√(KL(target‖π)/KL(target‖π_ref)) at the end of training on the same pairs: a share of the way that the target "
    "goes from the reference"
)
_PILOT = "From algebra, and from runs of four seeds that are not judged."
_SCALE: dict[str, Claim] = {  # open question 3 and next check 3: the experiment scale
    "scale-halved": Claim(
        source="ours, on an open question of Ma et al. 2025 (arXiv 2502.20847)",
        claimed="With long responses of equal lengths Balanced-DPO is DPO at half of β.",
        stated="Nothing: the paper leaves larger models open, and compares both losses at β = 1.",
        ours=f"That scale is the length of responses, as far as the weights see it. {_CHAINS}.",
        predicted=f"true from {scale.LONG} tokens on, since λ spreads about ½ by s/(2√2·a·√L); not true of many "
        f"responses of one token, where the spread falls as 1/log n only. {_PILOT}",
        rule=f"How far bDPO ends from DPO at β/2: {_DISTANCE}; cells are lengths of {scale.LONG} tokens or more; "
        f"distances within {scale.MARGIN:g} count as none, so *no practical difference* confirms the claim. "
        "Robustness: the distance of DPO at β, which shows that the measure sees a difference of losses; bDPO at 2β "
        f"and DPO at β; utility; {scale.MANY:,} to {scale.MOST:,} responses of one token. Context: shorter responses, "
        "and unequal lengths.",
        changes=f"A distance beyond {scale.MARGIN:g} at these lengths.",
        figures=("scale-halved",),
        experiments=("scale",),
    ),
    "scale-lengths": Claim(
        source="ours, on an open question of Ma et al. 2025 (arXiv 2502.20847)",
        claimed="With long responses of unequal lengths Balanced-DPO is nearer to length-weighted DPO than to DPO at "
        "half of β.",
        stated="Nothing: the paper does not speak of lengths.",
        ours="The control, DPO with λ_w = L_l/(L_w + L_l). What bDPO does beyond it is balance, and the rest is "
        f"length. {_CHAINS}; coefficients of variation of the lengths of "
        f"{', '.join(f'{one:g}' for one in scale.SETTINGS['variations'] if one)}; labels that depend on length, or "
        "do not.",
        predicted=f"true in every cell, since λ tends to the loser's share of tokens. {_PILOT}",
        rule=f"The distance of bDPO from DPO at β/2 minus that from length-weighted DPO, each {_DISTANCE}; cells are "
        f"mean lengths of {scale.UNEQUAL} tokens or more, variations and kinds of labels; differences within "
        f"±{scale.NEARER:g} count as none. Robustness: the distance from length-weighted DPO itself from {scale.LONG} "
        f"tokens on, the same of DPO at β/2, and utility beyond length-weighted DPO (margin ±{scale.GAIN:g} nats). "
        "Context: R² of λ on the share of tokens.",
        changes="Cells in which bDPO ends nearer to DPO at β/2.",
        figures=("scale-lengths",),
        experiments=("scale",),
    ),
}

OPEN: dict[str, Claim] = {**_SAMPLING, **_TWO_GOALS, **_CONTINUOUS, **_SCALE}
