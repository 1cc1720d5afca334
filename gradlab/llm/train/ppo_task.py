"""PPO: responses sampled from the model itself, their reward less a KL penalty to the reference, a clipped step.

For a prompt x, responses y_1, …, y_n are drawn from π_old, the model as it is. Each has the penalised reward
R = r(x, y) − β (log π_old(y|x) − log π_ref(y|x)), whose expectation, E[r] − β KL(π_old‖π_ref), is what PPO maximises.
The advantage is A = R − mean of R over the prompt's responses, and the loss is ``gradlab.losses.ppo_clip`` of the whole
response's log π. Source of the reward, the clipped surrogate and the KL penalty: Schulman et al. (2017, arXiv
1707.06347) and Ziegler et al. (2019, arXiv 1909.08593, eq. 2). All that follows is ours.

- A response is one action, so the ratio ρ = π/π_old is that of the whole response, not of each token: this is the
  surrogate of the objective above, without further assumptions, and needs no value of half a response. The price: log ρ
  adds up over tokens, so that a response of 100 tokens soon leaves 1 ± ε. Hence one pass over each batch by default,
  where ρ = 1 and the step is the plain policy gradient; more passes (``ppo_epochs``) need a small learning rate.
- The mean of the group is the baseline. It holds the response's own reward too, which shortens the expected gradient by
  the factor 1 − 1/n and does not turn it. It is not divided by the group's standard deviation: that would weight
  prompts by how alike their responses are, and would no longer maximise the objective (Liu et al. 2025, arXiv
  2503.20783).
- Responses are drawn at temperature 1, since the steps must be on the distribution that the responses are drawn from.
- With ``ppo_epochs`` k, a batch of samples serves k steps of the optimiser, and the next is drawn at each k-th step.
  Seed, step and the weights at that step decide the samples. So a run resumes with equal bits from a checkpoint between
  two batches, and ``save_every`` must be a multiple of k.
- log π is the sum over tokens here, whatever ``reduction`` says of the pairs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab.llm.data.batches import Row, batch_at, dealt
from gradlab.llm.data.prepare import Data
from gradlab.llm.model.group import Group, computing, spread
from gradlab.llm.model.logps import with_logps
from gradlab.llm.model.rewards import CheckedReward, load_reward
from gradlab.llm.model.sampling import check_room, sample, texts
from gradlab.llm.train.loop import Task, check_finite
from gradlab.llm.train.pair_task import PairTask
from gradlab.llm.train.policy_model import PolicyModel, frozen
from gradlab.llm.train.reference import score
from gradlab.losses import DPO, ppo_clip

_AT_ONCE = 8  # responses are drawn at a time for each pair that is trained on at a time: no activations are kept


@dataclass
class Batch:
    """Samples and all that the steps on them need; all tensors are (N,), float64, on the CPU."""

    index: np.ndarray
    """Places of the prompts among all training prompts."""
    rows: list[Row]
    """Prompt and response."""
    penalised: Tensor
    """R = r − β log π_old/π_ref."""
    advantage: Tensor
    old_logp: Tensor | None = None
    """log π_old as the first step on the batch computes it, so that ρ is exactly 1 there; None before that step."""
    logp: Tensor | None = None
    """log π before the latest step."""
    row: dict[str, float] = field(default_factory=dict)
    """The log's columns about the samples."""

    @property
    def sides(self) -> tuple[Tensor, Tensor]:
        """Return which samples are above their prompt's mean, and which below."""
        return self.advantage > 0, self.advantage < 0


@dataclass
class PPOTask(Task[PolicyModel]):
    """Training by PPO as a task of ``run_steps``.

    prompts    token ids of each prompt; ``texts``: the same prompts as the reward reads them.
    reference  gives log π_ref of whole responses, as ``frozen_reference`` does.
    pairs      held-out pairs and a DPO loss at PPO's β, whose columns (implicit rewards, accuracy, log-probabilities)
               stand in PPO's log too, for comparison.

    The two sides of the gradient, g = g_w + g_l, are here the samples above their prompt's mean, which are pushed up,
    and the samples below it, which are pushed down. The realised changes of log π are of these two groups too.
    """

    prompts: Sequence[Sequence[int]]
    texts: Sequence[Any]
    reward: CheckedReward
    reference: Callable[..., Tensor]
    tokenizer: Any
    pairs: PairTask
    batch: Batch | None = None

    @classmethod
    def prepared(
        cls, policy: PolicyModel, data: Data, tokenizer: Any, reference: Callable[..., Tensor], held_out_ref: Tensor
    ) -> PPOTask:
        """Return the task of a run: its training prompts, the reward that the settings name, its held-out pairs.

        ValueError or OSError in one line where the reward cannot be had, or a response has no room.
        """
        settings = policy.settings
        prompts = [pair.prompt for pair in data.part(data.train)]
        check_room(prompts, settings.ppo.length, policy.plain.config)
        name: Any = settings.ppo.reward
        reward = policy.group.on_all(lambda: load_reward(name, device=policy.group.device))
        read = reward.prompts([data.pairs[index].prompt for index in data.train], settings.template, tokenizer)
        held_out = data.part(data.held_out)
        pairs = PairTask(DPO(settings.of("beta")), (), torch.zeros(0, 2), held_out, held_out_ref)
        return cls(prompts, read, reward, reference, tokenizer, pairs)

    def gradient(self, policy: PolicyModel, step: int) -> dict[str, float]:
        """Put the gradient of this step's mean loss into the policy; return its row of the log.

        ``loss`` is the mean of (surrogate − R); the surrogate is what the steps on this batch have changed so far.
        """
        settings = policy.settings
        fresh = (step - 1) % settings.ppo.epochs == 0
        if fresh:
            self.batch = self._drawn(policy, step)
            check_finite("r − β log π/π_ref", self.batch.penalised, step, self.batch.index)
        batch = self.batch
        assert batch is not None  # checkpoints stand between batches

        def surrogate(logp: Tensor, at: np.ndarray | slice) -> Tensor:
            old = logp.detach() if batch.old_logp is None else batch.old_logp[at].to(logp)
            return ppo_clip(logp, old, batch.advantage[at].to(logp), settings.ppo.clip)

        def run(values: Callable[[Tensor, np.ndarray], Tensor]) -> Tensor:
            return self._accumulated(policy, step, batch.rows, values)

        logp = run(lambda logps, at: surrogate(logps[0], at))[:, 0]
        check_finite("log π", logp, step, batch.index)
        norm = policy.norm()
        check_finite("the gradient", torch.tensor(norm), step, batch.index)
        leaf = logp.clone().requires_grad_()
        loss = surrogate(leaf, slice(None))
        (slope,) = torch.autograd.grad(loss.sum(), leaf)
        row = {"loss": float((loss.detach() - batch.penalised).mean()), "grad_norm": norm}
        if settings.ppo.epochs > 1:
            row["clip_share"] = float(((slope == 0) & (batch.advantage != 0)).double().mean())
        if settings.log.sides_every and (step - 1) % settings.log.sides_every == 0:
            row |= self.pairs.sides(policy, lambda _, values: run(values), slope[:, None] * torch.stack(batch.sides, 1))
        if fresh:
            batch.old_logp = logp
            row |= batch.row
        batch.logp = logp
        return row

    def realised(self, policy: PolicyModel, step: int, row: dict[str, float]) -> dict[str, float]:
        """Return how far the step moved mean log π of each side's samples; empty unless its row compares the sides."""
        batch = self.batch
        if "grad_norm_win" not in row or batch is None or batch.logp is None:
            return {}
        with frozen(policy):
            after = score(policy, batch.rows, policy.group, pad=policy.pad, micro=2 * policy.settings.micro)
        change = after * _tokens_of_mean(policy, batch.rows) - batch.logp
        named = zip(("delta_win", "delta_lose"), batch.sides, strict=True)
        return {name: float(change[side].mean()) for name, side in named if side.any()}

    def validate(self, policy: PolicyModel) -> dict[str, float]:
        """Return the log's columns about the held-out pairs; the loss is DPO's."""
        return self.pairs.validate(policy)

    def resumable(self, policy: PolicyModel, step: int) -> bool:
        """Say whether the step was the last on its batch of samples, which no checkpoint holds."""
        return step % policy.settings.ppo.epochs == 0

    def described(self, index: Sequence[int]) -> list[dict[str, Any]]:
        """Return the prompts at ``index`` with their latest responses, for a person who looks at a failed batch."""
        rows = self.batch.rows if self.batch is not None else []
        return [
            {"text": self.texts[place], "tokens": self.prompts[place],
             "responses": [response for prompt, response in rows if prompt == self.prompts[place]]}
            for place in index
        ]  # fmt: skip

    def _drawn(self, policy: PolicyModel, step: int) -> Batch:
        """Draw new samples, and score them by policy, reference and reward."""
        settings, group = policy.settings, policy.group
        index = batch_at((step - 1) // settings.ppo.epochs, len(self.prompts), settings.batch, settings.seed)
        prompts = [self.prompts[place] for place in index]
        samples = sample(
            policy.model, self.tokenizer, prompts, each=settings.ppo.samples, longest=settings.ppo.length,
            seed=settings.seed, step=step, batch=_AT_ONCE * settings.micro, precision=settings.precision,
            group=group,
        )  # fmt: skip
        rows: list[Row] = [
            (prompts[place], tokens) for place, tokens in zip(samples.prompts, samples.tokens, strict=True)
        ]
        reward = self._rewards(
            [self.texts[index[place]] for place in samples.prompts], texts(samples, self.tokenizer), group
        )
        with frozen(policy):
            logp, ref_logp = (
                score(forward, rows, group, pad=policy.pad, micro=2 * settings.micro)
                for forward in (policy, self.reference)
            )
        logratio = logp * _tokens_of_mean(policy, rows) - ref_logp
        penalised = reward - settings.of("beta") * logratio
        by_prompt = reward.view(-1, settings.ppo.samples)
        row = {
            "reward": reward.mean(), "reward_deviation": by_prompt.std(1, correction=0).mean(), "kl": logratio.mean(),
            "response_length": np.mean([len(ids) for ids in samples.tokens]), "finished": np.mean(samples.finished),
        }  # fmt: skip
        return Batch(
            index, rows, penalised, advantages(penalised, settings.ppo.samples),
            row={name: float(value) for name, value in row.items()},
        )  # fmt: skip

    def _rewards(self, prompts: list[Any], responses: list[str], group: Group) -> Tensor:
        """Return rewards (N,), of which each process computes a share; ValueError where a process cannot."""
        share = slice(group.rank, None, group.size)
        rewards = torch.zeros(len(responses), dtype=torch.float64)
        scored = group.on_all(lambda: self.reward(prompts[share], responses[share]))
        rewards[share] = torch.as_tensor(scored, dtype=torch.float64)
        return group.total(rewards)

    @staticmethod
    def _accumulated(
        policy: PolicyModel, step: int, rows: list[Row], values: Callable[[Tensor, np.ndarray], Tensor]
    ) -> Tensor:
        """Put the gradient of the mean value into the policy; return log π of all samples, (N, 1)."""
        settings, scale = policy.settings, _tokens_of_mean(policy, rows)
        lengths = np.array([len(prompt) + len(response) for prompt, response in rows])
        logps = policy.accumulate(
            dealt(lengths, 2 * settings.micro, policy.group.rank, policy.group.size),
            lambda places: [rows[place] for place in places],
            lambda logps, at: values(logps * scale[at].to(logps), at),
            number=len(rows), step=step,
        )  # fmt: skip
        return logps * scale[:, None]


def advantages(penalised: Tensor, each: int) -> Tensor:
    """Return A = R − mean of R over the ``each`` responses of its prompt; (N,), the responses of a prompt together."""
    by_prompt = penalised.view(-1, each)
    return (by_prompt - by_prompt.mean(1, keepdim=True)).flatten()


def frozen_reference(source: str, start: str, policy: PolicyModel, load: Callable[[str], Any]) -> Callable[..., Tensor]:
    """Keep the reference in memory beside the policy; return the function from a collated batch to log π_ref, (B,).

    The reference has the policy's types and is spread like it, so that log π/π_ref is exactly 0 as long as both have
    the same weights. Where the policy is a LoRA adapter on the reference, no second model is needed: the adapter is
    turned off.

    source  the folder or hub name of the reference; ``start``: that of the model from which the policy starts.
    load    loads a model from such a name.
    """
    group, settings = policy.group, policy.settings
    apart = group.size > 1 and settings.distribution == "fsdp"
    adapted = (Path(source) / "adapter_config.json").is_file()
    if settings.lora.rank and start == source and not adapted and not apart:
        model, off = policy.plain, policy.plain.disable_adapter
    else:
        loaded = group.on_all(lambda: load(source)).requires_grad_(False)
        loaded = loaded if apart else loaded.to(group.device)
        model, off = with_logps(loaded, chunk=settings.chunk, group=group), contextlib.nullcontext
        model = spread(model, group, "fsdp", settings.precision) if apart else model
        model.eval()

    def forward(**batch: Tensor) -> Tensor:
        with off(), computing(group.device, settings.precision):
            return model(**batch)

    return forward


def _tokens_of_mean(policy: PolicyModel, rows: Sequence[Row]) -> Tensor:
    """Return the factors (N,) that turn the policy's log π into sums: the tokens where it gives means, else 1."""
    mean = policy.settings.reduction == "mean"
    return torch.tensor([len(response) if mean else 1 for _, response in rows], dtype=torch.float64)
