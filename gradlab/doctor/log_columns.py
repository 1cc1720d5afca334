"""The columns of a training log, by gradlab's names and by the names that other trainers write.

The other names are from the sources: TRL's ``DPOTrainer``, ``GRPOTrainer`` and ``RLOOTrainer``;
eric-mitchell/direct-preference-optimization, ``trainers.py``; OpenRLHF, ``dpo_trainer.py``; LLaMA-Factory,
``callbacks.py`` (``trainer_log.jsonl``); verl, ``metric_utils.py``. axolotl and LLaMA-Factory's ``trainer_state.json``
have TRL's names.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Columns about the responses that PPO samples in a step.
PPO_COLUMNS: dict[str, str] = {
    "reward": "mean reward of sampled responses, without penalty (the reward's own unit)",
    "reward_deviation": "mean over prompts of the rewards' standard deviation: without it nothing is learned",
    "zero_variance": "share of prompts whose responses all have one reward, so that they teach nothing",
    "reward_clipped": "share of sampled responses whose reward was clipped",
    "judge": "mean score of the sampled responses by the judge, which is never trained on (the judge's own unit)",
    "kl": "mean log π/π_ref of the sampled responses, an estimate of KL(π‖π_ref) (nats)",
    "kl_per_token": "the mean over sampled tokens instead, as TRL's GRPO and RLOO log it (nats per token)",
    "kl_penalty": "mean estimate of KL that is a term of the loss, where the penalty is not in the reward (nats)",
    "entropy": "mean −log π of the sampled tokens, an estimate of the entropy per token (nats)",
    "response_length": "mean tokens of the sampled responses",
    "finished": "share of sampled responses that end by themselves",
    "clip_share": "share of sampled responses whose gradient the clip has set to 0",
}
# The columns that a log may have for each step, about the pairs of that step's batch and before its update. Means are
# over pairs, logarithms natural. After "validation_" a name stands for the value on held-out pairs.
COLUMNS: dict[str, str] = {
    "step": "the optimiser's step, from 1",
    "loss": "mean loss (nats where the loss is logistic); of PPO −(reward − β kl), which it minimises",
    "reward_win": "mean implicit reward β h_w of the winners (nats)",
    "reward_lose": "mean implicit reward β h_l of the losers (nats)",
    "reward_margin": "mean of β (h_w − h_l) (nats)",
    "margin": "mean of m, which stands inside log σ; DPO's is the reward margin (nats)",
    "accuracy": "share of pairs with h_w > h_l",
    "logp_win": "mean log π(y_w|x), summed over tokens, or their mean where the setting reduction is mean (nats)",
    "logp_lose": "mean log π(y_l|x), summed or averaged likewise (nats)",
    "win_weight": "mean λ_w: the winner's share in |∂m/∂log π_w| + |∂m/∂log π_l|; ½ for DPO",
    "win_weight_q10": "the batch's 10% quantile of λ_w",
    "win_weight_q50": "its median",
    "win_weight_q90": "its 90% quantile",
    "win_weight_length_correlation": "Pearson correlation of λ_w with the winner's share L_w/(L_w + L_l) of tokens; "
    "absent where λ_w does not vary",
    "slope_win": "mean of each pair's own ∂L/∂log π_w",
    "slope_lose": "mean of each pair's own ∂L/∂log π_l",
    "log_prob_ratio": "mean of log(|∂L/∂π_w| / |∂L/∂π_l|) over pairs with both slopes (nats)",
    "grad_norm_win": "‖g_w‖: gradient of the mean loss in the parameters, through the winners only; of PPO "
    "through samples above their prompt's mean",
    "grad_norm_lose": "‖g_l‖: the same through the losers only; of PPO through the other samples",
    "grad_cosine": "cosine of g_w and g_l",
    "grad_split_error": "‖g − g_w − g_l‖ / ‖g‖ at the first step, g from one backward pass through both: rounding",
    "grad_norm": "‖g‖, g = g_w + g_l, before any clipping",
    "delta_win": "mean change of log π(y_w|x) of the batch's winners in this step (nats)",
    "delta_lose": "mean change of log π(y_l|x) of its losers; the sides of PPO are those of its gradient",
    "learning_rate": "the optimiser's learning rate",
    **PPO_COLUMNS,
}
# The registry's names of losses by the names that TRL has for them. A log of gradlab's callback has "TRL's " before it.
TRL_LOSSES = {
    "sigmoid": "dpo", "hinge": "hinge", "ipo": "trl-ipo", "exo_pair": "exo", "nca_pair": "nca", "robust": "robust",
    "bco_pair": "bco", "sppo_hard": "sppo", "apo_zero": "apo-zero", "apo_down": "apo-down", "discopop": "discopop",
    "sigmoid_norm": "sigmoid-norm",
}  # fmt: skip
# Names of the step; the first that is in a log counts. The last two count updates and examples of the DPO authors' run.
STEPS = ("step", "global_step", "_step", "current_steps", "counters/updates", "counters/examples")
# gradlab's columns by the names of others. Where a log has several names of one column, the first in this table counts.
_FOREIGN = {
    "rewards/chosen": "reward_win", "rewards/rejected": "reward_lose", "rewards/margins": "reward_margin",
    "rewards/accuracies": "accuracy", "logps/chosen": "logp_win", "logps/rejected": "logp_lose",
    "chosen_reward": "reward_win", "reject_reward": "reward_lose", "acc": "accuracy", "acc_mean": "accuracy",
    "loss_mean": "loss", "lr": "learning_rate", "actor/lr": "learning_rate", "actor/grad_norm": "grad_norm",
    "critic/score/mean": "reward", "response_length/mean": "response_length",
    "completions/mean_length": "response_length", "frac_reward_zero_std": "zero_variance", "actor/entropy": "entropy",
    "objective/kl": "kl", "objective/scores": "reward",
}  # fmt: skip
_RANKS = {name: rank for rank, name in enumerate(("", *_FOREIGN))}
_PREFIXES = (("train/", ""), ("eval/eval_", "validation_"), ("eval/", "validation_"), ("eval_", "validation_"),
             ("validation/", "validation_"), ("", ""))  # fmt: skip
# Parts of names in logs of TRL's GRPO and RLOO, where kl is a mean over tokens. Logs of KTO and of Online DPO, where it
# is not, have no such columns.
_OF_TOKENS = re.compile(r"(?<![a-z])(completions[/_]|frac_reward_zero_std)")
_CUT = ("completions/clipped_ratio", "response_length/clip_ratio")  # 1 − finished, at TRL and verl
_LOSS = re.compile(r"(?<![a-z])(loss|losses|nll)(?![a-z])")


class Known(NamedTuple):
    """A column that gradlab knows, under the name in a file."""

    name: str
    """gradlab's name, or one of ``STEPS``."""
    rank: int
    """The name's place among the names of this column: the lowest counts."""
    complement: bool = False
    """True where the file has 1 − the column."""


def is_known(name: str) -> bool:
    """Return whether a column is one of ``COLUMNS``, by itself or after validation_."""
    return name.removeprefix("validation_") in COLUMNS


def tells_kl_per_token(name: str) -> bool:
    """Return whether a column's name in a file says that the file's ``kl`` is a mean over tokens."""
    return _OF_TOKENS.search(name) is not None


def is_loss(name: str) -> bool:
    """Return whether a column's name says that it is a loss, as ``nll_loss`` and ``actor/pg_loss`` do."""
    return _LOSS.search(name.lower()) is not None


def gradlab_name(name: str) -> str:
    """Return gradlab's name of a column that another trainer, Weights & Biases or a model card writes, or the name."""
    known = known_column(name)
    return known.name if known and not known.complement else name


def known_column(name: str) -> Known | None:
    """Return gradlab's name of a column and its rank, or None for a column that gradlab does not know."""
    plain = name.rpartition(" - ")[2]  # W&B's charts put the name of the run and a dash before it
    plain = plain.lower() if plain.lower() in (*STEPS, *_FOREIGN) else plain  # model cards write capitals
    plain = _part_first(plain, "/")
    for prefix, kept in _PREFIXES:
        rest = plain.removeprefix(prefix)
        if plain.startswith(prefix) and rest in _CUT:
            return Known(f"{kept}finished", len(_RANKS), complement=True)
        known = _FOREIGN.get(rest, rest)
        if plain.startswith(prefix) and (known in STEPS or is_known(known)):
            return Known(known if known in STEPS else kept + known, _RANKS.get(rest, 0))
    return None


def known_tag(name: str) -> str | None:
    """Return gradlab's name of the curve in a file of TensorBoard's, named as ``run-NAME-tag-train_loss.csv``.

    Browsers write / as _ in the names of such files. None where the name tells no column that gradlab knows.
    """
    tag = _flat(re.sub(r"( ?\(\d+\))?(\.csv)?$", "", name.rpartition("tag-")[2]))
    columns = {_flat(column): column for column in (*COLUMNS, *_FOREIGN)}
    tag = _part_first(tag, "_")
    for prefix, kept in (("train_", ""), ("eval_eval_", "eval_"), ("eval_", "eval_"), ("validation_", "validation/"),
                         ("", "")):  # fmt: skip
        if tag.startswith(prefix) and (column := columns.get(tag.removeprefix(prefix))):
            return gradlab_name(kept + column)
    return None


def _part_first(name: str, slash: str) -> str:
    """Return a name of the DPO authors', as rewards_train/chosen or loss/eval, with train or eval at its front."""
    match = re.fullmatch(rf"(?:(rewards|logps)_(train|eval){slash}(\w+))|(?:loss{slash}(train|eval))", name)
    if match is None:
        return name
    kind, part, rest, of_loss = match.groups()
    return f"{of_loss}{slash}loss" if of_loss else f"{part}{slash}{kind}{slash}{rest}"


def _flat(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
