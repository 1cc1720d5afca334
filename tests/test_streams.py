"""Every stream gives the bits that it has always given, and no two purposes draw the same numbers."""

import itertools

import numpy as np
import pytest

from gradlab.streams import Layout, Purpose, stream, torch_seed

# The first number at seed 7, and at further numbers 3, 4, 5, …: written down before there was a registry.
NUMBERS = {
    Purpose.CENTRES: 0.7978591868433563, Purpose.UTILITY: 0.4805820057358118, Purpose.MASK: 0.6320442355695731,
    Purpose.REFERENCE: 0.9823227993863488, Purpose.DATA: 0.46071851949991993, Purpose.BATCHES: 0.7276329853543303,
    Purpose.GRADIENT_LOG: 0.9226343718601985, Purpose.RESPONSES: 0.5237475794398893,
    Purpose.PERMUTATION: 0.05141453172805177, Purpose.NETWORK_WEIGHTS: 0.19036797816597417,
    Purpose.DRAWN_POLICY: 0.41329548590832765, Purpose.OBSERVED_RESPONSES: 0.3809260699022823,
    Purpose.PROMPT: 0.35508334649684836, Purpose.SIMULATED: 0.1835034146892749,
    Purpose.DRAWN_WORLD: 0.5973505282312156, Purpose.LENGTHS: 0.6280998400131672,
    Purpose.LINE_BUMP: 0.7007190107224884, Purpose.LINE_PAIRS: 0.8701524027432636,
    Purpose.LINE_NETWORK: 0.10845297397014064,
    Purpose.GOALS: 0.7160546113600035, Purpose.DRAWN_GOALS: 0.738754556344943,
    Purpose.CHAIN: 0.6260728482993052,
    Purpose.TEXT_PAIRS: 0.6783467542638474, Purpose.TEXT_LABELS: 0.3669621180938176,
    Purpose.SIMULATED_RATERS: 0.19620825616814142, Purpose.POWER: 0.3479314550794199,
    Purpose.SEQUENCES: 0.14946902733570933,
    Purpose.SHIFT_DIRICHLET: 0.23518324627616083, Purpose.DEALT: 0.14767834339757113,
    Purpose.VARIANCE_DIRICHLET: 0.7595965293714914, Purpose.CONFIDENT: 0.7659378314620966,
    Purpose.HELD_OUT: 0.07619050219623502, Purpose.INSPECTED: 0.26735534719689436,
    Purpose.DEMO_PAIRS: 0.47293139528558825, Purpose.BOOTSTRAP: 0.625095466604667, Purpose.JITTER: 0.625095466604667,
    Purpose.EXAMINED: 0.625095466604667, Purpose.TOKEN_TASK: 0.625095466604667, Purpose.ORDER: 0.9750335537195014,
    Purpose.REWARD_ORDER: 0.2992154808740727,
}  # fmt: skip
SEEDS = {
    Purpose.DROPOUT: 4676200916944861643, Purpose.REWARD_DROPOUT: 2391942266732985107,
    Purpose.SAMPLES: 2391942266732985107, Purpose.PPO_SAMPLES: 997390847038588097, Purpose.MODEL_WEIGHTS: 7,
    Purpose.LORA_WEIGHTS: 7, Purpose.TRACED: 7,
}  # fmt: skip


def further(purpose):
    return range(3, 3 + len(purpose.more))


def test_every_purpose_draws_the_numbers_that_it_has_always_drawn():
    assert {*NUMBERS, *SEEDS} == set(Purpose)
    assert {purpose: stream(7, purpose, *further(purpose)).random() for purpose in NUMBERS} == NUMBERS
    assert {purpose: torch_seed(7, purpose, *further(purpose)) for purpose in SEEDS} == SEEDS


# Older than the registry: where number + seed are equal, these are one stream.
MEETING = {(Purpose.INSPECTED, Purpose.REWARD_ORDER), (Purpose.DEMO_PAIRS, Purpose.REWARD_ORDER)}


def test_no_two_purposes_share_a_stream_but_for_those_that_the_registry_names():
    owner, meeting = {}, set()
    for purpose in NUMBERS:
        for seed in (0, 1, 2, 20, 100, 1000, 2**32, 2**32 + 1, 2**64):
            for more in itertools.product((0, 1, 2, 20), repeat=len(purpose.more)):
                key = stream(seed, purpose, *more).bit_generator.seed_seq.generate_state(8).tobytes()
                other = owner.setdefault(key, purpose)
                if other is not purpose and not other.layout is purpose.layout is Layout.SHIFTED:
                    meeting.add((other, purpose))
    assert meeting == MEETING


def test_a_new_purpose_is_spawned_under_a_number_of_its_own():
    of_layout = {layout: [purpose for purpose in Purpose if purpose.layout is layout] for layout in Layout}
    older = {layout.name: len(of_layout[layout]) for layout in Layout if layout is not Layout.SPAWNED}
    assert older == {"NUMBERED": 8, "SHIFTED": 6, "HASHED": 4, "AS_IS": 3}
    for layout in (Layout.SPAWNED, Layout.NUMBERED):
        numbers = [purpose.number for purpose in of_layout[layout]]
        assert len(set(numbers)) == len(numbers)


def test_streams_of_one_purpose_differ_by_seed_and_by_every_further_number():
    keys = list(itertools.product((0, 1, 2), repeat=3))
    draws = {stream(seed, Purpose.DRAWN_POLICY, *more).random(4).tobytes() for seed, *more in keys}
    assert len(draws) == len(keys)
    seeds = {torch_seed(seed, Purpose.PPO_SAMPLES, *more) for seed, *more in keys}
    assert len(seeds) == len(keys)


def test_numpys_integers_are_integers():
    assert stream(np.int64(7), Purpose.DATA, np.int64(3)).random() == NUMBERS[Purpose.DATA]
    assert torch_seed(np.int64(7), Purpose.REWARD_DROPOUT, np.int64(3)) == SEEDS[Purpose.REWARD_DROPOUT]


@pytest.mark.parametrize("seed", [-1, 0.5, None, "1"])
def test_a_seed_is_a_whole_number(seed):
    for draw, purpose in ((stream, Purpose.MASK), (torch_seed, Purpose.TRACED)):
        with pytest.raises(ValueError, match=r"^seed must be a whole number ≥ 0, got "):
            draw(seed, purpose)


@pytest.mark.parametrize("number", [-1, 1.5, "1", True, None])
def test_a_further_number_is_a_whole_number_and_named(number):
    with pytest.raises(ValueError, match=r"^split must be a whole number ≥ 0, got "):
        stream(0, Purpose.DATA, number)
    with pytest.raises(ValueError, match=r"^batch must be a whole number ≥ 0, got "):
        torch_seed(0, Purpose.SAMPLES, number)


def test_what_is_no_purpose_and_a_seed_that_pytorch_cannot_take_are_refused():
    for draw in (stream, torch_seed):
        with pytest.raises(ValueError, match=r"^purpose must be a Purpose, such as Purpose\.DATA, got 'MASK'$"):
            draw(0, "MASK")
    with pytest.raises(ValueError, match=r"^seed must be less than 2\*\*64 for TRACED, got 18446744073709551616$"):
        torch_seed(2**64, Purpose.TRACED)


def test_other_numbers_than_a_purpose_names_are_refused():
    with pytest.raises(ValueError, match=r"^MASK needs 0 numbers besides the seed, got 1$"):
        stream(0, Purpose.MASK, 0)
    with pytest.raises(ValueError, match=r"^DROPOUT needs 3 numbers .*, got 1$"):
        torch_seed(0, Purpose.DROPOUT, 0)
    with pytest.raises(ValueError, match=r"^purpose must be one for which NumPy draws, got TRACED$"):
        stream(0, Purpose.TRACED)
    with pytest.raises(ValueError, match=r"^purpose must be one for which PyTorch draws, got MASK$"):
        torch_seed(0, Purpose.MASK)
