"""All rules of the doctor, in the order in which the report lists their signs."""

from __future__ import annotations

from gradlab.doctor import sample_rules, side_rules, training_rules, validation_rules
from gradlab.doctor.rule import Rule

RULES: tuple[Rule, ...] = (
    *training_rules.RULES, *sample_rules.RULES, *validation_rules.RULES, *side_rules.RULES,
)  # fmt: skip
# The signs with their titles in the report. Findings about the file have another sign, "log".
SIGNS: dict[str, str] = {rule.sign: rule.title for rule in RULES}
