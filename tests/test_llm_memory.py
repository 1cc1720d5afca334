"""Memory computed from a config: counts against real models, bytes against every tensor that PyTorch makes."""

import contextlib
import dataclasses
import weakref
from importlib.util import find_spec

import pytest
import torch

pytest.importorskip("transformers")

import tiny_llm
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from gradlab.llm.data.batches import collate
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model.checkpointed_layers import checkpoint_layers
from gradlab.llm.model.group import Group, gradients_meet
from gradlab.llm.model.loading import load_model, with_lora
from gradlab.llm.model.logps import CHUNK, with_logps
from gradlab.llm.model.memory import CARD, Memory, memory
from gradlab.llm.model.memory_table import memory_table
from gradlab.llm.model.shapes import LLAMAS, shape_of
from gradlab.llm.model.token_logps import from_hidden
from gradlab.llm.train.pair_task import PairTask
from gradlab.llm.train.policy_model import PolicyModel
from gradlab.losses import DPO

# Names that transformers gave up later, and that peft and older versions know alone.
pytestmark = pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing(_enable)?. is deprecated:FutureWarning")
SMALL = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 300,
}  # fmt: skip
KINDS = {
    "as it is": {},
    "grouped keys": {"num_key_value_heads": 2},
    "keys left out": {"num_key_value_heads": None},
    "tied": {"tie_word_embeddings": True},
    "odd widths": {"intermediate_size": 177, "vocab_size": 1},
    "wide heads": {"head_dim": 24},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2},
    "qwen2, tied": {"model_type": "qwen2", "tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", "num_key_value_heads": 2, "head_dim": 32},
}


def built(config, **more):
    own = AutoConfig.for_model(**{key: value for key, value in config.items() if value is not None})
    return AutoModelForCausalLM.from_config(own, **more)


@pytest.mark.parametrize("change", KINDS.values(), ids=KINDS)
def test_parameters_are_counted_as_the_real_model_has_them(change, tmp_path):
    config = SMALL | change
    model = built(config)
    real = sum(one.numel() for one in model.parameters())
    assert shape_of(config).parameters == real
    model.config.save_pretrained(tmp_path)
    assert shape_of(tmp_path) == shape_of(config)  # what a folder leaves out is what a mapping leaves out


@pytest.mark.parametrize(
    ("name", "number"),
    [("Llama-2-7B", 6_738_415_616), ("Llama-2-13B", 13_015_864_320), ("CodeLlama-34B", 33_743_970_304)],
)
def test_the_known_models_have_their_known_size(name, number):
    assert shape_of(LLAMAS[name]).parameters == number


@pytest.mark.parametrize("targets", [("all-linear",), ("q_proj", "v_proj"), ("down_proj",)])
@pytest.mark.parametrize("change", [{}, {"num_key_value_heads": 2, "head_dim": 24}], ids=["plain", "grouped"])
def test_an_adapter_is_counted_as_peft_makes_it(targets, change):
    names = "all-linear" if targets == ("all-linear",) else list(targets)
    model = get_peft_model(
        built(SMALL | change), LoraConfig(r=3, target_modules=names, task_type="CAUSAL_LM")
    )  # fmt: skip
    real = sum(one.numel() for one in model.parameters() if one.requires_grad)
    shape = shape_of(SMALL | change)
    assert shape.trained(3, targets) == real
    assert shape.trained(0, targets) == shape.parameters


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is on, and live; ``peak`` is the most there were."""

    def __init__(self):
        super().__init__()
        self.made, self.peak = {}, 0

    @property
    def now(self):
        here = [storage() for storage in self.made.values()]
        self.made = {key: own for key, own in self.made.items() if own() is not None}
        return sum(storage.nbytes() for storage in here if storage is not None)  # FSDP empties storages in place

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        before = {one._cdata for one in self.storages((args, kwargs))}
        new = [one for one in self.storages(out) if one._cdata not in before]
        self.made |= {one._cdata: weakref.ref(one) for one in new}
        if new:
            self.peak = max(self.peak, self.now)
        return out

    @staticmethod
    def storages(tree):
        return [
            one.untyped_storage()
            for one in tree_leaves(tree)
            if isinstance(one, torch.Tensor) and not isinstance(one, DTensor)
        ]


WIDE = SMALL | {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 8,
                "num_key_value_heads": 2, "vocab_size": 2000}  # fmt: skip


def tracked(lora, half, checkpointing, pairs=2, length=128, chunk=CHUNK):
    """What a micro-batch holds between its pass forward and its pass backward, and at its peak."""
    model = built(WIDE, dtype=torch.bfloat16 if lora and half else torch.float32)
    if lora:
        model = get_peft_model(model, LoraConfig(r=8, target_modules=lora, task_type="CAUSAL_LM"))
    checkpoint_layers(model, checkpointing)
    with_logps(model, chunk=chunk).train()
    ids = torch.randint(0, WIDE["vocab_size"], (2 * pairs, length), generator=torch.Generator().manual_seed(0))
    rows = [((first,), tuple(rest)) for first, *rest in ids.tolist()]
    rows[0] = (rows[0][0], rows[0][1][:-3])  # with padding attention needs a mask
    batch = collate(rows, 0)
    for one in model.parameters():
        one.grad = torch.zeros_like(one) if one.requires_grad else None  # as of an earlier micro-batch
    with Live() as live:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logps = model(**batch)
        held = live.now
        logps.sum().backward()
    return held, live.peak


@pytest.mark.parametrize("checkpointing", [1.0, 0.5, 0.0], ids=["checkpointing", "half of the layers", "all kept"])
@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp32", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "lora",
    [None, *(pytest.param(some, marks=pytest.mark.slow) for some in (["q_proj", "v_proj"], "all-linear"))],
    ids=["full", "two", "all-linear"],
)
def test_activations_are_those_of_a_real_step(lora, precision, checkpointing):
    half, few = precision == "bf16", 8
    held, _ = tracked(lora, half, checkpointing, chunk=few)
    _, peak = tracked(lora, half, checkpointing)
    # The last chunk's logits and the output layer's copy in bfloat16 stay until the backward pass, which begins there.
    held -= (4 * few + (2 * WIDE["hidden_size"] if half else 0)) * WIDE["vocab_size"] if not lora else 0
    made = memory(
        WIDE, lora_rank=8 if lora else 0, lora_targets=["all-linear"] if isinstance(lora, str) else lora or (),
        micro_pairs=2, length=128, once=False, checkpointing=checkpointing, precision=precision, sides=False,
    )  # fmt: skip
    assert 0.97 < made.kept / held < 1.05
    assert 0.95 < made.activations / peak < 1.3  # the peak is computed as an upper bound, hence the other side


@pytest.mark.slow
@pytest.mark.parametrize(("checkpointing", "train_from"), [(1.0, None), (0.0, 2)], ids=["all layers", "upper layers"])
@pytest.mark.parametrize("lora_rank", [0, 16], ids=["full", "LoRA"])
def test_the_whole_is_that_of_the_real_trainer(lora_rank, checkpointing, train_from, tmp_path):
    """From loading to the end of the second step, in which sides are compared and moments are there."""
    settings = tiny_llm.settings(
        model="none", data="none", out=tmp_path, loss=("dpo",), batch=4, micro=2, sides_every=1,
        lora_rank=lora_rank, gradient_checkpointing=checkpointing, train_from=train_from, device="cpu",
        precision="bf16",
    )  # fmt: skip
    pairs = [Encoded((0, 1), tuple(range(126 - number)), tuple(range(108))) for number in range(4)]
    task = PairTask(DPO(1.0), pairs, torch.zeros(4, 2), [], torch.zeros(0, 2))
    with Live() as live:
        model = built(WIDE, dtype=torch.bfloat16 if lora_rank else torch.float32)
        if lora_rank:
            model = with_lora(model, lora_rank, 16.0, ["all-linear"], first=train_from or 0)
        policy = PolicyModel(model, Group(), settings, rate=1e-4, steps=2, pad=0)
        for step in (1, 2):
            live.peak = 0
            policy.step(step, task.gradient(policy, step)["grad_norm"])
    made = memory(
        WIDE, lora_rank=lora_rank, train_from=train_from, micro_pairs=2, length=128, checkpointing=checkpointing
    )  # fmt: skip
    assert 0.97 < made.total / live.peak < 1.1


def peak_of_two_steps(prompt, lora_rank, checkpointing, precision, sides, tmp_path):
    """The peak in the second step, whose pairs have 128 tokens per side, the prompt's among them."""
    settings = tiny_llm.settings(
        model="none", data="none", out=tmp_path, loss=("dpo",), batch=4, micro=2, sides_every=int(sides),
        lora_rank=lora_rank, gradient_checkpointing=checkpointing, device="cpu", precision=precision,
    )  # fmt: skip
    win, lose = (tuple(range(128 - prompt - less)) for less in (0, 1))
    task = PairTask(DPO(1.0), [Encoded(tuple(range(prompt)), win, lose)] * 4, torch.zeros(4, 2), [], torch.zeros(0, 2))
    half = lora_rank and precision == "bf16"
    with Live() as live:
        model = built(WIDE, dtype=torch.bfloat16 if half else torch.float32)
        model = with_lora(model, lora_rank, 16.0, ["all-linear"]) if lora_rank else model
        policy = PolicyModel(model, Group(), settings, rate=1e-4, steps=2, pad=0)
        assert policy.layout.once
        for step in (1, 2):
            live.peak = 0
            policy.step(step, task.gradient(policy, step)["grad_norm"])
    return live.peak


SHARED = [
    pytest.param(prompt, lora, checkpointing, precision, marks=[] if prompt == 64 and not lora else pytest.mark.slow)
    for prompt in (2, 64, 110) for lora in (0, 16) for checkpointing in (0.0, 1.0) for precision in ("fp32", "bf16")
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "lora_rank", "checkpointing", "precision"), SHARED)
def test_a_prompt_that_both_responses_share_is_held_once(prompt, lora_rank, checkpointing, precision, tmp_path):
    how = {"lora_rank": lora_rank, "checkpointing": checkpointing, "precision": precision}
    for sides in (True, False):
        peak = peak_of_two_steps(prompt, **how, sides=sides, tmp_path=tmp_path)
        made, most = (
            memory(WIDE, micro_pairs=2, length=128, prompt=shared, sides=sides, **how).total for shared in (prompt, 0)
        )
        assert 0.97 < made / peak < 1.16  # a bound, which is coarsest where responses are short
        assert most >= made


def test_comparing_the_sides_costs_more_where_prompts_are_long():
    """The other side's activations, which are not there meanwhile, are then few."""
    short, long = (memory(WIDE, length=512, prompt=prompt, checkpointing=0, precision="fp32") for prompt in (0, 480))
    assert short.sides < long.sides
    assert short.total > long.total


@contextlib.contextmanager
def one_of_eight(config):
    """Process 0 of 8, its model spread as gradlab.llm.model.group does, and a pass over two sequences of 512 tokens.

    Tensors have no numbers, so that Llama's widths cost nothing; and the network sends nothing.
    """
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    try:
        mesh = init_device_mesh("cpu", (8,))
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
        with FakeTensorMode(allow_non_fake_inputs=True), Live() as live:
            model = built(config)
            model.forward = lambda ids, mask: from_hidden(
                model.lm_head, model.model(ids, mask, use_cache=False)[0].flatten(0, 1), ids.flatten(), 256
            )
            model.gradient_checkpointing_enable({"use_reentrant": False})
            for layer in model.model.layers:
                fully_shard(layer, mesh=mesh, mp_policy=policy)
            fully_shard(model, mesh=mesh, mp_policy=policy)
            ids, mask = torch.zeros(2, 512, dtype=torch.long), torch.ones(2, 512, dtype=torch.long)
            yield model, live, lambda: model(ids, mask).sum().backward()
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_what_fsdp_gathers_is_what_a_process_of_eight_holds():
    config = LLAMAS["Llama-2-7B"] | {"num_hidden_layers": 3}
    with one_of_eight(config) as (model, live, run):
        weights = sum(one.to_local().nbytes for one in model.parameters())
        for _ in range(3):  # one more than FSDP needs to settle
            before = live.now
            live.peak = 0
            run()
        gradients = sum(one.grad.to_local().nbytes for one in model.parameters())
        peak = live.peak - before
    made = memory(config, gpus=8, sides=False)
    assert made.weights == pytest.approx(weights, rel=1e-6)
    assert made.gradients == pytest.approx(gradients, rel=1e-6)
    assert made.moments == 2 * made.gradients
    assert 1.0 < (made.gathered + made.kept + made.working) / peak < 1.15


def test_gradients_stay_spread_between_micro_batches():
    with one_of_eight(SMALL) as (model, live, run):
        run()
        before = live.now
        with gradients_meet(model, False):
            run()
        assert live.now < 1.1 * before


def test_parts_scale_as_they_must():
    seven = LLAMAS["Llama-2-7B"]
    eight, sixteen = memory(seven, gpus=8), memory(seven, gpus=16)
    for part in ("weights", "gradients", "moments"):
        assert getattr(eight, part) == pytest.approx(2 * getattr(sixteen, part), rel=1e-8)
    assert (eight.kept, eight.gathered) == (sixteen.kept, sixteen.gathered)
    copied = memory(seven, gpus=8, sharded=False)
    assert copied.weights == 4 * 6_738_415_616
    assert copied.gradients == 2 * copied.weights  # DDP's buckets
    assert copied.gathered == 0
    assert memory(seven, gpus=1).total == memory(seven, gpus=1, sharded=False).total
    assert memory(seven, micro_pairs=2).kept == 2 * memory(seven, micro_pairs=1).kept
    assert memory(seven, checkpointing=0).kept > 10 * memory(seven).kept
    half = memory(seven, checkpointing=0.5)
    assert half.kept == pytest.approx((memory(seven, checkpointing=0).kept + memory(seven).kept) / 2, rel=1e-3)
    with pytest.raises(ValueError, match=r"checkpointing must be finite and lie in \[0, 1\], got 2"):
        memory(seven, checkpointing=2)
    assert memory(seven, sides=False).sides == 0
    assert eight.total == sum(dataclasses.astuple(eight))
    assert eight.activations == eight.kept + eight.working


def test_upper_layers_alone_have_gradients_moments_and_activations():
    seven = LLAMAS["Llama-2-7B"]
    whole, upper = memory(seven, checkpointing=0), memory(seven, checkpointing=0, train_from=26)
    assert upper.weights == whole.weights
    assert upper.gradients == 4 * (6 * shape_of(seven).layer + 4096)  # six layers and the last norm
    assert upper.moments == 2 * upper.gradients
    assert upper.kept == pytest.approx(whole.kept * 6 / 32, rel=0.1)
    assert memory(seven, train_from=0).gradients < whole.gradients  # neither end is trained
    lora = memory(seven, lora_rank=16, train_from=26)
    assert lora.gradients == memory(seven, lora_rank=16).gradients * 6 / 32


def test_a_base_in_four_bits_keeps_its_linear_layers_at_half_a_byte():
    shape = shape_of(LLAMAS["Llama-2-7B"])
    whole, few = (memory(LLAMAS["Llama-2-7B"], lora_rank=16, lora_base=base) for base in ("whole", "4bit"))
    matrices = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert whole.weights - few.weights == pytest.approx((2 - 0.5 - 1 / 64 - 1 / 4096) * matrices, rel=1e-6)
    assert whole.working <= few.working <= whole.working + 2 * 4096 * 11008  # a matrix made whole for its product
    assert (few.gradients, few.moments, few.kept) == (whole.gradients, whole.moments, whole.kept)
    assert shape.layers * shape.matrices == matrices


@pytest.mark.slow
@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
def test_a_base_in_four_bits_is_as_large_as_bitsandbytes_makes_it(tmp_path):
    built(WIDE).save_pretrained(tmp_path)
    base = load_model(tmp_path, dtype=torch.bfloat16, four_bits_on=torch.device("cpu"))
    states = [one.quant_state for one in base.parameters() if getattr(one, "quant_state", None) is not None]
    assert len(states) == 7 * WIDE["num_hidden_layers"]
    scales = sum(state.absmax.nbytes + state.state2.absmax.nbytes for state in states)
    real = sum(one.nbytes for one in base.parameters()) + scales
    adapter = 4 * shape_of(WIDE).trained(16, ("all-linear",))
    assert memory(WIDE, lora_rank=16, lora_base="4bit").weights - adapter == pytest.approx(real, abs=7 * 4 * 64)


def test_a_card_is_full_where_it_says_so():
    assert Memory(int(CARD), 0, 0, 0, 0, 0, 0).fits
    assert not Memory(int(CARD), 0, 0, 0, 0, 0, 1).fits


def test_the_table_has_every_model_and_way():
    table = memory_table(full=(8, 16))
    assert list(table["model"].unique()) == list(LLAMAS)
    assert list(table["gpus"]) == [1, 1, 8, 16] * 3
    row = table[(table["model"] == "Llama-2-13B") & (table["gpus"] == 8)].iloc[0]
    made = memory(LLAMAS["Llama-2-13B"], gpus=8)
    assert row["total"] == made.total / 1e9
    assert row["fits"] == made.fits
    longer = memory_table({"mine": SMALL}, full=(), length=1024)
    assert list(longer["trained"]) == ["LoRA", "LoRA, base in 4 bits"]
    assert longer["kept"][0] == memory(SMALL, lora_rank=16, length=1024).kept / 1e9


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (SMALL | {"model_type": "gpt2"}, "model_type must be one of llama, mistral, qwen2; got 'gpt2'"),
        (SMALL | {"hidden_size": None}, "hidden_size must be a whole number ≥ 1, got None"),
        (SMALL | {"vocab_size": 0}, "vocab_size must be a whole number ≥ 1, got 0"),
        (SMALL | {"model_type": "qwen2", "num_key_value_heads": None}, "num_key_value_heads must be"),
    ],
)
def test_a_config_that_cannot_be_used_is_one_line(config, line):
    with pytest.raises(ValueError, match=line) as caught:
        memory(config)
    assert "\n" not in str(caught.value)


def test_arguments_that_cannot_be_used_are_one_line(tmp_path):
    for name in ("gpus", "micro_pairs", "length", "chunk"):
        with pytest.raises(ValueError, match=f"{name} must be a whole number ≥ 1, got 0"):
            memory(SMALL, **{name: 0})
    with pytest.raises(ValueError, match="prompt must be at most length, 64, got 65"):
        memory(SMALL, length=64, prompt=65)
    with pytest.raises(ValueError, match="prompt must be a whole number ≥ 0, got -1"):
        memory(SMALL, prompt=-1)
    with pytest.raises(ValueError, match=r"lora_targets must be one of q_proj, .*got 'c_attn'"):
        memory(SMALL, lora_rank=4, lora_targets=("c_attn",))
    with pytest.raises(ValueError, match="train_from must be below the number of layers, 2, got 2"):
        memory(SMALL, train_from=2)
    with pytest.raises(ValueError, match="train_from must be a whole number ≥ 0, got -1"):
        memory(SMALL, train_from=-1)
    with pytest.raises(ValueError, match="lora_base must be one of whole, 4bit; got '8bit'"):
        memory(SMALL, lora_rank=2, lora_base="8bit")
    with pytest.raises(ValueError, match="lora_rank must be 1 or more where lora_base is 4bit, got 0"):
        memory(SMALL, lora_base="4bit")
    with pytest.raises(ValueError, match="sharded must be False over several GPUs where lora_base is 4bit, got True"):
        memory(SMALL, lora_rank=2, lora_base="4bit", gpus=2)
    with pytest.raises(ValueError, match="precision must be one of bf16, fp32; got 'fp16'"):
        memory(SMALL, precision="fp16")
    with pytest.raises(OSError, match=r"config must be a mapping, a model's folder or a hub's name, got '.*nothing'"):
        memory(tmp_path / "nothing")
