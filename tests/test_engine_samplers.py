"""Samplers inside the kernel: a fused training sees the pairs that the eager one sees, step by step."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from own_losses import KINKED, SOME
from small_worlds import WORLDS

import gradlab as gl
from gradlab.experiments.methods import PermutedBalancedDPO
from gradlab.lab.engine import EagerNotice, NotFusable, fusion, run, sampling, webassembly
from gradlab.lab.engine.kernel import ARGUMENTS
from gradlab.lab.fit import fit
from gradlab.lab.policy import RadialBasis
from gradlab.lab.samplers import SAMPLERS, NoWeight, Sampler, Side, Term, from_text
from gradlab.lab.training import Training
from gradlab.losses import PAIR_LOSSES, BalancedDPO

GD: dict[str, Any] = {"optimizer": "gd", "learning_rate": 0.5, "steps": 200, "record": 4}
# One sampler of each structure: equal sides, shares, unequal sides, a cut, ranks, absolute sizes, a mean, and a limit.
STRUCTURES = (
    "on-policy", "mixture:alpha=0.3", "pilaf:beta=0.5", "top-k:k=4", "best-worst:draws=5", "wpo",
    "importance:how=plain,sampler=mix-p", "importance:how=clipped,clip=1.5",
)  # fmt: skip
LOSSES = ("dpo", "bdpo", "nca", "simpo")
EVERY = (
    *SAMPLERS, "tempered:temperature=0.5", "best-worst:draws=2", "best-worst:draws=30",
    "mix-p:beta=0.1,normalised=false", "importance:how=plain", "importance:how=clipped,sampler=best-worst",
    "importance:sampler=top-k:k=5",
)  # fmt: skip


def both(worlds, loss, **settings: Any):
    fused, eager = (fit(worlds, loss, engine=which, **settings) for which in ("fused", "eager"))
    assert (fused.settings["engine"], eager.settings["engine"]) == ("fused", "eager")
    return fused, eager


def gap(fused, eager):
    return (fused.policies.double().exp() - eager.policies.double().exp()).abs().max().item()


# --- fused is eager ---


@pytest.mark.parametrize(("number", "sampler"), list(enumerate(STRUCTURES)))
def test_fused_and_eager_agree_under_a_sampler_of_each_structure(number, sampler):
    loss = PAIR_LOSSES[LOSSES[number % 4]]()
    more: dict[str, Any] = {"policy": RadialBasis(4)} if number % 2 else {"pairs": 40}
    fused, eager = both(WORLDS[:2], loss, sampler=sampler, sampler_every=1 + number % 3, **(GD | {"steps": 60}), **more)
    assert gap(fused, eager) < 1e-10
    assert gap(fused, fit(WORLDS[:2], loss, **(GD | {"steps": 60}), **more)) > 1e-8  # nca's β is small


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sampler", EVERY)
def test_fused_and_eager_agree_under_every_sampler(sampler, loss):
    worlds = WORLDS if from_text(sampler).full_support else WORLDS[:2]  # in the others, few responses are compared
    rate = {"learning_rate": 0.05} if "false" in sampler else {}  # its weights grow
    for more in ({}, {"policy": RadialBasis(4)}, {"sampler_every": 7, "reference_every": 30}, {"pairs": 40}):
        assert gap(*both(worlds, PAIR_LOSSES[loss](), sampler=sampler, **(GD | rate), **more)) < 1e-10
    given: dict[str, Any] = {"sampler": sampler, "steps": 200, "learning_rate": 0.01}
    single, double = (fit(worlds, PAIR_LOSSES[loss](), dtype=kind, **given) for kind in ("float32", "float64"))
    assert gap(single, double) < 0.05  # Adam makes steps of rounding where slopes cancel


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(({*SOME} & {*PAIR_LOSSES}) - {*KINKED}))
def test_every_kind_of_loss_takes_samplers(name):
    given = GD | {"steps": 20, "learning_rate": 0.05}
    assert gap(*both(WORLDS[1:], PAIR_LOSSES[name](), sampler="pilaf", **given)) < 1e-10


@pytest.mark.parametrize("sampler", ["uniform", "reference", "on-policy"])
def test_a_moved_reference_is_that_of_the_eager_loop(sampler):
    fixed = fit(WORLDS[1], BalancedDPO(), sampler=sampler, **GD)
    fused, eager = both(WORLDS[1], BalancedDPO(), sampler=sampler, reference_every=9, sampler_every=4, **GD)
    assert gap(fused, eager) < 1e-10
    assert gap(fused, fixed) > 1e-3


def test_a_period_beyond_the_last_step_keeps_the_reference_to_the_bit():
    never, moved = (fit(WORLDS, BalancedDPO(), steps=9, reference_every=every) for every in (None, 9))
    assert torch.equal(never.policies, moved.policies)


def test_dealt_numbers_keep_their_places_under_a_sampler():
    loss = PermutedBalancedDPO()
    assert gap(*both(WORLDS[:3], loss, sampler="on-policy", seed=[5, 6, 7], **GD | {"steps": 20})) < 1e-10


def test_a_sampler_of_ones_own_that_states_terms_is_fused():
    @dataclass(frozen=True)
    class Sceptical(Sampler):
        """Likely responses against good ones."""

        name = "sceptical"

        @property
        def terms(self):
            return (Term(Side(policy=0.7, reference=0.1), Side(utility=0.5)),)

    assert gap(*both(WORLDS, BalancedDPO(), sampler=Sceptical(), **GD | {"steps": 30})) < 1e-10


# --- bits ---


@pytest.mark.parametrize("sampler", ["mixture", "best-worst", "importance:how=plain"])
def test_a_run_has_the_bits_of_a_run_that_is_alone(sampler):
    given: dict[str, Any] = {
        "steps": 12,
        "sampler": sampler,
        "sampler_every": 2,
        "reference_every": 5,
        "engine": "fused",
    }
    together = fit(WORLDS, BalancedDPO(), pairs=30, seed=[1, 2, 3, 4], **given)
    for number, world in enumerate(WORLDS):
        alone = fit(world, BalancedDPO(), pairs=30, seed=number + 1, **given)
        assert torch.equal(alone.policies, together.policies[:, number])


def test_weights_are_kept_from_call_to_call(monkeypatch):
    given: dict[str, Any] = {
        "steps": 30,
        "sampler": "pilaf",
        "sampler_every": 7,
        "reference_every": 11,
        "engine": "fused",
    }
    sparse, dense = (fit(WORLDS, BalancedDPO(), record=record, **given) for record in (1, 100))
    monkeypatch.setattr(run, "CALL", 1)  # one step per call
    called = fit(WORLDS, BalancedDPO(), record=1, **given)
    assert torch.equal(sparse.logp, dense.logp)
    assert torch.equal(sparse.logp, called.logp)


@pytest.mark.parametrize("sampler", ["uniform", "rejection", "mix-r", "importance:sampler=reference"])
def test_a_fixed_sampler_has_the_kernel_of_uniform(sampler):
    kernel = fusion.ready(BalancedDPO(), Training(sampler=sampler), shared=False)
    assert kernel.plan == fusion.ready(BalancedDPO(), Training(), shared=False).plan
    assert kernel.plan.arguments is ARGUMENTS


def test_numbers_of_a_sampler_need_no_kernel_of_their_own():
    one, other = (from_text(text) for text in ("tempered:temperature=2", "tempered:temperature=3"))
    assert sampling.rule_of(one)[0] == sampling.rule_of(other)[0]
    assert sampling.rule_of(one)[1] == (0.5,)


# --- where it is eager, and says so ---


@pytest.fixture
def fresh(monkeypatch):
    """As in a new process, which has said nothing and knows no kernel."""
    monkeypatch.setattr(fusion, "_KERNELS", {})
    monkeypatch.setattr(fusion, "_SAID", set())


@dataclass(frozen=True)
class Cautious(Sampler):
    """A law of one's own, of the current policy."""

    name = "cautious"

    def pairs(self, logp, ref_logp, utility):
        """Return more for pairs of similar probability."""
        apart = logp[..., :, None] - logp[..., None, :]
        return (-(apart**2)).exp().detach()


def test_a_law_of_ones_own_trains_eager(fresh):
    with pytest.warns(EagerNotice, match="does not know the law of its sampler, cautious"):
        assert fit(WORLDS[1], BalancedDPO(), sampler=Cautious(), steps=2).settings["engine"] == "eager"


def test_a_fixed_law_of_ones_own_is_fused():
    @dataclass(frozen=True)
    class Still(Cautious):
        moves = False

    assert gap(*both(WORLDS, BalancedDPO(), sampler=Still(), **GD | {"steps": 20})) < 1e-10


def test_ranks_and_dealt_numbers_do_not_meet(fresh):
    with pytest.warns(EagerNotice, match="its sampler ranks the responses"):
        fit(WORLDS[0], PermutedBalancedDPO(), sampler="best-worst", steps=2)


def test_a_wrong_kernel_is_found_before_training(fresh, monkeypatch):
    true = sampling._doubled
    monkeypatch.setattr(sampling, "_doubled", lambda *masses: tuple(mass * 1.01 for mass in true(*masses)))
    fit(WORLDS[1], BalancedDPO(), sampler="best-worst:draws=2", steps=2)  # a factor of all weights is no mistake
    monkeypatch.setattr(sampling, "_doubled", lambda both, one, *rest: true(both, one + 0.01, *rest))
    with pytest.warns(EagerNotice, match="does not do here what the loss does"):
        fit(WORLDS[1], BalancedDPO(), sampler="best-worst:draws=4", steps=2)


def test_where_weights_do_not_fit_the_eager_loop_trains(fresh):
    start = torch.tensor([[0.0, -60.0, -61.0, -65.0]]).double().log_softmax(-1)
    world = replace(gl.gaussian_world(1, 4), ref_logp=start.numpy())
    given: dict[str, Any] = {"start": start, "sampler": "on-policy", "steps": 20, "dtype": "float32"}
    with pytest.warns(EagerNotice, match="weights do not fit"):
        trained = fit(world, gl.DPO(), **given)
    assert torch.equal(trained.logp, fit(world, gl.DPO(), engine="eager", **given).logp)
    given["dtype"] = "float64"  # whose numbers reach far enough
    assert gap(*both(world, gl.DPO(), **given)) < 1e-10


def test_weights_that_overflow_where_kernels_are_examined_train_eager(fresh):
    given: dict[str, Any] = {"optimizer": "gd", "learning_rate": 1.0, "steps": 5, "sampler": "mix-p:normalised=false"}
    with pytest.warns(EagerNotice, match="not finite where a kernel is examined"):
        trained = fit(WORLDS[0], gl.DPO(), **given)
    assert torch.equal(trained.logp, fit(WORLDS[0], gl.DPO(), engine="eager", **given).logp)


def test_data_without_weight_are_refused_as_in_the_eager_loop(fresh):
    world = gl.gaussian_world(2, 6, mask_rate=0.5, seed=1)
    start = torch.where(torch.tensor(world.observed), -9.0, 0.0).double().log_softmax(-1)
    with pytest.warns(EagerNotice), pytest.raises(NoWeight, match="gives none in prompt"):
        fit(world, gl.DPO(), sampler="top-k:k=2", start=start, steps=3)


def test_a_page_has_no_samplers():
    with pytest.raises(NotFusable, match="fixed pairs and a fixed reference"):
        webassembly.training_kernel(BalancedDPO(), Training(sampler="on-policy"))
