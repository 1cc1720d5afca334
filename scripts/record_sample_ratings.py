"""Record the answers that come with the explorer *Rating*: three rules answer in the place of raters.

They show what the end of a rating looks like, and what a rate can mean: no person has rated anything.

``python scripts/record_sample_ratings.py`` takes a second.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tyro

from gradlab.store.ratings import append_answer, read_comparison, shuffled, sides

SAMPLES = Path(__file__).resolve().parent.parent / "gradlab/widgets/samples"


def shorter(left: str, right: str) -> str:
    """Prefer the shorter text."""
    return "tie" if len(left) == len(right) else "left" if len(left) < len(right) else "right"


def much_shorter(left: str, right: str) -> str:
    """Prefer the shorter text if it has at most a quarter of the other's length; otherwise answer a tie."""
    return "tie" if 4 * min(len(left), len(right)) > max(len(left), len(right)) else shorter(left, right)


def always_left(left: str, right: str) -> str:
    """Prefer the text on the left."""
    return "left"


RULES: dict[str, Callable[[str, str], str]] = {
    "rule: shorter": shorter, "rule: much shorter": much_shorter, "rule: left": always_left,
}  # fmt: skip


def record(folder: Path = SAMPLES) -> None:
    """Write ``rules.ratings.jsonl`` again.

    Args:
        folder: Where it goes.
    """
    comparison = read_comparison(SAMPLES / "samples.jsonl")
    path = folder / "rules.ratings.jsonl"
    path.unlink(missing_ok=True)
    for rater, rule in RULES.items():
        for item in shuffled(comparison, rater):
            left, right = sides(comparison, item, rater)
            choice = rule(item.texts[left], item.texts[right])
            append_answer(path, rater, item.key, comparison.systems[left], comparison.systems[right], choice)


if __name__ == "__main__":
    tyro.cli(record)
