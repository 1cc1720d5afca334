"""Scale: more responses and longer ones, and what becomes of Balanced-DPO's weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd

from gradlab.experiments.questions.scale_runs import OfGroups
from gradlab.lab.chains import Chain, ChainWorld, chain_world, fit_chains, length_table
from gradlab.lab.fit import fit
from gradlab.lab.training import Training
from gradlab.lab.world import World, gaussian_world
from gradlab.losses import DPO, BalancedDPO, balanced_weights, pair_loss
from gradlab.plotting.charts import Axis, Chart, Curve, Curves, Dash, Rule
from gradlab.plotting.looks import look as look_of
from gradlab.plotting.palette import INK, SETTINGS
from gradlab.theory import bdpo_share_corrected, explained_by_length, weight_spread
from gradlab.widgets.controls import Controls, log_slider, slider
from gradlab.widgets.explorer import Explorer, Reading, Story

PAIRS, STEPS, RATE = 200, 80, 0.1
GROUPS = 40  # of responses alike
ENOUGH = 0.9  # of the variance of λ: what length has to explain
FEW, SOME = 32, 512  # tokens: ends of the guesses
_LENGTHS = np.unique(np.round(np.geomspace(1, 1024, 31)).astype(int))
_NUMBERS = np.array([10, 20, 50, 100, 200, 400, 800, 1600, 3200])
_HEIGHT = 190
_COLORS = {"length": SETTINGS[1], "surprisal": SETTINGS[0], "both": INK}
_CODE = """\
from gradlab import DPO, BalancedDPO, pair_loss
from gradlab.lab.chains import chain_world, fit_chains
from gradlab.losses import balanced_weights
from gradlab.theory import explained_by_length, weight_spread

world = chain_world({length}, {variation}, pairs={pairs})
reference, logps = world.reference, world.pairs(world.reference)
weight = balanced_weights(logps.win, logps.lose)[0]  # λ_w
a, s = reference.surprisal()
print("spread of λ", float(((weight - 0.5) ** 2).mean() ** 0.5), "by surprisal alone", weight_spread(a, s, {length}))
print("length explains", explained_by_length(a, s, {length}, reference.length_variation))
ends = {{}}
for name, loss in {{
    "bdpo": BalancedDPO({beta}), "half": DPO({beta} / 2), "length": pair_loss("length-dpo", beta={beta})
}}.items():
    (ends[name],) = fit_chains([world], loss, steps={steps}, learning_rate={rate})
for name in ("half", "length"):
    print("bDPO's distance from", name, (ends[name].kl(ends["bdpo"]) / ends[name].kl(reference)) ** 0.5)
"""


@dataclass(frozen=True)
class Scale:
    """Sequences of one kind under their reference, one training of three losses, and responses of one token.

    share, weight   (N,) of each pair: the loser's share of tokens, and λ_w.
    explained       R² of weight on share; 0 where one of them is constant.
    corrected       the median share of the imbalance that bDPO corrects.
    distances       of bDPO from DPO at β/2 and from length-weighted DPO, as shares of their ways from the reference.
    spreads         (9,) of λ about ½ for ``_NUMBERS`` responses of one token, under the ideal policy of DPO at β/2.
    responses       how many there are now; crowd: that spread, and bDPO's distance from DPO at β/2 after a training.
    """

    state: SimpleNamespace
    length: int
    world: ChainWorld
    share: np.ndarray
    weight: np.ndarray
    explained: float
    corrected: float
    distances: dict[str, float]
    spreads: np.ndarray
    responses: int
    crowd: tuple[float, float]

    @property
    def surprisal(self) -> tuple[float, float]:
        """Mean and long-run standard deviation of a token's surprisal, in nats."""
        return self.world.reference.surprisal()

    @property
    def spread(self) -> float:
        """The spread of λ_w about ½, a root mean square."""
        return float(np.sqrt(((self.weight - 0.5) ** 2).mean()))

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """The spread of λ by the laws over ``_LENGTHS``: by length, by surprisal, and both."""
        table = length_table(1024, self.state.variation)
        shares = table / (table + table[:, None])
        by_length = np.full(len(_LENGTHS), np.sqrt(((shares - 0.5) ** 2).mean()))
        by_surprisal = weight_spread(*self.surprisal, _LENGTHS)
        return {"length": by_length, "surprisal": by_surprisal, "both": np.hypot(by_length, by_surprisal)}

    @property
    def needed(self) -> float:
        """The mean length from which on length explains ``ENOUGH`` of the variance, by the law; ∞ for equal lengths."""
        if not self.state.variation:
            return math.inf
        mean, deviation = self.surprisal
        return max(1.0, ENOUGH / (1 - ENOUGH) * (deviation / (mean * self.state.variation)) ** 2)


class ScaleExplorer(Explorer):
    """Number and length of responses: when bDPO is DPO at β/2, and when it weighs by length."""

    name = "scale"
    question = "When does Balanced-DPO become DPO at β/2, and when length weighting?"
    prediction = (
        "Balanced-DPO weighs the winner by λ_w = log π_l/(log π_w + log π_l). Here responses are sequences of tokens, "
        "whose surprisals −log π add up, and their lengths vary by a fifth. The longer the responses, the less the "
        "surprisal of single tokens matters."
    )
    first_move = "Choose a guess, then drag tokens L, and watch the cloud turn into a line."
    ask = "From how many tokens on does the share of tokens alone explain 90% of λ's variance?"
    readings_answer = True
    answers: ClassVar = {
        "few": f"fewer than {FEW}", "some": f"{FEW} to {SOME}", "many": f"more than {SOME}, or never",
    }  # fmt: skip
    reading = (
        "First: λ_w of each pair under the reference against the loser's share of tokens. On the diagonal λ is that "
        "share and nothing else; on the horizontal line it is ½, which is DPO at β/2. Second: how far λ spreads about "
        "½, by the laws, in two parts: that of the shares of tokens, for lengths of variation c, and s/(2√2·a·√L) by "
        "the tokens' surprisals of mean a and deviation s; the ring is what the pairs show. Third: the part of λ's "
        "variance that the share of tokens explains, c²/(c² + s²/(a²L)). Fourth: the spread of λ for n responses of "
        "one token, under the ideal policy of DPO at β/2. The table has how far bDPO ends from DPO at β/2 and from "
        "length-weighted DPO after a short training, as a share of the way that each goes from the reference."
    )
    takeaway = (
        "Balance is a matter of short responses. With equal lengths λ tends to ½ as 1/√L, and bDPO becomes DPO at β/2. "
        "With unequal lengths it tends to the loser's share of tokens, and bDPO becomes length-weighted DPO: that "
        "loss, and DPO at β/2, are the controls for every result of bDPO on language models. More responses of one "
        "token bring λ to ½ as well, but only as 1/log n. The claims report has both statements with intervals "
        "(scale-halved, scale-lengths)."
    )
    stories = (
        Story(
            "One token",
            "all responses have one token: here λ depends on surprisal alone, and bDPO ends at more than a third "
            "of the way from DPO at β/2.",
            {"length": 1.0, "variation": 0.0},
        ),
        Story(
            "Long and equal",
            "1,024 tokens each: λ is ½ within 0.02 for every pair, and bDPO ends within a tenth of the way where DPO "
            "at β/2 ends.",
            {"length": 1024.0, "variation": 0.0},
        ),
        Story(
            "Long and unequal",
            "the same with a variation of ½: λ lies on the diagonal, and length explains more than 99% of it. bDPO "
            "ends within a tenth of the way where length-weighted DPO ends, and at more than half of it from DPO at "
            "β/2.",
            {"length": 1024.0, "variation": 0.5},
        ),
        Story(
            "Many responses of one token",
            "3,200 responses bring the spread of λ down to less than half of that of 10, though not much farther: it "
            "falls only as 1/log n.",
            {"n": 3200.0, "length": 1.0, "variation": 0.0},
        ),
    )

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of sequences and of responses."""
        return {
            "Sequences": {
                "length": log_slider("tokens L", 8.0, 0, math.log10(1024), "mean length of a response"),
                "variation": slider("variation c", 0.2, 0.0, 1.0, "standard deviation of the lengths over their mean"),
            },
            "Responses of one token": {
                "n": log_slider("responses n", 20.0, 1, math.log10(3200), "of one prompt"),
            },
            "Loss": {"beta": log_slider("β", 1.0, -0.5, 0.5, "of bDPO; DPO at β/2 has half of it")},
        }

    def compute(self, state: SimpleNamespace) -> Scale:
        """Draw pairs, look at their weights, train three losses on them, and two on responses of one token."""
        length, number = max(1, round(state.length)), _whole(state.n)
        key = (length, state.variation)
        world = self.remember("world", key, lambda: chain_world(*key, pairs=PAIRS))
        ends = self.remember("ends", (*key, state.beta), lambda: _trained(world, state.beta))
        spreads = self.remember("spreads", state.beta, lambda: _spreads_over(state.beta))
        crowd = self.remember("crowd", (number, state.beta), lambda: _crowd(number, state.beta))
        logps, reference = world.pairs(world.reference), world.reference
        weight = balanced_weights(logps.win, logps.lose)[0].numpy()
        win_len, lose_len = (world.lengths(side) for side in (world.win, world.lose))
        share = lose_len / (win_len + lose_len)
        varies = min(np.ptp(share), np.ptp(weight)) > 0
        return Scale(
            state, length, world, share, weight,
            float(np.corrcoef(share, weight)[0, 1] ** 2) if varies else 0.0,
            float(np.median(bdpo_share_corrected(logps.win.numpy(), logps.lose.numpy()))),
            {name: math.sqrt(ends[name].kl(ends["bdpo"]) / ends[name].kl(reference)) for name in ("half", "length")},
            spreads, number, crowd,
        )  # fmt: skip

    def charts(self, result: Scale, pinned: Scale | None) -> list[Chart]:
        """Return four charts: the pairs; the spread over L; what length explains; the spread over n."""
        return [_pairs(result), _spreads(result, pinned), _explains(result, pinned), _numbers(result, pinned)]

    def before_guess(self, charts: Sequence[Chart]) -> list[Chart]:
        """Return the charts without what length explains, which answers."""
        pairs, spreads, explains, numbers = charts
        assert isinstance(explains, Curves)
        return [pairs, spreads, replace(explains, title="the third chart opens with your guess", curves=()), numbers]

    def readings(self, result: Scale) -> list[Reading]:
        """Return spreads, the share corrected, and distances."""
        mean, deviation = result.surprisal
        law = float(np.interp(math.log(result.length), np.log(_LENGTHS), result.parts["both"]))
        many = f"{result.responses:,} of one token"
        return [
            Reading("a, a token's surprisal", mean, "nats, mean", key="a"),
            Reading("s, its deviation", deviation, "nats, in the long run", key="s"),
            Reading("spread of λ about ½", result.spread, "pairs of L tokens", key="spread"),
            Reading("spread by the law", law, "lengths and surprisals"),
            Reading("share of the imbalance corrected", result.corrected, "median pair", key="corrected"),
            Reading("corrected by the law", 1 / (mean * result.length), "1/(aL)"),
            Reading("bDPO from DPO at β/2", result.distances["half"], "of the way", key="from half"),
            Reading("bDPO from length-weighted DPO", result.distances["length"], "of the way", key="from length"),
            Reading(f"spread of λ, {many}", result.crowd[0], "about ½", key="crowd spread"),
            Reading(f"bDPO from DPO at β/2, {many}", result.crowd[1], "of the way", key="crowd from half"),
        ]

    def outcome(self, result: Scale) -> tuple[str, str]:
        """Return from how many tokens on length explains enough, by the law."""
        needed = result.needed
        truth = "few" if needed < FEW else "some" if needed <= SOME else "many"
        if math.isinf(needed):
            return truth, "Never: the lengths are equal."
        return truth, f"From about {math.ceil(needed):,} tokens on."

    def frame(self) -> pd.DataFrame:
        """Return each pair's share and weight, the laws over L, and the spread over n; ``kind`` says which."""
        result = self.result
        laws = pd.DataFrame({"tokens": _LENGTHS, **{f"spread_{name}": one for name, one in result.parts.items()},
                             "explained": _explained(result)})  # fmt: skip
        return pd.concat([
            pd.DataFrame({"share": result.share, "weight": result.weight}).assign(kind="pair"),
            laws.assign(kind="law"),
            pd.DataFrame({"responses": _NUMBERS, "spread_both": result.spreads}).assign(kind="responses"),
        ], ignore_index=True)  # fmt: skip

    def code(self, state: SimpleNamespace) -> str:
        """Return code for the weights of the pairs, the laws, and the training."""
        return _CODE.format(
            length=max(1, round(state.length)), variation=state.variation, beta=state.beta, pairs=PAIRS, steps=STEPS,
            rate=RATE,
        )  # fmt: skip


def _trained(world: ChainWorld, beta: float) -> dict[str, Chain]:
    """Return where bDPO, DPO at β/2 and length-weighted DPO end."""
    losses = {"bdpo": BalancedDPO(beta), "half": DPO(beta / 2), "length": pair_loss("length-dpo", beta=beta)}
    return {
        name: fit_chains([world], loss, steps=STEPS, learning_rate=RATE)[0] for name, loss in losses.items()
    }  # fmt: skip


def _whole(number: float) -> int:
    """Return a number of responses that groups of one size make up."""
    return max(2, round(number)) if number < GROUPS else GROUPS * round(number / GROUPS)


def _of_one_token(number: int) -> tuple[World, int]:
    """Return a prompt of so many responses of one token, or of as many groups, and a group's size."""
    groups = min(number, GROUPS)
    return gaussian_world(1, groups, sigma=0.15 * groups), max(1, round(number / groups))


def _spread(number: int, beta: float) -> float:
    """Return the spread of λ about ½ over pairs of responses of one token, under π_ref exp(2u/β)."""
    world, copies = _of_one_token(number)
    logp = world.ideal_logp(beta / 2)[0] - math.log(copies)
    weight = logp / (logp + logp[:, None])
    return float(np.sqrt(((weight - 0.5) ** 2)[~np.eye(len(logp), dtype=bool)].mean()))


def _spreads_over(beta: float) -> np.ndarray:
    return np.array([_spread(number, beta) for number in _NUMBERS])


def _crowd(number: int, beta: float) -> tuple[float, float]:
    """Return that spread, and how far bDPO ends from DPO at β/2, as a share of the latter's way."""
    world, copies = _of_one_token(number)
    half, bdpo = (
        fit(world, OfGroups(loss, copies), Training(record=1)).logp[0].numpy()
        for loss in (DPO(beta / 2), BalancedDPO(beta))
    )
    away, way = (float(np.exp(half) @ (half - other)) for other in (bdpo, world.ref_logp[0]))
    return _spread(number, beta), math.sqrt(max(0.0, away) / way)


def _explained(result: Scale) -> np.ndarray:
    return explained_by_length(*result.surprisal, _LENGTHS, result.state.variation)


def _pairs(result: Scale) -> Curves:
    color = look_of("bdpo")["color"]
    return Curves(
        "λ of the pairs, under the reference", "Points: the weight of the winner against the loser's share of tokens.",
        Axis("loser's share of tokens", 0, 1), Axis("λ_w", 0, 1),
        [Curve("pairs", result.share, result.weight, color, marker="dot", line=False)],
        rules=[Rule(x=0.5, y=0.5, label="λ is that share", dash="dashed"), Rule(y=0.5, label="½", dash="dotted")],
        height=_HEIGHT,
    )  # fmt: skip


def _spreads(result: Scale, pinned: Scale | None) -> Curves:
    names = {"length": "by length", "surprisal": "by surprisal", "both": "both"}
    curves = [
        Curve(name, _LENGTHS, np.maximum(result.parts[key], _FLOOR), _COLORS[key], _DASHES[key])
        for key, name in names.items()
    ]
    here = Curve("these pairs", np.array([result.length]), np.array([max(result.spread, _FLOOR)]),
                 look_of("bdpo")["color"], marker="ring", line=False, filled=False)  # fmt: skip
    before = [Curve("pinned", _LENGTHS, pinned.parts["both"], INK, faint=True)] if pinned else []
    return Curves(
        "spread of λ over the length", "Curves of the weight's spread about one half over the length.",
        Axis("mean tokens L", 1, 1024, "log"), Axis("spread of λ about ½", _FLOOR, 0.5, "log"),
        [*before, *curves, here], rules=[Rule(x=result.length, dash="dotted")], link="length",
        picks=("length", ""), height=_HEIGHT,
    )  # fmt: skip


def _explains(result: Scale, pinned: Scale | None) -> Curves:
    before = [Curve("pinned", _LENGTHS, _explained(pinned), INK, faint=True)] if pinned else []
    here = Curve("these pairs", np.array([result.length]), np.array([result.explained]), look_of("bdpo")["color"],
                 marker="ring", line=False, filled=False)  # fmt: skip
    law = Curve("the law", _LENGTHS, _explained(result), _COLORS["length"])
    return Curves(
        "what the share of tokens explains", "A curve of the explained part of the variance over the length.",
        Axis("mean tokens L", 1, 1024, "log"), Axis("part of λ's variance, R²", 0, 1), [*before, law, here],
        rules=[Rule(y=ENOUGH, label="90%", dash="dashed"), Rule(x=result.length, dash="dotted")], link="length",
        picks=("length", ""), height=_HEIGHT,
    )  # fmt: skip


def _numbers(result: Scale, pinned: Scale | None) -> Curves:
    before = [Curve("pinned", _NUMBERS, pinned.spreads, INK, faint=True)] if pinned else []
    here = Curve("now", np.array([result.responses]), np.array([result.crowd[0]]), look_of("bdpo")["color"],
                 marker="ring", line=False, filled=False)  # fmt: skip
    return Curves(
        "spread of λ over the number of responses", "A curve of the weight's spread over their number.",
        Axis("responses n, of one token", 10, 3200, "log"), Axis("spread of λ about ½", 0, 0.5),
        [*before, Curve("under DPO at β/2's ideal", _NUMBERS, result.spreads, look_of("dpo")["color"]), here],
        picks=("n", ""), height=_HEIGHT,
    )  # fmt: skip


_DASHES: dict[str, Dash] = {"length": "dashed", "surprisal": "dashed", "both": ""}
_FLOOR = 1e-3  # the lowest spread that is drawn
