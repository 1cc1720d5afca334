"""The figure of a claim shows each comparison in its units, with its cells and its counts."""

from dataclasses import replace

import made_up
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from gradlab.experiments.contrasts import Contrast, Unit, judged
from gradlab.experiments.report import answers
from gradlab.experiments.report.verdicts import settle
from gradlab.plotting.palette import STATES

POINTS = Unit("points", 100, 1)
EFFECTS = {"primary": (0.2, 0.2, -0.1), "control": (-0.05, -0.05, -0.05)}


def claim(name="grid-reward"):
    rng = np.random.default_rng(0)
    rows = [
        {"method": method, "cell": cell, "seed": seed, "x": effect + 0.001 * rng.standard_normal()}
        for method, effects in EFFECTS.items()
        for cell, effect in enumerate(effects)
        for seed in range(6)
    ]
    shared = {"claim": name, "baseline": None, "value": "x", "by": ("cell",), "margin": 0.01, "unit": POINTS}
    rows = judged(
        pd.DataFrame(rows),
        [
            Contrast(statement="a", method="primary", label="as it is", **shared),
            Contrast(statement="b", method="control", label="λ = ½", role="explains away", **shared),
        ],
    )
    return settle([_of(row, "grid") for row in rows] + [_of(row, "worlds") for row in rows[1:]]
                  + [_of(row, "frontier") for row in rows[1:]], {}, [name])[name]  # fmt: skip


def _of(row, experiment):
    return replace(row, experiment=experiment)


def test_a_line_per_comparison_with_its_counts_in_the_units_of_the_claim():
    figure = answers.answer(claim())
    FigureCanvasAgg(figure).draw()
    (axis,) = figure.axes
    texts = [text.get_text() for text in axis.texts]
    assert texts[:3] == ["as stated", "2 : 0 : 1", "is it the balancing?"]
    assert texts[-1] == "for : none : against\n(undecided)"
    assert axis.get_yticklabels()[0].get_text() == "as it is"
    assert axis.get_xlabel() == "← against    points    for →"
    drawn = np.concatenate([line.get_xdata() for line in axis.lines if line.get_marker() in ("^", "v")])
    assert (drawn.min(), drawn.max()) == pytest.approx((-10, 20), abs=0.2)


def test_neither_side_of_a_claim_of_no_difference_is_for_it():
    one = claim()
    one = replace(one, claim=replace(one.claim, no_difference=True))
    figure = answers.answer(one)
    (axis,) = figure.axes
    assert axis.get_xlabel() == "points"
    assert axis.texts[-1].get_text() == "above : none : below\n(undecided)"
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"above", "below", "average, 95%"}
    assert answers.facts(one) != answers.facts(claim())


def test_undecided_cells_are_counted_in_brackets_and_worlds_named_once(monkeypatch):
    monkeypatch.setitem(EFFECTS, "primary", (0.2, 0.2, 0.0105))
    one = claim()
    (axis,) = answers.answer(one).axes
    assert "2 : 0 : 0 (1)" in [text.get_text() for text in axis.texts]
    worlds = judged(made_up.worlds(), [made_up.elsewhere(role="robustness", label=label)
                                       for label in ("drawn worlds", "λ = ½")])  # fmt: skip
    *_, axis = answers.answer(replace(one, rows=(*one.rows, *worlds))).axes
    assert [label.get_text() for label in axis.get_yticklabels()][-2:] == ["drawn worlds", "λ = ½ (worlds)"]


def test_a_claim_that_algebra_settles_has_no_such_figure():
    one = settle([], {}, ["ratio"])["ratio"]
    assert not answers.has_answer(one)


def test_the_facts_of_a_figure_follow_its_effects(monkeypatch):
    before = answers.facts(claim())
    assert before == answers.facts(claim())
    monkeypatch.setitem(EFFECTS, "control", (-0.05, -0.05, -0.06))
    assert before != answers.facts(claim())


def test_what_differs_in_colour_differs_in_shape_too():
    assert len({marker_and_fill[1:] for marker_and_fill in STATES.values()}) == len(STATES)
