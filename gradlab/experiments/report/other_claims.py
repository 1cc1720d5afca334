"""Claims of other papers that the atlas judges, in the form of the paper's: no verdict is here.

Each says what we expected before the first full run of the atlas, from algebra, from the former experiments and from a
quick run of nine losses.
"""

from __future__ import annotations

from gradlab.experiments.outcomes import MASS, REWARD
from gradlab.experiments.questions import (
    atlas,
    atlas_band,
    atlas_groups,
    atlas_runs,
    atlas_worlds,
    pretrained,
    pretrained_sides,
    worlds_drawn,
)
from gradlab.experiments.questions.frontier import LEVELS
from gradlab.experiments.report.claims import Claim

_RUNS = atlas_runs.SETTINGS
_CELLS = (
    f"Four cells, fixed and counted equally: a uniform reference or one shifted by {_RUNS['world']['shift']:g} "
    "responses, free logits or shared parameters; R = 4, σ = 3, a fifth of the responses hidden, "
    f"{_RUNS['training'].pairs} hard-labelled pairs per prompt, Adam at {_RUNS['training'].learning_rate:g}, "
    f"{_RUNS['training'].steps} steps, {_RUNS['seeds']} seeds from {_RUNS['first_seed']:,} on"
)
_AT_KL = (
    f"at {', '.join(f'{level:g}' for level in LEVELS)} nats from the reference, the trainings of "
    f"{len(_RUNS['betas'])} β from {min(_RUNS['betas']):g} to {max(_RUNS['betas']):g} and their checkpoints pooled"
)
_WITHIN = f"differences within ±{REWARD.margin:g} of the share of the reachable reward count as none"
_ELSEWHERE = (
    f" Transported: the same in {atlas_worlds.SETTINGS['worlds']} worlds with {atlas_worlds.SETTINGS['seeds']} seeds "
    f"each, that a distribution draws: {worlds_drawn.WORDS.rpartition(';')[0]}; with β at "
    f"{', '.join(f'{beta:g}' for beta in atlas_worlds.SETTINGS['betas'])}."
)
_LAB = "The paper is about language models; this is the lab, where the true utility is known."

OTHERS: dict[str, Claim] = {
    "exactly-balanced": Claim(
        source="arXiv 2605.28440 (AdaDPO); for the link u, our reading of f-DPO (arXiv 2309.16240)",
        claimed="Losses whose gradients on winner and loser are exactly balanced fare better than DPO at equal KL.",
        stated="AdaDPO balances the gradients and improves on DPO (from its abstract).",
        ours="AdaDPO without its clip, since with it the balance is not exact; and the f-DPO whose link is u = π/π_ref,"
        f" which is balanced in u for any reference. Everything is at equal KL. {_LAB} {_CELLS}.",
        predicted="no practical difference in reward, as bDPO had none from DPO at equal KL; less mass on unobserved "
        "responses.",
        rule=f"Share of the reachable reward {_AT_KL}; two co-primaries, each loss against DPO; {_WITHIN}. What could "
        "explain the effect away: the link of forward KL, as far from balance as DPO, but to the other side. "
        "Robustness: mass on unobserved responses, and ends of training alone."
        f"{_ELSEWHERE}",
        changes="An interval of the average on the other side of 0 or within the margin.",
        figures=("atlas-frontier-reward", "atlas-frontier-unobserved"),
        measurements=("atlas",),
    ),
    "smaller-beta": Claim(
        source="ours, of Ma et al. 2025 (arXiv 2502.20847)",
        claimed="What bDPO gains over DPO at β = 1 is the gain of a smaller effective β: DPO at β = ½ does as well.",
        stated="Nothing: the paper compares both losses at β = 1.",
        ours=f"That bDPO's weights add up to one, so that its effective β is about half of DPO's. {_CELLS}.",
        predicted="true of reward, where DPO at β = ½ does better; for mass on unobserved responses nobody can say.",
        rule="Two co-primaries at the end of training, DPO at β = ½ against bDPO at β = 1: share of the reachable "
        f"reward (margin ±{REWARD.margin:g}) and mass on unobserved responses (±{MASS.margin:g}). Both *no practical "
        "difference* and *holds* confirm. Context: bDPO's gain over DPO at β = 1."
        f"{_ELSEWHERE}",
        changes="bDPO at β = 1 ahead of DPO at β = ½ beyond the margin.",
        measurements=("atlas",),
    ),
    "pairing-decides": Claim(
        source="arXiv 2502.01237",
        claimed="Whether a loss is pairwise or pointwise decides how well it aligns; which scalar score it uses does "
        "not.",
        stated="Both halves of the statement, for language models.",
        ours="The groups are the paper's, but for ASFT, which no class here is: pairwise are "
        f"{', '.join(atlas_groups.PAIRWISE['log-ratio'])} (score: the log-ratio to the reference) and "
        f"{', '.join(atlas_groups.PAIRWISE['other score'])} (other scores), pointwise "
        f"{', '.join(atlas_groups.POINTWISE)}. Responses have one token, so averages over tokens play no part. "
        f"{_LAB} {_CELLS}.",
        predicted="no: at equal KL pairwise and pointwise losses differ by less than 2 points of the reachable reward, "
        "and the score changes as much.",
        rule=f"Share of the reachable reward {_AT_KL}, means over the losses of a group; primary: pairwise against "
        f"pointwise; {_WITHIN}. What could explain the effect away: the score, among pairwise losses. Pairing must "
        "change more than the score does, whichever score is ahead; so there are two rows. Robustness: ends of "
        "training alone."
        f"{_ELSEWHERE}",
        changes="Another choice of losses for a group, in which the sign turns.",
        figures=("atlas-frontier-reward",),
        measurements=("atlas",),
    ),
    "none-beats-dpo": Claim(
        source="arXiv 2603.19335",
        claimed="None of the variants beats DPO.",
        stated="Twenty variants were compared on language models, and none beat DPO. Several of them are other losses "
        "in that paper's code than in their own papers.",
        ours=f"Every registered loss of pairs but DPO and ours, as its paper has it. {_LAB} {_CELLS}.",
        predicted="at equal KL true within the margin for most losses, with a few beyond it; at each loss's best β "
        "false, since losses with an optimum stop before they fit the noise of labels.",
        rule="Two co-primaries, DPO against the loss that does best on the seeds with odd numbers, judged on the "
        f"others: at equal KL ({_AT_KL}); and at the end of training with each loss's best β of the grid or as "
        f"published, which the odd seeds choose too, DPO's also ({_WITHIN}). Both *no practical difference* and "
        "*holds* confirm. In drawn worlds, those with odd numbers choose. Context: how many losses beat DPO by more "
        "than the margin, Holm over losses, and at a false discovery rate of 5%."
        f"{_ELSEWHERE}",
        changes="A loss that beats DPO beyond the margin on seeds that did not choose it.",
        figures=("atlas-frontier-reward", "atlas-factors"),
        measurements=("atlas",),
    ),
    "discopop-start": Claim(
        source="ours, of DiscoPOP (arXiv 2406.08414) as TRL 1.16.0 ships it",
        claimed="With its shipped τ = 0.05, DiscoPOP descends away from the labels at π = π_ref.",
        stated="τ = 0.05 is the paper's; whether the paper says so of its start is unchecked.",
        ours="That away from the labels means a step that lowers log π_w and raises log π_l. The cases: three β, and "
        "log-probabilities from −100 to −0.1 on either side.",
        predicted="proved: the slope at the start is (1 − ln 2)/(4τ) − ¾ in m.",
        rule="A proof. Autograd must agree with it in every declared case. Context: the reward at the end of training.",
        changes="A gap in the proof.",
        figures=("atlas-map",),
        measurements=("atlas",),
    ),
    "band-keeps-winner": Claim(
        source="arXiv 2604.18239",
        claimed="Where both sides of a loss lie in the disentanglement band, training does not lower the winner.",
        stated="The band: R > −C for the winner and 1/R > −C for the loser, with C the cosine of both sides' gradients "
        "and R the ratio of their norms; for one pair and small steps it is algebra.",
        ours="What it says of a training: plain gradient descent with steps of "
        f"{atlas_band.STEP:g} (learning rate times slope at the start), {atlas_band.SETTINGS['training'].steps} steps, "
        f"{atlas_band.SETTINGS['seeds']} seeds, batches of all {atlas_band.SETTINGS['pairs'][-1]} pairs of a prompt, "
        "and single pairs. C and R are those of a prompt's batch. Realised is the change of the plain mean of log π_w "
        "over the prompt's pairs in the next step. Steps in which a pair's slope has an unusual sign do not count.",
        predicted="true of single pairs throughout; of batches in at least 95% of the steps with free logits, but not "
        "with shared parameters, where a pilot with four losses had 73% to 100%.",
        rule=f"Share of the steps in the band in which winners do not fall, minus {atlas.KEPT:g}; a cell is a loss and "
        f"a kind of policy; differences within ±{atlas.KEPT_MARGIN:g} count as none. What could explain the effect "
        "away: the steps outside of the band, if winners fall there no more often. Robustness: single pairs. Context: "
        f"the batches of DPO's trainings of a pretrained model, with Adam, under which the band is an association. "
        f"{pretrained_sides.ADDED}",
        changes="Steps in the band in which winners fall, in more than one of twenty.",
        figures=("atlas-map", "pretrained-sides"),
        measurements=("atlas", "pretrained"),
        not_run=pretrained.declared("band-keeps-winner"),
    ),
}
