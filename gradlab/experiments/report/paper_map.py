"""The paper's map: each place in the paper that the summary names, what it says, and what gradlab has for it.

We worked from a summary of the paper, and numbers of equations, theorems and sections are those that it gives. No
answer is here: the page fills them in from the judged claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gradlab.experiments import long_experiments
from gradlab.experiments.report.open_claims import OPEN

Standing = Literal["stated", "ours", "absent"]


@dataclass(frozen=True)
class Place:
    """A place in the paper and what belongs to it here.

    name       how a reader of the paper finds it: its number, or what it is about.
    says       what it says, in our words.
    standing   ``stated``: by the summary; ``ours``: the summary leaves it open, and this is our choice; ``absent``:
               gradlab has no result on it.
    functions  functions and classes, each by its module and name.
    figures    figures, by name.
    command    a command that computes or shows it.
    claims     claims that judge it.
    page       where its answer is in words, in the folder of the figures.
    """

    name: str
    says: str
    standing: Standing
    functions: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    command: str = ""
    claims: tuple[str, ...] = ()
    page: str = ""


def _answered(name: str, says: str, experiment: str, functions: tuple[str, ...]) -> Place:
    """Return the place of a question that a long experiment answers; its figures and claims are the experiment's."""
    found = long_experiments().get(experiment)
    return Place(
        name, says, "ours" if found else "absent", functions, tuple(found.captions) if found else (),
        f"gradlab figures {experiment}" if found else "",
        tuple(claim for claim, one in OPEN.items() if experiment in one.experiments),
        f"OPEN-QUESTIONS.md#{name.lower().replace(' ', '-')}",
    )  # fmt: skip


_SHIFT = ("weight-functions", "shift-phase", "shift-refinement")

PAPER: dict[str, tuple[Place, ...]] = {  # by part of the paper
    "The argument": (
        Place(
            "DPO against PPO", "RLHF with PPO ends better than DPO, and gradient imbalance is the reason.", "stated",
            ("gradlab.lab.ppo.fit_reward", "gradlab.lab.ppo.fit_ppo"), ("ppo",), "gradlab figures ppo-against-dpo",
            ("ppo",),
        ),
        Place(
            "Quality of the data", "The imbalance makes DPO sensitive to poor data, and Balanced-DPO is more robust. "
            "The atlas trains every loss on flipped labels, too; no claim judges it.", "stated",
            ("gradlab.losses.margin.ConservativeDPO",), ("atlas-factors",), "gradlab figures atlas",
        ),
        Place(
            "Offline training", "DPO cannot sample from the policy that it trains, and so the imbalance does most "
            "harm. Here fresh pairs from that policy, too, train DPO and Balanced-DPO.", "stated",
            ("gradlab.widgets.offline_explorer.OfflineExplorer",), ("sampling-benefit",), "gradlab figures sampling",
            ("sampling-benefit",),
        ),
    ),
    "Gradient imbalance: section 3.1, mechanism 1": (
        Place(
            "Bradley–Terry model", "The winner is preferred with probability σ(r_w − r_l), and so rewards become "
            "ratios of probabilities in DPO's loss.", "stated",
            ("gradlab.lab.world.exact_pairs", "gradlab.widgets.sigmoid_explorer.SigmoidExplorer"),
            command="gradlab lab",
        ),
        Place(
            "DPO's loss", "−log σ(β(h_w − h_l)), h = log π − log π_ref: the loss that the paper starts from.",
            "stated", ("gradlab.losses.margin.DPO", "gradlab.losses.pair.PairLogps"), command="gradlab losses",
        ),
        Place(
            "Eq. 2", "∂L/∂π_w : ∂L/∂π_l = −π_l/π_w for DPO.", "stated",
            ("gradlab.theory.gradient_ratios.dpo_log_rho", "gradlab.theory.gradient_ratios.in_probabilities"),
            ("gradient-field",), "gradlab figures ratios", ("ratio",),
        ),
        Place(
            "What follows from Eq. 2", "Where the winner is the more probable response, the loser's gradient is the "
            "larger one: DPO pushes losers down more than it pulls winners up.", "stated",
            ("gradlab.theory.changes.realised_change",), ("gradient-field",), "gradlab figures ratios", ("ratio",),
        ),
        Place(
            "Other losses in Eq. 2", "Has only DPO this ratio? Every loss of log π_w − log π_l alone has it, by the "
            "chain rule.", "ours", ("gradlab.losses.pair.log_prob_ratio", "gradlab.losses.margin.IPO"),
            ("gradient-field",), "gradlab figures ratios", ("ratio",),
        ),
        Place(
            "E[c_ij] < 0", "Gradients of two responses' probabilities oppose each other on average, which can make the "
            "imbalance worse.", "stated",
            ("gradlab.theory.changes.gradient_inner_products", "gradlab.theory.changes.mean_off_diagonal"),
            ("inner-products", "inner-products-families"), "gradlab figures inner-products", ("inner-product",),
        ),
        Place(
            "c_ij ≈ 0", "The derivation takes these gradients as orthogonal.", "stated",
            ("gradlab.theory.changes.gradient_cosines",), ("inner-products", "inner-products-families"),
            "gradlab figures inner-products", ("inner-product",),
        ),
    ),
    "Distribution shift: Theorem 3, mechanism 2": (
        Place(
            "Uniform sampling", "All pairs are equally likely in the data; the analysis takes this as the worst case.",
            "stated", ("gradlab.theory.families.gaussian_pair", "gradlab.theory.families.dirichlet_pair"),
            command="gradlab figures shift",
        ),
        Place(
            "Weight w(y)", "How strongly a loss raises or lowers a response. The summary has no formula; ours follows "
            "from the loss.", "ours", ("gradlab.theory.weights.dpo_weight",), ("weight-functions",),
            "gradlab figures shift",
        ),
        Place(
            "Theorem 3 on DPO", "The local extrema of DPO's w lie outside [μ_p, μ_q].", "stated",
            ("gradlab.theory.weights.dpo_weight", "gradlab.theory.extrema.outside"), _SHIFT, "gradlab figures shift",
            ("shift-dpo",),
        ),
        Place(
            "Theorem 3 on balanced losses", "The extrema of balanced weights, as PPO has them, lie inside [μ_p, μ_q]. "
            "That these weights are w·p is ours.", "stated",
            ("gradlab.theory.weights.balanced_weight", "gradlab.theory.extrema.inside"), _SHIFT,
            "gradlab figures shift", ("shift-balanced",),
        ),
        Place(
            "Theorem 3 and Balanced-DPO", "Do the extrema of Balanced-DPO's real weights lie inside? The paper implies "
            "it, and the summary does not say it.", "ours", ("gradlab.theory.weights.bdpo_weight",), _SHIFT,
            "gradlab figures shift", ("shift-bdpo",),
        ),
        Place(
            "Mechanism 2", "Under shift, DPO therefore moves those responses most that are far from both the model's "
            "and the preferred ones.", "stated",
            ("gradlab.theory.extrema.extrema", "gradlab.widgets.shift_explorer.ShiftExplorer"), ("weight-functions",),
            "gradlab figures shift", ("shift-dpo",),
        ),
    ),
    "Variance: Theorems 4 and 5": (
        Place(
            "Theorems 4 and 5", "Var[w_i p_i] < Var[w_i] E[p_i²].", "stated",
            ("gradlab.theory.weight_variance.variance_ratio",), ("variance-region",), "gradlab figures variance",
            ("variance",),
        ),
        Place(
            "Condition of Theorems 4 and 5", "As E[w] = 0, they hold if and only if Cov(w², p²) < (E[w p])².", "ours",
            ("gradlab.theory.weight_variance.covariance_gap",), ("variance-region",), "gradlab figures variance",
            ("variance",),
        ),
        Place(
            "What follows from Theorems 4 and 5", "PPO concentrates its updates better, with less noise.", "stated",
            ("gradlab.theory.weight_variance.noise_to_signal",), ("variance-region",),
            "gradlab figures variance", ("variance",),
        ),
    ),
    "Balanced-DPO: the method, mechanism 3": (
        Place(
            "Weight λ_w", "λ_w = log π_l/(log π_w + log π_l), and 1 − λ_w on the loser's side; no gradient flows "
            "through them.", "stated", ("gradlab.losses.reweighted.balanced_weights",), command="gradlab losses",
        ),
        Place(
            "Balanced-DPO's loss", "−log σ(β λ_w h_w − β(1 − λ_w) h_l).", "stated",
            ("gradlab.losses.reweighted.BalancedDPO",), command="gradlab fit --loss bdpo --beta 1",
        ),
        Place(
            "Its gradient ratio", "∂L/∂π_w : ∂L/∂π_l ≈ −π_l log π_l/(π_w log π_w). By our algebra it is exact.",
            "stated", ("gradlab.theory.gradient_ratios.bdpo_log_rho",), ("gradient-field",), "gradlab figures ratios",
            ("ratio-corrected",),
        ),
        Place(
            "Mechanism 3", "The factor of logarithms counters the ratio of probabilities, and so restores symmetry.",
            "stated", ("gradlab.theory.gradient_ratios.bdpo_share_corrected",), ("ratio-correction",),
            "gradlab figures ratios", ("ratio-corrected",),
        ),
        Place(
            "Its scale", "Both weights sum to 1, so Balanced-DPO's effective β is about half of DPO's. Is a gain due "
            "to that alone?", "ours", ("gradlab.losses.reweighted.FixedWeightDPO",),
            ("frontier-reward", "frontier-unobserved"), "gradlab figures frontier", ("grid-reward", "grid-unobserved"),
        ),
        Place(
            "Numerical edges", "λ_w needs care where log-probabilities are near 0 or very low. Here it is ½ where both "
            "are 0, and no floor is needed.", "ours", ("gradlab.losses.reweighted.balanced_weights",),
        ),
        Place(
            "Naive Balanced-DPO", "λ = 1 + clip(log(π_w/π_l), Δ_min, Δ_max); asymmetric where Δ_min = 0, which only "
            "strengthens the winner.", "stated", ("gradlab.losses.reweighted.NaiveBalancedDPO",), ("ablation",),
            "gradlab fit --loss nbdpo --clip 0.5", ("ablation",),
        ),
        Place(
            "Symmetric clipping", "Δ_min = 1/(1 + Δ_max) − 1 works in both directions.", "stated",
            ("gradlab.theory.gradient_ratios.nbdpo_log_rho",), ("ablation",), "gradlab figures grid", ("ablation",),
        ),
        Place(
            "Side of the naive λ", "Which side does it multiply? Here the winner's alone.", "ours",
            ("gradlab.losses.reweighted.NaiveBalancedDPO",), command="gradlab losses",
        ),
        Place(
            "Naive v2", "The summary names this variant without a definition. Here it is the symmetric one.", "ours",
            ("gradlab.losses.reweighted.NaiveBalancedDPO",), ("ablation",), "gradlab figures grid", ("ablation",),
        ),
        Place(
            "Cost", "One more division and logarithm per sample, and no more forward passes.", "stated",
            ("gradlab.experiments.questions.cost.overhead",), command="gradlab claims overhead", claims=("overhead",),
        ),
    ),
    "Synthetic experiments: section 6.1": (
        Place(
            "The grid", "20 prompts × 20 responses, a Gaussian preference utility, mask rates 0, 0.2 and 0.4.",
            "stated", ("gradlab.lab.world.gaussian_world",), ("picture-free", "picture-shared"),
            "gradlab figures picture grid",
        ),
        Place(
            "β and clip", "β = 1 everywhere, clip 0.5 on the grid.", "stated",
            ("gradlab.losses.reweighted.NaiveBalancedDPO",), command="gradlab losses",
        ),
        Place(
            "Everything else of the world", "The utility's height, width and centres, the reference, the pairs, the "
            "policy and the optimiser.", "ours",
            ("gradlab.lab.world.World", "gradlab.lab.policy.RadialBasis", "gradlab.lab.training.Training",
             "gradlab.experiments.questions.worlds_drawn.drawn"),
            ("worlds-reward", "starts"), "gradlab figures worlds starts",
        ),
        Place(
            "Reward", "Balanced-DPO reaches a higher reward than DPO.", "stated",
            ("gradlab.lab.fit.fit", "gradlab.lab.metrics.utility_share"),
            ("grid-reward", "worlds-reward", "grid-curves"), "gradlab figures grid worlds frontier", ("grid-reward",),
        ),
        Place(
            "Responses out of the data", "Balanced-DPO over-estimates them less than DPO. Here these are the responses "
            "that are in no pair.", "stated", ("gradlab.lab.metrics.unobserved_mass",),
            ("grid-unobserved", "worlds-unobserved", "starts"), "gradlab figures grid worlds frontier starts",
            ("grid-unobserved",),
        ),
        Place(
            "Stability", "Balanced-DPO trains more stably and converges better.", "stated", ("gradlab.lab.fit.fit",),
            ("stability", "stability-map"), "gradlab figures stability", ("grid-stability",),
        ),
        Place(
            "Ablation on the grid", "Naive, naive v2 and full Balanced-DPO side by side. The summary proposes it on "
            "held-out pairs, see experiment 3 below.", "ours",
            ("gradlab.lab.metrics.win_rate", "gradlab.lab.metrics.kl_to_reference"), ("ablation", "worlds-ablation"),
            "gradlab figures grid worlds", ("ablation",),
        ),
    ),
    "Language models: SafeRLHF and Anthropic HH": (
        Place(
            "Recipe", "Llama-7B; as reference the model after 300 steps of DPO; 2 epochs, β = 1, clip 0.3.", "stated",
            ("gradlab.llm.train.run_settings.Settings", "gradlab.llm.train.stages.train"),
            command="gradlab train --model MODEL --data PAIRS.jsonl --out runs/first --loss dpo bdpo",
            claims=("llm",),
        ),
        Place(
            "SafeRLHF", "18% more success than DPO.", "stated", ("gradlab.llm.judge.evaluate.evaluate",),
            command="gradlab evaluate runs/first --cost SPEC", claims=("llm",),
        ),
        Place(
            "Anthropic HH", "21% more harmlessness than DPO, at comparable helpfulness.", "stated",
            ("gradlab.llm.judge.evaluate.evaluate",), command="gradlab evaluate runs/first --reward SPEC",
            claims=("llm",),
        ),
        Place(
            "Judging", "Reward models, not people, compare the methods. Which ones is not said.", "stated",
            ("gradlab.llm.model.rewards.load_reward", "gradlab.llm.judge.evaluate.evaluate"), ("llm-ablation",),
            "gradlab evaluate runs/first --reward SPEC",
        ),
        Place(
            "Symmetric clipping on real data", "Its validation loss spikes suddenly.", "stated",
            ("gradlab.doctor.validation_rules.spikes",), ("llm-validation",), "gradlab demo --data PAIRS.jsonl",
            ("symmetric-unstable",),
        ),
        Place(
            "Small models", "The same recipe with small Llamas from scratch, on pairs of HH and on a task whose reward "
            "is known.", "ours", ("gradlab.llm.demo.laptop_run.run_demo",),
            ("llm-ablation", "llm-log-ratio", "llm-validation", "llm-length"), "gradlab demo --data PAIRS.jsonl",
            ("ablation", "log-ratio", "symmetric-unstable"),
        ),
        Place(
            "A pretrained model", "Is it balance, the halved β, or the lengths? Here a small pretrained model, on "
            "openings whose reward is known and on pairs of HH.", "ours", ("gradlab.llm.real.runs.run_units",),
            ("pretrained-frontier", "pretrained-likelihood", "pretrained-length", "pretrained-sides"),
            "gradlab real --model MODEL --data PAIRS",
            ("pretrained-length", "pretrained-gain", "pretrained-mass", "ablation", "log-ratio", "ppo",
             "ratio-corrected", "symmetric-unstable"),
        ),
        Place(
            "λ_w of whole sequences", "Where log π is around −100, does λ_w correct the imbalance, or follow length?",
            "ours", ("gradlab.llm.look.imbalance.length_correlation",), ("llm-length", "ratio-correction"),
            "gradlab inspect MODEL PAIRS.jsonl", ("ratio-corrected",),
        ),
    ),
    "Signs of failure": (
        Place(
            "Unstable training", "The validation loss of symmetric naive Balanced-DPO spikes: use the asymmetric one, "
            "or full Balanced-DPO.", "stated", ("gradlab.doctor.validation_rules.validation_spike",),
            ("llm-validation",), "gradlab doctor LOG", ("symmetric-unstable",),
        ),
        Place(
            "Underflow in λ_w", "Probabilities near 0 make λ_w unstable.", "stated",
            ("gradlab.doctor.training_rules.not_finite", "gradlab.doctor.side_rules.weight_at_edge"),
            command="gradlab doctor LOG",
        ),
        Place(
            "No gain over the baseline", "Is the reference near the model that training starts from?", "stated",
            ("gradlab.doctor.validation_rules.no_gain", "gradlab.doctor.training_rules.far_reference",
             "gradlab.lab.fit.dpo_reference"),
            command="gradlab doctor LOG --baseline LOG",
        ),
    ),
    "Open questions of the authors": (
        _answered(
            "Open question 1", "Why does harmlessness gain and helpfulness not? Here two utilities judge the same "
            "responses, and one property at a time differs between them.", "two-goals",
            ("gradlab.lab.two_goals.two_goal_world",),
        ),
        _answered(
            "Open question 2", "Does the theory extend to continuous responses? Here policies are densities on a line, "
            "written in several units.", "continuous",
            ("gradlab.lab.line.line_fit.fit_line", "gradlab.theory.continuous.dpo_weight_limit",
             "gradlab.theory.continuous.bdpo_weight_limit"),
        ),
        _answered(
            "Open question 3", "Does it scale to larger models and other data? Here with the number and the length of "
            "responses; no run of larger models is here.", "scale",
            ("gradlab.lab.chains.fit_chains", "gradlab.llm.train.stages.train"),
        ),
    ),
    "What the summary proposes": (
        Place(
            "Experiment 1", "Repeat section 6.1: does Balanced-DPO reach more reward on the grid?", "stated",
            ("gradlab.experiments.questions.grid.run_part",), ("grid-reward", "grid-curves"), "gradlab figures grid",
            ("grid-reward",),
        ),
        Place(
            "Experiment 2", "Log |∂L/∂π_w| : |∂L/∂π_l| while DPO trains: does it follow π_l/π_w, as Eq. 2 says?",
            "stated", ("gradlab.lab.gradient_log.gradient_log",), ("log-ratio", "llm-log-ratio"),
            "gradlab figures log-ratio", ("log-ratio",),
        ),
        Place(
            "Experiment 3", "The ablation of λ on held-out pairs: win-rate against the reference, and KL from it.",
            "stated", ("gradlab.llm.judge.evaluate.evaluate",), ("ablation", "llm-ablation"),
            "gradlab demo --data PAIRS.jsonl", ("ablation",),
        ),
        Place(
            "Next check 1", "Let people, and not reward models, compare both methods. The tools are here, answers are "
            "not.", "absent",
            ("gradlab.widgets.rating_explorer.RatingExplorer", "gradlab.stats.agreement.preference_rates"),
            command="gradlab lab", page="OPEN-QUESTIONS.md#next-check-1",
        ),
        _answered(
            "Next check 2", "Sample pairs by importance, top-k or temperature: how does the imbalance change, and does "
            "the gain of Balanced-DPO persist?", "sampling",
            ("gradlab.lab.samplers.laws.OnPolicy", "gradlab.lab.samplers.laws.TopK",
             "gradlab.lab.samplers.laws.Tempered"),
        ),
        Place(
            "Next check 3, time and memory", "What does Balanced-DPO cost in a step? Measured in the lab and on small "
            "language models.", "ours",
            ("gradlab.experiments.questions.cost.overhead", "gradlab.experiments.questions.cost.trainer_overhead"),
            command="gradlab claims overhead", claims=("overhead",),
            page="OPEN-QUESTIONS.md#next-check-3",
        ),
        Place(
            "Next check 3, scale", "Convergence at 7, 13 and 34 billion parameters. Here are only a formula for the "
            "memory, and the time of steps at 7 billion.", "absent", ("gradlab.llm.model.memory_table.memory_table",),
        ),
    ),
    "What the summary leaves out": (
        Place("Eq. 1", "There must be one before Eq. 2; the summary does not say what it is.", "absent"),
        Place("Theorems 1 and 2", "They must come before Theorem 3; the summary does not say what they are.", "absent"),
        Place("Proofs, appendices, other sections", "The summary names section 3.1 and section 6.1 only.", "absent"),
    ),
}  # fmt: skip
