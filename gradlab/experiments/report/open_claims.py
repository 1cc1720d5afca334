"""Claims on the questions that the paper leaves open, and on the next checks of its summary: no verdict is here.

Each says what was expected before the first full run of its experiment, as a claim of another paper does.
"""

from __future__ import annotations

from gradlab.experiments.report.claims import Claim

_SAMPLING: dict[str, Claim] = {}  # next check 2: the experiment sampling

_TWO_GOALS: dict[str, Claim] = {}  # open question 1: the experiment two-goals

_CONTINUOUS: dict[str, Claim] = {}  # open question 2: the experiment continuous

_SCALE: dict[str, Claim] = {}  # open question 3 and next check 3: the experiment scale

OPEN: dict[str, Claim] = {**_SAMPLING, **_TWO_GOALS, **_CONTINUOUS, **_SCALE}
