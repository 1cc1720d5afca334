"""Claims on the questions that the paper leaves open, and on the next checks of its summary: no verdict is here.

Each says what was expected before the first full run of its experiment, as a claim of another paper does.
"""

from __future__ import annotations

import math

from scipy import stats

from gradlab.experiments.outcomes import REWARD
from gradlab.experiments.questions import (
    continuous,
    pretrained,
    pretrained_sides,
    sampling,
    scale,
    two_goals,
    two_goals_contrasts,
    two_goals_worlds,
)
from gradlab.experiments.questions.frontier import LEVELS
from gradlab.experiments.questions.pretrained_comparisons import ELSEWHERE, RIGHT
from gradlab.experiments.questions.pretrained_comparisons import REWARD as TRUE_REWARD
from gradlab.experiments.questions.pretrained_levels import LEVELS as LEVELS_OF_PRETRAINED
from gradlab.experiments.questions.pretrained_runs import HELD_OUT, LONGEST, POOL, TRAINED
from gradlab.experiments.questions.sampling_runs import ARRIVED, FRESH
from gradlab.experiments.report.claims import Claim

_SETTLING = sampling.SETTINGS["settling"]
_JUDGED = sampling.SETTINGS["judged"]
_TRAININGS = (
    f"{_JUDGED['data']} hard-labelled pairs per prompt, R = 4, σ = 3, no mask, "
    f"{sampling.TRAINING.steps} steps of Adam at {sampling.TRAINING.learning_rate:g}, free logits, {_JUDGED['seeds']} "
    "seeds. A cell is a sampler and a reference, uniform or shifted by "
    f"{sampling.SETTINGS['shift']:g} responses; samplers: {', '.join(_JUDGED['samplers'])}. The weights of pairs "
    "follow the policy in every step, and no gradient flows through them; labels of finite data stay as they were drawn"
)
_SOURCE = "the summary of the paper (next check 2)"
_LOOKED = "A quick run of 2 seeds below 1,000 and 60 steps was looked at before, to see that everything runs."
_SAMPLING: dict[str, Claim] = {
    "sampling-limit": Claim(
        claimed="Where DPO settles does not depend on how pairs are sampled; where Balanced-DPO settles does.",
        stated="Nothing: the summary asks how strategies of sampling affect the imbalance.",
        ours=f"Exact Bradley–Terry labels, {_SETTLING['prompts']} prompts of 20 responses, R of "
        f"{', '.join(f'{scale:g}' for scale in _SETTLING['scales'])}, β = 1, a uniform or a shifted reference, "
        f"{len(_SETTLING['samplers'])} samplers with full support, {_SETTLING['seeds']} seeds. A policy has settled "
        "where the gradient of each response's logit, over the share of the pairs that show it, is below 1e-10. It is "
        "sought as the end of the flow of gradient descent, and not by a number of steps.",
        predicted="DPO: proved. bDPO depends on it. Looks at seeds 0 and 1 had shown 1e-5 to 1e-2 nats.",
        rule=f"Two co-primaries: a proof for DPO; for bDPO, KL from where it settles under uniform sampling, where "
        f"both have settled. Within {ARRIVED:g} nats counts as none: that near, a training counts as arrived. What "
        "could explain the effect away: a constant λ = ½ (does bDPO move more?) and the halved β (does bDPO at 2β move "
        "too?). A proof shows that some sampler must move bDPO; the size is measured.",
        changes="An interval within the margin; a settled DPO away from π_ref e^(u/β).",
        figures=("sampling-settled", "sampling-convergence"),
        experiments=("sampling",),
        source=_SOURCE,
    ),
    "sampling-imbalance": Claim(
        claimed="The imbalance of the pairs that are seen is largest under uniform sampling.",
        stated="The analysis assumes that uniform sampling creates maximum imbalance.",
        ours=f"Imbalance as the mean of |log π_l/π_w| over the pairs that a step sees, averaged along DPO's training. "
        f"{_TRAININGS}.",
        predicted="true of samplers that prefer probable responses (on-policy: 3 to 5 times less), false of those that "
        "prefer unequal pairs, such as mix-R, mix-P and best against worst; so mixed, or true on average. "
        f"{_LOOKED}",
        rule=f"Uniform minus the sampler, paired by seed; differences within ±{sampling.LESS:g} nats count as none. "
        f"Robustness: bDPO, exact labels, 1,000 pairs, {FRESH} pairs, a trained reference. Context: all pairs in place "
        "of those seen; the sampler frozen at the start, which tells drift of data from drift of the policy.",
        changes="Fewer than a tenth of the cells decided on either side.",
        figures=("sampling-imbalance",),
        experiments=("sampling",),
        source=_SOURCE,
    ),
    "sampling-benefit": Claim(
        claimed="What Balanced-DPO gains over DPO persists across ways of sampling.",
        stated="The summary asks whether the benefits persist.",
        ours=f"Share of the reachable reward at the end of training. {_TRAININGS}.",
        predicted="at β = 1 it persists under most samplers, because bDPO's effective β is half of DPO's; against λ "
        f"= ½ and at equal KL no practical difference under any. {_LOOKED}",
        rule=f"bDPO − DPO at β = 1; differences within ±{REWARD.margin:g} count as none. What could explain the effect "
        "away: λ = ½, which is DPO at β/2; bDPO at 2β against DPO; λ permuted among the pairs; equal KL at "
        f"{', '.join(f'{level:g}' for level in LEVELS)} nats, trainings of "
        f"{len(sampling.SETTINGS['betas'])} β and their checkpoints pooled. Robustness: exact labels, 1,000 pairs, 16 "
        "fresh pairs a step against as many fixed labels, a trained reference.",
        changes="An interval of the average within the margin or below 0; for balance, a control that does as well.",
        figures=("sampling-benefit",),
        experiments=("sampling",),
        source=_SOURCE,
    ),
}

_GOALS = two_goals.SETTINGS
_TWO_GOALS_WORLD = (
    f"Ours: 20 prompts and 20 responses, two utilities on the same responses, each with its labelled set; "
    f"{_GOALS['training'].pairs} hard-labelled pairs per prompt from the mixture of both, Adam at "
    f"{_GOALS['training'].learning_rate:g}, {_GOALS['training'].steps} steps, {_GOALS['seeds']} seeds from "
    f"{_GOALS['first_seed']:,} on, and up to {_GOALS['cap']} where the primaries are not precise enough. In the world "
    f"like HH, which is a guess, harmless responses have a broad basin ({two_goals_worlds.HARMLESS.basin:g} good "
    f"responses of 20), are short (×{two_goals_worlds.HARMLESS.length:g}) and have a third of the labels; helpful ones "
    f"have a narrow peak ({two_goals_worlds.HELPFUL.basin:g}), are long (×{two_goals_worlds.HELPFUL.length:g}) and "
    "have two thirds; log π_ref falls with length."
)
_TWO_GOALS_TRANSPORT = (
    f" Transported: the same in {_GOALS['worlds']} worlds, each with {_GOALS['world_seeds']} seeds of its own, that a "
    f"distribution of ours draws: {two_goals_worlds.WORDS}."
)
_TWO_GOALS_MARGIN = f"differences within ±{two_goals_contrasts.MARGIN:g} of the share of the reachable reward are none"
_TWO_GOALS_SIDES = ", ".join(f"{name} {a:g} and {b:g}" for name, (a, b) in two_goals_worlds.SIDES.items())
_GOALS_PILOT = "A quick run of 4 seeds and 100 steps was looked at before, to see that everything runs."

_TWO_GOALS: dict[str, Claim] = {  # open question 1: the experiment two-goals
    "two-goals-pattern": Claim(
        source="the paper, on SafeRLHF and Anthropic HH (open question 1)",
        claimed="Balanced-DPO is more harmless than DPO, and about as helpful.",
        stated="On SafeRLHF and HH harmlessness rises by 21%, helpfulness is comparable; why is left open.",
        ours=f"The question whether this pattern appears in the lab at matched scale. {_TWO_GOALS_WORLD}",
        predicted="the pattern, weaker by more than half with equal lengths; it appears where winners of the harmless "
        f"set are already the more probable ones. {_GOALS_PILOT}",
        rule="Share of the reachable reward of either goal at the end of training, bDPO at 2β, which has DPO's "
        f"effective β, against DPO at β = 1; two co-primaries; {_TWO_GOALS_MARGIN}. The pattern is *holds* for the "
        "harmless goal and *no practical difference* for the helpful one. What could explain the gain away: λ permuted "
        "among the pairs of both sets, and DPO at equal KL. A constant λ = ½ at 2β is DPO itself. Robustness: exact "
        "data, shared parameters. Context: equal lengths, agreeing pairs alone, one property exchanged between the "
        f"goals.{_TWO_GOALS_TRANSPORT}",
        changes="Properties of real helpful and harmless pairs that differ from the guess; language models trained on "
        "both sets.",
        figures=("two-goals-properties", "two-goals-map"),
        experiments=("two-goals",),
    ),
    "two-goals-stated": Claim(
        source="the paper, at β = 1 for both losses (open question 1)",
        claimed="At β = 1 for both losses, Balanced-DPO is more harmless than DPO and more helpful.",
        stated="Both losses at one β; harmlessness rises, helpfulness is comparable.",
        ours=f"That both rise, since the effective β of bDPO is half of DPO's. {_TWO_GOALS_WORLD}",
        predicted=f"true, because of the halved β. {_GOALS_PILOT}",
        rule="Share of the reachable reward of either goal at the end of training, bDPO against DPO, both at β = 1; "
        f"two co-primaries; {_TWO_GOALS_MARGIN}. What could explain the effect away: a constant λ = ½, which is DPO at "
        f"β/2. Context: a world whose goals have equal properties.{_TWO_GOALS_TRANSPORT}",
        changes="An interval of the average on the other side of 0 or within the margin.",
        figures=("two-goals-predicted",),
        experiments=("two-goals",),
    ),
    "two-goals-cause": Claim(
        source="ours, on open question 1",
        claimed="Balanced-DPO moves reward to the goal whose winners are already the more probable under the "
        "reference.",
        stated="Nothing: why the two metrics differ is left open.",
        ours="That the alignment of the reference decides: alone it moves reward from one goal to the other, and in "
        "drawn worlds the sign of mean λ_w − ½ under the reference, by set, says where. One property of both goals "
        f"differs at a time, by {_TWO_GOALS_SIDES} (helpful and harmless). {_TWO_GOALS_WORLD}",
        predicted=f"true; neither label noise nor the gap does it alone. {_GOALS_PILOT}",
        rule="The share of the reachable reward of one goal minus that of the other, bDPO at 2β against DPO. Primary: "
        "the harmless goal, towards which the reference leans and the helpful one, from which it leans away; "
        f"{_TWO_GOALS_MARGIN}. What could explain the effect away: λ permuted among the pairs of both sets, and, added "
        "after the first results, DPO at equal KL. Context: each other property alone. With the names exchanged, all "
        "numbers must be exchanged. Transported: the goal with the larger mean λ_w − ½ against the other, in drawn "
        "worlds.",
        changes="A property beside alignment that moves as much; language models in which the sign fails.",
        figures=("two-goals-properties", "two-goals-levels", "two-goals-predicted"),
        experiments=("two-goals",),
    ),
}

_LINE = continuous.SETTINGS
_LINE_WORLD = (
    "Ours: responses on a line, drawn from N(0, 1) or from a mixture of two Gaussians; a utility with one bump; "
    f"policies are a Gaussian, a mixture, and a network of energies normalised by quadrature; "
    f"{_LINE['training'].pairs} hard-labelled pairs, Adam at {_LINE['training'].learning_rate:g}, "
    f"{_LINE['training'].steps} steps, seeds from {_LINE['first_seed']:,} on. The responses and the policy's "
    "parameters are the same in every coordinate; only the densities that a loss sees change. Coordinates: c·y for c "
    "from 1e-3 to 1e6, sinh y, the reference's distribution function"
)
_LINE_PILOT = "A pilot of six seeds at β = 1, and a quick run of three, were looked at before."
_LINE_KL = f"at {', '.join(f'{level:g}' for level in LEVELS)} nats, β and checkpoints pooled"

_CONTINUOUS: dict[str, Claim] = {  # open question 2: the experiment continuous
    "continuous-units": Claim(
        source="ours, on the second open question of Ma et al. 2025 (arXiv 2502.20847)",
        claimed="On continuous responses Balanced-DPO trains another policy in every unit, and DPO does not.",
        stated="Nothing: the paper leaves continuous responses open.",
        ours=f"That log π is the log of a density there, which has a unit. {_LINE_WORLD}; {_LINE['seeds']} seeds.",
        predicted=f"true: the only weight of two densities that sees no coordinate is ½. {_LINE_PILOT}",
        rule="Total variation distance between the policies that one seed trains in a coordinate and in y, bDPO at "
        "β = 1; a cell is a kind of policy and a coordinate other than y; distances within 0.01 count as none. What "
        "could explain the effect away: the optimiser, so a constant λ = ½ in the same coordinates; and, added after "
        "the first results, rounding, which a pole of λ amplifies: bDPO in the unit 1 + 1e-15. Context: "
        f"DPO, λ = ½ and relative bDPO must be the same in every coordinate, to 1e-10, in {_LINE['free_seeds']} seeds.",
        changes="A distance within the margin in some coordinate, or a gap in the proof.",
        figures=("continuous-units", "continuous-cells"),
        experiments=("continuous",),
    ),
    "continuous-repair": Claim(
        source="ours",
        claimed="At equal KL relative Balanced-DPO, which sees no unit, reaches a higher utility than DPO.",
        stated="Nothing: the loss is ours, a repair of Balanced-DPO for densities.",
        ours=f"The loss, and the world. {_LINE_WORLD}; {_LINE['home_seeds']} seeds in y.",
        predicted="no practical difference, as between bDPO and DPO on the grid; from algebra, since its weights are ½ "
        f"at the reference. {_LINE_PILOT}",
        rule=f"Share of the reachable utility at equal KL from the reference, {_LINE_KL}; cells are kinds of policy "
        f"and KL levels; differences within ±{REWARD.margin:g} count as none. What could explain the effect away: a "
        "constant λ = ½. Context: bDPO in each coordinate against DPO and against relative bDPO.",
        changes="An interval of the average on the other side of 0 or within the margin; another kind of policy.",
        figures=("continuous-frontier",),
        experiments=("continuous",),
    ),
    "continuous-theory": Claim(
        source="ours, on Theorems 4 and 5 of Ma et al. 2025 (arXiv 2502.20847)",
        claimed="Theorems 4 and 5 are true of densities, in any coordinate.",
        stated="Theorems 3 to 5 are about a finite set of responses.",
        ours="Their reading on densities: w from the quadrature of a continuous axis, responses drawn by one law, and "
        "p the policy's density in a coordinate. Cases: Gaussian policies of widths "
        f"{', '.join(f'{one:g}' for one in _LINE['widths'])} at distances "
        f"{', '.join(f'{one:g}' for one in _LINE['distances'])} from a preference of width 1.",
        predicted="refuted, by a proof: a coordinate gives the policy any density.",
        rule="The proof refutes; a declared case must show it. Context: both halves of Theorem 3, in y and by the "
        "modes of densities in another coordinate.",
        changes="A gap in the proof.",
        experiments=("continuous",),
    ),
}

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
_SCALE_PILOT = "From algebra, and from runs of four seeds that are not judged."
_SCALE: dict[str, Claim] = {  # open question 3 and next check 3: the experiment scale
    "scale-halved": Claim(
        source="ours, on an open question of Ma et al. 2025 (arXiv 2502.20847)",
        claimed="With long responses of equal lengths Balanced-DPO is DPO at half of β.",
        stated="Nothing: the paper leaves larger models open, and compares both losses at β = 1.",
        ours=f"That scale is the length of responses, as far as the weights see it. {_CHAINS}.",
        predicted=f"true from {scale.LONG} tokens on, since λ spreads about ½ by s/(2√2·a·√L); not true of many "
        f"responses of one token, where the spread falls as 1/log n only. {_SCALE_PILOT}",
        rule=f"How far bDPO ends from DPO at β/2: {_DISTANCE}; cells are lengths of {scale.LONG} tokens or more; "
        f"distances within {scale.MARGIN:g} count as none, so *no practical difference* confirms the claim. "
        "Robustness: the distance of DPO at β, which shows that the measure sees a difference of losses; bDPO at 2β "
        f"and DPO at β; utility; {scale.MANY:,} to {scale.MOST:,} responses of one token. Context: shorter responses, "
        "and unequal lengths.",
        no_difference=True,
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
        predicted=f"true in every cell, since λ tends to the loser's share of tokens. {_SCALE_PILOT}",
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

_PRETRAINED = (  # the settings of gradlab.llm.real
    "SmolLM2-135M-Instruct, 4-bit weights made whole, its last six layers trained for 200 steps of 8 pairs, three "
    "seeds from 1,000 on. Openings of known reward: the model's own continuations, labelled by Bradley–Terry on a "
    "lexicon's sentiment less a price per word. Real pairs: short ones of HH-RLHF, harmless-base, LoRA, β = 1. "
    "Accuracy is length-controlled: the mean of the accuracies among held-out pairs whose winner is shorter and among "
    "those whose winner is longer, so that a rule by length alone scores ½"
)
_PRETRAINED_MARGINS = (
    f"Differences within ±{TRUE_REWARD.margin:g} points of the true reward (sentiment runs from −1 to 1) and "
    f"±{RIGHT.margin:.0%} of pairs count as none"
)
_PRETRAINED_KL = (
    f"at equal KL from the reference ({', '.join(f'{level:g}' for level in LEVELS_OF_PRETRAINED)} nats; β and looks "
    "pooled, interpolated in √KL)"
)
_PRETRAINED_EQUAL = f"{_PRETRAINED_KL}, on real pairs over the KL in which both were looked at"
_PRETRAINED_SHARED = (
    "Added when the runs of the first seed on the openings had been looked at, before those of the others were whole: "
    "bDPO against the control of equal effective β, over the KL in which both were looked at, since declared levels "
    "below the first look read the line from the reference to it and not the trained policy. On real pairs this became "
    "the rule before any of their runs, and the declared levels robustness"
)
_PRETRAINED_LEARNED = (
    "for an accuracy leaves ½ with the first steps; and as context, how far DPO's own accuracy is above ½: where it is "
    "not, little can be said of methods on these pairs"
)
_PRETRAINED_ENDED = f"as context, how many responses end within {LONGEST} tokens, and the true reward of those that do"
_PRETRAINED_POWER = (
    f"Intervals are over seeds, on one set of openings and one pool of {POOL:,} pairs, of which each seed trains on "
    f"{TRAINED} and holds out {HELD_OUT}: they say how seeds differ, and less of other openings and pairs. With three "
    "seeds *no practical difference* needs differences whose standard deviation over seeds is below "
    f"{math.sqrt(3) / stats.t.ppf(0.95, 2):.2f} margins, even around 0, and below "
    f"{math.sqrt(3) / stats.t.ppf(0.975, 2):.2f} for the first of two co-primaries"
)
_NO_LOOK = (
    "From algebra and from the lab; runs of seeds below 1,000 had shown speed, and a learning rate for DPO alone."
)


_EITHER_WAY = (
    "That a difference beyond the margin decides against the claim on either side, and that one which is not shown to "
    "lie beyond it leaves the claim undecided, was built in when the openings were whole and one seed of the real "
    "pairs was known: before, the word depended on the sign."
)


_ON_A_PRETRAINED_MODEL: dict[str, Claim] = {  # open question 3, and what lengths do: the measurement pretrained
    pretrained.CONTROL: Claim(
        source="ours, on an open question of Ma et al. 2025 (arXiv 2502.20847)",
        claimed="What Balanced-DPO does to a pretrained model beyond length-weighted DPO is too little to matter.",
        stated="Nothing: the paper does not speak of lengths.",
        ours=f"The control, DPO with λ_w = L_l/(L_w + L_l), and equal KL. {_PRETRAINED}.",
        predicted=f"true: *no practical difference*, where three seeds suffice to say so. {_NO_LOOK}",
        rule=f"bDPO minus length-weighted DPO {_PRETRAINED_EQUAL}, two co-primaries: true reward, and "
        f"length-controlled accuracy on held-out real pairs. {_PRETRAINED_MARGINS}, so *no practical difference* "
        "confirms the claim. Robustness: the same at equal β, at β and at 2β; where probability goes. "
        f"{_PRETRAINED_SHARED}, {_PRETRAINED_LEARNED}; {_PRETRAINED_ENDED}. {_PRETRAINED_POWER}. {_EITHER_WAY}",
        no_difference=True,
        changes="A difference beyond the margins, either way, which makes the word *reversed*: then there is balance "
        "beside length. More seeds, where it is undecided.",
        figures=("pretrained-length", "pretrained-frontier"),
        measurements=("pretrained",),
        not_run=pretrained.declared(pretrained.CONTROL),
    ),
    pretrained.GAIN: Claim(
        source="the paper, at one β for both losses",
        claimed="On a pretrained model and at one β, Balanced-DPO reaches more than DPO.",
        stated="Balanced-DPO beats DPO on Llama-7B, both at β = 1.",
        ours=f"What to reach: the true reward of sampled continuations, and accuracy on held-out real pairs. "
        f"{_PRETRAINED}.",
        predicted="true reward: yes, by moving farther, since its effective β is half of DPO's; accuracy: no practical "
        f"difference. No control leaves anything. {_NO_LOOK}",
        rule=f"bDPO minus DPO at the end of training, two co-primaries. {_PRETRAINED_MARGINS}. What could explain the "
        f"effect away: DPO at β/2; length-weighted DPO; DPO {_PRETRAINED_EQUAL}; bDPO at 2β, which has DPO's effective "
        "β, against DPO. Context: sentiment and words apart, and accuracy as it is. Robustness: equal KL once more. "
        f"{_PRETRAINED_SHARED}, {_PRETRAINED_LEARNED}; {_PRETRAINED_ENDED}. {_PRETRAINED_POWER}.",
        changes="An interval on the other side of 0 or within the margin; for balance, a control that does as well.",
        figures=("pretrained-frontier",),
        measurements=("pretrained",),
        not_run=pretrained.declared(pretrained.GAIN),
    ),
    pretrained.LIKELIHOOD: Claim(
        source="the paper, of responses that the data do not cover",
        claimed="Training a pretrained model with Balanced-DPO moves less probability to other responses than DPO.",
        stated="On the grid Balanced-DPO puts less mass on responses that the data do not cover.",
        ours="That for whole sequences, which are too many to add up, it is seen at the pairs: by how much the "
        "probability of both held-out responses together has fallen, the mean of −log((π_w + π_l)/(π_ref,w + "
        "π_ref,l)). Of two responses whose log π are nats apart, that is the fate of the more probable one, mostly the "
        "shorter. On the openings the pairs are the reference's own responses, so that this number is nearly "
        "KL(π_ref‖π), which grows for any policy that moves away; only the real pairs can bear the claim out. "
        f"{_PRETRAINED}.",
        predicted="reversed or no practical difference at one β, as bDPO moves farther; no practical difference at "
        f"equal KL. {_NO_LOOK}",
        rule=f"DPO minus bDPO at the end of training, two co-primaries, the two tasks; differences within "
        f"±{ELSEWHERE.margin:g} nats per pair count as none. What could explain the effect away: DPO at "
        f"β/2; length-weighted DPO; DPO {_PRETRAINED_EQUAL}. Robustness: the log-probability of winners alone, and the "
        f"mean of winners' and losers', added before any run on real pairs; equal KL once more. {_PRETRAINED_SHARED}. "
        "Context: how many of DPO's steps lie in the band (arXiv 2604.18239), in which a plain gradient "
        "step raises the winners of its own batch. The trainings used Adam, under which that is an association; and it "
        "does not say why held-out winners fall. "
        f"{pretrained_sides.ADDED}",
        changes="An interval on the other side of 0 or within the margin; for balance, a control that does as well.",
        figures=("pretrained-likelihood", "pretrained-sides"),
        measurements=("pretrained",),
        not_run=pretrained.declared(pretrained.LIKELIHOOD),
    ),
}

OPEN: dict[str, Claim] = {**_SAMPLING, **_TWO_GOALS, **_CONTINUOUS, **_SCALE, **_ON_A_PRETRAINED_MODEL}
