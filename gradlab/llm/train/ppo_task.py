"""PPO: responses sampled from the model itself, their reward less a KL penalty to the reference, a clipped step.

For a prompt x, responses y_1, …, y_n are drawn from π_old, the model as it is. By default each has the penalised reward
R = r(x, y) − β (log π_old(y|x) − log π_ref(y|x)), whose expectation, E[r] − β KL(π_old‖π_ref), is what PPO maximises.
The advantage is A = R − mean of R over the prompt's responses, and the loss is ``gradlab.losses.ppo_clip`` of the whole
response's log π. Source of the reward, the clipped surrogate and the KL penalty: Schulman et al. (2017, arXiv
1707.06347) and Ziegler et al. (2019, arXiv 1909.08593, eq. 2). All that follows is ours, unless it says otherwise.

- A response is one action, so the ratio ρ = π/π_old is that of the whole response, not of each token: this is the
  surrogate of the objective above, without further assumptions, and needs no value of half a response. The price: log ρ
  adds up over tokens, so that a response of 100 tokens soon leaves 1 ± ε. Hence one pass over each batch by default,
  where ρ = 1 and the step is the plain policy gradient; more passes (``ppo.epochs``) need a small learning rate. Where
  ``ppo.level`` is that of tokens, each token has its own ratio and clip, with the response's advantage, and losses are
  summed over a response's tokens: at ρ = 1 this is the same step. Their mean, which GRPO takes, favours long wrong
  answers (Liu et al. 2025). k2 and k3 are then of each token, summed: they leave out what a token does to later ones.
- The mean of the group is the baseline. It holds the response's own reward too, which shortens the expected gradient by
  the factor 1 − 1/n and does not turn it; ``leave-one-out`` leaves the response out (RLOO). By default nothing is
  divided by the group's standard deviation: that weights prompts by how alike their responses are, and no longer
  maximises the objective (Liu et al. 2025, arXiv 2503.20783). ``ppo.normalize`` divides by it, as GRPO does, but only
  the rewards: the KL penalty keeps its β, and a group whose rewards are equal gets no push from a deviation near 0.
- The place of the KL penalty follows from its estimator (``gradlab.losses.kl_estimate``), so that each has a gradient
  that pulls to the reference. ``k1`` is taken from the reward, where its gradient is that of β KL(π‖π_ref); as a loss
  term it would pull nowhere. ``k2`` and ``k3`` are loss terms, β k2 with the gradient of β KL(π‖π_ref), and β k3, which
  GRPO has, with the gradient of β KL(π_ref‖π); in the reward neither would give a gradient of a KL. On the second pass
  over a batch and later, samples are from π_old and not from π, for which the loss terms are not corrected (nor are
  GRPO's). Source: Tang & Munos (2025, arXiv 2506.09477), and by the same identities the tests.
- Responses are drawn at temperature 1, since the steps must be on the distribution that the responses are drawn from.
- With ``ppo.epochs`` k, a batch of samples serves k steps of the optimiser, and the next is drawn at each k-th step.
  Seed, step and the weights at that step decide the samples. So a run resumes with equal bits from a checkpoint between
  two batches, and ``save_every`` must be a multiple of k.
- log π is the sum over tokens here, whatever ``reduction`` says of the pairs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab.llm.data.batches import Layout
from gradlab.llm.data.prepare import Data
from gradlab.llm.model.group import computing, spread
from gradlab.llm.model.loading import is_adapter
from gradlab.llm.model.logps import with_logps
from gradlab.llm.model.sampling import check_room
from gradlab.llm.train.loop import Task, check_finite
from gradlab.llm.train.pair_task import PairTask
from gradlab.llm.train.policy_model import PolicyModel, frozen
from gradlab.llm.train.ppo_samples import Batch, Scorer, draw, micro_of, scored, summed, tokens_of_mean, width_of
from gradlab.losses import DPO, kl_estimate, ppo_clip


@dataclass
class PPOTask(Task[PolicyModel]):
    """Training by PPO as a task of ``run_steps``.

    prompts    token ids of each prompt.
    scorer     the reward; ``judge``: a second one, which is logged and never trained on.
    reference  gives log π_ref of whole responses, as ``frozen_reference`` does.
    pairs      held-out pairs and a DPO loss at PPO's β, whose columns (implicit rewards, accuracy, log-probabilities)
               stand in PPO's log too, for comparison.

    The two sides of the gradient, g = g_w + g_l, are here the samples above their prompt's baseline, which are pushed
    up, and the others, which are pushed down. The realised changes of log π are of the samples above and below.
    """

    prompts: Sequence[Sequence[int]]
    scorer: Scorer
    reference: Callable[..., Tensor]
    tokenizer: Any
    pairs: PairTask
    judge: Scorer | None = None
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
        policy.parts([(max(prompts, key=len), range(settings.ppo.length))], 1)  # ValueError if above the budget
        scorer, judge = (
            Scorer.loaded(spec, policy, data, tokenizer) if spec else None
            for spec in (settings.ppo.reward, settings.ppo.judge)
        )
        assert scorer is not None  # the settings name a reward where a loss is PPO
        held_out = data.part(data.held_out)
        pairs = PairTask(DPO(settings.of("beta")), (), torch.zeros(0, 2), held_out, held_out_ref)
        return cls(prompts, scorer, reference, tokenizer, pairs, judge)

    def gradient(self, policy: PolicyModel, step: int) -> dict[str, float]:
        """Put the gradient of this step's mean loss into the policy; return its row of the log.

        ``loss`` is the mean of (surrogate + β k − R), k being 0 where the KL penalty is in R; the surrogate is what the
        steps on this batch have changed so far.
        """
        settings = policy.settings
        fresh = (step - 1) % settings.ppo.epochs == 0
        if fresh:
            self.batch = self._drawn(policy, step)
        batch = self.batch
        assert batch is not None  # checkpoints stand between batches

        def parts(logp: Tensor, at: np.ndarray | slice) -> list[Tensor]:
            old = logp.detach() if batch.old_logp is None else batch.old_logp[at].to(logp)
            surrogate = ppo_clip(logp, old, batch.each_advantage(logp, at), settings.ppo.clip)
            if settings.ppo.kl == "k1":
                return [surrogate]
            kl = kl_estimate(logp, batch.ref_logp[at].to(logp), settings.ppo.kl)
            return [surrogate, settings.of("beta") * kl]

        def run(values: Callable[[Tensor, np.ndarray], Tensor]) -> Tensor:
            return self._accumulated(policy, step, batch, values)

        logp = run(lambda logps, at: torch.stack(parts(logps[0], at)).sum(0))
        check_finite("log π", logp, step, batch.index)
        norm = policy.norm()
        check_finite("the gradient", torch.tensor(norm), step, batch.index)
        leaf = logp.clone().requires_grad_()
        terms = parts(leaf, slice(None))
        slopes = [torch.autograd.grad(term.sum(), leaf)[0] for term in terms]
        advantage, slope = batch.each_advantage(logp, slice(None)), torch.stack(slopes).sum(0)
        loss = torch.stack([summed(term.detach()) for term in terms]).sum(0)
        if settings.ppo.level == "token":
            loss = loss + advantage.sum(1)  # so that ρ = 1 gives 0 whatever a response's length
        row = {"loss": float((loss - batch.penalised).mean()), "grad_norm": norm}
        if len(terms) > 1:
            row["kl_penalty"] = float(summed(terms[1].detach()).mean()) / settings.of("beta")
        if settings.ppo.epochs > 1:
            actions = len(logp) if settings.ppo.level == "sequence" else int(batch.tokens.sum())
            row["clip_share"] = float(((slopes[0] == 0) & (advantage != 0)).double().sum()) / actions
        if settings.log.sides_every and (step - 1) % settings.log.sides_every == 0:
            up = (batch.advantage > 0).view(-1, *[1] * (logp.dim() - 1))
            sides = torch.stack([slope * up, slope * ~up], 1)
            row |= self.pairs.sides(policy, lambda _, values: run(values), sides, check=step == 1)
        if fresh:
            batch.old_logp = logp
            row |= batch.row
        batch.logp = summed(logp)
        return row

    def realised(self, policy: PolicyModel, step: int, row: dict[str, float]) -> dict[str, float]:
        """Return how far the step moved mean log π of each side's samples; empty unless its row compares the sides."""
        batch = self.batch
        if "grad_norm_win" not in row or batch is None or batch.logp is None:
            return {}
        with frozen(policy):
            after = scored(policy, batch.groups)
        change = summed(after * tokens_of_mean(policy, batch.rows)) - batch.logp
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
            {"text": self.scorer.prompts[place], "tokens": self.prompts[place],
             "responses": [response for prompt, response in rows if prompt == self.prompts[place]]}
            for place in index
        ]  # fmt: skip

    def samples(self) -> list[dict[str, Any]]:
        """Return the latest samples of some prompts, with their rewards and KL, for a person."""
        return self.batch.shown if self.batch is not None else []

    def _drawn(self, policy: PolicyModel, step: int) -> Batch:
        """Draw and score new samples; ``NotFinite`` where a score is not finite."""
        batch = draw(
            policy, step, self.prompts, self.tokenizer, reference=self.reference, scorer=self.scorer, judge=self.judge
        )
        self.batch = batch  # for ``described``
        check_finite(
            "r − β log π/π_ref" if policy.settings.ppo.kl == "k1" else "the reward", batch.penalised, step, batch.index
        )
        check_finite("log π_ref", batch.ref_logp, step, batch.index)
        return batch

    @staticmethod
    def _accumulated(
        policy: PolicyModel, step: int, batch: Batch, values: Callable[[Tensor, np.ndarray], Tensor]
    ) -> Tensor:
        """Put the gradient of the mean value into the policy; return log π of samples, (N,), or of tokens (N, W)."""
        groups, scale = batch.groups, tokens_of_mean(policy, batch.rows)
        each = len(groups[0]) - 1

        def of_samples(logps: Tensor, at: np.ndarray) -> Tensor:
            logps = logps.transpose(0, 1).flatten(0, 1)
            places = (at[:, None] * each + np.arange(each)).ravel()
            return values((logps * scale[places].to(logps))[None], places)

        logps = policy.accumulate(
            policy.parts(groups, micro_of(policy, groups)),
            lambda places: [groups[place] for place in places],
            of_samples, number=len(batch.rows), items=len(groups), step=step, width=width_of(policy),
        )  # fmt: skip
        return logps.flatten(0, 1) * scale


@dataclass(frozen=True)
class FrozenReference:
    """The function from a collated batch to log π_ref, (R,).

    off     turns an adapter off, where the model has one.
    layout  the model's, which need not be the policy's; ``computing``: the types that it computes in.
    """

    model: Any
    off: Callable[[], contextlib.AbstractContextManager[Any]]
    layout: Layout
    computing: Callable[[], contextlib.AbstractContextManager[Any]]

    def __call__(self, **batch: Tensor) -> Tensor:
        """Return log π_ref of each response, (R,) in nats."""
        with self.off(), self.computing():
            return self.model(**batch)


def frozen_reference(source: str, start: str, policy: PolicyModel, load: Callable[[str], Any]) -> FrozenReference:
    """Keep the reference in memory beside the policy.

    The reference has the policy's types and is spread like it, so that log π/π_ref is exactly 0 as long as both have
    the same weights. Where the policy is a LoRA adapter on the reference, no second model is needed: the adapter is
    turned off.

    source  the folder or hub name of the reference; ``start``: that of the model from which the policy starts.
    load    loads a model from such a name.
    """
    group, settings = policy.group, policy.settings
    apart = group.spreads(settings.distribution)
    adapted = is_adapter(source)
    if settings.lora.rank and start == source and not adapted and not apart:
        model, off, layout = policy.plain, policy.plain.disable_adapter, policy.layout
    else:
        loaded = group.on_all(lambda: load(source)).requires_grad_(False)
        loaded = loaded if apart else loaded.to(group.device)
        model, off = with_logps(loaded, chunk=settings.chunk, group=group), contextlib.nullcontext
        layout = model.layout
        model = spread(model, group, "fsdp", policy.precision) if apart else model
        model.eval()
    return FrozenReference(model, off, layout, lambda: computing(group.device, policy.precision))
