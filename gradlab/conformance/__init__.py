"""Check which preference loss some code computes: vectors, and a search for the loss that fits.

``check(target)`` asks a function, a loss of the installed TRL or a table of numbers, and says which registered loss,
with which hyper-parameters and conventions, gives its numbers. ``vectors-1.json`` has numbers for other tools.
``disagreements()`` lists where libraries differ from papers.
"""

from gradlab.conformance.checking import check
from gradlab.conformance.disagreements import confirm, disagreements
from gradlab.conformance.tables import write_table
from gradlab.conformance.vectors import read_vectors, vector_pairs

__all__ = ["check", "confirm", "disagreements", "read_vectors", "vector_pairs", "write_table"]
