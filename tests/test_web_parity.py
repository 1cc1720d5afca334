"""Training in a page is training here: WebAssembly in Node against the native kernel, from one definition of a loss."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from node import needs_node, node
from own_losses import Lopsided, PerToken, SquaredMargin
from small_worlds import WORLDS, largest_slope

from gradlab.lab.engine.webassembly import training_kernel
from gradlab.lab.fit import fit
from gradlab.lab.policy import FreeLogits, RadialBasis
from gradlab.lab.runs import Runs
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world
from gradlab.losses import PAIR_LOSSES, BalancedDPO, PairLoss

pytestmark = needs_node

POLICIES = {"free": FreeLogits(), "shared": RadialBasis(4)}
OPTIMIZERS = {"adam": 0.01, "gd": 0.5}
DTYPES = {"float64": 1e-10, "float32": 1e-5}  # how far apart probabilities may be after 200 steps
OWN = {"README's lopsided": Lopsided(), "squared": SquaredMargin(), "per token": PerToken()}


def start_of(worlds):
    """A start away from the reference, where some losses have a kink or slopes that cancel: rounding decides there."""
    logits = np.stack([world.ref_logp - 0.3 * world.utility for world in worlds])
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


@dataclass(frozen=True)
class Case:
    """A loss and how it is trained."""

    loss: PairLoss
    training: Training

    def request(self, worlds, wanted):
        """Return what ``train.mjs`` needs."""
        runs = Runs.of(worlds, self.training.pairs, self.training.labels, 0)
        responses = runs.responses
        columns = {
            "count": runs.count * runs.prompts,
            "responses": responses,
            "weights": runs.data().ravel().tolist(),
            "reference": runs.ref_logp.ravel().tolist(),
            "start": start_of(worlds).ravel().tolist(),
            "lengths": runs.lengths.ravel().tolist(),
        }
        if not isinstance(self.training.policy, FreeLogits):
            columns["features"] = self.training.features(responses).numpy().ravel().tolist()
        kernel = training_kernel(self.loss, self.training).record()
        return {
            "kernel": kernel, "columns": columns, "learningRate": self.training.learning_rate, "wanted": wanted,
        }  # fmt: skip


def trained_in_node(cases, worlds, wanted):
    requests = [case.request(worlds, wanted) for case in cases]
    return [np.reshape(logp, (len(wanted), -1)) for logp in json.loads(node("test/train.mjs", given=requests))]


def gap(case, logp, worlds):
    """Return how far probabilities at the end are from the native ones, at most."""
    native = fit(worlds, case.loss, case.training, seed=0, engine="fused", start=start_of(worlds))
    assert native.settings["engine"] == "fused"
    moved = (native.logp.double().exp() - native.policies[0].double().exp()).abs().max()
    assert moved > 1e-3
    return np.abs(np.exp(logp) - native.logp.double().exp().numpy().ravel()).max()


def recipe(policy, optimizer, dtype, steep=1.0):
    rate = OPTIMIZERS[optimizer] / (steep if optimizer == "gd" else 1)  # larger steps would amplify rounding
    return Training(policy=POLICIES[policy], optimizer=optimizer, learning_rate=rate, steps=200, record=1, dtype=dtype)


EVERY = [
    (name, policy, optimizer, dtype)
    for name in [*PAIR_LOSSES, *OWN]
    for policy in POLICIES
    for optimizer in OPTIMIZERS
    for dtype in DTYPES
]
FAST = [("bdpo", "free", "adam", "float64"), ("per token", "shared", "gd", "float32")]


@pytest.mark.parametrize(
    ("name", "policy", "optimizer", "dtype"),
    [
        pytest.param(*one, marks=[] if one in FAST else pytest.mark.slow if number % 5 == 0 else pytest.mark.long)
        for number, one in enumerate(EVERY)
    ],
)
def test_webassembly_trains_as_the_native_kernel_does(name, policy, optimizer, dtype):
    loss = OWN[name] if name in OWN else PAIR_LOSSES[name]()
    case = Case(loss, recipe(policy, optimizer, dtype, steep=max(largest_slope(loss), 1.0)))
    (logp,) = trained_in_node([case], WORLDS, [200])
    # In float32, rounding may decide which side of BPO's kink a pair is on, for a step of Adam.
    assert gap(case, logp[0], WORLDS) < (1e-3 if (name, dtype) == ("bpo", "float32") else DTYPES[dtype])


SIZES = [(1, 2), (3, 3), (5, 17), (1, 60), (21, 4)]  # one column, blocks that are not full, memory that grows


@pytest.mark.parametrize("policy", [pytest.param("free", marks=pytest.mark.slow), "shared"])
def test_so_does_it_in_every_size_and_at_every_recorded_step(policy):
    training = Training(policy=POLICIES[policy], steps=30, record=1000, pairs=12)
    case = Case(BalancedDPO(), training)
    for size in SIZES[:2] if policy == "shared" else SIZES:
        worlds = [gaussian_world(*size, reference="random", seed=seed) for seed in range(2)]
        native = fit(worlds, case.loss, training, seed=0, engine="fused", start=start_of(worlds))
        (logp,) = trained_in_node([case], worlds, list(range(31)))
        assert native.steps.tolist() == list(range(31))
        expected = native.policies.exp().numpy().reshape(31, -1)
        np.testing.assert_allclose(np.exp(logp), expected, rtol=0, atol=1e-10)


AT = {
    "dpo": {"beta": 3.0}, "cdpo": {"beta": 0.2, "label_smoothing": 0.4}, "ipo": {"beta": 0.3}, "bdpo": {"beta": 5.0},
    "nbdpo": {"beta": 2.0, "clip": 1.5}, "nbdpo-symmetric": {"clip": 1.5}, "fixed-weight": {"win_weight": 0.5},
    "robust": {"label_smoothing": 0.3}, "exo": {"beta": 1.0, "label_smoothing": 0.2},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", AT)
def test_one_kernel_serves_a_loss_at_all_hyper_parameters(name):
    case = Case(PAIR_LOSSES[name](), recipe("shared", "adam", "float64"))
    request = case.request(WORLDS, [200])
    general = training_kernel(case.loss, case.training, general=True).record()
    answers = node("test/train.mjs", given=[{**request, "kernel": general, "hyper": hyper} for hyper in ({}, AT[name])])
    for logp, hyper in zip(json.loads(answers), ({}, AT[name]), strict=True):
        moved = Case(PAIR_LOSSES[name](**hyper), case.training)
        assert gap(moved, np.array(logp), WORLDS) < DTYPES["float64"]
