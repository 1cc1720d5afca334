"""A step in bfloat16 casts each weight once, however many micro-batches it has, and so its gradient is the same."""

from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("transformers")

from tiny_llm import tiny_model, tiny_settings

from gradlab.llm.model.group import Group
from gradlab.llm.train.policy_model import PolicyModel

ROWS = [((0, 5, 7, 9), (4, 6, 1)), ((0, 8), (3, 3, 9, 1)), ((0, 11, 12), (20, 1))]


class Casts(TorchDispatchMode):
    """Count how often weights are copied to bfloat16."""

    def __init__(self, weights):
        super().__init__()
        self.names = {weight.data_ptr(): name for name, weight in weights}
        self.counts = dict.fromkeys(self.names.values(), 0)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        halved = func is torch.ops.aten._to_copy.default and kwargs.get("dtype") is torch.bfloat16
        if halved and (name := self.names.get(args[0].data_ptr())) is not None:
            self.counts[name] += 1
        return func(*args, **kwargs)


def policy_of(**changed):
    settings = tiny_settings(Path(), Path(), precision="bf16", device="cpu", **changed)
    return PolicyModel(tiny_model(), Group(), settings, rate=0.01, steps=10, pad=2)


def step(policy):
    """The gradient of a step of three micro-batches, and how often it casts each weight of a linear layer."""
    linear = [
        (f"{name}.weight", part.weight) for name, part in policy.model.named_modules()
        if isinstance(part, torch.nn.Linear) and "layers" in name
    ]  # fmt: skip
    with Casts(linear) as casts:
        policy.accumulate(
            policy.parts(ROWS, 1), lambda places: [ROWS[place] for place in places], lambda logps, _: logps[0],
            number=len(ROWS), step=1,
        )  # fmt: skip
    gradient = torch.cat([weight.grad.flatten() for weight in policy.model.parameters() if weight.grad is not None])
    return gradient, set(casts.counts.values())


def test_each_weight_is_cast_once_per_step():
    once, counts = step(policy_of())
    assert counts == {1}
    again = policy_of()
    again.casts_once = False
    each, counts = step(again)
    assert counts == {len(ROWS)}
    torch.testing.assert_close(once, each, rtol=0, atol=0)


def test_layers_that_are_all_computed_again_cast_in_each_micro_batch():
    once, _ = step(policy_of())
    policy = policy_of(gradient_checkpointing=1.0)
    assert not policy.casts_once
    again, counts = step(policy)
    assert min(counts) >= len(ROWS)
    torch.testing.assert_close(again, once, rtol=0, atol=0)


def test_weights_are_cast_anew_after_they_have_changed():
    policy = policy_of()
    step(policy)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.zero_()
            weight.grad = None
    gradient, counts = step(policy)
    assert counts == {1}
    assert not gradient.any(), "a model of zeros gives each token the same probability, whatever its weights were"


def test_in_float32_nothing_is_cast():
    settings = tiny_settings(Path(), Path(), precision="fp32", device="cpu")
    policy = PolicyModel(tiny_model(), Group(), settings, rate=0.01, steps=10, pad=2)
    assert step(policy)[1] == {0}
