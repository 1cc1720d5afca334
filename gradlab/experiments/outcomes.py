"""The outcomes by which grid experiments compare methods: their margins, their units, and the answer in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradlab.experiments.contrasts import Contrast, Unit

# Methods as a sentence says them.
_WORDS = {
    "dpo": "DPO", "bdpo": "bDPO", "bdpo at 2β": "bDPO at 2β", "nbdpo": "naive bDPO",
    "nbdpo-symmetric": "symmetric naive bDPO", "permuted λ": "bDPO with permuted λ",
    "permuted |λ−½|": "bDPO with permuted |λ − ½|", "fixed λ=0.4": "a constant λ = 0.4",
    "fixed λ=0.5": "a constant λ = ½", "fixed λ=0.6": "a constant λ = 0.6", "ppo": "PPO",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A quantity at the end of training by which methods are compared.

    claim      the claim that it judges.
    value      its column.
    margin, unit, lower_is_better  as of a contrast.
    better, worse  the answer as a sentence with {method}, {baseline} and {size}.
    """

    claim: str
    value: str
    margin: float
    unit: Unit
    better: str
    worse: str
    lower_is_better: bool = False

    def contrast(
        self, statement: str, method: str, baseline: str, by: tuple[str, ...], *, words: str = "{}", **changes: Any
    ) -> Contrast:
        """Return the contrast of two methods on this outcome.

        words    puts the answer into a sentence that says more, such as "at equal KL, {}".
        changes  further fields of the contrast.
        """
        names = {"method": _WORDS.get(method, method), "baseline": _WORDS.get(baseline, baseline), "size": "{size}"}
        better, worse = (words.format(said.format(**names)) for said in (self.better, self.worse))
        given: dict[str, Any] = {
            "claim": self.claim, "value": self.value, "margin": self.margin, "unit": self.unit,
            "lower_is_better": self.lower_is_better, "better": better, "worse": worse, **changes,
        }  # fmt: skip
        return Contrast(statement=statement, method=method, baseline=baseline, by=by, **given)


REWARD = Outcome(
    "grid-reward", "utility_share", 0.01, Unit("points of the reachable reward", 100, 1),
    "{method} reaches {size} more than {baseline}", "{method} reaches {size} less than {baseline}",
)  # fmt: skip
MASS = Outcome(
    "grid-unobserved", "unobserved_mass", 0.005, Unit("points of probability mass", 100, 2),
    "{method} puts {size} less than {baseline} on unobserved responses",
    "{method} puts {size} more than {baseline} on unobserved responses", lower_is_better=True,
)  # fmt: skip
WINS = Outcome(
    "ablation", "win_rate", 0.01, Unit("points of win-rate", 100, 1),
    "{method} wins more often than {baseline}, by {size}", "{method} wins less often than {baseline}, by {size}",
)  # fmt: skip
