"""Rewards as PPO takes them: clipped, penalised, whitened, normalised; and their advantages over a baseline.

All tensors are (N,), float64, with the ``each`` responses of a prompt together. Rewards are in the reward's own unit
until they are whitened or normalised, from where on a standard deviation is 1.
"""

from __future__ import annotations

from torch import Tensor

from gradlab.llm.train.section_settings import Baseline, PPOSettings

_SMALL = 1e-4  # is added to a deviation, as in TRL: rewards that differ by rounding must not become 1 apart


def shaped(reward: Tensor, finished: Tensor, tokens: Tensor, settings: PPOSettings) -> Tensor:
    """Return the rewards that PPO maximises, without the KL penalty; the rewards themselves where nothing is asked for.

    finished  (N,) bool: the response ended by itself.
    tokens    (N,) its length, the end included.

    In this order: each reward is clipped to ±``clip_reward``; ``unfinished_penalty`` is subtracted where a response did
    not end, and ``length_penalty`` for each token; then ``whiten`` gives the batch mean 0 and a standard deviation of
    nearly 1, σ/(σ + 1e-4), over all prompts; then ``normalize`` does so in each prompt's group. Sources: a penalty for
    responses without an end and whitened rewards, TRL's PPO and RLOO; division by the group's deviation, GRPO (Shao et
    al. 2024, arXiv 2402.03300). The order is ours.
    """
    if settings.clip_reward is not None:
        reward = reward.clamp(-settings.clip_reward, settings.clip_reward)
    if settings.unfinished_penalty:
        reward = reward - settings.unfinished_penalty * (~finished).to(reward)
    if settings.length_penalty:
        reward = reward - settings.length_penalty * tokens.to(reward)
    if settings.whiten:
        reward = _standard(reward.view(1, -1), correction=0).flatten()
    if settings.normalize:
        reward = _standard(reward.view(-1, settings.samples), correction=1).flatten()
    return reward


def advantages(penalised: Tensor, each: int, baseline: Baseline = "group-mean") -> Tensor:
    """Return A = R − baseline; (N,), the ``each`` responses of a prompt together.

    The baseline is the mean of R over all responses of the prompt, or over its other responses (``leave-one-out``:
    Ahmadian et al. 2024, arXiv 2402.14740, eq. 6), which is n/(n − 1) times as long for n responses.
    """
    by_prompt = penalised.view(-1, each)
    centred = by_prompt - by_prompt.mean(1, keepdim=True)
    return (centred if baseline == "group-mean" else centred * (each / (each - 1))).flatten()


def alike(reward: Tensor, each: int) -> Tensor:
    """Return, for each prompt, whether all of its responses have one reward, so that they teach nothing: (N/each,)."""
    return _alike(reward.view(-1, each))[:, 0]


def _alike(groups: Tensor) -> Tensor:
    """Return whether all values of a row are equal, (rows, 1); a deviation would be 0 only up to rounding."""
    return groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)


def _standard(groups: Tensor, correction: int) -> Tensor:
    """Return each row less its mean, over its standard deviation + ``_SMALL``; 0 where all of its values are equal."""
    mean, deviation = groups.mean(1, keepdim=True), groups.std(1, correction=correction, keepdim=True)
    return ((groups - mean) / (deviation + _SMALL)).masked_fill(_alike(groups), 0.0)
