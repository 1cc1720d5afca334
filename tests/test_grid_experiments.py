"""The experiments grid, frontier and starts: what they declare, and what they say of hand-made frames."""

import inspect
import itertools

import numpy as np
import pandas as pd
import pytest
from remembered import remembered

from gradlab.experiments.experiment import FIRST_SEED
from gradlab.experiments.frames import declared
from gradlab.experiments.questions import frontier, grid, picture, starts
from gradlab.lab.descent import recorded_steps

ASKED = (grid, frontier, starts, picture)


# Fewer cells, so that tests take milliseconds.
SETTINGS = {
    "grid": {**grid.SETTINGS, "mask_rates": [0.0, 0.4]},
    "frontier": {**frontier.SETTINGS, "mask_rates": [0.0, 0.4], "betas": [1.0, 2.0]},
    "starts": {**starts.SETTINGS, "starts": [["inverted", 0.0], ["shifted", 6.0]]},
}


def numbers(method, seeds, columns, noise, effect=0.0):
    """A row per seed: numbers that methods share, plus an effect and some noise."""
    shared, own = np.random.default_rng(0), np.random.default_rng([1, *method.encode()])
    shape = (len(seeds), len(columns))
    values = shared.random(shape) + effect + noise * own.standard_normal(shape)
    return pd.DataFrame(values, columns=list(columns)).assign(method=method, seed=list(seeds))


@remembered
def grid_frame(effects=None, noise=0.001):
    """Ends of training of every run that the grid's first parts make."""
    frames = []
    for part in grid.parts(SETTINGS["grid"]):
        training, seeds = part["training"], range(part["first_seed"], part["first_seed"] + part["seeds"])
        frame = numbers(part["method"], seeds, ("utility_share", "unobserved_mass", "win_rate"), noise)
        frames.append(frame.assign(
            mask=part["mask_rate"], policy=training.policy_name, step=training.steps, unobserved_mass_ideal=0.0,
            data="100 pairs" if training.pairs else "exact",
            training=f"{training.optimizer} {training.learning_rate:g}",
        ))  # fmt: skip
    frame = pd.concat(frames, ignore_index=True)
    for column in ("utility_share", "win_rate"):
        frame[column] += frame["method"].map(effects or {}).fillna(0.0)
    return frame


@remembered
def starts_frame():
    """Masses along training: DPO by Adam lies above the reference at one step in three, all else below it."""
    frames = []
    for part in starts.parts(SETTINGS["starts"]):
        training = part["training"]
        steps = recorded_steps(training.steps, training.record)
        rows = itertools.product(range(part["first_seed"], part["first_seed"] + part["seeds"]), enumerate(steps))
        mass = 0.5 if part["method"] == "dpo" else 0.4
        frames.append(pd.DataFrame([
            {"start": starts._start(part["kind"], part["amount"]), "method": part["method"], "mask": part["mask_rate"],
             "policy": training.policy_name, "optimizer": training.optimizer, "seed": seed, "step": step,
             "unobserved_mass": mass - 0.01 + 0.02 * (training.optimizer == "adam" and turn % 3 == 0),
             "unobserved_mass_reference": 0.5, "utility_share": 0.0, "kl": 0.0}
            for seed, (turn, step) in rows
        ]))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


@remembered
def frontier_frame(effects=None):
    """Paths that pass all KL levels."""
    settings, values = SETTINGS["frontier"], ("utility_share", "unobserved_mass", "win_rate")
    cells = itertools.product(*(settings[key] for key in ("methods", "mask_rates", "policies", "betas")))
    frames = [
        numbers(method, range(4), values, 0.001, (effects or {}).get(method, 0.0)).assign(
            mask=mask, policy=policy, beta=beta, step=step, kl=kl / beta
        )
        for method, mask, policy, beta in cells
        for step, kl in enumerate((0.0, 1.0, 3.0))
    ]
    return pd.concat(frames, ignore_index=True)


FRAMES = {"grid": (grid, grid_frame), "frontier": (frontier, frontier_frame), "starts": (starts, starts_frame)}


# --- what is declared ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ASKED, ids=lambda module: module.EXPERIMENT.name)
def test_what_judges_is_drawn_by_seeds_that_the_first_report_did_not_use(module):
    for quick, first in ((False, FIRST_SEED), (True, 0)):
        settings = declared(module.EXPERIMENT, quick)
        assert {part["first_seed"] for part in module.parts(settings)} == {first}


def test_controls_have_a_direction():
    roles = {}
    for contrast in grid.contrasts(grid.SETTINGS):
        roles.setdefault((contrast.claim, contrast.role), []).append(contrast.label)
    for claim in ("grid-reward", "grid-unobserved"):
        assert roles[claim, "primary"] == ["against DPO"]
        assert roles[claim, "explains away"] == ["DPO at β/2", "DPO at equal scale", "λ permuted among pairs"]
        assert roles[claim, "context"] == ["|λ − ½| permuted among pairs"]
    assert roles["ablation", "primary"] == ["against naive bDPO", "against symmetric naive bDPO"]


@pytest.mark.parametrize("name", FRAMES)
def test_every_answer_is_a_plain_sentence_with_its_unit(name):
    module, frame = FRAMES[name]
    for row in module.verdict(frame(), SETTINGS[name]):
        assert row.statement.label
        unit = getattr(row.statement, "unit", None)
        assert unit is None or (unit.scale == 100 and unit.words in row.sentence)
        assert "{" not in row.sentence


# --- precision by design ---------------------------------------------------------------------------------------------


def test_wide_cells_get_the_next_block_of_the_primaries_and_their_controls_at_the_end_of_training():
    assert grid.more(grid_frame(noise=1e-4), SETTINGS["grid"]) == []
    asked = grid.more(grid_frame(noise=1.0), SETTINGS["grid"])
    cells = {(part["mask_rate"], part["training"].policy_name) for part in asked}
    assert cells == set(itertools.product(SETTINGS["grid"]["mask_rates"], SETTINGS["grid"]["policies"]))
    methods = {*SETTINGS["grid"]["primary_methods"], *SETTINGS["grid"]["controls"]}
    assert len(asked) == len(cells) * len(methods)
    assert {part["method"] for part in asked} == methods
    first = SETTINGS["grid"]["first_seed"] + SETTINGS["grid"]["seeds"]
    assert {(part["first_seed"], part["seeds"], part["training"].record) for part in asked} == {(first, 24, 1)}


def test_an_effect_asks_for_no_seeds():
    frames = [grid_frame(effects, noise=0.02) for effects in ({}, {"bdpo": 0.5}, {"bdpo": -0.5})]
    asked = [grid.more(frame, SETTINGS["grid"]) for frame in frames]
    assert asked[0]
    assert asked[0] == asked[1] == asked[2]


# --- what frames say -------------------------------------------------------------------------------------------------


def words(rows, claim, role="primary"):
    return [row.word for row in rows if row.statement.claim == claim and row.role == role]


@pytest.mark.parametrize(
    ("effect", "word"), [(0.2, "holds throughout"), (-0.2, "reversed"), (0.0, "no practical difference")]
)
def test_the_answer_follows_the_frame(effect, word):
    rows = grid.verdict(grid_frame({"bdpo": effect, "bdpo at 2β": effect}), SETTINGS["grid"])
    assert words(rows, "grid-reward") == [word]
    assert words(rows, "grid-reward", "explains away") == [word] * 3
    assert words(rows, "ablation") == [word] * 2
    assert words(rows, "grid-unobserved") == ["no practical difference"]
    assert {row.seeds for row in rows if row.role == "explains away"} == {24}


def test_equal_kl_explains_away_where_the_method_does_no_better_there():
    for effect, word in ((0.2, "holds throughout"), (0.0, "no practical difference")):
        rows = frontier.verdict(frontier_frame({"bdpo": effect}), SETTINGS["frontier"])
        assert words(rows, "grid-reward", "explains away") == [word]
        assert words(rows, "ablation", "explains away") == [word] * 2
        assert len(words(rows, "grid-unobserved", "explains away")) == 1


def test_the_levels_of_kl_are_those_that_the_verdict_names():
    *most, last = (f"{level:g}" for level in frontier.LEVELS)
    assert f"at the KL levels {', '.join(most)} and {last} nats" in " ".join(inspect.getdoc(frontier.verdict).split())


def test_a_kl_level_that_few_seeds_reach_is_no_cell():
    frame = frontier_frame()
    far = frame[(frame["kl"] < 1.5) | (frame["seed"] == 0) | (frame["method"] != "bdpo")]
    rows = frontier.verdict(far, SETTINGS["frontier"])
    assert {row.rows["kl"].max() for row in rows if row.role == "explains away"} == {1.0}
    assert [row.word for row in rows if row.statement.label == "DPO at equal KL (ends)"] == ["not run"] * 2


def test_the_report_counts_how_often_adam_raises_unobserved_mass():
    rows = {
        row.statement.label: row for row in starts.verdict(starts_frame(), SETTINGS["starts"]) if row.role == "context"
    }
    runs = len(SETTINGS["starts"]["mask_rates"]) * SETTINGS["starts"]["seeds"]
    steps = len(recorded_steps(500, 10)) - 1
    assert rows["DPO by plain gradient descent"].word == "proved"
    assert f"in 0 of {runs * steps} recorded rows" in rows["DPO by plain gradient descent"].sentence
    assert f"in {runs * (steps // 3)} of {runs * steps} recorded rows" in rows["DPO by Adam"].sentence
    assert rows["DPO by Adam"].word == "mixed"


DAMAGES = {
    "a missing cell": (
        lambda frame: frame[(frame["mask"] < 0.4) | (frame["policy"] != "shared")],
        "frame must have the declared cells; .*mask 0.4, policy shared.* is missing",
    ),
    "a missing method": (
        lambda frame: frame[frame["method"] != "bdpo"],
        "frame must have the declared cells; .*method bdpo, .* is missing",
    ),
    "a seed twice": (lambda frame: pd.concat([frame, frame[:1]]), "frame must have one row for each .*, got two at .*"),
    "a NaN": (
        lambda frame: frame.assign(unobserved_mass=frame["unobserved_mass"].where(frame.index != 3)),
        "frame must have finite .*unobserved_mass.*, got others at .*",
    ),
    "an infinity": (
        lambda frame: frame.assign(unobserved_mass=frame["unobserved_mass"].where(frame.index != 3, np.inf)),
        "frame must have finite .*unobserved_mass.*, got others at .*",
    ),
    "columns of another version": (
        lambda frame: frame.rename(columns={"mask": "mask_rate"}),
        "frame must be a data frame with the columns .*, got one without mask",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_that_is_not_whole_is_refused_in_one_line(name, damage):
    module, frame = FRAMES[name]
    change, said = DAMAGES[damage]
    with pytest.raises(ValueError, match=f"^{said}$") as error:
        module.verdict(change(frame()), SETTINGS[name])
    assert "\n" not in str(error.value)
