"""How pairs are sampled: what it does to the pairs that are seen, to the policy, and to where a loss settles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from gradlab.lab import metrics
from gradlab.lab.descent import recorded_steps
from gradlab.lab.fit import fit
from gradlab.lab.samplers import Sampler, pair_weights, sampler_of
from gradlab.lab.settling import settle
from gradlab.lab.training import Training
from gradlab.lab.world import World, draw_pairs, exact_pairs, gaussian_world
from gradlab.losses import DPO, BalancedDPO, FixedWeightDPO, PairLoss
from gradlab.plotting.charts import Axis, Chart, Curve, Curves, Map
from gradlab.plotting.palette import CHOSEN, FAINT, INK
from gradlab.theory import bdpo_share_corrected
from gradlab.widgets.controls import Choice, Controls, slider
from gradlab.widgets.explorer import Explorer, Reading, Story
from gradlab.widgets.world_controls import seed_control, top_of

PROMPTS, RESPONSES, SHOWN = 4, 20, 1  # the prompt whose policy and pairs are drawn
STEPS = 300
RECIPE = Training(optimizer="adam", learning_rate=0.05, steps=STEPS, record=24)
_EACH_STEP = 2000  # log-spaced steps among which is each of the 300: a sampler may look at any of them
EXACT, FRESH, FROZEN = "exact", "fresh", "frozen"
LOSSES = {"DPO": "dpo", "bDPO": "bdpo", "bDPO at 2β": "bdpo at 2β", "DPO at β/2 (λ = ½)": "half"}
_MADE: dict[str, Any] = {
    "dpo": DPO, "bdpo": BalancedDPO, "bdpo at 2β": lambda beta: BalancedDPO(2 * beta),
    "half": lambda beta: FixedWeightDPO(beta, 0.5),
}  # fmt: skip
SAMPLERS = {
    "on-policy": "on-policy", "mixture, half on-policy": "mixture:alpha=0.5", "temperature 2": "tempered:temperature=2",
    "from the reference": "reference", "top 5": "top-k:k=5", "best against worst of 4": "best-worst:draws=4",
    "mix-R": "mix-r", "mix-P": "mix-p:beta={beta}", "PILAF": "pilaf:beta={beta}",
    "rejection sampling": "rejection:beta={beta}", "uniform": "uniform",
}  # fmt: skip
_SAME = 0.1  # of the imbalance: a change by less is none
_TEMPLATE = """\
import gradlab as gl

world = gl.gaussian_world(prompts=4, scale={scale}, sigma=3.0, reference={reference}, shift=6.0, seed={seed})
fitted = gl.fit(world, {loss_code}, sampler={law}, sampler_every={every_code}, {data_code}, steps=300, seed={seed})
print(fitted.history.tail(1)[["utility_share", "kl"]])
"""


@dataclass(frozen=True)
class Side:
    """One training: at its recorded steps (S,) reward, KL and imbalance; the shown prompt's policy and pairs."""

    utility_share: np.ndarray
    kl: np.ndarray
    imbalance: np.ndarray
    corrected: np.ndarray
    policy: np.ndarray  # (Y,) at the end
    pairs: np.ndarray  # (Y, Y) shares of unordered pairs, at the end

    def along(self, steps: np.ndarray, name: str) -> float:
        """Return the mean of a quantity along the training."""
        return float(np.trapezoid(getattr(self, name), steps) / steps[-1])


@dataclass(frozen=True)
class Sampled:
    """A training under a sampler, and the same one under uniform sampling.

    apart  mean KL between where the loss settles under both, with exact labels; a text where it does not, or cannot.
    """

    steps: np.ndarray
    sampled: Side
    even: Side
    reference: np.ndarray
    ideal: np.ndarray
    label: str
    apart: float | str = "…"

    @property
    def ratio(self) -> float:
        """The imbalance along training over that under uniform sampling."""
        return self.sampled.along(self.steps, "imbalance") / self.even.along(self.steps, "imbalance")


class SamplingExplorer(Explorer):
    """One loss, one sampler, and uniform sampling beside it."""

    name = "sampling"
    template = _TEMPLATE
    question = "Does it matter how pairs are sampled: for their imbalance, for the reward, for where a loss settles?"
    prediction = (
        "so far every pair was equally likely. Now both responses of a pair come from the current policy: good ones "
        "are seen more and more often, bad ones hardly at all."
    )
    first_move = "Choose a guess, then go through the samplers: violet is the sampler, grey uniform sampling."
    ask = "Against uniform sampling, what happens to the imbalance |log π_l/π_w| of the pairs that a step sees?"
    readings_answer = True
    answers: ClassVar = {"falls": "it falls", "stays": "it stays", "rises": "it rises"}
    reading = (
        "First row: the policy of one prompt at the end, and how often each pair of its responses is then seen "
        "(logarithmic colours). Second row: imbalance of the pairs seen, and share of the reachable reward, step by "
        "step. Violet: the sampler. Grey: uniform sampling with the same loss and data. Dotted: π_ref exp(u/β). "
        "*Settled apart* is KL between where the loss settles under both, with exact labels; it comes a moment later."
    )
    takeaway = (
        "With exact labels, pairs drawn from the policy are alike, so their imbalance is small; mix-R and mix-P choose "
        "unequal pairs, and raise it. Where there is less to correct, bDPO's weights correct a larger share. DPO then "
        "settles at one policy under every sampler that sees all pairs, and only its speed changes. bDPO settles "
        "elsewhere, mostly by less than a tenth of a nat, where it settles at all. Without full support, as with the "
        "top 5, nothing tells the loss about the other responses."
    )
    stories = (
        Story("On-policy", "the pairs seen are alike: less to correct, and bDPO corrects more of it.", {}),
        Story("Best against worst", "the label is clear, yet the pair is less unequal than a uniform one: all four "
              "draws come from the policy.", {"sampler": "best-worst:draws=4"}),
        Story("Mix-P", "pairs that the policy finds unequal: their imbalance rises.",
              {"sampler": "mix-p:beta={beta}"}),
        Story("The top 5", "pairs outside are never seen: not even DPO ends at the dotted policy.",
              {"sampler": "top-k:k=5", "loss": "dpo"}),
        Story("Frozen at the start", "the sampler stays at the pairs of a shifted reference, while the policy "
              "moves.", {"every": FROZEN, "reference": "shifted"}),
        Story("16 fresh pairs per step", "labels drawn as training goes, as online methods do.", {"data": FRESH}),
    )  # fmt: skip

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of sampling, training and world."""
        return {
            "Sampling": {
                "sampler": Choice("sampler", "on-policy", SAMPLERS, "how pairs are drawn, or weighted"),
                "every": Choice("it follows the policy", 1, {"every step": 1, "every 10 steps": 10,
                                                             "every 100 steps": 100, "never": FROZEN},
                                "at which steps the sampler looks at the policy"),
                "data": Choice("labels", EXACT, {"exact": EXACT, "100 pairs": 100, "16 fresh pairs per step": FRESH},
                               "exact: Bradley–Terry probabilities of all pairs"),
            },
            "The training": {
                "loss": Choice("loss", "bdpo", LOSSES, "trained under both ways of sampling"),
                "beta": slider("β", 1.0, 0.2, 4.0, "of the loss; bDPO at 2β takes twice as much"),
            },
            "The world": {
                "reference": Choice("reference", "uniform", ["uniform", "shifted"], "where training starts"),
                "scale": slider("height R", 2.0, 0.5, 6.0, "log-odds by which the best beats a bad response"),
                "seed": seed_control(),
            },
        }  # fmt: skip

    def compute(self, state: SimpleNamespace) -> Iterator[Sampled]:
        """Train under both; then seek where the loss settles."""
        world = gaussian_world(
            prompts=PROMPTS, responses=RESPONSES, scale=state.scale, sigma=3.0, reference=state.reference,
            shift=6.0, seed=state.seed,
        )  # fmt: skip
        loss, law = loss_of(state), law_of(state)
        steps, sampled = trained(world, loss, law, state)
        even = trained(world, loss, sampler_of("uniform"), state)[1] if law != sampler_of("uniform") else sampled
        ideal = world.ideal_logp(state.beta)[SHOWN]
        found = Sampled(steps, sampled, even, world.ref_logp[SHOWN], ideal, law.label)
        yield found
        yield replace(found, apart=apart(world, loss, law))

    def charts(self, result: Sampled, pinned: Sampled | None) -> list[Chart]:
        """Return the policy, the pairs, imbalance and reward."""
        violet = CHOSEN[0]
        at, step = np.arange(RESPONSES, dtype=float), Axis("step", 1, STEPS, "log")
        response = Axis("response", 0, RESPONSES - 1)
        before = [Curve("pinned", at, pinned.sampled.policy, violet, faint=True)] if pinned else []
        top = top_of(max(result.sampled.policy.max(), result.even.policy.max(), np.exp(result.ideal).max()))
        pairs = np.log10(np.maximum(result.sampled.pairs, 1e-6))
        np.fill_diagonal(pairs, np.nan)
        return [
            Curves(
                "the policy at the end", "Probabilities of one prompt's responses at the end of training", response,
                Axis("probability", 0, top),
                [
                    *before, Curve("reference", at, np.exp(result.reference), FAINT, dash="dashed"),
                    Curve("π_ref exp(u/β)", at, np.exp(result.ideal), INK, dash="dotted"),
                    Curve("uniform sampling", at, result.even.policy, INK, marker="diamond"),
                    Curve(result.label, at, result.sampled.policy, violet, marker="dot"),
                ],
            ),
            Map(
                f"pairs seen: {result.label}", "How often each pair of one prompt's responses is seen at the end",
                Axis("response i", 0, RESPONSES - 1), Axis("response j", 0, RESPONSES - 1), at, at, pairs,
                "log10 of the share of pairs", -6.0, -1.0,
            ),
            self._along("imbalance of the pairs seen", "mean |log π_l/π_w| (nats)", "imbalance", result, pinned, step),
            self._along("reward", "share of the reachable reward", "utility_share", result, pinned, step),
        ]  # fmt: skip

    def _along(self, title: str, label: str, name: str, result: Sampled, pinned: Sampled | None, step: Axis) -> Curves:
        """Return a quantity along both trainings."""
        steps = np.maximum(result.steps, 1)
        sides = [(result.label, result.sampled, CHOSEN[0]), ("uniform sampling", result.even, INK)]
        shown = [getattr(side, name) for _, side, _ in sides]
        before = []
        if pinned:
            before = [
                Curve("pinned", np.maximum(pinned.steps, 1), getattr(pinned.sampled, name), CHOSEN[0], faint=True)
            ]
            shown.append(getattr(pinned.sampled, name))
        high = float(max(values.max() for values in shown))
        low = float(min(0.0, *(values.min() for values in shown)))
        ends = Axis(label, low, 1.0) if name == "utility_share" else Axis(label, 0, max(1.0, 1.05 * high))
        lines = [
            Curve(words, steps, getattr(side, name), color, dash="" if color != INK else "dashed")
            for words, side, color in sides
        ]
        return Curves(title, f"{title} along training", step, ends, [*before, *lines], link="steps")

    def before_guess(self, charts: Sequence[Chart]) -> list[Chart]:
        """Return the charts without the imbalance, and without the pairs that give it away."""
        return [charts[0], charts[3]]

    def readings(self, result: Sampled) -> list[Reading]:
        """Return means along training, ends, and where the loss settles."""
        sides = {"uniform": result.even, "sampler": result.sampled}

        def both(values: Any) -> dict[str, float]:
            return {name: float(values(side)) for name, side in sides.items()}

        return [
            Reading("imbalance along training", both(lambda side: side.along(result.steps, "imbalance")), "nats",
                    key="imbalance"),
            Reading("share that bDPO's weights correct", both(lambda side: side.along(result.steps, "corrected")),
                    key="corrected"),
            Reading("share of the reachable reward", both(lambda side: side.utility_share[-1]), key="reward"),
            Reading("KL from the reference", both(lambda side: side.kl[-1]), "nats", key="KL"),
            Reading("settled apart", result.apart, "nats"),
        ]  # fmt: skip

    def outcome(self, result: Sampled) -> tuple[str, str]:
        """Return what happens to the imbalance here."""
        ratio = result.ratio
        word = "falls" if ratio < 1 - _SAME else "rises" if ratio > 1 + _SAME else "stays"
        even, here = (side.along(result.steps, "imbalance") for side in (result.even, result.sampled))
        return word, (
            f"Along training the pairs seen differ by {even:.2f} nats under uniform sampling, and by {here:.2f} nats "
            f"here: {ratio:.2g} times as much."
        )

    def code_parts(self, state: SimpleNamespace) -> dict[str, str]:
        """Return loss, sampler and data as code."""
        loss = repr(loss_of(state))
        data = {EXACT: "pairs=None", FRESH: "pairs=None, batch=16"}.get(state.data, f"pairs={state.data}")
        return {
            "loss_code": loss if loss.startswith("gl.") else f"gl.{loss}", "law": repr(str(law_of(state))),
            "every_code": str(STEPS if state.every == FROZEN else state.every), "data_code": data,
        }  # fmt: skip

    def frame(self) -> pd.DataFrame:
        """Return both trainings step by step."""
        result = self.result
        return pd.concat([
            pd.DataFrame({"sampling": name, "step": result.steps, **{
                key: getattr(side, key) for key in ("imbalance", "corrected", "utility_share", "kl")
            }})
            for name, side in (("uniform", result.even), (result.label, result.sampled))
        ], ignore_index=True)  # fmt: skip


def loss_of(state: SimpleNamespace) -> PairLoss:
    """Return the loss that the controls are set to."""
    return _MADE[state.loss](state.beta)


def law_of(state: SimpleNamespace) -> Sampler:
    """Return the sampler that the controls are set to, with the loss's β."""
    return sampler_of(state.sampler.format(beta=state.beta))


def trained(world: World, loss: PairLoss, law: Sampler, state: SimpleNamespace) -> tuple[np.ndarray, Side]:
    """Return the recorded steps, and the training of a loss under a sampler."""
    pairs = state.data if isinstance(state.data, int) else None
    every = STEPS if state.every == FROZEN else state.every
    recipe = RECIPE.but(
        pairs=pairs, batch=16 if state.data == FRESH else None, sampler=law, sampler_every=every, record=_EACH_STEP,
    )  # fmt: skip
    policies = fit(world, loss, recipe, seed=state.seed).policies.double()
    if len(policies) != STEPS + 1:
        raise RuntimeError(f"each of the {STEPS} steps must be recorded, got {len(policies)}; raise _EACH_STEP")
    steps = recorded_steps(STEPS, RECIPE.record)
    logp = policies[steps]
    utility, ref_logp, comparable = (
        torch.as_tensor(np.array(values, float)) for values in (world.utility, world.ref_logp, world.comparable())
    )
    data = torch.as_tensor(exact_pairs(world) if pairs is None else draw_pairs(world, pairs, seed=state.seed))
    looked = policies[np.zeros_like(steps) if state.every == FROZEN else steps // every * every]
    spread = [values.expand_as(logp) for values in (ref_logp, utility)]
    seen = law.reweighted(data.expand(len(logp), *data.shape), pair_weights(law, looked, *spread), comparable)
    seen = (seen / seen.sum((-2, -1), keepdim=True)).numpy()
    win, lose = logp.numpy()[..., :, None], logp.numpy()[..., None, :]
    side = Side(
        metrics.utility_share(logp, utility, ref_logp).numpy(), metrics.kl_to_reference(logp, ref_logp).numpy(),
        (seen * np.abs(win - lose)).sum((-2, -1)).mean(-1),
        (seen * bdpo_share_corrected(win, lose)).sum((-2, -1)).mean(-1),
        logp[-1, SHOWN].exp().numpy(), (seen[-1, SHOWN] + seen[-1, SHOWN].T),
    )  # fmt: skip
    return steps, side


def apart(world: World, loss: PairLoss, law: Sampler) -> float | str:
    """Return the mean KL between where a loss settles under a sampler and under uniform sampling, or why not."""
    if not law.full_support:
        return "without full support there is no single point"
    even, other = (settle([world], loss, kind, steps=120) for kind in ("uniform", law))
    both = even.settled & other.settled
    if not both.all():
        return f"only {int(both.sum())} of {PROMPTS} prompts settle under both"
    return float((other.logp.exp() * (other.logp - even.logp)).sum(-1).clamp(min=0).mean())
