"""Inner products of ∇π_i: two routes meet, verdicts follow the data, and the small network is one that learns."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from rounding import rounding

from gradlab import plotting
from gradlab.experiments import frames
from gradlab.experiments.methods import train
from gradlab.experiments.questions import inner_products
from gradlab.experiments.questions.inner_products_network import (
    gradient_kernels,
    initial_weights,
    network_inputs,
    scores,
    train_network,
)
from gradlab.lab import metrics
from gradlab.lab.policy import RadialBasis
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world
from gradlab.losses import DPO, BalancedDPO
from gradlab.plotting.matrices import PARAMETERS
from gradlab.theory import gradient_cosines, gradient_inner_products, mean_off_diagonal

VALUES = ["raw", "cosine", "abs_cosine", "total"]


def part(family, parameters, levels, n=20, seeds=2, pairs=100):
    training = Training(learning_rate=0.01 if parameters == "mlp" else 0.05, pairs=pairs, record=1)
    return inner_products.run_part(family, parameters, levels, [n], 0.6, 0, seeds, training, n == 20)


def means(frame):
    return frame[frame["kind"] == "mean"]


def matrix(entries):
    """The cosines and the policy of one level's entries."""
    grid = entries.pivot(index="row", columns="column", values="cosine").to_numpy()
    return grid, entries[entries["row"] == 0].sort_values("column")["prob"].to_numpy()


def products_by_autograd(score, parameters, p):
    """⟨∇π_i, ∇π_j⟩ of softmax(start + score(θ)), the start such that the policy is p at these parameters."""
    start = torch.as_tensor(np.log(p)) - score(*parameters).detach()
    jacobians = torch.autograd.functional.jacobian(lambda *at: torch.softmax(start + score(*at), 0), parameters)
    flat = torch.cat([one.flatten(1) for one in jacobians], 1).numpy()
    return flat @ flat.T


def cosines_of(products):
    norms = np.sqrt(np.diag(products))
    return products / np.outer(norms, norms)


@pytest.fixture(scope="module")
def quick():
    return frames.run(inner_products.EXPERIMENT, quick=True, workers=1)


# --- the frame by another route -------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", ["free", "shared"])
@pytest.mark.parametrize(("family", "level"), [("dirichlet", 1.0), ("gaussian", 0.15), ("one-hot", 0.99)])
def test_tabular_means_are_those_of_an_autograd_jacobian(family, level, parameters):
    frame = part(family, parameters, [level])
    grid, p = matrix(frame[frame["kind"] == "entry"])
    features = RadialBasis().features(20) if parameters == "shared" else torch.eye(20, dtype=torch.float64)
    theta = torch.zeros(features.shape[1], dtype=torch.float64)
    products = products_by_autograd(lambda at: features @ at, (theta,), p)
    cosines = cosines_of(products)
    np.testing.assert_allclose(grid, cosines, atol=1e-8)
    row = means(frame).query("set == 'full' and seed == 0").iloc[0]
    off = ~np.eye(20, dtype=bool)
    assert row["raw"] == pytest.approx(products[off].mean() / np.diag(products).mean(), abs=1e-9)
    assert row["cosine"] == pytest.approx(cosines[off].mean(), abs=1e-9)
    assert row["abs_cosine"] == pytest.approx(np.abs(cosines[off]).mean(), abs=1e-9)


def test_a_trained_networks_entries_are_those_of_an_autograd_jacobian():
    frame = part("trained", "mlp", [0, 30])
    worlds = [gaussian_world(mask_rate=0.4, seed=seed) for seed in range(2)]
    found = train_network(worlds, DPO(), seeds=range(2), steps=[0, 30], pairs=100)
    inputs = network_inputs(20, 20)
    for level, checkpoint in zip(frame["level"].unique(), found, strict=True):
        grid, p = matrix(frame[(frame["kind"] == "entry") & (frame["level"] == level)])
        np.testing.assert_allclose(p, checkpoint.logp[0, 10].exp(), atol=1e-12)
        weights = tuple(one[0] for one in checkpoint.weights)
        products = products_by_autograd(lambda *at: scores(list(at), inputs[10]), weights, p)
        np.testing.assert_allclose(grid, cosines_of(products), atol=1e-8)


def test_a_networks_kernel_is_its_jacobian_times_itself():
    weights, inputs = initial_weights([0, 1]), network_inputs(3, 5)
    kernels = gradient_kernels(weights, inputs)
    assert kernels.shape == (2, 3, 5, 5)
    for run, prompt in itertools.product(range(2), range(3)):
        own = tuple(one[run] for one in weights)
        jacobians = torch.autograd.functional.jacobian(lambda *at: scores(list(at), inputs[prompt]), own)  # noqa: B023
        flat = torch.cat([one.flatten(1) for one in jacobians], 1)
        torch.testing.assert_close(kernels[run, prompt], flat @ flat.T)


@pytest.mark.parametrize("steps", [0, 20])
def test_a_trained_policys_observed_mean_is_over_what_its_data_cover(steps):
    rows = means(part("trained", "free", [steps], seeds=1)).set_index("set")
    world = gaussian_world(mask_rate=0.4, seed=0)
    p = np.exp(world.ref_logp)
    if steps:
        p = train("dpo", [world], steps=steps, pairs=100, seeds=[0]).logp[0].exp().numpy()
    products = gradient_inner_products(p)
    by_prompt = [
        mean_off_diagonal(one, seen) / np.diag(one)[seen].mean()
        for one, seen in zip(products, world.observed, strict=True)
    ]
    assert rows.loc["observed", "raw"] == pytest.approx(np.mean(by_prompt), abs=1e-12)
    assert rows.loc["full", "cosine"] == pytest.approx(mean_off_diagonal(gradient_cosines(p)).mean(), abs=1e-12)


# --- what must be so ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [5, 20])
def test_a_uniform_policy_gives_minus_one_over_n_minus_one(n):
    rows = means(part("trained", "free", [0], n=n))
    np.testing.assert_allclose(rows[["raw", "cosine"]], -1 / (n - 1), atol=1e-12)
    np.testing.assert_allclose(rows["abs_cosine"], 1 / (n - 1), atol=1e-12)


def test_over_all_responses_the_mean_is_algebra(quick):
    rows = means(quick).query("set == 'full'")
    assert set(zip(rows["family"], rows["parameters"], strict=True)) == set(
        itertools.product(inner_products.LEVELS, PARAMETERS)
    )
    assert (rows["total"] < 1e-12).all()
    np.testing.assert_allclose(rows["raw"], -1 / (rows["n"] - 1), atol=1e-10)


def test_over_a_subset_the_mean_follows_from_the_norm_of_its_sum(quick):
    rows = means(quick).query("set == 'observed' and family != 'trained'")
    size = np.maximum((0.6 * rows["n"]).round(), 2)
    np.testing.assert_allclose(rows["raw"], (rows["total"] - 1) / (size - 1), atol=1e-10)


def test_over_random_subsets_the_expected_inner_product_is_that_over_all_responses():
    p = np.random.default_rng(0).dirichlet(np.ones(6))
    products = gradient_inner_products(p)
    subsets = [np.isin(np.arange(6), chosen) for chosen in itertools.combinations(range(6), 3)]
    found = [mean_off_diagonal(products, subset) for subset in subsets]
    assert np.mean(found) == pytest.approx(mean_off_diagonal(products), abs=rounding(36, np.abs(products).max()))
    assert mean_off_diagonal(products) < 0


def test_an_unobserved_peak_makes_the_observed_mean_positive():
    p = np.array([0.001, 0.0015, 0.0005, 0.997])
    products = gradient_inner_products(p)
    assert mean_off_diagonal(products, np.array([True, True, True, False])) > 0
    assert mean_off_diagonal(products, np.array([True, True, False, True])) < 0
    assert mean_off_diagonal(gradient_cosines(np.r_[0.95, np.full(9, 0.05 / 9)])) > 0


def test_every_mean_is_a_number(quick):
    rows = means(quick)
    assert np.isfinite(rows[VALUES]).all().all()
    assert (rows["abs_cosine"] >= rows["cosine"].abs() - 1e-12).all()
    assert not rows.duplicated(["family", "level", "n", "parameters", "set", "seed"]).any()


def test_families_are_what_their_levels_say():
    for level in (0.9, 0.999999):
        _, p = matrix(part("one-hot", "free", [level]).query("kind == 'entry'"))
        assert p.max() == pytest.approx(level)
        assert p.sum() == pytest.approx(1)
    spread = []
    for width in (0.075, 0.3):
        _, p = matrix(part("gaussian", "free", [width]).query("kind == 'entry'"))
        curvature = np.diff(np.log(p), 2)
        np.testing.assert_allclose(curvature, -1 / (20 * width) ** 2)
        spread.append(p.max())
    assert spread[0] > spread[1]


# --- randomness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", ["free", "shared", "mlp"])
def test_equal_seeds_give_equal_bits_and_different_ones_differ(parameters):
    frame = part("dirichlet", parameters, [1.0], n=8, seeds=3)
    pd.testing.assert_frame_equal(part("dirichlet", parameters, [1.0], n=8, seeds=3), frame, check_exact=True)
    fewer = part("dirichlet", parameters, [1.0], n=8, seeds=2)
    pd.testing.assert_frame_equal(fewer, frame[frame["seed"] < 2].reset_index(drop=True), check_exact=True)
    assert means(frame).query("set == 'full'")["cosine"].nunique() == 3


def test_the_policy_does_not_depend_on_its_parameters_nor_on_other_levels():
    free, network = part("dirichlet", "free", [0.1, 1.0]), part("dirichlet", "mlp", [1.0])
    same = [matrix(one.query("kind == 'entry' and level == 'α = 1'"))[1] for one in (free, network)]
    np.testing.assert_array_equal(*same)


# --- verdicts -------------------------------------------------------------------------------------------------------


def synthetic(raw=-0.3, cosine=-0.3, total=0.0, spread=1e-3):
    """Invented means of four families at three sizes, with free logits."""
    rng = np.random.default_rng(0)
    rows = [
        {"kind": "mean", "method": "policy", "family": family, "level": level, "n": n, "parameters": "free",
         "set": chosen, "seed": seed, "raw": raw + noise, "cosine": cosine + noise,
         "abs_cosine": abs(cosine) + noise, "total": total}
        for family, level in (("dirichlet", "α = 1"), ("gaussian", "width 0.15 n"), ("one-hot", "peak 0.9"),
                              ("trained", "0 steps of DPO"))
        for n in (4, 20) for chosen in ("full", "observed") for seed in range(8)
        for noise in rng.normal(0, spread, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def answers(frame):
    return inner_products.verdict(
        frame, {**inner_products.SETTINGS, "parameters": frame["parameters"].dropna().unique()}
    )


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (synthetic(), ["proved", *["reversed"] * 2, *["holds throughout"] * 3]),
        (synthetic(raw=0.3, cosine=0.02), ["proved", *["holds throughout"] * 2, *["reversed"] * 3]),
        (synthetic(raw=0, cosine=0, spread=1e-5),
         ["proved", *["holds throughout"] * 2, *["no practical difference"] * 3]),
        (synthetic(total=1e-6), ["refuted", *["reversed"] * 2, *["holds throughout"] * 3]),
    ],
)  # fmt: skip
def test_the_verdict_follows_the_data(frame, words):
    rows = answers(frame)
    assert [row.word for row in rows[:6]] == words
    assert [row.role for row in rows] == [*["primary"] * 2, *["robustness"] * 4, *["context"] * 4]
    assert rows[3].effect == pytest.approx(-frame.loc[frame["set"] == "observed", "raw"].mean())
    assert all(row.word == words[1] for row in rows[6:])


def test_the_mix_of_sizes_does_not_move_the_primary():
    """Finding 10, here too: an average over cells is fixed by their mix, so each family has as many cells."""
    frame = synthetic(cosine=0.02)
    small = frame["n"] != 20
    frame.loc[small, "abs_cosine"] = 0.6
    rows = answers(frame)
    assert (rows[1].word, rows[2].word) == ("holds throughout", "reversed")
    assert len(rows[1].rows) == 4


def test_each_family_has_as_many_cells_in_the_primary_and_a_row_of_its_own():
    settings = inner_products.SETTINGS
    assert {len(levels) for levels in settings["levels"].values()} == {3}
    assert all(inner_products.PICTURED in sizes for sizes in settings["sizes"].values())
    assert list(inner_products.FAMILIES) == list(settings["levels"])
    frame = synthetic(cosine=0.02)
    frame.loc[frame["family"] == "one-hot", "abs_cosine"] = 0.6
    rows = {row.statement.label: row for row in answers(frame)}
    assert rows["peaked policies"].word == "reversed"
    assert (
        "not nearly orthogonal (peaked policies): their mean |cosine| lies 0.500 above 0.1"
        in rows["peaked policies"].sentence
    )
    assert rows["Gaussian policies"].word == "holds throughout"
    assert rows["20 responses"].word == "mixed"


def test_a_missing_family_is_refused():
    with pytest.raises(ValueError, match="the declared values of family; trained is missing"):
        answers(synthetic().query("family != 'trained'"))


def test_a_quick_run_is_judged_cell_by_cell(quick):
    settings = {**inner_products.SETTINGS, **inner_products.QUICK}
    rows, table = inner_products.verdict(quick, settings), means(quick)
    cells = table[["family", "level", "n", "parameters"]].drop_duplicates()
    chosen = (cells["n"] == 20).sum()
    assert [len(row.rows) for row in rows[:6]] == [len(table.query("set == 'full'")), chosen, len(cells) - chosen,
                                                   *[len(cells)] * 3]  # fmt: skip
    assert rows[0].word == "proved"
    assert sum(len(row.rows) for row in rows[6:]) == chosen
    assert quick["seed"].min() == 0


# --- drawings -------------------------------------------------------------------------------------------------------


def test_the_figures_show_what_the_frame_says(quick):
    drawn = inner_products.figures(quick)
    assert list(drawn) == list(inner_products.CAPTIONS)
    panels = [axis for axis in drawn["inner-products"].axes if axis.images and axis.get_xlabel()]
    assert len(panels) == 12
    shown = panels[0].images[0].get_array()
    off = ~np.eye(20, dtype=bool)
    assert f"{abs(shown[off].mean()):.2f}" in panels[0].get_xlabel()
    assert panels[0].get_title() == "uniform\nlargest π 0.05"
    names = [label.get_text() for label in drawn["inner-products-families"].axes[0].get_yticklabels()]
    assert names == ["Dirichlet, α = 0.1", "Dirichlet, α = 10", "Gaussian, width 0.15 $n$", "one-hot, peak 0.9",
                     "trained, 0 steps of DPO", "trained, 100 steps of DPO"]  # fmt: skip


def test_a_mark_stands_at_its_mean_and_its_bar_at_the_interval():
    rows = pd.DataFrame({"family": "a", "line": "a, 1", "parameters": "free", "seed": range(4), "value": [1, 2, 3, 6]})
    axis = plotting.family_means(rows, {"value": "v"}, ["a, 1"], (0.0, "nothing")).axes[0]
    (bars,) = axis.containers
    assert bars.lines[0].get_xdata() == pytest.approx([3.0])
    (ends,) = bars.lines[2][0].get_segments()
    assert ends[0, 0] < 3 < ends[1, 0]


def test_kinds_of_parameters_are_told_apart_in_grey():
    looks = list(PARAMETERS.values())
    assert len({one["marker"] for one in looks}) == len({one["markerfacecolor"] for one in looks}) == len(looks)


# --- the network ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worlds():
    return [gaussian_world(mask_rate=0.4, seed=seed) for seed in range(2)]


def share(logp, worlds):
    utility, reference = (torch.as_tensor(np.stack([getattr(one, name) for one in worlds]))
                          for name in ("utility", "ref_logp"))  # fmt: skip
    return metrics.utility_share(logp, utility, reference)


def test_the_network_starts_at_the_reference_and_learns(worlds):
    shifted = [gaussian_world(mask_rate=0.4, reference="shifted", seed=seed) for seed in range(2)]
    for given in (worlds, shifted):
        start, middle, end = train_network(given, DPO(), seeds=range(2), steps=[0, 40, 200])
        reference = torch.as_tensor(np.stack([one.ref_logp for one in given]))
        torch.testing.assert_close(start.logp, reference)
        gains = [share(one.logp, given) for one in (start, middle, end)]
        assert (gains[0].abs() < 1e-12).all()
        assert (gains[1] > 0.2).all()
        assert (gains[2] > gains[1]).all()
        torch.testing.assert_close(end.logp.logsumexp(-1), torch.zeros(2, 20, dtype=torch.float64))


def test_training_is_deterministic_and_each_run_is_its_own(worlds):
    both = train_network(worlds, BalancedDPO(), seeds=[3, 4], steps=[20], pairs=50)[0]
    again = train_network(worlds, BalancedDPO(), seeds=[3, 4], steps=[0, 20], pairs=50)[1]
    assert torch.equal(both.logp, again.logp)
    assert all(torch.equal(one, other) for one, other in zip(both.weights, again.weights, strict=True))
    alone = train_network(worlds[1:], BalancedDPO(), seeds=[4], steps=[20], pairs=50)[0]
    torch.testing.assert_close(alone.logp[0], both.logp[1])
    assert not torch.allclose(both.logp[0], train_network(worlds, BalancedDPO(), seeds=[5, 4], steps=[20])[0].logp[0])


def test_the_first_step_follows_the_gradient_of_the_mean_loss(worlds):
    """Adam's first step is the gradient's sign times the learning rate: here by plain autograd over all pairs."""
    world = worlds[0]
    start, after = train_network([world], DPO(), seeds=[0], steps=[0, 1], learning_rate=1e-3)
    weights = [one[0].clone().requires_grad_() for one in start.weights]
    inputs, ref = network_inputs(20, 20), torch.as_tensor(world.ref_logp.copy())
    moved = scores(weights, inputs.flatten(0, 1)).unflatten(0, (20, 20))
    h = torch.log_softmax(ref + moved - moved.detach(), -1) - ref
    wins = torch.as_tensor(world.preference() * world.comparable())
    loss = -(wins * torch.nn.functional.logsigmoid(h[:, :, None] - h[:, None, :])).sum()
    slopes = torch.autograd.grad(loss, weights)
    for before, later, slope in zip(start.weights, after.weights, slopes, strict=True):
        clear = slope.abs() > 1e-3
        torch.testing.assert_close((later - before)[0][clear], -1e-3 * slope.sign()[clear], atol=1e-6, rtol=1e-3)


def test_bad_arguments_are_refused(worlds):
    with pytest.raises(ValueError, match="learning_rate must be finite and > 0, got 0"):
        train_network(worlds, DPO(), seeds=[0, 1], steps=[1], learning_rate=0)
    with pytest.raises(ValueError, match="hidden must be a whole number ≥ 1, got 0"):
        initial_weights([0], hidden=0)
    with pytest.raises(ValueError, match="one per run: 2 runs, got 1 seeds"):
        train_network(worlds, DPO(), seeds=[0], steps=[1])
