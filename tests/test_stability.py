"""The claim on stability rests on three endpoints together; the held-out loss is that of the trainings."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gradlab.experiments.methods import loss_of, train
from gradlab.experiments.questions import stability
from gradlab.experiments.questions.stability_losses import held_out_losses, largest_rise, rise_at_the_end
from gradlab.experiments.report import verdicts
from gradlab.experiments.report.claims import CLAIMS
from gradlab.lab.descent import recorded_steps
from gradlab.lab.world import gaussian_world

SETTINGS = {**stability.SETTINGS, "first_seed": 0}
CONTROLS = {"DPO at β/2": "fixed λ=0.5", "DPO at equal scale": "bdpo at 2β", "λ permuted among pairs": "permuted λ"}


def ends(noise=1e-5, **of_bdpo):
    """Invented runs, equal but for bDPO's endpoints, which differ from DPO's by these numbers."""
    rng = np.random.default_rng(0)
    rows = []
    for part in stability.parts(SETTINGS):
        for seed in range(part["first_seed"], part["first_seed"] + part["seeds"]):
            row = {
                "kind": "map" if len(part["worlds"]) > 1 else "long", "method": part["method"],
                "mask": part["mask_rate"], "policy": part["training"].policy_name,
                "data": "100 pairs" if part["training"].pairs else "exact", "seed": seed, "utility_share": 0.5,
            }  # fmt: skip
            for name in ("rise", "drift", "jump", "rise_by_dpo", "jump_by_dpo"):
                row[name] = 0.2 + noise * rng.standard_normal()
                if part["method"] == "bdpo":
                    row[name] += of_bdpo.get(name, 0.0)
            rows.append(row)
    frame = pd.DataFrame(rows)
    steps = [frame.assign(step=step, utility_share=frame["utility_share"] + 1e-5 * step) for step in (1, 2)]
    return pd.concat(steps, ignore_index=True)


def answers(frame):
    return {row.statement.label: row for row in stability.verdict(frame, SETTINGS)}


def word_of(frame):
    rows = [replace(row, experiment="stability") for row in stability.verdict(frame, SETTINGS)]
    return verdicts.settle(rows, {"stability": "current"}, ["grid-stability"])["grid-stability"]


def test_no_single_endpoint_decides():
    """Finding 1: drift alone said 0 of 6 cells, the rise alone 6 of 6; together they must agree."""
    assert word_of(ends(rise=-0.1, drift=-0.05, jump=-0.1)).word == "holds throughout"
    assert word_of(ends(rise=-0.1)).word == "no practical difference"
    assert word_of(ends(rise=-0.1, drift=0.05, jump=-0.1)).word == "mixed"
    assert word_of(ends(drift=0.05)).word == "reversed"
    rows = answers(ends(rise=-0.1))
    primaries = [row for row in rows.values() if row.role == "primary"]
    assert [row.statement.value for row in primaries] == ["rise", "drift", "jump"]
    assert all(row.statement.co_primaries == 3 and len(row.rows) == 6 for row in primaries)
    assert "came after the first results" in CLAIMS["grid-stability"].ours


def test_each_endpoint_has_each_control_that_could_explain_it():
    rows = answers(ends())
    explains = [row.statement for row in rows.values() if row.role == "explains away"]
    assert {(one.label, one.value) for one in explains} == {
        (f"{control} ({name})", one.value) for control in CONTROLS for name, one in stability.ENDPOINTS.items()
    }
    for one in explains:
        control = CONTROLS[one.label.split(" (")[0]]
        assert control in (one.method, one.baseline)
    halved = word_of(ends(rise=-0.1, drift=-0.05, jump=-0.1))
    assert halved.because == "no practical difference"  # bDPO at 2β is no better than DPO
    assert halved.explains.statement.label.startswith("DPO at equal scale")


def test_sentences_are_plain_and_say_less_where_it_is_less():
    rows = answers(ends(rise=-0.1, drift=0.05, jump_by_dpo=-0.1))
    assert rows["rise of the held-out loss"].sentence == (
        "bDPO's held-out loss ends 0.100 nats less above its minimum than DPO's"
    )
    assert rows["drift"].sentence == (
        "over the last half of training bDPO's policy moves 5.00 points of probability more than DPO's"
    )
    yardstick = rows["DPO's loss as yardstick (largest sudden rise)"]
    assert yardstick.role == "robustness"
    assert yardstick.sentence.startswith("by DPO's loss for both, the largest sudden rise of bDPO's held-out loss is")
    for contrast in stability.contrasts(SETTINGS):
        assert all((contrast.label, contrast.better, contrast.worse, contrast.unit.words, contrast.margin > 0))


def test_seeds_are_added_to_both_methods_where_any_endpoint_is_wide():
    frame = ends()
    wide = (frame["method"] == "bdpo") & (frame["policy"] == "shared") & (frame["mask"] == 0.2)
    frame.loc[wide, "jump"] += 0.1 * np.random.default_rng(1).standard_normal(wide.sum())
    added = stability.more(frame, SETTINGS)
    assert {(part["method"], part["training"].policy_name, part["mask_rate"]) for part in added} == {
        ("dpo", "shared", 0.2), ("bdpo", "shared", 0.2)
    }  # fmt: skip
    assert all((part["first_seed"], part["seeds"], part["yardstick"]) == (12, 12, False) for part in added)


def test_a_missing_policy_is_refused():
    with pytest.raises(ValueError, match="the declared values of policy; shared is missing"):
        stability.verdict(ends().query("policy == 'free'"), SETTINGS)


@pytest.mark.parametrize("method", ["dpo", "bdpo at 2β", "permuted λ", "nbdpo"])
@pytest.mark.parametrize("pairs", [20, None])
def test_the_held_out_loss_is_that_of_the_training(method, pairs):
    worlds = [gaussian_world(3, 6, mask_rate=rate, seed=seed) for seed, rate in enumerate((0.0, 0.3))]
    fitted = train(method, worlds, seeds=[5, 6], pairs=pairs, steps=150, record=100, engine="eager")
    losses = held_out_losses(loss_of(method), fitted.policies, worlds, [5, 6], pairs)
    history = fitted.history["held_out_loss"].to_numpy().reshape(len(fitted.steps), 2)
    np.testing.assert_allclose(losses, history, rtol=0, atol=1e-13)  # a mean of at most 90 terms of about 1


def test_rises_by_hand():
    losses = np.array([[0.7, 0.7, 0.7], [0.5, 0.6, 0.6], [0.9, 0.5, 0.61], [0.6, 0.4, 0.64]])
    assert rise_at_the_end(losses) == pytest.approx([0.1, 0.0, 0.04])
    assert largest_rise(losses) == pytest.approx([0.4, 0.0, 0.03])


def test_the_recorded_steps_are_as_close_as_the_texts_say():
    training = stability.TRAINING
    steps = recorded_steps(training.steps, training.record)
    gaps = np.diff(steps)
    assert (gaps[:188] == 1).all()
    assert gaps[188] > 1
    assert f"at most {gaps.max()} steps" in stability.__doc__
    assert (gaps[188:] <= np.ceil(0.006 * steps[189:])).all()
    assert 760 < len(steps) < 780
    for text in (stability.__doc__, CLAIMS["grid-stability"].rule):
        assert "188" in text
        assert "0.6% apart" in text


@pytest.mark.slow
def test_a_part_has_the_endpoints_of_its_trainings():
    settings = {**SETTINGS, **stability.QUICK, "mask_rates": [0.2]}
    chosen = {part["method"]: part for part in stability.parts(settings) if part["training"].pairs}
    frame = stability.run_part(**chosen["bdpo"])
    part = chosen["bdpo"]
    worlds = [gaussian_world(mask_rate=0.2, seed=seed) for seed in range(2)]
    fitted = train("bdpo", worlds, part["training"], seeds=[0, 1])
    losses = fitted.history["held_out_loss"].to_numpy().reshape(len(fitted.steps), 2)
    last = stability.ends(frame)
    assert last["rise"].to_numpy() == pytest.approx(losses[-1] - losses.min(0), abs=1e-12)
    assert last["jump"].to_numpy() == pytest.approx(np.diff(losses, axis=0).max(0).clip(0), abs=1e-12)
    end, half = (fitted.policies[place].exp() for place in (-1, np.abs(fitted.steps - 200).argmin()))
    assert last["drift"].to_numpy() == pytest.approx((0.5 * (end - half).abs().sum(-1).mean(-1)).numpy(), abs=1e-12)
    assert last["held_out_loss"].to_numpy() == pytest.approx(losses[-1], abs=1e-12)
    assert frame["rise_by_dpo"].notna().all()
    assert stability.run_part(**{**part, "yardstick": False})["rise_by_dpo"].isna().all()
