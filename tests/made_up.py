"""Answers that a test makes up: frames of two methods and controls with a known effect, judged by today's rules."""

from dataclasses import replace

import numpy as np
import pandas as pd

from gradlab.experiments.contrasts import Contrast, Scan, Unit, judged
from gradlab.experiments.report import verdicts
from gradlab.experiments.report.claims import CLAIMS
from gradlab.streams import Purpose, stream

CLAIM = "grid-reward"  # stated cells, worlds and controls
MARGIN = 0.01
UNIT = Unit("points of reward", 100, 1)


def contrast(baseline="dpo", **changes):
    """A contrast of bDPO with ``baseline`` on the cells of ``frame``."""
    other = {"dpo": "DPO", "half": "λ = ½", "double": "bDPO at 2β"}.get(baseline, baseline)
    return Contrast(**{
        "claim": CLAIM, "statement": f"reward at the end, bDPO against {other}", "method": "bdpo", "baseline": baseline,
        "value": "reward", "by": ("mask", "policy"), "margin": MARGIN, "unit": UNIT, "label": other,
        "better": f"bDPO reaches {{size}} more than {other}", "worse": f"bDPO reaches {{size}} less than {other}",
        **changes,
    })  # fmt: skip


def frame(effects=(0.06,), *, seeds=12, noise=0.005, first=0, **others):
    """A frame of cells: bDPO is ``effects`` ahead of DPO, cell by cell in turn, and each of ``others`` behind bDPO."""
    draw = stream(first, Purpose.SIMULATED, 1)
    cells = [(mask, policy) for mask in (0.0, 0.2, 0.4) for policy in ("free", "shared")]
    return pd.DataFrame([
        {"mask": mask, "policy": policy, "seed": first + seed, "method": method,
         "reward": base + draw.normal(0, noise)}
        for place, (mask, policy) in enumerate(cells)
        for seed in range(seeds)
        for method, base in (("bdpo", 0.5), ("dpo", 0.5 - effects[place % len(effects)]),
                             *((name, 0.5 - ahead) for name, ahead in others.items()))
    ])  # fmt: skip


def worlds(effect_of=lambda dose, mask: 0.06, *, number=60, seeds=6, noise=0.005):
    """A frame of worlds, whose effect is a function of dose and mask."""
    draw, rows = stream(1, Purpose.SIMULATED, 1), []
    for world in range(number):
        dose, mask = float(draw.uniform(1, 8)), float(draw.choice([0.0, 0.2, 0.4]))
        common = {"world": world, "dose": dose, "mask": mask, "policy": ("free", "shared")[world % 2]}
        for seed in range(seeds):
            for method, base in (("bdpo", 0.5 + effect_of(dose, mask)), ("dpo", 0.5)):
                rows.append({**common, "seed": seed, "method": method, "reward": base + draw.normal(0, noise)})
    return pd.DataFrame(rows)


def elsewhere(**changes):
    """A contrast on the worlds of ``worlds``."""
    moderators = ("dose", "mask", "policy")
    return contrast(by=("world",), population="worlds", moderators=moderators, **changes)


def scan(**changes):
    """A scan over the cases of ``cases``, with a proof."""
    return Scan(**{
        "claim": "variance", "statement": "the left side is the smaller one", "value": "slack", "by": ("family",),
        "holds": "the left side is always the smaller one", "fails": "the left side is not always the smaller one",
        "proof": "variance", **changes,
    })  # fmt: skip


def cases(slack=(1.0, 1.0, -1.0)):
    """A frame of declared cases."""
    return pd.DataFrame({"family": "Gaussian", "slack": np.asarray(slack, float)})


def answers(effects=(0.06,), *, ahead_elsewhere=lambda dose, mask: 0.06, half=0.02, double=0.08, **kind):
    """The rows of a claim as one of the experiments would give them: stated, in worlds, and two controls."""
    here = frame(effects, half=half, double=double, **kind)
    return [
        *judged(here, [contrast(), contrast("half", role="explains away"), contrast("double", role="explains away")]),
        *judged(worlds(ahead_elsewhere), [elsewhere()]),
        *judged(here, [contrast(role="robustness", statement="without masks", where="mask == 0.0", by=("policy",)),
                       contrast("double", role="context", statement="for orientation")]),
    ]  # fmt: skip


FRAMES = dict.fromkeys(CLAIMS[CLAIM].experiments, "current")


def settle(rows, *more):
    """All claims, of which the made-up one is settled by ``rows``, each of its experiments having given a row."""
    (context,) = judged(frame(), [contrast(role="context", statement="it is there")])
    rows = [replace(row, experiment=row.experiment or "grid") for row in rows]
    rows += [replace(context, experiment=name) for name in FRAMES]
    return verdicts.settle([*rows, *more], {**FRAMES, **{row.experiment: "current" for row in more}})


def told():
    """All claims, two of them settled: the made-up one, and a law that is refuted."""
    (law,) = judged(cases(), [scan(refutes=True)])
    rows = answers(ahead_elsewhere=lambda dose, mask: 0.08 - 0.02 * dose)
    return settle(rows, replace(law, experiment="variance"))
