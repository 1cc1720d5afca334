"""What Balanced-DPO costs beside DPO: step time and peak memory, paired and interleaved.

Writes figures/benchmarks/overhead.parquet, which the claims report reads, and prints the medians. ``make bench`` runs
it. Where there is a CUDA device, the steps are measured on it too.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pandas as pd
import torch
import tyro
from torch import Tensor, nn
from tqdm import tqdm

from gradlab.lab.world import exact_pairs, gaussian_world
from gradlab.losses import PairLogps, PairLoss, pair_loss
from gradlab.store.artifacts import save_frame
from scripts.benchmarks.lab_speed import _peak_mb

ROOT = Path(__file__).resolve().parent.parent.parent
METHODS = ("dpo", "bdpo")
PAIRS, MEMORY_PAIRS = 40, 5  # paired measurements of time, and of memory (each side a process of its own)
VOCABULARY, WIDTH, LAYERS, HEADS = 4096, 256, 4, 4  # of the small language model
BATCH, TOKENS = 4, 96  # preference pairs a step, tokens a response
Step = Callable[[], None]


class CausalModel(nn.Module):
    """A small decoder-only transformer, randomly initialised."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def logp(self, tokens: Tensor) -> Tensor:
        """Summed log-probability of each sequence of tokens (B, T) after its first token, (B,)."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1] - 1, device=tokens.device)
        hidden = self.body(self.embed(tokens[:, :-1]), mask=mask, is_causal=True)
        by_token = torch.log_softmax(self.head(hidden), -1).gather(-1, tokens[:, 1:, None])
        return by_token.sum((1, 2))


def language_model_step(loss: PairLoss, device: str) -> Step:
    """One optimiser step of a small language model on a batch of pairs; the reference is precomputed."""
    torch.manual_seed(0)
    model = CausalModel().to(device)
    tokens = torch.randint(VOCABULARY, (2 * BATCH, TOKENS), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    reference = model.logp(tokens).detach()

    def step() -> None:
        logp = model.logp(tokens)
        pairs = PairLogps(logp[:BATCH], logp[BATCH:], reference[:BATCH], reference[BATCH:])
        optimizer.zero_grad()
        loss(pairs).mean().backward()
        optimizer.step()

    return step


def tabular_step(loss: PairLoss, device: str) -> Step:
    """Ten optimiser steps of the loop that one would write by hand, on all ordered pairs of a 20 × 20 world."""
    world = gaussian_world()
    reference = torch.tensor(world.ref_logp, device=device)
    weights = torch.tensor(exact_pairs(world), device=device)
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.05)

    def step() -> None:
        for _ in range(10):
            logp = torch.log_softmax(logits, -1)
            sides = (logp[:, :, None], logp[:, None, :], reference[:, :, None], reference[:, None, :])
            optimizer.zero_grad()
            (weights * loss(PairLogps(*sides))).sum().backward()
            optimizer.step()

    return step


def loss_alone(loss: PairLoss, device: str) -> Step:
    """The loss of 65,536 pairs and its gradient, and nothing else."""
    win, lose = (side.requires_grad_() for side in (-20 * torch.rand(2, 65_536, device=device) - 0.1).unbind())
    reference = win.detach() - 0.1

    def step() -> None:
        win.grad = lose.grad = None
        loss(PairLogps(win, lose, reference, reference)).sum().backward()

    return step


CASES: dict[str, Callable[[PairLoss, str], Step]] = {
    "language-model step": language_model_step, "tabular step": tabular_step, "loss alone": loss_alone,
}  # fmt: skip


def bench(folder: Path = ROOT / "figures/benchmarks", quick: bool = False) -> None:
    """Measure, print and save.

    Args:
        folder: Where overhead.parquet goes.
        quick: Two pairs: shows that it works, and nothing about cost.
    """
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    frame = pd.concat(
        [measure_times(devices, 2 if quick else PAIRS), measure_peaks(devices, 1 if quick else MEMORY_PAIRS)],
        ignore_index=True,
    )
    settings = {"quick": quick, "parameters": sum(p.numel() for p in CausalModel().parameters()), "batch": BATCH,
                "tokens": TOKENS, "threads": 1}  # fmt: skip
    save_frame(frame, folder / "overhead.parquet", settings, overwrite=True)
    medians = frame.groupby(["what", "device", "method"])[["seconds", "peak_mb"]].median().unstack("method")
    print(medians.to_string(float_format="%.4g"))


def measure_times(devices: list[str], pairs: int) -> pd.DataFrame:
    """Seconds of each step, DPO and Balanced-DPO in turn, whichever goes first changing from pair to pair."""
    torch.set_num_threads(1)  # a second thread that waits for a busy core would drown the difference
    rows = []
    for what, make in CASES.items():
        for device in devices:
            steps = {method: make(pair_loss(method), device) for method in METHODS}
            rows += [
                {"what": what, "device": device, "pair": pair, "method": method, "seconds": seconds}
                for pair, method, seconds in in_turn(steps, device, pairs, f"{what}, {device}")
            ]
    return pd.DataFrame(rows)


def in_turn(
    steps: Mapping[str, Step],
    device: str,
    rounds: int,
    title: str,
    *,
    warm: int = 2,
    limit: float = math.inf,
    before: Step | None = None,
) -> Iterator[tuple[int, str, float]]:
    """Round, name and seconds of each step: all take their turn, and the order is turned around from round to round.

    warm    rounds before the first, which are not given.
    before  a step that begins each round and is not timed: new sizes cost a GPU memory and kernels once.
    limit   seconds after which no round is begun any more, once there are three.
    """
    begun = math.inf
    for turn in tqdm(range(-warm, rounds), desc=title, disable=not sys.stderr.isatty()):
        if turn >= 3 and time.perf_counter() - begun > limit:
            return
        begun = time.perf_counter() if turn == 0 else begun
        if before:
            before()
        for name in list(steps)[:: -1 if turn % 2 else 1]:
            seconds = _seconds(steps[name], device)
            if turn >= 0:
                yield turn, name, seconds


def measure_peaks(devices: list[str], pairs: int) -> pd.DataFrame:
    """Peak memory in MB of five steps, each in a process of its own: of the device, or resident on the CPU."""
    rows = []
    cases = [(what, device, pair, method) for what in CASES for device in devices for pair in range(pairs)
             for method in METHODS]  # fmt: skip
    for what, device, pair, method in tqdm(cases, desc="memory", disable=not sys.stderr.isatty()):
        command = [sys.executable, "-m", __spec__.name, "--peak", what, device, method]
        peak = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        rows.append({"what": what, "device": device, "pair": pair, "method": method, "peak_mb": peak})
    return pd.DataFrame(rows)


def _seconds(step: Step, device: str) -> float:
    if device == "cuda":
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        step()
        ended.record()
        ended.synchronize()
        return begun.elapsed_time(ended) / 1e3
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _peak(what: str, device: str, method: str) -> float:
    torch.set_num_threads(1)
    step = CASES[what](pair_loss(method), device)
    for _ in range(5):
        step()
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else _peak_mb()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print(_peak(*sys.argv[2:5]))
    else:
        tyro.cli(bench)
