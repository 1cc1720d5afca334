"""The experiment on sampling: its endpoints against other routes, its committed frame, and what it declares."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import gradlab as gl
from gradlab.experiments import EXPERIMENTS
from gradlab.experiments.questions import sampling, sampling_answer, sampling_runs
from gradlab.lab.samplers import sampler_of
from gradlab.store.artifacts import load_frame

FRAME = Path(__file__).parents[1] / "figures" / "data" / "sampling.parquet"
EXPERIMENT = EXPERIMENTS["sampling"]


@pytest.fixture(scope="module")
def frame():
    return load_frame(FRAME)[0]


def test_the_imbalance_of_the_pairs_seen_is_their_weighted_mean():
    world = gl.gaussian_world(prompts=2, responses=5, seed=0)
    fitted = gl.fit(world, gl.DPO(), steps=3, record=3, sampler="on-policy", engine="eager")
    rows = sampling_runs.measured(
        dataclasses.replace(fitted, policies=fitted.policies[:, None]),
        [world],
        [0],
        sampler_of("on-policy"),
        None,
        False,
    )
    prob = fitted.logp.exp().numpy()
    told = []
    for p in prob:
        pairs = [(p[i] * p[j], abs(np.log(p[i] / p[j]))) for i in range(5) for j in range(5) if i != j]
        told.append(sum(weight * size for weight, size in pairs) / sum(weight for weight, _ in pairs))
    assert rows["imbalance"].iloc[-1] == pytest.approx(np.mean(told), rel=1e-12)


def test_the_distance_to_the_frontier_is_zero_on_it_and_the_kl_itself_at_the_best_t():
    world = gl.gaussian_world(prompts=3, responses=6, seed=1)
    ref_logp, utility = (torch.as_tensor(values.copy()) for values in (world.ref_logp, world.utility))
    on = torch.as_tensor(world.ideal_logp(float(sampling_runs._TEMPERATURES[100])))
    assert float(sampling_runs.frontier_gap(on, ref_logp, utility)) == pytest.approx(0, abs=1e-12)
    off = torch.log_softmax(on + torch.linspace(0, 1, 6), -1)
    kls = [
        float((off.exp() * (off - torch.as_tensor(world.ideal_logp(t)))).sum(-1).mean())
        for t in np.geomspace(0.3, 30, 400)
    ]
    assert float(sampling_runs.frontier_gap(off, ref_logp, utility)) == pytest.approx(min(kls), rel=1e-2)


def test_a_frozen_on_policy_sampler_is_the_reference_as_sampler():
    world = gl.gaussian_world(prompts=2, responses=6, reference="shifted", shift=2.0, seed=2)
    given = {"steps": 30, "seed": 2, "pairs": 50, "engine": "eager"}
    frozen = gl.fit(world, gl.BalancedDPO(), sampler="on-policy", sampler_every=30, **given)
    reference = gl.fit(world, gl.BalancedDPO(), sampler="reference", **given)
    torch.testing.assert_close(frozen.logp, reference.logp, rtol=0, atol=1e-12)


def test_a_constant_weight_of_one_half_is_dpo_at_half_of_beta():
    world = gl.gaussian_world(prompts=2, responses=6, seed=3)
    given = {"steps": 30, "seed": 3, "pairs": 50, "sampler": "on-policy", "engine": "eager"}
    half = gl.fit(world, gl.FixedWeightDPO(1.0, 0.5), **given)
    torch.testing.assert_close(half.logp, gl.fit(world, gl.DPO(0.5), **given).logp, rtol=0, atol=1e-12)


def test_a_part_has_the_values_of_its_seeds():
    part = {"loss": "bdpo", "beta": 1.0, "scale": 1.0, "reference": "uniform", "samplers": ["uniform", "on-policy"],
            "shift": 6.0, "prompts": 1, "first_seed": 0, "seeds": 1}  # fmt: skip
    rows = sampling.run_part("points", **part)
    assert rows["settled"].eq(1).all()
    assert rows.set_index("sampler")["kl_uniform"]["on-policy"] == pytest.approx(1.37e-5, rel=0.3)


def test_the_committed_frame_is_of_todays_settings_and_marks_every_prediction(frame):
    from gradlab.experiments import frames

    assert frames.is_current(EXPERIMENT, FRAME.parent, quick=False)
    outcomes = {one.text: one.check(frame) for one in sampling_answer.PREDICTIONS}
    assert all(outcome.word in ("held", "failed") for outcome in outcomes.values()), outcomes
    assert outcomes["Where bDPO settles depends on the sampler."].word == "held"


def test_the_controls_carry_the_verdict_on_the_benefit(frame):
    answers = EXPERIMENT.verdict(frame, EXPERIMENT.settings)
    roles = {(one.statement.claim, one.role) for one in answers}
    for claim in ("sampling-limit", "sampling-imbalance", "sampling-benefit"):
        assert (claim, "primary") in roles
    controls = {one.statement.label for one in answers if one.role == "explains away"}
    assert {"λ = ½", "DPO at equal scale", "λ permuted among pairs", "DPO at equal KL", "bDPO at 2β"} <= controls
    assert all(one.word != "not run" for one in answers)


def test_the_answer_has_only_numbers_of_the_frame(frame):
    told = sampling_answer.answer(frame)
    changed = frame.assign(imbalance=2 * frame["imbalance"])
    assert told != sampling_answer.answer(changed)
    assert "nan" not in told


@pytest.mark.parametrize(("factor", "word"), [(4.0, "held"), (2.0, "failed"), (0.8, "failed")])
def test_the_fall_of_the_imbalance_is_marked_by_its_factor(factor, word):
    common = {
        "kind": "end",
        "method": "dpo",
        "reference": "uniform",
        "data": "100",
        "beta": 1.0,
        "frozen": 0.0,
        "moved": 0.0,
    }
    rows = [
        {**common, "sampler": sampler, "seed": seed, "imbalance": imbalance + 0.001 * seed}
        for sampler, imbalance in (("uniform", factor), ("on-policy", 1.0)) for seed in range(6)
    ]  # fmt: skip
    assert sampling_answer.imbalance_falls(pd.DataFrame(rows)).word == word
