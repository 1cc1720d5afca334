"""Samples that PPO trains on: drawn from the policy, scored by policy, reference and reward, and shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab.console import say
from gradlab.llm.data.batches import Layout, Row, batch_at
from gradlab.llm.data.prepare import Data
from gradlab.llm.model.group import Elsewhere, Group
from gradlab.llm.model.rewards import CheckedReward, load_reward
from gradlab.llm.model.sampling import Samples, sample, texts
from gradlab.llm.train.loop import NoStep
from gradlab.llm.train.policy_model import PolicyModel, frozen
from gradlab.llm.train.ppo_rewards import advantages, alike, shaped

SHOWN = 4  # prompts of a batch that ``Batch.shown`` has
_AT_ONCE = 8  # responses are drawn at a time for each pair that is trained on at a time: no activations are kept


@dataclass(frozen=True)
class Scorer:
    """A reward, with all training prompts as it reads them."""

    reward: CheckedReward
    prompts: Sequence[Any]

    @classmethod
    def loaded(cls, spec: str, policy: PolicyModel, data: Data, tokenizer: Any) -> Scorer:
        """Load the reward that ``spec`` names, in every process; ValueError or OSError where it cannot be had."""
        reward = policy.group.on_all(lambda: load_reward(spec, device=policy.group.device))
        prompts = [data.pairs[index].prompt for index in data.train]
        return cls(reward, reward.prompts(prompts, policy.settings.template, tokenizer))

    def __call__(self, places: Sequence[int], responses: list[str], group: Group) -> Tensor:
        """Return rewards (N,), of which each process computes a share; ``NoStep`` where a process cannot.

        places  of each response: the place of its prompt among the training prompts.
        """
        share = slice(group.rank, None, group.size)
        rewards = torch.zeros(len(responses), dtype=torch.float64)
        read = [self.prompts[place] for place in places[share]]
        scored = group.on_all(lambda: self._scored(read, responses[share]))
        try:
            group.on_all(lambda: _check(scored))
        except (ValueError, Elsewhere) as error:
            raise NoStep(str(error)) from error
        rewards[share] = torch.as_tensor(scored, dtype=torch.float64)
        return group.total(rewards)

    def _scored(self, prompts: Sequence[Any], responses: list[str]) -> np.ndarray | ValueError:
        """Return rewards, or the error that says what is wrong with them; any other error is raised."""
        try:
            return self.reward(prompts, responses)
        except ValueError as error:
            return error


@dataclass
class Batch:
    """Samples and all that the steps on them need; all tensors are float64, on the CPU.

    They are (N,), but log π and log π_ref are (N, W) where PPO's level is that of tokens, 0 after a response's end.
    """

    index: np.ndarray
    """Places of the prompts among all training prompts."""
    rows: list[Row]
    """Prompt and response; the responses to a prompt follow one another."""
    groups: list[Row]
    """The same, with responses to a prompt that the model reads together, see ``together``."""
    penalised: Tensor
    """R, the rewards that the steps maximise."""
    advantage: Tensor
    ref_logp: Tensor
    """log π_ref."""
    shown: list[dict[str, Any]]
    """The samples of ``SHOWN`` prompts, for a person: first those of one reward, which ``zero_variance`` counts."""
    old_logp: Tensor | None = None
    """log π_old as the first step on the batch computes it, so that ρ is exactly 1 there; None before that step."""
    logp: Tensor | None = None
    """log π of each response before the latest step, (N,) whatever the level."""
    row: dict[str, float] = field(default_factory=dict)
    """The log's columns about the samples."""

    def each_advantage(self, like: Tensor, at: np.ndarray | slice) -> Tensor:
        """Return the advantages of some samples in the shape of their log π: of its tokens too, 0 after its end."""
        advantage = self.advantage[at].to(like)
        return advantage if like.dim() == 1 else advantage[:, None] * self.tokens[at].to(like)

    @property
    def tokens(self) -> Tensor:
        """Return which places of log π are tokens, (N, W)."""
        lengths = torch.tensor([len(response) for _, response in self.rows])
        return torch.arange(self.ref_logp.shape[1]) < lengths[:, None]

    @property
    def sides(self) -> tuple[Tensor, Tensor]:
        """Return which samples are above their prompt's baseline, and which below."""
        return self.advantage > 0, self.advantage < 0


def draw(
    policy: PolicyModel, step: int, prompts: Sequence[Sequence[int]], tokenizer: Any, *,
    reference: Callable[..., Tensor], scorer: Scorer, judge: Scorer | None = None,
) -> Batch:  # fmt: skip
    """Draw responses to the prompts of a step, and score them.

    prompts  token ids of all training prompts, of which seed and step choose the batch.
    The other arguments are ``PPOTask``'s.
    """
    settings, group, of = policy.settings, policy.group, policy.settings.ppo
    index = batch_at((step - 1) // of.epochs, len(prompts), settings.batch, settings.seed)
    chosen = [prompts[place] for place in index]
    samples = sample(
        policy.model, tokenizer, chosen, each=of.samples, longest=of.length, seed=settings.seed, step=step,
        batch=_AT_ONCE * settings.micro, precision=policy.precision, group=group,
    )  # fmt: skip
    rows: list[Row] = [(chosen[place], tokens) for place, tokens in zip(samples.prompts, samples.tokens, strict=True)]
    places, responses = [int(index[place]) for place in samples.prompts], texts(samples, tokenizer)
    groups = together(policy, rows, of.samples, [policy.layout, getattr(reference, "layout", policy.layout)])
    raw = scorer(places, responses, group)
    judged = None if judge is None else judge(places, responses, group)
    with frozen(policy):
        logp, ref_logp = (scored(policy, groups, by=by) for by in (None, reference))
    logp = summed(logp * tokens_of_mean(policy, rows))
    logratio = logp - summed(ref_logp)
    finished = torch.tensor(samples.finished)
    tokens = torch.tensor([len(ids) for ids in samples.tokens])
    reward = shaped(raw, finished, tokens, of)
    penalised = reward - settings.of("beta") * logratio if of.kl == "k1" else reward
    if step == 1 and group.is_main and bool((raw == raw[0]).all()):
        say(_constant(scorer.reward.name, raw), file=sys.stderr)
    row = {
        "reward": raw.mean(), "reward_deviation": raw.view(-1, of.samples).std(1, correction=0).mean(),
        "kl": logratio.mean(), "response_length": np.mean([len(ids) for ids in samples.tokens]),
        "finished": np.mean(samples.finished),
        "zero_variance": alike(reward, of.samples).double().mean(), "entropy": -logp.sum() / tokens.sum(),
    }  # fmt: skip
    if judged is not None:
        row["judge"] = judged.mean()
    if of.clip_reward is not None:
        row["reward_clipped"] = (raw.abs() > of.clip_reward).double().mean()
    return Batch(
        index, rows, groups, penalised, advantages(penalised, of.samples, of.baseline), ref_logp,
        _shown([scorer.prompts[place] for place in index], samples, responses, raw, judged, reward, logratio),
        row={name: float(value) for name, value in row.items()},
    )  # fmt: skip


def together(policy: PolicyModel, rows: Sequence[Row], samples: int, layouts: Sequence[Layout]) -> list[Row]:
    """Return rows of one response each as rows of several to one prompt, so that the prompt is read once for these.

    samples  responses to each prompt, which follow one another.
    layouts  those of the models that read the rows.

    All rows get equally many responses, the largest divisor of ``samples`` that a micro-batch has room for.
    """
    settings, budget = policy.settings, policy.settings.tokens_per_micro
    most = min(samples, 2 * settings.micro) if all(layout.once for layout in layouts) else 1
    for each in range(most, 1, -1):
        if samples % each == 0:
            starts = range(0, len(rows), each)
            groups = [(rows[start][0], *(row[1] for row in rows[start : start + each])) for start in starts]
            if budget is None or max(layout.tokens(groups).max() for layout in layouts) <= budget:
                return groups
    return list(rows)


def micro_of(policy: PolicyModel, groups: Sequence[Row]) -> int:
    """Return how many groups of samples are a micro-batch: two samples count as a pair."""
    return max(2 * policy.settings.micro // (len(groups[0]) - 1), 1)


def scored(policy: PolicyModel, groups: Sequence[Row], *, by: Callable[..., Tensor] | None = None) -> Tensor:
    """Return log π of the samples, (N,), or of their tokens, (N, W); ``by``: as in ``PolicyModel.score``."""
    return policy.score(groups, micro_of(policy, groups), width=width_of(policy), by=by)


def width_of(policy: PolicyModel) -> int | None:
    """Return W where PPO's level is that of tokens, else None."""
    return policy.settings.ppo.length if policy.settings.ppo.level == "token" else None


def summed(logp: Tensor) -> Tensor:
    """Return log π of responses, (N,), from that of responses or of their tokens."""
    return logp if logp.dim() == 1 else logp.sum(1)


def tokens_of_mean(policy: PolicyModel, rows: Sequence[Row]) -> Tensor:
    """Return the factors, (N,) or (N, 1), that turn the policy's log π into sums: the tokens where it gives means."""
    mean = policy.settings.reduction == "mean" and width_of(policy) is None
    factors = torch.tensor([len(response) if mean else 1 for _, response in rows], dtype=torch.float64)
    return factors if width_of(policy) is None else factors[:, None]


def _shown(
    prompts: Sequence[Any], samples: Samples, responses: Sequence[str], raw: Tensor, judged: Tensor | None,
    reward: Tensor, logratio: Tensor,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return ``SHOWN`` prompts, each with its responses and their rewards and KL; those that teach nothing first."""
    each = len(responses) // len(prompts)
    same = alike(reward, each)
    first = sorted(range(len(prompts)), key=lambda at: not same[at])
    return [
        {
            "prompt": prompts[at], "same_reward": bool(same[at]),
            "responses": [
                {
                    "text": responses[n], "reward": float(raw[n]),
                    **({} if judged is None else {"judge": float(judged[n])}),
                    "kl": float(logratio[n]), "tokens": len(samples.tokens[n]), "finished": samples.finished[n],
                }
                for n in range(at * each, (at + 1) * each)
            ],
        }
        for at in first[:SHOWN]
    ]  # fmt: skip


def _check(scored: object) -> None:
    if isinstance(scored, ValueError):
        raise scored


def _constant(name: str, reward: Tensor) -> str:
    return (
        f"gradlab: reward {name} gave {float(reward[0]):g} for all {len(reward)} responses of step 1; PPO learns only "
        "from differences among the responses to one prompt, and zero_variance in the log counts prompts without any"
    )
