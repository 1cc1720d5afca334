"""What do small language models, trained on real pairs and on a task of known reward, say about the paper's claims?

Judged from the frames of the laptop run (``make llm-demo``; ``gradlab.llm.demo.laptop_run`` has its settings). It
has two tasks: ``hh``, real pairs of HH-RLHF, and ``tokens``, synthetic pairs whose true reward is known. The rules were
committed before the run. A cell is a task and a size of model, unless something else is said; seeds are paired.
The pairs were held out one by one (``--hold-out pairs``), not by whole prompts: in the task of tokens nearly all
held-out pairs have a prompt that is trained on too, with other responses, of the real pairs hardly any.

- *symmetric-unstable*: the share of runs whose validation loss has a sudden spike, which ``gradlab.doctor.spikes``
  finds; symmetric nbDPO minus DPO, on real pairs, all sizes together. A run counts once, however many spikes it has.
  The 95% interval is that of ``gradlab.stats.counts``: exact limits of both shares, which have a width where nothing
  has happened. The claim *holds on average* where the interval lies above 0, and else is *undecided*: a few small runs
  can show spikes, but never refute them. The row says how many runs would tell the difference. Robustness: against
  asymmetric nbDPO, and both comparisons on the task of tokens. Context: DPO's spikes.
- *ablation*, robustness: win-rate of sampled responses against the reference's at the end of training, bDPO minus each
  other method. Context: the win-rate of each pair loss minus ½, that is, whether it beats the reference at all. Where a
  reward model judges, every row is *undecided* unless that model is better than chance and than length: the 95%
  interval of its accuracy on held-out pairs, a mean over all runs, must lie above ½ and above the score of the better
  of "prefer the shorter answer" and "prefer the longer answer" there (the interval is normal, for the held-out pairs of
  all seeds; sizes share them).
- *ppo*, robustness: win-rate of PPO minus DPO's on the task of tokens, where the true reward judges. On real pairs the
  judge is the reward model that PPO was trained on, so that row is context, and *undecided* whatever it shows.
- *log-ratio*, robustness: in each run of DPO, over its logged steps, the correlation r of a ratio's logarithm with
  log(π_l/π_w), the batch's mean. Context: the least-squares slope minus 1, which is 0 for a ratio that is π_l/π_w.
- *ratio-corrected*, context: by the law, bDPO corrects the share 1 − |1 − 1/LM| of a pair's imbalance, LM the
  logarithmic mean of −log π_w and −log π_l. The median share of a run's held-out pairs, under the policy that bDPO ends
  with and under the reference that it starts from; and along bDPO's trainings the law at each batch's mean
  log-probabilities, the median over steps. 1/LM is convex, so where LM ≥ 1 a batch's mean share is at least that. And
  R² of λ_w on the winner's share of tokens, one number per run; a share of tokens that is constant explains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.doctor import spikes
from gradlab.experiments.contrasts import Judged
from gradlab.experiments.experiment import Measurement
from gradlab.experiments.questions.language_models_runs import RUN, SHORT
from gradlab.experiments.questions.language_models_sides import RATIOS, followed, side_ratios
from gradlab.experiments.questions.language_models_spikes import unstable
from gradlab.experiments.questions.language_models_weights import POLICIES, corrected, length_explains, weighed
from gradlab.experiments.questions.language_models_wins import ablation, ppo

FILES = {name: f"llm/{name}.parquet" for name in ("evaluation", "logs", "pairs")}  # in the folder of the figures
COMMAND = "make llm-demo DATA=PAIRS KEEP=1"
_NEEDED = {
    "evaluation": {*RUN, "method", "judge", "win_rate", "pairs", "reward_accuracy", "shorter_accuracy"},
    "logs": {*RUN, "method", "step", "validation_loss", "logp_win", "logp_lose",
             *(f"{name}_{side}" for name in RATIOS for side in ("win", "lose"))},
    "pairs": {*RUN, "method", "win", "lose", "win_len", "lose_len"},
}  # fmt: skip


def verdict(frames: Mapping[str, pd.DataFrame]) -> list[Judged]:
    """Return all rows of all claims, from the frames ``evaluation``, ``logs`` and ``pairs`` of the laptop run.

    Raises ValueError where a frame lacks a column, or a run lacks values that a claim needs.
    """
    for name, needed in _NEEDED.items():
        if lacking := sorted(needed - set(frames[name])):
            raise ValueError(f"the frame {name} of the language models must have {', '.join(lacking)}")
    return [
        *unstable(frames["logs"]), *ablation(frames["evaluation"]), *ppo(frames["evaluation"]),
        *followed(frames["logs"]), *corrected(frames["pairs"], frames["logs"]),
    ]  # fmt: skip


CAPTIONS = {
    "llm-ablation": (
        "Language models at the end of training: how often their samples are preferred to the reference's, and how "
        "far they have moved from it (KL in nats per response, on an axis that is logarithmic beyond 1). Each method "
        "has filled marks for one size of model and hollow marks for the other; small dots are seeds, bars 95% t "
        "intervals over them (wide: there are few; those of KL are cut at 0, below which it cannot lie). Right of ½ a "
        "method beats the reference. A small reward "
        "model judges the real pairs: CLAIMS.md says how often it is right, and how often “prefer the shorter answer” "
        "is. The true reward judges the task of tokens. On real pairs PPO is judged by the reward model "
        "that it was trained on, so its win-rate there is no evidence. A method may win more because it moves farther. "
        "Pairs were held out one by one: nearly all prompts of the task of tokens are trained on too."
    ),
    "llm-log-ratio": (
        "Do the two sides of a language model's training follow π_l/π_w? One mark per logged step of DPO or bDPO, "
        "fainter for early steps, all sizes and seeds. x axis: log(π_l/π_w), the mean of the batch. y axis: the "
        "logarithm of the ratio winner : loser of the norms of both parameter gradients, and of the sizes of the "
        "changes of log π in that step. A ratio that follows lies on the dashed diagonal, at slope 1; a flat cloud "
        "means that it does not. Solid lines are least squares over all runs. The y axis may be stretched."
    ),
    "llm-validation": (
        "Validation loss of language models along training: one column per method, one row per task and size of model, "
        "one line per run; a seed has the same dashes in all panels. A ring marks a sudden spike, as gradlab.doctor "
        "defines it. The paper says that symmetric nbDPO spikes. All losses start at ln 2; each is a different "
        "function, so levels of different methods cannot be compared. Pairs were held out one by one: nearly all "
        "prompts of the task of tokens are trained on too."
    ),
    "llm-length": (
        "Balanced-DPO's weight of the winner, λ_w = log π_l/(log π_w + log π_l), against the winner's share of both "
        "responses' tokens, one mark per held-out pair, all seeds. On the dashed line λ_w is the loser's share of "
        "tokens and nothing else; R², a mean over runs, says how far the share of tokens explains λ_w. Pairs were held "
        "out one by one: nearly all prompts of the task of tokens are trained on too."
    ),
}


def figures(frames: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw win-rates, ratios of both sides, validation losses, and λ_w against length."""
    logs, evaluation = frames["logs"], frames["evaluation"]
    weights = weighed(frames["pairs"][frames["pairs"]["method"].isin(list(POLICIES))])
    ratios = side_ratios(logs)
    trained = evaluation[evaluation["method"] != "reference"]
    return {
        "llm-ablation": plotting.by_method(
            trained,
            {"win_rate": "win-rate against the reference", "kl": "KL from the reference (nats)"},
            tasks=SHORT, at={"win_rate": 0.5, "kl": 0.0}, far={"kl"},
        ),
        "llm-log-ratio": plotting.side_clouds(ratios[ratios["method"].isin(["dpo", "bdpo"])], RATIOS, tasks=SHORT),
        "llm-validation": plotting.validation_losses(_seen(logs), tasks=SHORT),
        "llm-length": plotting.weights_by_length(
            weights, tasks=SHORT, policies=POLICIES, explained=length_explains(weights)
        ),
    }  # fmt: skip


def _seen(logs: pd.DataFrame) -> pd.DataFrame:
    """Return the evaluations on held-out pairs, without PPO's, with a column ``spike``."""
    rows = logs[logs["validation_loss"].notna() & (logs["method"] != "ppo")]
    found = [
        run.assign(spike=run["step"].isin([step for step, _ in spikes(run["step"], run["validation_loss"])]))
        for _, run in rows.groupby([*RUN, "method"], sort=False)
    ]
    return pd.concat(found)


MEASUREMENT = Measurement("language-models", FILES, COMMAND, verdict, figures, CAPTIONS)
