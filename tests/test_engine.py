"""A fused training is the eager one, for every loss, and where it cannot be, it is eager and says so."""

import os
import platform
import re
import subprocess
import sys
import textwrap
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
import torch
from own_losses import EVERY_LOSS, KINKED, REGISTERED, Lopsided, PerToken, SquaredMargin, dear, in_turn, product_of
from rounding import rounding
from small_worlds import WORLDS, largest_slope

from gradlab.experiments.methods import PermutedBalancedDPO
from gradlab.lab.engine import EagerNotice, NotFusable, functions, fusion, machine, run
from gradlab.lab.engine.kernel import Plan, write
from gradlab.lab.engine.trace import SIGMOID_OF_BOTH, derivative
from gradlab.lab.engine.vectors import ALIGNMENT, LANES, Emitter
from gradlab.lab.fit import fit
from gradlab.lab.policy import FreeLogits, RadialBasis
from gradlab.lab.world import World, gaussian_world
from gradlab.losses import DPO, IPO, PAIR_LOSSES, BalancedDPO, DealtLoss, NaiveBalancedDPO

LOSSES = {**EVERY_LOSS, "per token": PerToken()}
every_loss = dear(LOSSES)
POLICIES = {"free": FreeLogits(), "shared": RadialBasis(4)}
DTYPES = {"float64": torch.float64, "float32": torch.float32}
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


def beside_the_kink(loss):
    """Where trainings on WORLDS start: at the reference, or elsewhere if the loss has a kink there."""
    if getattr(loss, "name", "") not in KINKED:
        return {}
    noise = torch.randn(len(WORLDS), *WORLDS[0].utility.shape, generator=torch.Generator().manual_seed(0))
    return {"start": noise.double().log_softmax(-1)}


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """As in a new process, with nothing on disk and nothing said."""
    monkeypatch.setenv("GRADLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fusion, "_KERNELS", {})
    monkeypatch.setattr(fusion, "_SAID", set())
    return tmp_path / "cache" / "kernels"


# Where the slopes of pairs cancel, rounding is left of a sum of eight or so, of a tenth at most each. Adam divides it
# by its ε of 1e-8, and takes its rate of 0.01 of that in each of 200 steps. Gradient descent only adds the rounding up.
ADAM = 200 * 0.01 * rounding(8, 0.1) / 1e-8


def both(worlds, loss, **settings):
    fused, eager = (fit(worlds, loss, engine=which, **settings) for which in ("fused", "eager"))
    assert (fused.settings["engine"], eager.settings["engine"]) == ("fused", "eager")
    assert fused.policies.dtype == eager.policies.dtype
    assert fused.policies.shape == eager.policies.shape
    return fused, eager


def gap(fused, eager):
    return (fused.policies.double().exp() - eager.policies.double().exp()).abs().max().item()


# --- fused is eager ---


@in_turn(("loss", "kind"), LOSSES, {kind: kind for kind in ("free adam", "shared gd", "shared adam", "free gd")})
def test_fused_and_eager_agree_in_probabilities(loss, kind):
    (policy, optimizer), steep = kind.split(), max(largest_slope(loss), 1.0)
    rate = 0.01 if optimizer == "adam" else 0.5 / steep  # at larger ones, steps overshoot and amplify rounding
    fused, eager = both(
        WORLDS, loss, policy=POLICIES[policy], optimizer=optimizer, learning_rate=rate, steps=200, record=5,
        **beside_the_kink(loss),
    )  # fmt: skip
    assert (fused.logp.exp() - fused.policies[0].exp()).abs().max() > 0.005  # it went somewhere
    kinks = isinstance(loss, (Lopsided, SquaredMargin))
    assert gap(fused, eager) < (ADAM * steep if optimizer == "adam" or kinks else 1e-10)


@every_loss
def test_they_agree_on_the_papers_grid(loss):
    world = gaussian_world(mask_rate=0.2, length=9, length_spread=0.5, seed=1)
    assert gap(*both(world, loss, steps=100, record=1)) < ADAM * max(largest_slope(loss), 1.0)


@in_turn(("loss", "labels"), LOSSES, {kind: kind for kind in ("hard", "soft")})
def test_they_agree_on_finite_data(loss, labels):
    rate = 0.37 / max(largest_slope(loss), 1.0)
    settings = {"pairs": 9, "labels": labels, "seed": [3, 4, 5, 6], "learning_rate": rate, "optimizer": "gd"}
    steps = 10 if loss.name == "ddro" else 50  # then it meets its wall, and steps of a million
    assert gap(*both(WORLDS, loss, steps=steps, record=5, **settings, **beside_the_kink(loss))) < 1e-10


@pytest.mark.parametrize("name", ["dpo", "nbdpo"])
@every_policy
@pytest.mark.parametrize(("prompts", "responses"), [(1, 2), (3, 3), (40, 5), (2, 17), (1, 60)])
def test_they_agree_in_every_size(name, policy, prompts, responses):
    worlds = [gaussian_world(prompts, responses, reference="random", seed=seed) for seed in range(3)]
    start = torch.log_softmax(torch.randn(3, prompts, responses, generator=torch.Generator().manual_seed(0)), -1)
    settings = {"policy": policy, "start": start, "steps": 20, "record": 3}
    assert gap(*both(worlds, PAIR_LOSSES[name](), **settings)) < 1e-10


@dear(REGISTERED)
def test_they_agree_where_log_probabilities_are_extreme(loss):
    start = torch.tensor([[0.0, -1e-5, -40.0, -800.0, -900.0]]).double().log_softmax(-1)
    world = replace(gaussian_world(1, 5), ref_logp=start.flip(-1).numpy())
    assert gap(*both(world, loss, start=start, steps=50, learning_rate=0.2)) < 1e-10


@in_turn(("loss", "policy"), REGISTERED, POLICIES)
def test_single_precision_is_double_precision_rounded(loss, policy):
    settings = {"policy": policy, "steps": 200, "record": 5, "engine": "fused"}
    settings |= beside_the_kink(loss)
    single, double = (fit(WORLDS, loss, dtype=dtype, **settings) for dtype in (torch.float32, torch.float64))
    assert single.policies.dtype == torch.float32
    # Where the slopes cancel at the reference, or but for the square of βh there, rounding makes a step of Adam: its
    # rate, 0.01 of the logit of a response out of all pairs, whose probability is a tenth or so.
    # Slopes of 1 have ten times the rounding of those of β = 0.1, and beside it Adam's ε of 1e-8 is nothing.
    assert gap(single, double) < (1e-3 if largest_slope(loss) < 0.99 else 0.02)


def test_where_slopes_cancel_nothing_is_left_for_adam_to_blow_up():
    world = gaussian_world(mask_rate=0.4, seed=2)
    hidden = ~torch.tensor(world.observed)
    for name in ("dpo", "cdpo", "ipo", "fixed-weight"):
        logp = fit(world, PAIR_LOSSES[name](), steps=200, dtype=torch.float32, engine="fused").logp.double()
        moved = (logp - torch.tensor(world.ref_logp))[hidden].unflatten(0, (20, 8))
        torch.testing.assert_close(moved, moved[:, :1].expand_as(moved), rtol=0, atol=1e-5)  # as one, by identity 11


def test_it_goes_no_other_way_when_more_is_recorded():
    sparse, dense = (fit(WORLDS, BalancedDPO(), steps=30, record=record, engine="fused") for record in (1, 100))
    assert torch.equal(sparse.logp, dense.logp)
    assert torch.equal(dense.policies[0], sparse.policies[0])


def test_auto_is_fused_and_mini_batches_are_eager():
    assert fit(WORLDS, DPO(), steps=2).settings["engine"] == "fused"
    assert fit(WORLDS, DPO(), steps=2, pairs=9, batch=3).settings["engine"] == "eager"
    with pytest.raises(
        ValueError, match=r"^engine must be one of auto, eager, fused; got 'fuse'; did you mean 'fused'\?$"
    ):
        fit(WORLDS, DPO(), steps=2, engine="fuse")


# --- a batch is its runs ---


@pytest.mark.parametrize("prompts", [1, 7, LANES, LANES + 1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("loss", [DPO(), NaiveBalancedDPO()], ids=lambda one: one.name)
@every_policy
@pytest.mark.parametrize("pairs", [None, 3])
def test_a_batch_gives_the_bits_of_each_run_alone(prompts, dtype, loss, policy, pairs):
    worlds = [gaussian_world(prompts, 9, mask_rate=0.1 * seed, seed=seed) for seed in range(5)]
    settings = {"dtype": dtype, "policy": policy, "pairs": pairs, "steps": 20, "engine": "fused"}
    together = fit(worlds, loss, seed=range(5), **settings)
    for seed, world in enumerate(worlds):
        assert torch.equal(together.policies[:, seed], fit(world, loss, seed=seed, **settings).policies)


def test_how_the_work_is_cut_changes_no_bit(monkeypatch):
    whole = fit(WORLDS * 3, BalancedDPO(), steps=40, record=3, engine="fused")
    monkeypatch.setattr(run, "PANEL", 1)
    monkeypatch.setattr(run, "CALL", 1)
    cut = fit(WORLDS * 3, BalancedDPO(), steps=40, record=3, engine="fused")
    assert torch.equal(whole.policies, cut.policies)


@pytest.mark.parametrize("steps_a_call", [1, 7, 1000])
def test_calls_are_short_and_miss_no_step(monkeypatch, steps_a_call):
    monkeypatch.setattr(run, "CALL", steps_a_call * 10 * LANES)
    wanted = np.array([0, 1, 3, 500])
    ends, calls = run._calls(wanted, 10)
    assert np.isin(wanted, ends[1:]).all()
    assert [first for first, _ in calls] == [0, *(last for _, last in calls[:-1])]
    assert calls[-1][1] == len(ends) - 1
    assert all(ends[last] - ends[first] <= steps_a_call for first, last in calls)


# --- weights of other pairs ---


@dataclass(frozen=True)
class Turned(DealtLoss):
    """A user's own: each pair gets the size of h_w − h_l of the pair before, in a run without a seed."""

    name, equation, source = "turned", "", "a test"
    root: bool = False
    antisymmetric: bool = True
    kept: int | None = None

    def number(self, logps):
        gap = logps.win_logratio - logps.lose_logratio
        return gap.abs() ** 0.3 if self.root else gap

    def deal(self, pairs, seed):
        given = torch.arange(pairs).roll(1)
        return given[: self.kept], torch.ones(pairs)

    def margin(self, logps, dealt=None):
        gap = self.number(logps) if dealt is None else dealt
        return (1 + gap.square()) * logps.win_logratio - (1 + gap.square()) * logps.lose_logratio


DEALT = {"any": PermutedBalancedDPO(), "oriented": PermutedBalancedDPO(0.5, oriented=True), "own": Turned()}
INVERTED = np.stack([world.ref_logp - 0.3 * world.utility for world in WORLDS])
INVERTED -= np.logaddexp.reduce(INVERTED, axis=-1, keepdims=True)


STARTS = {"reference": None, "given": INVERTED}


@in_turn(
    ("loss", "kind"), DEALT, product_of(policy=POLICIES, start=STARTS, pairs={"exact": None, "finite": 30}), 3, DEALT
)
def test_fused_weights_of_other_pairs_are_the_eager_ones(loss, kind):
    settings = {**kind, "seed": [5, 6, 7, 8], "record": 5, "steps": 50}
    fused, eager = both(WORLDS, loss, optimizer="gd", learning_rate=0.5, **settings)
    assert gap(fused, eager) < 1e-10
    assert (fused.logp.exp() - fused.policies[0].exp()).abs().max() > 0.01
    columns = ["loss", "held_out_loss", "utility", "kl"]
    np.testing.assert_allclose(fused.history[columns], eager.history[columns], rtol=0, atol=1e-9)
    if isinstance(loss, PermutedBalancedDPO):  # the other's slopes are larger, and so is what Adam makes of rounding
        assert gap(*both(WORLDS, loss, learning_rate=0.01, **settings)) < ADAM


PROMPTS = {str(number): number for number in (1, 7, LANES, LANES + 1)}


@in_turn(("loss", "kind"), DEALT, product_of(prompts=PROMPTS, dtype=DTYPES), 3, DEALT)
def test_a_batch_with_weights_of_other_pairs_gives_the_bits_of_each_run_alone(loss, kind):
    worlds = [gaussian_world(kind["prompts"], 9, mask_rate=0.1 * seed, seed=seed) for seed in range(5)]
    settings = {"dtype": kind["dtype"], "pairs": 20, "steps": 10, "engine": "fused"}
    together = fit(worlds, loss, seed=range(5), **settings)
    for seed, world in enumerate(worlds):
        assert torch.equal(together.policies[:, seed], fit(world, loss, seed=seed, **settings).policies)


def test_how_the_work_is_cut_changes_no_bit_of_weights_of_other_pairs(monkeypatch):
    settings = {"seed": range(12), "steps": 40, "record": 3, "engine": "fused"}
    whole = fit(WORLDS * 3, PermutedBalancedDPO(), **settings)
    monkeypatch.setattr(run, "PANEL", 1)
    monkeypatch.setattr(run, "CALL", 1)
    assert torch.equal(whole.policies, fit(WORLDS * 3, PermutedBalancedDPO(), **settings).policies)


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (Turned(antisymmetric=False), "its pairs take numbers of other pairs, and it is not antisymmetric"),
        (Turned(root=True), "its derivative needs pow with arguments unknown to the engine"),
    ],
    ids=["both orders", "operation"],
)
def test_what_cannot_be_dealt_in_a_kernel_is_eager_with_the_reason(fresh, loss, reason):
    with pytest.warns(EagerNotice, match=f"^turned trains eager, which is slower, since {reason}$"):
        assert fit(WORLDS, loss, steps=5).settings["engine"] == "eager"


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_a_deal_of_another_length_is_refused(engine):
    with pytest.raises(
        ValueError, match=r"^deal of Turned\(.*\) must return \d+ whole numbers below \d+, one per pair$"
    ):
        fit(WORLDS[0], Turned(kept=3), steps=2, engine=engine)


def test_there_is_no_gradient_log_of_weights_of_other_pairs():
    with pytest.raises(
        ValueError, match=r"^gradients must be False for PermutedBalancedDPO\(.*\), whose pairs take numbers of other"
    ):
        fit(WORLDS[0], PermutedBalancedDPO(), steps=2, gradients=True)


# --- one kernel for all hyper-parameters; kernels on disk ---


def compilations(monkeypatch):
    seen = []
    compile_ = machine.compile
    monkeypatch.setattr(machine, "compile", lambda assembly: seen.append(1) or compile_(assembly))
    return seen


def test_hyper_parameters_need_no_kernel_of_their_own(fresh, monkeypatch):
    seen = compilations(monkeypatch)
    losses = [NaiveBalancedDPO(beta, clip) for beta in (0.5, 2.0) for clip in (0.1, 0.5)]
    for loss in losses:
        assert gap(*both(WORLDS, loss, steps=20, record=2)) < 1e-10
    assert len(seen) == 1
    fit(WORLDS, losses[0], steps=2, learning_rate=1.0, record=1, start=WORLDS[0].ref_logp)
    assert len(seen) == 1
    fit(WORLDS, losses[0], steps=2, optimizer="gd")
    assert len(seen) == 2


def test_another_process_takes_the_kernel_from_disk(fresh, monkeypatch):
    seen = compilations(monkeypatch)
    first = fit(WORLDS, DPO(), steps=5).policies
    monkeypatch.setattr(fusion, "_KERNELS", {})
    again = fit(WORLDS, DPO(), steps=5).policies
    assert len(seen) == 1
    assert torch.equal(first, again)
    assert len(list(fresh.iterdir())) == 1


def flipped(content):
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


SPOILT = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:-1],
    "a bit flipped": flipped,
    "another kernel's": lambda content: machine._sealed(Path("another.bin"), content[32:]),
    "not a kernel": lambda content: b"nonsense" * 100,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_broken_or_foreign_file_is_never_loaded_but_replaced(fresh, monkeypatch, spoil):
    seen = compilations(monkeypatch)
    first = fit(WORLDS, DPO(), steps=5).policies
    (path,) = fresh.iterdir()
    good = path.read_bytes()
    path.write_bytes(spoil(good))
    monkeypatch.setattr(fusion, "_KERNELS", {})
    assert torch.equal(fit(WORLDS, DPO(), steps=5).policies, first)
    assert len(seen) == 2
    assert path.read_bytes() == good


def test_a_file_that_others_may_write_to_is_not_trusted(fresh, monkeypatch):
    seen = compilations(monkeypatch)
    fit(WORLDS, DPO(), steps=5)
    (path,) = fresh.iterdir()
    path.chmod(0o666)
    monkeypatch.setattr(fusion, "_KERNELS", {})
    fit(WORLDS, DPO(), steps=5)
    assert len(seen) == 2
    assert not path.stat().st_mode & 0o022


def test_a_cache_that_cannot_be_written_costs_only_that_and_a_notice(fresh, monkeypatch):
    monkeypatch.setattr(machine, "_SAID", set())
    fresh.parent.write_text("a file where a folder should be")
    with pytest.warns(UserWarning, match=r"compiled kernels are not kept \(see GRADLAB_CACHE\): .*directory"):
        fit(WORLDS, DPO(), steps=5, engine="fused")
    assert fit(WORLDS, DPO(), steps=5, engine="fused").settings["engine"] == "fused"


def test_the_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADLAB_CACHE", str(tmp_path / "own"))
    assert machine._path("").parent == tmp_path / "own/kernels"
    monkeypatch.delenv("GRADLAB_CACHE")
    assert "gradlab" in machine._path("").parts


# --- what cannot be fused ---


class Own:
    """A loss made of a function of h_w − h_l and the pairs."""

    name, equation, source, antisymmetric = "own", "", "a test", False

    def __init__(self, function):
        self.function = function

    def __call__(self, logps):
        return self.function(logps.win_logratio - logps.lose_logratio, logps)


class Counter:
    calls = 0

    def count(self):
        self.calls += 1
        return self.calls


def with_its_first_row_zeroed(gap, logps):
    gap = gap * 1
    gap[0] = 0
    return gap.square()


def transposed_and_filled(gap, logps):
    weight = torch.ones_like(gap)
    weight[:, ::2].fill_(0.5)
    return weight * gap.square()


counter = Counter()
UNFUSABLE = {
    "item": lambda gap, logps: gap if gap.mean().item() > -100 else -gap,
    "branch": lambda gap, logps: gap.square() if (gap > -100).all() else -gap,
    "numpy": lambda gap, logps: gap if gap.detach().numpy().mean() > -100 else -gap,
    "array": lambda gap, logps: gap if np.asarray(gap.detach()).mean() > -100 else -gap,
    "tolist": lambda gap, logps: gap * sum(gap.detach().flatten().tolist()),
    "mean": lambda gap, logps: (gap - gap.mean()).square(),
    "neighbours": lambda gap, logps: gap * gap.flip(0),
    "cumulative": lambda gap, logps: gap.cumsum(0),
    "softmax": lambda gap, logps: torch.softmax(gap, 0),
    "position": lambda gap, logps: gap * torch.linspace(0, 1, gap.shape[-1], dtype=gap.dtype),
    "shape": lambda gap, logps: gap * len(gap),
    "random": lambda gap, logps: gap * torch.rand_like(gap),
    "state": lambda gap, logps: gap * counter.count(),
    "half precision": lambda gap, logps: gap.half().square().to(gap.dtype),
    "a part in place": with_its_first_row_zeroed,
    "a view in place": transposed_and_filled,
    "unknown": lambda gap, logps: gap * torch.special.i0(gap),
    "alpha": lambda gap, logps: torch.add(gap, gap.square(), alpha=3).exp(),
    "exponent": lambda gap, logps: gap.abs() ** 1.7,
    "constant": lambda gap, logps: gap.detach(),
    "raises": lambda gap, logps: gap.no_such_thing(),
}


def written(loss, dtype=torch.float64):
    return write(Plan(derivative(loss, dtype)[0], loss.antisymmetric, False, "adam", str(dtype).removeprefix("torch.")))


@pytest.mark.parametrize("function", UNFUSABLE.values(), ids=UNFUSABLE)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_what_is_not_a_fixed_formula_of_the_pair_is_refused(function, dtype):
    with pytest.raises(NotFusable) as reason:
        written(Own(function), dtype)
    assert "\n" not in str(reason.value)


def test_an_unknown_operation_is_named():
    with pytest.raises(NotFusable, match="its derivative needs i0, which the engine does not know"):
        written(Own(UNFUSABLE["unknown"]))


@pytest.mark.parametrize("name", ["mean", "unknown"])
def test_it_falls_back_to_eager_with_one_notice(fresh, name):
    loss = Own(UNFUSABLE[name])
    with pytest.warns(EagerNotice, match="^own trains eager, which is slower, since .+$") as said:
        fitted = [fit(WORLDS, loss, steps=5) for _ in range(3)]
    assert len(said) == 1
    assert said[0].filename == __file__
    assert fitted[0].settings["engine"] == "eager"
    assert torch.equal(fitted[2].policies, fit(WORLDS, loss, steps=5, engine="eager").policies)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"pairs": 9, "batch": 3}, "every step has a mini-batch of its own"),
        ({"dtype": torch.bfloat16}, "a kernel has no torch.bfloat16 on cpu"),
    ],
    ids=["batch", "dtype"],
)
def test_so_does_a_setting_that_cannot_be_fused(fresh, settings, reason):
    with pytest.warns(EagerNotice, match=f"^dpo trains eager, which is slower, since {reason}"):
        fitted = fit(WORLDS, DPO(), steps=5, engine="fused", **settings)
    assert fitted.settings["engine"] == "eager"


@pytest.mark.slow
def test_without_its_library_it_is_eager():
    script = """
        import sys, warnings
        sys.modules["llvmlite"] = None
        from gradlab.lab.fit import fit
        from gradlab.losses import DPO
        from gradlab.lab.world import World, gaussian_world
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            engines = [fit(gaussian_world(2, 3), DPO(), steps=2).settings["engine"] for _ in range(2)]
        print(engines, *(one.message for one in said), sep="\\n")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "['eager', 'eager']",
        "dpo trains eager, which is slower, since llvmlite is not installed",
    ]


def test_a_kernel_that_does_something_else_is_found_out(fresh, monkeypatch):
    wrong = {**functions.OPERATIONS, "sigmoid": lambda x: functions.sigmoid(x) * 1.001}
    monkeypatch.setattr("gradlab.lab.engine.kernel.OPERATIONS", wrong)
    with pytest.warns(EagerNotice, match="since its kernel does not do here what the loss does, with these numbers$"):
        fitted = fit(WORLDS, DPO(), steps=5)
    assert fitted.settings["engine"] == "eager"


def test_a_compiler_that_fails_is_a_notice(fresh, monkeypatch):
    def fail(assembly):
        raise RuntimeError("no such processor")

    monkeypatch.setattr(machine, "compile", fail)
    with pytest.warns(EagerNotice, match="since its kernel cannot be compiled here: no such processor$"):
        fit(WORLDS, DPO(), steps=5)


# --- operations ---

FUSABLE = {
    "arithmetic": lambda gap, logps: 1 / (3 - (2 - gap) * (-gap) / 5).square().add(1).sqrt().reciprocal(),
    "scalars as tensors": lambda gap, logps: torch.tensor(0.5) * gap.square() + gap.new_ones(()) * gap,
    "powers": lambda gap, logps: gap**3 + (gap.square() + 1) ** -2 + gap**0,
    "roots": lambda gap, logps: (gap.square() + 1) ** 0.5 + (gap.square() + 1) ** 1.5 + (gap.square() + 1) ** -0.5,
    "exp and log": lambda gap, logps: (gap.exp() + (gap.abs() + 1).log()) * gap.sigmoid(),
    "log sigmoid": lambda gap, logps: -torch.nn.functional.logsigmoid(gap) - torch.nn.functional.logsigmoid(-2 * gap),
    "values of log sigmoid": lambda gap, logps: -gap.sigmoid() * torch.nn.functional.logsigmoid(gap),
    "softplus": lambda gap, logps: torch.nn.functional.softplus(gap) * torch.nn.functional.softplus(9 * gap, 3, 5),
    "tanh and atan": lambda gap, logps: gap.tanh() * gap.atan(),
    "expm1 and log1p": lambda gap, logps: gap.expm1() * gap.abs().log1p() + torch.logaddexp(gap, logps.win),
    "silu": lambda gap, logps: torch.nn.functional.silu(gap),
    "limits": lambda gap, logps: gap.clamp_min(-0.2) * gap.clamp_max(0.3) + gap.square().clamp(0.1, 0.2),
    "kinks": lambda gap, logps: gap.relu() + gap.abs() + gap.clamp(-0.3, 0.4) + gap.clamp(min=0.1) + gap.clamp(max=0.2),
    "sides": lambda gap, logps: torch.maximum(gap, logps.win) - torch.minimum(gap, 2 * logps.lose),
    "choices": lambda gap, logps: torch.where((gap > 0) & ~(gap >= 1) | (gap < -1), gap.square(), 0.5 * gap),
    "truths as numbers": lambda gap, logps: (gap > 0) * gap.square() + (gap <= 0).to(gap.dtype) * gap,
    "masked": lambda gap, logps: gap.square().masked_fill(gap != gap.abs(), 0.0),
    "detached": lambda gap, logps: (gap.detach().exp() / (1 + gap.detach().exp())) * gap,
    "in place": lambda gap, logps: gap.mul(2).add_(1).square(),
}


@pytest.mark.parametrize("function", FUSABLE.values(), ids=FUSABLE)
def test_what_losses_are_made_of_is_fused(function):
    start = torch.log_softmax(torch.randn(7, 9, generator=torch.Generator().manual_seed(0)), -1)  # off every kink
    settings = {"start": start, "optimizer": "gd", "learning_rate": 0.01}
    assert gap(*both(WORLDS[:2], Own(function), steps=20, record=3, **settings)) < 1e-10


SINGLE = np.concatenate([np.linspace(-88, 88, 4001), np.geomspace(1e-30, 80, 1000), -np.geomspace(1e-30, 80, 1000)])
DOUBLE = np.concatenate(
    [np.linspace(-708, 708, 4001), np.geomspace(1e-300, 700, 1000), -np.geomspace(1e-300, 700, 1000)]
)


def evaluated(function, values):
    """``function`` of ``gradlab.lab.engine.functions`` at these values, by a kernel of its own."""
    arguments = {"count": "integer", "given": "rows", "found": "rows"}
    emitter = Emitter("apply", values.dtype.name, arguments)
    count, given, found = (emitter.arguments[name] for name in arguments)
    with emitter.loop(count) as row:
        found[row] = function(given[row])
    kernel = machine.Kernel(machine.compile(emitter.finish()), "apply", arguments)
    padded = np.zeros((-(-len(values) // LANES), LANES), values.dtype)
    padded.flat[: len(values)] = values
    rows, result = run._rows(1, len(padded), values.dtype)[0], run._rows(1, len(padded), values.dtype)[0]
    rows[:] = padded
    assert rows.ctypes.data % ALIGNMENT == 0
    kernel(count=len(rows), given=rows.ctypes.data, found=result.ctypes.data)
    return result.ravel()[: len(values)]


LEAST = 2**-20 - 1  # of arguments of log1p; both types have it

ACCURACY = {
    "exp": (functions.exp, np.exp, 2),
    "log": (lambda x: functions.log(functions.absolute(x)), lambda x: np.log(np.abs(x)), 2),
    "sigmoid": (functions.sigmoid, lambda x: 1 / (1 + np.exp(-x)), 3),
    "expm1": (functions.expm1, np.expm1, 2),
    "log1p": (lambda x: functions.log1p(functions.clamp(x, LEAST)), lambda x: np.log1p(np.maximum(x, LEAST)), 2),
    "tanh": (functions.tanh, np.tanh, 2),
    "atan": (functions.atan, np.arctan, 2),
    "softplus": (functions.softplus, lambda x: np.logaddexp(0, x), 2),
    "log sigmoid": (functions.log_sigmoid, lambda x: -np.logaddexp(0, -x), 2),
    "silu": (functions.silu, lambda x: x / (1 + np.exp(-x)), 2),
    "sqrt": (lambda x: functions.sqrt(functions.absolute(x)), lambda x: np.sqrt(np.abs(x)), 1),
}


# This one, one of ten years ago, and one that multiplies and adds in two roundings.
PROCESSORS = ["this", "haswell", "x86-64"] if platform.machine() in ("x86_64", "AMD64") else ["this"]


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize(("function", "truth", "units"), ACCURACY.values(), ids=ACCURACY)
@pytest.mark.parametrize("values", [DOUBLE, SINGLE.astype(np.float32)], ids=["float64", "float32"])
def test_functions_are_right_to_the_last_digits(monkeypatch, function, truth, units, values, processor):
    if processor != "this":
        monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: processor)
        monkeypatch.setattr(llvm, "get_host_cpu_features", llvm.FeatureMap)
    values = values[values != 0]
    longer = values.astype(np.longdouble if values.dtype == np.float64 else np.float64)
    found, expected = evaluated(function, values), truth(longer)
    normal = np.abs(expected) > np.finfo(values.dtype).tiny * 4
    error = np.abs(found - expected) / np.spacing(np.abs(expected).astype(values.dtype))
    assert error[normal].max() <= units
    assert np.abs(found[~normal]).max(initial=0) < np.finfo(values.dtype).tiny * 4


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_functions_know_the_ends_of_the_line(dtype):
    nan, inf = np.nan, np.inf
    values = np.array([nan, inf, -inf, 0.0, 1000.0, -1000.0, -1.0, np.finfo(dtype).tiny / 8], dtype)
    expected = {
        functions.exp: [nan, inf, 0, 1, inf, 0, np.exp(-1.0), 1],
        functions.log: [nan, inf, nan, -inf, np.log(1000.0), nan, nan, -inf],
        functions.sigmoid: [nan, 1, 0, 0.5, 1, 0, 1 / (1 + np.e), 0.5],
        functions.OPERATIONS["sgn"]: [0, 1, -1, 0, 1, -1, -1, 1],
        functions.expm1: [nan, inf, -1, 0, inf, -1, np.expm1(-1.0), 0],
        functions.log1p: [nan, inf, nan, 0, np.log1p(1000.0), nan, -inf, 0],
        functions.tanh: [nan, 1, -1, 0, 1, -1, np.tanh(-1.0), 0],
        functions.atan: [nan, np.pi / 2, -np.pi / 2, 0, np.arctan(1000.0), -np.arctan(1000.0), -np.pi / 4, 0],
        functions.softplus: [nan, inf, 0, np.log(2), 1000, 0, np.logaddexp(0, -1.0), np.log(2)],
        functions.log_sigmoid: [nan, 0, -inf, -np.log(2), 0, -1000, -np.logaddexp(0, 1.0), -np.log(2)],
    }
    for function, results in expected.items():
        np.testing.assert_allclose(
            evaluated(function, values), results, rtol=1e-6, atol=1e-30, err_msg=function.__name__
        )


@pytest.mark.parametrize("name", ["cdpo", "exo", "savage", "cauchy", "bpo", "cpo", "nca", "trl-ipo", "discopop"])
def test_a_pair_in_both_orders_is_the_pair_and_the_swapped_pair(name):
    loss, generator = PAIR_LOSSES[name](), torch.Generator().manual_seed(0)
    trace, constants = derivative(loss, torch.float64)
    names = ("win", "lose", "ref_win", "ref_lose", "win_len", "lose_len", "weight", "swapped_weight")
    given = {one: -3 * torch.rand(50, generator=generator, dtype=torch.float64) for one in names[:4]}
    given |= {one: 1 + 9 * torch.rand(50, generator=generator, dtype=torch.float64) for one in names[4:]}
    turned = [given[one] for one in (*names[1::-1], *names[3:1:-1], *names[5:3:-1], *names[:5:-1])]
    turned = dict(zip(names, turned, strict=True))
    kernels = {one: getattr(torch, one, getattr(torch.ops.aten, one)) for one, _ in trace.needed_steps().values()}
    kernels |= {"log_sigmoid_forward": torch.nn.functional.logsigmoid, SIGMOID_OF_BOTH: torch.sigmoid,
                "log_sigmoid_backward": lambda grad, x: grad * torch.sigmoid(-x),
                "_to_copy": lambda x: x.double()}  # fmt: skip
    once = trace.replay(kernels, given, constants) + trace.replay(kernels, turned, constants)
    both = trace.in_both_orders()
    for there, here in zip(both.replay(kernels, given, constants), once, strict=True):
        assert torch.equal(there, here)


def test_both_orders_of_a_margin_that_changes_sign_share_its_function():
    steps = derivative(PAIR_LOSSES["savage"](), torch.float64)[0].in_both_orders().steps
    assert [name for name, _ in steps].count(SIGMOID_OF_BOTH) == 2  # of m and −m, which the kernel computes once


@dear(REGISTERED)
def test_the_code_is_vectors_all_through(loss):
    assembly = written(loss)
    assert re.search(r"= fadd <16 x double> ", assembly)
    assert not re.search(r"= f\w+ double ", assembly)


def test_a_training_without_measure_is_an_error_and_no_warning():
    with pytest.raises(FloatingPointError, match=r"learning_rate=1e\+308 is too large"):
        fit(WORLDS, DPO(1e3), steps=20, learning_rate=1e308, engine="fused")


def test_where_training_blows_up_rounding_the_engine_is_no_farther_off_than_rounding_is():
    """Gradient descent at a rate of 40 is chaotic: a start moved by one unit in the last place goes another way."""
    worlds = [gaussian_world(mask_rate=0.4, seed=seed) for seed in range(10)]
    rng = np.random.default_rng(0)
    moved = np.stack([world.ref_logp for world in worlds])
    moved = np.nextafter(moved, moved + rng.choice([-1, 1], moved.shape))

    def trained(**how):
        loss, policy = NaiveBalancedDPO(), RadialBasis()
        return fit(worlds, loss, policy=policy, optimizer="gd", learning_rate=40, pairs=100, seed=range(10), **how)

    eager, fused, control = trained(engine="eager"), trained(engine="fused"), trained(engine="eager", start=moved)
    off, allowed = (
        (one.policies.exp() - eager.policies.exp()).abs().amax((1, 2, 3)).numpy() for one in (fused, control)
    )
    assert allowed[-1] > 0.1
    early = allowed < 1e-3  # beyond that both are anywhere
    assert early.sum() > 10
    assert (off[early] <= 30 * np.maximum.accumulate(allowed)[early]).all()


# --- losses that look alike and are not ---

SMALL = gaussian_world(3, 5, reference="random")
FAR = torch.tensor([[0, -30, -60, -1, -2], [0, -30, -2, -1, -70], [-3, -3, -1, -0.5, -40.0]]).double().log_softmax(-1)


class Named:
    name, equation, source, antisymmetric = "named", "", "", False


@dataclass(frozen=True)
class Hidden(Named):
    """Equal to another by ==, which does not look at k."""

    k: float = field(default=1.0, compare=False)

    def __call__(self, logps):
        return -torch.nn.functional.logsigmoid(self.k * (logps.win_logratio - logps.lose_logratio))


@dataclass(frozen=True)
class Outside(Named):
    k = 1.0

    def __call__(self, logps):
        return self.k * (logps.win_logratio - logps.lose_logratio - 1).square()


@dataclass(frozen=True, slots=True)
class Slotted:
    k: float
    name, equation, source, antisymmetric = "slotted", "", "", False

    def __call__(self, logps):
        return (self.k * (logps.win_logratio - logps.lose_logratio) - 1).square()


class Unhashable(DPO):
    __hash__ = None

    def __eq__(self, other):
        return True


def agree(loss, world=SMALL, **settings):
    fused, eager = (fit(world, loss, **{"steps": 50, "engine": how, **settings}) for how in ("auto", "eager"))
    assert gap(fused, eager) < 1e-10
    return fused.settings["engine"]


def test_losses_that_are_equal_but_not_the_same_have_kernels_of_their_own(monkeypatch):
    assert [agree(Hidden(k)) for k in (1.0, 5.0)] == ["fused"] * 2
    assert agree(Outside(), optimizer="gd") == "fused"
    monkeypatch.setattr(Outside, "k", 0.1)
    assert agree(Outside(), optimizer="gd") == "fused"
    assert [agree(Slotted(k)) for k in (1.0, 3.0)] == ["fused"] * 2
    assert [agree(Slotted(k), optimizer="gd") for k in (1.0, 3.0)] == ["fused"] * 2
    assert [agree(Unhashable(beta)) for beta in (1.0, 3.0)] == ["fused"] * 2


def out_of_place(gap, logps):
    far = (gap.detach() < -20).to(gap.dtype)
    torch.zeros(far.shape[1], out=far[0], dtype=far.dtype)
    return far * gap.square() + (gap - 1).square()


TRAPS = {
    "truths added": lambda gap, logps: ((logps.win < -20) + (logps.lose < -20)) * gap.square() + (gap - 1).square(),
    "numbers as truths": lambda gap, logps: (-20 - logps.win).relu().bool() * gap + (gap - 1).square(),
    "a second output": lambda gap, logps: gap.square() / torch.aminmax(gap.detach().abs().clamp(min=20))[1],
    "out": out_of_place,
    "its length": lambda gap, logps: (1.0 if len(gap) < 21 else 0.1) * (gap - 1).square(),
    "a truth as a number": lambda gap, logps: torch.where(gap > 0, logps.win < -1, gap) * gap.square() * 0.01,
}


@pytest.mark.parametrize("function", TRAPS.values(), ids=TRAPS)
def test_what_pytorch_does_otherwise_than_a_kernel_is_trained_by_pytorch(function):
    with pytest.warns(EagerNotice):
        assert agree(Own(function), start=FAR, optimizer="gd", learning_rate=0.1, steps=20) == "eager"


def test_which_kernels_there_are_already_does_not_matter(fresh):
    engines = []
    for before in (None, IPO()):
        if before:
            fit(SMALL, before, dtype=torch.float32, steps=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EagerNotice)
            engines.append(fit(SMALL, IPO(1e-20), dtype=torch.float32, steps=20).settings["engine"])
    assert engines[0] == engines[1]


def test_probabilities_sum_to_one_even_where_logits_are_huge():
    world = World(np.array([[1.0, 1.0, 0.0, 0.0]]), np.ones((1, 4), bool), np.log(np.full((1, 4), 0.25)))
    for rate in (1e7, 1e13, 1e16):
        fitted = fit(world, BalancedDPO(), learning_rate=rate, steps=20, engine="fused")
        np.testing.assert_allclose(fitted.policies.exp().sum(-1), 1, rtol=1e-12)
        assert gap(fitted, fit(world, BalancedDPO(), learning_rate=rate, steps=20, engine="eager")) < 1e-10


def test_a_run_does_not_know_what_pairs_the_others_have():
    hidden = np.zeros((1, 3, 3), bool)
    hidden[0, 1, 2] = hidden[0, 2, 1] = True
    utility, observed, ref_logp = np.array([[0.0, 1.0, 2.0]]), np.ones((1, 3), bool), np.log(np.full((1, 3), 1 / 3))
    worlds = [World(utility, observed, ref_logp, hidden), World(utility, observed, ref_logp)]
    start = torch.tensor([[-450.0, 0, -900]]).double()
    settings = {"steps": 5, "optimizer": "gd", "learning_rate": 1e-200, "engine": "fused"}
    exponential = Own(lambda gap, logps: (-gap).exp())
    alone = fit(worlds[0], exponential, start=start, **settings)
    starts = torch.stack([start, torch.zeros(1, 3).double().log_softmax(-1)])
    assert torch.equal(fit(worlds, exponential, start=starts, **settings).logp[0], alone.logp)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes and device files")
@pytest.mark.parametrize("what", ["pipe", "device"])
def test_what_is_no_file_is_not_read(fresh, what):
    fit(SMALL, DPO(), steps=2)
    (path,) = fresh.iterdir()
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    fusion._KERNELS.clear()
    assert agree(DPO(), steps=2) == "fused"


def test_a_fallback_draws_what_eager_draws():
    noisy = Own(lambda gap, logps: (gap - torch.rand_like(gap)).square())
    policies = []
    for how in ("auto", "eager"):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EagerNotice)
            policies.append(fit(SMALL, noisy, steps=5, engine=how).logp)
    assert torch.equal(*policies)


@dataclass(frozen=True)
class OddFeatures:
    kind: torch.dtype
    name = "odd"

    def features(self, responses):
        return torch.linspace(0, 1, 2 * responses, dtype=self.kind).reshape(responses, 2).requires_grad_()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_features_may_be_of_another_type_or_want_gradients(kind):
    fit(SMALL, DPO(), policy=OddFeatures(kind), steps=3, engine="fused")
