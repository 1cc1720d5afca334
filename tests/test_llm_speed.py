"""The benchmark of language models measures every loss, way and trainer, in one run, and says what it has measured."""

import re
import sys

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("transformers")

from gradlab.llm.train.run_settings import OF_RECIPES
from gradlab.store.artifacts import load_frame, save_frame
from scripts.benchmarks import llm_speed
from scripts.benchmarks.timing import Measured

pytestmark = pytest.mark.slow

# TRL and gradlab use names that transformers 5.24 has begun to retire, for older ones know no others.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated and will be:FutureWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        patch.setenv("TQDM_DISABLE", "1")
        yield


def logs_of(accuracies: dict) -> pd.DataFrame:
    """Training logs: accuracy by (method, seed), looked at every 20 steps."""
    rows = [
        {"task": "tokens", "size": "tiny", "seed": seed, "method": method, "step": 20 * look + 1,
         "validation_accuracy": value}
        for (method, seed), values in accuracies.items() for look, value in enumerate(values)
    ]  # fmt: skip
    unseen = {"task": "tokens", "size": "tiny", "seed": 0, "method": "dpo", "step": 2}
    return pd.DataFrame([*rows, unseen, {**rows[0], "task": "hh", "validation_accuracy": 0.9}])


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The folder of a quick run."""
    folder = tmp_path_factory.mktemp("bench")
    runs = {("dpo", 0): [0.0, 0.5, 0.6, 0.7], ("dpo", 1): [0.0, 0.62, 0.5], ("bdpo", 0): [0.0, 0.59],
            ("ppo", 0): [0.9]}  # fmt: skip
    save_frame(logs_of(runs), folder / "logs.parquet", {})
    llm_speed.bench(folder, logs=folder / "logs.parquet", quick=True)
    return folder


@pytest.fixture
def frame(quick):
    return load_frame(quick / "llm.parquet")[0]


def test_the_manifest_says_quick_and_where(quick):
    manifest = load_frame(quick / "llm.parquet")[1]
    assert manifest["quick"] is True
    assert manifest["device"] == "cpu"
    assert manifest["left_out"] == {}
    assert all(rate > 1e8 and "measured" in source for rate, source in manifest["peak"].values())


def test_all_losses_take_a_step_on_each_batch(frame):
    steps = frame[frame["part"] == "steps"]
    for _, own in steps.groupby("size"):
        times = own.pivot(index="round", columns="method", values="seconds")
        assert set(times) == {*OF_RECIPES, llm_speed.SIDES}
        assert len(times) == 2
        assert (times > 0).all().all()
        assert (own.groupby("round")[["tokens", "flops"]].nunique() == 1).all().all()
    assert steps.groupby("size")["tokens"].nunique().max() > 1  # rounds are of different batches


def test_ways_to_get_log_probs_agree_and_have_a_peak(frame):
    ways = frame[frame["part"] == "log-probs"]
    exact = ways[ways["size"] == "tiny head"]
    assert {"full log_softmax", "gather − logsumexp", "chunks of 8"} == set(exact["method"])
    assert exact["logp_error"].max() < 1e-5
    assert exact["gradient_error"].max() < 1e-5
    assert (exact.groupby("method")["peak_mb"].max() >= 0).all()


def test_a_way_that_gives_something_else_is_refused(monkeypatch):
    head = llm_speed.EXTENTS["quick"]().heads["tiny head"].training("cpu")
    right = type(head).logps
    monkeypatch.setattr(type(head), "logps", lambda self, way: right(self, way) * (1.01 if "chunks" in way else 1))
    with pytest.raises(ArithmeticError, match="chunks of 8 must give what full log_softmax gives"):
        head.checked()


def test_trl_takes_the_same_steps(frame):
    pytest.importorskip("trl")
    trainers = frame[frame["part"] == "trainers"]
    assert set(trainers["size"]) == {"tiny, tokens", "tiny, LoRA"}
    times = trainers.pivot(index=["size", "round"], columns="method", values="seconds")
    assert list(times) == [llm_speed.OURS, llm_speed.TRL]
    assert len(times) == 4
    assert (times > 0).all().all()


def test_without_trl_the_page_says_so(monkeypatch, quick):
    monkeypatch.setitem(sys.modules, "trl", None)
    assert list(llm_speed.beside_trl(None, "cpu", 2, 1.0)) == []
    frame, manifest = load_frame(quick / "llm.parquet")
    left = frame[frame["part"] != "trainers"]
    text = llm_speed.page(llm_speed.summarise(left, dict.fromkeys(left["size"], 1e9)), None, manifest)
    assert "TRL is not installed here" in text
    assert "logs (`make llm-demo`, kept in figures/llm) are not here" in text


def test_operations_are_six_a_parameter_and_token_with_causal_attention():
    size = llm_speed.EXTENTS["quick"]().sizes["tiny, tokens"]
    training = size.training("cpu")
    lora = llm_speed.EXTENTS["quick"]().sizes["tiny, LoRA"].training("cpu")
    assert training.batch(1) == lora.batch(1)
    pairs = training.batch(1)
    answers = sum(len(side) for one in pairs for side in (one.win, one.lose))
    layers = (4 * 16 * 16 + 3 * 16 * 48, 4 * 16 * 16 + 3 * 16 * 32)
    trained = sum(one.numel() for one in lora.policy.parameters)
    wholes = [len(one.prompt) + len(side) for one in pairs for side in (one.win, one.lose)]
    for separate, tokens, looks in (  # what attention looks at, counted token by token
        (True, sum(wholes), sum(sum(range(whole)) + whole / 2 for whole in wholes)),
        (False, sum(wholes) - sum(len(one.prompt) for one in pairs),
         sum(sum(range(whole)) + whole / 2 for whole in wholes) - sum(len(one.prompt) ** 2 / 2 for one in pairs)),
    ):  # fmt: skip
        work, small = (one.work(1, separate=separate) for one in (training, lora))
        assert work["tokens"] == small["tokens"] == tokens
        assert work["flops"] == 6 * layers[0] * tokens + 12 * 16 * looks + 6 * 16 * 48 * answers
        assert small["flops"] == (4 * layers[1] + 6 * trained) * tokens + 12 * 16 * looks + 4 * 16 * 48 * answers


def test_a_step_counts_the_tokens_that_the_trainer_reads():
    training = llm_speed.EXTENTS["quick"]().sizes["tiny, tokens"].training("cpu")
    before = training.policy.tokens
    training.step("dpo")()
    assert training.work(1)["tokens"] == training.policy.tokens - before


def test_steps_work_on_the_same_weights():
    training = llm_speed.EXTENTS["quick"]().sizes["tiny, tokens"].training("cpu")
    for method in training.methods:
        training.step(method)()
        expected = 0.25 if method == "ipo" else np.log(2)
        assert training.row["loss"] == pytest.approx(expected, abs=1e-4)
    assert training.row["grad_split_error"] < 1e-5  # the last one looks at both sides


def test_the_summary_pairs_rounds():
    seconds = {
        ("dpo", 0): 1.0,
        ("bdpo", 0): 2.0,
        ("dpo", 1): 10.0,
        ("bdpo", 1): 30.0,
        ("dpo", 2): 1.0,
        ("bdpo", 2): 1.0,
    }
    frame = pd.DataFrame([
        {"part": "steps", "size": "a", "round": turn, "method": method, "seconds": value, "tokens": 8.0, "flops": 4.0,
         "peak_mb": 3.0 if method == "dpo" else 6.0} for (method, turn), value in seconds.items()
    ])  # fmt: skip
    row = llm_speed.summarise(frame, {"a": 8.0}).set_index("method").loc["bdpo"]
    assert row["ratio"] == 2.0
    assert row["peak_ratio"] == 2.0
    assert row["tokens_per_second"] == 4.0
    assert row["mfu"] == 4.0 / 2.0 / 8.0


def test_steps_to_the_accuracy_are_those_before_the_first_look_that_finds_it(quick):
    summary = pd.read_csv(quick / "llm.csv")
    logs = load_frame(quick / "logs.parquet")[0]
    found = llm_speed.to_accuracy(logs, summary).set_index("method")
    assert set(found.index) == {"dpo", "bdpo"}
    assert found.loc["dpo", ["seeds", "reached", "steps_least", "steps_median", "steps_most"]].tolist() == [
        2,
        2,
        20,
        30,
        40,
    ]
    assert found.loc["bdpo", ["seeds", "reached"]].tolist() == [1, 0]
    own = summary[(summary["size"] == "tiny, tokens") & (summary["method"] == "dpo") & (summary["part"] == "steps")]
    assert found.loc["dpo", "tokens_median"] == pytest.approx(30 * own["tokens"].iloc[0])
    assert found.loc["dpo", "seconds_median"] == pytest.approx(30 * own["seconds"].iloc[0])


def test_the_page_has_every_part(quick, frame):
    text = (quick / "llm.md").read_text("utf-8")
    assert "(quick: these numbers say nothing)" in text
    for method in frame["method"].unique():
        assert f"| `{method}` |" in text
    assert re.search(r"\| tiny \| `bdpo` \| 0 of 1 \| never \[never, never\] \|", text)
    assert re.search(r"\| tiny \| `dpo` \| 2 of 2 \| 30 \[20, 40\] \|", text)
    assert not re.search(r"\bnan\b|\binf\b", text)


def test_a_gpu_is_known_by_its_name_or_measured(monkeypatch):
    def known(name):
        monkeypatch.setattr(llm_speed.torch.cuda, "get_device_name", lambda: name)
        monkeypatch.setattr(llm_speed, "in_turn", lambda *_, **__: [Measured(0, "product", 1.0, 1.0)])
        monkeypatch.setattr(llm_speed.torch, "randn", lambda *_, **__: None)
        return llm_speed.peak_flops("cuda", "bf16")

    assert known("NVIDIA H100 80GB HBM3")[0] == 989e12
    assert known("NVIDIA H100 PCIe")[0] == 756e12
    assert known("NVIDIA A100-SXM4-80GB")[0] == 312e12
    assert known("NVIDIA L40S")[0] == 362e12
    assert known("NVIDIA GeForce GTX 1080") == (2.0 * 8192**3, "measured, a product of matrices 8192 wide")
