"""Training under samplers: what they leave where it is, what they move, and how fast."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from rounding import rounding

import gradlab as gl
from gradlab.cli import main
from gradlab.experiments.methods import PermutedBalancedDPO
from gradlab.experiments.report.methods_page import _compact
from gradlab.lab.objective import PairObjective, from_columns, to_columns
from gradlab.lab.runs import Runs
from gradlab.lab.samplers import SAMPLERS, pair_weights
from gradlab.lab.seen_pairs import SeenPairs
from gradlab.lab.training import Training
from gradlab.losses import named_loss

LAWS = [SAMPLERS[name]() for name in SAMPLERS]
EVEN = gl.samplers.Uniform()
WORLD = gl.gaussian_world(3, 4, scale=1.5, reference="random", seed=5)
GD = {"optimizer": "gd", "learning_rate": 0.5, "engine": "eager"}


def weights_at(sampler, world, logp, data=None):
    """Return the pair weights of a sampler at log π (X, Y), as the training has them."""
    runs = Runs.of(world, None, None, 0)
    data = torch.from_numpy(runs.data()[0]) if data is None else data
    given = torch.from_numpy(world.ref_logp.copy()), torch.from_numpy(world.utility.copy())
    comparable = torch.from_numpy(world.comparable()).double()
    return sampler.reweighted(data, pair_weights(sampler, logp, *given), comparable)


def logit_gradient(loss, world, logp, weights):
    """Return ∂L/∂logit of each prompt's weighted loss, (X, Y)."""
    objective = PairObjective(loss, weights[None].numpy(), world.ref_logp[None].copy(), "cpu", torch.float64)
    slope = from_columns(objective.gradient(to_columns(logp[None], "cpu", torch.float64)), 1, world.prompts)[0]
    return slope - logp.exp() * slope.sum(-1, keepdim=True)


def settled(loss, world, sampler=EVEN, rate=2.0):
    """Return the policy at which plain descent on the sampler's weights comes to rest, and its gradient's size."""
    logits = torch.from_numpy(world.ref_logp.copy())
    for _ in range(3000):
        logp = logits.log_softmax(-1)
        slope = logit_gradient(loss, world, logp, weights_at(sampler, world, logp))
        if slope.abs().max() < 1e-9:
            break
        logits = logits - rate * slope
    return logp, slope.abs().max().item()


# --- what the sampler leaves where it is ---


@pytest.mark.parametrize("sampler", [one for one in LAWS if one.full_support], ids=lambda one: one.name)
@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_every_sampler_leaves_the_optimum_of_dpo_where_it_is(sampler, beta):
    logp = torch.from_numpy(WORLD.ideal_logp(beta))
    weights = weights_at(sampler, WORLD, logp)
    slope = logit_gradient(gl.DPO(beta), WORLD, logp, weights)
    # per pair σ(m) against σ(u_i − u_j): some ten roundings of margins up to 4; each prompt's weights sum to S
    assert slope.abs().max() < rounding(40, size=beta * weights.sum((-2, -1)).max().item() * 4)


def test_the_fixed_point_of_balanced_dpo_depends_on_the_sampler():
    world = gl.gaussian_world(2, 3, scale=0.5, reference="random", seed=1)
    logp, residual = settled(gl.BalancedDPO(), world)
    assert residual < 1e-9
    for name in ("on-policy", "reference", "best-worst", "mix-p", "rejection"):
        moved = logit_gradient(gl.BalancedDPO(), world, logp, weights_at(SAMPLERS[name](), world, logp))
        assert moved.abs().max() > 1e-6, name
    ideal, _ = settled(gl.DPO(), world)
    np.testing.assert_allclose(ideal, world.ideal_logp(), atol=1e-7)


def test_without_full_support_dpo_ends_elsewhere():
    world = gl.gaussian_world(2, 5, scale=1.5, reference="random", seed=4)
    end = gl.fit(world, gl.DPO(), sampler="top-k:k=2", steps=200, record=1, **GD).logp
    ideal = torch.from_numpy(world.ideal_logp())
    assert ((end.exp() * (end - ideal)).sum(-1) > 1e-3).all()
    top, prompts = end.topk(2).indices, torch.arange(2)[:, None]
    apart = (end - ideal)[prompts, top].diff()  # between the two that are seen, it is the optimum
    torch.testing.assert_close(apart, torch.zeros_like(apart), rtol=0, atol=1e-9)


def test_the_uniform_sampler_changes_no_bit_and_neither_does_the_way_through_samplers():
    given = {"steps": 40, "engine": "eager"}
    for more in ({}, {"pairs": 30}, {"batch": 8}, {"pairs": 30, "batch": 8}):
        plain = gl.fit(WORLD, gl.BalancedDPO(), **given, **more)
        assert torch.equal(plain.policies, gl.fit(WORLD, gl.BalancedDPO(), sampler="uniform", **given, **more).policies)
        late = gl.fit(WORLD, gl.BalancedDPO(), reference_every=40, **given, **more)  # never before the last step
        assert torch.equal(plain.policies, late.policies)


# --- bits ---


@pytest.mark.parametrize("sampler", LAWS, ids=lambda one: one.name)
@pytest.mark.parametrize("more", [{}, {"batch": 5}, {"pairs": 12}], ids=lambda more: "-".join(more))
def test_a_run_gives_the_same_bits_in_a_batch_and_alone_and_with_the_same_seed(sampler, more):
    worlds = [
        gl.gaussian_world(3, 5, mask_rate=rate, reference="random", seed=n) for n, rate in enumerate((0, 0.4, 0.2))
    ]
    given = {"sampler": sampler, "sampler_every": 2, "steps": 12, "engine": "eager", **more}
    batch = gl.fit(worlds, gl.BalancedDPO(), seed=[0, 1, 2], **given)
    again = gl.fit(worlds, gl.BalancedDPO(), seed=[0, 1, 2], **given)
    assert torch.equal(batch.policies, again.policies)
    for n, world in enumerate(worlds):
        assert torch.equal(batch.policies[:, n], gl.fit(world, gl.BalancedDPO(), seed=n, **given).policies)


@pytest.mark.parametrize("text", ["mixture", "best-worst", "importance:how=clipped,clip=1.5"])
def test_many_runs_give_the_bits_that_each_gives_alone(text):
    worlds = [gl.gaussian_world(1, 3, reference="random", seed=seed) for seed in range(70)]  # columns of three blocks
    given = {"sampler": text, "steps": 3, "batch": 4, "engine": "eager"}
    batch = gl.fit(worlds, gl.BalancedDPO(), seed=range(70), **given).logp
    for seed in (0, 31, 32, 69):
        assert torch.equal(batch[seed], gl.fit(worlds[seed], gl.BalancedDPO(), seed=seed, **given).logp)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sampler", LAWS, ids=lambda one: one.name)
def test_another_device_agrees(sampler):
    cpu, cuda = (
        gl.fit(WORLD, gl.DPO(), sampler=sampler, steps=20, device=device, engine="eager") for device in ("cpu", "cuda")
    )
    torch.testing.assert_close(cuda.logp.cpu().exp(), cpu.logp.exp(), rtol=0, atol=1e-8)


# --- the loop ---


def by_hand(world, loss, sampler, steps, rate, every=1, reference_every=None):
    """Return log π after plain descent with autograd, pair by pair."""
    data = torch.from_numpy(Runs.of(world, None, None, 0).data()[0])
    ref, utility = torch.from_numpy(world.ref_logp.copy()), torch.from_numpy(world.utility.copy())
    start, theta = ref, torch.zeros_like(ref, requires_grad=True)
    for step in range(steps):
        logp = (start + theta).log_softmax(-1)
        if reference_every and step and step % reference_every == 0:
            ref = logp.detach()
        if step % every == 0:
            weights = data * sampler.pairs(logp, ref, utility)
            weights = weights / weights.sum((-2, -1), keepdim=True)
        total = 0
        for x, i, j in itertools.product(range(world.prompts), range(world.responses), range(world.responses)):
            if i != j:
                total = total + weights[x, i, j] * loss(gl.PairLogps(logp[x, i], logp[x, j], ref[x, i], ref[x, j]))
        (slope,) = torch.autograd.grad(total, theta)
        theta = (theta - rate * slope).detach().requires_grad_()
    return (start + theta).log_softmax(-1).detach()


@pytest.mark.parametrize("loss", [gl.DPO(), gl.NaiveBalancedDPO()], ids=lambda loss: loss.name)
@pytest.mark.parametrize(
    ("sampler", "every", "reference_every"),
    [("on-policy", 1, None), ("pilaf", 3, None), ("best-worst", 2, 4), ("reference", 2, 3), ("mix-p", 5, 2)],
)
def test_training_is_a_hand_written_loop(loss, sampler, every, reference_every):
    given = {"sampler": sampler, "sampler_every": every, "reference_every": reference_every}
    end = gl.fit(WORLD, loss, steps=7, **GD, **given).logp
    hand = by_hand(WORLD, loss, SAMPLERS[sampler](), 7, 0.5, every, reference_every)
    torch.testing.assert_close(end, hand, rtol=0, atol=rounding(7 * 200))  # 7 steps, sums of 12 pairs


def test_a_sampler_that_follows_the_policy_as_seldom_as_there_are_steps_is_that_of_the_start():
    frozen = gl.fit(WORLD, gl.DPO(), steps=30, sampler="on-policy", sampler_every=30, **GD)
    start = gl.fit(WORLD, gl.DPO(), steps=30, sampler="reference", **GD)
    torch.testing.assert_close(frozen.policies, start.policies, rtol=0, atol=rounding(30 * 100))
    moving = gl.fit(WORLD, gl.DPO(), steps=30, sampler="on-policy", **GD)
    assert (moving.logp - frozen.logp).abs().max() > 1e-3


def test_a_moving_reference_adds_up_the_rewards():
    world = gl.gaussian_world(2, 4, scale=1.0, reference="random", seed=1)
    given = {"steps": 3 * 120, "optimizer": "gd", "learning_rate": 1.0, "record": 1, "engine": "eager"}
    moved = gl.fit(world, gl.DPO(beta=2.0), reference_every=120, **given)
    np.testing.assert_allclose(moved.logp, world.ideal_logp(beta=2.0 / 3), atol=1e-8)  # π_ref e^(3u/β)
    fixed = gl.fit(world, gl.DPO(beta=2.0), **given)
    np.testing.assert_allclose(fixed.logp, world.ideal_logp(beta=2.0), atol=1e-8)


@pytest.mark.parametrize(
    "loss", [PermutedBalancedDPO(), named_loss("kto"), named_loss("aot")], ids=lambda loss: loss.name
)
def test_losses_of_batches_and_dealt_numbers_train_under_samplers(loss):
    worlds = [WORLD, gl.gaussian_world(3, 4, mask_rate=0.3, seed=6)]
    given = {"steps": 8, "engine": "eager"}
    plain = gl.fit(worlds, loss, **given)
    assert torch.equal(plain.policies, gl.fit(worlds, loss, reference_every=8, **given).policies)
    sampled = gl.fit(worlds, loss, sampler="on-policy", seed=3, **given)
    assert (sampled.logp - plain.logp).abs().max() > 1e-4
    assert torch.equal(sampled.policies[:, 1], gl.fit(worlds[1], loss, sampler="on-policy", seed=3, **given).policies)


def test_a_sampled_training_has_a_gradient_log_and_a_history_of_the_plain_data():
    trained = gl.fit(WORLD, gl.DPO(), sampler="on-policy", gradients=True, steps=5, engine="eager")
    assert trained.gradients is not None
    assert np.isfinite(trained.gradients.log_prob_ratio).all()
    objective = PairObjective(
        gl.DPO(), Runs.of(WORLD, None, None, 0).data(), WORLD.ref_logp[None].copy(), "cpu", torch.float64
    )
    plain = objective.value(to_columns(trained.logp[None], "cpu", torch.float64))[:3].mean().item()
    assert trained.history["loss"].iloc[-1] == pytest.approx(plain, abs=rounding(40))
    with pytest.raises(ValueError, match=r"^reference_every must be None with gradients, got 2$"):
        gl.fit(WORLD, gl.DPO(), gradients=True, reference_every=2)


@pytest.mark.parametrize(
    "more", [{"dtype": "float32"}, {"policy": "shared"}, {"labels": "hard"}], ids=lambda more: next(iter(more))
)
def test_every_kind_of_training_takes_a_sampler(more):
    end = gl.fit(WORLD, gl.DPO(), sampler="pilaf", steps=5, engine="eager", **more).logp
    assert end.isfinite().all()


def test_a_broken_policy_is_reported_as_such():
    with pytest.raises(FloatingPointError, match="the policy is not finite at step"):
        gl.fit(WORLD, gl.DPO(1e3), sampler="on-policy", optimizer="gd", learning_rate=1e308, steps=4, engine="eager")
    with pytest.raises(FloatingPointError, match="the policy is not finite at step"):
        gl.fit(WORLD, gl.DPO(1e3), sampler="wpo", batch=4, optimizer="gd", learning_rate=1e308, steps=4, engine="eager")


# --- mini-batches ---


@pytest.mark.parametrize(
    "sampler",
    [
        "on-policy",
        "mixture",
        "top-k:k=2",
        "best-worst",
        "wpo",
        "importance:how=plain",
        "mix-p:beta=1.0,normalised=False",
    ],
)
@pytest.mark.parametrize("pairs", [None, 40])
def test_mini_batches_are_on_average_what_the_sampler_gives_to_the_whole_data(sampler, pairs):
    training = Training(sampler=sampler, batch=64, pairs=pairs, sampler_every=400)
    runs, logp = (
        Runs.of(WORLD, pairs, None, 7),
        torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double().log_softmax(-1),
    )
    given = runs.data(), runs.ref_logp, runs.utility, runs.comparable, runs.seeds
    batches, whole = (SeenPairs(one, *given) for one in (training, training.but(batch=None)))
    columns = to_columns(logp[None], "cpu", torch.float64)
    expected = whole.next(columns, False)
    drawn = torch.stack([batches.next(columns, False) for _ in range(400)])
    error = (drawn.mean(0) - expected).abs() / (drawn.std(0) / 400**0.5).clamp(min=1e-3 / 400**0.5)
    assert error.max() < 5
    assert not drawn[:, torch.from_numpy(given[0]) == 0].any()  # labels of finite data stay what they are


def test_importance_weights_are_the_ratio_of_the_samplers_law_to_even_pairs():
    logp = torch.randn(3, 4, generator=torch.Generator().manual_seed(3)).double().log_softmax(-1)
    exact = torch.from_numpy(Runs.of(WORLD, None, None, 0).data()[0])
    finite = torch.from_numpy(Runs.of(WORLD, 9, None, 0).data()[0])
    law = gl.samplers.OnPolicy().pairs(logp, logp, logp)
    ratio = 12 * law / law.sum((-2, -1), keepdim=True)  # over 12 ordered pairs, as likely as each other
    on_policy = weights_at(gl.samplers.OnPolicy(), WORLD, logp)
    close = {"rtol": 1e-13, "atol": 0}
    for how in ("plain", "self-normalised"):
        torch.testing.assert_close(weights_at(gl.samplers.Importance(how), WORLD, logp), on_policy, **close)
    torch.testing.assert_close(
        weights_at(gl.samplers.Importance("plain"), WORLD, logp, finite), finite * ratio, **close
    )
    own = weights_at(gl.samplers.Importance("self-normalised"), WORLD, logp, finite)
    torch.testing.assert_close(own, finite * ratio / (finite * ratio).sum((-2, -1), keepdim=True), **close)
    cut = weights_at(gl.samplers.Importance("clipped", clip=1.2), WORLD, logp, exact)
    torch.testing.assert_close(cut, exact * ratio.clamp(max=1.2), **close)
    assert (ratio > 1.2).any()


# --- speed of convergence (Shi et al. 2024) ---


def distances(world, loss, target, steps, **given):
    """Return the largest error of β(h_i − h_j) at each step."""
    path = gl.fit(world, loss, steps=steps, record=10**6, optimizer="gd", engine="eager", **given)
    error = path.policies - torch.from_numpy(target)
    return (error.amax(-1) - error.amin(-1)).amax(-1).numpy()


@pytest.mark.parametrize("beta", [0.5, 1.0])
@pytest.mark.parametrize("name", ["mix-r", "mix-p"])
def test_mixed_samplers_make_dpo_converge_quadratically_and_uniform_pairs_linearly(name, beta):
    world = gl.gaussian_world(3, 6, scale=2.0, reference="random", seed=3)
    target, rate = world.ideal_logp(beta), 5 / (2 * beta**2)  # (n − 1)/(2β²)
    sampler = gl.samplers.MixR(normalised=False) if name == "mix-r" else gl.samplers.MixP(beta, normalised=False)
    mixed = beta * distances(world, gl.DPO(beta), target, 8, sampler=sampler, learning_rate=rate)
    even = beta * distances(world, gl.DPO(beta), target, 18, learning_rate=4 * rate)  # the rate at d = 0
    assert mixed[:6].min() < 1e-12
    large = mixed[mixed > 1e-7]
    assert (large[1:] <= large[:-1] ** 2).all()
    ratios = even[9:19] / even[8:18]
    assert even[18] > 1e-12
    assert ratios.min() > 0.02
    assert ratios.max() < 1
    assert ratios.max() - ratios.min() < 0.05


def test_no_constant_rate_follows_the_normalised_weights_but_the_rate_of_each_step_does():
    world, beta = gl.gaussian_world(1, 6, scale=1.5, reference="random", seed=3), 1.0
    whole = gl.fit(world, gl.DPO(), sampler=gl.samplers.MixP(normalised=False), steps=5, record=9, optimizer="gd",
                   learning_rate=2.5, engine="eager")  # fmt: skip
    logp = torch.from_numpy(world.ref_logp.copy())
    for step in range(5):
        h = logp - torch.from_numpy(world.ref_logp.copy())
        d = beta * (h[:, :, None] - h[:, None, :])
        z = (2 + d.exp() + (-d).exp()).sum().item() - 4 * 6  # i ≠ j
        logp = gl.fit(world, gl.DPO(), sampler="mix-p", steps=1, start=logp, optimizer="gd", engine="eager",
                      learning_rate=z / (2 * beta**2 * 6)).logp  # fmt: skip
        torch.testing.assert_close(logp, whole.policies[step + 1], rtol=0, atol=rounding(500 * (step + 1), size=4))


def test_mix_p_does_not_make_balanced_dpo_quadratic():
    world = gl.gaussian_world(2, 3, scale=0.5, reference="random", seed=2)
    target, _ = settled(gl.BalancedDPO(), world, gl.samplers.MixP())
    given = {"sampler": gl.samplers.MixP(normalised=False), "learning_rate": 4.0}
    error = distances(world, gl.BalancedDPO(), target.numpy(), 30, **given)
    ratios = error[11:30] / error[10:29]
    assert ratios.min() > 0.05
    assert ratios.max() < 1


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_under_pilaf_the_gradient_of_dpo_is_that_of_the_value_to_first_order(beta):
    world = gl.gaussian_world(3, 4, scale=4.0, sigma=1.0, reference="random", seed=5)
    noise = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).double()

    def error(sampler, size):
        logp = (torch.from_numpy(world.ideal_logp(beta)) + size * noise).log_softmax(-1)
        prob, gain = logp.exp(), torch.from_numpy(world.utility - beta * (logp.numpy() - world.ref_logp))
        value = prob * (gain - (prob * gain).sum(-1, keepdim=True))  # ∂(E[u] − β KL)/∂logit
        slope = -logit_gradient(gl.DPO(beta), world, logp, weights_at(sampler, world, logp))
        factor = (slope * value).sum(-1, keepdim=True) / value.square().sum(-1, keepdim=True)
        assert (factor > 0).all()
        return ((slope - factor * value).norm(dim=-1) / slope.norm(dim=-1)).max().item()

    errors = [error(gl.samplers.PILAF(beta), size) for size in (1e-2, 1e-3, 1e-4)]
    assert errors[0] < 0.1
    assert all(0.05 < later / sooner < 0.2 for sooner, later in itertools.pairwise(errors))
    assert error(gl.samplers.OnPolicy(), 1e-4) > 0.01


# --- sweeps, settings, commands ---


@pytest.mark.filterwarnings("ignore::gradlab.lab.engine.EagerNotice")
def test_sweeps_have_a_column_of_samplers(tmp_path):
    settings = pd.DataFrame({"sampler": ["uniform", "on-policy", "mixture:alpha=0.3"], "sampler_every": [1, 2, 5]})
    settings = settings.assign(steps=4, prompts=2, responses=3)
    rows = pd.read_parquet(gl.sweeps.run_sweep(settings, tmp_path, workers=1, progress=False)).set_index("run")
    for run, (name, every) in enumerate(zip(settings.sampler, settings.sampler_every, strict=True)):
        given = {"sampler": name, "sampler_every": every, "steps": 4, "record": 1, "engine": "eager"}
        alone = gl.fit(gl.gaussian_world(2, 3), gl.DPO(), **given)
        assert rows.kl[run] == pytest.approx(alone.history.kl.iloc[-1], abs=1e-10)  # as engine and eager agree


@pytest.mark.filterwarnings("ignore::gradlab.lab.engine.EagerNotice")
def test_a_sweep_says_which_run_saw_no_pair(tmp_path):
    world = {"prompts": 1, "responses": 4, "mask_rate": 0.5, "reference": "random"}
    settings = pd.DataFrame([{**world, "steps": 3, "sampler": "top-k:k=2", "seed": seed} for seed in range(12)])
    rows = pd.read_parquet(gl.sweeps.run_sweep(settings, tmp_path, workers=1, progress=False))
    broken = rows.error.notna()
    assert broken.any()
    assert not broken.all()
    assert rows.error[broken].str.startswith("sampler must give weight to some pair").all()


def test_settings_of_a_fit_say_how_pairs_were_sampled():
    settings = gl.fit(
        WORLD, gl.DPO(), sampler="tempered:temperature=2", sampler_every=3, steps=2, engine="eager"
    ).settings
    assert json.loads(json.dumps(settings)) == settings
    assert (settings["sampler"], settings["sampler_every"], settings["reference_every"]) == (
        "tempered:temperature=2.0",
        3,
        None,
    )


def test_methods_state_the_sampler_of_a_recipe():
    assert "sampler: mixture:alpha=0.3" in _compact({"training": Training(sampler="mixture:alpha=0.3")})
    assert "sampler" not in _compact({"training": Training(pairs=100)})


def test_a_world_of_two_goals_takes_samplers():
    for sampler in ("on-policy", "best-worst"):
        trained = gl.fit(gl.two_goal_world(prompts=2, responses=8), gl.DPO(), sampler=sampler, steps=5, engine="eager")
        assert np.isfinite(trained.history.select_dtypes("number")).all(axis=None)


def test_the_command_takes_samplers(capsys):
    world = ["--seeds", "1", "--prompts", "2", "--responses", "3", "--steps", "5", "--engine", "eager"]
    assert main(["fit", *world, "--sampler", "on-policy", "--sampler-every", "10", "--reference-every", "3"]) == 0
    assert "on-policy" in capsys.readouterr().out
    assert main(["fit", *world, "--sampler", "top-k:k=1"]) != 0
    assert "k must be a whole number ≥ 2, got 1" in capsys.readouterr().err
