"""What do runs on a pretrained model say: is it balance, the halved β, or the lengths of responses?

Judged from the frames of ``make llm-real``: SmolLM2-135M-Instruct (4-bit weights made whole), its last six layers
trained, on two tasks. ``known`` has continuations of short openings, pairs sampled from the model itself and labelled
by Bradley–Terry on a true reward, a lexicon's sentiment less a price per word. ``hh`` has short pairs of HH-RLHF
(harmless-base) in the chat template, with LoRA. Three seeds, paired: a seed draws pairs, order and samples. Methods are
DPO at β/2, β and 2β, bDPO and length-weighted DPO at β and 2β; naive variants and PPO as far as the budget goes.
Settings, margins, predictions and these rules were committed before the first run that is judged, each task's settings
before its own. Rows over the KL in which both were looked at, of how many responses end, and of the true reward of
those that do were added when the runs of the first seed had been looked at, before those of the others were whole. What
was changed for the real pairs before any of their runs: they are compared over the KL in which both were looked at,
since an accuracy leaves ½ with the first steps and no line from there to the first look is a path; how far DPO itself
is above ½; and the mean of both responses' log-probabilities beside that of their sum.

Every statement names the runs that it needs. Until all of them are committed it was *not run*, and its row says how
many of them there are.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, Role
from gradlab.experiments.experiment import Collected, Frames
from gradlab.experiments.questions import pretrained_sides
from gradlab.experiments.questions.language_models_weights import length_explains, weighed
from gradlab.experiments.questions.pretrained_comparisons import (
    CONTROL,
    ELSEWHERE,
    ENDED,
    FINISHED,
    JUDGED,
    MOVED,
    PLAIN,
    REWARD,
    SENTIMENT,
    WINNERS,
    WORDS,
    Asked,
    at_levels,
    at_one_kl,
    at_the_end,
    learned,
    over_kl,
)
from gradlab.experiments.questions.pretrained_levels import CONTROLS
from gradlab.experiments.questions.pretrained_runs import (
    CORE,
    FILES,
    FITTED,
    HALF,
    LENGTH,
    LONGEST,
    NAIVE,
    PARTS,
    PPO,
    REFERENCE,
    SAMPLED,
    TASKS,
    Runs,
)

COMMAND = "make llm-real MODEL=FOLDER DATA=PAIRS"
GAIN, LIKELIHOOD = "pretrained-gain", "pretrained-mass"  # claims


def asked() -> list[Asked]:
    """Return all statements, in the order of their claims."""
    return [*_gain(), *_likelihood(), *_length(), *_ablation(), *_ppo(), *pretrained_sides.asked()]


def declared(claim: str) -> tuple[Contrast, ...]:
    """Return the statements on a claim, as they were declared before anybody ran them."""
    return tuple(one.contrast for one in asked() if one.contrast.claim == claim)


def _gain() -> list[Asked]:
    """Return the statements on what bDPO reaches beyond DPO, at one β."""
    rows = [at_the_end(GAIN, task, value, "bdpo", "dpo", "primary", 2) for task, value in JUDGED.items()]
    for task, value in JUDGED.items():
        rows += [
            at_the_end(GAIN, task, value, "bdpo", HALF, "explains away"),
            at_the_end(GAIN, task, value, "bdpo", LENGTH, "explains away"),
            at_the_end(GAIN, task, value, "bdpo-double", "dpo", "explains away"),
            *at_one_kl(GAIN, task, value, "dpo", "explains away"),
        ]
    context = (SENTIMENT, WORDS, FINISHED, ENDED)
    rows += [at_the_end(GAIN, "known", value, "bdpo", "dpo", "context") for value in context]
    return [*rows, at_the_end(GAIN, "hh", PLAIN, "bdpo", "dpo", "context"), learned(GAIN)]


def _likelihood() -> list[Asked]:
    """Return the statements on where probability goes."""
    rows = [at_the_end(LIKELIHOOD, task, ELSEWHERE, "bdpo", "dpo", "primary", 2) for task in TASKS]
    for task in TASKS:
        rows += [
            at_the_end(LIKELIHOOD, task, ELSEWHERE, "bdpo", HALF, "explains away"),
            at_the_end(LIKELIHOOD, task, ELSEWHERE, "bdpo", LENGTH, "explains away"),
            *at_one_kl(LIKELIHOOD, task, ELSEWHERE, "dpo", "explains away"),
            over_kl(LIKELIHOOD, task, ELSEWHERE, "bdpo", LENGTH),
            at_levels(LIKELIHOOD, task, WINNERS, "bdpo", "dpo", "robustness"),
            at_the_end(LIKELIHOOD, task, WINNERS, "bdpo", "dpo", "robustness"),
        ]
    return [*rows, at_the_end(LIKELIHOOD, "hh", MOVED, "bdpo", "dpo", "robustness"),
            over_kl(LIKELIHOOD, "hh", MOVED, "bdpo", "dpo")]  # fmt: skip


def _length() -> list[Asked]:
    """Return the statements on bDPO beside length-weighted DPO; equivalence confirms their claim."""
    equal = {task: at_one_kl(CONTROL, task, value, LENGTH, "primary", 2) for task, value in JUDGED.items()}
    rows = [primary for primary, _ in equal.values()]
    for task, value in JUDGED.items():
        rows += [
            equal[task][1],
            at_the_end(CONTROL, task, value, "bdpo", LENGTH, "robustness"),
            at_the_end(CONTROL, task, value, "bdpo-double", "length-dpo-double", "robustness"),
            at_levels(CONTROL, task, ELSEWHERE, "bdpo", LENGTH, "robustness"),
            at_levels(CONTROL, task, WINNERS, "bdpo", LENGTH, "robustness"),
        ]
    rows += [at_the_end(CONTROL, "known", value, "bdpo", LENGTH, "context") for value in (FINISHED, ENDED)]
    return [*rows, learned(CONTROL)]


def _ablation() -> list[Asked]:
    """Return the statements of the claim *ablation*: the true reward at equal KL, beside the lengths' control."""
    rows = [at_levels("ablation", "known", REWARD, "bdpo", LENGTH, "explains away")]
    rows += [over_kl("ablation", "known", REWARD, "bdpo", name) for name in CONTROLS]
    return rows + [at_levels("ablation", "known", REWARD, "bdpo", name, "robustness") for name in (*NAIVE, "dpo")]


def _ppo() -> list[Asked]:
    """Return the statements of the claim *ppo*; the true reward judges both kinds of PPO.

    PPO on the true reward has seen what DPO has not, so it is context; the claim is about PPO on DPO's own pairs.
    """
    rows = list[Asked]()
    for name in PPO:
        role: Role = "robustness" if name == FITTED else "context"
        rows += [ask("ppo", "known", REWARD, name, "dpo", role) for ask in (at_the_end, over_kl, at_levels)]
        rows += [at_the_end("ppo", "known", value, name, "dpo", "context") for value in (FINISHED, ENDED)]
    return rows


def verdict(frames: Frames) -> list[Judged]:
    """Return the answers on all statements, from the frames that are there.

    Judged are the numbers of ``pretrained_runs.looks_of`` once per run, at its last look or at equal KL; of logs and
    held-out pairs the numbers that the laptop run is judged by. Equal KL has two rules. In both, a training's path has
    its looks in their order, without those that set no new maximum of KL, its end among them where KL has fallen.

    At declared levels (``at_equal_kl``): the path begins at the reference, with KL 0; values are interpolated linearly
    in √KL at each level up to its greatest KL, and averaged over a loss's paths at all β that reach the level. A level
    counts where both losses have it in at least half of the seeds that both have, and in two.

    Over shared KL (``over_shared_kl``): the path begins at its first look. bDPO at β is paired with DPO at β/2 and bDPO
    at 2β with DPO at β, or each with length-weighted DPO at its own β. A pair shares the KL from the larger one of
    their first looks to the smaller one of their greatest; values are linear between looks in √KL, those that are
    log-probabilities in KL, and averaged over that power of KL, then over the pairs that share any. Every seed must
    have such a pair.
    """
    runs = Runs(frames)
    runs.check()
    return [one.answered(runs) for one in asked()]


_MODEL = "a pretrained model, SmolLM2-135M-Instruct (4-bit weights made whole)"
CAPTIONS = {
    "pretrained-frontier": (
        f"Runs on {_MODEL}: what each method has reached "
        "against how far it has moved from the reference (KL in nats per response, estimated from samples of at most "
        f"{LONGEST} tokens on the left and {SAMPLED} on the right). Left: openings whose true reward is "
        "known. Right: real pairs of HH-RLHF, accuracy on held-out pairs at equal weight of pairs whose winner is "
        "shorter and pairs whose winner is longer, so that a rule by length alone scores ½. A line is one method at "
        "one β, from the reference through its looks, means over three seeds with 95% t intervals; larger marks are "
        "the ends. At one KL, a method is better where its line lies above. A task is shown once all of its runs are "
        "there."
    ),
    "pretrained-likelihood": (
        f"Runs on {_MODEL}: how far the log-probabilities of held-out winners (across) and losers (up) have "
        "moved from the reference, in nats per response, along the training; means over three seeds. Below the dashed "
        "diagonal losers have fallen farther. Left of 0 winners have become less probable than they were. On the "
        "openings the pairs are the reference's own responses, so that both fall for any policy that moves away; only "
        "the real pairs can show where a loss sends probability."
    ),
    "pretrained-length": (
        "Balanced-DPO's weight of the winner, λ_w = log π_l/(log π_w + log π_l), against the winner's share of both "
        f"responses' tokens, one mark per held-out pair, {_MODEL}, all seeds. On the dashed line λ_w is the "
        "loser's share of tokens and nothing else; R² is a mean over seeds."
    ),
    "pretrained-sides": (
        f"Runs on {_MODEL}: R = ‖g_w‖/‖g_l‖, the parameter gradient of a batch's winners over that of its "
        "losers, along the training; means over three seeds with 95% t intervals. At 1 both sides pull equally. In the "
        "grey part below, where R < −C, C being the cosine of both gradients, losers would push the winners of their "
        "own batch down, and in the one above winners would pull the losers up; its edges are means over all methods "
        "and seeds that are drawn. The ratio of the derivatives by probability, π_l/π_w, is e to the power of tens "
        "for whole responses, and not on this axis."
    ),
}  # fmt: skip


def figures(frames: Frames) -> dict[str, Figure]:
    """Draw frontier, likelihoods, both sides' gradients, and λ_w against length: tasks whose core is there."""
    runs = Runs(frames)
    tasks = {task: title for task, title in TASKS.items() if not runs.lacking(task, (REFERENCE, *CORE))}
    looks = runs.looks[runs.looks["method"].isin([REFERENCE, *CORE])]
    weights = weighed(runs.pairs[runs.pairs["method"].isin([REFERENCE, "bdpo"])])
    logs = runs.logs[runs.logs["method"].isin(["dpo", "bdpo", LENGTH])].dropna(subset=["grad_cosine"])
    policies = {REFERENCE: "the reference", "bdpo": "bDPO at the end"}
    values = {"known": ("reward", "true reward"), "hh": ("controlled", "length-controlled accuracy")}
    return {
        "pretrained-frontier": plotting.paths_by_kl(looks, values, tasks=tasks),
        "pretrained-likelihood": plotting.likelihoods(looks, tasks=tasks),
        "pretrained-sides": plotting.sides(logs, tasks=tasks),
        "pretrained-length": plotting.weights_by_length(
            weights, tasks=tasks, policies=policies, explained=length_explains(weights)
        ),
    }  # fmt: skip


MEASUREMENT = Collected("pretrained", FILES, COMMAND, verdict, figures, CAPTIONS, parts=PARTS)
