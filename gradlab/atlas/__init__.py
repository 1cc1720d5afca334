"""The atlas: every preference loss seen with the same eyes, measured from its values and slopes alone.

``measured`` looks at one loss, ``table`` puts many beside each other.
"""

from gradlab.atlas.measure import Field, Measured, Optimum, measured
from gradlab.atlas.pairs import Grid, by_logratio, by_probability
from gradlab.atlas.rows import disagreements, table

__all__ = [
    "Field", "Grid", "Measured", "Optimum", "by_logratio", "by_probability", "disagreements", "measured", "table",
]  # fmt: skip
