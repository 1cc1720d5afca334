"""The trained side of the atlas: its runs, its frames, the rules of its claims, and the sample that checks it."""

import itertools
import shutil

import numpy as np
import pandas as pd
import pytest

import gradlab as gl
from gradlab import plotting
from gradlab.atlas import endpoints
from gradlab.experiments import MEASURED
from gradlab.experiments.questions import (
    atlas,
    atlas_band,
    atlas_elsewhere,
    atlas_figures,
    atlas_frames,
    atlas_groups,
    atlas_runs,
    atlas_worlds,
)  # fmt: skip
from gradlab.experiments.questions.atlas_runs import ENDPOINTS, Method
from gradlab.experiments.report.other_claims import OTHERS
from gradlab.lab.training import Training

FEW = [Method("dpo", "published", {"beta": 0.1}), Method("bdpo", "published", {}), Method("ipo", "published", {})]
TINY = {
    "betas": [0.1, 1.0], "cells": [["uniform", "free"]], "factors": {"noise": [0.2], "spread": [1.0]},
    "world": {"mask_rate": 0.2, "scale": 4.0, "sigma": 3.0, "shift": 6.0},
    "training": Training(pairs=20, steps=20, record=5), "first_seed": 0, "seeds": 4, "batch_seeds": 2,
}  # fmt: skip
BAND = {"policies": ["free"], "pairs": [1], "training": Training(optimizer="gd", steps=4, record=2),
        "world": {"mask_rate": 0.2}, "first_seed": 0, "seeds": 2}  # fmt: skip

WORLDS = {"worlds": 2, "betas": [0.5, 1.0], "training": Training(steps=10, record=3), "first_seed": 0, "seeds": 2}


@pytest.fixture
def tiny(monkeypatch):
    """The smallest settings at which every part runs."""
    _make_tiny(monkeypatch)


def _make_tiny(monkeypatch):
    monkeypatch.setattr(atlas_runs, "QUICK", TINY)
    monkeypatch.setattr(atlas_band, "QUICK", BAND)
    monkeypatch.setattr(atlas_worlds, "QUICK", WORLDS)
    monkeypatch.setattr(atlas_runs, "methods", lambda: FEW)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlas")
    (folder / "data").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        _make_tiny(patch)
        assert atlas_frames.bring_up_to_date(folder, quick=True, workers=1) == [method.name for method in FEW]
    return folder


@pytest.fixture
def made(tiny, once, tmp_path):
    """A copy of the frames of a few losses."""
    return shutil.copytree(once, tmp_path / "figures")


def frames_in(folder):
    return {name: pd.read_parquet(folder / file) for name, file in atlas_frames.FILES.items()}


# --- methods ---


def test_every_registered_loss_is_trained_as_published():
    methods = {method.name: method for method in atlas_runs.methods() if method.preset == "published"}
    assert list(methods) == [*gl.losses.PAIR_LOSSES, *gl.losses.BATCH_LOSSES]
    assert methods["dpo"].make() == gl.DPO(beta=0.1)
    assert methods["bdpo"].make() == gl.BalancedDPO(beta=1.0)
    for method in methods.values():
        for name, value in method.make().published.items():
            assert getattr(method.make(), name, value) == value, (method.name, name)


def test_what_stands_for_beta_is_changed_and_nothing_else():
    assert Method("cdpo", "published", {"label_smoothing": 0.2}).make(3.0) == gl.losses.pair_loss(
        "cdpo", beta=3.0, label_smoothing=0.2
    )
    assert Method("dpo", "published", {"beta": 0.1}).make(3.0) == gl.DPO(beta=3.0)


def test_every_variant_is_of_a_registered_loss():
    for (loss, preset), hyper in atlas_runs.VARIANTS.items():
        assert loss in gl.losses.PAIR_LOSSES, preset
        assert gl.losses.named_loss(loss, **hyper)


# --- runs ---


def test_flipped_labels_are_wrong_as_often_as_asked():
    clean = gl.gaussian_world(2, 4, seed=3)
    noisy = atlas_runs.MislabelledWorld(**vars(clean), flipped=0.2)
    np.testing.assert_allclose(noisy.preference(), 0.8 * clean.preference() + 0.2 * (1 - clean.preference()))
    with pytest.raises(ValueError, match="flipped must be finite and lie in"):
        atlas_runs.MislabelledWorld(**vars(clean), flipped=0.6)


def test_label_noise_of_a_half_teaches_nothing():
    given = {**TINY["world"], "reference": "uniform"}
    training = Training(pairs=400, steps=100, record=2)
    told, noise = (
        atlas_runs.ended(atlas_runs.measured(gl.DPO(beta=1.0), {**given, "flipped": flipped}, training, 0, 6))
        for flipped in (0.0, 0.5)
    )
    assert told["utility_share"].mean() > 0.2
    assert abs(noise["utility_share"].mean()) < 0.05


def test_a_run_that_is_not_finite_is_a_row_of_gaps_and_the_others_stay(monkeypatch):
    def fragile(worlds, loss, training, seed):
        if 1 in seed:
            raise FloatingPointError("the policy is not finite")
        return gl.fit(worlds, loss, training, seed=seed)

    monkeypatch.setattr(endpoints, "fit", fragile)
    training = Training(pairs=20, steps=4, record=2)
    rows = atlas_runs.ended(atlas_runs.measured(gl.DPO(), {"mask_rate": 0.2}, training, 0, 3))
    assert rows["seed"].tolist() == [0, 1, 2]
    assert rows.set_index("seed")[ENDPOINTS].isna().all(axis=1).to_dict() == {0: False, 1: True, 2: False}


def test_the_matched_beta_is_the_nearest_by_distance_alone():
    ends = pd.DataFrame({"beta": [0.1, 1.0, 10.0], "kl_to_reference": [3.0, 1.2, 0.1], "factor": "beta", "how": None})
    assert atlas_frames.matched_beta(ends) == 1.0
    assert atlas_frames.matched_beta(ends.assign(factor="base")) is None


def test_each_row_of_a_factor_has_that_factor_changed_and_lengths_only_where_a_loss_reads_them():
    given = {name: TINY[name] for name in ("world", "training", "first_seed", "seeds")}
    rows = atlas_runs.factors("dpo", "published", {}, 1.0, factors=TINY["factors"], **given)
    assert set(rows["factor"]) == {"base", "noise"}
    assert (rows["beta"] == 1.0).all()
    assert rows.groupby(["factor", "level"]).size().eq(TINY["seeds"]).all()
    base, noisy = (rows[rows["factor"] == name]["utility_share"].mean() for name in ("base", "noise"))
    assert noisy < base


# --- the band ---


def test_single_pairs_with_free_logits_are_in_the_band_and_their_winners_rise():
    given = {name: BAND[name] for name in ("training", "world", "first_seed", "seeds")}
    rows = atlas_band.band("dpo", "published", {}, "free", 1, **given)
    assert (rows["inside"] > 0).all()
    assert (rows["inside"] == rows["inside_kept"]).all()
    assert (rows["outside"] == 0).all()


# --- frames ---


def test_frames_have_the_columns_of_the_atlas_and_are_not_made_twice(made):
    found = frames_in(made)
    assert list(found["ends"]) == atlas_frames.ENDS
    assert set(found["ends"]["factor"]) == {"base", "beta", "noise"}
    assert set(found["levels"]["how"]) == {"pooled", "ends"}
    assert list(dict.fromkeys(found["ends"]["loss"])) == [method.loss for method in FEW]
    assert atlas_frames.bring_up_to_date(made, quick=True, workers=1) == []
    assert not (made / "data" / ".parts").exists()


def test_a_new_loss_is_trained_alone_and_the_others_stay(made):
    before = frames_in(made)["ends"]
    more = [*FEW, Method("cdpo", "published", {})]
    assert atlas_frames.bring_up_to_date(made, quick=True, workers=1, methods=more) == ["cdpo"]
    after = frames_in(made)["ends"]
    pd.testing.assert_frame_equal(after[after["loss"] != "cdpo"].reset_index(drop=True), before)
    assert (after["loss"] == "cdpo").any()


def test_another_version_trains_everything_again(made, monkeypatch):
    monkeypatch.setattr(atlas_frames, "VERSION", atlas_runs.VERSION + 1)
    assert "run `make atlas`" in atlas_frames.check_sample(made)[0]
    assert atlas_frames.bring_up_to_date(made, quick=True, workers=1) == [method.name for method in FEW]


def test_the_sample_agrees_and_says_loudly_where_it_does_not(made):
    assert atlas_frames.check_sample(made, workers=1) == []
    frame, manifest = atlas_frames.load_frame(made / atlas_frames.FILES["ends"])
    changed = frame["expected_utility"].where(frame["loss"] != "bdpo", frame["expected_utility"] + 0.01)
    kept = {name: manifest[name] for name in ("version", "settings", "methods", "quick")}
    atlas_frames.save_frame(
        frame.assign(expected_utility=changed), made / atlas_frames.FILES["ends"], kept, overwrite=True
    )
    (said,) = atlas_frames.check_sample(made, workers=1)
    assert said.startswith("THE SAMPLE DIFFERS from the committed rows: bdpo (by 0.0")
    assert atlas_frames.check_sample(made, workers=1) == [said], "a difference is said until it is gone"


def test_rounding_becomes_more_in_a_training_where_exponentials_meet_adam():
    runs = atlas_frames.settings_of(quick=False)["runs"]
    given = {**{name: runs[name] for name in ("world", "training", "first_seed")}, "seeds": 1}
    known = {name: Method(name, "published", {}) for name in ("dpo", "f-dpo")}
    found = atlas_frames.rounding_of(known, given, list(known))
    assert found["dpo"] < 1e-9 < found["f-dpo"] < 1e-2


def test_a_loss_that_the_frames_lack_is_named(made, monkeypatch):
    monkeypatch.setattr(atlas_runs, "methods", lambda: [*FEW, Method("cdpo", "published", {})])
    assert atlas_frames.check_sample(made, workers=1) == ["it lacks cdpo; run `make atlas`"]


def test_where_nothing_was_made_nothing_is_checked(tmp_path):
    assert atlas_frames.check_sample(tmp_path) == []


# --- claims ---


def test_each_claim_of_others_has_a_primary_and_names_its_source(made):
    answers = atlas.verdict(frames_in(made))
    for name, claim in OTHERS.items():
        assert claim.source, name
        assert claim.predicted, name
        assert claim.measurements[0] == "atlas", name
        assert any(row.role == "primary" for row in answers if row.statement.claim == name), name
    assert {row.statement.claim for row in answers} == set(OTHERS)
    assert MEASURED["atlas"] is atlas.MEASUREMENT


def levels_of(rewards, *, seeds=12, noise=0.002, how="pooled"):
    """KL levels of made-up losses, whose reward differs by ``rewards``."""
    rng = np.random.default_rng(0)
    cells = [(reference, policy, kl) for reference in ("uniform", "shifted") for policy in ("free", "shared")
             for kl in (0.5, 1.0)]  # fmt: skip
    rows = [
        {"loss": loss, "preset": "published", "reference": reference, "policy": policy, "how": how, "kl": kl,
         "seed": seed, "utility_share": 0.5 + reward + noise * rng.standard_normal(),
         "unobserved_mass": 0.1, "win_logp_change": 0.0, "lose_logp_change": -1.0, "rest_logp_change": 0.0}
        for loss, reward in rewards.items() for reference, policy, kl in cells for seed in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(method=lambda frame: frame["loss"])


@pytest.mark.parametrize(
    ("best", "word", "beat"), [(0.05, "reversed", "ipo"), (0.0, "no practical difference", "none"), (-0.05, None, None)]
)
def test_none_beats_dpo_unless_one_does_on_seeds_that_did_not_choose_it(best, word, beat):
    rewards = {"dpo": 0.0, "ipo": best, "cdpo": -0.05, "bdpo": -0.08}
    differences = atlas._against_dpo(levels_of(rewards), atlas.CELL)
    primary, every = atlas._best_of_all(differences, atlas.CELL, "at equal KL", "at equal KL")
    assert primary.word == (word or "holds throughout")
    assert primary.rows["seeds"].eq(6).all(), "half of the seeds judge"
    if beat is not None:
        assert every.sentence.endswith(f"beat DPO by more than the margin: {beat}")
    assert every.word == ("reversed" if word == "reversed" else "holds throughout")


def test_pairing_decides_only_where_it_changes_more_than_the_score():
    pairwise, pointwise = (
        {"dpo": 0.0, "ipo": 0.0, "simpo": 0.0, "orpo": 0.0},
        dict.fromkeys(atlas_groups.POINTWISE, -0.05),
    )
    for change, words in ((0.0, {"holds throughout"}), (0.2, {"reversed", "holds throughout"})):
        levels = levels_of({**pairwise, "dpo": change, "ipo": change, **pointwise})
        answers = atlas._pairing(levels, levels.assign(how="ends"))
        assert answers[0].word == "holds throughout"
        controls = [row.word for row in answers if row.role == "explains away"]
        assert len(controls) == 2
        assert set(controls) == words, change


def worlds_of(rewards, *, number=24, noise=0.002):
    """A frame of worlds: levels of made-up losses, whose reward differs by ``rewards``, and ends at two β."""
    rng, rows = np.random.default_rng(0), []
    for world in range(number):
        kind = ("gaussian", "independent")[world % 2]
        common = {
            "world": world, "dose": float(rng.uniform(1, 8)), "utility_kind": kind, "mask": 0.2, "policy": "free",
            "pairs": 100, "reference": "uniform", "preset": "published", "unobserved_mass": 0.1,
        }  # fmt: skip
        for loss, reward in rewards.items():
            for seed in (2 * world, 2 * world + 1):
                for beta, kl in ((np.nan, 0.5), (np.nan, 1.0), (0.5, np.nan), (1.0, np.nan)):
                    value = 0.5 + reward + noise * rng.standard_normal()
                    rows.append({**common, "loss": loss, "seed": seed, "beta": beta, "kl": kl, "utility_share": value})
    return pd.DataFrame(rows).assign(method=lambda frame: frame["loss"])


def test_the_claims_are_transported_to_drawn_worlds():
    rewards = {"dpo": 0.0, "bdpo": -0.05, "link-u": 0.05, "ipo": 0.0, "simpo": 0.0, "orpo": 0.0,
               **dict.fromkeys(atlas_groups.POINTWISE, -0.03)}  # fmt: skip
    answers = {(row.statement.claim, row.statement.label): row for row in atlas_elsewhere.answers(worlds_of(rewards))}
    assert all(row.population == "worlds" and row.role == "primary" for row in answers.values())
    words = {key: row.word for key, row in answers.items()}
    assert words["exactly-balanced", "the link u"] == "holds on average"  # 24 worlds show no 95%
    assert words["exactly-balanced", "AdaDPO without its clip"] == "not run"
    assert words["pairing-decides", "pairwise against pointwise"] == "holds on average"
    best = answers["none-beats-dpo", "best of all, at equal KL"]
    assert best.word == "reversed"
    assert best.rows["world"].mod(2).eq(0).all(), "half of the worlds judge"
    assert best.statement.baseline == "link-u"


def test_a_best_beta_is_chosen_on_odd_seeds():
    rows = [
        {"method": "dpo", "beta": beta, "reference": "uniform", "policy": "free", "seed": seed,
         "utility_share": 0.5 + 0.1 * ((seed % 2 == 1) == (beta == 1.0))}
        for beta in (0.1, 1.0) for seed in range(8)
    ]  # fmt: skip
    best = atlas._at_best_beta(pd.DataFrame(rows))
    assert set(best["beta"]) == {1.0}
    assert best.groupby(best["seed"] % 2)["utility_share"].mean().round(3).to_dict() == {0: 0.5, 1: 0.6}


def test_the_structures_of_losses_train_in_a_cell():
    for name in ("nbdpo", "nca", "simpo", "slic"):
        given = {key: TINY[key] for key in ("betas", "world", "training", "first_seed", "seeds")}
        rows = atlas_runs.grid(name, "published", {}, "uniform", "free", **given)
        assert rows[rows["how"].isna()][ENDPOINTS].notna().all(axis=None), name


# --- figures ---


def test_the_map_has_dpo_in_the_middle_and_equal_losses_in_one_place():
    levels = levels_of({"dpo": 0.0, "r-dpo": 0.0, "ipo": 0.0, "robust": 0.0})
    levels.loc[levels["loss"].isin(["ipo", "robust"]), "win_logp_change"] = 0.3
    levels.loc[levels["loss"].isin(["ipo", "robust"]), "rest_logp_change"] = 0.2
    names = {"dpo": "DPO", "r-dpo": "R-DPO", "ipo": "IPO", "robust": "robust DPO"}
    (place,) = atlas_figures.places(levels, names)
    assert (place.name, place.rest) == ("IPO ≡ robust DPO", "more")
    assert (place.win, place.lose) == pytest.approx((0.3, 0.0))


def test_every_figure_has_a_caption_and_every_name_is_on_the_map_once(made):
    found = atlas_figures.figures(frames_in(made))
    assert list(found) == list(atlas_figures.CAPTIONS)
    places = [plotting.Place(name, win, lose, "same") for name, win, lose in (("a", 0.0, 0.01), ("b", 0.0, 0.011))]
    figure = plotting.map_of_losses(places)
    said = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(said) == ["DPO", "a", "b"]
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_factors_are_differences_from_dpo_at_the_same_level(made):
    frames = frames_in(made)
    table = atlas_figures.factors(frames["ends"], {"dpo": "DPO", "ipo": "IPO"})
    ends = frames["ends"].query("preset == '' and factor == 'noise'").groupby("loss")["utility_share"].mean()
    assert table.loc["IPO", ("flipped labels", "0.2")] == pytest.approx(100 * (ends["ipo"] - ends["dpo"]), rel=1e-4)
