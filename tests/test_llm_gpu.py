"""Language models on a GPU: log-probabilities, a stage of training and the split into sides are those of the CPU."""

import pytest
import torch

pytest.importorskip("transformers")

import numpy as np
from tiny_llm import tiny_model, tiny_settings

from gradlab.doctor.training_log import read_log
from gradlab.llm.data.batches import collate
from gradlab.llm.model.logps import with_logps
from gradlab.llm.train.stages import train

pytestmark = [
    pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated and will be:FutureWarning"),
]  # fmt: skip
DEVICE = "cuda"
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("chunk", [3, 256])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_log_probs_and_their_gradient_are_near_those_of_the_cpu_in_float64(dtype, chunk, mean):
    rng = np.random.default_rng(0)
    vocabulary = tiny_model().config.vocab_size
    rows = [tuple(rng.integers(3, vocabulary, length).tolist() for length in rng.integers(2, 20, 2)) for _ in range(6)]

    def measured(device, dtype):
        model = with_logps(tiny_model().to(device, dtype), chunk=chunk)
        logps = model(**collate(rows, 2, device), mean=mean)
        logps.sum().backward()
        gradient = torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])
        return logps.detach(), gradient

    (exact, slope), (found, got) = measured("cpu", torch.float64), measured(DEVICE, dtype)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double().cpu(), exact, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert (got.double().cpu() - slope).norm() < 5 * TOLERANCE[dtype] * slope.norm()


@pytest.fixture(scope="module")
def logs(inputs, tmp_path_factory):
    """A log of each training: the same on both devices, in bfloat16 also without."""

    def log(device, **changed):
        out = tmp_path_factory.mktemp(device)
        own = {"sft_epochs": 1.0, "reference_steps": 2, "loss": ("bdpo",), "sides_every": 1, "learning_rate": 1e-3}
        train(tiny_settings(inputs, out, device=device, **{**own, **changed}))
        return read_log(out / "bdpo/log.jsonl")

    return {
        "cpu": log("cpu"), "fp32": log(DEVICE), "bf16": log(DEVICE, precision="bf16"),
        "lora": log(DEVICE, precision="bf16", lora_rank=2, gradient_checkpointing=True),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["loss", "logp_win", "logp_lose", "grad_norm", "validation_loss", "delta_win"])
def test_a_stage_of_training_is_near_that_of_the_cpu(logs, name):
    np.testing.assert_allclose(logs["fp32"][name], logs["cpu"][name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["loss", "logp_win", "logp_lose"])
def test_bfloat16_is_near_float32(logs, name):
    np.testing.assert_allclose(logs["bf16"][name], logs["fp32"][name], rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("run", "most"), [("cpu", 1e-5), ("fp32", 1e-5), ("bf16", 0.02), ("lora", 0.02)])
def test_the_gradients_of_both_sides_add_up(logs, run, most):
    errors = logs[run]["grad_split_error"].dropna()
    assert len(errors) == 4
    assert (errors < most).all()
