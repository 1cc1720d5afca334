"""Advice before a training: which loss, which β, and why, from the pairs themselves and from what was measured.

``data_facts`` looks at the pairs, ``lab_evidence`` at the atlas's trainings, ``rules`` joins the two: each piece of
advice names what was seen, the evidence, and what would change it.
"""

from gradlab.advice.data_facts import DataFacts, facts_of_pairs
from gradlab.advice.rules import Advice, ModelFacts, advise

__all__ = ["Advice", "DataFacts", "ModelFacts", "advise", "facts_of_pairs"]
