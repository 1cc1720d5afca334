"""The registry of random streams: what random numbers are drawn for, and which entropy each purpose draws from.

Equal arguments give equal numbers on every machine. Committed results depend on every bit, so a purpose keeps its
layout and number for good. A new purpose takes ``Layout.SPAWNED`` and a number that is free in ``Purpose``: spawned
streams share no numbers with one another, nor with any other layout.

The other layouts are older than this registry. Numbered streams share no numbers with one another. Shifted ones may,
where number + seed are equal: with other shifted ones at an epoch of 0, and with a numbered one (``REWARD_ORDER`` of
seed 1 is ``INSPECTED``). So may hashed ones, where the hashed numbers are equal, and all that take the seed as it is.
One result draws from two that meet: at equal seeds the pairs of the token task and the order of their first epoch come
from the same numbers. This is kept, since the committed runs of language models depend on it.
"""

from __future__ import annotations

import hashlib
from enum import Enum

import numpy as np

from gradlab.checks import count, shown


class Layout(Enum):
    """The ways in which seed, number of the purpose and further numbers become the entropy of a generator."""

    SPAWNED = "numpy: SeedSequence(seed, spawn_key=(number, *more))"
    NUMBERED = "numpy: SeedSequence([number, *more, seed])"
    SHIFTED = "numpy: SeedSequence([number + seed, *more])"
    HASHED = "torch: SHA-256 of (seed, number, *more), without a number of 0"
    AS_IS = "torch: the seed itself"


class Purpose(Enum):
    """The purposes of random numbers: each in words, with layout, number, and the names of the further numbers."""

    CENTRES = "the places of the utilities' centres in a world", Layout.SPAWNED, 0
    UTILITY = "the utilities of a world with independent ones", Layout.SPAWNED, 1
    MASK = "which responses or pairs a world hides", Layout.SPAWNED, 2
    REFERENCE = "the logits of a random reference", Layout.SPAWNED, 3
    DATA = "the pairs of a finite data set", Layout.SPAWNED, 4, ("split",)
    LENGTHS = "the lengths of a world's responses in tokens", Layout.SPAWNED, 5
    BATCHES = "the pairs of each step's batch in the lab", Layout.SPAWNED, 10
    GRADIENT_LOG = "the pairs whose gradients are logged", Layout.SPAWNED, 11
    RESPONSES = "the responses that PPO samples in the lab", Layout.SPAWNED, 12
    PERMUTATION = "the control that deals λ out among the pairs at random", Layout.SPAWNED, 20
    NETWORK_WEIGHTS = "the initial weights of the network policy", Layout.SPAWNED, 1000
    DRAWN_POLICY = "the policies of the inner products", Layout.SPAWNED, 1001, ("family", "responses")
    OBSERVED_RESPONSES = "the observed responses of the inner products", Layout.SPAWNED, 1002, ("family", "responses")
    PROMPT = "the prompt at which a network's kernel is taken", Layout.SPAWNED, 1003
    SIMULATED = "effects of a known truth, on which the rules of evidence are tested", Layout.SPAWNED, 1004, ("case",)
    GOALS = "the places of both utilities in a world of two goals", Layout.SPAWNED, 1040
    DRAWN_GOALS = (
        "the settings of a drawn world of two goals; the seed names the draw",
        Layout.SPAWNED,
        1041,
        ("world",),
    )
    DRAWN_WORLD = (
        "the settings of a drawn world; the seed names the draw",
        Layout.SPAWNED,
        1010,
        ("world",),
    )
    SIMULATED_RATERS = "the answers of a study's simulated raters", Layout.SPAWNED, 1070
    POWER = "the answers by which a study's power is estimated", Layout.SPAWNED, 1071, ("effect", "raters", "items")
    LINE_BUMP = "the place of the utility's bump on a line", Layout.SPAWNED, 1020
    LINE_PAIRS = "the pairs of responses on a line, and their labels", Layout.SPAWNED, 1021
    LINE_NETWORK = "the initial weights of the energies on a line", Layout.SPAWNED, 1022
    CHAIN = (
        "a chain policy: its reference, its utility, both responses of its pairs, and their labels, by part",
        Layout.SPAWNED,
        1060,
        ("part",),
    )
    TEXT_PAIRS = "the responses of a pretrained model in the pairs of openings", Layout.SPAWNED, 1081, ("part", "round")
    TEXT_LABELS = "the labels of the pairs of openings", Layout.SPAWNED, 1080, ("part",)

    SEQUENCES = "lengths and log-probabilities of the ratios' sequences", Layout.NUMBERED, 7301
    SHIFT_DIRICHLET = "the Dirichlet distributions of the shift", Layout.NUMBERED, 7302
    DEALT = "the control that deals p out among the responses; the seed is the case's number", Layout.NUMBERED, 7303
    VARIANCE_DIRICHLET = "the Dirichlet distributions of the variance", Layout.NUMBERED, 7304, ("responses",)
    CONFIDENT = "a confident policy's one response", Layout.NUMBERED, 7305, ("responses",)
    HELD_OUT = "the held-out pairs of a language model's data", Layout.NUMBERED, 6001
    INSPECTED = "the pairs that are inspected under a language model", Layout.NUMBERED, 6102
    DEMO_PAIRS = "the pairs of the demonstration", Layout.NUMBERED, 6201

    BOOTSTRAP = "the resamples of a bootstrap interval", Layout.SHIFTED, 0
    JITTER = "the heights of dots in a figure", Layout.SHIFTED, 0
    EXAMINED = "the problem on which a compiled kernel is examined", Layout.SHIFTED, 0
    TOKEN_TASK = "the pairs of the token task", Layout.SHIFTED, 0
    ORDER = "the order of a language model's pairs in an epoch", Layout.SHIFTED, 0, ("epoch",)
    REWARD_ORDER = "the order of a reward model's pairs in an epoch", Layout.SHIFTED, 6101, ("epoch",)

    DROPOUT = "dropout in training a language model", Layout.HASHED, 0, ("step", "micro-batch", "rank")
    REWARD_DROPOUT = "dropout in training a reward model", Layout.HASHED, 0, ("step",)
    SAMPLES = "a language model's sampled responses", Layout.HASHED, 0, ("batch",)
    PPO_SAMPLES = "the responses on which PPO trains a language model", Layout.HASHED, 6002, ("step", "batch")
    MODEL_WEIGHTS = "the initial weights of a language model", Layout.AS_IS, 0
    LORA_WEIGHTS = "the initial weights of a LoRA adapter", Layout.AS_IS, 0
    TRACED = "the log-probabilities on which a loss is traced", Layout.AS_IS, 0

    def __init__(self, words: str, layout: Layout, number: int, more: tuple[str, ...] = ()) -> None:
        self.words = words
        self.layout = layout
        self.number = number
        self.more = more


def stream(seed: int, purpose: Purpose, *more: int) -> np.random.Generator:
    """Return the NumPy generator of a seed and a purpose: equal arguments give equal numbers.

    more  whole numbers ≥ 0, as many as ``purpose.more`` names. ValueError for another number of them, or a purpose
          for which PyTorch draws.
    """
    seed, more = _checked(seed, purpose, more)
    if purpose.layout is Layout.SPAWNED:
        # A spawn key and not a longer seed: numpy pads seeds with zeros, so [s, 1] and [s, 1, 0] would be one stream.
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose.number, *more)))
    if purpose.layout is Layout.NUMBERED:
        return np.random.default_rng([purpose.number, *more, seed])
    if purpose.layout is Layout.SHIFTED:
        return np.random.default_rng([purpose.number + seed, *more])
    raise ValueError(f"purpose must be one for which NumPy draws, got {purpose.name}")


def torch_seed(seed: int, purpose: Purpose, *more: int) -> int:
    """Return what to seed a generator of PyTorch with, ``torch.manual_seed`` or ``torch.Generator().manual_seed``.

    more  as in ``stream``, and so are the errors, for a purpose for which NumPy draws.
    """
    seed, more = _checked(seed, purpose, more)
    if purpose.layout is Layout.AS_IS:
        if seed >= 2**64:
            raise ValueError(f"seed must be less than 2**64 for {purpose.name}, got {seed}")
        return seed
    if purpose.layout is Layout.HASHED:
        words = (seed, *([purpose.number] if purpose.number else []), *more)
        return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:8], "little") >> 1
    raise ValueError(f"purpose must be one for which PyTorch draws, got {purpose.name}")


def _checked(seed: int, purpose: Purpose, more: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    if not isinstance(purpose, Purpose):
        raise ValueError(f"purpose must be a Purpose, such as Purpose.DATA, got {shown(purpose)}")
    if len(more) != len(purpose.more):
        raise ValueError(f"{purpose.name} needs {len(purpose.more)} numbers besides the seed, got {len(more)}")
    return count("seed", seed, most=2**128 - 1), tuple(count(*named) for named in zip(purpose.more, more, strict=True))
