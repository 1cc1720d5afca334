"""How far apart rounding alone may take two computations of one number: what a test's tolerance is argued from."""

import pytest
import torch

from gradlab.losses import PairLogps, slopes


def rounding(count, size=1.0, dtype=torch.float64):
    """Return how far two computations are apart at most, each of which rounds ``count`` times numbers up to ``size``.

    A rounding moves a number by at most ε/2 of its size, ε being ``torch.finfo(dtype).eps``. A function such as exp
    counts as two roundings: each processor's library has its own last bit. A sum of n numbers counts as n, with the
    size of the sum of their absolute values: its order is the processor's.
    """
    return count * torch.finfo(dtype).eps * size


def starts_at(loss, value, logp, tokens, dtype=torch.float32):
    """Return ``pytest.approx`` of a loss's value where the policy is its own reference, rounded in ``dtype``.

    Both sums of ``tokens`` log-probabilities come from batches of other shapes, so each side's log π of at most |logp|
    may differ from its reference by that sum's rounding. The loss's slopes say what it makes of that: IPO's square
    makes 1/β times what it is, where a logistic loss makes β/2.
    """
    at, length = (torch.tensor(float(one), dtype=torch.float64) for one in (-abs(logp), tokens))
    pull = sum(float(slope.abs()) for slope in slopes(loss, PairLogps(at, at, at, at, length, length)))
    return pytest.approx(value, abs=pull * rounding(tokens, abs(float(logp)), dtype))
