"""All rules of the doctor, in the order in which the report lists their signs."""

from __future__ import annotations

from gradlab.doctor.rule import Rule
from gradlab.doctor.side_rules import both_falling, weight_at_edge
from gradlab.doctor.training_rules import far_reference, not_finite, stuck
from gradlab.doctor.validation_rules import no_gain, overfitting, validation_spike

RULES: tuple[Rule, ...] = (
    not_finite, far_reference, stuck, validation_spike, overfitting, no_gain, both_falling, weight_at_edge,
)  # fmt: skip
# The signs with their titles in the report. Findings about the file have another sign, "log".
SIGNS: dict[str, str] = {rule.sign: rule.title for rule in RULES}
