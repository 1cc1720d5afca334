"""The time of a step from a config: it counts what a step does, each part over the rate that it depends on."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("transformers")

from tiny_llm import settings, tiny_model, torchrun

from gradlab.llm.model.group import Group
from gradlab.llm.model.loading import small_llama, with_lora
from gradlab.llm.model.shapes import LLAMAS
from gradlab.llm.model.step_time import H200, Rates, measured_rates, step_time
from gradlab.llm.train.policy_model import PolicyModel

SEVEN = LLAMAS["Llama-2-7B"]
PRODUCTS = Rates(products=1e12, traffic=float("inf"))  # all else costs nothing


def test_products_are_those_of_the_weights():
    tokens, answers, width = 64 * 384, 64 * 256, 384
    body = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    attention = 4 * 32 * 4096 * 64 * width**2
    taken = step_time(SEVEN, PRODUCTS, checkpointing=0)
    assert taken.total == pytest.approx(
        (6 * body * tokens + 3.5 * attention + 6 * 32000 * 4096 * answers) / 1e12, rel=0.05
    )
    assert taken.total == taken.products


@pytest.mark.parametrize(("rank", "within"), [(0, 0.01), (4, 0.04)])
def test_products_are_those_that_pytorch_counts_in_a_step(rank, within):
    model = small_llama(64, width=64, layers=4, heads=4, longest=64, seed=0)
    config = model.config.to_dict()
    rows = [(tuple(range(3, 23)), tuple(range(3, 15)), tuple(range(5, 17)))] * 4

    def counted(share):
        own = small_llama(64, width=64, layers=4, heads=4, longest=64, seed=0)
        own = with_lora(own, rank, 8.0, ["all-linear"]) if rank else own
        given = settings(
            model="m", data="d", out=Path("out"), batch=4, micro=2, precision="fp32", device="cpu", lora_rank=rank,
            gradient_checkpointing=share,
        )  # fmt: skip
        policy = PolicyModel(own, Group(), given, rate=1e-3, steps=1, pad=2)
        with FlopCounterMode(display=False) as counter:
            policy.accumulate(
                policy.parts(rows, 2), lambda places: [rows[place] for place in places],
                lambda logps, _: logps.sum(0), number=4, step=1,
            )  # fmt: skip
        return counter.get_flop_counts()["Global"][torch.ops.aten.mm]

    def computed(share):
        taken = step_time(
            config, dataclasses.replace(PRODUCTS, products=1.0), pairs=4, prompt=20, response=12, micro_pairs=2,
            lora_rank=rank, checkpointing=share, precision="fp32",
        )  # fmt: skip
        attention = 4 * 4 * 64 * 4 * 44**2  # which is no product of ``mm``
        return taken.products - 3.5 * attention, taken.again - share * attention

    assert counted(0.0) == pytest.approx(computed(0.0)[0], rel=within)
    again = counted(1.0) - counted(0.0)  # without a layer's last product, which no gradient needs, where none is frozen
    assert 0.75 * computed(1.0)[1] < again < 1.06 * computed(1.0)[1]


@pytest.mark.slow
def test_processes_send_what_is_computed():
    """Each layer is gathered twice, also where it is computed again."""
    said, _ = torchrun(Path(__file__).with_name("llm_sent_bytes.py"))
    sent = {float(share): int(number) for share, number in map(str.split, said.splitlines())}
    assert set(sent) == {0.0, 0.5, 1.0}
    for share, number in sent.items():
        taken = step_time(
            tiny_model(layers=4).config.to_dict(), dataclasses.replace(PRODUCTS, link=1.0), pairs=4, micro_pairs=1,
            gpus=2, checkpointing=share, precision="fp32",
        )  # fmt: skip
        assert number == pytest.approx(taken.link, rel=0.01)  # parts of equal size have some zeros at their end


def test_checkpointed_layers_take_their_forward_pass_again():
    none, half, every = (step_time(SEVEN, PRODUCTS, checkpointing=share) for share in (0, 0.5, 1))
    assert (none.again, none.products) == (0, every.products)
    assert half.again == pytest.approx(every.again / 2)
    assert 0.28 < every.again / every.products < 0.34


def test_prompts_that_are_read_once_save_their_second_reading():
    once, twice = (
        step_time(SEVEN, PRODUCTS, prompt=256, response=64, checkpointing=0, once=one) for one in (True, False)
    )
    assert once.products / twice.products == pytest.approx((256 + 128) / (2 * 320), rel=0.03)


def test_frozen_weights_have_no_gradient_of_their_own():
    full, lora = (step_time(SEVEN, PRODUCTS, checkpointing=0, lora_rank=rank) for rank in (0, 16))
    assert 0.66 < lora.products / full.products < 0.7
    assert step_time(SEVEN, H200, lora_rank=16).optimiser < 0.01 * step_time(SEVEN, H200).optimiser


def test_layers_below_those_that_are_trained_cost_nothing():
    whole, upper = (step_time(SEVEN, PRODUCTS, train_from=first, lora_rank=16) for first in (None, 24))
    head = 4 * 32000 * 4096 * 64 * 256 / 1e12
    assert upper.products - head == pytest.approx((whole.products - head) / 4)
    assert upper.again == pytest.approx(whole.again / 4)
    full, above = (step_time(SEVEN, PRODUCTS, train_from=first) for first in (None, 0))
    assert full.products - above.products == pytest.approx(head / 2)  # the output layer has no gradient of its own


def test_weights_in_four_bits_are_made_whole_for_each_product():
    whole, few = (step_time(SEVEN, H200, lora_rank=16, lora_base=base) for base in ("whole", "4bit"))
    matrices = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert few.traffic - whole.traffic == pytest.approx(16 * 3 * 4.5 * matrices / H200.traffic)
    assert few.products == whole.products


def test_gpus_share_the_pairs_and_must_talk():
    eight, sixteen = (step_time(SEVEN, H200, gpus=gpus) for gpus in (8, 16))
    assert sixteen.products == pytest.approx(eight.products / 2)
    assert eight.link > 0 == step_time(SEVEN, H200).link
    assert step_time(SEVEN, H200, gpus=8, sharded=False).optimiser == pytest.approx(8 * eight.optimiser)


def test_a_slow_host_makes_the_device_wait():
    slow = step_time(SEVEN, dataclasses.replace(H200, start=1.0))
    assert slow.waiting > 1000
    assert slow.total == pytest.approx(16 * 32 * 4 / 3 * 120, rel=0.01)
    assert step_time(SEVEN, dataclasses.replace(H200, start=0.0)).waiting == 0


def test_rates_of_this_machine_are_measured():
    rates = measured_rates()
    assert rates.products > 1e7
    assert rates.traffic > 1e7
    assert 0 < rates.start < 0.1


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"pairs": 0}, "pairs must be a whole number ≥ 1, got 0"),
        ({"response": 0}, "response must be finite and > 0, got 0"),
        ({"checkpointing": 2}, r"checkpointing must be finite and lie in \[0, 1\], got 2"),
        ({"precision": "fp8"}, "precision must be one of bf16, fp32; got 'fp8'"),
    ],
)
def test_what_makes_no_sense_is_refused(changed, line):
    with pytest.raises(ValueError, match=line):
        step_time(SEVEN, H200, **changed)
