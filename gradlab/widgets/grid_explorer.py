"""Grid training: two losses train a tabular policy side by side, again at every move of a control."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm, Normalize

from gradlab.lab.fit import Fit, fit
from gradlab.lab.optimizers import OPTIMIZERS
from gradlab.lab.world import World
from gradlab.losses import PairLogps, PairLoss, log_prob_ratio
from gradlab.plotting.palette import MORE_OF_B, policies
from gradlab.widgets import world_controls
from gradlab.widgets.controls import (
    Controls,
    choice,
    chosen_loss,
    hide_unused,
    log_slider,
    loss_code,
    loss_controls,
    whole_slider,
)
from gradlab.widgets.explorer import Explorer, Story
from gradlab.widgets.view import SIDES, View, look, round_up

RECORD = 24  # log-spaced steps that the scrubber walks through
_TRAINING = ("policy", "pairs", "optimizer", "learning_rate", "steps")
_CURVES = {
    "utility": "expected utility (nats)",
    "kl": "KL from reference (nats)",
    "unobserved_mass": "mass on unobserved",
}
_MAPS = {  # title, colours and scale of each map
    "utility": ("utility", "cividis", Normalize(0, 1)),
    "observed": ("pairs observed", "cividis", Normalize(0, 1)),
    "difference": ("π of B − π of A", MORE_OF_B, AsinhNorm(0.02, -1, 1)),
    "_a": ("π of A", "cividis", policies()),
    "_b": ("π of B", "cividis", policies()),
}


@dataclass(frozen=True)
class Trained:
    """A world, and the policies that both losses trained on it."""

    world: World
    fits: dict[str, Fit]
    curves: dict[str, dict[str, np.ndarray]]  # by side and metric, over the recorded steps
    index: int  # of the recorded step that is shown
    prompt: int
    ideal: np.ndarray  # (Y,) log-probabilities of that prompt, at A's β

    @property
    def step(self) -> int:
        """The recorded step that is shown."""
        return int(self.fits["_a"].steps[self.index])

    def logp(self, side: str) -> torch.Tensor:
        """Return log π of one side at that step, (X, Y)."""
        return self.fits[side].policies[self.index]

    def at_step(self, side: str, metric: str) -> float:
        """Return that side's metric at that step."""
        return float(self.curves[side][metric][self.index])


class GridExplorer(Explorer):
    """A 20×20 world and two losses from the registry, really trained at every move: maps, curves and ratios."""

    name = "grid"
    question = "What does a preference loss do to a whole policy, and does Balanced-DPO gain more reward than DPO?"
    prediction = (
        "the paper says that Balanced-DPO reaches a higher reward than DPO. Before you move anything: which "
        "curve of the expected utility will be higher at β = 1, and will it still be if DPO may use β = 0.5?"
    )
    reading = (
        "Maps have a row for each prompt and a column for each response; ▸ marks the chosen prompt, whose policies are "
        "drawn at the lower right with the reference (grey), the ideal π_ref exp(u/β) at A's β (dots) and a × at "
        "each response that no pair shows. Maps of π are on a logarithmic scale from 0.001 (dark) to 1 (light); the "
        "uniform reference would be grey. Curves: A violet and solid, B ochre and dashed, the ring is the step that "
        "is shown; faint lines are the setting before you touched this control. In the scatter each dot is a pair of "
        "the chosen prompt: on the diagonal the gradient in probabilities follows the paper's ratio π_l/π_w."
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

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of losses, world, training, and what to show."""
        return {
            "Losses": {**loss_controls("A", "_a", "dpo"), **loss_controls("B", "_b", "bdpo")},
            "World and data": world_controls.world_controls(),
            "Training": {
                "policy": world_controls.policy_control(),
                "optimizer": choice("optimiser", "adam", list(OPTIMIZERS)),
                "learning_rate": log_slider("step size", 0.05, -3, 1, "learning rate", step=0.1),
                "steps": whole_slider("steps", 500, 10, 2000, "of the optimiser", step=10),
            },
            "Look at": {
                "when": whole_slider("when", 100, 0, 100, "how far through training, % of recorded steps", step=4),
                "prompt": whole_slider("prompt", 10, 0, 19, "the prompt whose distributions and pairs are drawn"),
            },
        }  # fmt: skip

    def adapt(self, state: SimpleNamespace) -> None:
        """Hide numbers that the chosen losses and reference do not have."""
        for key in SIDES:
            hide_unused(self.controls, key)
        world_controls.adapt_world(self.controls)

    def compute(self, state: SimpleNamespace) -> Trained:
        """Train the sides that have changed."""
        values, where = vars(state), world_controls.arguments_of(state)
        world = self.remember("world", where, lambda: world_controls.world_of(state))
        how = {key: values[key] for key in _TRAINING}
        fits, curves = {}, {}
        for side in SIDES:
            loss = chosen_loss(values, side)
            key = (where, how, loss)
            fits[side] = self.remember(side, key, lambda loss=loss: _train(world, loss, state))
            curves[side] = self.remember(
                f"curves{side}", key, lambda side=side: world_controls.curves_of(world, fits[side].policies)
            )
        index = round(state.when / 100 * (len(fits["_a"].steps) - 1))
        return Trained(world, fits, curves, index, state.prompt, world.ideal_logp(state.beta_a)[state.prompt])

    def make_views(self) -> dict[str, View]:
        """Return the views of maps and curves."""
        with mpl.rc_context(look()):
            return {"maps": self._make_maps(), "curves": self._make_curves()}

    def show(self, result: Trained, former: Trained | None) -> dict[str, Any]:
        """Show maps, curves, scatter and the chosen prompt."""
        self._show_maps(result)
        self._show_prompt(result)
        self._show_curves(result, former)
        self._show_ratios(result)
        numbers: dict[str, Any] = {"step": result.step}
        for title, key in (("E[u]", "utility"), ("KL", "kl"), ("unobserved", "unobserved_mass")):
            for side in SIDES:
                numbers[f"{title} {side[1].upper()}"] = result.at_step(side, key)
        return numbers

    def frame(self) -> pd.DataFrame:
        """Return the history of both trainings."""
        return pd.concat(
            [fit.history.assign(side=side[1].upper()) for side, fit in self.result.fits.items()], ignore_index=True
        )

    def code(self, state: SimpleNamespace) -> str:
        """Return code for both trainings and their ends."""
        values = vars(state)
        lines = [
            "import gradlab as gl", "",
            f"world = {world_controls.world_code(state)}",
            f"training = {world_controls.recipe_code(state, record=RECORD)}",
        ]  # fmt: skip
        lines += [
            f"{side[1]} = gl.fit(world, {loss_code(values, side)}, training, seed={state.seed!r})" for side in SIDES
        ]
        at = f"index = {self.result.index}  # of the recorded steps"
        shown = 'print(trained.history.iloc[index][["step", "utility", "kl", "unobserved_mass"]])'
        return "\n".join([*lines, at, "for trained in (a, b):", f"    {shown}", ""])

    def _make_maps(self) -> View:
        view = View(560, 400, "Heatmaps of utility, observed pairs, both policies and their difference; "
                              "the policies of one prompt as lines")  # fmt: skip
        axes = view.figure.subplots(2, 3)
        places = dict(zip(("utility", "observed", "difference", "_a", "_b"), axes.flat, strict=False))
        self._images, self._markers = {}, []
        for name, axis in places.items():
            title, colours, norm = _MAPS[name]
            axis.set(title=title, xticks=(), yticks=())
            axis.grid(visible=False)
            image = axis.imshow(np.zeros((20, 20)), cmap=colours, norm=norm, aspect="auto")
            self._images[name] = view.live(image, seldom=name in ("utility", "observed"))
            self._markers.append(view.live(axis.plot([-1.4], [0], marker=5, color="black", clip_on=False)[0]))
            axis.set(xlim=(-0.5, 19.5), ylim=(19.5, -0.5))
        axes[1, 0].set_xlabel("response")
        axes[1, 0].set_ylabel("prompt", labelpad=10)
        self._make_prompt(view, axes[1, 2])
        return view

    def _make_prompt(self, view: View, axis: Axes) -> None:
        axis.set(xlim=(-0.5, 19.5), ylim=(0, 0.2), title="the chosen prompt", xlabel="response", xticks=(0, 10, 19))
        here = np.arange(20)
        self._prompt_axis = axis
        grey = {"color": "#888888", "linewidth": 1}
        self._prompt = {
            "reference": view.live(axis.plot(here, here * 0, **grey)[0]),
            "ideal": view.live(axis.plot(here, here * 0, "k:", linewidth=1.2)[0]),
            **{side: view.live(axis.plot(here, here * 0, **shown)[0]) for side, shown in SIDES.items()},
            "unobserved": view.live(axis.plot([], [], "x", color="#444444", markersize=4, clip_on=False)[0]),
        }

    def _make_curves(self) -> View:
        view = View(560, 400, "Curves of expected utility, KL and unobserved mass over training for both losses; "
                              "a scatter of gradient ratios")  # fmt: skip
        axes = view.figure.subplots(2, 2)
        self._axes = dict(zip(_CURVES, axes.flat, strict=False))
        self._lines, self._ghosts, self._rings, self._labels = {}, {}, {}, {}
        for key, axis in self._axes.items():
            axis.set_xscale("symlog", linthresh=1, linscale=0.4)
            axis.set(title=_CURVES[key], xlim=(0, 500))
            for side, shown in SIDES.items():
                self._ghosts[key, side] = view.live(axis.plot([], [], **shown, alpha=0.3, linewidth=1)[0])
                self._lines[key, side] = view.live(axis.plot([], [], **shown)[0])
                ring = {"color": shown["color"], "fillstyle": "none", "clip_on": False, "zorder": 5}
                self._rings[key, side] = view.live(axis.plot([], [], "o", **ring)[0])
        self._axes["unobserved_mass"].set_xlabel("step")
        scatter = axes[1, 1]
        scatter.set(xlim=(-6, 6), ylim=(-6, 6), title="log |∂L/∂π_w| − log |∂L/∂π_l|", xlabel="log π_l − log π_w")
        scatter.plot([-6, 6], [-6, 6], color="#999999", linewidth=0.8)
        scatter.axhline(0, color="#999999", linewidth=0.8, linestyle=":")
        marks = {"_a": "o", "_b": "x"}
        self._dots = {
            side: view.live(
                scatter.plot([], [], linestyle="", marker=marks[side], color=shown["color"], markersize=3)[0]
            )
            for side, shown in SIDES.items()
        }
        for column, (side, shown) in enumerate(SIDES.items()):
            text = view.figure.text(0.01 + 0.5 * column, 0.995, "", color=shown["color"], va="top", fontsize=9)
            self._labels[side] = view.live(text, seldom=True)
        view.leave_room(above=0.06)
        return view

    def _show_maps(self, result: Trained) -> None:
        utility, pairs = result.world.utility, result.world.comparable().sum(2)
        policies = {side: result.logp(side).exp().numpy() for side in SIDES}
        maps = {
            "utility": (utility - utility.min()) / max(np.ptp(utility), 1e-300),
            "observed": pairs / (result.world.responses - 1),
            "difference": policies["_b"] - policies["_a"],
            **policies,
        }
        for name, values in maps.items():
            if not np.array_equal(self._images[name].get_array(), values):
                self._images[name].set_data(values)
        for marker in self._markers:
            marker.set_ydata([result.prompt])

    def _show_prompt(self, result: Trained) -> None:
        world, prompt = result.world, result.prompt
        rows = {side: result.logp(side)[prompt].exp().numpy() for side in SIDES}
        rows |= {"reference": np.exp(world.ref_logp[prompt]), "ideal": np.exp(result.ideal)}
        for name, values in rows.items():
            self._prompt[name].set_ydata(values)
        unseen = np.flatnonzero(~world.observed[prompt])
        self._prompt["unobserved"].set_data(unseen, np.zeros(len(unseen)))
        highest = max(values.max() for values in rows.values())
        self.views["maps"].limits(self._prompt_axis, "y", 0, world_controls.top_of(highest))

    def _show_curves(self, result: Trained, former: Trained | None) -> None:
        view = self.views["curves"]
        for key, axis in self._axes.items():
            for side in SIDES:
                self._lines[key, side].set_data(result.fits[side].steps, result.curves[side][key])
                self._rings[key, side].set_data([result.step], [result.at_step(side, key)])
                before = ([], []) if former is None else (former.fits[side].steps, former.curves[side][key])
                self._ghosts[key, side].set_data(*before)
            values = np.concatenate([result.curves[side][key] for side in SIDES])
            least, most = values.min(), values.max()
            if key != "utility":
                view.limits(axis, "y", 0, round_up(most, least=0.1))
            else:
                low = min(0.0, np.floor(least))
                view.limits(axis, "y", low, max(np.ceil(result.world.utility.max(1).mean()), most))
            view.limits(axis, "x", 0, int(result.fits["_a"].steps[-1]))
        for side, trained in result.fits.items():
            self._labels[side].set_text(f"{side[1].upper()}: {trained.settings['loss']}")

    def _show_ratios(self, result: Trained) -> None:
        world, prompt = result.world, result.prompt
        better = world.utility[prompt][:, None] > world.utility[prompt][None, :]
        win, lose = np.nonzero(world.comparable()[prompt] & better)
        ref = torch.as_tensor(world.ref_logp[prompt].copy())
        for side, dots in self._dots.items():
            logp = result.logp(side)[prompt].double()
            pairs = PairLogps(logp[win], logp[lose], ref[win], ref[lose])
            ratio = log_prob_ratio(self._loss(side), pairs)
            dots.set_data((pairs.lose - pairs.win).numpy(), ratio.numpy())

    def _loss(self, side: str) -> PairLoss:
        return chosen_loss(self.state, side)


def _train(world: World, loss: PairLoss, state: SimpleNamespace) -> Fit:
    return fit(world, loss, world_controls.recipe_of(state, record=RECORD), seed=state.seed)
