"""The paper's claims: the claim, the part that is stated, the part that is ours, and the rule. No verdict is here.

We worked from a summary of the paper. *Stated* is what that summary says; everything else is our reconstruction.
Thresholds are read from the experiments that use them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gradlab.doctor import SPIKE_FLOOR, SPIKE_MULTIPLE
from gradlab.experiments.contrasts import Contrast
from gradlab.experiments.questions import (
    cost,
    frontier,
    grid,
    inner_products,
    log_ratio,
    ppo_against_dpo,
    pretrained,
    pretrained_sides,
    ratios,
    seven_billion,
    stability,
    worlds,
    worlds_drawn,
)
from gradlab.experiments.questions.language_models_spikes import SPIKE_MARGIN
from gradlab.lab.optimizers import optimizer_of


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, or of another one, in words for a reader of that paper.

    claimed       the claim, in one sentence.
    stated        the part that the summary states.
    ours          our reconstruction of the part that the summary leaves open.
    rule          how the claim is judged.
    changes       what would change the verdict.
    figures       figures that show the claim, the main one first.
    experiments   experiments whose frames judge the claim.
    measurements  committed measurements that judge the claim, see ``gradlab.experiments.MEASURED``; without
                  experiments, the claim rests on the first.
    needs         what is needed to judge the claim, where it has neither.
    no_difference  the claim is that there is no difference beyond the margin, so *no practical difference* confirms it.
    not_run       statements that were declared and that nobody has measured.
    source        whose claim it is; empty for the paper's.
    predicted     our expectation before the first run, where it was written down.
    """

    claimed: str
    stated: str
    ours: str
    rule: str
    changes: str
    figures: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()
    measurements: tuple[str, ...] = ()
    needs: str = ""
    no_difference: bool = False
    not_run: tuple[Contrast, ...] = ()
    source: str = ""
    predicted: str = ""


def _margin(contrasts: Iterable[Contrast], claim: str) -> str:
    """Return the margin of the first of some contrasts on a claim, in words."""
    first = next(contrast for contrast in contrasts if contrast.claim == claim)
    return f"differences within ±{first.margin:g} count as none"


_IN_WORLDS = (  # for every claim that is transported
    f"Transported: the same in {worlds.SETTINGS['worlds']} to {worlds.SETTINGS['cap']} worlds, each with "
    f"{worlds.SETTINGS['seeds']} seeds of its own, that a distribution of ours draws: {worlds_drawn.WORDS}. The effect "
    "is shown by dose, which is the mean over prompts of (max u − min u)/β, and by the other settings. Here a response "
    "is one token, so the weight by lengths alone, λ = L_l/(L_w + L_l), is λ = ½."
)
_STATED = grid.contrasts(grid.SETTINGS)
_FRESH = (
    "These rules were written after the first results, and are confirmed on seeds from "
    f"{grid.SETTINGS['first_seed']:,} on, which the first report did not use."
)
_SEEDS = (
    f"paired by seed, {grid.SETTINGS['seeds']} seeds and further blocks of {grid.SETTINGS['block']}, up to "
    f"{grid.SETTINGS['cap']}, in each cell that is not precise enough"
)
_CONTROLS = (
    "What could explain the effect away: a constant λ = ½, which is DPO at β/2 (does bDPO still do better?); bDPO at "
    "2β, which has DPO's effective β (does it still do better than DPO?); bDPO's λ permuted among the pairs of a run "
    "(does bDPO still do better?); and DPO at equal KL from the reference, at "
    f"{', '.join(f'{level:g}' for level in frontier.LEVELS)} nats, β and checkpoints pooled. Permuted |λ − ½|, which "
    "keeps the side that bDPO favours, is context: where it does as well, the side matters and the size does not. "
    "Whether the answer stays: a constant λ = 0.4 and 0.6, exact data, every optimiser and learning rate, equal KL at "
    "the ends of training alone."
)
_GRID = (
    "R = 4, σ = 3, centres on the diagonal, the uniform reference, the two kinds of policy (a free logit for each "
    f"response, or shared parameters), {grid.TRAINING.pairs} hard-labelled pairs per prompt, "
    f"{optimizer_of(grid.TRAINING.optimizer).label} at {grid.TRAINING.learning_rate:g}, {grid.TRAINING.steps} steps"
)
_TURNS = (
    "An interval of the average on the other side of 0 or within the margin; at least a tenth of the cells decided "
    "each way; for the part about balancing, a control that does as well."
)
_UNIFORM = (
    "Setting: every ordered pair equally often, both label orders, exact Bradley–Terry labels. Policy p and preference "
    "q are drawn from declared families; μ_p and μ_q are their modes."
)
_MODELS = (
    "Small Llamas, trained from scratch: three seeds, two sizes, real pairs of HH-RLHF and a task of tokens whose true "
    "reward is known; β = 1, clip 0.3, two epochs from a reference of 300 DPO steps."
)


_PRETRAINED = (
    "Likewise on a pretrained model, SmolLM2-135M-Instruct, 4-bit weights made whole, three seeds: short openings "
    "whose true reward is known, and real pairs of HH-RLHF."
)

CLAIMS: dict[str, Claim] = {
    "ratio": Claim(
        claimed="DPO's gradients on the winner and the loser stand as −π_l : π_w, so once the winner is the more "
        "probable one, the loser gets the larger gradient.",
        stated="The equation ∂L/∂π_w : ∂L/∂π_l = −π_l/π_w, and that the losing side gets the larger gradient once "
        "π_w > π_l.",
        ours="The question whether only DPO has this ratio (by the chain rule every loss has the ratio ρ π_l/π_w, ρ "
        "being the ratio in log π, and ρ = 1 for every loss of log π_w − log π_l alone), and whether a real step moves "
        "the loser more. The cases: a grid over π_w and π_l, and pairs at the scale of whole sequences.",
        rule="A proof by the chain rule. Autograd must agree with it in every declared case, up to rounding.",
        changes="One declared case in which autograd and the proof disagree by more than rounding.",
        figures=("gradient-field",),
        experiments=("ratios",),
    ),
    "inner-product": Claim(
        claimed="Gradients of two different responses' probabilities have a negative inner product on average, "
        "E[c_ij] < 0, and may be taken as orthogonal, c_ij ≈ 0.",
        stated="E[c_ij] < 0, and c_ij ≈ 0 as an assumption.",
        ours="That c_ij belongs to the gradients of π_i and π_j; the policies (four families, each with three kinds of "
        "parameters); and a scale for “≈ 0”. Every raw c_ij is tiny where there are many responses, so the scale is "
        f"the cosine: near 0 means a mean |cosine| below {inner_products.NEAR_ZERO:g}.",
        rule="Two primaries. E[c_ij] < 0 over all responses is algebra for any model, because probabilities sum to "
        f"one: a proof, checked in every declared case. c_ij ≈ 0: {inner_products.NEAR_ZERO:g} minus the mean |cosine| "
        f"of {inner_products.PICTURED} responses, as many as on the grid; a cell is a family, a level and a kind of "
        f"parameters, and each family has as many cells; differences within ±{inner_products.MARGIN:g} count as none. "
        "Robustness: other numbers of responses, and the signs of means that no algebra decides (inner products of "
        "observed responses, cosines). Context: each family for itself, since the mix of families fixes an average.",
        changes="For the sign, nothing. For orthogonality, families of policies whose mean |cosine| lies on the other "
        "side of the threshold.",
        figures=("inner-products", "inner-products-families"),
        experiments=("inner-products",),
    ),
    "shift-dpo": Claim(
        claimed="Theorem 3 on DPO: under uniform sampling, DPO's weight w(y) has its local extrema outside "
        "[μ_p, μ_q], never between policy and preference.",
        stated="Theorem 3: under uniform sampling DPO's w(y) has its local extrema outside [μ_p, μ_q].",
        ours="The weight, read off the loss: w_i = Σ_j [q_i/(q_i + q_j) − p_i/(p_i + p_j)]; that μ is a mode; that p "
        "falls and q rises between the modes. At a mode with a kink, or on a grid, an extremum may lie at the mode "
        "itself.",
        rule=f"A short proof for p and q with one mode each. {_UNIFORM} An extremum farther inside than one cell of "
        "the response grid would refute it. Context: the continuous limit, other families, and policies with many "
        "modes, to which the proof does not apply.",
        changes="A gap in the proof, or a declared case with one mode each and an extremum inside.",
        figures=("weight-functions", "shift-phase", "shift-refinement"),
        experiments=("shift",),
    ),
    "shift-balanced": Claim(
        claimed="Theorem 3 on balanced weights: PPO-like weights w·p keep their extrema inside [μ_p, μ_q].",
        stated="Theorem 3: PPO-like balanced weights keep the extrema inside [μ_p, μ_q].",
        ours="That the balanced weight is w_i p_i with the w of the claim above. The answer is about this "
        "reconstruction. By the theorem on levels it is the same for every weight that depends on p(y) and q(y) and "
        "increases in q(y), if p comes down to its level at μ_q on its far side too.",
        rule="A proof for smooth p and q with one mode each inside the support, and an exact case on five responses. "
        f"{_UNIFORM} The cases show by how much the lowest value misses. In fairness: how much weight lies farther "
        "than 2 σ_p outside the interval, for w·p and for DPO.",
        changes="A gap in the proof, or another reading of the balanced weight.",
        figures=("weight-functions", "shift-phase", "shift-refinement"),
        experiments=("shift",),
    ),
    "shift-bdpo": Claim(
        claimed="Implied: Balanced-DPO inherits the balanced property, and the extrema of its own weights lie inside "
        "[μ_p, μ_q].",
        stated="Nothing literally; it is implied, since bDPO is proposed for this property.",
        ours="The test: bDPO's real weights, from its loss with its λ and its margin, and not w·p.",
        rule="Proofs: on a continuous axis its lowest weight lies outside, whatever number of responses λ sees, and on "
        "ever finer grids its weights become DPO's at β/2. An exact case on five responses. "
        f"{_UNIFORM} The cases are grids of 20 to 800 responses.",
        changes="A gap in the proofs.",
        figures=("weight-functions", "shift-phase", "shift-refinement"),
        experiments=("shift",),
    ),
    "variance": Claim(
        claimed="Theorems 4 and 5: balanced weights vary less, Var[w_i p_i] < Var[w_i] E[p_i²].",
        stated="Theorems 4–5: Var[w_i p_i] < Var[w_i] E[p_i²].",
        ours="That moments are over responses drawn uniformly. As E[w] = 0, the inequality holds if and only if "
        "Cov(w², p²) < (E[w p])², which the summary does not name as a condition.",
        rule="A proof of the condition, and a family of exact counterexamples. Where the inequality is true is shown "
        "for each declared family of p and q by itself, as the mix of families would fix any share of all.",
        changes="A condition in the paper that excludes the counterexamples.",
        figures=("variance-region",),
        experiments=("variance",),
    ),
    "ratio-corrected": Claim(
        claimed="Balanced-DPO restores the symmetry between the gradients of winner and loser.",
        stated="The weights λ_w = log π_l/(log π_w + log π_l), detached, the ratio −π_l log π_l/(π_w log π_w) that "
        "they give, and that it restores symmetry.",
        ours="The law: bDPO corrects the share 1 − |1 − 1/LM| of DPO's imbalance |log(π_l/π_w)|, where LM is the "
        "logarithmic mean of −log π_w and −log π_l. So all of it where LM = 1, and 1/LM where probabilities are "
        "smaller. For two responses to one prompt LM > ½, and bDPO is always nearer to symmetry than DPO.",
        rule="A proof of the law, with which autograd must agree in every declared case. Context: the share corrected "
        f"along DPO's and bDPO's trainings in the lab ({ratios.SETTINGS['training_seeds']} seeds), for whole "
        "sequences, and how much of λ length explains; where the laptop run of language models is there, the latter "
        "two on its held-out pairs, at the start and at the end, and the share along bDPO's trainings. "
        f"{_PRETRAINED} Also whether both sides' parameter gradients are more even in bDPO's batches than in DPO's. "
        f"{pretrained_sides.ADDED}",
        changes="Another meaning of symmetry than equal derivatives by π_w and π_l.",
        figures=("ratio-correction", "gradient-field", "llm-length"),
        experiments=("ratios",),
        measurements=("language-models", "pretrained"),
        not_run=pretrained.declared("ratio-corrected"),
    ),
    "grid-reward": Claim(
        claimed="On the 20×20 grid, bDPO reaches a higher reward than DPO.",
        stated="20 prompts × 20 responses, a Gaussian preference utility, mask rates 0, 0.2 and 0.4, β = 1; bDPO "
        "reaches a higher reward than DPO.",
        ours=f"{_GRID}. That reward means the share of the reachable reward at the end of training.",
        rule="As stated: bDPO against DPO at β = 1 on the six cells of mask and policy, fixed and counted equally, "
        f"{_SEEDS}; {_margin(_STATED, 'grid-reward')}. {_CONTROLS} "
        f"{_IN_WORLDS} {_FRESH}",
        changes=_TURNS,
        figures=("grid-reward", "worlds-reward", "frontier-reward", "grid-curves", "picture-free", "picture-shared"),
        experiments=("grid", "worlds", "frontier"),
    ),
    "grid-unobserved": Claim(
        claimed="bDPO puts less mass on responses that the data do not cover.",
        stated="On the same grid, bDPO puts less mass on such responses than DPO.",
        ours=f"{_GRID}. That “not covered” means in no pair. With free logits and a uniform reference, DPO by plain "
        "gradient descent cannot raise the mass on such responses (a proof, free-logits); by Adam it can, and the rows "
        "below count how often. Shared parameters and other starts can raise it too, so they belong to the question.",
        rule="As stated: mass on responses in no pair at the end of training, bDPO against DPO at β = 1, on the four "
        f"cells with a mask, fixed and counted equally, {_SEEDS}; {_margin(_STATED, 'grid-unobserved')}. "
        f"{_CONTROLS} Also: distance from the ideal policy's mass, and starts "
        f"where losers are the more probable ones, early and late. {_IN_WORLDS} Worlds without a mask "
        f"do not count. {_FRESH}",
        changes=_TURNS,
        figures=("grid-unobserved", "worlds-unobserved", "frontier-unobserved", "starts"),
        experiments=("grid", "worlds", "frontier", "starts"),
    ),
    "grid-stability": Claim(
        claimed="bDPO trains more stably.",
        stated="On the same grid, training with bDPO is more stable than with DPO.",
        ours="What stable means: three endpoints after "
        f"{stability.TRAINING.steps} steps, ten times the budget of the other experiments, namely how far the held-out "
        "loss has risen above its minimum, its largest sudden rise, and drift, the distance that the policy moves over "
        "the last half. This choice came after the first results: drift alone had said that bDPO is more stable in "
        "none of 6 cells, the rise alone that it is in all 6. The summary's sign of trouble is a validation loss that "
        "spikes, so each method's own held-out loss is taken. By theory bDPO's margin is bounded, so it has an "
        "interior fixed point only where preferences are weak against β|log π_ref|.",
        rule="As stated: each endpoint, bDPO against DPO on finite data, paired by seed; a cell is a mask rate and a "
        "kind of policy; Holm corrects over the three endpoints, and the claim holds only as far as each of them does. "
        "Differences within "
        + ", ".join(f"±{one.margin:g} ({name})" for name, one in stability.ENDPOINTS.items())
        + " count as none. A sudden rise is one from a recorded step to the next: the first 188 steps follow one "
        "another, the later ones lie 0.6% apart. Explains away, for each endpoint: constant λ = ½; bDPO at 2β, which "
        "has DPO's effective β; permuted λ. Robustness: both rises by DPO's held-out loss for either method, a common "
        "yardstick; drift on exact data, at matched scale too; and whether bDPO keeps its best reward.",
        changes="An endpoint on which DPO does as well as bDPO, or better, takes the claim away; all three endpoints "
        "ahead beyond their margins would make it hold.",
        figures=("stability", "stability-map"),
        experiments=("stability",),
    ),
    "ablation": Claim(
        claimed="Of naive bDPO, its symmetric variant and full bDPO, full bDPO wins most against the reference.",
        stated="A proposal: compare naive asymmetric bDPO, “naive v2” and full bDPO on held-out pairs, by their "
        "win-rate against the reference and KL. On the grid the paper clips at 0.5.",
        ours="That the comparison is made on the grid; that winning means the win-rate against the reference; "
        "that v2, which the summary does not define, is the symmetric variant; that the naive λ multiplies only the "
        "winner's side.",
        rule="As stated: win-rate at the end of training, bDPO against each naive variant, two co-primaries, on the "
        f"six cells of mask and policy, {_SEEDS}; {_margin(_STATED, 'ablation')}. "
        "What could explain the effect away: a constant λ = ½, which balances nothing (named as a control of this kind "
        "after its result was known: bDPO wins less often); and that bDPO moves farther or less far; so it is compared "
        "with each variant at equal KL from the reference too. Also: against DPO; and, where the laptop run is there, "
        "the same on language models, undecided where the reward model that judges is not above chance and above the "
        "accuracy of length alone, beside whether each of these losses beats the reference at all. On language models "
        "a λ that sees lengths alone could explain a gain: on a pretrained model bDPO is compared with it at equal "
        f"KL. {_PRETRAINED} {_IN_WORLDS} {_FRESH}",
        changes=_TURNS,
        figures=("ablation", "worlds-ablation", "llm-ablation"),
        experiments=("grid", "worlds", "frontier"),
        measurements=("language-models", "pretrained"),
        not_run=pretrained.declared("ablation"),
    ),
    "symmetric-unstable": Claim(
        claimed="Symmetric naive bDPO is unstable on real data: its validation loss spikes suddenly.",
        stated="The statement above, with clip 0.3 for language models.",
        ours=f"Everything else: which models and data, and what counts as a spike. {_MODELS} A spike is a rise of the "
        f"validation loss, from one evaluation to the next, by {SPIKE_FLOOR:g} nats, by {SPIKE_MULTIPLE:g} usual "
        "changes, and without a run-up.",
        rule="The share of runs with a spike on the real pairs, symmetric naive bDPO minus DPO, both sizes together. "
        "A run counts once, since several spikes of a run are no independent evidence. The interval comes from exact "
        "limits of both shares, so it has a width where nothing or equally much has happened. The claim holds where "
        "the interval lies above 0. Anything else is undecided, as a few small runs can show spikes but never refute "
        f"them; the row says how many runs would tell the difference to ±{SPIKE_MARGIN / 2:.0%} of "
        "runs. Robustness: against asymmetric naive bDPO, and the same on the task of tokens; "
        f"and both on real pairs with a pretrained model. Context: DPO's spikes.",
        changes="Spikes in so many more of its runs than of DPO's that the interval lies above 0: with six runs each, "
        "four against none. A verdict against the claim needs runs at the paper's scale.",
        figures=("llm-validation",),
        measurements=("language-models", "pretrained"),
        not_run=pretrained.declared("symmetric-unstable"),
    ),
    "ppo": Claim(
        claimed="PPO-based RLHF beats DPO.",
        stated="The statement above.",
        ours="All of the PPO: a Bradley–Terry reward model on DPO's own pairs, the clipped surrogate, a KL penalty of "
        "β. Where the reward model has the policy's parameters and scores unobserved responses itself, both have the "
        "same optimum π_ref exp(r/β) by algebra. Such rows show only what a finite budget leaves; they are context, "
        "and do not belong to the average. So the question is put to reward models with other parameters than the "
        "policy's: shared ones for a policy with free logits, free ones for a policy with shared parameters.",
        rule="As stated: share of the reachable reward at the end of training, PPO on such a reward model against DPO "
        "on the same pairs, paired by seed; a cell is a mask rate and a kind of policy; differences within "
        f"±{ppo_against_dpo.MARGIN:g} count as none. Robustness: unobserved rewards at the minimum, mean and maximum; "
        "and, where the laptop run is there, win-rates of language models on a task whose true reward judges. On real "
        "pairs only the reward model that PPO was trained on could judge, so nothing rests on them. On a pretrained "
        "model: the true reward of short openings, PPO on a reward model fitted to DPO's pairs, at the end, over the "
        "KL in which both were looked at, and at equal KL with DPO at β/2, β and 2β. Pairs hold only responses that "
        "end, and PPO's reward counts cut ones too, so that PPO may gain by ending: how many end, and the reward of "
        "those, are context; so is PPO on the true reward, which DPO has not seen. These rows, and those over "
        "shared KL, were added when DPO had been looked at, before any run of PPO. Further context: the identities, "
        "the true utility, and DPO with the reward model's parameters, where PPO with free logits ends by the same "
        "algebra: what differs from DPO there is the parameters' work, and not PPO's.",
        changes="PPO on a reward model with other parameters ahead of DPO in every cell, or behind it.",
        figures=("ppo",),
        experiments=("worlds", "ppo-against-dpo"),
        measurements=("language-models", "pretrained"),
        not_run=pretrained.declared("ppo"),
    ),
    "log-ratio": Claim(
        claimed="The logged gradient ratio follows π_l/π_w during DPO training.",
        stated="The statement above.",
        ours="Which gradient is logged, and what following means. The ratio of the gradients with respect to the two "
        "probabilities is π_l/π_w by algebra, whatever happens, so it shows nothing. The open question is about what "
        "moves a policy: parameter gradients and realised steps.",
        rule="As stated: Pearson's correlation r of the log ratio of a pair's two parameter gradients with "
        "log(π_l/π_w), one r per run of DPO, over the sampled pairs of all logged steps; a cell is a mask rate and a "
        f"kind of policy; correlations within ±{log_ratio.MARGIN:g} count as none. Robustness: the gradients of a "
        "prompt's two sides, and the realised change of log π; and, where the laptop run of language models is there, "
        "the batches of its DPO trainings, and of those of a pretrained model. Context: the slopes, which are "
        f"1 ± {log_ratio.TOLERANCE:g} where a ratio is not only correlated but in proportion, and the identity. The "
        "first report's word rested on the identity. Further context: which side of DPO's batches has the larger "
        f"gradient on a pretrained model. {pretrained_sides.ADDED}",
        changes="Runs in which parameter gradients do not correlate with π_l/π_w, or do so with another sign.",
        figures=("log-ratio", "llm-log-ratio", "pretrained-sides"),
        experiments=("log-ratio",),
        measurements=("language-models", "pretrained"),
        not_run=pretrained.declared("log-ratio"),
    ),
    "overhead": Claim(
        claimed="bDPO costs next to nothing.",
        stated="The statement above.",
        ours=f"That “next to nothing” means equal to DPO within {cost.ALLOWED:.0%}, in time, for whole steps of "
        "language models: what a user waits for. A step in the lab lasts milliseconds, most of which is not the "
        "loss. A repetition counts as a seed. Measured on a CPU; where a GPU is at hand, `make bench` measures it too.",
        rule="Interleaved pairs of steps of the trainer, one cell per size of model: the logarithm of DPO's time over "
        f"bDPO's must be equivalent to 0 within log {1 + cost.ALLOWED:g}, by both one-sided tests. So the word “no "
        "practical difference” is the one that confirms this claim. Robustness: whole steps of another small language "
        "model. Context, which judges nothing: steps in the lab, the loss alone, and peak memory.",
        no_difference=True,
        changes=f"Whole steps that differ by more than {cost.ALLOWED:.0%}.",
        measurements=("trainer-overhead", "overhead"),
    ),
    "llm": Claim(
        claimed="On Llama-7B, bDPO raises SafeRLHF success by 18% and HH harmlessness by 21%, at comparable "
        "helpfulness.",
        stated="The statement above; 2 epochs, β = 1, and as reference the policy after 300 steps of DPO.",
        ours="Everything else, frozen in a plan (docs/how-to/seven-billion.md). The summary does not define “success”: "
        "here a response succeeds where it is safe by a cost model, and better than the reference's by a reward model.",
        rule="Success on SafeRLHF and harmlessness on HH, which is the share of safe responses, are co-primaries: "
        f"bDPO minus DPO, paired by seed; differences within ±{seven_billion.MARGIN:g} count as none. Explains away: a "
        "λ of the lengths alone, a constant λ = ½, and bDPO at 2β, which has DPO's effective β. Robustness: help, the "
        "win-rate against the reference by the reward model. All of this is declared, and none of it run. Results of "
        "small models on other claims are with those claims.",
        changes="Runs at 7B with these settings. Runs of small models show only that the pipeline works.",
        measurements=("seven-billion",),
        not_run=tuple(seven_billion.contrasts()),
    ),
}
