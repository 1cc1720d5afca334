"""The atlas: every preference loss measured in the same way, from its values and slopes alone.

``measured`` looks at one loss, ``table`` puts many beside each other, ``compare`` also trains them on the spot, and
``workbench`` judges one loss against DPO.
"""

from gradlab.atlas.against_dpo import Contrast, Verdict, verdict
from gradlab.atlas.comparison import Comparison, compare
from gradlab.atlas.measure import Field, Measured, Optimum, measured
from gradlab.atlas.one_loss import Workbench, workbench
from gradlab.atlas.pairs import Grid, by_logratio, by_probability
from gradlab.atlas.pictures import effect_bars, frontier_chart, ratio_map, sign_map, step_field
from gradlab.atlas.rows import disagreements, table

__all__ = [
    "Comparison", "Contrast", "Field", "Grid", "Measured", "Optimum", "Verdict", "Workbench", "by_logratio",
    "by_probability", "compare", "disagreements", "effect_bars", "frontier_chart", "measured", "ratio_map", "sign_map",
    "step_field", "table", "verdict", "workbench",
]  # fmt: skip
