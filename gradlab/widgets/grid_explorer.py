"""Grid training: two to six losses train a policy side by side, on a world that is drawn, given or painted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch

from gradlab.lab import metrics
from gradlab.lab.descent import recorded_steps
from gradlab.lab.fit import Fit, fit
from gradlab.lab.world import World
from gradlab.losses import PairLoss
from gradlab.plotting.chart_scales import spelt
from gradlab.plotting.charts import Axis, Chart, Curve, Curves, Map, Rule
from gradlab.plotting.palette import LEAST
from gradlab.widgets import world_controls
from gradlab.widgets.compared_losses import LOOKS, SLOTS, ComparingExplorer, title_of
from gradlab.widgets.controls import Controls, Line, Whole
from gradlab.widgets.explorer import Reading, Story
from gradlab.widgets.world_texts import (
    MOST_PROMPTS,
    check_size,
    fits,
    read_paint,
    read_world,
    world_lines,
    world_text,
)

RECORD = 24  # log-spaced steps that the scrubber walks through
_CLOSE = 0.02  # nats of utility within which two losses count as equal
_DRAWN = ("prompts", "responses", "utility", "sigma", "scale", "mask_rate", "mask_kind", "reference", "shift")
_ROWS = (  # name, unit, key in ``numbers``, and metric
    ("expected utility E[u]", "nats", "E[u]", "utility"),
    ("share of the reachable reward", "", "share", "share"),
    ("mass on responses in no pair", "", "unobserved", "unobserved_mass"),
    ("KL from the reference", "nats", "KL", "kl"),
)
_CURVES = (  # title, label of the axis, and metric
    ("Reward", "E[u], nats", "utility"),
    ("Mass where there are no data", "mass", "unobserved_mass"),
    ("Distance from the reference", "KL, nats", "kl"),
)
_CODE = """\
{numpy}import gradlab as gl
{imports}

def world_of(seed):
{world}
    return world


seeds = {seeds}
worlds = [world_of(seed) for seed in seeds]
training = {training}
index = {index}  # of the recorded steps
trained = {{}}
for side, loss in {losses}.items():
    trained[side] = gl.fit(worlds, loss, training, seed=seeds)
    at_step = trained[side].history.query(f"step == {{trained[side].steps[index]}}")
    print(side, at_step[["run", "step", "utility", "kl", "unobserved_mass"]].to_string(index=False))
"""


class WorldLine(Line):
    """The text of a world, "" for one that is drawn; it also takes a ``World``."""

    def accepted(self, key: str, value: Any) -> str:
        """Return the text; ValueError in one line where it is no world."""
        if isinstance(value, World):
            return world_text(value)
        if super().accepted(key, value):
            read_world(value)
        return value


class PaintLine(Line):
    """The text of what is painted on the world, "" for nothing."""

    def accepted(self, key: str, value: Any) -> str:
        """Return the text; ValueError in one line where it is no paint."""
        if super().accepted(key, value):
            read_paint(value)
        return value


@dataclass(frozen=True)
class Side:
    """The policies that one loss trained: one run per seed, the first of which is shown in the maps."""

    loss: PairLoss
    fit: Fit  # policies (S, seeds, X, Y)
    curves: dict[str, np.ndarray]  # by metric, (seeds, S)


@dataclass(frozen=True)
class Trained:
    """The worlds of the seeds, and the policies that the losses trained on them, by letter."""

    state: SimpleNamespace
    worlds: list[World]
    sides: dict[str, Side]
    steps: np.ndarray  # (S,) the recorded ones
    index: int  # of the recorded step that is shown
    prompt: int

    @property
    def world(self) -> World:
        """The world of the first seed."""
        return self.worlds[0]

    @property
    def step(self) -> int:
        """The recorded step that is shown."""
        return int(self.steps[self.index])

    def logp(self, slot: str) -> torch.Tensor:
        """Return log π of one loss at that step, (X, Y)."""
        return self.sides[slot].fit.policies[self.index, 0]

    def at_step(self, slot: str, metric: str) -> float:
        """Return that loss's metric at that step, the mean over seeds."""
        return float(self.sides[slot].curves[metric][:, self.index].mean())


class GridExplorer(ComparingExplorer):
    """A world of prompts and responses, and two to six losses, really trained at every move: maps and curves.

    ``world`` may be any ``gl.World`` of at most a million prompts × responses²; it is kept in the state, so that links
    and files have it too. All controls that draw a world then have no effect.
    """

    name = "grid"
    template = _CODE
    question = "What does a preference loss do to a whole policy, and does Balanced-DPO gain more reward than DPO?"
    prediction = (
        "the paper says that Balanced-DPO reaches a higher reward than DPO. Before you move anything, say which policy "
        "will end with the higher expected utility at β = 1. And will it still if DPO may use β = 0.5?"
    )
    first_move = (
        "Choose a guess and watch the policies train; then move a slider, or click a cell of a map to see its prompt."
    )
    ask = "Predict: which policy ends with more reward?"
    answers = {**{slot: slot.upper() for slot in SLOTS}, "equal": "no difference"}  # noqa: RUF012
    reading = (
        "Maps have a row for each prompt and a column for each response: the world's utility, then one policy per "
        "loss, on a logarithmic scale from 0.001 to 1. Responses that no pair shows are struck through. Point at a "
        "cell to read it in every map; click one to draw its prompt at the lower right, with the reference dotted. "
        "Curves run over the steps of training; the dots are the step that is shown, which the scrubber and play move. "
        "Bands hold 80% of the seeds; the curve and the table are then means over them, the maps are of the first. "
        "With paint on, a stroke on the world hides or shows responses, sets their utility, or moves the reference "
        "there by one nat. A file with utilities, or with a whole world, can be dropped here."
    )
    takeaway = (
        "At equal β Balanced-DPO pulls about half as hard, since its two weights sum to one: much of what looks like "
        "balance is a smaller effective β. Compare it with DPO at β/2 before you credit the weights. The claims "
        "report judges this over many worlds."
    )
    stories = (
        Story(
            "When bDPO helps",
            "a fifth of the responses is never shown, neighbours share parameters, and there are 100 pairs per prompt. "
            "At β = 1 Balanced-DPO (B) ends at the higher utility, and with less mass where there are no data. A "
            "smaller β does the same: move β of A to 0.5, and DPO is ahead in both.",
            {"mask_rate": 0.2, "policy": "shared", "pairs": 100},
        ),
        Story(
            "When it hurts",
            "preferences are strong (R = 8) and β = ½: Balanced-DPO's margin is bounded, so its policy stays more than "
            "a nat of utility behind DPO's. Raise the steps to 2,000: it still rises slowly, and stays behind.",
            {"scale": 8.0, "beta_a": 0.5, "beta_b": 0.5},
        ),
        Story(
            "The effective-β confound",
            "A is DPO at β = ½, B is Balanced-DPO at β = 1. At equal β, B ended ahead; now A does. Halving DPO's β, "
            "which is about what the weights do to Balanced-DPO's β, gains more than the balance.",
            {"beta_a": 0.5},
        ),
        Story(
            "Mass that nobody named",
            "the reference is away from the best responses, 40% of responses are masked, parameters are shared: mass "
            "on responses that no pair shows falls under both losses, farther under Balanced-DPO. No pair names these "
            "responses, but pairs name their neighbours.",
            {"mask_rate": 0.4, "policy": "shared", "reference": "shifted"},
        ),
    )

    unfolds = ("Seeds, and more of the world",)

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of losses, world and training; what to look at and what is painted has no heading."""
        return {
            "Losses": self.loss_group(),
            "World": world_controls.shape_controls(),
            "Training": {"pairs": world_controls.pairs_control(), **world_controls.recipe_controls()},
            "Seeds, and more of the world": {
                "seed": world_controls.seed_control(),
                "seeds": Whole("seeds, with bands", 1, 1, 20, "how many worlds and data sets are drawn"),
                "prompts": Whole("prompts", 20, 2, 200, "rows of the world", "log"),
                "responses": Whole("responses", 20, 2, 200, "columns of the world", "log"),
                **world_controls.kind_controls(),
            },
            "": {
                "when": Whole("how far through training, %", 100, 0, 100, "% of the recorded steps"),
                "prompt": Whole("prompt", 10, 0, MOST_PROMPTS - 1, "the prompt whose policies are drawn"),
                "painted": PaintLine("paint", "", "a size and marks of paint, such as 2x3:5AB, or nothing"),
                "world": WorldLine("world", "", "a world as JSON, or nothing"),
            },
        }

    def adapt(self, state: SimpleNamespace) -> None:
        """Hide numbers that the chosen losses and reference do not have, and what draws a world if one is given."""
        super().adapt(state)
        for key in _DRAWN:
            self.controls[key].hidden = state.world != ""
        if not state.world:
            world_controls.adapt_world(self.controls)

    def compute(self, state: SimpleNamespace) -> Trained:
        """Train the losses that have changed."""
        seeds = range(state.seed, state.seed + state.seeds)
        where = world_controls.arguments_of(state), state.world, state.painted, state.seeds
        worlds = self.remember("worlds", where, lambda: [_world_of(state, seed) for seed in seeds])
        recipe = world_controls.recipe_of(state, record=RECORD)
        sides = {}
        for slot in self.slots(state):
            loss = self.loss(state, slot)
            sides[slot] = self.remember(
                slot, (where, recipe, loss), lambda loss=loss: _trained(worlds, loss, recipe, seeds)
            )
        steps = recorded_steps(state.steps, RECORD)
        prompt = min(state.prompt, worlds[0].prompts - 1)
        return Trained(state, worlds, sides, steps, _index(state, steps), prompt)

    def charts(self, result: Trained, pinned: Trained | None) -> Sequence[Chart]:
        """Return maps of the utility and of each policy, curves over training, and the policies of one prompt."""
        utility = result.world.utility
        low, high = float(utility.min()), float(utility.max())
        maps = [_map(result, "World: utility u", utility, "u", low, high if high > low else low + 1)]
        for slot, side in result.sides.items():
            policy = result.logp(slot).exp().double().numpy()
            maps.append(replace(
                _map(result, title_of(slot, side.loss), policy, "π", LEAST, 1.0), logarithmic=True
            ))  # fmt: skip
        return [*maps, *(_curves(result, *row) for row in _CURVES), _prompt(result)]

    def readings(self, result: Trained) -> Sequence[Reading]:
        """Return the step that is shown, and the metrics at it, per loss, means over seeds."""
        rows = [
            Reading(name, {slot.upper(): result.at_step(slot, metric) for slot in result.sides}, unit, key)
            for name, unit, key, metric in _ROWS
        ]
        return [Reading("step", result.step), *rows]

    def outcome(self, result: Trained) -> tuple[str, str]:
        """Return whose policy ends with the highest expected utility, and by how much."""
        ends = {slot: float(side.curves["utility"][:, -1].mean()) for slot, side in result.sides.items()}
        first, second = sorted(ends, key=lambda slot: -ends[slot])[:2]
        gap = ends[first] - ends[second]
        if gap <= _CLOSE:
            return "equal", f"The best two end within {_CLOSE} nats of each other."
        return first, f"{title_of(first, result.sides[first].loss)} ends highest, by {spelt(gap)} nats."

    def frame(self) -> pd.DataFrame:
        """Return the history of all trainings, with the side and the seed of each."""
        seed = self.result.state.seed
        histories = [
            side.fit.history.assign(side=slot.upper(), seed=lambda table: table["run"] + seed)
            for slot, side in self.result.sides.items()
        ]
        return pd.concat(histories, ignore_index=True)

    def code_parts(self, state: SimpleNamespace) -> dict[str, str]:
        """Return seeds, the lines that make a seed's world, recipe, losses, and which recorded step is shown."""
        imports, losses = self.losses_code(state)
        drawn = [f"world = {world_controls.world_code(state, seed='seed')}"]
        lines = world_lines(read_world(state.world)) if state.world else drawn
        base = _base_of(state, state.seed)
        lines += read_paint(state.painted).code() if fits(state.painted, base) else []
        return {
            "numpy": "import numpy as np\n\n" if any("np." in line for line in lines) else "", "imports": imports,
            "world": "\n".join(f"    {line}" for line in lines), "losses": losses,
            "seeds": repr(list(range(state.seed, state.seed + state.seeds))),
            "training": world_controls.recipe_code(state, record=RECORD),
            "index": str(_index(state, recorded_steps(state.steps, RECORD))),
        }  # fmt: skip


def _base_of(state: SimpleNamespace, seed: int) -> World:
    """Return the world of a seed without paint."""
    if state.world:
        return read_world(state.world)
    check_size(state.prompts, state.responses)
    return world_controls.world_of(SimpleNamespace(**{**vars(state), "seed": seed}))


def _world_of(state: SimpleNamespace, seed: int) -> World:
    base = _base_of(state, seed)
    return read_paint(state.painted).on(base) if fits(state.painted, base) else base


def _trained(worlds: list[World], loss: PairLoss, recipe: Any, seeds: Sequence[int]) -> Side:
    made = fit(worlds, loss, recipe, seed=list(seeds))
    runs = [_metrics_of(world, made.policies[:, run]) for run, world in enumerate(worlds)]
    return Side(loss, made, {name: np.stack([run[name] for run in runs]) for name in runs[0]})


def _metrics_of(world: World, logp: torch.Tensor) -> dict[str, np.ndarray]:
    share = metrics.utility_share(logp, *(torch.tensor(table) for table in (world.utility, world.ref_logp)))
    return {**world_controls.curves_of(world, logp), "share": share.numpy()}


def _index(state: SimpleNamespace, steps: np.ndarray) -> int:
    """Return which recorded step is shown; halves go up, as in the page."""
    return math.floor(state.when / 100 * (len(steps) - 1) + 0.5)


def _map(result: Trained, title: str, values: np.ndarray, quantity: str, low: float, high: float) -> Map:
    prompts, responses = values.shape
    return Map(
        title, f"{quantity} by prompt and response; responses in no pair are struck through",
        Axis("response", -0.5, responses - 0.5), Axis("prompt", prompts - 0.5, -0.5),
        np.arange(responses), np.arange(prompts), values, quantity, low, high,
        struck=~result.world.observed, picks=("", "prompt"), link="cells", height=200,
    )  # fmt: skip


def _curves(result: Trained, title: str, label: str, metric: str) -> Curves:
    several = len(result.worlds) > 1
    curves = []
    for slot, side in result.sides.items():
        values = side.curves[metric]
        low, high = np.quantile(values, [0.1, 0.9], axis=0) if several else (None, None)
        color, dash = LOOKS[slot]
        curves.append(Curve(title_of(slot, side.loss), result.steps, values.mean(0), color, dash, low=low, high=high))
    known = np.concatenate([part for one in curves for part in (one.y, one.low, one.high) if part is not None])
    low = min(0.0, float(known.min())) if metric == "utility" else 0.0
    high = _end(float(known.max()) if metric == "utility" else max(float(known.max()), 0.1))
    return Curves(
        title, f"{title} of each loss over training", Axis("step", 0, float(result.steps[-1]), "symlog"),
        Axis(label, low, high), curves, rules=[Rule(x=result.step)], link="steps", height=175,
    )  # fmt: skip


def _prompt(result: Trained) -> Curves:
    row, x = result.prompt, np.arange(result.world.responses)
    curves = [
        Curve(title_of(slot, side.loss), x, result.logp(slot)[row].exp().double().numpy(), *LOOKS[slot])
        for slot, side in result.sides.items()
    ]
    curves.append(Curve("reference", x, np.exp(result.world.ref_logp[row]), "#888888", "dotted"))
    top = min(1.0, _end(max(float(one.y.max()) for one in curves)))
    return Curves(
        f"Prompt {row}", "π of each loss over the responses of one prompt", Axis("response", 0, float(x[-1])),
        Axis("π", 0, top), curves, height=175,
    )  # fmt: skip


def _end(value: float) -> float:
    """Return the end of an axis: a whole number above 1, else 1, 2 or 5 times a power of ten."""
    if value > 1:
        return math.ceil(value - 1e-5)
    power = 10.0 ** math.floor(math.log10(max(value, 1e-9)))
    return next(float(f"{step * power:.1g}") for step in (1, 2, 5, 10) if value <= step * power * (1 + 1e-5))
