"""A world whose responses are real numbers: a reference to draw from, and a utility with one bump."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradlab.checks import between, count, keep_plain, of_kind, one_of, positive
from gradlab.lab.line.densities import REFERENCES, SUCH_AS, Density
from gradlab.lab.line.interval import WHOLE, Interval
from gradlab.streams import Purpose, stream


@dataclass(frozen=True)
class LineWorld:
    """One prompt whose responses are real numbers (ours).

    centre, width, height  of the utility u(y) = height · exp(−(y − centre)²/(2 width²)), in nats; width, height > 0.
    reference              π_ref, from which both responses of a pair are drawn; by default N(0, 1).
    interval               on which π_ref must integrate to one.
    """

    centre: float
    width: float = 0.7
    height: float = 4.0
    reference: Density = REFERENCES["normal"]
    interval: Interval = WHOLE
    ref_logp: Tensor = field(init=False, repr=False, compare=False)  # at the interval's nodes

    def __post_init__(self) -> None:
        on = of_kind("interval", self.interval, Interval, "an Interval, such as Interval(-8, 8)")
        of_kind("reference", self.reference, Density, SUCH_AS)
        keep_plain(self, centre=between("centre", self.centre, on.low, on.high), width=positive("width", self.width),
                   height=positive("height", self.height))  # fmt: skip
        object.__setattr__(self, "ref_logp", self.interval.checked("reference", self.reference.log_density))

    def utility(self, y: Tensor) -> Tensor:
        """Return u(y) in nats, in the shape of y."""
        return self.height * (-0.5 * ((y - self.centre) / self.width) ** 2).exp()

    def pairs(self, number: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return winners and losers, each (number,): pairs from π_ref, each with one label by Bradley–Terry.

        Equal seeds give equal pairs.
        """
        random = stream(seed, Purpose.LINE_PAIRS)
        drawn = self.reference.draw(random, 2 * count("number", number, least=1, most=10**8))
        y = torch.as_tensor(drawn.reshape(2, -1))
        first = torch.as_tensor(random.uniform(size=y.shape[1])) < (self.utility(y[0]) - self.utility(y[1])).sigmoid()
        return torch.where(first, y[0], y[1]), torch.where(first, y[1], y[0])

    def ideal_logp(self, beta: float) -> Tensor:
        """Return log π at the nodes of π ∝ π_ref e^{u/β}, the best trade of E[u] against KL."""
        logits = self.ref_logp + self.utility(self.interval.nodes) / positive("beta", beta)
        return logits - torch.logsumexp(logits + self.interval.weights.log(), -1)


def bump_world(seed: int = 0, reference: str = "normal", *, width: float = 0.7, height: float = 4.0) -> LineWorld:
    """Return a world whose bump lies ½ to 2 units from 0; the seed draws the distance and the side.

    reference  a name in ``REFERENCES``. width, height: of the bump.
    """
    random = stream(seed, Purpose.LINE_BUMP)
    centre = float(random.uniform(0.5, 2.0) * random.choice([-1.0, 1.0]))
    return LineWorld(centre, width, height, REFERENCES[one_of("reference", reference, REFERENCES)])
